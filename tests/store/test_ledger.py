"""The ledger: whatever happens, in whatever order, no more is promised than there is, and all is paid once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

from activelearning.candidate import BoxCandidate, digest
from activelearning.errors import StoreError
from activelearning.measurement import Measurement
from activelearning.store.database import open_database
from activelearning.store.models import LedgerEntry, State, Transition
from activelearning.store.records import Answer, NewEvaluation, NewRound
from activelearning.store.repository import Repository
from activelearning.store.workers import WorkerRegistration


def evaluation(index: int, cost: float, **more: Any) -> NewEvaluation:
    candidate = BoxCandidate((float(index),))
    return NewEvaluation(
        key=digest(["c", index]),
        content_key=digest([index]),
        candidate=candidate,
        fidelity="f",
        oracle="o",
        oracle_version="1",
        property="y",
        cost=cost,
        **more,
    )


class Books:
    """A campaign in a store of its own."""

    def __init__(self, folder: Path, total: float) -> None:
        self.database = open_database(f"sqlite:///{folder / 'store.db'}", create=True)
        self.worker = WorkerRegistration(self.database)
        self.repository = Repository(self.database, "c")
        self.repository.save({}, "", "")
        self.total = total
        self.n_rounds = 0
        self.n = 0

    def commit(self, costs: list[float]) -> list[str]:
        new = [evaluation(self.n + i, cost) for i, cost in enumerate(costs)]
        with self.worker.lease("c"):
            self.repository.commit_round(NewRound(self.n_rounds, new), total=self.total, worker=self.worker)
        self.n_rounds += 1
        self.n += len(new)
        return [e.key for e in new]

    def entries(self, key: str) -> list[LedgerEntry]:
        with self.database.read() as session:
            query = select(LedgerEntry).where(LedgerEntry.evaluation_key == key)
            return list(session.scalars(query.order_by(LedgerEntry.sequence)))

    def close(self) -> None:
        self.worker.close()
        self.database.close()


@pytest.fixture
def books(tmp_path: Path) -> Any:
    found = Books(tmp_path, 1.0)
    yield found
    found.close()


def test_ten_tenths_make_one(books: Books) -> None:
    for _ in range(10):
        books.commit([0.1])
    balance = books.repository.balance(1.0)
    assert balance.reserved == pytest.approx(1.0)
    assert balance.remaining == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(StoreError, match="nothing was committed"):
        books.commit([1e-6])
    assert books.repository.last_round() == 9


def test_three_tenths_fit_at_once(books: Books) -> None:
    books.total = 0.3
    books.commit([0.1, 0.1, 0.1])
    with pytest.raises(StoreError, match=r"would reserve 0\.1"):
        books.commit([0.1])


def test_the_tolerance_is_relative(tmp_path: Path) -> None:
    books = Books(tmp_path, 1e-10)
    books.commit([1e-10])
    with pytest.raises(StoreError, match="nothing was committed"):
        books.commit([1e-10])
    books.close()


def test_a_refused_round_leaves_nothing(books: Books) -> None:
    with pytest.raises(
        StoreError, match=r"Round 0 of 'c' would reserve 1\.2, but 1 of the budget of 1 remains"
    ):
        books.commit([0.6, 0.6])
    assert books.repository.last_round() is None
    assert books.repository.evaluations() == []
    assert books.repository.balance(1.0).remaining == 1.0


def test_known_measurements_are_free(books: Books) -> None:
    known = evaluation(0, 5.0, measurement=Measurement.of("y", 1.0))
    with books.worker.lease("c"):
        books.repository.commit_round(NewRound(0, [known]), total=1.0, worker=books.worker)
    assert books.repository.balance(1.0).remaining == 1.0
    assert books.entries(known.key) == []


COSTS = st.sampled_from([0.1, 0.2, 0.3, 1 / 3, 1.0, 2.5, 7.0])


class LedgerMachine(RuleBasedStateMachine):
    """Rounds, answers, failures, cancellations and losses in any order, repeated and late ones among them."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.books = Books(Path(self.folder.name), 10.0)
        self.reserved: dict[str, float] = {}  # what the model has in reserve
        self.closed: dict[str, float] = {}  # what it has charged
        self.abandoned: set[str] = set()

    def teardown(self) -> None:
        if hasattr(self, "books"):
            self.books.close()
            self.folder.cleanup()

    @rule(costs=st.lists(COSTS, min_size=1, max_size=3))
    def commit(self, costs: list[float]) -> None:
        left = 10.0 - sum(self.reserved.values()) - sum(self.closed.values())
        if sum(costs) > left + 1e-8:
            with pytest.raises(StoreError):
                self.books.commit(costs)
        else:
            keys = self.books.commit(costs)
            self.reserved.update(zip(keys, costs, strict=True))
            self.books.repository.advance(keys, State.SUBMITTED)

    def _pick(self, number: int) -> str:
        keys = sorted([*self.reserved, *self.closed])
        return keys[number % len(keys)]

    @precondition(lambda self: self.reserved or self.closed)
    @rule(number=st.integers(0, 99), share=st.sampled_from([0.0, 0.5, 1.0]), fails=st.booleans())
    def finish(self, number: int, share: float, fails: bool) -> None:
        key = self._pick(number)
        is_open = key in self.reserved and key not in self.abandoned
        charge = share * self.reserved.get(key, 1.0)
        measurement = Measurement.failed("no") if fails else Measurement.of("y", 1.0)
        kept = self.books.repository.finish([Answer(key, measurement, charge)])
        assert kept == ([key] if is_open else [])
        if is_open:
            del self.reserved[key]
            self.closed[key] = charge

    @precondition(lambda self: self.reserved or self.closed)
    @rule(number=st.integers(0, 99))
    def cancel(self, number: int) -> None:
        key = self._pick(number)
        self.books.repository.cancel([key], "enough")
        if key in self.reserved and key not in self.abandoned:
            del self.reserved[key]
            self.closed[key] = 0.0

    @precondition(lambda self: self.reserved or self.closed)
    @rule(number=st.integers(0, 99))
    def abandon(self, number: int) -> None:
        key = self._pick(number)
        self.books.repository.abandon([key], "lost")
        if key in self.reserved:
            self.abandoned.add(key)

    @invariant()
    def books_balance(self) -> None:
        if not hasattr(self, "books"):
            return
        balance = self.books.repository.balance(10.0)
        assert balance.spent + balance.reserved <= 10.0 * (1 + 1e-9)
        assert balance.reserved == pytest.approx(sum(self.reserved.values()), abs=1e-9)
        assert balance.spent == pytest.approx(sum(self.closed.values()), abs=1e-9)

    @invariant()
    def everything_is_booked_once(self) -> None:
        if not hasattr(self, "books"):
            return
        with self.books.database.read() as session:
            kinds: dict[str, list[str]] = {}
            for entry in session.scalars(
                select(LedgerEntry).order_by(LedgerEntry.evaluation_key, LedgerEntry.sequence)
            ):
                kinds.setdefault(entry.evaluation_key, []).append(entry.kind)
            logs: dict[str, list[int]] = {}
            for step in session.scalars(
                select(Transition).order_by(Transition.evaluation_key, Transition.sequence)
            ):
                logs.setdefault(step.evaluation_key, []).append(step.sequence)
        for key in self.reserved:
            assert kinds[key] == ["reserve"]
        for key in self.closed:
            assert kinds[key][0] == "reserve"
            assert kinds[key][1:] in (["settle"], ["release"])
        assert all(sequence == list(range(len(sequence))) for sequence in logs.values())


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    max_examples=12, stateful_step_count=15, suppress_health_check=list(HealthCheck)
)
