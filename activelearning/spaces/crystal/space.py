"""The space of crystals: elements, space groups and lattices under hard constraints."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from activelearning.candidate import Candidate, CrystalCandidate, candidate_from_dict
from activelearning.crystals.charge import default_oxidation_states, is_neutral
from activelearning.crystals.composition import CompositionMasks
from activelearning.crystals.elements import atomic_number, element_rows
from activelearning.crystals.features import CrystalFeatures
from activelearning.crystals.lattice import MIN_LENGTH, LatticeLimits
from activelearning.crystals.symmetry import (
    CRYSTAL_SYSTEMS,
    LATTICE_SYSTEMS,
    SpaceGroup,
    space_group,
    space_groups,
)
from activelearning.crystals.wyckoff import DEAD, CountAutomaton, CountLimits, Signature, is_compatible
from activelearning.errors import ConfigError

ORDERS = (("space_group", "composition", "lattice"),)


class CrystalSpace:
    """Crystals by space group, composition and lattice of the conventional cell (R groups: hexagonal axes).

    In every crystal the counts of all elements fit on the group's Wyckoff positions together (one without
    free coordinates is used at most once), one oxidation state an element can make it neutral, and the cell
    is real, of the group's lattice system, with every parameter in its range.

    Args:
        elements: Symbols, H to Lr.
        space_groups: International numbers; all 230 by default.
        crystal_systems: Only groups of these: triclinic, monoclinic, orthorhombic, tetragonal, trigonal,
            hexagonal, cubic, or trigonal-rhombohedral, trigonal-hexagonal.
        n_elements: Fewest and most elements of a crystal.
        max_atoms: Most atoms in the conventional cell.
        max_atoms_per_element: Most atoms of one element in it; `max_atoms` by default.
        required_elements: Elements every crystal has.
        lengths: Range of a, b and c in Å. The default holds 99 % of the conventional cells of inorganic
            crystals.
        angles: Range of α, β and γ in degrees, of those that the lattice system fixes, too. Cells flatter
            than V / (a b c) = 0.2 are left out.
        volume_per_atom: Range of the cell's volume over its atoms in Å³. A composition whose largest volume
            is below the smallest cell (edges at the shortest length, angles at 90° where free) is left out.
        oxidation_states: States each element may take; pymatgen's without zero for elements not named. `off`
            turns charge neutrality off, for alloys.
        order: Stages in which the sampler builds a crystal; space_group, composition, lattice.
        wyckoff: Whether Wyckoff positions are sampled; false.

    Raises:
        ConfigError: a value is out of range, or no crystal keeps all constraints.
    """

    kind: ClassVar[str] = "crystal"
    default_sampler: ClassVar[str] = "gflownet"

    def __init__(
        self,
        elements: list[str],
        space_groups: list[int] | None = None,
        crystal_systems: list[str] | None = None,
        n_elements: tuple[int, int] = (1, 5),
        max_atoms: int = 80,
        max_atoms_per_element: int | None = None,
        required_elements: list[str] | None = None,
        lengths: tuple[float, float] = (2.5, 30.0),
        angles: tuple[float, float] = (55.0, 135.0),
        volume_per_atom: tuple[float, float] = (4.0, 80.0),
        oxidation_states: dict[str, list[int]] | Literal["off", False] | None = None,
        order: list[str] | None = None,
        wyckoff: bool = False,
    ) -> None:
        self.elements = _elements(elements)
        self.max_atoms = _positive("max_atoms", max_atoms)
        per_element = max_atoms if max_atoms_per_element is None else max_atoms_per_element
        self.max_atoms_per_element = min(_positive("max_atoms_per_element", per_element), self.max_atoms)
        self.n_elements = _element_range(n_elements, len(self.elements))
        self.required_elements = _required(required_elements or [], self.elements, self.n_elements[1])
        self.limits = LatticeLimits(
            _range("lengths", lengths, MIN_LENGTH, 1000.0, "Å"),
            _range("angles", angles, 10.0, 170.0, "degrees"),
            _range("volume_per_atom", volume_per_atom, 0.1, 10000.0, "Å³"),
        )
        self.oxidation_states = _oxidation_states(oxidation_states, self.elements)
        if tuple(order or ORDERS[0]) not in ORDERS:
            raise ConfigError(f"space.order is {order}; available is {list(ORDERS[0])}.")
        if wyckoff:
            raise ConfigError(
                "space.wyckoff is true; only false is available: sites are drawn by the oracle."
            )
        self._build(_groups(space_groups, crystal_systems))
        self._features = CrystalFeatures(self.elements, self.limits, self.max_atoms, self.n_elements[1])

    def _build(self, groups: Sequence[SpaceGroup]) -> None:
        automaton = CountAutomaton(self.max_atoms_per_element)
        roots = [self._root(automaton, group) for group in groups]
        automaton.freeze()
        states = [
            (0,) if self.oxidation_states is None else self.oxidation_states[symbol]
            for symbol in self.elements
        ]
        #: Masks of the composition stage.
        self.masks = CompositionMasks(automaton, states, [e in self.required_elements for e in self.elements])
        feasible = [i for i, root in enumerate(roots) if self.masks.has_composition(root)]
        if not feasible:
            raise ConfigError(
                f"The crystal space is empty: no composition of {', '.join(self.elements)} with "
                f"{self.n_elements[0]} to {self.n_elements[1]} elements and at most {self.max_atoms} atoms "
                f"({self.max_atoms_per_element} of one element) keeps space.oxidation_states, the Wyckoff "
                f"positions of the {len(groups)} space groups and the ranges of space.lengths, space.angles "
                f"and space.volume_per_atom; loosen one of them."
            )
        #: Space groups that hold at least one composition, ascending by number.
        self.space_groups: tuple[SpaceGroup, ...] = tuple(groups[i] for i in feasible)
        #: Each group's automaton root, and the index of its lattice system in `LATTICE_SYSTEMS`.
        self.roots: NDArray[np.int64] = np.array([roots[i] for i in feasible], dtype=np.int64)
        self.systems: NDArray[np.int64] = np.array(
            [LATTICE_SYSTEMS.index(group.lattice_system) for group in self.space_groups], dtype=np.int64
        )

    def _root(self, automaton: CountAutomaton, group: SpaceGroup) -> int:
        atoms = self.limits.atoms(group.lattice_system)
        if atoms is None or atoms[0] > self.max_atoms:
            return DEAD
        within = (atoms[0], min(atoms[1], self.max_atoms))
        limits = CountLimits(self.n_elements, self.max_atoms_per_element, within)
        return automaton.add(Signature.of(group, self.max_atoms_per_element), limits)

    @property
    def n_features(self) -> int:
        """Number of features d."""
        return len(self._features.names)

    def features(self, candidates: Sequence[Candidate]) -> Tensor:
        """Features of composition, symmetry and lattice, `n x d`, float64 in [0, 1].

        Raises:
            ValueError: a candidate is of another kind, or holds another element.
        """
        return torch.from_numpy(self._features([_crystal(candidate) for candidate in candidates]))

    def to_json(self, candidate: Candidate) -> dict[str, Any]:
        """Canonical JSON value of a crystal."""
        return candidate.to_dict()

    def from_json(self, value: Mapping[str, Any]) -> CrystalCandidate:
        """Read a crystal back and validate it.

        Raises:
            ValueError: it is no crystal, or not of this space.
        """
        candidate = _crystal(candidate_from_dict(value))
        self.validate(candidate)
        return candidate

    def validate(self, candidate: Candidate) -> None:
        """Check membership.

        Raises:
            ValueError: with every constraint that is broken.
        """
        crystal = _crystal(candidate)
        broken = self._broken(crystal)
        if broken:
            raise ValueError(f"{crystal.formula} in space group {crystal.space_group}: {'; '.join(broken)}")

    def _broken(self, crystal: CrystalCandidate) -> list[str]:
        counts = dict(crystal.composition)
        foreign = [symbol for symbol in counts if symbol not in self.elements]
        if foreign:
            return [f"{', '.join(foreign)} not among the elements {', '.join(self.elements)}"]
        broken = []
        if not self.n_elements[0] <= len(counts) <= self.n_elements[1]:
            broken.append(f"{len(counts)} elements, not {self.n_elements[0]} to {self.n_elements[1]}")
        if crystal.n_atoms > self.max_atoms:
            broken.append(f"{crystal.n_atoms} atoms, more than max_atoms = {self.max_atoms}")
        if max(counts.values()) > self.max_atoms_per_element:
            broken.append(
                f"{max(counts.values())} atoms of one element, more than {self.max_atoms_per_element}"
            )
        lacking = [symbol for symbol in self.required_elements if symbol not in counts]
        if lacking:
            broken.append(f"required elements are missing: {', '.join(lacking)}")
        if self.oxidation_states is not None and not is_neutral(counts, self.oxidation_states):
            broken.append("no choice of one oxidation state for each element makes it neutral")
        group = space_group(crystal.space_group)
        if not is_compatible(group, list(counts.values())):
            broken.append(f"the counts do not fit on the Wyckoff positions of {group.symbol}")
        broken += self.limits.violations(group.lattice_system, crystal.n_atoms, crystal.lattice)
        if not broken and group not in self.space_groups:
            broken.append("the space group is not among those of the space")
        elif not broken:
            low, high = self.limits.atoms(group.lattice_system) or (1, 0)
            if not low <= crystal.n_atoms <= high:
                broken.append(f"{crystal.n_atoms} atoms, not {low} to {high}, for which lattices are sampled")
        return broken


def _crystal(candidate: Candidate) -> CrystalCandidate:
    if not isinstance(candidate, CrystalCandidate):
        raise ValueError(f"a crystal space holds crystals, not a {type(candidate).__name__}")
    return candidate


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _elements(symbols: Sequence[str]) -> tuple[str, ...]:
    for symbol in symbols:
        if symbol not in element_rows():
            # YAML reads an unquoted No, N or Y as a boolean.
            hint = " Quote it in YAML." if isinstance(symbol, bool) else _nearest(symbol, [*element_rows()])
            raise ConfigError(f"space.elements names {symbol!r}, which is no element of H to Lr.{hint}")
    if not symbols or len(set(symbols)) < len(symbols):
        raise ConfigError(f"space.elements must name one element or more, each once, not {list(symbols)}.")
    return tuple(sorted(symbols, key=atomic_number))


def _positive(key: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"space.{key} is {value}; it must be 1 or more.")
    return value


def _element_range(pair: tuple[int, int], n_elements: int) -> tuple[int, int]:
    low, high = pair
    if not 1 <= low <= high or low > n_elements:
        raise ConfigError(
            f"space.n_elements is {list(pair)}; it must be [fewest, most], of 1 to {n_elements} elements in the space."
        )
    return low, min(high, n_elements)


def _required(symbols: Sequence[str], elements: Sequence[str], most: int) -> tuple[str, ...]:
    for symbol in symbols:
        if symbol not in elements:
            raise ConfigError(
                f"space.required_elements names {symbol!r}, which is not in space.elements ({', '.join(elements)})."
            )
    if len(set(symbols)) > most:
        raise ConfigError(
            f"space.required_elements names {len(set(symbols))} elements, more than the {most} a crystal can have."
        )
    return tuple(e for e in elements if e in symbols)


def _range(key: str, pair: tuple[float, float], least: float, most: float, unit: str) -> tuple[float, float]:
    low, high = float(pair[0]), float(pair[1])
    # Narrower ranges would be eaten up by the margins of rounding.
    if not (least <= low and high <= most and high - low >= 0.01 * max(1.0, low)):
        raise ConfigError(
            f"space.{key} is {list(pair)}; it must be [lowest, highest] in {unit}, within {least:g} to {most:g} and at "
            "least one per cent apart."
        )
    return low, high


def _oxidation_states(
    given: Mapping[str, Sequence[int]] | Literal["off", False] | None, elements: Sequence[str]
) -> dict[str, tuple[int, ...]] | None:
    if given == "off" or given is False:
        return None
    if not (given is None or isinstance(given, Mapping)):
        raise ConfigError(
            f"space.oxidation_states is {given!r}; it must be a mapping such as {{Fe: [2, 3]}}, or off."
        )
    stated = dict(given or {})
    for symbol, states in stated.items():
        if symbol not in elements:
            raise ConfigError(f"space.oxidation_states names {symbol!r}, which is not in space.elements.")
        if not states or any(q != int(q) or abs(q) > 9 for q in states):
            raise ConfigError(
                f"space.oxidation_states.{symbol} is {list(states)}; it must be whole numbers from -9 to 9."
            )
    found = {e: tuple(stated[e]) if e in stated else default_oxidation_states(e) for e in elements}
    for symbol, states in found.items():
        if not states:
            raise ConfigError(
                f"space.elements names {symbol}, for which pymatgen knows no oxidation state; state them under "
                f"space.oxidation_states, or turn charge neutrality off by `oxidation_states: off`."
            )
    return found


def _groups(numbers: Sequence[int] | None, systems: Sequence[str] | None) -> tuple[SpaceGroup, ...]:
    for number in numbers or ():
        if not 1 <= number <= 230:
            raise ConfigError(f"space.space_groups holds {number}; space groups have numbers 1 to 230.")
    known = tuple(dict.fromkeys((*CRYSTAL_SYSTEMS, *(s.value for s in LATTICE_SYSTEMS))))
    for system in systems or ():
        if system not in known:
            raise ConfigError(
                f"space.crystal_systems holds {system!r}.{_nearest(system, known)} Known: {', '.join(known)}."
            )
    if (numbers is not None and not numbers) or (systems is not None and not systems):
        raise ConfigError(
            "space.space_groups or space.crystal_systems is an empty list; leave it out to allow all."
        )
    groups = tuple(
        group
        for group in space_groups()
        if (numbers is None or group.number in numbers)
        and (systems is None or group.crystal_system in systems or group.lattice_system in systems)
    )
    if not groups:
        raise ConfigError(
            f"None of space.space_groups {list(numbers or ())} is of {', '.join(systems or ())}."
        )
    return groups
