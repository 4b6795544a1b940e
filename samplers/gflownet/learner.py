"""The networks of one GFlowNet with their optimiser and replay buffer: updates, draws, log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from activelearning.errors import SamplerError
from samplers.gflownet.environments.base import Environment
from samplers.gflownet.fit import Dataset, Fit, StateReward
from samplers.gflownet.losses import Balance, make_objective, positions
from samplers.gflownet.partition import LogPartition
from samplers.gflownet.policy import BackwardPolicy, ForwardPolicy, StateFlow
from samplers.gflownet.replay import ReplayBuffer
from samplers.gflownet.settings import LearnerSettings
from samplers.gflownet.trajectories import (
    Trajectories,
    is_bounded,
    log_backward,
    log_forward,
    sample_backward,
    sample_forward,
    sample_terminal,
)

BLOCK = 4096  # backward trajectories drawn at once where many tell one log-probability


class Learner:
    """Networks, log-partition, optimiser and replay buffer of one GFlowNet.

    Networks live on `settings.device`; environment, draws and log-probabilities stay on the CPU, so that a
    seed means the same draws wherever the networks are.
    """

    def __init__(self, environment: Environment, settings: LearnerSettings) -> None:
        self.environment = environment
        self.settings = settings
        s = settings
        self.objective = make_objective(s.loss, decay=s.subtrajectory_decay)
        n_inputs = environment.n_inputs + s.is_conditioned
        self.forward_policy = ForwardPolicy(
            n_inputs,
            environment.n_actions,
            environment.n_continuous,
            hidden=s.hidden,
            n_components=s.n_components,
        ).to(s.torch_device)
        self.backward_policy = (
            None
            if environment.has_unique_paths
            else BackwardPolicy(n_inputs, environment.n_actions, hidden=s.hidden).to(s.torch_device)
        )
        self.flow = (
            StateFlow(n_inputs, environment.n_actions, hidden=s.hidden).to(s.torch_device)
            if self.objective.has_flows
            else None
        )
        self.log_partition = LogPartition(s.beta_bounds)
        self.replay = ReplayBuffer(s.replay_capacity, environment.n_state)
        self.n_steps = 0
        self.reset(torch.Generator().manual_seed(0))

    def reset(self, generator: torch.Generator) -> None:
        """Draw initial parameters and forget the optimiser's moments."""
        for network in self._networks.values():
            network.reset(generator)
        nn.init.zeros_(self.log_partition.coefficients)
        self.optimizer = torch.optim.Adam(
            [
                {"params": self._network_parameters(), "lr": self.settings.learning_rate},
                {"params": [self.log_partition.coefficients], "lr": self.settings.log_z_learning_rate},
            ],
            fused=True,
        )

    @property
    def _networks(self) -> dict[str, ForwardPolicy | BackwardPolicy | StateFlow]:
        networks = {
            "forward_policy": self.forward_policy,
            "backward_policy": self.backward_policy,
            "flow": self.flow,
        }
        return {name: network for name, network in networks.items() if network is not None}

    def _network_parameters(self) -> list[nn.Parameter]:
        return [p for network in self._networks.values() for p in network.parameters()]

    # ---------------------------------------------------------------- training

    def start(
        self,
        log_reward: StateReward,
        *,
        steps: int,
        generator: torch.Generator,
        dataset: Dataset | None = None,
    ) -> Fit:
        """Begin a training of a number of steps, from the present state on; see `Fit`.

        Raises:
            SamplerError: the environment truncates draws, whose densities have no gradient; or as `Fit.start`.
        """
        if is_bounded(self.environment):
            raise SamplerError(
                "A restricted space is sampled by what was learned on the whole; it can't be trained in. Train on "
                "the space that it is a part of, or make a space with these limits of its own."
            )
        return Fit.start(self, log_reward, steps=steps, generator=generator, dataset=dataset)

    def resume(
        self, log_reward: StateReward, state: Mapping[str, Any], *, dataset: Dataset | None = None
    ) -> Fit:
        """Go on with a training from `Fit.state_dict()`, given the same reward and data set.

        Raises:
            SamplerError: the state belongs to other networks.
        """
        return Fit.resume(self, log_reward, state, dataset=dataset)

    def fit(
        self,
        log_reward: StateReward,
        *,
        steps: int,
        generator: torch.Generator,
        dataset: Dataset | None = None,
    ) -> dict[str, Any]:
        """Train for a number of steps, from the present state on.

        Args:
            log_reward: log R of terminal states; where the loss looks forward, with a method `partial`.
            steps: Number of updates.
            generator: All randomness comes from it.
            dataset: Terminal states, `m x n_state`, with log rewards, `m`, a share of which joins each batch.

        Returns:
            Figures, as `Fit.figures`.

        Raises:
            SamplerError: the reward's answer is not one finite number for each state, or training diverges.
        """
        return self.start(log_reward, steps=steps, generator=generator, dataset=dataset).run()

    def loss(
        self,
        trajectories: Trajectories,
        log_reward: Tensor,
        beta: Tensor,
        *,
        log_partial: Tensor | None = None,
        recentres: bool = False,
    ) -> Tensor:
        """The objective on a batch, a scalar with gradient.

        Args:
            trajectories: A batch of n.
            log_reward: log of the shaped reward R^β of each end, `n`.
            beta: Exponent of each trajectory, `n`.
            log_partial: For a loss that looks forward, β times the log partial reward of the state where each
                step starts, `N`.
            recentres: Whether to set log Z to what the batch implies first.
        """
        t = trajectories
        log_pf, share = log_forward(self.forward_policy, t), self._share(t, log_partial)
        log_pb = log_backward(self.environment, self.backward_policy, t)

        def balance() -> Balance:
            log_z = self.log_partition(beta)
            log_flow = None if share is None else log_z[t.index] + share
            return Balance(log_pf, log_pb, t.index, log_reward, log_z, log_flow)

        if recentres:
            # The value that makes the mean residual zero. A logarithm of the mean of exponentials would be
            # nearer to the true log Z, but the residuals of nearly all trajectories would then have one sign,
            # and the first updates would only lower their probabilities.
            self.log_partition.move(beta, -balance().log_ratio.detach())
        return self.objective.loss(balance())

    def update(self, loss: Tensor) -> None:
        """One step of the optimiser down a loss.

        Raises:
            SamplerError: loss or gradient is not finite; the networks are as they were.
        """
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._network_parameters(), self.settings.max_gradient_norm)
        if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            raise SamplerError(
                f"The GFlowNet's training has diverged: at step {self.n_steps + 1} its loss is {loss.item():g} and "
                f"the norm of the gradient {norm.item():g}. Lower sampler.learning_rate (now "
                f"{self.settings.learning_rate:g}) or sampler.log_reward_range (now "
                f"{self.settings.log_reward_range:g}), or scale the reward."
            )
        self.optimizer.step()
        self.n_steps += 1

    def _share(self, t: Trajectories, log_partial: Tensor | None) -> Tensor | None:
        """log (F / Z) of the state where each step starts, `N`, where the loss has flows.

        Flows are learned as shares of Z, which has a fast learning rate of its own.
        """
        if self.flow is None:
            return None
        share = self.flow(t.inputs, t.mask)
        is_source = positions(t.index, t.n)[0] == 0
        if log_partial is not None:
            source = torch.zeros(t.n, dtype=torch.float64)
            source[t.index[is_source]] = log_partial[is_source]
            share = share + log_partial - source[t.index]
        return share.masked_fill(is_source, 0.0)

    def schedule(self, progress: float) -> None:
        """Learning rates fall linearly within a fit: large steps find the reward, small ones settle on it."""
        s = self.settings
        share = 1.0 - progress * (1.0 - s.final_learning_rate_share)
        for group, rate in zip(
            self.optimizer.param_groups, (s.learning_rate, s.log_z_learning_rate), strict=True
        ):
            group["lr"] = rate * share

    # ---------------------------------------------------------------- conditioning

    def condition(self, beta: Tensor) -> Tensor | None:
        """What the policies see of exponents, `n`: log β on [-1, 1], `n x 1`, float32; None where nothing."""
        if not self.settings.is_conditioned:
            return None
        return self.log_partition.scaled(beta).float()[:, None]

    def _condition_of(self, beta: float | None, n: int) -> Tensor | None:
        """The condition of one exponent for all; None means the highest of the range.

        Raises:
            SamplerError: the exponent is not one that the policies are trained for.
        """
        bounds = self.settings.beta_bounds
        if bounds is None:
            if beta is not None:
                raise SamplerError(
                    f"A sampler trained for one exponent of the reward can't be asked for beta = {beta:g}; give "
                    f"sampler.beta a range, such as {{low: 1, high: 8}}, before training."
                )
            return None
        if beta is not None and not bounds[0] <= beta <= bounds[1]:
            raise SamplerError(
                f"beta = {beta:g} is outside the range that the sampler is trained for, {bounds[0]:g} to "
                f"{bounds[1]:g} (sampler.beta)."
            )
        return self.condition(
            torch.full((n,), bounds[1] if beta is None else float(beta), dtype=torch.float64)
        )

    def log_z(self, beta: float | None = None) -> float:
        """The learned log-partition, at an exponent where it is conditioned on that (default: the highest)."""
        bounds = self.settings.beta_bounds
        at = beta if beta is not None else bounds[1] if bounds else 1.0
        return self.log_partition(torch.tensor([at], dtype=torch.float64)).item()

    # ---------------------------------------------------------------- draws

    def sample(self, n: int, generator: torch.Generator, *, beta: float | None = None) -> Trajectories:
        """Draw n trajectories from the present policy, without exploration.

        Args:
            n: Number of trajectories.
            generator: All randomness comes from it.
            beta: Exponent of the reward, where the policies are conditioned on it; by default the highest.

        Raises:
            SamplerError: the policies are not trained for that exponent.
        """
        return sample_forward(
            self.environment,
            self.forward_policy,
            n,
            generator=generator,
            condition=self._condition_of(beta, n),
        )

    def sample_terminal(self, n: int, generator: torch.Generator, *, beta: float | None = None) -> Tensor:
        """Terminal states, `n x n_state`, of trajectories as from `sample`; they take less time and memory."""
        return sample_terminal(
            self.environment,
            self.forward_policy,
            n,
            generator=generator,
            condition=self._condition_of(beta, n),
        )

    @torch.no_grad()
    def log_probability(
        self,
        states: Tensor,
        *,
        n_paths: int | None = None,
        generator: torch.Generator | None = None,
        beta: float | None = None,
    ) -> Tensor:
        """Log-density, `n`, float64, with which the present policy ends in terminal states, `n x n_state`.

        Where many paths lead to a state, it is estimated with backward trajectories τ_k ~ P_B(τ | x), as
        log (1/K) Σ_k P_F(τ_k) / P_B(τ_k | x), whose exponential has no bias.

        Args:
            states: Terminal states.
            n_paths: K; None only where paths are unique, where one tells all.
            generator: Randomness of the paths; needed with `n_paths`.
            beta: As for `sample`.

        Raises:
            SamplerError: paths are not unique and their number or the generator is missing, or the policies
                are not trained for that exponent.
        """
        walked = self.environment
        condition = self._condition_of(beta, len(states))
        if walked.has_unique_paths:
            n_paths, generator = 1, torch.Generator()
        if n_paths is None or n_paths < 1 or generator is None:
            raise SamplerError(
                f"{type(walked).__name__} has many paths to a state; its log-probability is a sum over them, "
                f"estimated from n_paths of them (at least 1, such as 100) drawn with a generator."
            )
        result = torch.empty(len(states), dtype=torch.float64)
        size = max(1, BLOCK // n_paths)
        for start in range(0, len(states), size):
            ends = states[start : start + size].repeat_interleave(n_paths, dim=0)
            seen = None
            if condition is not None:
                seen = condition[start : start + size].repeat_interleave(n_paths, dim=0)
            t = sample_backward(walked, self.backward_policy, ends, generator=generator, condition=seen)
            log_pb = log_backward(walked, self.backward_policy, t)
            log_ratio = t.total(log_forward(self.forward_policy, t, walked) - log_pb).reshape(-1, n_paths)
            result[start : start + size] = log_ratio.logsumexp(dim=1) - math.log(n_paths)
        return result

    def within(self, environment: Environment) -> Learner:
        """The same networks in a restricted environment, for sampling; they follow later training.

        Raises:
            SamplerError: the environment has not the states and actions of the one trained in.
        """
        for name in ("n_state", "n_inputs", "n_actions", "n_continuous"):
            theirs, own = getattr(environment, name), getattr(self.environment, name)
            if theirs != own:
                raise SamplerError(
                    f"An environment to sample in must have the states and actions of the one trained in, but "
                    f"its {name} is {theirs}, not {own}. Restrict the space that the sampler was made with."
                )
        learner = copy(self)
        learner.environment = environment
        return learner

    # ---------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Networks, log-partition, optimiser, replay buffer and step count, on the CPU."""
        return {
            **{name: _copy(network.state_dict()) for name, network in self._networks.items()},
            "log_partition": _copy(self.log_partition.state_dict()),
            "optimizer": _copy(self.optimizer.state_dict()),
            "replay": self.replay.state_dict(),
            "n_steps": self.n_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a state up again, on whatever device the networks are.

        Raises:
            SamplerError: the state belongs to other networks.
        """
        try:
            for name, network in self._networks.items():
                network.load_state_dict(state[name])
            self.log_partition.load_state_dict(state["log_partition"])
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
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copy(item) for item in value]
    return value
