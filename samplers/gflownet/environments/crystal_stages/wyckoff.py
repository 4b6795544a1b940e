"""Wyckoff positions: which element sits on which, and how many orbits of it.

Elements are placed in order of atomic number, each on letters in one canonical order (positions without free
coordinates first), so that each assignment has one path. What later elements need of the fixed positions is
held as a bit set over *usages* (how many fixed positions of each multiplicity are still free), which decides
every mask exactly: a fixed position is used once at most, whatever element sits on it, and positions of equal
multiplicity can stand in for one another in what is still to be placed.

Where coordinates follow, choices that plainly leave no room for the atoms in their cell are left out as long as there
are others (`wyckoff_room`). A composition may have no place at all in its cell; it is then assigned regardless.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.distances import smallest_radii
from activelearning.crystals.elements import atomic_number, properties
from samplers.gflownet.environments.crystal_stages.stage import Crystals, Flags, Floats, Inputs, Integers
from samplers.gflownet.environments.crystal_stages.wyckoff_room import Occupation, Room
from samplers.gflownet.environments.crystal_stages.wyckoff_tables import (
    UsageTables,
    WyckoffBlock,
    free_completions,
)

if TYPE_CHECKING:
    from activelearning.spaces.crystal import CrystalSpace

# Descriptors of the element to be placed, for the policy.
ELEMENT_COLUMNS = ("electronegativity", "covalent_radius", "row", "group")


class WyckoffStage:
    """One step for each letter that an element sits on.

    Block: number of orbits of the element in slot s (the s-th of the composition) on letter l, column
    `s * L + l`, letters in the group's canonical order. Action `l * N + k - 1` puts k orbits of the first
    element that is not wholly placed on letter l.
    """

    name = "wyckoff"
    n_continuous = 0

    def __init__(self, space: CrystalSpace) -> None:
        base = space.base
        self._symbols, self._per_element = base.elements, base.max_atoms_per_element
        self.layout = WyckoffBlock(base.space_groups, base.n_elements[1])
        self.positions = self.layout.positions
        self._completes = free_completions(self.positions, self._per_element)
        self._usages = UsageTables(base.space_groups, self._per_element)
        self._room = (
            Room(base.space_groups, self.positions.multiplicity, self.positions.is_fixed, self._per_element)
            if base.coordinates
            else None
        )
        self.n_slots, self.n_letters = self.layout.n_slots, self.layout.n_letters
        self.width = self.layout.width
        self.n_actions = self.n_letters * self._per_element
        self.max_steps = min(self.width, base.max_atoms)
        rows = [atomic_number(symbol) - 1 for symbol in self._symbols]
        self._radii = smallest_radii()[rows]
        descriptors = properties(ELEMENT_COLUMNS)[rows]
        spread = np.ptp(descriptors, axis=0)
        self.element_inputs = (descriptors - descriptors.min(axis=0)) / np.where(spread > 0, spread, 1.0)
        n_shared = self.n_slots + self.element_inputs.shape[1] + 1
        self.n_inputs = 4 * self.n_letters + n_shared

    def _progress(self, crystals: Crystals) -> _Progress:
        """Where each crystal stands."""
        orbits = self.layout.orbits(crystals)
        elements, atoms = self.layout.slots(crystals)
        groups = np.maximum(crystals.groups, 0)
        left = atoms - (orbits * self.positions.multiplicity[groups][:, None, :]).sum(axis=2)
        slot = np.argmax(left > 0, axis=1)
        rows = np.arange(len(orbits))
        here = orbits[rows, slot] > 0
        last = np.where(here.any(axis=1), self.n_letters - 1 - np.argmax(here[:, ::-1], axis=1), -1)
        return _Progress(orbits, elements, atoms, left, slot, last, groups)

    # ---------------------------------------------------------------- the stage

    def encode(self, crystals: Crystals) -> Inputs:
        """Orbits by letter of all elements and of the one at work, its last letter, the letters still free, its slot,
        descriptors and share of atoms left, `n x n_inputs`.
        """
        at = self._progress(crystals)
        rows, n_letters = np.arange(len(crystals)), self.n_letters
        total = at.orbits.sum(axis=1)
        found = np.zeros((len(crystals), self.n_inputs), dtype=np.float32)
        found[:, :n_letters] = np.log1p(total)
        found[:, n_letters : 2 * n_letters] = np.log1p(at.orbits[rows, at.slot])
        started = np.flatnonzero(at.last >= 0)
        found[started, 2 * n_letters + at.last[started]] = 1.0
        is_used = self.positions.is_fixed[at.groups] & (total > 0)
        found[:, 3 * n_letters : 4 * n_letters] = self.positions.exists[at.groups] & ~is_used
        column = 4 * n_letters
        left = at.left[rows, at.slot]
        busy = np.flatnonzero(left > 0)
        found[busy, column + at.slot[busy]] = 1.0
        column += self.n_slots
        found[busy, column:-1] = self.element_inputs[at.elements[busy, at.slot[busy]]]
        found[:, -1] = left / self._per_element
        return found

    def mask(self, crystals: Crystals) -> Flags:
        """`n x n_actions`: what the counts still to be placed, of this and the later elements, allow."""
        at = self._progress(crystals)
        tables, positions = self._usages, self.positions
        n, n_letters, per_element = len(at.slot), self.n_letters, self._per_element
        rows = np.arange(n)
        signature = tables.signature[at.groups]
        is_fixed = positions.is_fixed[at.groups]
        is_used = is_fixed & (at.orbits.sum(axis=1) > 0)
        available = tables.available(at.groups, is_used)
        later = tables.sufficient(signature, at.atoms, at.slot)
        left = at.left[rows, at.slot]
        mask = np.zeros((n, n_letters, per_element), dtype=np.bool_)

        # Positions with free coordinates come last: after one of them no fixed one follows.
        is_left = (later >> available) & 1 > 0
        first = np.maximum(at.last + 1, positions.n_fixed[at.groups])
        mask |= (
            self._completes[at.groups, :, left]
            & (np.arange(n_letters) >= first[:, None])[:, :, None]
            & is_left[:, None, None]
        )

        may_fix = is_fixed & ~is_used & (np.arange(n_letters) > at.last[:, None])
        row, letter = np.nonzero(may_fix & (positions.multiplicity[at.groups] <= left[:, None]))
        if len(row):
            rest = left[row] - positions.multiplicity[at.groups[row], letter]
            beyond = is_used[row] | (np.arange(n_letters) <= letter[:, None])
            mask[row, letter, 0] = tables.can_complete(
                at.groups[row],
                rest,
                within=tables.available(at.groups[row], beyond),
                available=available[row] - tables.stride[at.groups[row], letter],
                later=later[row],
            )
        if self._room is not None:
            radii = np.where(at.elements >= 0, self._radii[at.elements], 0.0)
            state = Occupation(at.groups, crystals.lattices, radii, at.orbits, at.left, at.slot)
            mask = self._room.keep(mask, state, at.last)
        return mask.reshape(n, self.n_actions)

    def drawn(self, crystals: Crystals, actions: Integers) -> Flags:
        """`n x 0`."""
        return np.zeros((len(crystals), 0), dtype=np.bool_)

    def step(self, crystals: Crystals, actions: Integers, u: Floats) -> Floats:
        """`n x width`."""
        block = crystals.block(self.name).copy()
        letter, k = np.divmod(actions, self._per_element)
        block[np.arange(len(block)), self._progress(crystals).slot * self.n_letters + letter] = k + 1
        return block

    def is_complete(self, crystals: Crystals) -> Flags:
        """`n`."""
        at = self._progress(crystals)
        return np.asarray((at.atoms[:, 0] > 0) & (at.left == 0).all(axis=1))

    def is_empty(self, crystals: Crystals) -> Flags:
        """`n`."""
        return np.asarray(~crystals.block(self.name).any(axis=1))

    def step_back(self, crystals: Crystals) -> tuple[Integers, Floats, Floats]:
        """Undo the last letter of the last element that sits on any."""
        block = crystals.block(self.name).copy()
        rows = np.arange(len(block))
        column = self.width - 1 - np.argmax(block[:, ::-1] > 0, axis=1)
        actions = column % self.n_letters * self._per_element + block[rows, column].astype(np.int64) - 1
        block[rows, column] = 0.0
        return actions, np.zeros((len(block), 0)), block

    def log_jacobian(self, crystals: Crystals, actions: Integers, u: Floats) -> Floats:
        """`n` zeros: nothing continuous."""
        return np.zeros(len(crystals))

    def values(self, crystals: Crystals) -> Sequence[Mapping[str, tuple[str, ...]]]:
        """Letters by element, a letter once for each orbit."""
        found: list[Mapping[str, tuple[str, ...]]] = []
        for elements, orbits, group in zip(
            self.layout.slots(crystals)[0].tolist(),
            self.layout.orbits(crystals),
            crystals.groups,
            strict=True,
        ):
            names = self.positions.letters[group]
            found.append(
                {
                    self._symbols[element]: tuple(names[letter] for letter in np.repeat(range(len(row)), row))
                    for element, row in zip(elements, orbits, strict=True)
                    if element >= 0
                }
            )
        return found

    def read(self, candidates: Sequence[CrystalCandidate], crystals: Crystals) -> Floats:
        """The block of candidates' letters."""
        block = np.zeros((len(candidates), self.width))
        elements = self.layout.slots(crystals)[0].tolist()
        for row, (candidate, group) in enumerate(zip(candidates, crystals.groups, strict=True)):
            if candidate.wyckoff is None:
                raise ValueError(f"{candidate.formula} has no Wyckoff positions")
            place = {letter: column for column, letter in enumerate(self.positions.letters[group])}
            slot = {self._symbols[e]: s for s, e in enumerate(elements[row]) if e >= 0}
            for symbol, letters in candidate.wyckoff.items():
                for letter in letters:
                    if symbol not in slot or letter not in place:
                        raise ValueError(
                            f"{candidate.formula} has no {symbol} on a Wyckoff position {letter}"
                        )
                    block[row, slot[symbol] * self.n_letters + place[letter]] += 1.0
        return block


class _Progress(NamedTuple):
    """Orbits, elements and atoms by slot; atoms left to place by slot, the slot at work, its last letter, the group."""

    orbits: Integers
    elements: Integers
    atoms: Integers
    left: Integers
    slot: Integers
    last: Integers
    groups: Integers
