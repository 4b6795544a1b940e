"""Training of a GFlowNet on any environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from activelearning.errors import SamplerError
from samplers.gflownet.environments.base import Environment
from samplers.gflownet.losses import LOSSES, Balance
from samplers.gflownet.policy import BackwardPolicy, ForwardPolicy
from samplers.gflownet.replay import ReplayBuffer
from samplers.gflownet.tempering import choose_beta
from samplers.gflownet.trajectories import (
    Trajectories,
    log_backward,
    log_forward,
    sample_backward,
    sample_forward,
)

N_PROBES = 1024  # untrained draws to choose an exponent from

StateReward = Callable[[Tensor], Tensor]  # terminal states, n x n_state -> log R, n


@dataclass(frozen=True)
class LearnerSettings:
    """How a GFlowNet is built and trained; the meaning of each is told at `GFlowNetSampler`."""

    hidden: Sequence[int] = (256, 256, 256)
    n_components: int = 16
    loss: str = "trajectory_balance"
    batch_size: int = 64
    replay_share: float = 0.5
    replay_capacity: int = 2000
    learning_rate: float = 2e-3
    log_z_learning_rate: float = 0.3
    final_learning_rate_share: float = 0.1
    max_gradient_norm: float = 10.0
    exploration: float = 0.1
    temperature: float = 1.0
    beta: float | None = 1.0
    gain: float = 4.0
    log_reward_range: float = 15.0


class Learner:
    """Networks, optimiser and replay buffer of one GFlowNet, and the loop that trains them."""

    def __init__(self, environment: Environment, settings: LearnerSettings) -> None:
        self.environment = environment
        self.settings = settings
        s = settings
        self.forward_policy = ForwardPolicy(
            environment.n_inputs,
            environment.n_actions,
            environment.n_continuous,
            hidden=s.hidden,
            n_components=s.n_components,
        )
        self.backward_policy = (
            None
            if environment.has_unique_paths
            else BackwardPolicy(environment.n_inputs, environment.n_actions, hidden=s.hidden)
        )
        self.log_z = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.replay = ReplayBuffer(s.replay_capacity, environment.n_state)
        self.n_steps = 0
        self._reset(torch.Generator().manual_seed(0))

    def _reset(self, generator: torch.Generator) -> None:
        self.forward_policy.reset(generator)
        if self.backward_policy is not None:
            self.backward_policy.reset(generator)
        self.optimizer = torch.optim.Adam(
            [
                {"params": self._network_parameters(), "lr": self.settings.learning_rate},
                {"params": [self.log_z], "lr": self.settings.log_z_learning_rate},
            ],
            fused=True,
        )

    def _network_parameters(self) -> list[nn.Parameter]:
        backward = [] if self.backward_policy is None else list(self.backward_policy.parameters())
        return [*self.forward_policy.parameters(), *backward]

    def fit(self, log_reward: StateReward, *, steps: int, generator: torch.Generator) -> dict[str, Any]:
        """Train for a number of steps, from the present state on.

        The buffer's rewards are taken anew first, as `log_reward` may be another function than before, and
        log Z is set to the mean that the first batch implies.

        Returns:
            Figures (JSON): `steps`, `total_steps`, `loss` and `mean_log_reward` (means over the last tenth of
            the steps), `first_mean_log_reward`, `max_log_reward`, `log_z` (of R^β), `beta`, `replay`,
            `rewards_evaluated`.

        Raises:
            SamplerError: the reward's answer is not one finite number for each state.
        """
        s = self.settings
        if self.n_steps == 0:
            self._reset(generator)
        n_evaluated = len(self.replay)
        if n_evaluated:
            self.replay.replace_rewards(_checked(log_reward(self.replay.states), n_evaluated))
        beta = s.beta
        if beta is None:
            beta = self._probe(log_reward, generator)
            n_evaluated += N_PROBES
        losses: list[float] = []
        means: list[float] = []
        best = self.replay.log_rewards.max().item() if len(self.replay) else -torch.inf
        for step in range(steps):
            self._schedule(step / steps)
            n_replay = min(int(s.replay_share * s.batch_size), len(self.replay))
            batch = sample_forward(
                self.environment,
                self.forward_policy,
                s.batch_size - n_replay,
                generator=generator,
                exploration=s.exploration,
                temperature=s.temperature,
            )
            rewards = _checked(log_reward(batch.terminal), batch.n)
            fresh, fresh_rewards = batch.terminal, rewards
            n_evaluated += batch.n
            means.append(rewards.mean().item())
            best = max(best, rewards.max().item())
            if n_replay:
                states, replayed = self.replay.sample(n_replay, generator)
                back = sample_backward(self.environment, self.backward_policy, states, generator=generator)
                batch = Trajectories.cat([batch, back])
                rewards = torch.cat([rewards, replayed])
            self.replay.add(fresh, fresh_rewards)
            shaped = (beta * rewards).clamp(min=beta * best - s.log_reward_range)
            losses.append(self._update(batch, shaped, is_first=step == 0))
        tail = max(1, steps // 10)
        return {
            "steps": steps,
            "total_steps": self.n_steps,
            "loss": sum(losses[-tail:]) / tail,
            "log_z": self.log_z.item(),
            "beta": beta,
            "first_mean_log_reward": means[0],
            "mean_log_reward": sum(means[-tail:]) / tail,
            "max_log_reward": best,
            "replay": len(self.replay),
            "rewards_evaluated": n_evaluated,
        }

    def _probe(self, log_reward: StateReward, generator: torch.Generator) -> float:
        """Choose the exponent by untrained draws; the buffer keeps the best of them."""
        draws = sample_forward(self.environment, None, N_PROBES, generator=generator)
        rewards = _checked(log_reward(draws.terminal), draws.n)
        self.replay.add(draws.terminal, rewards)
        log_density = draws.log_pf - log_backward(self.environment, self.backward_policy, draws).detach()
        return choose_beta(rewards, draws.total(log_density), self.settings.gain)

    def _update(self, trajectories: Trajectories, log_reward: Tensor, *, is_first: bool) -> float:
        log_pf = trajectories.total(log_forward(self.forward_policy, trajectories))
        log_pb = trajectories.total(log_backward(self.environment, self.backward_policy, trajectories))
        balance = Balance(log_pf, log_pb, log_reward, self.log_z)
        if is_first or self.settings.loss == "log_partition_variance":
            # The value that makes the mean residual zero. A logarithm of the mean of exponentials would be
            # nearer to the true log Z, but the residuals of nearly all trajectories would then have one sign,
            # and the first updates would only lower their probabilities.
            with torch.no_grad():
                self.log_z.copy_(-balance.log_ratio.mean())
        loss = LOSSES[self.settings.loss](balance)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._network_parameters(), self.settings.max_gradient_norm)
        self.optimizer.step()
        self.n_steps += 1
        return loss.item()

    def _schedule(self, progress: float) -> None:
        """Learning rates fall linearly within a fit: large steps find the reward, small ones settle on it."""
        s = self.settings
        share = 1.0 - progress * (1.0 - s.final_learning_rate_share)
        for group, rate in zip(
            self.optimizer.param_groups, (s.learning_rate, s.log_z_learning_rate), strict=True
        ):
            group["lr"] = rate * share

    def sample(self, n: int, generator: torch.Generator) -> Trajectories:
        """Draw n trajectories from the present policy, without exploration."""
        return sample_forward(self.environment, self.forward_policy, n, generator=generator)

    @torch.no_grad()
    def log_probability(self, states: Tensor) -> Tensor:
        """Log-density, `n`, float64, with which the present policy ends in terminal states, `n x n_state`.

        Raises:
            SamplerError: paths are not unique, so that one trajectory does not tell the probability of its
            end.
        """
        if not self.environment.has_unique_paths:
            raise SamplerError(
                f"{type(self.environment).__name__} has many paths to a state; its log-probability is a sum "
                f"over them."
            )
        back = sample_backward(self.environment, None, states, generator=torch.Generator())
        return back.total(log_forward(self.forward_policy, back))

    def state_dict(self) -> dict[str, Any]:
        """Networks, log Z, optimiser, replay buffer and step count."""
        return {
            "forward_policy": _copy(self.forward_policy.state_dict()),
            "backward_policy": None
            if self.backward_policy is None
            else _copy(self.backward_policy.state_dict()),
            "log_z": self.log_z.detach().clone(),
            "optimizer": _copy(self.optimizer.state_dict()),
            "replay": self.replay.state_dict(),
            "n_steps": self.n_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a state up again.

        Raises:
            SamplerError: the state belongs to other networks.
        """
        try:
            self.forward_policy.load_state_dict(state["forward_policy"])
            if self.backward_policy is not None:
                self.backward_policy.load_state_dict(state["backward_policy"])
            self.log_z.data.copy_(state["log_z"])
            self.optimizer.load_state_dict(_copy(state["optimizer"]))
            self.replay.load_state_dict(state["replay"])
            self.n_steps = int(state["n_steps"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise SamplerError(
                f"The GFlowNet's saved state does not fit its networks: {error}. It must be loaded with the "
                f"space and the sampler settings that it was saved with."
            ) from error


def _copy(value: Any) -> Any:
    """A deep copy of plain values and tensors, so that later training does not change a saved state."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copy(item) for item in value]
    return value


def _checked(log_rewards: Tensor, n: int) -> Tensor:
    log_rewards = torch.as_tensor(log_rewards).detach().double()
    if log_rewards.shape != (n,) or not torch.isfinite(log_rewards).all():
        raise SamplerError(
            f"The log reward must answer {n} candidates with {n} finite numbers; it gave shape "
            f"{tuple(log_rewards.shape)} with {int((~torch.isfinite(log_rewards)).sum())} not finite."
        )
    return log_rewards
