"""Charges from which a composition can be completed, by automaton node and element.

A dynamic program from the last element back. Sets of charges are integers used as bit sets
(`activelearning.crystals.charge`); a node's set is the union over the counts of one more element, or none, of
the sets that follow, each less the charges of these atoms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.charge import ChargeSet
from activelearning.crystals.wyckoff import DEAD, CountAutomaton

Words = NDArray[np.uint64]


class Completions:
    """Sets of charges from which compositions can be completed.

    Args:
        automaton: Frozen automaton of counts, N atoms of an element at most.
        added: Entry [e][n - 1]: charges that n atoms of element e can have together.
        may_skip: Whether each element may be absent.

    Attributes:
        offset: Bit of the charge zero.
        sets: Entry [e][node]: bit set of charges from which elements e, e + 1, … can complete a composition.
    """

    def __init__(
        self, automaton: CountAutomaton, added: Sequence[Sequence[ChargeSet]], may_skip: Sequence[bool]
    ) -> None:
        self._automaton = automaton
        self._node, self._count = np.nonzero(automaton.children != DEAD)
        self._child = automaton.children[self._node, self._count]
        self._first = np.flatnonzero(np.diff(self._node, prepend=-1))
        self.offset = self._largest_charge(added)
        self._n_words = (2 * self.offset) // 64 + 1
        zero = 1 << self.offset
        self.sets: list[list[int]] = [[zero if accepting else 0 for accepting in automaton.is_accepting]]
        # Elements that may take the same charges do the same to the same sets, and soon add nothing.
        known: dict[tuple[int, tuple[ChargeSet, ...], bool], list[int]] = {}
        for e in reversed(range(len(added))):
            after = self.sets[-1]
            key = (id(after), tuple(added[e]), may_skip[e])
            if key not in known:
                row = self._before(after, [-charges for charges in added[e]], may_skip=may_skip[e])
                known[key] = after if row == after else row
            self.sets.append(known[key])
        self.sets.reverse()

    def _largest_charge(self, added: Sequence[Sequence[ChargeSet]]) -> int:
        """Bound on the absolute charge of any composition."""
        heaviest = [
            max((row[n].largest for row in added), default=0) for n in range(self._automaton.per_element)
        ]
        steps = np.array(heaviest, dtype=np.int64)
        bound = np.zeros(self._automaton.n_nodes, dtype=np.int64)
        # Children come before parents.
        for node, children in enumerate(self._automaton.children):
            counts = np.flatnonzero(children != DEAD)
            bound[node] = (steps[counts] + bound[children[counts]]).max(initial=0)
        return int(bound.max(initial=0))

    def _before(self, after: Sequence[int], removed: Sequence[ChargeSet], *, may_skip: bool) -> list[int]:
        """By node: charges from which one element, or none, leads into the bit sets `after`."""
        before = self._words(after) if may_skip else np.zeros((len(after), self._n_words), dtype=np.uint64)
        if len(self._first) and any(charges.runs for charges in removed):
            # Many nodes share what follows after the same count.
            values = {charges: i for i, charges in enumerate(dict.fromkeys(after))}
            following = np.array([values[charges] for charges in after])
            pairs, inverse = np.unique(
                self._count * len(values) + following[self._child], return_inverse=True
            )
            distinct = list(values)
            counts, sets = np.divmod(pairs, len(values))
            reached = self._words(
                [
                    removed[n].added_to(distinct[i]) if distinct[i] else 0
                    for n, i in zip(counts.tolist(), sets.tolist(), strict=True)
                ]
            )
            before[self._node[self._first]] |= np.bitwise_or.reduceat(
                reached.take(inverse, axis=0), self._first, axis=0
            )
        packed, width = before.tobytes(), 8 * self._n_words
        rows = (packed[i : i + width] for i in range(0, len(packed), width))
        return [int.from_bytes(row, "little") for row in rows]

    def _words(self, sets: Sequence[int]) -> Words:
        """Bit sets as rows of words."""
        width = 8 * self._n_words
        packed = bytearray(b"".join(charges.to_bytes(width, "little") for charges in sets))
        return np.frombuffer(packed, dtype=np.uint64).reshape(-1, self._n_words)
