"""Atoms for a crystal that states only composition, space group and lattice: sites drawn at random and pushed apart.

Rejection (`activelearning.crystals.realise`) throws away most of what it draws and takes about a second a draw in dense
cells. Here nothing is thrown away: soft spheres of covalent size repel each other until they no longer overlap, or
until the cell proves too small for them. Forces have the symmetry of the crystal, so the space group stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from activelearning.crystals.symmetry import space_groups
from oracles.ml_proxy.relaxation import Array, Cell, primitive

ASSIGNMENTS = 200  # random choices of Wyckoff positions before a composition is given up
PUSHES = (
    20  # few: squeezed into an unstable place, rounding errors double every push and would break the symmetry
)
TARGET = 1.1  # distance below which two atoms repel, over the sum of their covalent radii
GAIN = 0.25  # of the overlap, taken away per push


@dataclass(frozen=True)
class Site:
    """A Wyckoff position.

    Attributes:
        multiplicity: Atoms in the conventional cell.
        is_fixed: Whether it has no free coordinate, and so holds one element once.
        operations: Affine maps of (x, y, z) to its points, `multiplicity x 3 x 4`.
    """

    multiplicity: int
    is_fixed: bool
    operations: Array


@dataclass(frozen=True)
class Placement:
    """Atoms in the primitive cell of a crystal.

    Attributes:
        cell: The primitive cell.
        overlap: Sum of squared relative overlaps per atom that could not be pushed away; 0 where all fit.
        distance_ratio: Smallest distance over the sum of the pair's covalent radii, at most `TARGET`.
    """

    cell: Cell
    overlap: float
    distance_ratio: float


@cache
def wyckoff_sites(space_group: int) -> tuple[Site, ...]:
    """Wyckoff positions of a group by PyXtal's operations, the general one first."""
    from pyxtal.symmetry import Group

    return tuple(
        Site(
            int(position.multiplicity),
            position.get_dof() == 0,
            np.array([operation.affine_matrix[:3] for operation in position.ops]),
        )
        for position in Group(space_group)
    )


def place(
    composition: Mapping[str, int],
    space_group: int,
    lattice: Sequence[float],
    *,
    n_draws: int,
    seed: Sequence[int],
) -> list[Placement]:
    """Draw atoms, the least overlap first.

    Args:
        composition: Atoms of each element in the conventional cell.
        space_group: International number.
        lattice: (a, b, c, α, β, γ) of the conventional cell in Å and degrees.
        n_draws: Draws of positions and coordinates.
        seed: Of the draws; draw k depends on `(*seed, k)` alone.

    Returns:
        The placements; fewer than `n_draws`, even none, where no choice of Wyckoff positions was found.
    """
    from ase.data import atomic_numbers
    from ase.geometry import cellpar_to_cell

    counts = {int(atomic_numbers[symbol]): n for symbol, n in composition.items()}
    matrix = np.asarray(cellpar_to_cell(lattice), dtype=np.float64)
    centering = space_groups()[space_group - 1].centering
    placements = []
    for k in range(n_draws):
        rng = np.random.default_rng([*seed, k])
        sites = _assign(counts, wyckoff_sites(space_group), rng)
        if sites is None:
            break
        points = [site.operations @ np.append(rng.random(3), 1.0) for _, site in sites]
        numbers = np.repeat([number for number, _ in sites], [site.multiplicity for _, site in sites])
        try:
            start = primitive(Cell(numbers, matrix, np.concatenate(points) % 1.0), centering)
        except ValueError:
            continue  # two atoms of one element nearly coincide
        placements.append(push_apart(start))
    return sorted(placements, key=lambda p: (p.overlap, -p.distance_ratio))


def _assign(
    counts: Mapping[int, int], sites: tuple[Site, ...], rng: np.random.Generator
) -> list[tuple[int, Site]] | None:
    """Wyckoff positions at random that hold the counts, or None."""
    for _ in range(ASSIGNMENTS):
        chosen: list[tuple[int, int]] = []
        used: set[int] = set()
        for number in rng.permutation(list(counts)).tolist():
            left = counts[number]
            while left:
                fits = [i for i, site in enumerate(sites) if site.multiplicity <= left and i not in used]
                if not fits:
                    break
                i = fits[int(rng.integers(len(fits)))]
                chosen.append((number, i))
                left -= sites[i].multiplicity
                if sites[i].is_fixed:
                    used.add(i)
            if left:
                break
        else:
            return [(number, sites[i]) for number, i in chosen]
    return None


def distance_ratio(cell: Cell) -> float:
    """Smallest distance over the sum of the pair's covalent radii, at most `TARGET`."""
    targets, images = _targets(cell)
    return TARGET * (1.0 - float(_overlaps(cell.fractional, cell.matrix, images, targets)[1].max()))


def push_apart(cell: Cell) -> Placement:
    """Move overlapping atoms apart, in small steps along the lines between them."""
    targets, images = _targets(cell)
    inverse = np.linalg.inv(cell.matrix)
    fractional = cell.fractional
    for _ in range(PUSHES):
        offset, overlap = _overlaps(fractional, cell.matrix, images, targets)
        is_close = overlap > 0.0
        if not is_close.any():
            break
        length = np.maximum(np.sqrt((offset**2).sum(axis=3)), 1e-6)
        push = ((overlap * targets[:, :, None] / length)[..., None] * offset).sum(axis=(1, 2))
        # Between sum and mean over neighbours: what is squeezed from many sides must not be shot away.
        n_close = np.maximum(1, is_close.sum(axis=(1, 2)))[:, None]
        fractional = fractional - (GAIN * push / np.sqrt(n_close)) @ inverse
    # What is on top of its own image by symmetry is pushed nowhere.
    _, overlap = _overlaps(fractional, cell.matrix, images, targets)
    return Placement(
        Cell(cell.numbers, cell.matrix, fractional % 1.0),
        float((overlap**2).sum()) / len(cell),
        TARGET * (1.0 - float(overlap.max())),
    )


def _targets(cell: Cell) -> tuple[Array, Array]:
    """Distances below which pairs of atoms repel, `n x n`, and the translations within their reach, `k x 3`."""
    from ase.data import covalent_radii

    radii = covalent_radii[cell.numbers]
    targets: Array = TARGET * (radii[:, None] + radii[None, :])
    return targets, _images(cell.matrix, float(targets.max()))


def _overlaps(fractional: Array, matrix: Array, images: Array, targets: Array) -> tuple[Array, Array]:
    """Offsets from atom i to image k of atom j, `n x n x k x 3`, and 1 - distance / target where that is positive."""
    difference = fractional[None, :] - fractional[:, None]
    difference -= np.round(difference)
    offset = (difference @ matrix)[:, :, None] + images
    distance = np.sqrt((offset**2).sum(axis=3))
    overlap = np.maximum(0.0, 1.0 - distance / targets[:, :, None])
    # An atom is no neighbour of itself; the zero translation is the middle one.
    each = np.arange(len(fractional))
    overlap[each, each, len(images) // 2] = 0.0
    return offset, overlap


def _images(matrix: Array, reach: float) -> Array:
    """Translations in Å, `k x 3`, that bring within reach what is nearest without them up to half a cell apart."""
    heights = 1.0 / np.linalg.norm(np.linalg.inv(matrix), axis=0)
    most: Any = np.floor(reach / heights + 0.5).astype(int)
    grid = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in most), indexing="ij"), axis=-1).reshape(-1, 3)
    return grid @ matrix
