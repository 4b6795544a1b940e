"""The GFlowNet as a plug-in: candidates, and their fidelities, in proportion to a reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from activelearning.contracts import LogReward, Proposal, Space
from activelearning.errors import ConfigError, SamplerError
from samplers.gflownet.environments import InvertibleEnvironment, make_environment
from samplers.gflownet.learner import Learner, LearnerSettings
from samplers.gflownet.losses import LOSSES
from samplers.gflownet.trajectories import sample_terminal


class GFlowNetSampler:
    """Samples (candidate, fidelity) in proportion to R^β, by a GFlowNet trained with trajectory balance.

    Rewards are densities against counting measure on discrete choices times Lebesgue measure on unit-scaled
    continuous parameters. Bengio et al. (NeurIPS 2021); Malkin et al. (NeurIPS 2022); Lahlou et al., "A
    theory of continuous GFlowNets" (ICML 2023).

    Args:
        space: What to sample, of a kind in `samplers.gflownet.environments.ENVIRONMENTS`.
        n_fidelities: Number of fidelities to sample from; None where the fidelity is not sampled.
        steps: Updates in the first fit.
        warm_steps: Updates in each later fit, which goes on from the state of the one before.
        batch_size: Trajectories in an update.
        replay_share: Share of them that ends in replayed states; 0 to below 1.
        replay_capacity: Number of best states kept for replay.
        hidden: Widths of the policy networks' hidden layers.
        n_components: Betas in the mixture over continuous coordinates.
        loss: Training objective.
        learning_rate: Of the networks (Adam), at the start of a fit.
        log_z_learning_rate: Of the log-partition, which must follow faster than the networks.
        final_learning_rate_share: What is left of both at the end of a fit; the fall is linear.
        max_gradient_norm: Longer gradients are shortened to it.
        exploration: Probability of a uniform draw in each step of a training trajectory.
        temperature: Of the actions' distribution in training trajectories; above 1 explores.
        beta: Exponent of the reward; above 1 prefers high rewards more than in proportion. `auto` takes, in
            each fit, the least from 1 to 16 for which the mean reward of samples is expected to be `gain`
            times that of untrained ones; a flat reward needs it, since in proportion it is sampled as by
            chance.
        gain: What `beta: auto` aims at.
        log_reward_range: β log R more than this below the best seen counts as this far below, so that a
            reward over many decades does not spend the training on telling bad from worse.

    Raises:
        ConfigError: a value is out of range, or the space has no environment.
    """

    def __init__(
        self,
        space: Space,
        n_fidelities: int | None,
        *,
        steps: int = 400,
        warm_steps: int = 200,
        batch_size: int = 64,
        replay_share: float = 0.5,
        replay_capacity: int = 2000,
        hidden: list[int] | tuple[int, ...] = (256, 256, 256),
        n_components: int = 16,
        loss: Literal["trajectory_balance", "log_partition_variance"] = "trajectory_balance",
        learning_rate: float = 2e-3,
        log_z_learning_rate: float = 0.3,
        final_learning_rate_share: float = 0.1,
        max_gradient_norm: float = 10.0,
        exploration: float = 0.1,
        temperature: float = 1.0,
        beta: float | Literal["auto"] = 1.0,
        gain: float = 4.0,
        log_reward_range: float = 15.0,
    ) -> None:
        self.space = space
        self.n_fidelities = n_fidelities
        self.steps = steps
        self.warm_steps = warm_steps
        settings = LearnerSettings(
            hidden=tuple(hidden),
            n_components=n_components,
            loss=loss,
            batch_size=batch_size,
            replay_share=replay_share,
            replay_capacity=replay_capacity,
            learning_rate=learning_rate,
            log_z_learning_rate=log_z_learning_rate,
            final_learning_rate_share=final_learning_rate_share,
            max_gradient_norm=max_gradient_norm,
            exploration=exploration,
            temperature=temperature,
            beta=None if beta == "auto" else beta,
            gain=gain,
            log_reward_range=log_reward_range,
        )
        _check(settings, steps, warm_steps)
        self.environment = make_environment(space, n_fidelities)
        self.learner = Learner(self.environment, settings)

    def fit(self, log_reward: LogReward, *, seed: int) -> Mapping[str, Any]:
        """Train on a reward, going on from the present state.

        Returns:
            Figures of the training (JSON), as from `Learner.fit`.

        Raises:
            SamplerError: the reward's answer is not one finite number for each candidate.
        """

        def of_states(states: Tensor) -> Tensor:
            return log_reward(*_split(self.environment.proposals(states)))

        steps = self.steps if self.learner.n_steps == 0 else self.warm_steps
        return self.learner.fit(of_states, steps=steps, generator=_generator(seed))

    def sample(self, n: int, *, seed: int) -> list[Proposal]:
        """Draw n proposals from the present policy."""
        policy = self.learner.forward_policy
        terminal = sample_terminal(self.environment, policy, n, generator=_generator(seed))
        return self.environment.proposals(terminal)

    def sample_untrained(self, n: int, *, seed: int) -> list[Proposal]:
        """Draw n proposals with uniform choices among allowed actions and uniform continuous coordinates."""
        terminal = sample_terminal(self.environment, None, n, generator=_generator(seed))
        return self.environment.proposals(terminal)

    def log_probability(self, proposals: Sequence[Proposal]) -> Tensor:
        """Log-density of each proposal under the present policy, `n`, float64.

        Raises:
            SamplerError: the environment can't read objects back, or has many paths to one, or a proposal is
                not of its space.
        """
        if not isinstance(self.environment, InvertibleEnvironment):
            raise SamplerError(
                f"{type(self.environment).__name__} can't read candidates back as states, so that the "
                f"sampler can't tell their log-probability; give it a method states(proposals)."
            )
        try:
            states = self.environment.states(proposals)
        except ValueError as error:
            raise SamplerError(f"The log-probability of a proposal can't be told: {error}.") from error
        return self.learner.log_probability(states)

    def state_dict(self) -> dict[str, Any]:
        """Networks, log Z, optimiser, replay buffer and step count."""
        return self.learner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a state up again; afterwards every call gives the same results, bit for bit.

        Raises:
            SamplerError: the state belongs to another space or other settings.
        """
        self.learner.load_state_dict(state)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _split(proposals: Sequence[Proposal]) -> tuple[list[Any], list[int] | None]:
    candidates = [proposal.candidate for proposal in proposals]
    fidelities = [proposal.fidelity for proposal in proposals if proposal.fidelity is not None]
    return candidates, fidelities or None


