"""At which energy a periodic landscape opens to transport along one, two and three directions.

Points of the grid are added in order of their energy and joined to their neighbours by union-find. Each point
remembers its displacement, in cells, from the root of its cluster. An edge that closes a loop whose displacement is
not zero shows that the cluster meets its own image; the rank of all such displacements is the dimension of its network
(Newman & Ziff, Phys. Rev. E 2001, 64, 016706; Machta et al., Phys. Rev. E 1996, 54, 1332). That is exact on the grid:
no threshold is searched for, no supercell is needed, and networks that wind through several cells are seen.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracles.compilation import compiled

Array = NDArray[np.float64]


def percolation_energies(energies: Array, limit: float = math.inf) -> tuple[float, float, float]:
    """Lowest energies at which a network of at least one, two and three dimensions is connected.

    Every point of the grid has 26 neighbours, across the faces of the cell too.

    Args:
        energies: Energy on the points (i / n₁, j / n₂, k / n₃) of a periodic cell, `n₁ x n₂ x n₃`.
        limit: Points above this energy are left out.

    Returns:
        The three energies, ascending; infinity where none up to the limit does.

    Raises:
        ValueError: the energies are not on a grid of three dimensions.
    """
    if energies.ndim != 3:
        raise ValueError(f"energies must be on a grid of three dimensions, not {energies.ndim}")
    flat = energies.ravel()
    order = np.argsort(flat, kind="stable")
    order = order[: int(np.searchsorted(flat[order], limit, side="right"))]
    rank = np.full(len(flat), len(flat), dtype=np.int64)
    rank[order] = np.arange(len(order))
    first = _first_of_dimensions(np.array(energies.shape, dtype=np.int64), order, rank)
    x, y, z = (math.inf if point < 0 else float(flat[order[point]]) for point in first)
    return x, y, z


@compiled()
def _first_of_dimensions(shape: Any, order: Any, rank: Any) -> Any:
    """In which place of the order the point is that makes a network of 1, 2, 3 dimensions; -1 where none does.

    Args:
        shape: Of the grid, `3`.
        order: Points to be added, by their flat numbers.
        rank: Place of each point of the grid in the order, or a number beyond all places, by its flat number.
    """
    n = len(order)
    parent = np.arange(n)
    displacement = np.zeros((n, 3), np.int64)  # in cells, from the parent
    n_loops = np.zeros(n, np.int64)  # by root: independent ones that end in another cell
    loops = np.zeros((n, 3, 3), np.int64)
    found = np.full(3, -1)
    here, there, cell = np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3, np.int64)
    for point in range(n):
        k = order[point] % shape[2]
        j = order[point] // shape[2] % shape[1]
        i = order[point] // (shape[1] * shape[2])
        for step in range(27):
            x, y, z = i + step // 9 - 1, j + step // 3 % 3 - 1, k + step % 3 - 1
            cell[0], cell[1], cell[2] = x // shape[0], y // shape[1], z // shape[2]
            x, y, z = x - cell[0] * shape[0], y - cell[1] * shape[1], z - cell[2] * shape[2]
            neighbour = rank[(x * shape[1] + y) * shape[2] + z]
            if step == 13 or neighbour > point:
                continue
            root = _find(point, parent, displacement, here)
            other = _find(neighbour, parent, displacement, there)
            loop = here + cell - there
            before = n_loops[root]
            if root == other:
                _add(loop, root, n_loops, loops)
            else:
                parent[other], displacement[other] = root, loop
                for which in range(n_loops[other]):
                    _add(loops[other, which], root, n_loops, loops)
            for dimension in range(before, n_loops[root]):
                if found[dimension] < 0:
                    found[dimension] = point
            if found[2] >= 0:
                return found
    return found


@compiled()
def _find(point: int, parent: Any, displacement: Any, total: Any) -> int:
    """Root of a point; the point's displacement from it goes to `total`, and the path is halved on the way."""
    total[:] = 0
    while parent[point] != point:
        above = parent[point]
        if parent[above] != above:
            displacement[point] += displacement[above]
            parent[point] = parent[above]
        total += displacement[point]
        point = parent[point]
    return point


@compiled()
def _add(loop: Any, root: int, n_loops: Any, loops: Any) -> None:
    """Keep a loop of a cluster where it depends on none that are kept."""
    n, known = n_loops[root], loops[root]
    x = known[0, 1] * loop[2] - known[0, 2] * loop[1]
    y = known[0, 2] * loop[0] - known[0, 0] * loop[2]
    z = known[0, 0] * loop[1] - known[0, 1] * loop[0]
    is_new = (
        (n == 0 and (loop[0] != 0 or loop[1] != 0 or loop[2] != 0))
        or (n == 1 and (x != 0 or y != 0 or z != 0))
        or (n == 2 and known[1, 0] * x + known[1, 1] * y + known[1, 2] * z != 0)
    )
    if is_new:
        loops[root, n] = loop
        n_loops[root] = n + 1
