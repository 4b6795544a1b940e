"""The baseline without learning: valid candidates at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from activelearning.contracts import LogReward, Proposal, Space
from samplers.gflownet.environments import make_environment
from samplers.gflownet.trajectories import sample_terminal
from samplers.pool import PoolSampler


class RandomSampler:
    """Uniform points of a box, uniform choices of a pool, crystals by uniform choices among valid actions.

    The fidelity, where it is sampled, is uniform.

    Args:
        space: What to sample.
        n_fidelities: Number of fidelities to sample from; None where the fidelity is not sampled.

    Raises:
        ConfigError: the space is of a kind without environment.
    """

    def __init__(self, space: Space, n_fidelities: int | None) -> None:
        self._pool = PoolSampler(space, n_fidelities) if space.kind == "pool" else None
        self._environment = None if self._pool else make_environment(space, n_fidelities)

    def fit(self, log_reward: LogReward, *, seed: int) -> Mapping[str, Any]:
        """Learn nothing."""
        return {"steps": 0}

    def sample(self, n: int, *, seed: int) -> list[Proposal]:
        """Draw n proposals (at most the number of distinct ones, of a pool)."""
        if self._environment is None:
            assert self._pool is not None
            return self._pool.sample_untrained(n, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        terminal = sample_terminal(self._environment, None, n, generator=generator)
        return self._environment.proposals(terminal)

    def sample_untrained(self, n: int, *, seed: int) -> list[Proposal]:
        """The same as `sample`."""
        return self.sample(n, seed=seed)

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to take up."""
