"""The training loop of a GFlowNet, which can be stopped after any step and taken up again bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from activelearning.errors import SamplerError
from samplers.gflownet.settings import BetaRange
from samplers.gflownet.tempering import choose_beta
from samplers.gflownet.trajectories import Trajectories, log_backward, sample_backward, sample_forward

if TYPE_CHECKING:
    from samplers.gflownet.learner import Learner

N_PROBES = 1024  # untrained draws to choose an exponent from

StateReward = Callable[[Tensor], Tensor]  # terminal states, n x n_state -> log R, n
Dataset = tuple[Tensor, Tensor]  # terminal states, m x n_state, and their log rewards, m


@runtime_checkable
class PartialReward(Protocol):
    """A reward that also tells what a state that is not finished is worth."""

    def __call__(self, states: Tensor) -> Tensor:
        """log R of terminal states, `n x n_state`."""
        ...

    def partial(self, states: Tensor) -> Tensor:
        """-E of states, `n x n_state`, not terminal: the log reward as far as it is decided, `n`, finite."""
        ...


class Fit:
    """A training of a stated number of steps.

    Made by `Learner.start` or `Learner.resume`. `run` advances it; `state_dict` between two runs holds all that
    the rest depends on: the learner with its optimiser and replay buffer, the place in the schedule, the
    exponent and the random generator.

    Attributes:
        steps: Updates in all.
        n_done: Updates made.
        beta: Exponent of the reward in this fit: a number, or None where it is drawn from a range.
        history: `loss`, `log_z` (of R^β, at the highest β of a range) and `mean_log_reward` (of the draws on
            policy, exploration included) after each update.
    """

    def __init__(
        self,
        learner: Learner,
        log_reward: StateReward,
        *,
        steps: int,
        generator: torch.Generator,
        dataset: Dataset | None,
    ) -> None:
        self._learner = learner
        self._log_reward = log_reward
        self._generator = generator
        self._dataset = None if dataset is None else _checked_dataset(dataset, learner.environment.n_state)
        self.steps = steps
        self.n_done = 0
        self.beta: float | None = None
        self.history: dict[str, list[float]] = {"loss": [], "log_z": [], "mean_log_reward": []}
        self._best = -math.inf
        self._n_evaluated = 0
        if learner.objective.is_forward_looking and not isinstance(log_reward, PartialReward):
            raise SamplerError(
                "The loss 'forward_looking' needs a reward that tells what an unfinished state is worth: a method "
                "partial(states) beside the call, log rewards (n) of states (n x n_state). This reward has none; "
                "give it one, or set sampler.loss to sub_trajectory_balance."
            )

    @classmethod
    def start(
        cls,
        learner: Learner,
        log_reward: StateReward,
        *,
        steps: int,
        generator: torch.Generator,
        dataset: Dataset | None = None,
    ) -> Fit:
        """Begin, from the learner's present state on.

        The buffer's rewards are taken anew first, as `log_reward` may be another function than before, and in
        the first update log Z is set to the mean that its batch implies.

        Raises:
            SamplerError: the reward's answer is not one finite number for each state, or it has no `partial`
                where the loss looks forward.
        """
        fit = cls(learner, log_reward, steps=steps, generator=generator, dataset=dataset)
        if learner.n_steps == 0:
            learner.reset(generator)
        replay = learner.replay
        if len(replay):
            replay.replace_rewards(fit._evaluate(replay.states))
        beta = learner.settings.beta
        fit.beta = None if isinstance(beta, BetaRange) else fit._probe() if beta is None else float(beta)
        if len(replay):
            fit._best = replay.log_rewards.max().item()
        if fit._dataset is not None:
            fit._best = max(fit._best, fit._dataset[1].max().item())
        return fit

    @classmethod
    def resume(
        cls,
        learner: Learner,
        log_reward: StateReward,
        state: Mapping[str, Any],
        *,
        dataset: Dataset | None = None,
    ) -> Fit:
        """Take a state up again, given the reward and the data set that it was started with.

        Raises:
            SamplerError: the state is not of such a fit.
        """
        try:
            generator = torch.Generator()
            generator.set_state(state["generator"])
            fit = cls(learner, log_reward, steps=int(state["steps"]), generator=generator, dataset=dataset)
            fit.n_done, fit.beta = int(state["n_done"]), state["beta"]
            fit.history = {name: values.tolist() for name, values in state["history"].items()}
            fit._best, fit._n_evaluated = float(state["best"]), int(state["rewards_evaluated"])
            learner.load_state_dict(state["learner"])
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise SamplerError(
                f"A saved training can't be taken up: {type(error).__name__}: {error}. It must be a state that "
                f"Fit.state_dict() gave, under the same space and sampler settings."
            ) from error
        return fit

    def state_dict(self) -> dict[str, Any]:
        """All that the remaining steps depend on but the reward and the data set; `weights_only` can load it."""
        return {
            "learner": self._learner.state_dict(),
            "generator": self._generator.get_state(),
            "steps": self.steps,
            "n_done": self.n_done,
            "beta": self.beta,
            "best": self._best,
            "rewards_evaluated": self._n_evaluated,
            "history": {
                name: torch.tensor(values, dtype=torch.float64) for name, values in self.history.items()
            },
        }

    @property
    def is_done(self) -> bool:
        """Whether all steps are made."""
        return self.n_done >= self.steps

    @property
    def figures(self) -> dict[str, Any]:
        """The training so far in figures (JSON).

        `steps`, `total_steps`, `loss` and `mean_log_reward` (means over the last tenth of the steps),
        `first_mean_log_reward`, `max_log_reward`, `log_z` (of R^β), `beta` (the highest of a range), `replay`,
        `rewards_evaluated`.
        """
        learner, means, losses = self._learner, self.history["mean_log_reward"], self.history["loss"]
        bounds = learner.settings.beta_bounds
        tail = max(1, self.n_done // 10)
        return {
            "steps": self.n_done,
            "total_steps": learner.n_steps,
            "loss": sum(losses[-tail:]) / tail,
            "log_z": learner.log_z(),
            "beta": bounds[1] if bounds else self.beta,
            "first_mean_log_reward": means[0] if means else math.nan,
            "mean_log_reward": sum(means[-tail:]) / tail,
            "max_log_reward": self._best,
            "replay": len(learner.replay),
            "rewards_evaluated": self._n_evaluated,
        }

    def run(self, n_steps: int | None = None) -> dict[str, Any]:
        """Make the next n updates (default: all that are left) and return the figures.

        Raises:
            SamplerError: the reward's answer is not one finite number for each state, or training diverges.
        """
        left = self.steps - self.n_done
        for _ in range(left if n_steps is None else min(n_steps, left)):
            self._step()
        return self.figures

    def _step(self) -> None:
        learner, s = self._learner, self._learner.settings
        learner.schedule(self.n_done / self.steps)
        replay, generator = learner.replay, self._generator
        n_replay = min(int(s.replay_share * s.batch_size), len(replay))
        n_given = 0 if self._dataset is None else int(s.dataset_share * s.batch_size)
        n_fresh = s.batch_size - n_replay - n_given
        beta = self._betas(s.batch_size)
        condition = learner.condition(beta)
        fresh = sample_forward(
            learner.environment,
            learner.forward_policy,
            n_fresh,
            generator=generator,
            exploration=s.exploration,
            temperature=s.temperature,
            condition=None if condition is None else condition[:n_fresh],
            is_told=False,
        )
        rewards = self._evaluate(fresh.terminal)
        self.history["mean_log_reward"].append(rewards.mean().item())
        self._best = max(self._best, rewards.max().item())
        given = [replay.sample(n_replay, generator)] if n_replay else []
        if self._dataset is not None and n_given:
            rows = torch.randint(len(self._dataset[0]), (n_given,), generator=generator)
            given.append((self._dataset[0][rows], self._dataset[1][rows]))
        batch, all_rewards = fresh, rewards
        if given:
            back = sample_backward(
                learner.environment,
                learner.backward_policy,
                torch.cat([states for states, _ in given]),
                generator=generator,
                condition=None if condition is None else condition[n_fresh:],
            )
            batch = Trajectories.cat([fresh, back])
            all_rewards = torch.cat([rewards, *(log_rewards for _, log_rewards in given)])
        replay.add(fresh.terminal, rewards)
        shaped = torch.maximum(beta * all_rewards, beta * self._best - s.log_reward_range)
        loss = learner.loss(
            batch, shaped, beta, log_partial=self._log_partial(batch, beta), recentres=self.n_done == 0
        )
        learner.update(loss)
        self.history["loss"].append(loss.item())
        self.history["log_z"].append(learner.log_z())
        self.n_done += 1

    def _betas(self, n: int) -> Tensor:
        """Exponent of each trajectory, `n`, float64; of a range, uniform in the logarithm."""
        bounds = self._learner.settings.beta_bounds
        if bounds is None:
            assert self.beta is not None
            return torch.full((n,), self.beta, dtype=torch.float64)
        low, high = (math.log(bound) for bound in bounds)
        level = torch.rand(n, dtype=torch.float64, generator=self._generator)
        return (low + (high - low) * level).exp()

    def _log_partial(self, batch: Trajectories, beta: Tensor) -> Tensor | None:
        """β times the log partial reward of the state where each step starts, `N`, where the loss wants it."""
        if not self._learner.objective.is_forward_looking:
            return None
        assert isinstance(self._log_reward, PartialReward)
        answer = self._log_reward.partial(batch.states)
        return beta[batch.index] * _checked(answer, len(batch.index), "partial log reward", "states")

    def _evaluate(self, states: Tensor) -> Tensor:
        self._n_evaluated += len(states)
        return _checked(self._log_reward(states), len(states), "log reward", "candidates")

    def _probe(self) -> float:
        """Choose the exponent by untrained draws; the buffer keeps the best of them."""
        learner = self._learner
        draws = sample_forward(learner.environment, None, N_PROBES, generator=self._generator)
        rewards = self._evaluate(draws.terminal)
        learner.replay.add(draws.terminal, rewards)
        log_pb = log_backward(learner.environment, learner.backward_policy, draws).detach()
        return choose_beta(rewards, draws.total(draws.log_pf - log_pb), learner.settings.gain)


def _checked(answer: Tensor, n: int, name: str, of: str) -> Tensor:
    try:
        values = torch.as_tensor(answer).detach().double()
    except (TypeError, ValueError, RuntimeError) as error:
        raise SamplerError(
            f"The {name} must answer {n} {of} with {n} finite numbers; it gave {type(answer).__name__} ({error})."
        ) from error
    if values.shape != (n,) or not torch.isfinite(values).all():
        raise SamplerError(
            f"The {name} must answer {n} {of} with {n} finite numbers; it gave shape "
            f"{tuple(values.shape)} with {int((~torch.isfinite(values)).sum())} not finite."
        )
    return values


def _checked_dataset(dataset: Dataset, n_state: int) -> Dataset:
    states, log_rewards = dataset
    if states.ndim != 2 or states.shape[1] != n_state or len(states) == 0:
        raise SamplerError(
            f"A data set to train from must be at least one state of width {n_state}, not "
            f"{tuple(states.shape)}."
        )
    return states.double(), _checked(log_rewards, len(states), "data set's log rewards", "states")
