"""Observations: what the surrogate learns from."""

from __future__ import annotations

from dataclasses import dataclass

from activelearning.candidate import Candidate
from activelearning.measurement import Censoring


@dataclass(frozen=True)
class Observation:
    """One measured property of one candidate at one fidelity.

    Attributes:
        candidate: What was measured.
        fidelity: Index of the fidelity that answered.
        value: In the fidelity's unit; for a bound, the bound.
        std: Known standard error, or None.
        censoring: Whether the value is a bound.
    """

    candidate: Candidate
    fidelity: int
    value: float
    std: float | None = None
    censoring: Censoring = Censoring.NONE


@dataclass(frozen=True)
class Outcome:
    """Whether one evaluation answered.

    Attributes:
        candidate: What was asked.
        fidelity: Index of the fidelity that was asked.
        answered: False where it failed.
    """

    candidate: Candidate
    fidelity: int
    answered: bool
