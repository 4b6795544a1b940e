"""Distances in a cell, and how small they may be.

Two atoms, periodic images and images of one atom included, keep at least `MIN_DISTANCE_RATIO` times the sum of their
covalent radii. Lengths are in Å.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.elements import properties

Floats = NDArray[np.float64]

# Over the sum of covalent radii (Cordero et al., Dalton Trans. 2008). All of 3,282 structures of the Materials Project
# (every seventh of a set of 22,972) keep 0.68, 99.5 % of them 0.7; the closest pairs are uranyl's U=O.
MIN_DISTANCE_RATIO = 0.6
# Likewise; closer, atoms are on top of each other, and a potential has no meaning.
COLLAPSED = 0.35


def smallest_radii() -> Floats:
    """What an atom of each element, H to Lr, contributes to its smallest distances, Å."""
    return MIN_DISTANCE_RATIO * properties(["covalent_radius"])[:, 0]


@dataclass(frozen=True, eq=False)
class Cell:
    """A conventional cell.

    Attributes:
        parameters: (a, b, c, α, β, γ) in Å and degrees.
    """

    parameters: tuple[float, float, float, float, float, float]

    @cached_property
    def metric(self) -> Floats:
        """Gram matrix of the lattice vectors, `3 x 3`, in Å²."""
        lengths = np.array(self.parameters[:3])
        alpha, beta, gamma = np.cos(np.radians(self.parameters[3:]))
        # cos 90° is not zero in floating point.
        cosines = np.array([[1.0, gamma, beta], [gamma, 1.0, alpha], [beta, alpha, 1.0]]).round(12)
        return np.asarray(cosines * lengths[:, None] * lengths)

    @cached_property
    def inverse(self) -> Floats:
        """Inverse of the metric, `3 x 3`."""
        return np.asarray(np.linalg.inv(self.metric))

    @cached_property
    def rounding(self) -> float:
        """Å that no distance changes by when fractional coordinates are rounded to 1e-6, x, y, z and atoms in turn."""
        return 2.5e-6 * sum(self.parameters[:3])

    @cached_property
    def shortest(self) -> float:
        """Length of the shortest lattice vector among small combinations, in Å."""
        vectors = [n for n in itertools.product((-2, -1, 0, 1, 2), repeat=3) if any(n)]
        return float(np.sqrt(squared_lengths(np.array(vectors, dtype=np.float64), self.metric).min()))

    def images(self, reach: float) -> Floats:
        """Translations, `k x 3`, that take a difference in [-½, ½]³ to all of its images within a distance."""
        first, second, third = (int(k) for k in reach * np.sqrt(np.diag(self.inverse)) + 0.5)
        return _translations(first, second, third)

    def distances(self, differences: Floats, reach: float) -> Floats:
        """Distance, `n`, of fractional differences, `n x 3`, to the nearest lattice point.

        Exact up to `reach`; what is further away has some distance beyond it.
        """
        wrapped = differences - np.round(differences)
        return np.sqrt(
            squared_lengths(wrapped[:, None] + self.images(reach), self.metric).min(axis=1, initial=np.inf)
        )


@lru_cache(maxsize=256)
def _translations(first: int, second: int, third: int) -> Floats:
    ranges = [range(-k, k + 1) for k in (first, second, third)]
    return np.array(list(itertools.product(*ranges)), dtype=np.float64)


def squared_lengths(vectors: Floats, metric: Floats) -> Floats:
    """Squared lengths, `...`, of vectors, `... x 3`."""
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.asarray(
        metric[0, 0] * x * x
        + metric[1, 1] * y * y
        + metric[2, 2] * z * z
        + 2.0 * (metric[0, 1] * x * y + metric[0, 2] * x * z + metric[1, 2] * y * z)
    )
