"""Wyckoff positions: which element sits on which, and how many orbits of it.

Elements are placed in order of atomic number, each on letters in one canonical order (positions without free
coordinates first), so that each assignment has one path. What later elements need of the fixed positions is
held as a bit set over *usages* (how many fixed positions of each multiplicity are still free), which decides
every mask exactly: a fixed position is used once at most, whatever element sits on it, and positions of equal
multiplicity can stand in for one another in what is still to be placed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.elements import atomic_number, properties
from activelearning.crystals.sites import canonical_order
from activelearning.crystals.symmetry import SpaceGroup
from activelearning.crystals.wyckoff import Signature
from samplers.gflownet.environments.crystal_stages.stage import Crystals, Flags, Floats, Inputs, Integers

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
        self._groups = base.space_groups
        self.n_slots = base.n_elements[1]
        self.positions = PositionTables(base.space_groups, self._per_element)
        self._usages = UsageTables(base.space_groups, self._per_element)
        self.n_letters = self.positions.n_letters
        self.width = self.n_slots * self.n_letters
        self.n_actions = self.n_letters * self._per_element
        self.max_steps = min(self.width, base.max_atoms)
        rows = [atomic_number(symbol) - 1 for symbol in self._symbols]
        descriptors = properties(ELEMENT_COLUMNS)[rows]
        spread = np.ptp(descriptors, axis=0)
        self.element_inputs = (descriptors - descriptors.min(axis=0)) / np.where(spread > 0, spread, 1.0)
        n_shared = self.n_slots + self.element_inputs.shape[1] + 1
        self.n_inputs = 4 * self.n_letters + n_shared

    # ---------------------------------------------------------------- what a block says

    def orbits(self, crystals: Crystals) -> Integers:
        """Number of orbits by slot and letter, `n x S x L`."""
        block = crystals.block(self.name)
        return block.astype(np.int64).reshape(len(block), self.n_slots, self.n_letters)

    def slots(self, crystals: Crystals) -> tuple[Integers, Integers]:
        """Index of the element in each slot and its number of atoms, `n x S` both; -1 and 0 in empty ones."""
        counts = crystals.counts
        n = len(counts)
        elements = np.full((n, self.n_slots), -1, dtype=np.int64)
        atoms = np.zeros((n, self.n_slots), dtype=np.int64)
        rows, columns = np.nonzero(counts)
        ranks = (np.cumsum(counts > 0, axis=1) - 1)[rows, columns]
        elements[rows, ranks] = columns
        atoms[rows, ranks] = counts[rows, columns]
        return elements, atoms

    def _progress(self, crystals: Crystals) -> _Progress:
        """Where each crystal stands."""
        orbits = self.orbits(crystals)
        elements, atoms = self.slots(crystals)
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
        descriptors and share of atoms left, `n x n_inputs`; zero for an empty block.
        """
        inputs = np.zeros((len(crystals), self.n_inputs), dtype=np.float32)
        begun = np.flatnonzero(~self.is_empty(crystals))
        if not len(begun):
            return inputs
        at = self._progress(crystals if len(begun) == len(crystals) else crystals.take(begun))
        rows, n_letters = np.arange(len(begun)), self.n_letters
        total = at.orbits.sum(axis=1)
        found = np.zeros((len(begun), self.n_inputs), dtype=np.float32)
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
        inputs[begun] = found
        return inputs

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
            positions.completes[at.groups, :, left]
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
            self.slots(crystals)[0].tolist(), self.orbits(crystals), crystals.groups, strict=True
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
        elements = self.slots(crystals)[0].tolist()
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


class PositionTables:
    """Wyckoff positions of G groups by letter in canonical order, padded to the L of the group with most.

    Attributes:
        letters: The letters of each group.
        indices: For each of them its index in `SpaceGroup.wyckoff`, `G x L`.
        multiplicity: `G x L`, 0 where there is no such letter.
        is_fixed: `G x L`, no free coordinate.
        exists: `G x L`.
        n_fixed: Number of fixed positions, `G`; they come first.
        completes: `G x L x (N + 1) x N`: whether k orbits (last axis, less one) on a free letter leave of n atoms
            what free letters after it can hold.
    """

    def __init__(self, groups: Sequence[SpaceGroup], per_element: int) -> None:
        self.n_letters = n_letters = max(len(group.wyckoff) for group in groups)
        shape = (len(groups), n_letters)
        self.letters: list[tuple[str, ...]] = []
        self.indices = np.zeros(shape, dtype=np.int64)
        self.multiplicity = np.zeros(shape, dtype=np.int64)
        self.is_fixed = np.zeros(shape, dtype=np.bool_)
        self.exists = np.zeros(shape, dtype=np.bool_)
        for g, group in enumerate(groups):
            order = canonical_order(group)
            self.letters.append(tuple(group.wyckoff[i].letter for i in order))
            self.indices[g, : len(order)] = order
            self.multiplicity[g, : len(order)] = [group.wyckoff[i].multiplicity for i in order]
            self.is_fixed[g, : len(order)] = [group.wyckoff[i].is_fixed for i in order]
            self.exists[g, : len(order)] = True
        self.n_fixed = self.is_fixed.sum(axis=1)
        self.completes = self._completions(per_element)

    def _completions(self, per_element: int) -> Flags:
        n_groups, n_letters = self.multiplicity.shape
        rows = np.arange(n_groups)
        counts = np.arange(per_element + 1)
        # What the letters after the one at hand can hold.
        holds = np.zeros((n_groups, per_element + 1), dtype=np.bool_)
        holds[:, 0] = True
        completes = np.zeros((n_groups, n_letters, per_element + 1, per_element), dtype=np.bool_)
        for letter in range(n_letters - 1, -1, -1):
            is_free = self.exists[:, letter] & ~self.is_fixed[:, letter]
            held = np.arange(1, per_element + 1) * self.multiplicity[:, letter, None]
            rest = counts[None, :, None] - held[:, None, :]
            fits = (rest >= 0) & is_free[:, None, None]
            completes[:, letter] = fits & holds[rows[:, None, None], np.maximum(rest, 0)]
            holds = holds | completes[:, letter].any(axis=2)
        return completes


