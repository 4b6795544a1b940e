"""Generated structures on which the student is trained: prototypes of Li-P-S-Cl, random crystals, and distortions.

The prototypes are built from their space groups and published coordinates, the random crystals are drawn as a sampler
would propose them: any composition, any space group, volumes from squeezed to loose. A potential that meets only
sensible crystals in training is wild on the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.elements import element_rows, properties
from activelearning.crystals.realise import RealisationError, realise
from oracles.potentials.student.chemistry import ANIONS, ELEMENTS

FLAGSHIP = ("Li", "P", "S", "Cl")
MAX_ATOMS = 24
# Volume of the cell over that of the van der Waals spheres, from dense to loose; log-uniform. Known materials have
# 0.29 to 1.38 (see activelearning.crystals.volume).
VOLUME_OVER_SPHERES = (0.35, 1.4)


def argyrodite(*, primitive: bool = False, swapped: tuple[int, ...] = (), a: float = 9.86) -> Atoms:
    """Li6PS5Cl with ordered lithium, F-43m: the conventional cell of 52 atoms or the primitive one of 13.

    Li is on 24g (x, 1/4, 1/4), full, which averages the split 48h position; S on 16e and 4d, P on 4b, Cl on 4a
    (Kraft et al., J. Am. Chem. Soc. 2017, 139, 10909).

    Args:
        primitive: Whether the primitive cell is wanted.
        swapped: Which S on 4d (four, or one in the primitive cell) change places with the Cl of the same number; such
            site disorder opens the paths between cages.
        a: Lattice parameter in Å.
    """
    atoms = crystal(
        ["Li", "P", "S", "S", "Cl"],
        basis=[
            (0.52, 0.25, 0.25),
            (0.0, 0.0, 0.5),
            (0.1195, -0.1195, 0.6195),
            (0.75, 0.75, 0.75),
            (0.0, 0.0, 0.0),
        ],
        spacegroup=216,
        cellpar=[a, a, a, 90, 90, 90],
        primitive_cell=primitive,
    )
    sulfur = _sites_of_kind(atoms, kind=3)
    chlorine = _sites_of_kind(atoms, kind=4)
    for k in swapped:
        atoms.numbers[[sulfur[k], chlorine[k]]] = atoms.numbers[[chlorine[k], sulfur[k]]]
    return _plain(atoms)


def _sites_of_kind(atoms: Atoms, kind: int) -> np.ndarray:
    return np.flatnonzero(atoms.arrays["spacegroup_kinds"] == kind)


def _plain(atoms: Atoms) -> Atoms:
    """Numbers, positions and cell alone: no space group in `info`, no tags."""
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)


def prototypes() -> dict[str, Atoms]:
    """Known crystals of Li, P, S and Cl and a few of their structures' relatives, unrelaxed."""
    found = {
        "Li bcc": bulk("Li", "bcc", a=3.44, cubic=True) * (2, 2, 2),
        "Li fcc": bulk("Li", "fcc", a=4.32, cubic=True) * (2, 2, 1),
        "Li2S antifluorite": crystal(
            ["S", "Li"],
            basis=[(0, 0, 0), (0.25, 0.25, 0.25)],
            spacegroup=225,
            cellpar=[5.71, 5.71, 5.71, 90, 90, 90],
        ),
        "LiCl rocksalt": bulk("LiCl", "rocksalt", a=5.13, cubic=True),
        "LiCl caesium chloride": bulk("LiCl", "cesiumchloride", a=3.2) * (2, 2, 1),
        "LiCl zincblende": bulk("LiCl", "zincblende", a=5.6, cubic=True),
        "LiS rocksalt": bulk("LiS", "rocksalt", a=5.3, cubic=True),
        "P simple cubic": bulk("P", "sc", a=2.4) * (2, 2, 2),
        # Sodium arsenide type, P6_3/mmc.
        "Li3P": crystal(
            ["Li", "Li", "P"],
            basis=[(0, 0, 0.25), (1 / 3, 2 / 3, 0.583), (1 / 3, 2 / 3, 0.25)],
            spacegroup=194,
            cellpar=[4.27, 4.27, 7.59, 90, 90, 120],
        ),
        # Pmn2_1, Mercier et al., Acta Cryst. B 1982, 38, 1887.
        "γ-Li3PS4": crystal(
            ["Li", "Li", "P", "S", "S", "S"],
            basis=[
                (0.247, 0.326, 0.991),
                (0, 0.149, 0.490),
                (0, 0.819, 0),
                (0.221, 0.667, 0.893),
                (0, 0.105, 0.885),
                (0, 0.801, 0.331),
            ],
            spacegroup=31,
            cellpar=[7.708, 6.535, 6.137, 90, 90, 90],
        ),
        "Li6PS5Cl": argyrodite(primitive=True),
        "Li6PS5Cl, all swapped": argyrodite(primitive=True, swapped=(0,)),
        "Li6PS5Cl, one pair swapped": argyrodite(swapped=(0,)),
        "Li6PS5Cl, two pairs swapped": argyrodite(swapped=(0, 1)),
    }
    return {name: _plain(atoms) for name, atoms in found.items()}


