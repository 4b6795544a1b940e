"""Recording: every way in (command line, table, browser) comes through here.

All is checked first, and written in one transaction with the other results of the same call: all of it, or nothing.
Nothing is overwritten. A correction is a new row that takes the place of another one, which stays and is marked by it;
the campaign follows at its next tick.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from activelearning.candidate import digest
from activelearning.errors import InputError
from activelearning.measurement import Censoring
from activelearning.store.database import Database, now
from activelearning.store.models import Campaign, LabFile, LabRequest, LabResult
from oracles.lab.files import KeptFile, keep
from oracles.lab.requests import (
    ANSWERED,
    CANCELLED,
    OPEN,
    PERSON,
    REJECTED,
    Request,
    as_written,
    find,
    read_request,
    with_results,
)
from oracles.lab.results import NewResult, Unrequested, check_text, checked
from oracles.lab.unrequested import Known, check_unrequested


class RefusedError(InputError):
    """Results that can't be recorded; nothing was.

    Attributes:
        problems: What is wrong with each, by its place in what was handed over, from 0.
    """

    def __init__(self, problems: dict[int, str]) -> None:
        super().__init__(" ".join(problems.values()))
        self.problems = problems


def record(
    database: Database,
    key: str,
    value: float,
    *,
    std: float | None = None,
    unit: str | None = None,
    censoring: Censoring = Censoring.NONE,
    **more: Any,
) -> dict[str, Any]:
    """Record one result of a request; see `NewResult` for the rest of the arguments.

    Returns:
        The request as `list_requests` gives it.

    Raises:
        RefusedError: as `record_all`.
    """
    result = NewResult(key, value, std=std, unit=unit, censoring=censoring, **more)
    return read_request(database, record_all(database, [result])[0])


def record_all(database: Database, results: Sequence[NewResult]) -> list[str]:
    """Keep results, all or none; campaigns take them in at their next tick.

    Returns:
        The keys of their requests, in order.

    Raises:
        RefusedError: no such request, or several; one that has a result already (and neither corrects nor replicates
            it), was rejected or cancelled; a unit that does not convert; a value, error, text or file out of range; a
            candidate or campaign that is not known.
    """
    return _record_all(database, results, is_kept=True)


def problems_of(database: Database, results: Sequence[NewResult]) -> dict[int, str]:
    """What `record_all` would refuse, by the result's place from 0; nothing is kept."""
    try:
        _record_all(database, results, is_kept=False)
    except RefusedError as error:
        return error.problems
    raise AssertionError("what is not kept is always refused")


def _record_all(database: Database, results: Sequence[NewResult], *, is_kept: bool) -> list[str]:
    problems: dict[int, str] = {}
    known: dict[int, Known] = {}
    for place, result in enumerate(results):  # takes seconds, and must not keep others from writing
        if isinstance(result.of, Unrequested):
            try:
                known[place] = check_unrequested(database, result.of)
            except InputError as error:
                problems[place] = str(error)
    kept: dict[int, LabResult] = {}
    written: list[Path] = []
    try:
        with database.write() as session:
            for place, result in enumerate(results):
                if place in problems:
                    continue
                try:
                    kept[place] = _record(session, result, known.get(place), written)
                except InputError as error:
                    problems[place] = str(error)
            problems |= _unit_problems(session, kept)
            if problems or not is_kept:
                raise RefusedError(dict(sorted(problems.items())))
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return [result.key for result in kept.values()]


