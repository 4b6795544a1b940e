"""Wyckoff positions as coordinates: for each, the affine maps from (x, y, z) to the atoms it holds.

Everything is of the conventional cell in the settings of `symmetry`, read from the shipped `sites.npz`.
Fractional coordinates are multiples of 1/24 where symmetry fixes them, so that the tables are exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.symmetry import SpaceGroup, WyckoffPosition, space_group

DENOMINATOR = 24

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WyckoffMaps:
    """The m atoms of a Wyckoff position: atom k is at R_k (x, y, z) + t_k.

    Attributes:
        position: Its letter, multiplicity m and freedom.
        rotations: R, `m x 3 x 3`, whole numbers.
        translations: t, `m x 3`, fractional coordinates.
        free: Which of x, y, z the position has, ascending; the others do not occur in its maps.
    """

    position: WyckoffPosition
    rotations: Floats = field(repr=False)
    translations: Floats = field(repr=False)
    free: tuple[int, ...]

    def atoms(self, xyz: Floats) -> Floats:
        """Fractional coordinates in [0, 1), `... x m x 3`, of (x, y, z), `... x 3`."""
        return np.asarray((np.einsum("kij,...j->...ki", self.rotations, xyz) + self.translations) % 1.0)


@lru_cache(maxsize=1)
def _table() -> dict[str, NDArray[Any]]:
    with files("activelearning.crystals").joinpath("sites.npz").open("rb") as file, np.load(file) as stored:
        return {name: stored[name] for name in stored.files}


@lru_cache(maxsize=230)
def wyckoff_maps(number: int) -> tuple[WyckoffMaps, ...]:
    """Maps of all positions of the group of an international number, in the order of `SpaceGroup.wyckoff`.

    Raises:
        ValueError: the number is not 1 to 230.
    """
    group, table = space_group(number), _table()
    start = int(table["starts"][number - 1])
    found = []
    for position in group.wyckoff:
        rows = slice(start, start + position.multiplicity)
        start = rows.stop
        rotations = table["rotations"][rows].astype(np.float64)
        translations = table["translations"][rows] / DENOMINATOR
        for array in (rotations, translations):
            array.setflags(write=False)
        free = tuple(int(axis) for axis in np.flatnonzero(rotations.any(axis=(0, 1))))
        found.append(WyckoffMaps(position, rotations, translations, free))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Axis:
    """A line that the representative of a position with one free coordinate moves along.

    Attributes:
        direction: Fractional components of its period.
        atoms: How many atoms of an orbit on each position of the group lie on it within a period, `positions`; of those
            that do for all values of their free coordinates.
    """

    direction: Floats
    atoms: NDArray[np.int64]


@lru_cache(maxsize=230)
def axes(number: int) -> tuple[Axis, ...]:
    """The lines of a group, one for each position with one free coordinate."""
    maps = wyckoff_maps(number)
    # Coordinates at which no position is more special than it must be.
    orbits = [position.atoms(np.array([0.1234, 0.3456, 0.5791])) for position in maps]
    found = []
    for line in maps:
        if len(line.free) == 1:
            direction = line.rotations[0][:, line.free[0]]
            # Two differences, made from whole numbers, that vanish along the line.
            across = np.rint(np.linalg.inv(lattice_basis(direction[:, None])))[:2].T
            gaps = [(atoms - line.translations[0]) @ across for atoms in orbits]
            on_line = [(np.abs(gap - np.round(gap)) < 1e-6).all(axis=1).sum() for gap in gaps]
            found.append(Axis(direction, np.array(on_line, dtype=np.int64)))
    return tuple(found)


def lattice_basis(directions: Floats) -> Floats:
    """`3 x 3`: a basis of the lattice, vectors in columns, the last of which are given, `3 x f`.

    Raises:
        ValueError: unit vectors don't make a basis with them.
    """
    for chosen in itertools.combinations(range(3), 3 - directions.shape[1]):
        basis = np.column_stack([np.eye(3)[:, list(chosen)], directions])
        if abs(abs(np.linalg.det(basis)) - 1.0) < 1e-9:
            return basis
    raise ValueError(f"no basis of unit vectors and {directions.T.tolist()}")


def canonical_order(group: SpaceGroup) -> tuple[int, ...]:
    """Indices in `group.wyckoff`: positions without free coordinates first, both kinds by letter (A after z)."""
    return tuple(
        sorted(
            range(len(group.wyckoff)),
            key=lambda i: (
                not group.wyckoff[i].is_fixed,
                group.wyckoff[i].letter.isupper(),
                group.wyckoff[i].letter,
            ),
        )
    )


def wyckoff_violations(
    number: int, composition: Mapping[str, int], wyckoff: Mapping[str, Sequence[str]]
) -> list[str]:
    """What is wrong with the Wyckoff letters of a crystal, in words; empty where all is well."""
    group = space_group(number)
    positions = {position.letter: position for position in group.wyckoff}
    found = []
    if set(composition) != set(wyckoff):
        found.append(
            f"Wyckoff letters are given for {', '.join(sorted(wyckoff))}, not {', '.join(sorted(composition))}"
        )
    for symbol, letters in wyckoff.items():
        unknown = sorted(set(letters) - set(positions))
        if unknown:
            found.append(f"{group.symbol} has no Wyckoff position {', '.join(unknown)}")
            continue
        held = sum(positions[letter].multiplicity for letter in letters)
        if symbol in composition and held != composition[symbol]:
            found.append(
                f"the Wyckoff positions of {symbol} hold {held} atoms, not the {composition[symbol]} of its composition"
            )
    every = [letter for letters in wyckoff.values() for letter in letters]
    for letter in sorted(set(every) & set(positions)):
        if positions[letter].is_fixed and every.count(letter) > 1:
            found.append(f"Wyckoff position {letter} has no free coordinate and is occupied more than once")
    return found
