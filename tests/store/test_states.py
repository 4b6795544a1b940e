"""States of an evaluation: what may follow what, with a log that only grows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from activelearning.candidate import BoxCandidate
from activelearning.errors import StoreError
from activelearning.measurement import Censoring, Measurement
from activelearning.store.database import open_database
from activelearning.store.models import FOLLOWS, OPEN_STATES, State, Transition
from activelearning.store.records import Answer, NewEvaluation, NewRound
from activelearning.store.repository import Repository
from activelearning.store.rows import locked_rows
from activelearning.store.workers import WorkerRegistration

KEY = "k" * 64


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    """A campaign with one evaluation, committed."""
    database = open_database(f"sqlite:///{tmp_path / 'store.db'}", create=True)
    worker = WorkerRegistration(database)
    found = Repository(database, "c")
    found.save({}, "", "")
    new = NewEvaluation(KEY, "content", BoxCandidate((1.0,)), "f", "o", "1", "y", 2.0)
    with worker.lease("c"):
        found.commit_round(NewRound(0, [new]), total=2.0, worker=worker)
    yield found
    worker.close()
    database.close()


def _put(repository: Repository, state: State) -> None:
    with repository.database.write() as session:
        session.execute(text("UPDATE evaluations SET state = :s"), {"s": state})


def _state(repository: Repository) -> State:
    (row,) = repository.evaluations()
    return State(row.state)


def _log(repository: Repository) -> list[tuple[str, str | None]]:
    with repository.database.read() as session:
        rows = session.scalars(select(Transition).order_by(Transition.sequence)).all()
        return [(row.state, row.reason) for row in rows]


def test_terminal_states_are_final() -> None:
    terminal = set(State) - set(OPEN_STATES)
    assert terminal == {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.ABANDONED}
    assert not terminal & {state for state in FOLLOWS if state is not None}


@pytest.mark.parametrize("before", list(State))
@pytest.mark.parametrize("after", list(State))
def test_only_what_may_follow_follows(repository: Repository, before: State, after: State) -> None:
    _put(repository, before)
    allowed = after in FOLLOWS.get(before, ())
    with repository.database.write() as session:
        row = locked_rows(session, [KEY])[KEY]
        if allowed:
            repository._move(session, row, after, "why")
        else:
            with pytest.raises(StoreError, match=f"can't go from {before} to {after}"):
                repository._move(session, row, after, "why")
    assert _state(repository) == (after if allowed else before)
    assert _log(repository) == [("intent", None), *([(after.value, "why")] if allowed else [])]


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED, State.ABANDONED])
def test_nothing_moves_what_has_ended(repository: Repository, state: State) -> None:
    _put(repository, state)
    balance = repository.balance(2.0)
    repository.advance([KEY], State.RUNNING)
    repository.cancel([KEY], "late")
    repository.abandon([KEY], "late")
    assert repository.finish([Answer(KEY, Measurement.of("y", 1.0), 1.0)]) == []
    assert repository.claim([KEY], "w") == []
    assert _state(repository) == state
    assert repository.balance(2.0) == balance
    assert _log(repository) == [("intent", None)]


def test_the_whole_way_is_logged(repository: Repository) -> None:
    repository.advance([KEY], State.SUBMITTED, external_ids={KEY: "job-1"})
    repository.advance([KEY], State.SUBMITTED)
    (row,) = repository.claim([KEY], "w")
    assert (row.state, row.claimed_by, row.external_id) == ("running", "w", "job-1")
    measured = Measurement.of("y", -9.0, unit="eV", censoring=Censoring.UPPER, metadata={"steps": 3})
    assert repository.finish([Answer(KEY, measured, 1.5, [("f/log", "0" * 64, 7)])], worker="w") == [KEY]
    assert repository.finish([Answer(KEY, measured, 1.5)], worker="w") == []
    assert [state for state, _ in _log(repository)] == ["intent", "submitted", "running", "succeeded"]
    (row,) = repository.evaluations()
    assert (row.cost_paid, row.details, row.claimed_by) == (1.5, {"steps": 3}, None)
    assert row.finished_at is not None
    ((candidate, fidelity, value),) = repository.answers()
    assert candidate == BoxCandidate((1.0,))
    assert fidelity == "f"
    # A bound is a success.
    assert (value.value, value.unit, value.censoring) == (-9.0, "eV", "upper")


def test_a_failure_keeps_its_reason(repository: Repository) -> None:
    repository.advance([KEY], State.SUBMITTED)
    repository.finish([Answer(KEY, Measurement.failed("it melted"), 2.0)])
    (row,) = repository.evaluations()
    assert (row.state, row.reason, row.cost_paid) == ("failed", "it melted", 2.0)
    assert _log(repository)[-1] == ("failed", "it melted")
    assert repository.answers() == []


def test_an_intent_is_abandoned_by_nobody(repository: Repository) -> None:
    repository.abandon([KEY], "lost")
    assert _state(repository) is State.INTENT


def test_an_unknown_round_is_no_round(repository: Repository) -> None:
    from sqlalchemy.exc import IntegrityError

    with pytest.raises(IntegrityError, match="FOREIGN KEY"), repository.database.write() as session:
        session.execute(text("UPDATE evaluations SET round = 9"))


def test_half_a_transaction_is_none(repository: Repository) -> None:
    def fail() -> None:
        with repository.database.write() as session:
            session.execute(text("UPDATE evaluations SET state = 'failed'"))
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert _state(repository) is State.INTENT


def test_claims_of_lost_processes_are_counted(repository: Repository) -> None:
    repository.advance([KEY], State.SUBMITTED)
    for n, worker in enumerate(("dead-1", "dead-2", "dead-3")):
        (row,) = repository.claim([KEY], worker)
        assert row.details.get("takeovers", 0) == n
    repository.release_claims("dead-3")
    (row,) = repository.claim([KEY], "calm")  # given back in peace: nobody was lost
    assert row.details["takeovers"] == 2
    extra: dict[str, Any] = {"a": 1}
    repository.finish([Answer(KEY, Measurement.of("y", 1.0, metadata=extra), 1.0)], worker="calm")
    assert repository.evaluations()[0].details == extra