def _record(session: Session, result: NewResult, known: Known | None, written: list[Path]) -> LabResult:
    if known is None:
        assert isinstance(result.of, str)
        row = find(session, result.of, lock=True)
        if row.state == REJECTED:
            raise InputError(
                f"The lab request {row.key[:16]} was rejected ({row.reason}); a result all the same is recorded as one "
                f"that nobody asked for (--candidate)."
            )
        if row.state == CANCELLED:
            raise InputError(
                f"The lab request {row.key[:16]} was cancelled; no result is awaited. One all the same is recorded as "
                f"a result that nobody asked for (--candidate)."
            )
    else:
        assert isinstance(result.of, Unrequested)
        row, first = _unrequested_row(session, known, result.of.once)
        if first is not None:
            _check_same(session, first, result)
            return first
    request = with_results(session, [row])[0]
    _check_place(request, result)
    measured = checked(result, row.unit)
    corrected = next((r for r in request.results if r.sequence == result.corrects), None)
    at = now()
    new = LabResult(
        key=row.key,
        sequence=len(request.results) + 1,
        corrects=result.corrects,
        value=measured.value,
        std=measured.std,
        unit=measured.unit,
        censoring=measured.censoring,
        # What a correction does not say again is as it was.
        method=result.method or (corrected.method if corrected else None),
        note=result.note,
        recorded_by=result.by,
        cost=corrected.cost if corrected and result.cost is None else result.cost,
        recorded_at=at,
    )
    together = Request(row, (*request.results, new))
    if (
        row.unit is not None or len({r.unit for r in together.valid}) == 1
    ):  # else `_unit_problems` has the word
        together.value()  # they must make one value
    session.add(new)
    session.flush()
    for file in _keep_files(session, row, result, written):
        session.add(
            LabFile(
                key=row.key,
                sequence=new.sequence,
                path=file.path,
                name=file.name,
                sha256=file.sha256,
                size=file.size,
            )
        )
    if row.state == OPEN:
        row.state, row.closed_at = ANSWERED, at
    session.flush()
    return new


def _unit_problems(session: Session, new: Mapping[int, LabResult]) -> dict[int, str]:
    """What is wrong with the units of results, by their places, where the campaign states none to convert them to.

    All valid results of a fidelity must then be in one, or all in none. They are looked at after the last was
    recorded, so that several may be corrected together.
    """
    rows = {place: session.get_one(LabRequest, result.key) for place, result in new.items()}
    laboratories = {(row.campaign, row.fidelity) for row in rows.values() if row.unit is None}
    problems = {}
    for campaign, fidelity in sorted(laboratories):
        # Two people may record at once, and neither sees what the other has not committed yet.
        session.get(Campaign, campaign, with_for_update={"key_share": True})
        mine = (LabRequest.campaign == campaign, LabRequest.fidelity == fidelity, LabRequest.unit.is_(None))
        valid = [
            result
            for request in with_results(session, session.scalars(select(LabRequest).where(*mine)))
            for result in request.valid
        ]
        for place, row in rows.items():
            if row.unit is not None or (row.campaign, row.fidelity) != (campaign, fidelity):
                continue
            if new[place] not in valid:  # it was corrected in the same call, or since the form was first sent
                continue
            unit = new[place].unit
            others = sorted({_in(result.unit) for result in valid if result.unit != unit})
            if others:
                problems[place] = (
                    f"A result {_in(unit)} can't stand beside those {' and '.join(others)}: the campaign {campaign!r} "
                    f"states no unit for {fidelity!r}, so that nothing is converted. Record it as they are; or "
                    f"correct them, all in one table (`activelearning lab import`), to have them in one unit."
                )
    return problems


def _in(unit: str | None) -> str:
    return "without a unit" if unit is None else f"in {unit!r}"


def _check_place(request: Request, result: NewResult) -> None:
    """A result beside others must say whether it corrects one of them or replicates them."""
    key, n = request.row.key[:16], len(request.results)
    if result.n_seen is not None and result.n_seen != n:
        raise InputError(
            f"Meanwhile the lab request {key} has {n} results, where {result.n_seen} were seen; look at them first."
        )
    if result.corrects is not None and result.is_replicate:
        raise InputError("A result either corrects another one or is a replicate of it, not both.")
    if result.corrects is not None:
        numbers = [r.sequence for r in request.results]
        if result.corrects not in numbers:
            there = f"they have the numbers {', '.join(map(str, numbers))}" if numbers else "it has none yet"
            raise InputError(
                f"The lab request {key} has no result number {result.corrects} to correct: {there}."
            )
        by = request.corrected_by.get(result.corrects)
        if by is not None:
            raise InputError(
                f"Result {result.corrects} of the lab request {key} was corrected by result {by}; correct that one."
            )
    elif n and not result.is_replicate:
        valid = request.valid[-1].sequence
        raise InputError(
            f"The lab request {key} has a result already, and none is overwritten: `--corrects {valid}` records a "
            f"correction of result {valid}, which stays in the history, `--replicate` another measurement beside it."
        )
    elif not n and result.is_replicate:
        raise InputError(f"The lab request {key} has no result yet that another one could replicate.")


