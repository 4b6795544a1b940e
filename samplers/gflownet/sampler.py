"""The GFlowNet as a plug-in: candidates, and their fidelities, in proportion to a reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Literal

import torch
from torch import Tensor

from activelearning.contracts import LogReward, Proposal, Space
from activelearning.errors import ConfigError, SamplerError
from samplers.gflownet.environments import InvertibleEnvironment, make_environment
from samplers.gflownet.fit import Dataset, Fit, StateReward
from samplers.gflownet.learner import Learner
from samplers.gflownet.losses import LossName
from samplers.gflownet.settings import BetaRange, LearnerSettings
from samplers.gflownet.trajectories import is_reached, sample_terminal


class GFlowNetSampler:
    """Samples (candidate, fidelity) in proportion to R^β, by a GFlowNet.

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
        dataset_share: Share of them that ends in given objects, in fits that are given some; with
            `replay_share` below 1.
        hidden: Widths of the policy networks' hidden layers.
        n_components: Betas in the mixture over continuous coordinates.
        loss: Training objective (`samplers.gflownet.losses`). Those but `trajectory_balance` and
            `log_partition_variance` learn state flows; `forward_looking` needs a reward with a method
            `partial`, see `fit`.
        subtrajectory_decay: λ of `sub_trajectory_balance` and `forward_looking`; 0 balances single steps.
        learning_rate: Of the networks (Adam), at the start of a fit.
        log_z_learning_rate: Of the log-partition, which must follow faster than the networks.
        final_learning_rate_share: What is left of both at the end of a fit; the fall is linear.
        max_gradient_norm: Longer gradients are shortened to it.
        exploration: Probability of a uniform draw in each step of a training trajectory.
        temperature: Of the actions' distribution in training trajectories; above 1 explores.
        beta: Exponent of the reward; above 1 prefers high rewards more than in proportion. `auto` takes, in
            each fit, the least from 1 to 16 for which the mean reward of samples is expected to be `gain`
            times that of untrained ones; a flat reward needs it, since in proportion it is sampled as by
            chance. A range `{low, high}` trains one sampler for all exponents in it, drawn evenly in the
            logarithm for each trajectory; samples then are of the exponent asked for, by default the highest.
        gain: What `beta: auto` aims at.
        log_reward_range: β log R more than this below the best seen counts as this far below, so that a
            reward over many decades does not spend the training on telling bad from worse.
        device: Where the networks live: `auto` (a CUDA device where there is one), `cpu`, `cuda` or
            `cuda:N`. Results are the same within floating-point tolerance.

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
        dataset_share: float = 0.25,
        loss: LossName = "trajectory_balance",
        subtrajectory_decay: float = 0.9,
        learning_rate: float = 2e-3,
        log_z_learning_rate: float = 0.3,
        final_learning_rate_share: float = 0.1,
        max_gradient_norm: float = 10.0,
        exploration: float = 0.1,
        temperature: float = 1.0,
        beta: float | Literal["auto"] | BetaRange = 1.0,
        gain: float = 4.0,
        log_reward_range: float = 15.0,
        device: str = "auto",
    ) -> None:
        for key, value in (("steps", steps), ("warm_steps", warm_steps)):
            if value < 1:
                raise ConfigError(f"sampler.{key} is {value}; it must be at least 1.")
        self.space = space
        self.n_fidelities = n_fidelities
        self.steps = steps
        self.warm_steps = warm_steps
        settings = LearnerSettings(
            hidden=tuple(hidden),
            n_components=n_components,
            loss=loss,
            subtrajectory_decay=subtrajectory_decay,
            batch_size=batch_size,
            replay_share=replay_share,
            replay_capacity=replay_capacity,
            dataset_share=dataset_share,
            learning_rate=learning_rate,
            log_z_learning_rate=log_z_learning_rate,
            final_learning_rate_share=final_learning_rate_share,
            max_gradient_norm=max_gradient_norm,
            exploration=exploration,
            temperature=temperature,
            beta=_exponent(beta),
            gain=gain,
            log_reward_range=log_reward_range,
            device=device,
        )
        self.environment = make_environment(space, n_fidelities)
        self.learner = Learner(self.environment, settings)

    @property
    def needs_partial_reward(self) -> bool:
        """Whether it can only be trained on rewards that tell what unfinished states are worth, too."""
        return self.learner.objective.is_forward_looking

    def fit(
        self, log_reward: LogReward, *, seed: int, given: Sequence[Proposal] | None = None
    ) -> Mapping[str, Any]:
        """Train on a reward, going on from the present state.

        Args:
            log_reward: log R of candidates. For the loss `forward_looking` also has a method
                `partial(states)`: log rewards, `n`, of states of this sampler's environment, `n x n_state`, as
                far as they are decided.
            seed: All randomness comes from it.
            given: Objects to train from as well, by backward sampling, such as known crystals.

        Returns:
            Figures of the training (JSON), as `Fit.figures`.

        Raises:
            SamplerError: the reward's answer is not one finite number for each candidate, training diverges,
                or a given object is not of the space.
        """
        return self.start(log_reward, seed=seed, given=given).run()

    def start(
        self,
        log_reward: LogReward,
        *,
        seed: int,
        steps: int | None = None,
        given: Sequence[Proposal] | None = None,
    ) -> Fit:
        """Begin a fit that is advanced with `Fit.run` and saved with `Fit.state_dict`.

        Args:
            log_reward: As for `fit`.
            seed: All randomness comes from it.
            steps: Updates; by default the sampler's `steps`, or its `warm_steps` after the first fit.
            given: As for `fit`.
        """
        reward = self._state_reward(log_reward)
        if steps is None:
            steps = self.steps if self.learner.n_steps == 0 else self.warm_steps
        return self.learner.start(
            reward, steps=steps, generator=_generator(seed), dataset=self._dataset(reward, given)
        )

    def resume(
        self, log_reward: LogReward, state: Mapping[str, Any], *, given: Sequence[Proposal] | None = None
    ) -> Fit:
        """Go on with a fit from `Fit.state_dict()`, with the reward and objects that it was started with.

        The rest of it is the same, bit for bit, as if it had not been interrupted.

        Raises:
            SamplerError: the state belongs to another space or other settings.
        """
        reward = self._state_reward(log_reward)
        return self.learner.resume(reward, state, dataset=self._dataset(reward, given))

    def _state_reward(self, log_reward: LogReward) -> StateReward:
        def of_states(states: Tensor) -> Tensor:
            return log_reward(*_split(self.environment.proposals(states)))

        partial = getattr(log_reward, "partial", None)
        return of_states if partial is None else _PartialStateReward(of_states, partial)

    def _dataset(self, reward: StateReward, given: Sequence[Proposal] | None) -> Dataset | None:
        if not given:
            return None
        what = "A given object can't be trained from"
        states = self._states(given, what)
        reached = is_reached(self.environment, states)
        if not reached.all():
            first = int((~reached).nonzero()[0])
            raise SamplerError(
                f"{what}: number {first + 1} of {len(given)} is of the space, but no trajectory of "
                f"{type(self.environment).__name__} leads to it; leave it out."
            )
        return states, reward(states)

    def _states(self, proposals: Sequence[Proposal], what: str) -> Tensor:
        if not isinstance(self.environment, InvertibleEnvironment):
            raise SamplerError(
                f"{what}: {type(self.environment).__name__} can't read candidates back as states; give it a "
                f"method states(proposals)."
            )
        try:
            return self.environment.states(proposals)
        except ValueError as error:
            raise SamplerError(f"{what}: {error}.") from error

    def sample(self, n: int, *, seed: int, beta: float | None = None) -> list[Proposal]:
        """Draw n proposals from the present policy.

        Args:
            n: Number of proposals.
            seed: All randomness comes from it.
            beta: Exponent of the reward, for a sampler trained for a range; by default the highest.

        Raises:
            SamplerError: the policy is not trained for that exponent.
        """
        terminal = self.learner.sample_terminal(_checked_number(n), _generator(seed), beta=beta)
        return self.environment.proposals(terminal)

    def restricted(self, space: Space) -> GFlowNetSampler:
        """This sampler in a part of its space, without another training; it follows later training of this one.

        Draws are those of the policy with the narrower masks of the part, and with continuous coordinates
        truncated to what the part leaves of them. It samples; it can't be trained.

        Args:
            space: A part of this sampler's space, such as its method `restricted` gives.

        Raises:
            SamplerError: the space is no part of this one's.
        """
        if getattr(space, "base", space) is not getattr(self.space, "base", self.space):
            raise SamplerError(
                "A sampler can be held to a part of the space that it was made with, not to another space, whose "
                "states and coordinates mean something else. Take sampler.space.restricted(...)."
            )
        environment = make_environment(space, self.n_fidelities)
        sampler = copy(self)
        sampler.space, sampler.environment = space, environment
        sampler.learner = self.learner.within(environment)
        return sampler

    def sample_untrained(self, n: int, *, seed: int) -> list[Proposal]:
        """Draw n proposals with uniform choices among allowed actions and uniform continuous coordinates."""
        terminal = sample_terminal(self.environment, None, _checked_number(n), generator=_generator(seed))
        return self.environment.proposals(terminal)

    def log_probability(
        self,
        proposals: Sequence[Proposal],
        *,
        beta: float | None = None,
        n_paths: int | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Log-density of each proposal under the present policy, `n`, float64.

        Args:
            proposals: What to tell it of.
            beta: As for `sample`.
            n_paths: Backward trajectories for each proposal, where many paths lead to one; the
                density is then an estimate without bias.
            seed: Randomness of those.

        Raises:
            SamplerError: the environment can't read objects back, or has many paths to one and `n_paths` is
                not given, or a proposal is not of its space.
        """
        states = self._states(proposals, "The log-probability of a proposal can't be told")
        return self.learner.log_probability(states, beta=beta, n_paths=n_paths, generator=_generator(seed))

    def state_dict(self) -> dict[str, Any]:
        """Networks, log Z, optimiser, replay buffer and step count."""
        return self.learner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a state up again; afterwards every call gives the same results, bit for bit.

        Raises:
            SamplerError: the state belongs to another space or other settings.
        """
        self.learner.load_state_dict(state)


def _checked_number(n: int) -> int:
    if n < 0:
        raise SamplerError(f"{n} proposals can't be drawn; ask for 0 or more.")
    return n


class _PartialStateReward:
    """A reward of states that also tells what unfinished ones are worth."""

    def __init__(self, log_reward: StateReward, partial: StateReward) -> None:
        self._log_reward = log_reward
        self._partial = partial

    def __call__(self, states: Tensor) -> Tensor:
        return self._log_reward(states)

    def partial(self, states: Tensor) -> Tensor:
        return self._partial(states)


def _exponent(beta: float | str | BetaRange | Mapping[str, float]) -> float | BetaRange | None:
    if beta == "auto":
        return None
    if isinstance(beta, Mapping) and set(beta) == {"low", "high"}:
        return BetaRange(low=float(beta["low"]), high=float(beta["high"]))
    if isinstance(beta, (str, Mapping)):
        raise ConfigError(f"sampler.beta is {beta!r}; it must be a number, 'auto', or a range {{low, high}}.")
    return beta


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _split(proposals: Sequence[Proposal]) -> tuple[list[Any], list[int] | None]:
    candidates = [proposal.candidate for proposal in proposals]
    fidelities = [proposal.fidelity for proposal in proposals if proposal.fidelity is not None]
    return candidates, fidelities or None
