"""What an oracle answers: values with units, errors and bounds, or a failure with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Censoring(StrEnum):
    """How a value relates to the truth: equal up to error, or a bound on it."""

    NONE = "none"
    UPPER = "upper"  # the truth is at most the value
    LOWER = "lower"  # the truth is at least the value


@dataclass(frozen=True)
class MeasuredValue:
    """One property's value.

    Attributes:
        value: In `unit`; for a bound, the bound.
        unit: Unit of value and std; None takes the unit the campaign states for the property.
        std: One standard error, None where it is not known.
        censoring: Whether the value is a bound.
    """

    value: float
    unit: str | None = None
    std: float | None = None
    censoring: Censoring = Censoring.NONE

    def __post_init__(self) -> None:
        # numpy scalars and zero-dimensional tensors are numbers; booleans and texts are mistakes.
        if isinstance(self.value, (bool, str)):
            raise ValueError(f"a measured value is a number, not {self.value!r}")
        object.__setattr__(self, "value", float(self.value))
        if not math.isfinite(self.value):
            raise ValueError(f"a measured value is finite, not {self.value}")
        if self.std is not None:
            object.__setattr__(self, "std", float(self.std))
            if not (math.isfinite(self.std) and self.std >= 0.0):
                raise ValueError(f"a standard error is finite and not negative, not {self.std}")
        object.__setattr__(self, "censoring", Censoring(self.censoring))


@dataclass(frozen=True)
class Measurement:
    """The answer of an oracle to one candidate.

    Attributes:
        values: Each measured property's value; empty exactly when the evaluation failed.
        reason: Why it failed; None when it succeeded.
        cost: What it took in the campaign's cost unit, None where the oracle does not say.
        seconds: Wall time, None where the oracle does not say.
        metadata: JSON values to keep beside the result.
        artifacts: Paths of files to keep, as text.
    """

    values: Mapping[str, MeasuredValue] = field(default_factory=dict)
    reason: str | None = None
    cost: float | None = None
    seconds: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.values) == (self.reason is not None):
            raise ValueError("a measurement has either values or a reason of failure")
        if self.cost is not None and not (math.isfinite(self.cost) and self.cost >= 0.0):
            raise ValueError(f"a cost is finite and not negative, not {self.cost}")

    @property
    def is_success(self) -> bool:
        """True when there is at least one value (a bound is a value)."""
        return self.reason is None

    @classmethod
    def of(
        cls,
        prop: str,
        value: float,
        *,
        unit: str | None = None,
        std: float | None = None,
        censoring: Censoring = Censoring.NONE,
        **rest: Any,
    ) -> Measurement:
        """A success with one property."""
        return cls(values={prop: MeasuredValue(value, unit, std, censoring)}, **rest)

    @classmethod
    def failed(cls, reason: str, **rest: Any) -> Measurement:
        """A failure with its reason."""
        return cls(reason=reason, **rest)
