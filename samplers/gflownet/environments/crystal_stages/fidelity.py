"""The fidelity at which a crystal is to be evaluated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from activelearning.candidate import CrystalCandidate
from samplers.gflownet.environments.crystal_stages.stage import Crystals, Flags, Floats, Inputs, Integers


class FidelityStage:
    """One step: one of n fidelities. Block: its index plus one."""

    name = "fidelity"
    width = 1
    n_inputs = 0
    n_continuous = 0
    max_steps = 1

    def __init__(self, n_fidelities: int) -> None:
        self.n_actions = n_fidelities

    def encode(self, crystals: Crystals) -> Inputs:
        """`n x 0`: nothing comes after it."""
        return np.zeros((len(crystals), 0), dtype=np.float32)

    def mask(self, crystals: Crystals) -> Flags:
        """`n x n_fidelities`: all."""
        return np.ones((len(crystals), self.n_actions), dtype=np.bool_)

    def drawn(self, crystals: Crystals, actions: Integers) -> Flags:
        """`n x 0`."""
        return np.zeros((len(crystals), 0), dtype=np.bool_)

    def step(self, crystals: Crystals, actions: Integers, u: Floats) -> Floats:
        """`n x 1`."""
        return actions[:, None].astype(np.float64) + 1.0

    def is_complete(self, crystals: Crystals) -> Flags:
        """`n`."""
        return crystals.block(self.name)[:, 0] > 0

    def is_empty(self, crystals: Crystals) -> Flags:
        """`n`."""
        return crystals.block(self.name)[:, 0] == 0

    def step_back(self, crystals: Crystals) -> tuple[Integers, Floats, Floats]:
        """Undo the one step."""
        block = crystals.block(self.name)
        return block[:, 0].astype(np.int64) - 1, np.zeros((len(block), 0)), np.zeros_like(block)

    def log_jacobian(self, crystals: Crystals, actions: Integers, u: Floats) -> Floats:
        """`n` zeros: nothing continuous."""
        return np.zeros(len(crystals))

    def values(self, crystals: Crystals) -> Sequence[int]:
        """Indices of fidelities."""
        indices: list[int] = (crystals.block(self.name)[:, 0].astype(np.int64) - 1).tolist()
        return indices

    def read(self, candidates: Sequence[CrystalCandidate], crystals: Crystals) -> Floats:
        """A fidelity is no part of a candidate: the environment fills this block."""
        raise ValueError("the fidelity is not read from candidates")
