"""Where one orbit may go, as a map from the unit cube."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from activelearning.crystals.placement import Floats, Integers, Words, unpacked


@dataclass(frozen=True, eq=False)
class Domain:
    """Where one orbit may go: a map from u in (0, 1)^f onto the allowed cells of a box of its free coordinates.

    u is spread coordinate by coordinate: the first over the slabs that hold an allowed cell, the next over the allowed
    parts of that slab, and so on. So |det ∂x/∂u| is constant within a cell.

    Attributes:
        low: Lower corner of the box, `f`.
        size: Its edges, `f`; [0, 1) in each coordinate, or less.
        words: Which cells are allowed, a word for each line along the last coordinate, f - 1 axes.
        n_last: Cells along the last coordinate.
        share: Volume of the allowed cells, over that of all positions.
    """

    low: Floats
    size: Floats
    words: Words
    n_last: int
    share: float

    @classmethod
    def of(cls, low: Floats, size: Floats, words: Words, n_last: int) -> Domain:
        """The domain of cells given as words, of which at least one is allowed."""
        share = unpacked(words, n_last).mean() * np.prod(size)
        return cls(low, size, words, n_last, float(share))

    @property
    def n_free(self) -> int:
        """Number of coordinates f."""
        return self.words.ndim + 1

    def coordinates(self, u: Floats) -> tuple[Floats, float]:
        """Free coordinates in [0, 1), `f`, of u, `f`, and log |det ∂x/∂u|."""
        left, found, log_det = self.words, np.zeros(self.n_free), 0.0
        for axis in range(self.n_free):
            slabs, n = self._slabs(left)
            along = u[axis] * len(slabs)
            rank = min(int(along), len(slabs) - 1)
            place = int(slabs[rank])
            found[axis] = self.low[axis] + self.size[axis] * (place + along - rank) / n
            log_det += math.log(self.size[axis] * len(slabs) / n)
            left = left[place] if left.ndim else left
        return found % 1.0, log_det

    def _slabs(self, left: Words) -> tuple[Integers, int]:
        """Where along the first axis left anything is allowed, and its number of cells."""
        if left.ndim:
            return np.flatnonzero(left.reshape(len(left), -1).any(axis=1)), len(left)
        return np.flatnonzero(unpacked(left, self.n_last)), self.n_last

    def u(self, coordinates: Floats, tolerance: float = 2e-6) -> Floats:
        """The inverse of `coordinates`, `f`; what is outside by no more than the tolerance is taken to the edge.

        Raises:
            ValueError: the orbit may not be there.
        """
        left, found = self.words, np.zeros(self.n_free)
        for axis in range(self.n_free):
            slabs, n = self._slabs(left)
            # From the middle of the box, which may lie across the cell's boundary.
            from_middle = (coordinates[axis] - self.low[axis] - 0.5 * self.size[axis] + 0.5) % 1.0 - 0.5
            along = (from_middle / self.size[axis] + 0.5) * n
            distance = np.abs(along - slabs - 0.5) - 0.5
            rank = int(np.argmin(distance))
            if distance[rank] > tolerance * n / self.size[axis]:
                raise ValueError(f"coordinate {coordinates[axis]:.6f} is too close to other atoms")
            inside = min(max(along - slabs[rank], 1e-9), 1.0 - 1e-9)
            found[axis] = (rank + inside) / len(slabs)
            left = left[slabs[rank]] if left.ndim else left
        return found
