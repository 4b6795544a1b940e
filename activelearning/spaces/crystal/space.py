"""The space of crystals: elements, space groups and lattices under hard constraints."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from activelearning.candidate import Candidate, CrystalCandidate, candidate_from_dict
from activelearning.crystals.charge import total_charges
from activelearning.crystals.composition import CompositionMasks
from activelearning.crystals.features import CrystalFeatures
from activelearning.crystals.lattice import MIN_LENGTH, LatticeLimits
from activelearning.crystals.symmetry import LATTICE_SYSTEMS, POINT_SYMMETRIES, SpaceGroup
from activelearning.crystals.volume import VolumeRange
from activelearning.crystals.wyckoff import DEAD
from activelearning.errors import ConfigError
from activelearning.spaces.crystal import options
from activelearning.spaces.crystal.limits import CompositionTables, CrystalLimits, atom_limits
from activelearning.spaces.crystal.membership import composition_violations, violations
from activelearning.spaces.crystal.restriction import Restrictions

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
        counts: Fewest and most atoms of an element; 0 as the fewest lets it be absent.
        oxidation_states: States each element may take; pymatgen's without zero for elements not named. `off`
            turns charge neutrality off, for alloys.
        mixed_valence: Whether each atom of an element may take another state, as iron does in Fe3O4; true, or
            the elements for which it holds.
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
        is_group_allowed: Whether each group can be chosen, `G`; all, where nothing is restricted.
        allowed_groups: International numbers of those that can.
        masks: Masks of the composition stage.
        limits: Ranges of the lattice.
        constraints: All limits.

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
    allowed_groups: frozenset[int]
    masks: CompositionMasks
    limits: LatticeLimits
    constraints: CrystalLimits
    _tables: CompositionTables
    _base: CrystalSpace | None = None

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
        counts: dict[str, tuple[int, int]] | None = None,
        oxidation_states: dict[str, list[int]] | Literal["off", False] | None = None,
        mixed_valence: bool | list[str] = False,
        order: list[str] | None = None,
        wyckoff: bool = False,
        coordinates: bool = False,
    ) -> None:
        self.elements = options.elements(elements)
        self.order = options.order(order)
        self.wyckoff, self.coordinates = wyckoff, coordinates
        if coordinates and not (wyckoff and self.has_lattice):
            raise ConfigError(
                "space.coordinates is true; that needs space.wyckoff: true and the lattice in space.order."
            )
        self.oxidation_states = options.oxidation_states(oxidation_states, self.elements)
        self.mixed_valence = options.mixed_valence(
            mixed_valence, self.elements, is_neutral=self.oxidation_states is not None
        )
        max_atoms = options.positive("max_atoms", max_atoms)
        per_element = max_atoms if max_atoms_per_element is None else max_atoms_per_element
        self.max_atoms_per_element = min(options.positive("max_atoms_per_element", per_element), max_atoms)
        n_range = options.element_range(n_elements, len(self.elements))
        required = options.required(required_elements or [], self.elements, n_range[1])
        allowed = options.count_ranges(counts or {}, self.elements, self.max_atoms_per_element)
        allowed[[symbol in required for symbol in self.elements], 0] = False
        self.limits = LatticeLimits(
            options.value_range("lengths", lengths, MIN_LENGTH, 1000.0, "Å"),
            options.value_range("angles", angles, 10.0, 170.0, "degrees"),
            options.value_range("volume_per_atom", volume_per_atom or VOLUME_PER_ATOM, 0.1, 10000.0, "Å³"),
        )
        if not self.has_lattice:
            is_stated = {"lengths": tuple(lengths) != LENGTHS, "angles": tuple(angles) != ANGLES}
            options.without_lattice({**is_stated, "volume_per_atom": volume_per_atom is not None})
        lattice = self.limits if self.has_lattice else None
        self._volumes = VolumeRange(self.elements, self.limits, by_radii=volume_per_atom is None)
        self.constraints = CrystalLimits(
            n_range,
            max_atoms,
            allowed,
            options.groups(space_groups, crystal_systems),
            lattice,
            atom_limits(lattice, max_atoms),
        )
        self._lay_out()
        self._features = CrystalFeatures(self.elements, lattice, max_atoms, n_range[1])

    @property
    def base(self) -> CrystalSpace:
        """The space without restrictions; itself where there are none."""
        return self if self._base is None else self._base

    @property
    def has_lattice(self) -> bool:
        """Whether crystals have a lattice."""
        return "lattice" in self.order

    @property
    def is_composition_first(self) -> bool:
        """Whether the composition is chosen before the space group."""
        return self.order[0] == "composition"

    @property
    def n_elements(self) -> tuple[int, int]:
        """Fewest and most elements of a crystal."""
        return self.constraints.n_elements

    @property
    def max_atoms(self) -> int:
        """Most atoms in the conventional cell."""
        return self.constraints.max_atoms

    @property
    def required_elements(self) -> tuple[str, ...]:
        """Elements that every crystal has."""
        return tuple(
            e
            for e, optional in zip(self.elements, self.constraints.counts[:, 0], strict=True)
            if not optional
        )

    # ---------------------------------------------------------------- tables

    def _lay_out(self) -> None:
        """Tables of all groups; those that hold no composition are left out for good."""
        groups = self.constraints.groups
        tables = CompositionTables.of(
            groups, self.constraints, self._totals(), with_union=self.is_composition_first
        )
        feasible = np.flatnonzero(tables.roots != DEAD)
        if not len(feasible):
            most = self.constraints.max_atoms_per_element
            raise ConfigError(
                f"The crystal space is empty: no composition of {', '.join(self.elements)} with "
                f"{self.n_elements[0]} to {self.n_elements[1]} elements and at most {self.max_atoms} atoms "
                f"({most} of one element) keeps space.oxidation_states, the Wyckoff positions of the {len(groups)} "
                f"space groups and the ranges of space.counts, space.lengths, space.angles and "
                f"space.volume_per_atom; loosen one of them."
            )
        self.space_groups = tuple(groups[i] for i in feasible)
        self.systems = np.array(
            [LATTICE_SYSTEMS.index(group.lattice_system) for group in self.space_groups], dtype=np.int64
        )
        self.symmetries = np.array(
            [POINT_SYMMETRIES.index(group.point_symmetry) for group in self.space_groups], dtype=np.int64
        )
        self.constraints = dataclasses.replace(self.constraints, groups=self.space_groups)
        self._adopt(tables.kept(feasible))

    def _adopt(self, tables: CompositionTables) -> None:
        self._tables = tables
        self.masks, self.roots, self.any_root = tables.masks, tables.roots, tables.any_root
        self.is_group_allowed = self.roots != DEAD
        self.allowed_groups = frozenset(
            group.number
            for group, allowed in zip(self.space_groups, self.is_group_allowed, strict=True)
            if allowed
        )

    def _totals(self) -> list[list[tuple[int, ...]]]:
        """Entry [e][n - 1]: charges that n atoms of element e can have together."""
        counts = range(1, self.max_atoms_per_element + 1)
        if self.oxidation_states is None:
            return [[(0,) for _ in counts] for _ in self.elements]
        return [
            [
                total_charges(self.oxidation_states[symbol], n, is_mixed=symbol in self.mixed_valence)
                for n in counts
            ]
            for symbol in self.elements
        ]

    def restricted(
        self,
        *,
        elements: list[str] | None = None,
        required_elements: list[str] | None = None,
        counts: dict[str, tuple[int, int]] | None = None,
        n_elements: tuple[int, int] | None = None,
        max_atoms: int | None = None,
        max_atoms_per_element: int | None = None,
        space_groups: list[int] | None = None,
        crystal_systems: list[str] | None = None,
        lengths: tuple[float, float] | None = None,
        angles: tuple[float, float] | None = None,
        volume_per_atom: tuple[float, float] | None = None,
        composition: dict[str, int] | None = None,
        space_group: int | None = None,
    ) -> CrystalSpace:
        """A part of this space, with the same layout, so that one policy serves both.

        Elements, space groups, counts of the action layout, order and features are those of the `base`; only
        masks, roots and limits are narrower, and groups that hold nothing any more are `DEAD`. Where the radii
        of a composition and the narrower lengths have no volume in common, the volume gives way (see
        `VolumeRange`): that alone may leave the range of the base.

        Args:
            elements: The only elements.
            required_elements: Elements every crystal has.
            counts: Fewest and most atoms of an element; 0 as the fewest lets it be absent.
            n_elements: Fewest and most elements.
            max_atoms: Most atoms in the conventional cell.
            max_atoms_per_element: Most atoms of one element.
            space_groups: International numbers of the only groups.
            crystal_systems: The only systems, as in the constructor.
            lengths: Range of a, b and c in Å.
            angles: Range of α, β and γ in degrees.
            volume_per_atom: Range in Å³, beside that of the radii.
            composition: The one composition, to be completed by groups and cells.
            space_group: The one space group, to be completed by compositions and cells.

        Raises:
            ConfigError: a restriction is out of range or wider than this space, or leaves nothing.
        """
        restrictions = Restrictions(
            elements,
            required_elements,
            counts,
            n_elements,
            max_atoms,
            max_atoms_per_element,
            space_groups,
            crystal_systems,
            lengths,
            angles,
            volume_per_atom,
            composition,
            space_group,
        )
        part = copy.copy(self)
        part.constraints = restrictions.within(self.constraints, self.elements)
        part._base = self.base
        part.limits = part.constraints.lattice or self.limits
        part._volumes = VolumeRange(self.elements, part.limits, by_radii=self._volumes.by_radii)
        tables = CompositionTables.of(
            self.space_groups,
            part.constraints,
            self._totals(),
            with_union=self.is_composition_first,
            known=self._tables,
        )
        if (tables.roots == DEAD).all():
            reasons = composition_violations(part, composition) if composition else []
            why = f": {'; '.join(reasons)}" if reasons else "; loosen one of them"
            raise ConfigError(f"No crystal of the space keeps the restrictions {restrictions}{why}.")
        part._adopt(tables)
        return part

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
        broken = violations(self, crystal)
        if broken:
            raise ValueError(f"{crystal.formula} in space group {crystal.space_group}: {'; '.join(broken)}")


def _crystal(candidate: Candidate) -> CrystalCandidate:
    if not isinstance(candidate, CrystalCandidate):
        raise ValueError(f"a crystal space holds crystals, not a {type(candidate).__name__}")
    return candidate
