"""The laboratory as an oracle: a request waits in the store until a person records what was measured.

Nothing outside the store is involved. A request bears the evaluation's key, which makes submission idempotent, and a
result keeps what the person wrote, in the unit it was written in; it is converted when the campaign takes it in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import select

from activelearning.candidate import Candidate, candidate_from_dict
from activelearning.contracts.oracle import ExternalId, JobState, Unasked
from activelearning.errors import ConfigError
from activelearning.measurement import Measurement
from activelearning.store.database import Database, now, open_database
from activelearning.store.models import Campaign, LabRequest, LabResult
from oracles.base import QueuedOracle
from oracles.lab.requests import (
    ANSWERED,
    CAMPAIGN,
    CANCELLED,
    OPEN,
    PERSON,
    REJECTED,
    Request,
    requests_of,
    with_results,
)
from oracles.units import unit_of


class LabOracle(QueuedOracle):
    """Asks a laboratory for the property; answers come in by `activelearning lab`, or by its form in a browser.

    The external id of a request is the evaluation's key. The value recorded must be in the fidelity's unit or
    in one that converts to it.
    """

    takes_average: ClassVar[bool] = True
    _database: Database | None = None

    def check(self) -> None:
        """Refuse a known unit in another spelling: conversions, and what a bare number may be, go by the known one.

        Raises:
            ConfigError: naming the spelling.
        """
        unit = self.context.unit
        if unit is not None and unit_of(unit) != unit:
            raise ConfigError(
                f"the laboratory knows the unit {unit!r} as {unit_of(unit)!r}: write that (in `objective.unit`, or in "
                f"the fidelity's own `unit`), so that results in other units are converted to it."
            )

    def submit(self, candidate: Candidate, key: str) -> ExternalId:
        """Put a request in the store, once for a key."""
        with self._store().write() as session:
            if session.get(LabRequest, key) is None:
                session.add(
                    LabRequest(
                        key=key,
                        campaign=self.context.campaign,
                        fidelity=self.context.fidelity,
                        property=self.context.property,
                        unit=self.context.unit,
                        candidate=candidate.to_dict(),
                        origin=CAMPAIGN,
                        state=OPEN,
                        created_at=now(),
                    )
                )
        return key

    def find(self, key: str) -> ExternalId | None:
        """The request of an evaluation, or None."""
        with self._store().read() as session:
            return None if session.get(LabRequest, key) is None else key

    def poll(self, ids: Sequence[ExternalId]) -> Mapping[ExternalId, JobState | Measurement]:
        """Results of the requests that were answered or rejected, states of the others."""
        answers: dict[ExternalId, JobState | Measurement] = dict.fromkeys(ids, JobState.LOST)
        states = {OPEN: JobState.SUBMITTED, CANCELLED: JobState.CANCELLED}
        with self._store().read() as session:
            root = self._artifacts()
            for request in requests_of(session, ids):
                row = request.row
                if row.state == REJECTED:
                    answers[row.key] = _rejection(row)
                elif row.state == ANSWERED:
                    answers[row.key] = _measurement(request, root)
                else:
                    answers[row.key] = states[row.state]
        return answers

    def recorded(self, ids: Sequence[ExternalId]) -> Mapping[ExternalId, Measurement]:
        """What is true now of the requests that were answered: replicates and corrections change it."""
        return {
            key: answer
            for key, answer in self.poll(ids).items()
            if isinstance(answer, Measurement) and answer.is_success
        }

    def unasked(self) -> Sequence[Unasked]:
        """Results for this campaign and fidelity that no campaign asked for."""
        query = select(LabRequest).where(
            LabRequest.origin == PERSON,
            LabRequest.campaign == self.context.campaign,
            LabRequest.fidelity == self.context.fidelity,
            LabRequest.state == ANSWERED,
        )
        with self._store().read() as session:
            rows = session.scalars(query.order_by(LabRequest.created_at, LabRequest.key)).all()
            root = self._artifacts()
            return [
                Unasked(
                    request.row.key,
                    candidate_from_dict(request.row.candidate),
                    _measurement(request, root),
                )
                for request in with_results(session, rows)
            ]

    def cancel(self, ids: Sequence[ExternalId]) -> None:
        """Withdraw requests that were not answered."""
        with self._store().write() as session:
            for key in ids:
                request = session.get(LabRequest, key, with_for_update=True)
                if request is not None and request.state == OPEN:
                    request.state, request.closed_at = CANCELLED, now()

    def _store(self) -> Database:
        if self._database is None:
            self._database = open_database(self.context.store)
        return self._database

    def _artifacts(self) -> Path:
        """The campaign's folder for files, below which those of results are."""
        with self._store().read() as session:
            campaign = session.get(Campaign, self.context.campaign)
        return self.context.workdir.parent if campaign is None else Path(campaign.artifacts)


def _rejection(row: LabRequest) -> Measurement:
    facts = {"rejected_by": row.rejected_by, "rejected_at": row.closed_at}
    return Measurement.failed(
        f"rejected by the laboratory: {row.reason}",
        cost=row.cost or 0.0,
        metadata={name: fact for name, fact in facts.items() if fact is not None},
    )


def _measurement(request: Request, artifacts: Path) -> Measurement:
    valid = request.valid
    facts = [_facts(result) for result in valid]
    costs = [result.cost for result in valid]
    files = [file for result in valid for file in request.files.get(result.sequence, ())]
    return Measurement(
        values={request.row.property: request.value()},
        # Where one of them does not say what it took, nor does the whole.
        cost=None if None in costs else sum(cost for cost in costs if cost is not None),
        metadata=facts[0] if len(facts) == 1 else {"replicates": facts},
        artifacts=tuple(str(artifacts / file.path) for file in files),
    )


def _facts(result: LabResult) -> dict[str, Any]:
    """What is kept beside an evaluation of one result."""
    facts = {
        "method": result.method,
        "note": result.note,
        "recorded_by": result.recorded_by,
        "recorded_at": result.recorded_at,
        "recorded_value": result.value,
        "recorded_unit": result.unit,
        "recorded_std": result.std,
        "recorded_censoring": result.censoring,
        "result": result.sequence,
        "corrects": result.corrects,
    }
    return {name: fact for name, fact in facts.items() if fact is not None}
