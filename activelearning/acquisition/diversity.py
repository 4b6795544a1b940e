"""Diversity of a batch: queries that resemble what was chosen, or is pending, count for less.

Two queries are as alike as exp(−½ |x − x'|²/ℓ²) of their features, and by a constant less where their fidelities
differ. Each of the classes keeps, for every query of a pool, the share of it that is still its own: 1 beside nothing,
0 for a copy of what was taken. A score is multiplied by that share, and a negative score divided by it.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

# How alike one candidate is to itself at another fidelity.
ACROSS = 0.5
# What is left of a copy; keeps a score's sign, and its order among copies.
_LEAST = 1e-9


class Diversity(Protocol):
    """Shares of a pool's queries that are still their own."""

    share: Tensor

    def take(self, X: Tensor) -> None:
        """Take notice of queries that were chosen or are pending, `q x (d + 1)`."""
        ...


class Repulsion:
    """The share is one minus the likeness to the nearest query taken.

    The soft form of a minimum distance: within ℓ of a query taken at most 39 % of a score is left, within ℓ/10 0.5 %.
    As in local penalisation (González, Dai, Hennig & Lawrence, AISTATS 2016) a pick lowers what is around it.

    Args:
        X: The pool, `n x (d + 1)`.
        scale: ℓ.
    """

    def __init__(self, X: Tensor, scale: float) -> None:
        self._X, self._scale = X, scale
        self.share = torch.ones(len(X), dtype=X.dtype)

    def take(self, X: Tensor) -> None:
        """Take notice of queries that were chosen or are pending, `q x (d + 1)`."""
        if len(X):
            nearest = similarity(self._X, X, self._scale).amax(dim=1)
            self.share = torch.minimum(self.share, (1.0 - nearest).clamp_min(_LEAST))


class Determinantal:
    """The share is what the queries taken leave of a query's variance under the likeness as covariance.

    Choosing the greatest score × share again and again is the greedy search for the batch of greatest det L with
    L_ij = √(score_i score_j) · likeness_ij, a determinantal point process (Kulesza & Taskar, *Determinantal point
    processes for machine learning*, 2012). A new pick costs O(n · picks): a row of the Cholesky factor for every query
    is kept (Chen, Zhang & Zhou, *Fast greedy MAP inference for determinantal point process*, NeurIPS 2018).

    Args:
        X: The pool, `n x (d + 1)`.
        scale: ℓ.
    """

    def __init__(self, X: Tensor, scale: float) -> None:
        self._X, self._scale = X, scale
        self._taken = X.new_empty(0, X.shape[-1])
        self._factor = X.new_empty(0, 0)  # of the likeness of what was taken
        self._rows = X.new_empty(0, len(X))  # factor⁻¹ · likeness of taken and pool
        self.share = torch.ones(len(X), dtype=X.dtype)

    def take(self, X: Tensor) -> None:
        """Take notice of queries that were chosen or are pending, `q x (d + 1)`."""
        for x in X.split(1) if len(X) else ():  # nothing is split into one part of nothing
            k = len(self._taken)
            cross = similarity(self._taken, x, self._scale)
            left = torch.linalg.solve_triangular(self._factor, cross, upper=False).squeeze(-1)
            rest = 1.0 - float(left.square().sum())
            if rest <= _LEAST:
                continue  # a copy, up to rounding, of what was taken leaves nothing else to be explained
            root = math.sqrt(rest)
            row = (similarity(x, self._X, self._scale) - left @ self._rows) / root
            factor = self._factor.new_zeros(k + 1, k + 1)
            factor[:k, :k], factor[k, :k], factor[k, k] = self._factor, left, root
            self._factor, self._taken = factor, torch.cat([self._taken, x])
            self._rows = torch.cat([self._rows, row])
            self.share = (self.share - row.squeeze(0).square()).clamp_min(_LEAST)


def similarity(X: Tensor, Z: Tensor, scale: float) -> Tensor:
    """Likeness of queries `n x (d + 1)` and `m x (d + 1)`, `n x m`, in [0, 1]; positive semi-definite."""
    distances = torch.cdist(X[:, :-1], Z[:, :-1], compute_mode="donot_use_mm_for_euclid_dist")
    alike = (-0.5 * (distances / scale).square()).exp()
    same = X[:, -1].round().unsqueeze(-1) == Z[:, -1].round()
    return torch.where(same, alike, ACROSS * alike)


def batch_scale(X: Tensor, n: int) -> float:
    """The length ℓ at which `n` queries fill the pool: its median distance ÷ n^(1/d), d the features that differ.

    So many balls of this radius have the volume of one whose radius is the median distance of two candidates.

    Args:
        X: The pool, `m x (d + 1)`.
        n: Queries in the batch.

    Returns:
        The length, in units of the features; 1 where all candidates are one.
    """
    features = torch.unique(X[:, :-1], dim=0)
    distances = torch.pdist(features)
    distances = distances[distances > 0.0]
    if not len(distances):
        return 1.0
    dimensions = int((features.amax(0) > features.amin(0)).sum())
    return float(distances.median()) / max(n, 1) ** (1.0 / dimensions)


def diverse(scores: Tensor, share: Tensor) -> Tensor:
    """Scores less what a query shares with those taken, elementwise; a negative one becomes no better."""
    return torch.where(scores > 0.0, scores * share, scores / share)
