"""Exact masks for building a composition element by element.

Elements are added in order of atomic number, each with its count, and the composition ends by a stop. An
action is allowed exactly when at least one completion keeps every constraint: Wyckoff positions and limits on
counts (the automaton of `wyckoff`), charge neutrality with one oxidation state per element, and required
elements. This is decided by a dynamic program from the last element back over (element, automaton node) ->
set of charges from which a completion exists.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.charge import shifted
from activelearning.crystals.wyckoff import DEAD, CountAutomaton

# Memory for the charge tables of automaton nodes: made when first visited, dropped when this is full.
TABLE_BYTES = 256 * 2**20
# States are worked on in chunks of so many, so that intermediate arrays stay small (and in cache).
CHUNK = 256


def _before(after: int, n: int, states: Sequence[int]) -> int:
    """Bit set of charges from which n atoms in one of the states lead into the bit set `after`."""
    charges = 0
    if after:
        for q in states:
            charges |= shifted(after, -n * q)
    return charges


class CompositionMasks:
    """Allowed actions of the composition stage.

    With E elements and at most N atoms of each there are `E * N + 1` actions: `e * N + (n - 1)` adds n atoms
    of element e, the last one stops.

    Args:
        automaton: Frozen automaton of counts.
        states: Oxidation states of each element, elements in order of atomic number; `(0,)` for all turns
            neutrality off.
        required: Whether each element must be present.
    """

    def __init__(
        self, automaton: CountAutomaton, states: Sequence[Sequence[int]], required: Sequence[bool]
    ) -> None:
        self._automaton = automaton
        self._states = [tuple(sorted(set(s))) for s in states]
        self._required = list(required)
        self.n_elements, self.per_element = len(states), automaton.per_element
        self.n_actions = self.n_elements * self.per_element + 1
        self._offset = self._largest_charge()
        self._reach = self._reachable_charges()
        self._frame_charges()
        self._frame_actions()

    def has_composition(self, root: int) -> bool:
        """True when at least one composition can be built from an automaton root."""
        return root != DEAD and bool(self._reach[0][root] >> self._offset & 1)

    def is_complete(self, roots: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """`n x R`: whether whole compositions, `n x E`, are accepted from each of R roots, charges aside."""
        return self._automaton.accepts(roots, counts)

    def nodes(self, roots: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Automaton nodes, `n`, after counts, `n x E`, from roots, `n`; `DEAD` where the counts are not allowed."""
        nodes = roots.copy()
        for e in np.flatnonzero(counts.any(axis=0)):
            rows = np.flatnonzero((counts[:, e] > 0) & (nodes != DEAD))
            nodes[rows] = self._automaton.children[nodes[rows], counts[rows, e] - 1]
        return nodes

    def masks(self, roots: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Allowed actions, `n x n_actions`, in states given by automaton roots, `n`, and counts so far, `n x E`."""
        nodes = self.nodes(roots, counts)
        words = np.zeros((len(counts), self._n_words), dtype=np.uint64)
        # By node, so that a chunk needs few tables.
        alive = np.flatnonzero(nodes != DEAD)
        alive = alive[np.argsort(nodes[alive], kind="stable")]
        while len(alive):
            chunk = alive[:CHUNK]
            distinct = np.unique(nodes[chunk])[: self._capacity]
            chunk = chunk[nodes[chunk] <= distinct[-1]]
            words[chunk] = self._words(nodes[chunk], distinct, counts[chunk])
            alive = alive[len(chunk) :]
        passed = np.where(counts.any(axis=1), self.n_elements - np.argmax(counts[:, ::-1] > 0, axis=1), 0)
        words &= self._later[passed]
        bits = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little", count=self.n_actions)
        return bits.view(np.bool_)

    # ---------------------------------------------------------------- construction

    def _largest_charge(self) -> int:
        depth = np.zeros(self._automaton.n_nodes, dtype=np.int64)
        for node, children in enumerate(self._automaton.children):
            alive = children[children != DEAD]
            depth[node] = 1 + depth[alive].max() if len(alive) else 0
        largest = max((abs(q) for states in self._states for q in states), default=0)
        return int(depth.max(initial=0)) * self.per_element * largest

    def _alive_children(self) -> list[list[tuple[int, int]]]:
        return [
            [(n + 1, int(child)) for n, child in enumerate(children) if child != DEAD]
            for children in self._automaton.children
        ]

    def _reachable_charges(self) -> list[list[int]]:
        """Entry [e][node]: bit set of charges from which elements e, e + 1, … can complete a composition."""
        zero = 1 << self._offset
        reach = [[zero if accepting else 0 for accepting in self._automaton.is_accepting]]
        alive = self._alive_children()
        for states, is_required in zip(reversed(self._states), reversed(self._required), strict=True):
            after = reach[-1]
            # Many nodes share a child by the same count.
            known: dict[tuple[int, int], int] = {}
            row = []
            for node, moves in enumerate(alive):
                charges = 0 if is_required else after[node]
                for move in moves:
                    if move not in known:
                        n, child = move
                        known[move] = _before(after[child], n, states)
                    charges |= known[move]
                row.append(charges)
            reach.append(row)
        return reach[::-1]

    def _frame_charges(self) -> None:
        """The range of charges that occur in any reachable set: columns of the tables."""
        union = 1 << self._offset
        for row in self._reach:
            for charges in row:
                union |= charges
        self._lowest = (union & -union).bit_length() - 1
        self._n_charges = union.bit_length() - self._lowest
        self._zero = self._offset - self._lowest
        most = max((len(s) for s in self._states), default=1)
        # Padded by repetition: a charge reached twice is reached.
        self._padded = np.array([s + s[:1] * (most - len(s)) for s in self._states], dtype=np.int64)

    def _frame_actions(self) -> None:
        self._n_words = -(-self.n_actions // 64)
        per_node = self._n_charges * self._n_words * 8
        self._capacity = max(1, min(TABLE_BYTES // per_node, self._automaton.n_nodes))
        # Pages that are never written take no memory.
        self._tables = np.empty((self._capacity, self._n_charges, self._n_words), dtype=np.uint64)
        self._slots = np.full(self._automaton.n_nodes, DEAD, dtype=np.int64)
        self._n_slots = 0
        # Row i: what may follow when i elements have been passed; no required element may be skipped.
        later = np.zeros((self.n_elements + 1, self._n_words * 64), dtype=bool)
        for passed in range(self.n_elements + 1):
            required = [e for e in range(passed, self.n_elements) if self._required[e]]
            end = required[0] + 1 if required else self.n_elements
            later[passed, passed * self.per_element : end * self.per_element] = True
            later[passed, self.n_actions - 1] = not required
        self._later = np.packbits(later, axis=1, bitorder="little").view(np.uint64)

    # ---------------------------------------------------------------- tables by node

    def _table(self, node: int) -> NDArray[np.uint64]:
        """Actions allowed by charge, `n_charges x n_words`, as bits."""
        n_bytes = -(-self._n_charges // 8)
        rows = np.zeros((self._n_words * 64, n_bytes), dtype=np.uint8)
        full = (1 << self._n_charges) - 1
        for n, child in enumerate(self._automaton.children[node], start=1):
            if child == DEAD:
                continue
            for e, states in enumerate(self._states):
                after = self._reach[e + 1][child]
                if not after:
                    continue
                charges = _before(after, n, states) >> self._lowest & full
                rows[e * self.per_element + n - 1] = np.frombuffer(
                    charges.to_bytes(n_bytes, "little"), dtype=np.uint8
                )
        bits = np.unpackbits(rows, axis=1, bitorder="little", count=self._n_charges)
        bits[self.n_actions - 1, self._zero] = self._automaton.is_accepting[node]
        packed = np.packbits(np.ascontiguousarray(bits.T), axis=1, bitorder="little")
        return packed.view(np.uint64)

    def _ensure(self, distinct: NDArray[np.int64]) -> None:
        missing = distinct[self._slots[distinct] == DEAD]
        if self._n_slots + len(missing) > self._capacity:
            self._slots[:] = DEAD
            self._n_slots = 0
            missing = distinct
        for node in missing:
            self._tables[self._n_slots] = self._table(int(node))
            self._slots[node] = self._n_slots
            self._n_slots += 1

    def _words(
        self, nodes: NDArray[np.int64], distinct: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> NDArray[np.uint64]:
        self._ensure(distinct)
        rows, charges = self._charges(counts)
        slots = self._slots[nodes]
        words = self._tables[slots[rows], charges]
        # Rows ascend: one segment a row. A row without a charge in the frame has no completion.
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        allowed = np.zeros((len(counts), self._n_words), dtype=np.uint64)
        allowed[rows[starts]] = np.bitwise_or.reduceat(words, starts, axis=0)
        return allowed

    def _charges(self, counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Charges that each row's composition can have: indices of rows, ascending, and of charges."""
        n = len(counts)
        rows, charges = np.arange(n), np.full(n, self._zero)
        ranks = np.cumsum(counts > 0, axis=1) * (counts > 0)
        for rank in range(1, int(ranks.max(initial=0)) + 1):
            at = ranks == rank
            has = at.any(axis=1)
            element = np.argmax(at, axis=1)
            steps = np.where(has, counts[np.arange(n), element], 0)[:, None] * self._padded[element]
            reached = charges[:, None] + steps[rows]
            # Charges outside the frame can't be completed; the last column takes them.
            reached = np.where((reached >= 0) & (reached < self._n_charges), reached, self._n_charges)
            seen = np.zeros((n, self._n_charges + 1), dtype=bool)
            seen[rows[:, None], reached] = True
            rows, charges = np.nonzero(seen[:, :-1])
        return rows, charges
