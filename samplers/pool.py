"""A list of candidates as its own sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from activelearning.candidate import Candidate
from activelearning.contracts import LogReward, Proposal, Space
from activelearning.errors import ConfigError, SamplerError


class PoolSampler:
    """Proposes every candidate of a pool (at every fidelity); of a large pool, a draw in proportion to reward.

    Args:
        space: A space with `candidates`.
        n_fidelities: Number of fidelities to pair each candidate with; None where the fidelity is not
            sampled.

    Raises:
        ConfigError: the space is no list of candidates.
    """

    def __init__(self, space: Space, n_fidelities: int | None) -> None:
        candidates: Sequence[Candidate] | None = getattr(space, "candidates", None)
        if not candidates:
            raise ConfigError(
                f"The sampler 'pool' proposes the candidates of a list, and the space {space.kind!r} is "
                f"none. Use the space 'pool', or the sampler 'gflownet' or 'random'."
            )
        if n_fidelities is not None and n_fidelities < 1:
            raise ConfigError(f"A sampler of fidelities needs at least one, not {n_fidelities}.")
        levels: Sequence[int | None] = [None] if n_fidelities is None else range(n_fidelities)
        self._pairs = [Proposal(candidate, level) for candidate in candidates for level in levels]
        self._log_rewards = torch.zeros(len(self._pairs), dtype=torch.float64)

    def fit(self, log_reward: LogReward, *, seed: int) -> Mapping[str, Any]:
        """Take the reward of every pair.

        Raises:
            SamplerError: the reward's answer is not one finite number for each pair.
        """
        fidelities = [pair.fidelity for pair in self._pairs if pair.fidelity is not None]
        rewards = log_reward([pair.candidate for pair in self._pairs], fidelities or None).detach().double()
        if rewards.shape != self._log_rewards.shape or not torch.isfinite(rewards).all():
            raise SamplerError(
                f"The log reward must answer {len(self._pairs)} candidates with as many finite numbers; it "
                f"gave shape {tuple(rewards.shape)} with {int((~torch.isfinite(rewards)).sum())} not finite."
            )
        self._log_rewards = rewards.clone()
        return {
            "steps": 0,
            "mean_log_reward": rewards.mean().item(),
            "max_log_reward": rewards.max().item(),
            "log_z": rewards.logsumexp(0).item(),
            "rewards_evaluated": len(rewards),
        }

    def sample(self, n: int, *, seed: int) -> list[Proposal]:
        """All pairs by falling reward where there are at most n, else n distinct ones in proportion to reward."""
        if len(self._pairs) <= n:
            return self._take(self._log_rewards.argsort(descending=True, stable=True))
        return self._draw(self._log_rewards, n, seed)

    def sample_untrained(self, n: int, *, seed: int) -> list[Proposal]:
        """Up to n distinct pairs, each as likely."""
        return self._draw(torch.zeros_like(self._log_rewards), n, seed)

    def state_dict(self) -> dict[str, Any]:
        """The last log rewards."""
        return {"log_rewards": self._log_rewards.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take log rewards up again.

        Raises:
            SamplerError: they are of another pool.
        """
        rewards: Tensor = state["log_rewards"]
        if rewards.shape != self._log_rewards.shape:
            raise SamplerError(
                f"The saved state holds log rewards of {len(rewards)} pairs of candidate and fidelity; this "
                f"pool has {len(self._pairs)}."
            )
        self._log_rewards = rewards.clone()

    def _draw(self, log_weights: Tensor, n: int, seed: int) -> list[Proposal]:
        # The n largest of Gumbel-perturbed log weights are a draw without replacement (Kool et al., ICML
        # 2019); unlike normalised weights it does not underflow when rewards span many decades.
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(len(log_weights), dtype=torch.float64, generator=generator).clamp_min(1e-300)
        perturbed = log_weights - (-noise.log()).log()
        return self._take(perturbed.argsort(descending=True, stable=True)[:n])

    def _take(self, rows: Tensor) -> list[Proposal]:
        return [self._pairs[row] for row in rows.tolist()]
