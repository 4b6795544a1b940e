"""At which energy a periodic landscape opens to transport along one, two and three directions.

Points of the grid are added in order of their energy and joined to their neighbours by union-find. Each point
remembers its displacement, in cells, from the root of its cluster. An edge that closes a loop whose displacement is
not zero shows that the cluster meets its own image; the rank of all such displacements is the dimension of its network
(Newman & Ziff, Phys. Rev. E 2001, 64, 016706; Machta et al., Phys. Rev. E 1996, 54, 1332). That is exact on the grid:
no threshold is searched for, no supercell is needed, and networks that wind through several cells are seen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Vector = tuple[int, int, int]

# A displacement (x, y, z) is kept as one whole number, x + y BASE + z BASE²: sums stay sums, and zero is zero.
BASE = 1 << 20
STEPS = np.array([step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)], dtype=np.int64)
CHUNK = 8192  # points whose neighbours are looked up at once


def percolation_energies(energies: Array, limit: float = math.inf) -> tuple[float, float, float]:
    """Lowest energies at which a network of at least one, two and three dimensions is connected.

    Every point of the grid has 26 neighbours, across the faces of the cell too.

    Args:
        energies: Energy on the points (i / n₁, j / n₂, k / n₃) of a periodic cell, `n₁ x n₂ x n₃`.
        limit: Points above this energy are left out.

    Returns:
        The three energies, ascending; infinity where none up to the limit does.
    """
    flat = energies.ravel()
    order = np.argsort(flat, kind="stable")
    order = order[: int(np.searchsorted(flat[order], limit, side="right"))]
    found = [math.inf] * 3
    clusters = _Clusters(len(order))
    for energy, dimension in _dimensions(energies.shape, order, flat, clusters):
        for d in range(dimension):
            found[d] = min(found[d], energy)
        if dimension == 3:
            break
    return found[0], found[1], found[2]


def _dimensions(
    shape: Sequence[int], order: NDArray[np.int64], flat: Array, clusters: _Clusters
) -> Iterator[tuple[float, int]]:
    """Energy and dimension each time that a cluster comes to wind along one more direction."""
    rank = np.full(len(flat), len(flat), dtype=np.int64)
    rank[order] = np.arange(len(order))
    size = np.array(shape, dtype=np.int64)
    for start in range(0, len(order), CHUNK):
        block = order[start : start + CHUNK]
        at = np.stack(np.unravel_index(block, tuple(shape)), axis=1)[:, None] + STEPS
        cells = at // size
        neighbours = rank[np.ravel_multi_index(tuple(np.moveaxis(at - cells * size, -1, 0)), tuple(shape))]
        shifts = cells[..., 0] + cells[..., 1] * BASE + cells[..., 2] * BASE**2
        here, step = np.nonzero(neighbours <= np.arange(start, start + len(block))[:, None])
        edges = zip(
            (here + start).tolist(),
            neighbours[here, step].tolist(),
            shifts[here, step].tolist(),
            strict=True,
        )
        for point, neighbour, shift in edges:
            dimension = clusters.join(point, neighbour, shift)
            if dimension:
                yield float(flat[order[point]]), dimension


class _Clusters:
    """Union-find of points that know their displacement from their root."""

    def __init__(self, n_points: int) -> None:
        self._parent = list(range(n_points))
        self._displacement = [0] * n_points  # in cells, from the parent
        self._windings: dict[int, list[Vector]] = {}  # by root: independent loops that end in another cell

    def join(self, point: int, neighbour: int, shift: int) -> int:
        """Connect a point with its neighbour in the cell `shift`; the cluster's dimension where it grew, else 0."""
        root, here = self._find(point)
        other, there = self._find(neighbour)
        loop = here + shift - there
        if root == other:
            return self._wind(root, [decode(loop)]) if loop else 0
        self._parent[other] = root
        self._displacement[other] = loop
        return self._wind(root, self._windings.pop(other, []))

    def _wind(self, root: int, loops: Sequence[Vector]) -> int:
        known = self._windings.get(root, [])
        before = len(known)
        for loop in loops:
            if len(known) < 3 and np.linalg.matrix_rank(np.array([*known, loop])) > len(known):
                known = [*known, loop]
        if len(known) == before:
            return 0
        self._windings[root] = known
        return len(known)

    def _find(self, point: int) -> tuple[int, int]:
        """Root of a point, and the point's displacement from it; the path is shortened on the way."""
        parent, displacement = self._parent, self._displacement
        path = []
        while parent[point] != point:
            path.append(point)
            point = parent[point]
        total = 0
        for step in reversed(path):
            total += displacement[step]
            parent[step], displacement[step] = point, total
        return point, total


def decode(code: int) -> Vector:
    """The displacement behind its whole number."""
    values = []
    for _ in range(3):
        value = (code + BASE // 2) % BASE - BASE // 2
        values.append(value)
        code = (code - value) // BASE
    return values[0], values[1], values[2]
