"""Candidates: frozen, content-addressed points of a search space.

A candidate's `key` is the SHA-256 of its canonical JSON. Numbers are quantised when the candidate is made, so
that two candidates with the same key have the same features, and a round trip through the store changes
nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from pymatgen.core import Element, Lattice, Structure

LENGTH_DECIMALS = 4  # Å
ANGLE_DECIMALS = 3  # degrees
COORDINATE_DECIMALS = 6  # fractional
AMOUNT_DECIMALS = 4  # of partial occupancies and of the fractional amounts that go with them
VALUE_DECIMALS = 12  # box coordinates, significant to far below any tolerance of a GP

# Version of the rule by which partial occupancies become whole atoms (`activelearning.crystals.ordered`). It is part
# of the key of what is ordered by it, so that answers on atoms placed otherwise are not taken for answers on these.
ORDERING = 1

# (a, b, c, α, β, γ) in Å and degrees.
Cell = tuple[float, float, float, float, float, float]


def canonical_json(value: Any) -> str:
    """Serialise to JSON with sorted keys and no white space, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _quantise(value: float, decimals: int) -> float:
    rounded = round(float(value), decimals)
    if not math.isfinite(rounded):
        raise ValueError(f"a candidate holds finite numbers only, not {value}")
    return rounded + 0.0  # -0.0 and 0.0 are one number and must give one key


class FrozenMap(Mapping[str, Any]):
    """An immutable, picklable mapping that iterates in sorted key order."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Any]) -> None:
        self._items: dict[str, Any] = {key: items[key] for key in sorted(items)}

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(self._items)

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))

    def __reduce__(self) -> tuple[type[FrozenMap], tuple[dict[str, Any]]]:
        return (FrozenMap, (dict(self._items),))


class Candidate:
    """Base of all candidates: identity by content."""

    kind: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON value with a `kind`; `candidate_from_dict` reads it back."""
        raise TypeError(f"{type(self).__name__} must define to_dict()")

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex) of the canonical JSON."""
        return digest(self.to_dict())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, eq=False)
class BoxCandidate(Candidate):
    """A point of a box; `values` are in the box's own units."""

    values: tuple[float, ...]
    kind: ClassVar[str] = "box"

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(_quantise(v, VALUE_DECIMALS) for v in self.values))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON value."""
        return {"kind": self.kind, "values": list(self.values)}


@dataclass(frozen=True, eq=False)
class CrystalCandidate(Candidate):
    """A crystal by space group, composition and lattice of the conventional cell.

    Groups with an R lattice are on hexagonal axes.

    Attributes:
        space_group: International number, 1 to 230.
        composition: Number of atoms of each element in the conventional cell; fractions beside a structure with
            partial occupancies only, where it is what the crystal holds, whatever the occupancies add up to.
        lattice: (a, b, c, α, β, γ) in Å and degrees, quantised to 1e-4 Å and 1e-3 degrees; None where only
            composition and space group are searched.
        wyckoff: Letters occupied by each element, where they were sampled.
        structure: Atoms, where they are known; fractional coordinates are quantised to 1e-6, occupancies to 1e-4.
    """

    space_group: int
    composition: Mapping[str, int]
    lattice: Cell | None = None
    wyckoff: Mapping[str, tuple[str, ...]] | None = None
    structure: Structure | None = None
    kind: ClassVar[str] = "crystal"

    def __post_init__(self) -> None:
        if not 1 <= int(self.space_group) <= 230:
            raise ValueError(f"space_group must be 1 to 230, not {self.space_group}")
        composition: dict[str, Any] = {}
        for symbol, count in self.composition.items():
            if not Element.is_valid_symbol(symbol):
                raise ValueError(f"composition names {symbol!r}, which is no element")
            if not self.is_ordered:
                composition[symbol] = _quantise(count, AMOUNT_DECIMALS)
                if not composition[symbol] > 0.0:
                    raise ValueError(f"composition needs positive amounts, not {symbol}: {count}")
                continue
            if int(count) != count or count < 1:
                raise ValueError(f"composition needs whole positive counts, not {symbol}: {count}")
            composition[symbol] = int(count)
        if not composition:
            raise ValueError("composition is empty")
        object.__setattr__(self, "space_group", int(self.space_group))
        object.__setattr__(self, "composition", FrozenMap(composition))
        if self.lattice is not None:
            object.__setattr__(self, "lattice", _quantised_cell(self.lattice))
        if self.wyckoff is not None:
            letters = {symbol: tuple(sorted(sites)) for symbol, sites in self.wyckoff.items()}
            object.__setattr__(self, "wyckoff", FrozenMap(letters))
        if self.structure is not None:
            object.__setattr__(self, "structure", _quantised_structure(self.structure))

    @property
    def is_ordered(self) -> bool:
        """False where there is a structure with partial occupancies."""
        return self.structure is None or bool(self.structure.is_ordered)

    @property
    def n_atoms(self) -> int:
        """Atoms in the conventional cell."""
        return sum(self.composition.values())

    @property
    def formula(self) -> str:
        """Composition as text, alphabetical, as in `Li6 P1 S5`."""
        return " ".join(f"{symbol}{count:g}" for symbol, count in self.composition.items())

    @property
    def cell(self) -> Cell:
        """The lattice, where there must be one.

        Raises:
            ValueError: the crystal has none.
        """
        if self.lattice is None:
            raise ValueError(f"{self.formula} in space group {self.space_group} has no lattice")
        return self.lattice

    @cached_property
    def volume(self) -> float:
        """Volume of the conventional cell in Å³.

        Raises:
            ValueError: the crystal has no lattice.
        """
        return float(Lattice.from_parameters(*self.cell).volume)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON value."""
        value: dict[str, Any] = {
            "kind": self.kind,
            "space_group": self.space_group,
            "composition": dict(self.composition),
        }
        if self.lattice is not None:
            value["lattice"] = list(self.lattice)
        if self.wyckoff is not None:
            value["wyckoff"] = {symbol: list(sites) for symbol, sites in self.wyckoff.items()}
        if self.structure is not None:
            value["structure"] = {
                "lattice": self.structure.lattice.matrix.tolist(),
                "species": [_species(site) for site in self.structure],
                "coordinates": self.structure.frac_coords.tolist(),
            }
        if not self.is_ordered:
            value["ordering"] = ORDERING
        return value


