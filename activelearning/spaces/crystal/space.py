"""The space of crystals: elements, space groups and lattices under hard constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from activelearning.candidate import Candidate, CrystalCandidate, candidate_from_dict
from activelearning.crystals.charge import is_neutral, total_charges
from activelearning.crystals.composition import CompositionMasks
from activelearning.crystals.features import CrystalFeatures
from activelearning.crystals.lattice import MIN_LENGTH, LatticeLimits
from activelearning.crystals.sites import wyckoff_violations
from activelearning.crystals.symmetry import LATTICE_SYSTEMS, POINT_SYMMETRIES, SpaceGroup, space_group
from activelearning.crystals.volume import VolumeRange
from activelearning.crystals.wyckoff import (
    DEAD,
    CountAutomaton,
    CountLimits,
    Signature,
    is_compatible,
)
from activelearning.errors import ConfigError
from activelearning.spaces.crystal import options

# Defaults of the lattice's ranges, in Å and degrees.
LENGTHS = (2.5, 30.0)
ANGLES = (55.0, 135.0)
# Å³ per atom, within which radii say more; 99.9 % of the structures of the Materials Project.
VOLUME_PER_ATOM = (4.0, 80.0)


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
        volume_per_atom: Range of the cell's volume over its atoms in Å³. By default the range follows from
            the elements' radii, within 4 to 80 Å³ per atom (`activelearning.crystals.volume`). A composition
            whose largest volume, by the range per atom, is below the smallest cell (edges at the shortest
            length, angles at 90° where free) is left out.
        oxidation_states: States each element may take; pymatgen's without zero for elements not named. `off`
            turns charge neutrality off, for alloys.
        order: Stages in which the sampler builds a crystal: space_group and composition, either first, then
            the lattice or none. Without it crystals have no lattice, and lengths, angles and volumes limit
            nothing.
        wyckoff: Whether it goes on to Wyckoff positions, which element sits on which.
        coordinates: Whether it goes on to their free coordinates, so that crystals have atoms; needs
            `wyckoff` and the lattice.

    Attributes:
        space_groups: Those that hold at least one composition, ascending by number; G in all.
        roots: Automaton root of each group for `masks`, `G`.
        any_root: Root for compositions that fit at least one group, where the composition comes first; else
            `DEAD`.
        systems: Index of each group's lattice system in `LATTICE_SYSTEMS`, `G`.
        symmetries: Index of each group's class in `POINT_SYMMETRIES`, `G`.
        is_group_allowed: Whether each group can be chosen, `G`.
        base: The space without restrictions.
        masks: Masks of the composition stage.
        limits: Ranges of the lattice.

    Raises:
        ConfigError: a value is out of range, or no crystal keeps all constraints.
    """

    kind: ClassVar[str] = "crystal"
    default_sampler: ClassVar[str] = "gflownet"

    space_groups: tuple[SpaceGroup, ...]
    roots: NDArray[np.int64]
    any_root: int
    systems: NDArray[np.int64]
    symmetries: NDArray[np.int64]
    is_group_allowed: NDArray[np.bool_]
    base: CrystalSpace
    masks: CompositionMasks

    def __init__(
        self,
        elements: list[str],
        space_groups: list[int] | None = None,
        crystal_systems: list[str] | None = None,
        n_elements: tuple[int, int] = (1, 5),
        max_atoms: int = 80,
        max_atoms_per_element: int | None = None,
        required_elements: list[str] | None = None,
        lengths: tuple[float, float] = LENGTHS,
        angles: tuple[float, float] = ANGLES,
        volume_per_atom: tuple[float, float] | None = None,
        oxidation_states: dict[str, list[int]] | Literal["off", False] | None = None,
        order: list[str] | None = None,
        wyckoff: bool = False,
        coordinates: bool = False,
    ) -> None:
        self.elements = options.elements(elements)
        self.max_atoms = options.positive("max_atoms", max_atoms)
        per_element = max_atoms if max_atoms_per_element is None else max_atoms_per_element
        per_element = options.positive("max_atoms_per_element", per_element)
        self.max_atoms_per_element = min(per_element, self.max_atoms)
        self.n_elements = options.element_range(n_elements, len(self.elements))
        self.required_elements = options.required(required_elements or [], self.elements, self.n_elements[1])
        self.limits = LatticeLimits(
            options.value_range("lengths", lengths, MIN_LENGTH, 1000.0, "Å"),
            options.value_range("angles", angles, 10.0, 170.0, "degrees"),
            options.value_range("volume_per_atom", volume_per_atom or VOLUME_PER_ATOM, 0.1, 10000.0, "Å³"),
        )
        self._volumes = VolumeRange(self.elements, self.limits, by_radii=volume_per_atom is None)
        self.oxidation_states = options.oxidation_states(oxidation_states, self.elements)
        self.order = options.order(order)
        self.wyckoff, self.coordinates = wyckoff, coordinates
        if coordinates and not (wyckoff and self.has_lattice):
            raise ConfigError(
                "space.coordinates is true; that needs space.wyckoff: true and the lattice in space.order."
            )
        if not self.has_lattice:
            options.without_lattice(
                lengths=tuple(lengths) != LENGTHS,
                angles=tuple(angles) != ANGLES,
                volume_per_atom=volume_per_atom is not None,
            )
        self.base = self
        self._build(options.groups(space_groups, crystal_systems))
        self._features = CrystalFeatures(
            self.elements, self.limits if self.has_lattice else None, self.max_atoms, self.n_elements[1]
        )

    @property
    def has_lattice(self) -> bool:
        """Whether crystals have a lattice."""
        return "lattice" in self.order

    @property
    def is_composition_first(self) -> bool:
        """Whether the composition is chosen before the space group."""
        return self.order[0] == "composition"

    # ---------------------------------------------------------------- tables

    def _build(self, groups: Sequence[SpaceGroup]) -> None:
        automaton = CountAutomaton(self.max_atoms_per_element)
        roots = [self._root(automaton, group) for group in groups]
        self.any_root = automaton.add_union(roots) if self.is_composition_first else DEAD
        automaton.freeze()
        states = [
            (0,) if self.oxidation_states is None else self.oxidation_states[symbol]
            for symbol in self.elements
        ]
        totals = [
            [total_charges(q, n, is_mixed=False) for n in range(1, self.max_atoms_per_element + 1)]
            for q in states
        ]
        allowed = np.ones((len(states), self.max_atoms_per_element + 1), dtype=np.bool_)
        allowed[:, 0] = [e not in self.required_elements for e in self.elements]
        self.masks = CompositionMasks(automaton, totals, allowed)
        feasible = [i for i, root in enumerate(roots) if self.masks.has_composition(root)]
        if not feasible:
            raise ConfigError(self._emptiness(len(groups)))
        self.space_groups = tuple(groups[i] for i in feasible)
        self.roots = np.array([roots[i] for i in feasible], dtype=np.int64)
        self.is_group_allowed = self.roots != DEAD
        self.systems = np.array(
            [LATTICE_SYSTEMS.index(group.lattice_system) for group in self.space_groups], dtype=np.int64
        )
        self.symmetries = np.array(
            [POINT_SYMMETRIES.index(group.point_symmetry) for group in self.space_groups], dtype=np.int64
        )

    def _emptiness(self, n_groups: int) -> str:
        return (
            f"The crystal space is empty: no composition of {', '.join(self.elements)} with "
            f"{self.n_elements[0]} to {self.n_elements[1]} elements and at most {self.max_atoms} atoms "
            f"({self.max_atoms_per_element} of one element) keeps space.oxidation_states, the Wyckoff "
            f"positions of the {n_groups} space groups and the ranges of space.lengths, space.angles "
            f"and space.volume_per_atom; loosen one of them."
        )

    def _root(self, automaton: CountAutomaton, group: SpaceGroup) -> int:
        atoms = self._atoms(group)
        if atoms is None or atoms[0] > self.max_atoms:
            return DEAD
        within = (atoms[0], min(atoms[1], self.max_atoms))
        limits = CountLimits(self.n_elements, self.max_atoms_per_element, within)
        return automaton.add(Signature.of(group, self.max_atoms_per_element), limits)

    def _atoms(self, group: SpaceGroup) -> tuple[int, int] | None:
        """Fewest and most atoms that cells of the group can hold; None where they can hold none."""
        return self.limits.atoms(group.lattice_system) if self.has_lattice else (1, self.max_atoms)

    def group_mask(self, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Groups whose Wyckoff positions and cells hold whole compositions.

        Args:
            counts: Atoms of each of the space's elements, `n x E`.

        Returns:
            `n x G`. Neutrality is no matter of the group, and not asked here.
        """
        distinct, inverse = np.unique(self.roots, return_inverse=True)
        return self.masks.is_complete(distinct, counts)[:, inverse]

    def log_volumes(self, systems: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Logarithms of the least and most volume of cells in Å³, `n x 2`, margins of rounding taken off.

        Args:
            systems: Indices in `LATTICE_SYSTEMS`, `n`.
            counts: Atoms of each of the space's elements, `n x E`.
        """
        return self._volumes.log_volumes(systems, counts)

    # ---------------------------------------------------------------- candidates

    @property
    def n_features(self) -> int:
        """Number of features d."""
        return len(self._features.names)

    def features(self, candidates: Sequence[Candidate]) -> Tensor:
        """Features of composition, symmetry and lattice (where there is one), `n x d`, float64 in [0, 1].

        Raises:
            ValueError: a candidate is of another kind, holds another element, or lacks the lattice.
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
        group = space_group(crystal.space_group)
        broken = self._broken_composition(counts)
        if not is_compatible(group, list(counts.values())):
            broken.append(f"the counts do not fit on the Wyckoff positions of {group.symbol}")
        broken += self._broken_cell(crystal, group)
        if not broken and group not in self.space_groups:
            broken.append("the space group is not among those of the space")
        elif not broken:
            low, high = self._atoms(group) or (1, 0)
            if not low <= crystal.n_atoms <= high:
                broken.append(f"{crystal.n_atoms} atoms, not {low} to {high}, for which lattices are sampled")
        return broken

    def _broken_composition(self, counts: Mapping[str, int]) -> list[str]:
        broken = []
        n_atoms, most = sum(counts.values()), max(counts.values())
        if not self.n_elements[0] <= len(counts) <= self.n_elements[1]:
            broken.append(f"{len(counts)} elements, not {self.n_elements[0]} to {self.n_elements[1]}")
        if n_atoms > self.max_atoms:
            broken.append(f"{n_atoms} atoms, more than max_atoms = {self.max_atoms}")
        if most > self.max_atoms_per_element:
            broken.append(f"{most} atoms of one element, more than {self.max_atoms_per_element}")
        lacking = [symbol for symbol in self.required_elements if symbol not in counts]
        if lacking:
            broken.append(f"required elements are missing: {', '.join(lacking)}")
        if self.oxidation_states is not None and not is_neutral(counts, self.oxidation_states):
            broken.append("no choice of one oxidation state for each element makes it neutral")
        return broken

    def _broken_cell(self, crystal: CrystalCandidate, group: SpaceGroup) -> list[str]:
        broken = []
        if self.has_lattice and crystal.lattice is None:
            broken.append("it has no lattice")
        elif not self.has_lattice and crystal.lattice is not None:
            broken.append(f"it has a lattice, which is no part of this space (order {list(self.order)})")
        elif crystal.lattice is not None:
            system = np.array([LATTICE_SYSTEMS.index(group.lattice_system)])
            counts = np.array([[crystal.composition.get(symbol, 0) for symbol in self.elements]])
            volumes = self.log_volumes(system, counts)[0]
            broken += self.limits.violations(group.lattice_system, volumes, crystal.lattice)
        if self.wyckoff and crystal.wyckoff is None:
            broken.append("it has no Wyckoff positions")
        elif self.wyckoff and crystal.wyckoff is not None:
            broken += wyckoff_violations(group.number, crystal.composition, crystal.wyckoff)
        if self.coordinates and crystal.structure is None:
            broken.append("it has no structure")
        return broken


def _crystal(candidate: Candidate) -> CrystalCandidate:
    if not isinstance(candidate, CrystalCandidate):
        raise ValueError(f"a crystal space holds crystals, not a {type(candidate).__name__}")
    return candidate