def _unrequested_row(session: Session, known: Known, once: str | None) -> tuple[LabRequest, LabResult | None]:
    """The row of a result that nobody asked for; with its first result, where the form was sent before."""
    # One after the other: a form may be sent again while its first copy is at work.
    session.get(Campaign, known.campaign, with_for_update={"key_share": True})
    mine = (LabRequest.campaign == known.campaign, LabRequest.fidelity == known.fidelity)
    same = [
        row
        for row in session.scalars(select(LabRequest).where(*mine).order_by(LabRequest.created_at))
        if digest(row.candidate) == known.candidate.key
    ]
    key = digest(["lab", known.campaign, known.fidelity, known.candidate.key, once or len(same)])
    before = next((row for row in same if row.key == key), None)
    if before is not None:
        return before, session.get(LabResult, (key, 1))
    waiting = next((row for row in same if row.state == OPEN), None)
    if waiting is not None:
        raise InputError(
            f"The campaign {known.campaign!r} asks for this material: record the result under its key, "
            f"{waiting.key[:16]}."
        )
    row = LabRequest(
        key=key,
        campaign=known.campaign,
        fidelity=known.fidelity,
        property=known.property,
        unit=known.unit,
        candidate=known.candidate.to_dict(),
        origin=PERSON,
        state=OPEN,
        created_at=now(),
    )
    session.add(row)
    session.flush()
    return row, None


def _check_same(session: Session, first: LabResult, result: NewResult) -> None:
    """A form that is sent again must say what it said the first time."""
    measured = checked(result, session.get_one(LabRequest, first.key).unit)
    files = session.scalars(
        select(LabFile.sha256).where(LabFile.key == first.key, LabFile.sequence == first.sequence)
    )
    was = (as_written(first), first.method, first.note, first.recorded_by, first.cost, set(files))
    sent = {hashlib.sha256(upload.content).hexdigest() for upload in result.files}
    if was != (measured, result.method or None, result.note, result.by, result.cost, sent):
        raise InputError(
            f"This form was recorded before, under the key {first.key[:16]}, and now says something else: correct that "
            f"result, or open the form anew to record another sample of the material beside it."
        )


def _keep_files(session: Session, row: LabRequest, result: NewResult, written: list[Path]) -> list[KeptFile]:
    if not result.files:
        return []
    campaign = session.get(Campaign, row.campaign)
    if campaign is None:
        raise InputError(
            f"The store holds no campaign {row.campaign!r}, in whose folder a file could be kept."
        )
    root = Path(campaign.artifacts)
    kept: dict[str, KeptFile] = {}
    for upload in result.files:
        file, is_new = keep(root, f"{row.fidelity}/lab/{row.key[:16]}", upload)
        kept[file.path] = file
        if is_new:
            written.append(root / file.path)
    return list(kept.values())


def reject(
    database: Database, key: str, *, reason: str, by: str | None = None, cost: float | None = None
) -> dict[str, Any]:
    """Say that a request can't be fulfilled; its evaluation fails with the reason, and the campaign learns of it.

    Args:
        database: The store.
        key: The request's key, or a beginning of it that no other has.
        reason: Why; kept in the store.
        by: Who says so.
        cost: What was tried at, in the campaign's cost unit; None means nothing, and releases what was reserved.

    Returns:
        The request as `list_requests` gives it.

    Raises:
        InputError: no such request, or several; it is not open; no reason; a cost out of range.
    """
    if not reason.strip():
        raise InputError("A rejection needs its reason (--reason): the campaign's people read it.")
    check_text("reason", reason)
    check_text("name", by)
    if cost is not None and not 0.0 <= cost < float("inf"):
        raise InputError(f"The cost of what was tried is 0 or more, not {cost:g}.")
    with database.write() as session:
        row = find(session, key, lock=True)
        if row.state != OPEN:
            said = {ANSWERED: "has a result", REJECTED: "was rejected before", CANCELLED: "was cancelled"}
            raise InputError(
                f"The lab request {row.key[:16]} {said[row.state]}; only an open one can be rejected."
            )
        row.state, row.reason, row.rejected_by, row.cost, row.closed_at = (
            REJECTED,
            reason.strip(),
            by,
            cost,
            now(),
        )
        whole = row.key
    return read_request(database, whole)
