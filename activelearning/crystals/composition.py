"""Exact masks for building a composition element by element.

Elements are added in order of atomic number, each with its count, and the composition ends by a stop. An
action is allowed exactly when at least one completion keeps every constraint: Wyckoff positions and limits on
counts (the automaton of `wyckoff`), charge neutrality, and the counts allowed for each element. This is
decided by the sets of charges from which a completion exists (`completion`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.charge import ChargeSet
from activelearning.crystals.completion import Completions
from activelearning.crystals.wyckoff import DEAD, CountAutomaton

# Most memory for blocks (see `CompositionMasks`): made when first needed, dropped when this is full. 113 groups and
# 22 elements take 2 MB with 16 atoms of an element and 60 MB with 80; all elements with 80 atoms of each 0.9 GB.
BLOCK_BYTES = 2**30
# Most charge sets of begun compositions that are remembered, a few hundred bytes each. A trajectory asks for those that
# it met before; more would only slow down what is looked up.
KNOWN_SETS = 2**14
# Entries of intermediate arrays that are worked on at a time, so that they stay small (and in cache).
CHUNK = 2**20


class CompositionMasks:
    """Allowed actions of the composition stage.

    With E elements and at most N atoms of each there are `E * N + 1` actions: `e * N + (n - 1)` adds n atoms
    of element e, the last one stops.

    A state is an automaton node and the set of charges that its atoms can have. Which elements may follow with
    n atoms depends on the charge, n and the node's child by n, and on the child only by what it leaves to the
    charges. For each such pair of n and kind of child there is a *block*: the elements allowed, as bits, for
    each charge. The mask of a state is the union over its charges.

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
        self._automaton = automaton
        self.n_elements, self.per_element = len(totals), automaton.per_element
        self.n_actions = self.n_elements * self.per_element + 1
        nothing = ChargeSet.of(())
        # A count that is not allowed has no charge, and so no completion.
        self._added = [
            [ChargeSet.of(q) if is_allowed else nothing for q, is_allowed in zip(row, flags[1:], strict=True)]
            for row, flags in zip(totals, allowed.tolist(), strict=True)
        ]
        self._added_by = [charges for row in self._added for charges in row]
        self._removed = [[-charges for charges in row] for row in self._added]
        completions = Completions(automaton, self._added, allowed[:, 0].tolist())
        self._offset, self._reach = completions.offset, completions.sets
        self._frame_charges()
        self._frame_elements(~allowed[:, 0])
        self._frame_blocks()

    def has_composition(self, root: int) -> bool:
        """True when at least one composition can be built from an automaton root."""
        return root != DEAD and bool(self._reach[0][root] >> self._offset & 1)

    def is_complete(self, roots: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """`n x R`: whether whole compositions, `n x E`, are accepted from each of R roots, charges aside."""
        return self._automaton.accepts(roots, counts)

    def nodes(self, roots: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Automaton nodes, `n`, after counts, `n x E`, from roots, `n`; `DEAD` where the counts are not allowed."""
        rows, elements = counts.nonzero()
        return self._nodes(roots, rows, counts[rows, elements])

    def masks(self, roots: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Allowed actions, `n x n_actions`, in states given by automaton roots, `n`, and counts so far, `n x E`."""
        n = len(counts)
        # Atoms of the elements present: rows ascend, and elements within a row. Of flags they are found twice as fast.
        rows, elements = counts.astype(np.bool_).nonzero()
        atoms = counts[rows, elements]
        nodes = self._nodes(roots, rows, atoms)
        passed = np.zeros(n, dtype=np.int64)
        passed[rows] = elements + 1  # of a row's elements the last one stays
        if self._has_must:
            skipped = (counts == 0) & self._must & (np.arange(self.n_elements) < passed[:, None])
            nodes[skipped.any(axis=1)] = DEAD
        actions = elements * self.per_element + atoms - 1
        sets: list[bytes] = []
        # In parts, between which the memory of sets may be emptied.
        for start in range(0, n, self._n_rows):
            stop = min(start + self._n_rows, n)
            part = slice(*rows.searchsorted((start, stop)))
            sets += self._charge_sets(stop - start, rows[part] - start, actions[part])
        mask = np.zeros((n, self.n_actions), dtype=np.bool_)
        by_element = mask[:, :-1].reshape(n, self.n_elements, self.per_element)
        (alive,) = (nodes != DEAD).nonzero()
        if len(alive) > self._n_rows:
            # Nodes with few counts left together.
            alive = alive[np.argsort(self._order[nodes[alive]], kind="stable")]
        for start in range(0, len(alive), self._n_rows):
            pending = alive[start : start + self._n_rows]
            while len(pending):
                served = pending[: self._ensure(nodes[pending])]
                at = nodes[served]
                words, is_neutral = self._words(at, b"".join([sets[row] for row in served.tolist()]))
                after = passed[served]
                words &= self._later[after, None]
                bits = np.unpackbits(words.view(np.uint8), axis=-1, bitorder="little", count=self.n_elements)
                by_element[served, :, : words.shape[1]] = bits.view(np.bool_).transpose(0, 2, 1)
                mask[served, -1] = is_neutral & self._may_stop[after] & self._automaton.is_accepting[at]
                pending = pending[len(served) :]
        return mask

    def _nodes(
        self, roots: NDArray[np.int64], rows: NDArray[np.int64], atoms: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Nodes, `n`, from roots, `n`, by the atoms of one element after the other; rows, of each, ascend."""
        nodes = roots.copy()
        if len(rows):
            first = rows.searchsorted(rows)
            rank = np.arange(len(rows)) - first
            steps = np.zeros((int(np.maximum.reduce(rank)) + 1, len(nodes)), dtype=np.int64)
            steps[rank, rows] = atoms
            for step in steps:
                nodes = self._follow[nodes, step]
        return nodes

    # ---------------------------------------------------------------- construction

    def _frame_charges(self) -> None:
        """The range of charges that occur in any reachable set."""
        union = 1 << self._offset
        for row in self._reach:
            for charges in row:
                union |= charges
        self._lowest = (union & -union).bit_length() - 1
        self._n_charges = union.bit_length() - self._lowest
        self._frame = (1 << self._n_charges) - 1
        self._zero = self._offset - self._lowest
        self._n_bytes = -(-self._n_charges // 8)
        self._forget_sets()

    def _frame_elements(self, must: NDArray[np.bool_]) -> None:
        """Which elements, and the stop, may follow when i elements have been passed."""
        n = self.n_elements
        n_bytes = next((size for size in (1, 2, 4, 8) if n <= 8 * size), 8)
        self._dtype = np.dtype(f"<u{n_bytes}")
        self._n_words = -(-n // (8 * n_bytes))
        later = np.zeros((n + 1, self._n_words * n_bytes * 8), dtype=np.bool_)
        # None may be skipped that must be present.
        self._must, self._has_must = must, bool(must.any())
        self._may_stop = np.zeros(n + 1, dtype=np.bool_)
        for passed in range(n + 1):
            required = passed + np.flatnonzero(must[passed:])
            later[passed, passed : required[0] + 1 if len(required) else n] = True
            self._may_stop[passed] = not len(required)
        self._later = np.packbits(later, axis=1, bitorder="little").view(self._dtype)

    def _frame_blocks(self) -> None:
        children = self._automaton.children
        # By node and atoms, none of which lead nowhere; `DEAD` is the last node and stays so.
        stay = np.append(np.arange(len(children)), DEAD)
        nowhere = np.full((1, self.per_element), DEAD)
        self._follow = np.column_stack([stay, np.vstack([children, nowhere])])
        # What a node leaves to the charges, by each element that may have led to it.
        levels = list({id(row): row for row in self._reach[1:]}.values())
        kinds: dict[tuple[int, ...], int] = {}
        self._kind = np.array(
            [kinds.setdefault(sets, len(kinds)) for sets in zip(*levels, strict=True)], dtype=np.int64
        )
        # By n - 1: what follows an element and the charges to take off, and which of these each element has.
        level = {id(row): i for i, row in enumerate(levels)}
        self._columns: list[tuple[list[tuple[list[int], ChargeSet]], NDArray[np.int64]]] = []
        for n in range(self.per_element):
            found: dict[tuple[int, ChargeSet], int] = {}
            keys = [(level[id(self._reach[e + 1])], row[n]) for e, row in enumerate(self._removed)]
            inverse = np.array([found.setdefault(key, len(found)) for key in keys], dtype=np.int64)
            self._columns.append(([(levels[i], charges) for i, charges in found], inverse))
        #: Largest count by which a node has a child, and the nodes' places in that order.
        self._largest = np.where(children != DEAD, np.arange(1, self.per_element + 1), 0).max(
            axis=1, initial=0
        )
        self._order = np.argsort(np.argsort(self._largest, kind="stable"))
        bytes_each = self._n_charges * self._n_words * self._dtype.itemsize
        # Block 0 is empty, and a node needs all of its blocks at a time.
        self._capacity = max(BLOCK_BYTES // bytes_each, self.per_element + 1)
        self._capacity = min(self._capacity, len(kinds) * self.per_element + 1)
        # Pages that are never written take no memory.
        self._pool = np.empty((self._capacity, self._n_charges, self._n_words), dtype=self._dtype)
        self._pool[0] = 0
        self._n_rows = max(1, CHUNK // (32 * self.per_element * self._n_words))
        self._drop_blocks()

    # ---------------------------------------------------------------- blocks

    def _drop_blocks(self) -> None:
        n_nodes = self._automaton.n_nodes
        self._n_blocks = 1
        #: By (n - 1, kind of child): a block and the charges for which it has an element.
        self._blocks: dict[tuple[int, int], tuple[int, int]] = {}
        #: By node: whether it has its blocks, the first row of each in the pool, and charges of any use.
        self._is_made = np.zeros(n_nodes, dtype=np.bool_)
        self._rows = np.zeros((n_nodes, self.per_element), dtype=np.int64)
        self._useful = np.zeros((n_nodes, self._n_bytes), dtype=np.uint8)

    def _ensure(self, nodes: NDArray[np.int64]) -> int:
        """Make the blocks of nodes, as far as there is room; returns how many of the nodes have them."""
        for i in (~self._is_made[nodes]).nonzero()[0].tolist():
            node = int(nodes[i])
            if self._is_made[node]:
                continue
            counts = np.flatnonzero(self._automaton.children[node] != DEAD).tolist()
            kinds = self._kind[self._automaton.children[node, counts]].tolist()
            n_new = sum(pair not in self._blocks for pair in zip(counts, kinds, strict=True))
            if self._n_blocks + n_new > self._capacity:
                if i:
                    return i
                # The blocks of the nodes behind this one go, too.
                self._drop_blocks()
                return self._ensure(nodes)
            useful = 1 << self._zero if self._automaton.is_accepting[node] else 0
            for n, kind in zip(counts, kinds, strict=True):
                if (n, kind) not in self._blocks:
                    charges = self._make(n, int(self._automaton.children[node, n]))
                    self._blocks[n, kind] = self._n_blocks, charges
                    self._n_blocks += 1
                block, charges = self._blocks[n, kind]
                self._rows[node, n] = block * self._n_charges
                useful |= charges
            self._useful[node] = np.frombuffer(useful.to_bytes(self._n_bytes, "little"), dtype=np.uint8)
            self._is_made[node] = True
        return len(nodes)

    def _make(self, n: int, child: int) -> int:
        """Write the block of n + 1 atoms that lead to a child; returns the charges for which it has an element."""
        full, n_bytes = self._frame, self._n_bytes
        columns, inverse = self._columns[n]
        sets = [removed.added_to(reach[child]) >> self._lowest & full for reach, removed in columns]
        useful = 0
        for charges in sets:
            useful |= charges
        packed = b"".join(charges.to_bytes(n_bytes, "little") for charges in sets)
        rows = np.frombuffer(packed, dtype=np.uint8).reshape(-1, n_bytes)[inverse]
        bits = np.zeros((self._n_charges, self._n_words * self._dtype.itemsize * 8), dtype=np.uint8)
        bits[:, : self.n_elements] = np.unpackbits(rows, axis=1, bitorder="little", count=self._n_charges).T
        self._pool[self._n_blocks] = np.packbits(bits, axis=1, bitorder="little").view(self._dtype)
        return useful

    def _words(
        self, nodes: NDArray[np.int64], charges: bytes
    ) -> tuple[NDArray[np.unsignedinteger], NDArray[np.bool_]]:
        """Elements as bits, `n x counts x n_words`, of states whose nodes have blocks, and whether they are neutral.

        Args:
            nodes: `n`.
            charges: Sets of charges, `n_bytes` each.
        """
        n = len(nodes)
        held = np.frombuffer(charges, dtype=np.uint8).reshape(n, -1) & self._useful[nodes]
        is_neutral = (held[:, self._zero // 8] >> self._zero % 8 & 1).view(np.bool_)
        largest = int(np.maximum.reduce(self._largest[nodes]))
        found = np.zeros((n, largest, self._n_words), dtype=self._dtype)
        if not largest:
            return found, is_neutral
        # Most sets keep to a small part of the frame.
        (occupied,) = np.bitwise_or.reduce(held, axis=0).nonzero()
        low, high = (occupied[0], occupied[-1] + 1) if len(occupied) else (0, 0)
        width = 8 * (high - low)
        bits = np.unpackbits(held[:, low:high], bitorder="little").view(np.bool_)
        (places,) = bits.nonzero()
        # Places ascend: one segment a row, which is empty where a row without a useful charge has no completion.
        starts = np.arange(n + 1) * width
        first = places.searchsorted(starts)
        lengths = first[1:] - first[:-1]
        # A block's row in the pool, less the place of the frame's first charge, plus the charge's place.
        blocks = (self._rows[nodes, :largest] - (starts[:-1] - 8 * low)[:, None]).repeat(lengths, axis=0)
        blocks += places[:, None]
        words = self._pool.reshape(-1, self._n_words).take(blocks, axis=0)
        (filled,) = lengths.nonzero()
        found[filled] = np.bitwise_or.reduceat(words, first[filled], axis=0)
        return found, is_neutral

    def _charge_sets(self, n: int, rows: NDArray[np.int64], actions: NDArray[np.int64]) -> list[bytes]:
        """Charges that each composition can have, `n`, as bit sets of the frame, `n_bytes` each.

        Args:
            n: Number of compositions.
            rows: Composition of each action; ascending.
            actions: Elements with their counts, in order of atomic number within a row.
        """
        if len(self._sets) > KNOWN_SETS:
            self._forget_sets()
        sets, packed, after = self._sets, self._packed_sets, self._set_after
        n_actions, n_bytes, added, frame = self.n_actions, self._n_bytes, self._added_by, self._frame
        reached = [0] * n
        for row, action in zip(rows.tolist(), actions.tolist(), strict=True):
            before = reached[row]
            key = before * n_actions + action
            number = after.get(key)
            if number is None:
                number = after[key] = len(sets)
                # Charges outside the frame can't be completed.
                charges = added[action].added_to(sets[before]) & frame
                sets.append(charges)
                packed.append(charges.to_bytes(n_bytes, "little"))
            reached[row] = number
        return [packed[number] for number in reached]

    def _forget_sets(self) -> None:
        """Keep but set 0, of an empty composition: the charge zero."""
        self._sets = [1 << self._zero]
        self._packed_sets = [self._sets[0].to_bytes(self._n_bytes, "little")]
        #: Number of the set that follows, by `number * n_actions + action`.
        self._set_after: dict[int, int] = {}
