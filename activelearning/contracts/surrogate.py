"""The contract of a surrogate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from botorch.models.model import Model
from torch import Tensor

from activelearning.candidate import Candidate
from activelearning.observation import Observation, Outcome


@dataclass(frozen=True)
class Prediction:
    """Posterior of the noise-free answer.

    Mean and standard deviation, each `n`, float64, in the fidelity's unit.
    """

    mean: Tensor
    std: Tensor


@runtime_checkable
class Surrogate(Protocol):
    """A model of every fidelity's answer.

    A surrogate is made with `(space, fidelities, **params)`.
    """

    @property
    def model(self) -> Model:
        """BoTorch model over `n x (d + 1)`: the space's features, then the fidelity's index.

        Its one output is the noise-free answer in the unit of the row's fidelity, whose own mean and scale are
        inside the model.
        """
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of hyper-parameters and data."""
        ...

    def fit(self, observations: Sequence[Observation], *, seed: int) -> Mapping[str, Any]:
        """Fit to all observations, warm from the last state; returns figures of the fit (JSON).

        Shown where they are given: `correlation` (`M x M`, between fidelities, by index) and, each a mapping of
        fidelity name to number, `n`, `loo_rmse`, `loo_nlpd`, `loo_coverage_50`, `loo_coverage_90` and
        `loo_bound_log_probability` (answers left out one by one).
        """
        ...

    def predict(self, candidates: Sequence[Candidate], fidelity: int) -> Prediction:
        """Posterior at one fidelity."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The warm state (tensors and plain values)."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a warm state up again."""
        ...


@runtime_checkable
class FeasibilityModel(Protocol):
    """What a surrogate may have beside its answers: how likely an evaluation answers at all.

    Acquisitions are multiplied by it, so that what fails where others have failed is not asked again and again.
    """

    def fit_feasibility(self, outcomes: Sequence[Outcome], *, seed: int) -> Mapping[str, Any]:
        """Learn from every evaluation that has ended; returns figures (JSON)."""
        ...

    def feasibility(self, X: Tensor) -> Tensor:
        """Probability that each query `n x (d + 1)` answers, `n`; differentiable in the features."""
        ...
