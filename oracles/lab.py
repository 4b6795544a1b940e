"""The laboratory: a request waits in the store until a person records what was measured.

Nothing outside the store is involved. A request bears the evaluation's key, which makes submission
idempotent, and a result keeps what the person wrote, in the unit it was written in; it is converted when the
campaign takes it in.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from activelearning.candidate import Candidate
from activelearning.contracts.oracle import ExternalId, JobState
from activelearning.errors import InputError
from activelearning.measurement import Censoring, MeasuredValue, Measurement
from activelearning.store.database import Database, now, open_database
from activelearning.store.models import LabRequest, LabResult
from oracles.base import QueuedOracle
from oracles.units import convert

OPEN, ANSWERED, CANCELLED = "open", "answered", "cancelled"
_BOUND_SIGNS = {"<": Censoring.UPPER, ">": Censoring.LOWER}
# Keys in one query; databases limit the number of its parameters.
_CHUNK = 500


class LabOracle(QueuedOracle):
    """Asks a laboratory for the property; answers come in by `activelearning lab record`.

    The external id of a request is the evaluation's key. The value recorded must be in the fidelity's unit or
    in one that converts to it.
    """

    takes_average: ClassVar[bool] = True
    _database: Database | None = None

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
        """Results of the requests that were answered, states of the others."""
        answers: dict[ExternalId, JobState | Measurement] = dict.fromkeys(ids, JobState.LOST)
        for request, result in self._requests(ids):
            if result is not None:
                answers[request.key] = _measurement(request, result)
            elif request.state == CANCELLED:
                answers[request.key] = JobState.CANCELLED
            else:
                answers[request.key] = JobState.SUBMITTED
        return answers

    def cancel(self, ids: Sequence[ExternalId]) -> None:
        """Withdraw requests that were not answered."""
        with self._store().write() as session:
            for key in ids:
                request = session.get(LabRequest, key, with_for_update=True)
                if request is not None and request.state == OPEN:
                    request.state = CANCELLED

    def _store(self) -> Database:
        if self._database is None:
            self._database = open_database(self.context.store)
        return self._database

    def _requests(self, ids: Sequence[ExternalId]) -> Iterator[tuple[LabRequest, LabResult | None]]:
        with self._store().read() as session:
            for start in range(0, len(ids), _CHUNK):
                query = (
                    select(LabRequest, LabResult)
                    .join(LabResult, LabResult.key == LabRequest.key, isouter=True)
                    .where(LabRequest.key.in_(ids[start : start + _CHUNK]))
                )
                for row in session.execute(query):
                    yield row[0], row[1]


def _measurement(request: LabRequest, result: LabResult) -> Measurement:
    given = MeasuredValue(result.value, result.unit, result.std, Censoring(result.censoring))
    facts = {
        "method": result.method,
        "recorded_by": result.recorded_by,
        "recorded_at": result.recorded_at,
        "recorded_value": result.value,
        "recorded_unit": result.unit,
    }
    return Measurement(
        values={request.property: convert(given, request.unit)},
        cost=result.cost,
        metadata={name: fact for name, fact in facts.items() if fact is not None},
    )


def parse_value(text: str) -> tuple[float, Censoring]:
    """Read a value as a laboratory writes it: a number, or a bound such as `<1e-10`.

    Raises:
        InputError: the text is neither.
    """
    stripped = text.strip()
    censoring = _BOUND_SIGNS.get(stripped[:1], Censoring.NONE)
    number = stripped if censoring is Censoring.NONE else stripped[1:].removeprefix("=")
    try:
        return MeasuredValue(float(number)).value, censoring
    except ValueError:
        raise InputError(
            f"{text!r} is no measured value: write a finite number such as 3.2e-4, or a bound like '<1e-10'."
        ) from None


def list_requests(
    database: Database, *, campaign: str | None = None, state: str | None = OPEN
) -> list[dict[str, Any]]:
    """Requests in the order in which they were made.

    Args:
        database: The store.
        campaign: Only this campaign's; None takes all.
        state: `open`, `answered` or `cancelled`; None takes all.

    Returns:
        Mappings with `key, campaign, fidelity, property, unit, candidate, state, created_at, result`, where
        `result` is None or `{value, std, unit, censoring, method, recorded_by, cost, recorded_at}`.
    """
    query = select(LabRequest, LabResult).join(LabResult, LabResult.key == LabRequest.key, isouter=True)
    if campaign is not None:
        query = query.where(LabRequest.campaign == campaign)
    if state is not None:
        query = query.where(LabRequest.state == state)
    with database.read() as session:
        found = session.execute(query.order_by(LabRequest.created_at, LabRequest.key)).all()
    return [
        {
            "key": request.key,
            "campaign": request.campaign,
            "fidelity": request.fidelity,
            "property": request.property,
            "unit": request.unit,
            "candidate": request.candidate,
            "state": request.state,
            "created_at": request.created_at,
            "result": None if result is None else _result(result),
        }
        for request, result in found
    ]


def _result(result: LabResult) -> dict[str, Any]:
    names = ("value", "std", "unit", "censoring", "method", "recorded_by", "cost", "recorded_at")
    return {name: getattr(result, name) for name in names}


def record(
    database: Database,
    key: str,
    value: float,
    *,
    std: float | None = None,
    unit: str | None = None,
    censoring: Censoring = Censoring.NONE,
    method: str | None = None,
    by: str | None = None,
    cost: float | None = None,
) -> dict[str, Any]:
    """Keep a laboratory's result for a request; the campaign takes it in at its next tick.

    Args:
        database: The store.
        key: The request's key, or a beginning of it that no other request shares.
        value: What was measured; for a bound, the bound.
        std: One standard error, in `unit`.
        unit: Unit of value and std; None means the request's own.
        censoring: Whether the value is a bound.
        method: How it was measured.
        by: Who measured or recorded it.
        cost: What it took, in the campaign's cost unit, where the fidelity charges by measure.

    Returns:
        The request as `list_requests` gives it, with its result.

    Raises:
        InputError: no such request, or several; it was answered or cancelled before; a unit that does not convert;
            a value or error out of range.
    """
    with _claimed(database, key) as (session, request):
        given = _checked(value, unit, std, censoring)
        convert(given, request.unit)  # what the campaign will do; a mistake is found while the person is here
        if cost is not None and not 0.0 <= cost < float("inf"):
            raise InputError(f"The cost of a measurement is 0 or more, not {cost:g}.")
        result = LabResult(
            key=request.key,
            value=given.value,
            std=given.std,
            unit=unit or request.unit,
            censoring=given.censoring,
            method=method,
            recorded_by=by,
            cost=cost,
            recorded_at=now(),
        )
        session.add(result)
        request.state = ANSWERED
        recorded = request.key
    return next(r for r in list_requests(database, state=ANSWERED) if r["key"] == recorded)


def _checked(value: float, unit: str | None, std: float | None, censoring: Censoring) -> MeasuredValue:
    try:
        return MeasuredValue(value, unit, std, censoring)
    except ValueError as error:
        raise InputError(f"The result can't be recorded: {error}.") from error


@contextmanager
def _claimed(database: Database, key: str) -> Iterator[tuple[Session, LabRequest]]:
    """The one open request that a key names, within the transaction that answers it."""
    with database.write() as session:
        found = session.scalars(
            select(LabRequest).where(LabRequest.key.startswith(key, autoescape=True)).with_for_update()
        ).all()
        if not key or not found:
            raise InputError(_unknown(key, list(session.scalars(select(LabRequest.key)))))
        if len(found) > 1:
            keys = ", ".join(sorted(request.key[:16] for request in found)[:5])
            raise InputError(f"The key {key!r} fits {len(found)} lab requests ({keys} …); give more of it.")
        request = found[0]
        if request.state == ANSWERED:
            raise InputError(
                f"The lab request {request.key[:16]} has a result already; a result is recorded once, so "
                f"that nothing the campaign has learned from changes under it."
            )
        if request.state == CANCELLED:
            raise InputError(f"The lab request {request.key[:16]} was cancelled; no result is awaited.")
        yield session, request


def _unknown(key: str, known: Sequence[str]) -> str:
    if not known:
        return f"There is no lab request {key!r}: the store holds none."
    # People type the beginning of a key, so beginnings of the same length are compared.
    beginnings = {k[: max(len(key), 8)]: k for k in known}
    near = [beginnings[b][:16] for b in difflib.get_close_matches(key, beginnings, n=3, cutoff=0.5)]
    hint = f" Did you mean {' or '.join(near)}?" if near else " `activelearning lab list` shows them."
    return f"There is no lab request {key!r}.{hint}"