def _check(settings: LearnerSettings, steps: int, warm_steps: int) -> None:
    """Refuse values out of range."""
    s = settings
    demands = {
        "steps": (steps, steps >= 1, "at least 1"),
        "warm_steps": (warm_steps, warm_steps >= 1, "at least 1"),
        "batch_size": (s.batch_size, s.batch_size >= 2, "at least 2"),
        "replay_share": (s.replay_share, 0.0 <= s.replay_share < 1.0, "at least 0 and below 1"),
        "replay_capacity": (s.replay_capacity, s.replay_capacity >= 0, "at least 0"),
        "hidden": (list(s.hidden), all(width >= 1 for width in s.hidden), "positive widths"),
        "n_components": (s.n_components, s.n_components >= 1, "at least 1"),
        "loss": (s.loss, s.loss in LOSSES, f"one of {', '.join(LOSSES)}"),
        "learning_rate": (s.learning_rate, s.learning_rate > 0.0, "above 0"),
        "log_z_learning_rate": (s.log_z_learning_rate, s.log_z_learning_rate > 0.0, "above 0"),
        "final_learning_rate_share": (
            s.final_learning_rate_share,
            0.0 < s.final_learning_rate_share <= 1.0,
            "above 0 and at most 1",
        ),
        "max_gradient_norm": (s.max_gradient_norm, s.max_gradient_norm > 0.0, "above 0"),
        "exploration": (s.exploration, 0.0 <= s.exploration <= 1.0, "between 0 and 1"),
        "temperature": (s.temperature, s.temperature > 0.0, "above 0"),
        "beta": (s.beta, s.beta is None or s.beta > 0.0, "above 0, or 'auto'"),
        "gain": (s.gain, s.gain >= 1.0, "at least 1"),
        "log_reward_range": (s.log_reward_range, s.log_reward_range > 0.0, "above 0"),
    }
    for key, (value, is_met, demand) in demands.items():
        if not is_met:
            raise ConfigError(f"sampler.{key} is {value}; it must be {demand}.")
