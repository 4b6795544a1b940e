"""What goes into the repository and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from activelearning.candidate import Candidate
from activelearning.measurement import Measurement

# Sums of costs are compared with this relative tolerance: 0.1 + 0.2 must fit into a budget of 0.3.
COST_TOLERANCE = 1e-9
# Where an open evaluation's details count the processes that were lost while they worked on it.
TAKEOVERS = "takeovers"


@dataclass(frozen=True)
class Balance:
    """A campaign's money, in its cost unit."""

    total: float
    reserved: float
    spent: float

    @property
    def remaining(self) -> float:
        """What neither is spent nor reserved."""
        return self.total - self.reserved - self.spent


@dataclass(frozen=True)
class NewEvaluation:
    """An evaluation about to be committed; with a measurement it is an answer known beforehand, free of charge."""

    key: str
    content_key: str
    candidate: Candidate
    fidelity: str
    oracle: str
    oracle_version: str
    property: str
    cost: float
    replicate: int = 0
    acquisition: float | None = None
    predicted_mean: float | None = None
    predicted_std: float | None = None
    predicted_noise: float | None = None
    measurement: Measurement | None = None
    external_id: str | None = None
    artifacts: Sequence[tuple[str, str, int]] = ()


@dataclass(frozen=True)
class NewRound:
    """A round about to be committed, in one transaction with the warm states of its components."""

    index: int
    evaluations: Sequence[NewEvaluation]
    fingerprint: str | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    checkpoints: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """A finished evaluation: what came back, what is charged, and the files kept (path, sha256, size)."""

    key: str
    measurement: Measurement
    charge: float
    artifacts: Sequence[tuple[str, str, int]] = ()
