"""Training a sampler in pieces, with a checkpoint after each: killed at any instant, it goes on to the same bits.

A training is a row of fits. Each begins where the one before ended and has a number of steps of its own, which its
schedule of learning rates depends on; asking a finished training for more steps adds a fit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from activelearning.campaign.seeds import seed_for
from activelearning.contracts.sampler import LogReward, Proposal, Sampler
from activelearning.errors import ConfigError, InputError
from activelearning.sampling.checkpoint import write_checkpoint
from activelearning.sampling.events import InterruptedTrainingError, Observer, Progress

PIECES = 200  # points of the training's curves
LEAST_PIECE = 5  # steps between two points
SLICE = 10  # steps after which it may be stopped
WRITE_SECONDS = 5.0  # between two checkpoints; when one is written changes no result
CURVES = ("loss", "log_z", "mean_log_reward")


class Fit(Protocol):
    """A training of a sampler on one reward that is under way.

    Attributes:
        history: Figures after each step, by name.
    """

    history: Mapping[str, list[float]]

    def run(self, steps: int | None = None) -> Mapping[str, Any]:
        """Do some more steps, all that are left by default; returns figures (JSON)."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the training depends on, the sampler's own state among it."""
        ...


@runtime_checkable
class ResumableSampler(Sampler, Protocol):
    """A sampler whose training can be stopped after any step and gone on with."""

    def start(
        self,
        log_reward: LogReward,
        *,
        seed: int,
        steps: int | None = None,
        given: Sequence[Proposal] | None = None,
    ) -> Fit:
        """Begin a training of a number of steps."""
        ...

    def resume(
        self, log_reward: LogReward, state: Mapping[str, Any], *, given: Sequence[Proposal] | None = None
    ) -> Fit:
        """Go on with a training from its `state_dict()`, given the same reward and proposals."""
        ...


@dataclass
class Training:
    """How far a training is; all of it is in the checkpoint.

    Attributes:
        identity: What two equal trainings agree in (JSON).
        fitted: β and offset of each property's reward; empty where its shaping has none.
        step: Steps done.
        ends: Step at which each fit ends.
        curves: `step` and the means of `CURVES` over each piece; NaN where a sampler states none.
        figures: Of the last fit.
        seconds: Time spent in training.
        fit: State of the fit under way; None between two.
        sampler: State of the sampler between two fits.
    """

    identity: Mapping[str, Any]
    fitted: dict[str, dict[str, float]]
    step: int = 0
    ends: list[int] = field(default_factory=list)
    curves: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in ("step", *CURVES)})
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    fit: dict[str, Any] | None = None
    sampler: dict[str, Any] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether a fit has begun and not ended."""
        return bool(self.ends) and self.step < self.ends[-1]

    def to_state(self) -> dict[str, Any]:
        """As the checkpoint keeps it."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Training:
        """Back from a checkpoint."""
        return cls(**{name: state[name] for name in cls.__dataclass_fields__})


