"""The contract of an acquisition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from botorch.models.model import Model
from torch import Tensor

from activelearning.fidelity import Fidelity


@dataclass(frozen=True)
class Objective:
    """One property that is looked for.

    Attributes:
        fidelity: Index of its target fidelity.
        maximize: Its direction.
        reference: Value from which improvements count, in the target's unit; None: to be inferred.
    """

    fidelity: int
    maximize: bool
    reference: float | None = None


@dataclass(frozen=True)
class Constraint:
    """A range in which a property must lie.

    Attributes:
        fidelity: Index of the target fidelity that tells it.
        at_least: Lower end, in the fidelity's unit, or None.
        at_most: Upper end, or None.
    """

    fidelity: int
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Goals:
    """All that a campaign looks for: objectives, one or more, and constraints; no two have the same target."""

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()

    @property
    def targets(self) -> tuple[int, ...]:
        """Indices of the target fidelities: of the objectives, then of the constraints."""
        return (*(o.fidelity for o in self.objectives), *(c.fidelity for c in self.constraints))


@dataclass(frozen=True)
class AcquisitionContext:
    """All that an acquisition may depend on.

    Attributes:
        model: BoTorch model over `n x (d + 1)` (features, then fidelity index).
        fidelities: The campaign's fidelities, by index.
        target: Index of the (first) objective's target fidelity.
        maximize: Direction of the (first) objective.
        best: Best value observed at the target fidelity, in its unit, or None; None with several objectives.
        reference: Features, `m x d`, of candidates that stand for the space (for max-value sampling).
        pending: Work in flight, `p x (d + 1)`; p may be 0.
        seed: Seed of the acquisition's own randomness.
        goals: All objectives and constraints; None where only `target` and `maximize` are stated.
        answered: Queries that have been answered, `a x (d + 1)`; None where they are not told.
    """

    model: Model
    fidelities: Sequence[Fidelity]
    target: int
    maximize: bool
    best: float | None
    reference: Tensor
    pending: Tensor
    seed: int
    goals: Goals | None = None
    answered: Tensor | None = None


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
    """Builds a scorer for one round. An acquisition is made with the config's `params` as keywords.

    One that serves campaigns of several objectives or with constraints (`AcquisitionContext.goals`) says so by a class
    variable `supports_many_targets = True`.
    """

    def build(self, context: AcquisitionContext) -> Scorer:
        """A scorer on the round's model."""
        ...