class UsageTables:
    """What counts need of the fixed positions, for G groups and counts up to N.

    A usage is a number (mixed radix) that says how many fixed positions of each multiplicity are taken, or
    available; only multiplicities that free positions can't hold take part. There are at most 24 usages, so a set of
    them is one integer.
    """

    def __init__(self, groups: Sequence[SpaceGroup], per_element: int) -> None:
        signatures = [Signature.of(group, per_element) for group in groups]
        distinct = list(dict.fromkeys(signatures))
        self.signature = np.array([distinct.index(s) for s in signatures], dtype=np.int64)
        minimal = [s.minimal_usages() for s in distinct]
        most = max(max(len(usages) for usages in row) for row in minimal)
        n_classes = max(len(s.fixed) for s in distinct)
        shape = (len(distinct), per_element + 1, most)
        # Minimal usages by which n atoms can be placed: as numbers, by class, and the availabilities that allow them.
        self._needed = np.zeros(shape, dtype=np.int64)
        self._allowing = np.zeros(shape, dtype=np.int64)
        self._radix = np.ones((len(distinct), n_classes), dtype=np.int64)
        self._size = np.ones((len(distinct), n_classes), dtype=np.int64)
        for i, signature in enumerate(distinct):
            sizes = [positions + 1 for _, positions in signature.fixed]
            self._size[i, : len(sizes)] = sizes
            self._radix[i] = np.cumprod([1, *self._size[i, :-1]])[:n_classes]
            for n, usages in enumerate(minimal[i]):
                for j, usage in enumerate(usages):
                    self._needed[i, n, j] = sum(
                        int(r) * v for r, v in zip(self._radix[i], usage, strict=False)
                    )
                    self._allowing[i, n, j] = self._at_least(i, usage)
        self._everything = np.array(
            [(1 << math.prod(row)) - 1 for row in self._size.tolist()], dtype=np.int64
        )
        self.stride = self._strides(groups, signatures)
        self._total = self.stride.sum(axis=1)

    def _strides(self, groups: Sequence[SpaceGroup], signatures: Sequence[Signature]) -> Integers:
        """`G x L`: what one more use of a letter adds to a usage's number."""
        stride = np.zeros((len(groups), max(len(group.wyckoff) for group in groups)), dtype=np.int64)
        for g, (group, signature) in enumerate(zip(groups, signatures, strict=True)):
            radix = {m: int(self._radix[self.signature[g], c]) for c, (m, _) in enumerate(signature.fixed)}
            for column, i in enumerate(canonical_order(group)):
                if group.wyckoff[i].is_fixed:
                    stride[g, column] = radix.get(group.wyckoff[i].multiplicity, 0)
        return stride

    def _at_least(self, i: int, usage: tuple[int, ...]) -> int:
        """The set of usages that are no smaller in any class."""
        found = 0
        for larger in np.ndindex(*self._size[i].tolist()):
            if all(a >= b for a, b in zip(larger, usage, strict=False)):
                found |= 1 << int(np.dot(larger, self._radix[i]))
        return found

    def available(self, groups: Integers, is_used: Flags) -> Integers:
        """`n`: the usage that is left, given the letters, `n x L`, that may not be used."""
        left: Integers = self._total[groups] - (self.stride[groups] * is_used).sum(axis=1)
        return left

    def sufficient(self, signature: Integers, atoms: Integers, slot: Integers) -> Integers:
        """`n`: the set of availabilities with which the elements after a slot, `n`, can be placed."""
        enough = self._everything[signature]
        for s in range(atoms.shape[1] - 1, 0, -1):
            rows = np.flatnonzero((slot < s) & (atoms[:, s] > 0))
            if len(rows):
                needed = self._needed[signature[rows], atoms[rows, s]]
                allowing = self._allowing[signature[rows], atoms[rows, s]]
                shifted = (enough[rows][:, None] << needed) & allowing
                enough[rows] = np.bitwise_or.reduce(shifted, axis=1)
        return enough

    def can_complete(
        self, groups: Integers, rest: Integers, *, within: Integers, available: Integers, later: Integers
    ) -> Flags:
        """`n`: whether `rest` atoms of one element fit on free positions and fixed ones `within` reach, such that what
        then is left of all that are `available` is in the set `later`.
        """
        signature = self.signature[groups]
        needed, allowing = self._needed[signature, rest], self._allowing[signature, rest]
        is_within = (allowing >> within[:, None]) & 1 > 0
        after = np.maximum(available[:, None] - needed, 0)
        return np.asarray((is_within & ((later[:, None] >> after) & 1 > 0)).any(axis=1))
