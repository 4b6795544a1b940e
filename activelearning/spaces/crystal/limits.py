"""What the crystals of a space must keep, and the tables that follow from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.composition import CompositionMasks
from activelearning.crystals.lattice import LatticeLimits
from activelearning.crystals.symmetry import LATTICE_SYSTEMS, LatticeSystem, SpaceGroup
from activelearning.crystals.wyckoff import DEAD, CountAutomaton, CountLimits, Signature

# Groups, the limits of each, and whether their union was asked for: what an automaton is made of.
_Origin = tuple[tuple[SpaceGroup, ...], tuple[CountLimits | None, ...], bool]

# Fewest and most atoms of a cell by lattice system; None where there is no cell.
AtomLimits = dict[LatticeSystem, tuple[int, int] | None]


@dataclass(frozen=True, eq=False)
class CrystalLimits:
    """Limits on compositions, space groups and lattices, all inclusive.

    Attributes:
        n_elements: Fewest and most elements.
        max_atoms: Most atoms in the conventional cell.
        counts: `E x (N + 1)`, bool: which counts each element may have; column 0 for being absent.
        groups: Space groups.
        lattice: Ranges of the lattice; None where crystals have none.
        atoms: Fewest and most atoms of cells by lattice system.
    """

    n_elements: tuple[int, int]
    max_atoms: int
    counts: NDArray[np.bool_]
    groups: tuple[SpaceGroup, ...]
    lattice: LatticeLimits | None
    atoms: AtomLimits

    @property
    def max_atoms_per_element(self) -> int:
        """Largest count that an element may have; 0 where all must be absent."""
        allowed = np.flatnonzero(self.counts.any(axis=0))
        return int(allowed[-1]) if len(allowed) else 0

    def count_limits(self, system: LatticeSystem) -> CountLimits | None:
        """Limits on the counts of compositions in a lattice system; None where there is no composition."""
        atoms = self.atoms[system]
        if atoms is None or atoms[0] > self.max_atoms or not self.max_atoms_per_element:
            return None
        within = (atoms[0], min(atoms[1], self.max_atoms))
        return CountLimits(self.n_elements, self.max_atoms_per_element, within)


def atom_limits(
    lattice: LatticeLimits | None, max_atoms: int, within: AtomLimits | None = None
) -> AtomLimits:
    """Fewest and most atoms that cells can hold by lattice system, within others where they are given.

    Without a lattice 1 to `max_atoms`.
    """
    found: AtomLimits = {}
    for system in LATTICE_SYSTEMS:
        atoms = (1, max_atoms) if lattice is None else lattice.atoms(system)
        if within is not None and atoms is not None:
            other = within[system]
            atoms = None if other is None else (max(atoms[0], other[0]), min(atoms[1], other[1]))
        found[system] = None if atoms is None or atoms[0] > atoms[1] else atoms
    return found


@dataclass(frozen=True, eq=False)
class CompositionTables:
    """Masks of the composition stage for some space groups.

    Attributes:
        masks: The masks.
        roots: Automaton root of each group, `G`; `DEAD` where it holds no composition.
        any_root: Root for compositions that fit at least one of the groups; `DEAD` where it was not asked for.
    """

    masks: CompositionMasks
    roots: NDArray[np.int64]
    any_root: int
    _automaton: CountAutomaton = field(repr=False)
    _origin: _Origin = field(repr=False)
    _all_roots: list[int] = field(repr=False)

    @classmethod
    def of(
        cls,
        groups: Sequence[SpaceGroup],
        limits: CrystalLimits,
        totals: Sequence[Sequence[Collection[int]]],
        *,
        with_union: bool,
        known: CompositionTables | None = None,
    ) -> CompositionTables:
        """Tables of groups under limits; those of `limits.groups` are alive.

        Args:
            groups: Groups that have a root.
            limits: The limits.
            totals: Entry [e][n - 1]: charges that n atoms of element e can have together.
            with_union: Whether `any_root` is asked for.
            known: Tables of another space, whose automaton is used again where it is the same.
        """
        per_element = limits.counts.shape[1] - 1
        within = {system: limits.count_limits(system) for system in LATTICE_SYSTEMS}
        alive = [within[group.lattice_system] if group in limits.groups else None for group in groups]
        origin = (tuple(groups), tuple(alive), with_union)
        if known is not None and known._origin == origin:
            automaton, roots, any_root = known._automaton, known._all_roots, known.any_root
        else:
            automaton = CountAutomaton(per_element)
            roots = [
                DEAD if each is None else automaton.add(Signature.of(group, each.per_element), each)
                for group, each in zip(groups, alive, strict=True)
            ]
            any_root = automaton.add_union(roots) if with_union else DEAD
            automaton.freeze()
        masks = CompositionMasks(automaton, totals, limits.counts)
        feasible = [root if masks.has_composition(root) else DEAD for root in roots]
        return cls(masks, np.array(feasible, dtype=np.int64), any_root, automaton, origin, roots)

    def kept(self, indices: NDArray[np.int64]) -> CompositionTables:
        """The tables of some of the groups; others must have no composition."""
        groups, alive, with_union = self._origin
        return dataclasses.replace(
            self,
            roots=self.roots[indices],
            _origin=(tuple(groups[i] for i in indices), tuple(alive[i] for i in indices), with_union),
            _all_roots=[self._all_roots[i] for i in indices],
        )
