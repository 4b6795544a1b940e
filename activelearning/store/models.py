"""Tables of the campaign store.

Keys are natural (a campaign's name, an evaluation's key), never counters, so that a campaign that was killed and
resumed ends with the same rows as one that never was. Times are ISO-8601 texts in UTC.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Double, ForeignKey, ForeignKeyConstraint, Index, LargeBinary, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class State(StrEnum):
    """States of an evaluation."""

    INTENT = "intent"  # committed, not yet handed over
    SUBMITTED = "submitted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"  # lost from sight, perhaps alive outside: its reservation stays charged


OPEN_STATES = (State.INTENT, State.SUBMITTED, State.RUNNING)
# Which state may follow which; a terminal state is final.
FOLLOWS: dict[State | None, tuple[State, ...]] = {
    None: (State.INTENT, State.SUCCEEDED),
    State.INTENT: (State.SUBMITTED, State.CANCELLED),
    State.SUBMITTED: (
        State.RUNNING,
        State.SUCCEEDED,
        State.FAILED,
        State.CANCELLED,
        State.ABANDONED,
    ),
    State.RUNNING: (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.ABANDONED),
}


class Entry(StrEnum):
    """Kinds of ledger entries."""

    RESERVE = "reserve"
    SETTLE = "settle"
    RELEASE = "release"


class CampaignState(StrEnum):
    """States of a campaign; one kept as `running` is reported as interrupted where no live process works on it."""

    RUNNING = "running"
    WAITING = "waiting"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Base(DeclarativeBase):
    """Base of all tables."""


class Campaign(Base):
    """One campaign; `config` is the whole config, defaults included."""

    __tablename__ = "campaigns"
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    folder: Mapped[str] = mapped_column(Text)  # the config's folder, for plug-in files and data
    artifacts: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[str] = mapped_column(String(40))
    updated_at: Mapped[str] = mapped_column(String(40))


class Round(Base):
    """One committed round; round 0 is the initial design. `summary` holds the figures of fit and sampler."""

    __tablename__ = "rounds"
    campaign: Mapped[str] = mapped_column(ForeignKey("campaigns.name"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    model_fingerprint: Mapped[str | None] = mapped_column(String(64))
    summary: Mapped[dict[str, Any]] = mapped_column(JSON)
    timings: Mapped[dict[str, Any]] = mapped_column(JSON)
    committed_at: Mapped[str] = mapped_column(String(40))


class Evaluation(Base):
    """One question to one oracle."""

    __tablename__ = "evaluations"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    campaign: Mapped[str] = mapped_column(String(128))
    round: Mapped[int]
    position: Mapped[int]
    content_key: Mapped[str] = mapped_column(String(64), index=True)
    replicate: Mapped[int]
    candidate_key: Mapped[str] = mapped_column(String(64))
    candidate: Mapped[dict[str, Any]] = mapped_column(JSON)
    fidelity: Mapped[str] = mapped_column(String(64))
    oracle: Mapped[str] = mapped_column(Text)
    oracle_version: Mapped[str] = mapped_column(String(64))
    property: Mapped[str] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    acquisition: Mapped[float | None] = mapped_column(Double)  # utility, before division by cost
    predicted_mean: Mapped[float | None] = mapped_column(Double)
    predicted_std: Mapped[float | None] = mapped_column(Double)  # of the noise-free answer
    predicted_noise: Mapped[float | None] = mapped_column(Double)  # standard deviation of an answer about it
    cost_reserved: Mapped[float] = mapped_column(Double)
    cost_paid: Mapped[float | None] = mapped_column(Double)
    external_id: Mapped[str | None] = mapped_column(String(256))
    claimed_by: Mapped[str | None] = mapped_column(String(64))
    details: Mapped[dict[str, Any]] = mapped_column(JSON)  # the oracle's metadata
    seconds: Mapped[float | None] = mapped_column(Double)
    created_at: Mapped[str] = mapped_column(String(40))
    finished_at: Mapped[str | None] = mapped_column(String(40))

    __table_args__ = (
        ForeignKeyConstraint(["campaign", "round"], ["rounds.campaign", "rounds.index"]),
        Index("ix_evaluations_order", "campaign", "round", "position", unique=True),
        Index("ix_evaluations_state", "campaign", "state"),
    )


class MeasurementRow(Base):
    """One measured property of one evaluation."""

    __tablename__ = "measurements"
    evaluation_key: Mapped[str] = mapped_column(ForeignKey("evaluations.key"), primary_key=True)
    property: Mapped[str] = mapped_column(String(128), primary_key=True)
    value: Mapped[float] = mapped_column(Double)
    std: Mapped[float | None] = mapped_column(Double)
    censoring: Mapped[str] = mapped_column(String(8))
    unit: Mapped[str | None] = mapped_column(String(64))


class EarlierMeasurement(Base):
    """What a measurement was before a correction; `sequence` is that of the transition that tells of it."""

    __tablename__ = "earlier_measurements"
    evaluation_key: Mapped[str] = mapped_column(ForeignKey("evaluations.key"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    property: Mapped[str] = mapped_column(String(128), primary_key=True)
    value: Mapped[float] = mapped_column(Double)
    std: Mapped[float | None] = mapped_column(Double)
    censoring: Mapped[str] = mapped_column(String(8))
    unit: Mapped[str | None] = mapped_column(String(64))


class Transition(Base):
    """Append-only log of an evaluation's states; a correction is a new entry of the same state."""

    __tablename__ = "transitions"
    evaluation_key: Mapped[str] = mapped_column(ForeignKey("evaluations.key"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    at: Mapped[str] = mapped_column(String(40))


class LedgerEntry(Base):
    """Append-only ledger: changes of what is reserved and what is spent."""

    __tablename__ = "ledger"
    evaluation_key: Mapped[str] = mapped_column(ForeignKey("evaluations.key"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    campaign: Mapped[str] = mapped_column(String(128), index=True)
    kind: Mapped[str] = mapped_column(String(8))
    reserved: Mapped[float] = mapped_column(Double)
    spent: Mapped[float] = mapped_column(Double)
    at: Mapped[str] = mapped_column(String(40))


class Checkpoint(Base):
    """Warm state of a component (surrogate, surrogate.alone, sampler) as of the last committed round."""

    __tablename__ = "checkpoints"
    campaign: Mapped[str] = mapped_column(ForeignKey("campaigns.name"), primary_key=True)
    component: Mapped[str] = mapped_column(String(32), primary_key=True)
    round: Mapped[int]
    state: Mapped[bytes] = mapped_column(LargeBinary)


class Artifact(Base):
    """A file kept for an evaluation; `path` is relative to the campaign's artifact folder."""

    __tablename__ = "artifacts"
    evaluation_key: Mapped[str] = mapped_column(ForeignKey("evaluations.key"), primary_key=True)
    path: Mapped[str] = mapped_column(String(512), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int]


class Worker(Base):
    """A live process that works on a campaign; it renews its heartbeat."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    campaign: Mapped[str | None] = mapped_column(String(128))
    host: Mapped[str] = mapped_column(String(256))
    pid: Mapped[int]
    process_started: Mapped[str] = mapped_column(String(64))
    heartbeat: Mapped[float] = mapped_column(Double)  # seconds since the epoch


class Lease(Base):
    """The mutex of a campaign's steps."""

    __tablename__ = "leases"
    campaign: Mapped[str] = mapped_column(ForeignKey("campaigns.name"), primary_key=True)
    worker: Mapped[str] = mapped_column(String(64))


class LabRequest(Base):
    """A measurement asked of a laboratory, under the evaluation's key, or one that a person offered unasked."""

    __tablename__ = "lab_requests"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    campaign: Mapped[str] = mapped_column(String(128), index=True)
    fidelity: Mapped[str] = mapped_column(String(64))
    property: Mapped[str] = mapped_column(String(128))
    unit: Mapped[str | None] = mapped_column(String(64))
    candidate: Mapped[dict[str, Any]] = mapped_column(JSON)
    origin: Mapped[str] = mapped_column(String(16))  # campaign, person
    state: Mapped[str] = mapped_column(String(16))  # open, answered, rejected, cancelled
    reason: Mapped[str | None] = mapped_column(Text)  # of a rejection
    rejected_by: Mapped[str | None] = mapped_column(Text)
    cost: Mapped[float | None] = mapped_column(Double)  # of what was tried before the rejection
    created_at: Mapped[str] = mapped_column(String(40))
    closed_at: Mapped[str | None] = mapped_column(String(40))  # first result, rejection or cancellation


class LabResult(Base):
    """What a person recorded for a request; rows are only added, and one that `corrects` another takes its place."""

    __tablename__ = "lab_results"
    key: Mapped[str] = mapped_column(ForeignKey("lab_requests.key"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)  # from 1
    corrects: Mapped[int | None]
    value: Mapped[float] = mapped_column(Double)
    std: Mapped[float | None] = mapped_column(Double)
    unit: Mapped[str | None] = mapped_column(String(64))
    censoring: Mapped[str] = mapped_column(String(8))
    method: Mapped[str | None] = mapped_column(Text)
    note: Mapped[str | None] = mapped_column(Text)
    recorded_by: Mapped[str | None] = mapped_column(Text)
    cost: Mapped[float | None] = mapped_column(Double)
    recorded_at: Mapped[str] = mapped_column(String(40))

    # A result is corrected once; the correction may be corrected in turn.
    __table_args__ = (Index("ix_lab_results_corrects", "key", "corrects", unique=True),)


class LabFile(Base):
    """A file kept with a result; `path` is relative to the campaign's artifact folder."""

    __tablename__ = "lab_files"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(String(512), primary_key=True)
    name: Mapped[str] = mapped_column(Text)  # as the person called it
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int]

    __table_args__ = (ForeignKeyConstraint(["key", "sequence"], ["lab_results.key", "lab_results.sequence"]),)
