"""What a sampling run tells those who watch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from activelearning.errors import ActiveLearningError


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        step: Steps done.
        steps: Steps wanted.
        figures: Of the last steps: `loss`, `log_z`, `mean_log_reward` and `max_log_reward`, as far as the sampler
            states them.
    """

    step: int
    steps: int
    figures: dict[str, float]


@dataclass(frozen=True)
class Stage:
    """A part of the run begins.

    Attributes:
        text: What is done, in a few words.
    """

    text: str


Observer = Callable[[Progress | Stage], None]


class InterruptedTrainingError(ActiveLearningError):
    """A run was asked to stop, and its checkpoint is written."""

    exit_code = 130
