"""Tables of Wyckoff positions by group, in arrays: what fits on which letter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from activelearning.crystals.sites import canonical_order
from activelearning.crystals.symmetry import SpaceGroup
from activelearning.crystals.wyckoff import Signature
from samplers.gflownet.environments.crystal_stages.stage import Crystals, Flags, Integers


class PositionTables:
    """Wyckoff positions of G groups by letter in canonical order, padded to the L of the group with most.

    Attributes:
        letters: The letters of each group.
        indices: For each of them its index in `SpaceGroup.wyckoff`, `G x L`.
        multiplicity: `G x L`, 0 where there is no such letter.
        is_fixed: `G x L`, no free coordinate.
        exists: `G x L`.
        n_fixed: Number of fixed positions, `G`; they come first.
    """

    def __init__(self, groups: Sequence[SpaceGroup]) -> None:
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


class WyckoffBlock:
    """What the block of the Wyckoff stage says: orbits by slot and letter, column `s * L + l`.

    Slot s is the s-th element of the composition, by atomic number.

    Args:
        groups: The space's groups.
        n_slots: Most elements of a crystal, S.

    Attributes:
        positions: The groups' positions.
    """

    name = "wyckoff"

    def __init__(self, groups: Sequence[SpaceGroup], n_slots: int) -> None:
        self.positions = PositionTables(groups)
        self.n_slots, self.n_letters = n_slots, self.positions.n_letters
        self.width = n_slots * self.n_letters

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


def free_completions(positions: PositionTables, per_element: int) -> Flags:
    """`G x L x (N + 1) x N`: whether k orbits (last axis, less one) on a free letter leave of n atoms what free letters
    after it can hold.
    """
    n_groups, n_letters = positions.multiplicity.shape
    rows = np.arange(n_groups)
    counts = np.arange(per_element + 1)
    # What the letters after the one at hand can hold.
    holds = np.zeros((n_groups, per_element + 1), dtype=np.bool_)
    holds[:, 0] = True
    completes = np.zeros((n_groups, n_letters, per_element + 1, per_element), dtype=np.bool_)
    for letter in range(n_letters - 1, -1, -1):
        is_free = positions.exists[:, letter] & ~positions.is_fixed[:, letter]
        held = np.arange(1, per_element + 1) * positions.multiplicity[:, letter, None]
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
