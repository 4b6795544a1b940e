"""Many evaluations in one transaction, with few queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from activelearning.store.models import Evaluation, LedgerEntry, Transition

_CHUNK = 500  # keys in one query; databases limit the number of its parameters
_LOGS: tuple[type[Transition] | type[LedgerEntry], ...] = (Transition, LedgerEntry)


def locked_rows(session: Session, keys: Iterable[str]) -> dict[str, Evaluation]:
    """Evaluations by key, in the order of `keys`; locked until the transaction ends where the database locks rows.

    Rows are locked in the order of their keys, so that two transactions can't wait for one another. Unknown keys are
    left out.
    """
    wanted = list(dict.fromkeys(keys))
    found: dict[str, Evaluation] = {}
    for chunk in chunks(sorted(wanted)):
        query = select(Evaluation).where(Evaluation.key.in_(chunk)).order_by(Evaluation.key).with_for_update()
        found.update((row.key, row) for row in session.scalars(query))
        for log in _LOGS:
            counts = dict.fromkeys(chunk, 0)
            lengths = (
                select(log.evaluation_key, func.count())
                .where(log.evaluation_key.in_(chunk))
                .group_by(log.evaluation_key)
            )
            counts.update((key, n) for key, n in session.execute(lengths))
            _lengths(session, log).update(counts)
    return {key: found[key] for key in wanted if key in found}


def begin_logs(session: Session, keys: Iterable[str]) -> None:
    """Say that evaluations are new: their logs are empty."""
    empty = dict.fromkeys(keys, 0)
    for log in _LOGS:
        _lengths(session, log).update(empty)


def next_in(session: Session, log: type[Transition] | type[LedgerEntry], key: str) -> int:
    """The next number in an evaluation's log, counted in this transaction for rows that it has locked or made."""
    lengths = _lengths(session, log)
    number = lengths[key]
    lengths[key] = number + 1
    return number


def _lengths(session: Session, log: type[Transition] | type[LedgerEntry]) -> dict[str, int]:
    lengths: dict[str, int] = session.info.setdefault(log.__tablename__, {})
    return lengths


def chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Keys in parts that one query can take."""
    for begin in range(0, len(keys), _CHUNK):
        yield keys[begin : begin + _CHUNK]
