"""The contract of an acquisition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from botorch.models.model import Model
from torch import Tensor

from activelearning.fidelity import Fidelity


@dataclass(frozen=True)
class AcquisitionContext:
    """All that an acquisition may depend on.

    Attributes:
        model: BoTorch model over `n x (d + 1)` (features, then fidelity index).
        fidelities: The campaign's fidelities, by index.
        target: Index of the target fidelity.
        maximize: Direction of the objective.
        best: Best value observed at the target fidelity, in its unit, or None.
        reference: Features, `m x d`, of candidates that stand for the space (for max-value sampling).
        pending: Work in flight, `p x (d + 1)`; p may be 0.
        seed: Seed of the acquisition's own randomness.
    """

    model: Model
    fidelities: Sequence[Fidelity]
    target: int
    maximize: bool
    best: float | None
    reference: Tensor
    pending: Tensor
    seed: int


class Scorer(Protocol):
    """Utility of one more query, given what is pending; not yet divided by cost."""

    def __call__(self, X: Tensor) -> Tensor:
        """Utilities, `n`, of queries `n x (d + 1)`; larger is better.

        Differentiable where the acquisition is.
        """
        ...

    def add_pending(self, X: Tensor) -> None:
        """Condition on further queries in flight, `q x (d + 1)`."""
        ...


@runtime_checkable
class Acquisition(Protocol):
    """Builds a scorer for one round. An acquisition is made with the config's `params` as keywords."""

    def build(self, context: AcquisitionContext) -> Scorer:
        """A scorer on the round's model."""
        ...
