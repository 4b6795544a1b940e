"""The composition: elements with their counts, in order of atomic number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from activelearning.candidate import CrystalCandidate
from samplers.gflownet.environments.crystal_stages.stage import Crystals, Flags, Floats, Inputs, Integers

if TYPE_CHECKING:
    from activelearning.spaces.crystal import CrystalSpace


class CompositionStage:
    """One step an element, and a stop.

    Block: count of each of the E elements, and whether the composition is finished. Action `e * N + n - 1`
    adds n atoms of element e, the last one stops. Masks are exact (`activelearning.crystals.composition`),
    for the space group where it is known, else for at least one.
    """

    name = "composition"
    n_continuous = 0

    def __init__(self, space: CrystalSpace) -> None:
        self._space = space
        base = space.base
        self._has_group = space.order.index("space_group") < space.order.index("composition")
        #: Of each group's compositions; where the group comes later, of those that at least one group holds.
        self._roots = space.roots if self._has_group else np.array([space.any_root])
        self._n_elements, self._per_element = len(base.elements), base.max_atoms_per_element
        self._max_elements, self._max_atoms = base.n_elements[1], base.max_atoms
        self._column = {symbol: e for e, symbol in enumerate(base.elements)}
        self._stop = self._n_elements * self._per_element
        self.width = self._n_elements + 1
        self.n_actions = self._stop + 1
        self.n_inputs = 3 * self._n_elements + 1 + self._max_elements + 1
        self.max_steps = self._max_elements + 1

    def encode(self, crystals: Crystals) -> Inputs:
        """Counts, presence and last element, atoms and number of elements so far."""
        n, n_elements = len(crystals), self._n_elements
        counts = crystals.block(self.name)[:, :-1]
        present = counts.astype(np.bool_)
        rows, elements = present.nonzero()
        n_present = np.bincount(rows, minlength=n)
        inputs = np.zeros((n, self.n_inputs), dtype=np.float32)
        np.divide(counts, self._per_element, out=inputs[:, :n_elements], casting="same_kind")
        inputs[:, n_elements : 2 * n_elements] = present
        ends = n_present.cumsum()[n_present > 0] - 1
        inputs[rows[ends], 2 * n_elements + elements[ends]] = 1.0
        np.divide(
            np.add.reduce(counts, axis=1), self._max_atoms, out=inputs[:, 3 * n_elements], casting="same_kind"
        )
        inputs[np.arange(n), 3 * n_elements + 1 + n_present] = 1.0
        return inputs

    def mask(self, crystals: Crystals) -> Flags:
        """`n x n_actions`."""
        counts = crystals.counts
        at = crystals.groups if self._has_group else np.zeros(len(counts), dtype=np.int64)
        (begun,) = np.bitwise_or.reduce(counts, axis=1).nonzero()
        if len(begun) == len(counts):
            return self._space.masks.masks(self._roots[at], counts)
        mask: Flags = self._first_masks[at]
        if len(begun):
            mask[begun] = self._space.masks.masks(self._roots[at[begun]], counts[begun])
        return mask

    @cached_property
    def _first_masks(self) -> Flags:
        """Masks before the first element, by group, `G x n_actions`: every trajectory asks for one of them."""
        nothing = np.zeros((len(self._roots), self._n_elements), dtype=np.int64)
        return self._space.masks.masks(self._roots, nothing)

    def drawn(self, crystals: Crystals, actions: Integers) -> Flags:
        """`n x 0`."""
        return np.zeros((len(crystals), 0), dtype=np.bool_)

    def step(self, crystals: Crystals, actions: Integers, u: Floats) -> Floats:
        """`n x (E + 1)`."""
        block = crystals.block(self.name).copy()
        element, count = np.divmod(actions, self._per_element)
        # The stop is the element after the last, with the "count" of one.
        block[np.arange(len(block)), element] = count + 1
        return block

    def is_complete(self, crystals: Crystals) -> Flags:
        """`n`."""
        return crystals.block(self.name)[:, -1] > 0

    def is_empty(self, crystals: Crystals) -> Flags:
        """`n`."""
        return crystals.block(self.name).max(axis=1) == 0.0

    def step_back(self, crystals: Crystals) -> tuple[Integers, Floats, Floats]:
        """Undo the stop, or the last element."""
        block = crystals.block(self.name).copy()
        rows = np.arange(len(block))
        column = self._n_elements - np.argmax(block[:, ::-1] > 0, axis=1)
        actions = column * self._per_element + block[rows, column].astype(np.int64) - 1
        block[rows, column] = 0.0
        return actions, np.zeros((len(block), 0)), block

    def log_jacobian(self, crystals: Crystals, actions: Integers, u: Floats) -> Floats:
        """`n` zeros: nothing continuous."""
        return np.zeros(len(crystals))

    def values(self, crystals: Crystals) -> Sequence[Mapping[str, int]]:
        """Counts of the elements present."""
        symbols = self._space.base.elements
        return [
            {symbol: count for symbol, count in zip(symbols, row, strict=True) if count}
            for row in crystals.counts.tolist()
        ]

    def read(self, candidates: Sequence[CrystalCandidate], crystals: Crystals) -> Floats:
        """The block of candidates' compositions."""
        block = np.zeros((len(candidates), self.width))
        block[:, -1] = 1.0
        for row, candidate in enumerate(candidates):
            for symbol, count in candidate.composition.items():
                if symbol not in self._column or count > self._per_element:
                    raise ValueError(f"{symbol}{count} is not in the space")
                block[row, self._column[symbol]] = count
        return block
