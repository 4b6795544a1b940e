"""The space group, through its crystal-lattice system and its point symmetry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.symmetry import LATTICE_SYSTEMS, POINT_SYMMETRIES
from samplers.gflownet.environments.crystal_stages.stage import Crystals, Flags, Floats, Inputs, Integers

if TYPE_CHECKING:
    from activelearning.spaces.crystal import CrystalSpace

N_SYSTEMS, N_SYMMETRIES = len(LATTICE_SYSTEMS), len(POINT_SYMMETRIES)
# Pairs of a system and a symmetry, either of which may be undecided, as the group is.
UNDECIDED = (N_SYSTEMS + 1) * (N_SYMMETRIES + 1)


class SpaceGroupStage:
    """Three steps: one of 8 crystal-lattice systems, one of 5 point symmetries, one of G space groups.

    Block: index of each, plus one. Actions: systems, then symmetries, then groups. The first two steps only
    offer what some group of the third has, so that each group has one path. Where the composition is known,
    only groups whose Wyckoff positions (and cells) hold it are offered.
    """

    name = "space_group"
    width = 3
    n_continuous = 0
    max_steps = 3

    def __init__(self, space: CrystalSpace) -> None:
        self._space = space
        self._is_composed = space.order.index("space_group") > space.order.index("composition")
        base = space.base
        self._n_groups = len(base.space_groups)
        self._first = N_SYSTEMS + N_SYMMETRIES
        self._firsts = np.array([0, N_SYSTEMS, self._first])
        self.n_actions = self._first + self._n_groups
        self.n_inputs = self.n_actions + 2
        self._numbers = [group.number for group in base.space_groups]
        self._index = {number: i for i, number in enumerate(self._numbers)}
        self._in_system = np.arange(N_SYSTEMS) == base.systems[:, None]
        self._has_symmetry = np.arange(N_SYMMETRIES) == base.symmetries[:, None]
        # Columns: step, system, symmetry.
        self._step = {1: base.systems + 1, 2: base.symmetries + 1}
        #: Inputs, and where the group is chosen first masks, by `_progress`.
        self._encoded = self._encode_all()
        if not self._is_composed:
            begun = np.array(list(np.ndindex(N_SYSTEMS + 1, N_SYMMETRIES + 1)))
            allowed = np.broadcast_to(space.is_group_allowed, (len(begun), self._n_groups))
            self._masks = self._mask(begun, allowed)

    def _encode_all(self) -> Inputs:
        groups = self._space.base.space_groups
        inputs = np.zeros((UNDECIDED + len(groups), self.n_inputs), dtype=np.float32)
        begun = np.array(list(np.ndindex(N_SYSTEMS + 1, N_SYMMETRIES + 1)))
        system = np.append(begun[:, 0], self._step[1])
        symmetry = np.append(begun[:, 1], self._step[2])
        group = np.append(np.zeros(UNDECIDED, dtype=np.int64), np.arange(1, len(groups) + 1))
        for decided, first in ((system, 0), (symmetry, N_SYSTEMS), (group, self._first)):
            (rows,) = decided.nonzero()
            inputs[rows, first + decided[rows] - 1] = 1.0
        inputs[UNDECIDED:, -2:] = [
            [np.log(group.multiplicity) / np.log(192), min(w.multiplicity for w in group.wyckoff) / 16]
            for group in groups
        ]
        return inputs

    def _progress(self, crystals: Crystals) -> Integers:
        """A number for what is decided, `n`: system and symmetry up to `UNDECIDED`, then the groups."""
        system, symmetry, group = crystals.block(self.name).T
        decided = np.where(group > 0, group + (UNDECIDED - 1), system * (N_SYMMETRIES + 1) + symmetry)
        return decided.astype(np.int64)

    def encode(self, crystals: Crystals) -> Inputs:
        """System, symmetry and group one-hot, log size of the general and size of the least position."""
        encoded: Inputs = self._encoded[self._progress(crystals)]
        return encoded

    def mask(self, crystals: Crystals) -> Flags:
        """`n x n_actions`."""
        if not self._is_composed:
            mask: Flags = self._masks[self._progress(crystals)]
            return mask
        return self._mask(crystals.block(self.name).astype(np.int64), self._space.group_mask(crystals.counts))

    def _mask(self, block: Integers, allowed: Flags) -> Flags:
        """`n x n_actions`, of blocks in which the group is not chosen, given the groups allowed, `n x G`."""
        mask = np.zeros((len(block), self.n_actions), dtype=np.bool_)
        system, symmetry = block[:, 0], block[:, 1]
        for progress in range(3):
            rows = np.flatnonzero((system > 0).astype(np.int64) + (symmetry > 0) == progress)
            if not len(rows):
                continue
            left = allowed[rows]
            if progress >= 1:
                left = left & (self._step[1] == system[rows, None])
            if progress == 2:
                mask[rows, self._first :] = left & (self._step[2] == symmetry[rows, None])
            elif progress == 1:
                mask[rows, N_SYSTEMS : self._first] = left @ self._has_symmetry
            else:
                mask[rows, :N_SYSTEMS] = left @ self._in_system
        return mask

    def drawn(self, crystals: Crystals, actions: Integers) -> Flags:
        """`n x 0`."""
        return np.zeros((len(crystals), 0), dtype=np.bool_)

    def step(self, crystals: Crystals, actions: Integers, u: Floats) -> Floats:
        """`n x 3`."""
        block = crystals.block(self.name).copy()
        column = self._firsts.searchsorted(actions, side="right") - 1
        block[np.arange(len(block)), column] = actions - self._firsts[column] + 1
        return block

    def is_complete(self, crystals: Crystals) -> Flags:
        """`n`."""
        return crystals.block(self.name)[:, 2] > 0

    def is_empty(self, crystals: Crystals) -> Flags:
        """`n`."""
        return crystals.block(self.name)[:, 0] == 0

    def step_back(self, crystals: Crystals) -> tuple[Integers, Floats, Floats]:
        """Undo the last of the three choices."""
        block = crystals.block(self.name).copy()
        rows = np.arange(len(block))
        column = (block > 0).sum(axis=1) - 1
        actions = self._firsts[column] + block[rows, column].astype(np.int64) - 1
        block[rows, column] = 0.0
        return actions, np.zeros((len(block), 0)), block

    def log_jacobian(self, crystals: Crystals, actions: Integers, u: Floats) -> Floats:
        """`n` zeros: nothing continuous."""
        return np.zeros(len(crystals))

    def values(self, crystals: Crystals) -> Sequence[int]:
        """International numbers."""
        return [self._numbers[group] for group in crystals.groups.tolist()]

    def read(self, candidates: Sequence[CrystalCandidate], crystals: Crystals) -> Floats:
        """The block of candidates' groups."""
        for candidate in candidates:
            if candidate.space_group not in self._index:
                raise ValueError(f"space group {candidate.space_group} is not among those of the space")
        groups = np.array([self._index[c.space_group] for c in candidates], dtype=np.int64)
        base = self._space.base
        return np.column_stack([base.systems[groups], base.symmetries[groups], groups]).astype(float) + 1.0