def random_crystals(n: int, seed: int, elements: Sequence[str] = FLAGSHIP) -> Iterator[Atoms]:
    """Draw n random crystals of up to `MAX_ATOMS` atoms.

    Up to four elements are drawn, counts are uniform, the space group is uniform over those that fit the composition,
    and the volume over that of the van der Waals spheres is log-uniform over `VOLUME_OVER_SPHERES`.

    Args:
        n: How many.
        seed: Seed of it all.
        elements: Symbols to draw from.
    """
    from pyxtal.lattice import Lattice
    from pyxtal.symmetry import Group

    radii = dict(
        zip(
            elements,
            properties(["van_der_waals_radius"])[[element_rows()[e] for e in elements], 0],
            strict=True,
        )
    )
    rng = np.random.default_rng(seed)
    n_found = 0
    while n_found < n:
        subset = rng.choice(elements, size=rng.integers(1, min(4, len(elements)) + 1), replace=False)
        counts = rng.integers(1, 13, size=len(subset))
        if counts.sum() > MAX_ATOMS:
            continue
        group = Group(int(rng.integers(1, 231)))
        if not group.check_compatible(counts)[0]:
            continue
        spheres = sum(
            4.0 / 3.0 * np.pi * radii[str(symbol)] ** 3 * count
            for symbol, count in zip(subset, counts, strict=True)
        )
        volume = spheres * np.exp(rng.uniform(*np.log(VOLUME_OVER_SPHERES)))
        lattice = Lattice(group.lattice_type, volume, random_state=rng).get_para(degree=True)
        composition = {str(symbol): int(count) for symbol, count in zip(subset, counts, strict=True)}
        candidate = CrystalCandidate(group.number, composition, tuple(lattice))
        try:
            (drawn,) = realise(candidate, n_trials=1, seed=int(rng.integers(2**31)), min_distance_ratio=0.5)
        except RealisationError:
            continue
        n_found += 1
        yield drawn.atoms


def lithium_subsets(n: int, seed: int) -> Iterator[tuple[str, ...]]:
    """Elements of n random chemistries: lithium, one or two anions and one or two of the others."""
    rng = np.random.default_rng(seed)
    anions = sorted(ANIONS)
    others = sorted(set(ELEMENTS) - ANIONS - {"Li"})
    for _ in range(n):
        chosen = [*rng.choice(anions, rng.integers(1, 3), replace=False)]
        chosen += [*rng.choice(others, rng.integers(0, 3), replace=False)]
        yield ("Li", *(str(symbol) for symbol in chosen))


def distorted(atoms: Atoms, rng: np.random.Generator, *, rattle: float, strain: float) -> Atoms:
    """A copy with normal displacements of `rattle` Å and a symmetric strain whose entries are normal with `strain`."""
    copy = atoms.copy()
    noise = rng.normal(0.0, strain, size=(3, 3))
    copy.set_cell(copy.cell.array @ (np.eye(3) + (noise + noise.T) / 2), scale_atoms=True)
    copy.positions += rng.normal(0.0, rattle, size=copy.positions.shape)
    return copy
