"""How far a MACE's atoms are from what it was trained on, told as an expected error of their forces.

The node features of a MACE describe each atom's surroundings. For each element they are compared with those of the
training set by the Mahalanobis distance (Lee et al., NeurIPS 2018, 31, 7167), and held-out frames tell what error of
the force goes with what distance. The features come with the forces, so the estimate costs a few products of small
matrices. It knows the student's error against its teacher, not the teacher's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reliability:
    """Means and whitening matrices of the node features by element, and the calibration of distances.

    Attributes:
        means: `n_elements x d`.
        whiteners: `n_elements x d x d`; features less their mean, times this, have unit covariance in training.
        exponents: Slope and intercept of log(error of the force, eV/Å) over log(distance), `2`.
        threshold: Expected error of a force in eV/Å above which dynamics are not to be trusted.
    """

    means: Tensor
    whiteners: Tensor
    exponents: Tensor
    threshold: float

    @classmethod
    def fit(cls, features: Tensor, kinds: Tensor, n_kinds: int, *, shrinkage: float = 4.0) -> Reliability:
        """Means and covariances of training features; elements with few atoms lean on all elements' covariance.

        Args:
            features: `n x d`.
            kinds: Index of the element of each atom, `n`.
            n_kinds: Number of elements.
            shrinkage: Weight of the pooled covariance of the elements, in atoms per feature.

        Returns:
            An uncalibrated estimate: its exponents are 1 and 0, its threshold infinite.
        """
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
        return cls(
            torch.stack(means).float(), torch.stack(whiteners).float(), torch.tensor([1.0, 0.0]), float("inf")
        )

    def distances(self, features: Tensor, kinds: Tensor) -> Tensor:
        """Mahalanobis distance of each atom from its element's training set over √d, `n`: about 1 in training."""
        centred = features.to(self.means) - self.means[kinds]
        white = torch.empty_like(centred)
        for kind in kinds.unique():
            mine = kinds == kind
            white[mine] = centred[mine] @ self.whiteners[kind]
        return white.pow(2).mean(dim=1).sqrt()

    def force_errors(self, features: Tensor, kinds: Tensor) -> Tensor:
        """Expected error of each atom's force components in eV/Å, `n`."""
        slope, intercept = self.exponents
        return torch.exp(intercept + slope * self.distances(features, kinds).clamp_min(1e-6).log())

    def calibrated(self, distances: Tensor, errors: Tensor, threshold: float) -> Reliability:
        """The same with a power law from distance to error, fitted to bins of held-out atoms.

        Args:
            distances: Of held-out atoms, `n`.
            errors: Mean absolute errors of the components of their forces in eV/Å, `n`.
            threshold: See `Reliability`.

        Raises:
            ValueError: fewer than 100 atoms.
        """
        if len(distances) < 100:
            raise ValueError(f"a calibration needs at least 100 held-out atoms, not {len(distances)}")
        order = distances.argsort()
        # Means of bins, since the expected error is wanted and not its typical logarithm.
        bins = torch.tensor_split(order, 20)
        x = torch.stack([distances[b].double().mean().log() for b in bins])
        y = torch.stack([errors[b].double().mean().log() for b in bins])
        slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).pow(2).sum()
        exponents = torch.stack([slope, y.mean() - slope * x.mean()]).float()
        return Reliability(self.means, self.whiteners, exponents, threshold)

    def to_dict(self) -> dict[str, Any]:
        """Tensors and numbers that `torch.load(weights_only=True)` reads."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Reliability:
        """What `to_dict` wrote."""
        return cls(**content)
