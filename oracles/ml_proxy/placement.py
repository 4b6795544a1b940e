"""Atoms for a crystal that states only composition, space group and lattice: sites drawn at random and pushed apart.

Rejection (`activelearning.crystals.realise`) throws away most of what it draws and takes about a second a draw in dense
cells. Here nothing is thrown away: soft spheres repel each other until they no longer overlap, or until the cell proves
too small for them. Forces have the symmetry of the crystal, so the space group stays. Every other draw takes anions for
as large as their ions, which keeps them from each other and leaves them to the cations; the others spheres of covalent
size throughout, for not all anions are alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from activelearning.crystals.symmetry import space_groups
from oracles.ml_proxy.relaxation import Array, Cell, primitive

ASSIGNMENTS = 200  # random choices of Wyckoff positions before a composition is given up
PUSHES = (
    20  # few: squeezed into an unstable place, rounding errors double every push and would break the symmetry
)
TARGET = 1.1  # distance below which two atoms repel, over the sum of their covalent radii
# Ionic radii of anions with six neighbours (Shannon, Acta Cryst. A 32, 1976), Å, and the share of their sum below which
# two of them repel: in PO4, SiF6 and PS4 groups they are 0.9 of it apart.
ANION_RADII = {
    "N": 1.46,
    "O": 1.40,
    "F": 1.33,
    "S": 1.84,
    "Cl": 1.81,
    "Se": 1.98,
    "Br": 1.96,
    "Te": 2.21,
    "I": 2.20,
}
ANION_TARGET = 0.9
# Electronegativity by which another element makes a cation of it, as O does of S.
CATION_BELOW = 0.7
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
        placements.append(push_apart(start, is_ionic=bool(k % 2)))
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
    targets = _targets(cell)
    images = _images(cell.matrix, float(targets.max()))
    return TARGET * (1.0 - float(_overlaps(cell.fractional, cell.matrix, images, targets)[1].max()))


def push_apart(cell: Cell, *, is_ionic: bool = False) -> Placement:
    """Move overlapping atoms apart, in small steps along the lines between them.

    Args:
        cell: The atoms.
        is_ionic: Whether anions are as large as their ions, towards each other.
    """
    targets = _targets(cell, is_ionic=is_ionic)
    images = _images(cell.matrix, float(targets.max()))
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
    placed = Cell(cell.numbers, cell.matrix, fractional % 1.0)
    return Placement(placed, float((overlap**2).sum()) / len(cell), distance_ratio(placed))


def _targets(cell: Cell, *, is_ionic: bool = False) -> Array:
    """Distances below which pairs of atoms repel, `n x n`."""
    from ase.data import covalent_radii

    radii = covalent_radii[cell.numbers]
    targets: Array = TARGET * (radii[:, None] + radii[None, :])
    if not is_ionic:
        return targets
    ions = anion_radii(tuple(cell.numbers.tolist()))
    is_pair = (ions[:, None] > 0.0) & (ions[None, :] > 0.0)
    return np.where(is_pair, np.maximum(targets, ANION_TARGET * (ions[:, None] + ions[None, :])), targets)


@lru_cache(maxsize=256)
def anion_radii(numbers: tuple[int, ...]) -> Array:
    """Ionic radius of each atom in Å, `n`, by atomic numbers; 0 where it is no anion in this company."""
    from ase.data import chemical_symbols
    from pymatgen.core import Element

    electronegativities = {z: float(Element(chemical_symbols[z]).X) for z in set(numbers)}
    highest = max(x for x in electronegativities.values() if not np.isnan(x))
    radii = {
        z: ANION_RADII.get(chemical_symbols[z], 0.0) if highest - x < CATION_BELOW else 0.0
        for z, x in electronegativities.items()
    }
    return np.array([radii[z] for z in numbers])


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
