"""The contract of a sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from activelearning.candidate import Candidate


@dataclass(frozen=True)
class Proposal:
    """A sampled candidate, with its fidelity's index where the sampler samples it."""

    candidate: Candidate
    fidelity: int | None = None


class LogReward(Protocol):
    """log R of each proposal: the cost-aware acquisition, or a property."""

    def __call__(self, candidates: Sequence[Candidate], fidelities: Sequence[int] | None) -> Tensor:
        """Log rewards, `n`, float64, finite. `fidelities` is None where the sampler samples none."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """Draws candidates in proportion to a reward.

    A sampler is made with `(space, n_fidelities, **params)`; `n_fidelities` is None where the fidelity is not
    sampled. All randomness of a call comes from its `seed`.
    """

    def fit(self, log_reward: LogReward, *, seed: int) -> Mapping[str, Any]:
        """Train on a reward, going on from the present state; returns figures of the training (JSON)."""
        ...

    def sample(self, n: int, *, seed: int) -> list[Proposal]:
        """Draw n proposals from the present policy."""
        ...

    def sample_untrained(self, n: int, *, seed: int) -> list[Proposal]:
        """Draw n proposals as a sampler that has seen no reward; the initial design is drawn so."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that `fit` and `sample` depend on, as tensors and plain values.

        Networks, optimiser, scheduler, replay.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a state up again; afterwards every call gives the same results, bit for bit."""
        ...
