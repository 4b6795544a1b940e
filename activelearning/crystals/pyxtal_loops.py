"""PyXtal's inner loops over the 27 neighbouring cells as array operations: the same draws, in half of the time."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

_CELLS = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)], dtype=np.float64)


@cache
def install() -> None:
    """Put these loops in the place of PyXtal's own, for the whole process."""
    from pyxtal import operations, symmetry, wyckoff_site

    # For each point that it tries PyXtal makes a table of all pairs of elements, which it does not read then.
    operations.Tol_matrix = cache(operations.Tol_matrix)
    distances, length = operations.distance_matrix, operations.distance
    projection = symmetry.Wyckoff_position.project

    # With PyXtal's own parameters: others in this process may call them, too.
    def distance_matrix(
        pts1: Any, pts2: Any, lattice: Any, PBC: Any = None, single: bool = False, metric: str = "euclidean"
    ) -> Any:
        if _is_periodic(PBC) and lattice is not None and not single and metric == "euclidean":
            return shortest_distances(np.asarray(pts1, float), np.asarray(pts2, float), lattice)
        return distances(pts1, pts2, lattice, PBC, single, metric)

    def distance(xyz: Any, lattice: Any, PBC: Any = None) -> Any:
        if _is_periodic(PBC):
            xyz = np.asarray(xyz, float)
            # In PyXtal's order of sums: of equals, images of one site, it chooses by the last bit.
            return np.linalg.norm((_CELLS + (xyz - np.floor(xyz))) @ lattice, axis=1).min()
        return length(xyz, lattice, PBC)

    def project(self: Any, point: Any, cell: Any = None, PBC: Any = None, id: int = 0) -> Any:
        if _is_periodic(PBC) and cell is not None:
            operation = self.get_euclidean_generator(cell, id) if self.euclidean else self.ops[id]
            return projected(
                np.asarray(point, float), operation.rotation_matrix, operation.translation_vector, cell
            )
        return projection(self, point, cell, PBC, id)

    for module in (operations, symmetry, wyckoff_site):
        module.distance_matrix = distance_matrix
    for module in (operations, symmetry):
        module.distance = distance
    symmetry.Wyckoff_position.project = project


def _is_periodic(periodicity: Any) -> bool:
    return periodicity is None or list(periodicity) == [1, 1, 1]


def shortest_distances(first: Any, second: Any, lattice: Any) -> Any:
    """Å, `n x m`, between fractional points `n x 3` and `m x 3`, of those in neighbouring cells too."""
    between = (first - np.floor(first))[:, None] - (second - np.floor(second))
    vectors = (between @ lattice)[None] + (_CELLS @ lattice)[:, None, None]
    return np.sqrt(np.einsum("cijk,cijk->cij", vectors, vectors).min(axis=0))


def projected(point: Any, rotation: Any, translation: Any, lattice: Any) -> Any:
    """A point of a Wyckoff position, fractional, made of any point by an operation of it.

    PyXtal tries the operation's image in each neighbouring cell, subtracts all that came before from the point, too,
    and takes the nearest; so does this, or its draws would be others.
    """
    shifts = translation + _CELLS
    # One after the other, and axis by axis, as PyXtal does: at special points ties go by the last bit.
    points = np.subtract.accumulate(np.vstack([point - np.floor(point), shifts]))[1:]
    images = np.zeros_like(points)
    for axis in rotation.T:
        length = np.sqrt(axis.dot(axis))
        if length > 1e-3:
            images += axis * (points @ axis / length**2)[:, None]
    images += shifts
    nearest = images[np.argmin(np.linalg.norm((images - points) @ lattice, axis=1))]
    return nearest - np.floor(nearest)
