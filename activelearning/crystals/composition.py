"""Exact masks for building a composition element by element.

Elements are added in order of atomic number, each with its count, and the composition ends by a stop. An
action is allowed exactly when at least one completion keeps every constraint: Wyckoff positions and limits on
counts (the automaton of `wyckoff`), charge neutrality, and the counts allowed for each element. This is
decided by a dynamic program from the last element back over (element, automaton node) -> set of charges from
which a completion exists.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.charge import ChargeSet
from activelearning.crystals.completion import Completions
from activelearning.crystals.wyckoff import DEAD, CountAutomaton

# Memory for the tables of automaton nodes: made when first visited, dropped when this is full.
TABLE_BYTES = 256 * 2**20
# Most charge sets that are remembered; a few hundred bytes each.
KNOWN_SETS = 2**16
# States are worked on in chunks of so many, so that intermediate arrays stay small (and in cache).
CHUNK = 512


class CompositionMasks:
    """Allowed actions of the composition stage.

    With E elements and at most N atoms of each there are `E * N + 1` actions: `e * N + (n - 1)` adds n atoms
    of element e, the last one stops.

    Args:
        automaton: Frozen automaton of counts.
        totals: Entry [e][n - 1]: charges that n atoms of element e can have together, elements in order of
            atomic number; `(0,)` throughout turns neutrality off.
        allowed: `E x (N + 1)`, bool: which counts each element may have; column 0 for being absent.
    """

    def __init__(
        self,
        automaton: CountAutomaton,
        totals: Sequence[Sequence[Collection[int]]],
        allowed: NDArray[np.bool_],
    ) -> None:
        self._automaton, self._allowed = automaton, allowed
        self.n_elements, self.per_element = len(totals), automaton.per_element
        self.n_actions = self.n_elements * self.per_element + 1
        nothing = ChargeSet.of(())
        # By action. A count that is not allowed has no charge, and so no completion.
        self._added = [
            ChargeSet.of(charges) if allowed[e, n] else nothing
            for e, row in enumerate(totals)
            for n, charges in enumerate(row, start=1)
        ]
        self._removed = [-charges for charges in self._added]
        by_element = [
            self._added[e * self.per_element : (e + 1) * self.per_element] for e in range(self.n_elements)
        ]
        completions = Completions(automaton, by_element, allowed[:, 0].tolist())
        self._offset, self._reach = completions.offset, completions.sets
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
            served = self._ensure(np.unique(nodes[chunk]))
            chunk = chunk[nodes[chunk] <= served]
            words[chunk] = self._words(nodes[chunk], counts[chunk])
            alive = alive[len(chunk) :]
        passed = np.where(counts.any(axis=1), self.n_elements - np.argmax(counts[:, ::-1] > 0, axis=1), 0)
        words &= self._later[passed]
        if self._must.any():
            skipped = (counts == 0) & self._must & (np.arange(self.n_elements) < passed[:, None])
            words[skipped.any(axis=1)] = 0
        bits = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little", count=self.n_actions)
        return bits.view(np.bool_)

    # ---------------------------------------------------------------- construction

    def _frame_charges(self) -> None:
        """The range of charges that occur in any reachable set."""
        union = 1 << self._offset
        for row in self._reach:
            for charges in row:
                union |= charges
        self._lowest = (union & -union).bit_length() - 1
        self._n_charges = union.bit_length() - self._lowest
        self._zero = self._offset - self._lowest
        self._n_bytes = -(-self._n_charges // 8)
        self._known_sets: dict[tuple[int, int], int] = {}

    def _frame_actions(self) -> None:
        self._n_words = -(-self.n_actions // 64)
        self._capacity = max(TABLE_BYTES // (8 * self._n_words), self._n_charges)
        # Pages that are never written take no memory.
        self._pool = np.empty((self._capacity, self._n_words), dtype=np.uint64)
        self._drop_tables()
        # Row i: what may follow when i elements have been passed; none may be skipped that must be present.
        self._must = ~self._allowed[:, 0]
        later = np.zeros((self.n_elements + 1, self._n_words * 64), dtype=bool)
        for passed in range(self.n_elements + 1):
            required = passed + np.flatnonzero(self._must[passed:])
            end = required[0] + 1 if len(required) else self.n_elements
            later[passed, passed * self.per_element : end * self.per_element] = True
            later[passed, self.n_actions - 1] = not len(required)
        self._later = np.packbits(later, axis=1, bitorder="little").view(np.uint64)

    # ---------------------------------------------------------------- tables by node

    def _drop_tables(self) -> None:
        self._n_rows = 0
        self._is_made = np.zeros(self._automaton.n_nodes, dtype=np.bool_)
        #: Row of the pool that belongs to the frame's first charge, by node.
        self._rows = np.zeros(self._automaton.n_nodes, dtype=np.int64)
        #: Bit set of charges in which a node has an action.
        self._useful = [0] * self._automaton.n_nodes

    def _ensure(self, distinct: NDArray[np.int64]) -> int:
        """Make tables of nodes, ascending, as far as there is room; returns the last node that has one."""
        for i in np.flatnonzero(~self._is_made[distinct]):
            node = int(distinct[i])
            useful, first, table = self._table(node)
            if self._n_rows + len(table) > self._capacity:
                if i:
                    return int(distinct[i - 1])
                self._drop_tables()
            self._pool[self._n_rows : self._n_rows + len(table)] = table
            self._rows[node] = self._n_rows - first
            self._useful[node] = useful
            self._is_made[node] = True
            self._n_rows += len(table)
        return int(distinct[-1])

    def _table(self, node: int) -> tuple[int, int, NDArray[np.uint64]]:
        """Charges in which a node has an action as a bit set, the first of them, and the actions by charge."""
        full = (1 << self._n_charges) - 1
        stop = 1 << self._zero if self._automaton.is_accepting[node] else 0
        by_action, useful = {self.n_actions - 1: stop}, stop
        for n, child in enumerate(self._automaton.children[node]):
            if child == DEAD:
                continue
            for e in range(self.n_elements):
                after = self._reach[e + 1][child]
                if after:
                    action = e * self.per_element + n
                    charges = self._removed[action].added_to(after) >> self._lowest & full
                    by_action[action] = charges
                    useful |= charges
        first = (useful & -useful).bit_length() - 1 if useful else 0
        n_charges = useful.bit_length() - first
        n_bytes = -(-n_charges // 8)
        rows = np.zeros((self._n_words * 64, n_bytes), dtype=np.uint8)
        packed = b"".join((charges >> first).to_bytes(n_bytes, "little") for charges in by_action.values())
        rows[list(by_action)] = np.frombuffer(packed, dtype=np.uint8).reshape(-1, n_bytes)
        bits = np.unpackbits(rows, axis=1, bitorder="little", count=n_charges)
        table = np.packbits(np.ascontiguousarray(bits.T), axis=1, bitorder="little")
        return useful, first, table.view(np.uint64)

    def _words(self, nodes: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Actions of states at nodes that have tables, `n x n_words`, as bits."""
        useful, n_bytes = self._useful, self._n_bytes
        packed = b"".join(
            (charges & useful[node]).to_bytes(n_bytes, "little")
            for charges, node in zip(self._charges(counts), nodes.tolist(), strict=True)
        )
        bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), bitorder="little")
        rows, charges = np.divmod(np.flatnonzero(bits), 8 * n_bytes)
        words = self._pool.take(self._rows[nodes][rows] + charges, axis=0)
        # Rows ascend: one segment a row. A row without a useful charge has no completion.
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        allowed = np.zeros((len(counts), self._n_words), dtype=np.uint64)
        allowed[rows[starts]] = np.bitwise_or.reduceat(words, starts, axis=0)
        return allowed

    def _charges(self, counts: NDArray[np.int64]) -> list[int]:
        """Charges that each row's composition can have, as bit sets of the frame."""
        known, full = self._known_sets, (1 << self._n_charges) - 1
        if len(known) > KNOWN_SETS:
            known.clear()
        reached = [1 << self._zero] * len(counts)
        rows, elements = np.nonzero(counts)
        actions = elements * self.per_element + counts[rows, elements] - 1
        for row, action in zip(rows.tolist(), actions.tolist(), strict=True):
            key = (reached[row], action)
            charges = known.get(key)
            if charges is None:
                # Charges outside the frame can't be completed.
                charges = known[key] = self._added[action].added_to(key[0]) & full
            reached[row] = charges
        return reached
