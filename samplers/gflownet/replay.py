"""A buffer of the best terminal states seen.

It holds states and log rewards and no log-probabilities: trajectories to a state are drawn anew by the
backward policy, and rewards are replaced when the reward becomes another function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Weight 1 / (RANK_SHARE * N + rank) of Tripp et al., "Sample-Efficient Optimization in the Latent Space of
# Deep Generative Models via Weighted Retraining" (NeurIPS 2020): it does not depend on the reward's scale.
RANK_SHARE = 0.1


class ReplayBuffer:
    """Up to `capacity` distinct terminal states, by falling log reward.

    A full buffer gives up its lowest. Sampling favours high ranks, so that rare high rewards are learned from
    often while the rest of the buffer keeps the policy from collapsing on them.
    """

    def __init__(self, capacity: int, n_state: int) -> None:
        self.capacity = capacity
        self.states = torch.zeros(0, n_state, dtype=torch.float64)
        self.log_rewards = torch.zeros(0, dtype=torch.float64)
        self._keys: list[bytes] = []

    def __len__(self) -> int:
        return len(self.states)

    def add(self, states: Tensor, log_rewards: Tensor) -> None:
        """Take states, `n x n_state`, with their log rewards, `n`, unless already held."""
        if self.capacity == 0:
            return
        known = set(self._keys)
        fresh, keys = [], []
        for row, key in enumerate(_keys(states)):
            if key not in known:
                known.add(key)
                fresh.append(row)
                keys.append(key)
        self.states = torch.cat([self.states, states[fresh]])
        self.log_rewards = torch.cat([self.log_rewards, log_rewards[fresh].double()])
        self._keys += keys
        self._sort()

    def replace_rewards(self, log_rewards: Tensor) -> None:
        """Give every state held its log reward, `len(self)`, under another function."""
        if log_rewards.shape != self.log_rewards.shape:
            raise ValueError(f"{len(self)} log rewards are needed, not {tuple(log_rewards.shape)}")
        self.log_rewards = log_rewards.double()
        self._sort()

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Up to n distinct states and their log rewards."""
        weights = 1.0 / (RANK_SHARE * len(self) + torch.arange(len(self), dtype=torch.float64) + 1.0)
        rows = torch.multinomial(weights, min(n, len(self)), generator=generator)
        return self.states[rows], self.log_rewards[rows]

    def state_dict(self) -> dict[str, Any]:
        """States and log rewards."""
        return {"states": self.states.clone(), "log_rewards": self.log_rewards.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a buffer up again."""
        self.states, self.log_rewards = state["states"].clone(), state["log_rewards"].clone()
        self._keys = _keys(self.states)

    def _sort(self) -> None:
        order = self.log_rewards.argsort(descending=True, stable=True)[: self.capacity]
        self.states, self.log_rewards = self.states[order], self.log_rewards[order]
        self._keys = [self._keys[row] for row in order.tolist()]


def _keys(states: Tensor) -> list[bytes]:
    # Adding 0.0 makes -0.0 and 0.0 one key.
    return [row.tobytes() for row in (states + 0.0).numpy()]