class Trainer:
    """Brings a training to a number of steps.

    Args:
        sampler: The sampler, as new; it is given the training's state.
        log_reward: The reward.
        training: How far it is.
        folder: Where checkpoints are written.
        seed: Seed of the training.
        given: Known candidates to train from as well.
        observe: Told after each piece.
        must_stop: Asked after each piece; True ends the work with a checkpoint.
    """

    def __init__(
        self,
        sampler: Sampler,
        log_reward: LogReward,
        training: Training,
        folder: Path,
        *,
        seed: int,
        given: Sequence[Proposal] | None = None,
        observe: Observer,
        must_stop: Callable[[], bool],
    ) -> None:
        self.sampler = sampler
        self.log_reward = log_reward
        self.training = training
        self.folder = folder
        self.seed = seed
        self.given = given
        self.observe = observe
        self.must_stop = must_stop

    def train(self, steps: int) -> None:
        """Train until `steps` steps are done in all; none where they are.

        Raises:
            ConfigError: a fit of more steps is under way.
            InterruptedTrainingError: it was asked to stop.
        """
        t = self.training
        if t.is_under_way and t.step < steps < t.ends[-1]:
            raise ConfigError(
                f"{self.folder} holds a training that was begun for {t.ends[-1]} steps and has {t.step}; its learning "
                f"rates are planned for all of them. Ask for at least {t.ends[-1]} (or for {t.step}, to take it as it "
                f"is), or choose another --out."
            )
        if t.is_under_way and steps > t.step:
            self._run(self._resumed())
        elif t.step or t.ends:
            self.load()
        if steps > t.step or not t.ends:
            self._run(self._begun(steps))

    def load(self) -> None:
        """Give the sampler the state that the training has reached, and train no more.

        Raises:
            InputError: the checkpoint tells of steps, and holds nothing that they led to.
        """
        state = self.training
        if state.step and state.fit is None and state.sampler is None:
            raise InputError(
                f"The checkpoint of {state.step} steps holds no state of the sampler: it is damaged. Remove it to "
                f"train anew."
            )
        if state.fit is not None:
            self._resumed()
        elif state.sampler is not None:
            self.sampler.load_state_dict(state.sampler)

    def _resumed(self) -> Fit:
        assert isinstance(self.sampler, ResumableSampler)
        assert self.training.fit is not None
        return self.sampler.resume(self.log_reward, self.training.fit, given=self.given)

    def _begun(self, steps: int) -> Fit:
        t = self.training
        seed = seed_for(self.seed, len(t.ends), "sampler.fit")
        n_steps = steps - t.step
        t.ends.append(steps)
        if isinstance(self.sampler, ResumableSampler):
            return self.sampler.start(self.log_reward, seed=seed, steps=n_steps, given=self.given)
        if self.given is not None:
            raise ConfigError(
                f"dataset: the sampler {type(self.sampler).__name__} can't be trained from given crystals; leave "
                f"`dataset` out, or choose the sampler 'gflownet'."
            )
        return _WholeFit(self.sampler, self.log_reward, seed)

    def _run(self, fit: Fit) -> None:
        """Run a fit to its end; the points of its curves lie at the same steps however often it was interrupted."""
        t = self.training
        begin, end = (t.ends[-2] if len(t.ends) > 1 else 0), t.ends[-1]
        piece = max(LEAST_PIECE, -(-(end - begin) // PIECES))
        written = time.monotonic()
        while True:
            since = time.monotonic()
            n_steps = min(SLICE, piece - (t.step - begin) % piece, end - t.step)
            if isinstance(fit, _WholeFit):
                n_steps = end - t.step
            t.figures = dict(fit.run(n_steps))
            t.step += n_steps
            is_done = t.step >= end
            self._observe(fit, begin, is_point=is_done or (t.step - begin) % piece == 0)
            now = time.monotonic()
            t.seconds += now - since
            stops = not is_done and self.must_stop()
            if is_done or stops or now - written >= WRITE_SECONDS:
                t.fit, t.sampler = (None, self.sampler.state_dict()) if is_done else (fit.state_dict(), None)
                write_checkpoint(self.folder, t.to_state())
                written = now
            if stops:
                raise InterruptedTrainingError(
                    f"Stopped after {t.step} of {end} steps; the same command goes on from there."
                )
            if is_done:
                return

    def _observe(self, fit: Fit, begin: int, *, is_point: bool) -> None:
        """Tell of the means since the last point of the curves, which become the next one at its step."""
        t = self.training
        last = t.curves["step"][-1] if t.curves["step"] else 0
        n_steps = t.step - max(begin, int(last))
        told = {name: fit.history[name][-n_steps:] for name in CURVES if fit.history.get(name)}
        means = {name: sum(values) / len(values) for name, values in told.items()}
        if is_point:
            t.curves["step"].append(float(t.step))
            for name in CURVES:
                t.curves[name].append(means.get(name, float("nan")))
        self.observe(Progress(t.step, t.ends[-1], means))


class _WholeFit:
    """The training of a sampler that can only be trained in one piece; interrupted, it begins anew."""

    def __init__(self, sampler: Sampler, log_reward: LogReward, seed: int) -> None:
        self.sampler, self.log_reward, self.seed = sampler, log_reward, seed
        self.history: Mapping[str, list[float]] = {}

    def run(self, steps: int | None = None) -> Mapping[str, Any]:
        return self.sampler.fit(self.log_reward, seed=self.seed)

    def state_dict(self) -> dict[str, Any]:
        raise AssertionError("a fit of one piece has no state within")
