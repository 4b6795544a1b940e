"""Reading requests with their results, and finding the one that a person means."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from activelearning.errors import InputError
from activelearning.measurement import Censoring, MeasuredValue
from activelearning.store.database import Database
from activelearning.store.models import LabFile, LabRequest, LabResult
from activelearning.store.rows import chunks
from oracles.lab.results import combine
from oracles.units import convert

OPEN, ANSWERED, REJECTED, CANCELLED = "open", "answered", "rejected", "cancelled"
CAMPAIGN, PERSON = "campaign", "person"
_FIELDS = ("value", "std", "unit", "censoring", "method", "note", "recorded_by", "cost", "recorded_at")


@dataclass(frozen=True)
class Request:
    """A request with all that was recorded for it, in the order of recording."""

    row: LabRequest
    results: tuple[LabResult, ...] = ()
    files: Mapping[int, tuple[LabFile, ...]] = field(default_factory=dict)

    @property
    def corrected_by(self) -> dict[int, int]:
        """Numbers of the results that no longer hold, each with that of its correction."""
        return {r.corrects: r.sequence for r in self.results if r.corrects is not None}

    @property
    def valid(self) -> tuple[LabResult, ...]:
        """The results that hold."""
        corrected = self.corrected_by
        return tuple(r for r in self.results if r.sequence not in corrected)

    def value(self) -> MeasuredValue:
        """The valid results as one value in the campaign's unit.

        Raises:
            InputError: they contradict one another.
        """
        return combine([convert(as_written(result), self.row.unit) for result in self.valid])

    def to_json(self) -> dict[str, Any]:
        """Plain value for the command line and for pages."""
        row = self.row
        corrected = self.corrected_by
        results = [
            {
                "number": result.sequence,
                **{name: getattr(result, name) for name in _FIELDS},
                "corrects": result.corrects,
                "corrected_by": corrected.get(result.sequence),
                "files": [
                    {"name": f.name, "path": f.path, "sha256": f.sha256, "size": f.size}
                    for f in self.files.get(result.sequence, ())
                ],
            }
            for result in self.results
        ]
        return {
            "key": row.key,
            "campaign": row.campaign,
            "fidelity": row.fidelity,
            "property": row.property,
            "unit": row.unit,
            "candidate": row.candidate,
            "origin": row.origin,
            "state": row.state,
            "created_at": row.created_at,
            "closed_at": row.closed_at,
            "result": _newest(self.valid[-1]) if self.results else None,
            "taken": _taken(self.value()) if self.results else None,
            "results": results,
            "rejection": {"reason": row.reason, "by": row.rejected_by, "cost": row.cost}
            if row.state == REJECTED
            else None,
        }


def as_written(result: LabResult) -> MeasuredValue:
    """A result's value in the unit that it was recorded in."""
    return MeasuredValue(result.value, result.unit, result.std, Censoring(result.censoring))


def _newest(result: LabResult) -> dict[str, Any]:
    names = ("value", "std", "unit", "censoring", "method", "recorded_by", "cost", "recorded_at")
    return {name: getattr(result, name) for name in names}


def _taken(value: MeasuredValue) -> dict[str, Any]:
    return {"value": value.value, "std": value.std, "unit": value.unit, "censoring": value.censoring.value}


def list_requests(
    database: Database, *, campaign: str | None = None, state: str | None = OPEN
) -> list[dict[str, Any]]:
    """Requests in the order in which they were made.

    Args:
        database: The store.
        campaign: Only this campaign's; None takes all.
        state: `open`, `answered`, `rejected` or `cancelled`; None takes all.

    Returns:
        Mappings with `key, campaign, fidelity, property, unit, candidate, origin, state, created_at, closed_at, result,
        taken, results, rejection`. `result` is None or the newest that holds, as it was written, `{value, std, unit,
        censoring, method, recorded_by, cost, recorded_at}`; `taken` is what the campaign takes in of all that hold,
        `{value, std, unit, censoring}`; `results` are all that were recorded, each with its `number`, `corrects`,
        `corrected_by` and `files`.
    """
    query = select(LabRequest)
    if campaign is not None:
        query = query.where(LabRequest.campaign == campaign)
    if state is not None:
        query = query.where(LabRequest.state == state)
    with database.read() as session:
        rows = session.scalars(query.order_by(LabRequest.created_at, LabRequest.key)).all()
        return [request.to_json() for request in with_results(session, rows)]


def read_request(database: Database, key: str) -> dict[str, Any]:
    """One request as `list_requests` gives it.

    Raises:
        InputError: the key, or beginning of a key, fits none, or several.
    """
    with database.read() as session:
        return with_results(session, [find(session, key)])[0].to_json()


def with_results(session: Session, rows: Iterable[LabRequest]) -> list[Request]:
    """Requests with what was recorded for them."""
    requests = list(rows)
    results: dict[str, list[LabResult]] = {}
    files: dict[str, dict[int, list[LabFile]]] = {}
    for chunk in chunks([row.key for row in requests]):
        for result in session.scalars(
            select(LabResult).where(LabResult.key.in_(chunk)).order_by(LabResult.key, LabResult.sequence)
        ):
            results.setdefault(result.key, []).append(result)
        for file in session.scalars(select(LabFile).where(LabFile.key.in_(chunk)).order_by(LabFile.path)):
            files.setdefault(file.key, {}).setdefault(file.sequence, []).append(file)
    return [
        Request(
            row,
            tuple(results.get(row.key, ())),
            {number: tuple(kept) for number, kept in files.get(row.key, {}).items()},
        )
        for row in requests
    ]


def requests_of(session: Session, keys: Sequence[str]) -> list[Request]:
    """Requests by their whole keys; unknown ones are left out."""
    rows: list[LabRequest] = []
    for chunk in chunks(keys):
        rows += session.scalars(select(LabRequest).where(LabRequest.key.in_(chunk)))
    return with_results(session, rows)


def find(session: Session, key: str, *, lock: bool = False) -> LabRequest:
    """The one request that a key, or a beginning of it, names.

    Raises:
        InputError: it fits none, or several.
    """
    query = select(LabRequest).where(LabRequest.key.startswith(key, autoescape=True))
    found = session.scalars(query.with_for_update() if lock else query).all() if key else []
    if not found:
        raise InputError(_unknown(key, list(session.scalars(select(LabRequest.key)))))
    if len(found) > 1:
        keys = ", ".join(sorted(request.key[:16] for request in found)[:5])
        raise InputError(f"The key {key!r} fits {len(found)} lab requests ({keys} …); give more of it.")
    return found[0]


def _unknown(key: str, known: Sequence[str]) -> str:
    if not known:
        return f"There is no lab request {key[:80]!r}: the store holds none."
    # People type the beginning of a key, so beginnings of the same length are compared.
    beginnings = {k[: max(len(key), 8)]: k for k in known}
    near = [beginnings[b][:16] for b in difflib.get_close_matches(key, beginnings, n=3, cutoff=0.5)]
    hint = f" Did you mean {' or '.join(near)}?" if near else " `activelearning lab list` shows them."
    return f"There is no lab request {key[:80]!r}.{hint}"
