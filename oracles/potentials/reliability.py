"""What error a MACE's forces are expected to have, from the forces and the atoms' surroundings alone.

Three things foresee the error of the force on an atom: its element, the size of the force (a steep wall is learned to
a relative accuracy), and how far its surroundings are from those of its element in training. For the last the node
features that a MACE computes on its way are compared with the training set's by the Mahalanobis distance (Lee et al.,
NeurIPS 2018, 31, 7167). The estimate costs a few products of small matrices. It is one of the student's error against
its teacher, not of the teacher's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

FORCE_FLOOR = 0.1  # eV/Å, added to the size of a force before its logarithm is taken
ERROR_FLOOR = 0.01  # eV/Å, likewise for errors in the fit
RIDGE = 10.0  # on the logarithmic coefficients, in atoms


@dataclass(frozen=True)
class Reliability:
    """log e = offset of the element + slope · log d + slope' · log(|F| + `FORCE_FLOOR`), for each atom.

    Attributes:
        means: Of the node features of each element in training, `n_elements x d`: of the last d features that the
            model computes, those of its last layers, where there are more.
        whiteners: `n_elements x d x d`; features less their mean, times this, have unit covariance in training.
        offsets: `n_elements`, logarithm of eV/Å.
        slopes: Of the logarithms of the distance and of the force, `2`.
        threshold: Mean expected error of a force component, eV/Å, above which a structure is not to be trusted.
    """

    means: Tensor
    whiteners: Tensor
    offsets: Tensor
    slopes: Tensor
    threshold: float

    @classmethod
    def fit(
        cls,
        features: Tensor,
        kinds: Tensor,
        forces: Tensor,
        errors: Tensor,
        n_kinds: int,
        *,
        shrinkage: float = 4.0,
    ) -> Reliability:
        """Describe the training set and learn the errors that are left on it.

        Args:
            features: Node features, `n x d`.
            kinds: Index of the element of each atom, `n`.
            forces: The model's, eV/Å, `n x 3`.
            errors: Mean absolute errors of the components of these forces, eV/Å, `n`.
            n_kinds: Number of elements.
            shrinkage: How much covariances of elements with few atoms lean on all elements', in atoms per feature.

        Returns:
            An estimate to be `rescaled` to errors on held-out structures; its threshold is infinite.
        """
        means, whiteners = _describe(features, kinds, n_kinds, shrinkage)
        unfinished = cls(means, whiteners, torch.zeros(n_kinds), torch.zeros(2), math.inf)
        logs = unfinished._logs(features, kinds, forces)
        codes = torch.nn.functional.one_hot(kinds, n_kinds)
        design = torch.cat([codes, logs], dim=1).double()
        target = (errors.double() + ERROR_FLOOR).log()
        centre = target.mean()  # towards which elements with few atoms are drawn
        penalty = RIDGE * torch.eye(design.shape[1], dtype=design.dtype)
        found = torch.linalg.solve(design.T @ design + penalty, design.T @ (target - centre))
        # Never may surroundings far from training lower the expected error.
        slopes = found[n_kinds:].clamp_min(0.0)
        return cls(means, whiteners, (found[:n_kinds] + centre).float(), slopes.float(), math.inf)

    def distances(self, features: Tensor, kinds: Tensor) -> Tensor:
        """Mahalanobis distance of each atom from its element's training set over √d, `n`: about 1 in training."""
        centred = features.to(self.means)[:, -self.means.shape[1] :] - self.means[kinds]
        white = torch.empty_like(centred)
        for kind in kinds.unique():
            mine = kinds == kind
            white[mine] = centred[mine] @ self.whiteners[kind]
        return white.pow(2).mean(dim=1).sqrt()

    def _logs(self, features: Tensor, kinds: Tensor, forces: Tensor) -> Tensor:
        distances = self.distances(features, kinds).clamp_min(0.05)
        sizes = forces.to(self.means).norm(dim=1) + FORCE_FLOOR
        return torch.stack([distances, sizes], dim=1).log()

    def force_errors(self, features: Tensor, kinds: Tensor, forces: Tensor) -> Tensor:
        """Expected mean absolute error of each atom's force components in eV/Å, `n`.

        Args:
            features: Node features, `n x d`.
            kinds: Index of the element of each atom, `n`.
            forces: The model's, eV/Å, `n x 3`.
        """
        return torch.exp(self.offsets[kinds] + self._logs(features, kinds, forces) @ self.slopes)

    def rescaled(self, factor: float, threshold: float) -> Reliability:
        """The same with all expected errors multiplied by a factor, and a threshold in eV/Å."""
        return replace(self, offsets=self.offsets + math.log(factor), threshold=threshold)

    def to_dict(self) -> dict[str, Any]:
        """Tensors and numbers that `torch.load(weights_only=True)` reads."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Reliability:
        """What `to_dict` wrote."""
        return cls(**content)


def _describe(features: Tensor, kinds: Tensor, n_kinds: int, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Means (`n_kinds x d`) and whitening matrices (`n_kinds x d x d`) of each element's features."""
    rows = features.double()
    d = rows.shape[1]
    overall = rows.mean(dim=0)
    means, deviations = [], torch.empty_like(rows)
    for kind in range(n_kinds):
        mine = kinds == kind
        mean = rows[mine].mean(dim=0) if mine.any() else overall
        means.append(mean)
        deviations[mine] = rows[mine] - mean
    pooled = deviations.T @ deviations / len(rows)
    # Features that never vary would make any rounding a great distance.
    pooled += 1e-6 * pooled.diagonal().mean() * torch.eye(d, dtype=pooled.dtype)
    whiteners = []
    for kind in range(n_kinds):
        own = deviations[kinds == kind]
        weight = shrinkage * d
        covariance = (own.T @ own + weight * pooled) / (len(own) + weight)
        # Σ⁻¹ = L⁻ᵀ L⁻¹, so that |xᵀ L⁻ᵀ|² is the squared distance.
        inverse = torch.linalg.solve_triangular(
            torch.linalg.cholesky(covariance), torch.eye(d, dtype=pooled.dtype), upper=False
        )
        whiteners.append(inverse.T)
    return torch.stack(means).float(), torch.stack(whiteners).float()
