"""The contract of an oracle, as the engine sees it. Users subclass `oracles.Oracle`, which fulfils it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from activelearning.candidate import Candidate
from activelearning.measurement import Measurement

ExternalId = str


class JobState(StrEnum):
    """State of an outside job that has no result yet."""

    SUBMITTED = "submitted"
    RUNNING = "running"
    CANCELLED = "cancelled"
    LOST = "lost"  # the outside does not know the job


@dataclass(frozen=True)
class OracleContext:
    """What an oracle is told of the campaign that uses it, by `bind`, before any other call.

    Attributes:
        campaign: Name of the campaign.
        fidelity: Name of the fidelity.
        property: Property to be measured.
        unit: Unit in which the campaign wants it, or None.
        cost: Configured cost of one answer, in the campaign's cost unit.
        store: Database URL of the campaign's store.
        workdir: Folder of this fidelity's own for files (made on demand by the oracle).
    """

    campaign: str
    fidelity: str
    property: str
    unit: str | None
    cost: float
    store: str
    workdir: Path


@runtime_checkable
class OracleLike(Protocol):
    """A source of one property at one fidelity."""

    version: str
    is_queued: bool

    @property
    def is_batched(self) -> bool:
        """Whether it works on batches; candidates are else handed over one at a time, and kept as they come."""
        ...

    def bind(self, context: OracleContext) -> None:
        """Take notice of the campaign; called once, before any other call."""
        ...

    def check(self) -> None:
        """Raise an `ActiveLearningError` where the oracle can't work (files missing, wrong property …)."""
        ...

    def content(self) -> Mapping[str, object]:
        """What changes results besides the candidate (JSON): parameters, checksums of weights and files."""
        ...

    def expect(self, keys: Mapping[str, str]) -> None:
        """Told before `evaluate`: candidate keys and their evaluations' keys, which seed random work."""
        ...

    def evaluate(self, candidates: Sequence[Candidate]) -> Sequence[Measurement]:
        """Answer for every candidate, in order."""
        ...

    def cost(self, candidate: Candidate) -> float:
        """Predicted cost of one answer, in the campaign's cost unit."""
        ...


@runtime_checkable
class QueuedOracleLike(OracleLike, Protocol):
    """An oracle whose answers come later, from elsewhere."""

    def submit(self, candidate: Candidate, key: str) -> ExternalId:
        """Start outside work under the name `key`.

        Raises:
            OracleError: the candidate can't be done, and its evaluation fails; any other exception is trouble of the
                outside, and the step is tried again on the next tick.
        """
        ...

    def find(self, key: str) -> ExternalId | None:
        """Look work up outside by its key, so that nothing is submitted twice."""
        ...

    def poll(self, ids: Sequence[ExternalId]) -> Mapping[ExternalId, JobState | Measurement]:
        """State or result of each id, in one outside call where possible."""
        ...

    def cancel(self, ids: Sequence[ExternalId]) -> None:
        """Stop outside work; unknown ids are no error."""
        ...

    def flush(self) -> None:
        """Called after a batch of submissions, so that they can be handed over together."""
        ...


@dataclass(frozen=True)
class Unasked:
    """An answer that nobody asked for.

    Attributes:
        external_id: Its name outside, by which later corrections are found.
        candidate: What was measured.
        measurement: What came out.
    """

    external_id: ExternalId
    candidate: Candidate
    measurement: Measurement


@runtime_checkable
class RecordingOracleLike(QueuedOracleLike, Protocol):
    """A queued oracle whose answers people record: they may be corrected later, and come unasked."""

    def recorded(self, ids: Sequence[ExternalId]) -> Mapping[ExternalId, Measurement]:
        """What is true now of answers that were given before; ids without an answer are left out."""
        ...

    def unasked(self) -> Sequence[Unasked]:
        """Every answer for this campaign and fidelity that nobody asked for, in the order of recording."""
        ...