def _quantised_cell(lattice: Sequence[float]) -> Cell:
    if len(lattice) != 6:
        raise ValueError(f"lattice has six parameters (a, b, c, alpha, beta, gamma), not {len(lattice)}")
    a, b, c = (_quantise(x, LENGTH_DECIMALS) for x in lattice[:3])
    alpha, beta, gamma = (_quantise(x, ANGLE_DECIMALS) for x in lattice[3:])
    return a, b, c, alpha, beta, gamma


def _quantised_structure(structure: Structure) -> Structure:
    matrix = [[_quantise(x, COORDINATE_DECIMALS) for x in row] for row in structure.lattice.matrix]
    coordinates = [[_quantise(x, COORDINATE_DECIMALS) for x in row] for row in structure.frac_coords]
    return Structure(Lattice(matrix), [_species(site) for site in structure], coordinates)


def _species(site: Any) -> str | dict[str, float]:
    """What is on a site: a symbol, or the occupancies where they are partial."""
    if site.is_ordered:
        return str(site.species_string)
    amounts = {str(species): _quantise(amount, AMOUNT_DECIMALS) for species, amount in site.species.items()}
    excess = _quantise(sum(amounts.values()) - 1.0, AMOUNT_DECIMALS)
    if excess > 0.0:  # by rounding alone: pymatgen makes no site that holds more than one atom
        most = max(sorted(amounts), key=lambda name: amounts[name])
        amounts[most] = _quantise(amounts[most] - excess, AMOUNT_DECIMALS)
    return {name: amounts[name] for name in sorted(amounts)}


def candidate_from_dict(value: Mapping[str, Any]) -> Candidate:
    """Read a candidate back from `to_dict()`.

    Raises:
        ValueError: the kind is unknown or a field is missing or wrong.
    """
    kind = value.get("kind")
    try:
        if kind == BoxCandidate.kind:
            return BoxCandidate(tuple(value["values"]))
        if kind == CrystalCandidate.kind:
            atoms = value.get("structure")
            return CrystalCandidate(
                space_group=value["space_group"],
                composition=value["composition"],
                lattice=None if value.get("lattice") is None else tuple(value["lattice"]),
                wyckoff=value.get("wyckoff"),
                structure=None
                if atoms is None
                else Structure(Lattice(atoms["lattice"]), atoms["species"], atoms["coordinates"]),
            )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a {kind} candidate: {error} in {dict(value)}") from error
    raise ValueError(f"unknown kind of candidate: {kind!r} (known: box, crystal)")
