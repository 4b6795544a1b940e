"""Space groups: immutable tables of the 230 groups, read from the shipped `symmetry.json`.

Everything is of the conventional cell in the standard setting of International Tables A (hexagonal axes for R
groups).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from importlib.resources import files


class LatticeSystem(StrEnum):
    """The eight crystal-lattice systems: crystal systems, with trigonal split by its lattice."""

    TRICLINIC = "triclinic"
    MONOCLINIC = "monoclinic"
    ORTHORHOMBIC = "orthorhombic"
    TETRAGONAL = "tetragonal"
    TRIGONAL_RHOMBOHEDRAL = "trigonal-rhombohedral"
    TRIGONAL_HEXAGONAL = "trigonal-hexagonal"
    HEXAGONAL = "hexagonal"
    CUBIC = "cubic"


class PointSymmetry(StrEnum):
    """Five classes of point groups by inversion, polarity and handedness."""

    CENTROSYMMETRIC = "centrosymmetric"
    POLAR = "polar"
    ENANTIOMORPHIC = "enantiomorphic"
    ENANTIOMORPHIC_POLAR = "enantiomorphic-polar"
    NONE = "none"


CRYSTAL_SYSTEMS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic")
LATTICE_SYSTEMS = tuple(LatticeSystem)
POINT_SYMMETRIES = tuple(PointSymmetry)

# Orders of the 32 crystallographic point groups.
POINT_GROUP_ORDER = {
    symbol: order
    for order, symbols in {
        1: "1",
        2: "-1 2 m",
        3: "3",
        4: "2/m 222 mm2 4 -4",
        6: "-3 32 3m 6 -6",
        8: "mmm 4/m 422 4mm -42m",
        12: "-3m 6/m 622 6mm -6m2 23",
        16: "4/mmm",
        24: "6/mmm m-3 432 -43m",
        48: "m-3m",
    }.items()
    for symbol in symbols.split()
}
_CENTROSYMMETRIC = frozenset("-1 2/m mmm 4/m 4/mmm -3 -3m 6/m 6/mmm m-3 m-3m".split())
_POLAR = frozenset("1 2 m mm2 4 4mm 3 3m 6 6mm".split())
_ENANTIOMORPHIC = frozenset("1 2 222 4 422 3 32 6 622 23 432".split())

# First number of each crystal system, in the order of CRYSTAL_SYSTEMS.
_FIRST = (1, 3, 16, 75, 143, 168, 195)


@dataclass(frozen=True)
class WyckoffPosition:
    """A Wyckoff position.

    Attributes:
        letter: Its letter in International Tables.
        multiplicity: Atoms it holds in the conventional cell.
        freedom: Free coordinates, 0 to 3; a position with none can be occupied once only.
    """

    letter: str
    multiplicity: int
    freedom: int

    @property
    def is_fixed(self) -> bool:
        """True when the position has no free coordinate."""
        return self.freedom == 0


@dataclass(frozen=True)
class SpaceGroup:
    """One of the 230 space groups.

    Attributes:
        number: International number.
        symbol: Hermann-Mauguin symbol, without spaces.
        point_group: Hermann-Mauguin symbol of the point group.
        wyckoff: Wyckoff positions, the general one first.
    """

    number: int
    symbol: str
    point_group: str
    wyckoff: tuple[WyckoffPosition, ...]

    @cached_property
    def crystal_system(self) -> str:
        """One of `CRYSTAL_SYSTEMS`."""
        return CRYSTAL_SYSTEMS[sum(self.number >= first for first in _FIRST) - 1]

    @cached_property
    def centering(self) -> str:
        """Lattice centring: P, A, C, F, I or R."""
        return self.symbol[0]

    @cached_property
    def lattice_system(self) -> LatticeSystem:
        """One of the eight crystal-lattice systems."""
        if self.crystal_system == "trigonal":
            is_rhombohedral = self.centering == "R"
            return (
                LatticeSystem.TRIGONAL_RHOMBOHEDRAL if is_rhombohedral else LatticeSystem.TRIGONAL_HEXAGONAL
            )
        return LatticeSystem(self.crystal_system)

    @cached_property
    def point_symmetry(self) -> PointSymmetry:
        """One of the five classes of point groups."""
        if self.point_group in _CENTROSYMMETRIC:
            return PointSymmetry.CENTROSYMMETRIC
        is_polar, is_chiral = self.point_group in _POLAR, self.point_group in _ENANTIOMORPHIC
        if is_polar:
            return PointSymmetry.ENANTIOMORPHIC_POLAR if is_chiral else PointSymmetry.POLAR
        return PointSymmetry.ENANTIOMORPHIC if is_chiral else PointSymmetry.NONE

    @cached_property
    def point_group_order(self) -> int:
        """Number of operations of the point group."""
        return POINT_GROUP_ORDER[self.point_group]

    @cached_property
    def multiplicity(self) -> int:
        """Multiplicity of the general position in the conventional cell."""
        return self.wyckoff[0].multiplicity

    @cached_property
    def fixed_multiplicities(self) -> tuple[tuple[int, int], ...]:
        """(multiplicity, number of positions) of those without free coordinates, ascending."""
        return tuple(sorted(Counter(w.multiplicity for w in self.wyckoff if w.is_fixed).items()))

    @cached_property
    def free_multiplicities(self) -> tuple[int, ...]:
        """Distinct multiplicities of the positions with free coordinates, ascending."""
        return tuple(sorted({w.multiplicity for w in self.wyckoff if not w.is_fixed}))


@lru_cache(maxsize=1)
def _groups() -> tuple[SpaceGroup, ...]:
    text = files("activelearning.crystals").joinpath("symmetry.json").read_text()
    return tuple(
        SpaceGroup(
            number=row["number"],
            symbol=row["symbol"],
            point_group=row["point_group"],
            wyckoff=tuple(WyckoffPosition(*position) for position in row["wyckoff"]),
        )
        for row in json.loads(text)
    )


def space_group(number: int) -> SpaceGroup:
    """The group of an international number.

    Raises:
        ValueError: the number is not 1 to 230.
    """
    if not 1 <= number <= 230:
        raise ValueError(f"a space group's number is 1 to 230, not {number}")
    return _groups()[number - 1]


def space_groups() -> tuple[SpaceGroup, ...]:
    """All 230 groups in the order of their numbers."""
    return _groups()
