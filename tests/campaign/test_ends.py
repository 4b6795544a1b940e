"""How a campaign ends: always recorded, always with its reason, never over its budget."""

from __future__ import annotations

from typing import Any

import pytest

from activelearning.campaign.tick import run, tick
from activelearning.cli.running import _marking
from activelearning.errors import ActiveLearningError, LeaseHeldError
from activelearning.report import best, status
from activelearning.store.models import CampaignState


def test_the_budget_ends_a_campaign(bench: Any) -> None:
    with bench.open(bench.config()) as engine:
        seen = []
        while tick(engine).action == "continue":
            balance = engine.balance()
            seen.append(balance.spent)
            assert balance.spent + balance.reserved <= balance.total + 1e-9
        state, reason = engine.repository.state()
        assert state == "finished"
        assert reason == "the budget is spent: what remains does not pay for the target fidelity 'high'"
        assert engine.balance().remaining < 1.0
    assert seen == sorted(seen)
    by_round: dict[int, float] = {}
    for row in bench.evaluations():
        by_round[row.round] = by_round.get(row.round, 0.0) + row.cost_paid
    assert all(spent <= 2.0 + 1e-9 for spent in by_round.values())


def test_the_number_of_rounds_ends_a_campaign(bench: Any) -> None:
    with bench.open(bench.config({"stopping.max_rounds": 2})) as engine:
        assert run(engine).reason == "all 2 rounds are done"
        assert engine.repository.last_round() == 2


@pytest.mark.parametrize(("direction", "wanted"), [("maximize", -10.0), ("minimize", 10.0)])
def test_a_good_enough_value_ends_a_campaign(bench: Any, direction: str, wanted: float) -> None:
    config = bench.config({"objective.direction": direction, "stopping.target_value": wanted})
    with bench.open(config) as engine:
        decision = run(engine)
        assert decision.action == "finished"
        assert "the target fidelity reached" in decision.reason
        assert f"(wanted: {wanted:g})" in decision.reason
        assert engine.repository.last_round() == 0


def _bounds(bench: Any, censoring: str) -> None:
    bench.write(
        "oracle.py",
        "from activelearning.measurement import Measurement\n"
        "from oracles import Oracle\n"
        "class Low(Oracle):\n"
        "    def evaluate_one(self, candidate): return 99.0\n"
        "class High(Oracle):\n"
        f"    def evaluate_one(self, candidate): return Measurement.of('y', 99.0, censoring={censoring!r})\n",
    )


@pytest.mark.parametrize(("direction", "censoring"), [("maximize", "upper"), ("minimize", "lower")])
def test_a_bound_that_proves_nothing_is_not_good_enough(bench: Any, direction: str, censoring: str) -> None:
    _bounds(bench, censoring)
    changes = {"objective.direction": direction, "stopping.target_value": 99.0, "stopping.max_rounds": 1}
    with bench.open(bench.config(changes)) as engine:
        assert run(engine).reason == "all 1 rounds are done"
        maximize = direction == "maximize"
        assert engine.repository.best_value("high", maximize=maximize) is None
        assert engine.repository.best_value("low", maximize=maximize) == 99.0
        assert best(engine.database, "small") == []


@pytest.mark.parametrize(("direction", "censoring"), [("maximize", "lower"), ("minimize", "upper")])
def test_a_bound_that_proves_enough_ends_the_campaign(bench: Any, direction: str, censoring: str) -> None:
    _bounds(bench, censoring)
    with bench.open(
        bench.config({"objective.direction": direction, "stopping.target_value": 99.0})
    ) as engine:
        assert run(engine).reason == "the target fidelity reached 99 (wanted: 99)"
        assert best(engine.database, "small", 1)[0]["value"] == 99.0


def test_rounds_that_were_asked_for(bench: Any) -> None:
    with bench.open(bench.config({"budget.total": 60.0})) as engine:
        decision = run(engine, rounds=2)
        assert decision.action == "continue"
        assert engine.round == 2
        run(engine, rounds=1)
        assert engine.round == 3


def test_a_pool_that_is_used_up_ends_a_campaign(bench: Any) -> None:
    bench.write("pool.csv", "x,y\n0.1,0.2\n0.3,0.4\n0.5,0.6\n")
    config = bench.config(
        {
            "space": {"type": "pool", "file": "pool.csv"},
            "sampler": {"type": "pool"},
            "budget": {"total": 60.0, "per_round": 5.0},
            "acquisition": {"type": "random", "batch_size": 2, "mode": "after", "pool_size": 16},
        }
    )
    bench.write(
        "oracle.py",
        "from oracles import Oracle\n"
        "class Low(Oracle):\n"
        "    def evaluate_one(self, candidate): return 0.5\n"
        "class High(Low): pass\n",
    )
    with bench.open(config) as engine:
        decision = run(engine)
        assert decision.action == "finished"
        assert "proposes nothing new" in decision.reason


def test_steps_out_of_order_are_refused(bench: Any) -> None:
    with bench.open(bench.config()) as engine:
        with pytest.raises(ActiveLearningError, match=r"commit\(\) was called without a proposal"):
            engine.commit()
        engine.propose()
        with pytest.raises(LeaseHeldError, match="was taken over by another process"):
            engine.commit()  # outside the lease
        assert engine.round == 0
        assert engine.repository.evaluations() == []


def test_a_holder_that_lost_its_lease_commits_nothing(bench: Any) -> None:
    config = bench.config()
    with bench.open(config) as slow, bench.open(config) as quick:
        with slow.lease():
            slow.propose()
            bench_write(slow, "UPDATE workers SET heartbeat = heartbeat - 31")
            with quick.lease():
                quick.propose()
                assert quick.commit() == 0
            with pytest.raises(LeaseHeldError, match="nothing of this step was kept"):
                slow.commit()
        assert slow.repository.last_round() == 0
    assert len(bench.evaluations()) == 3
    assert bench.rows("SELECT count(*) AS n FROM ledger") == [{"n": 3}]


def bench_write(engine: Any, statement: str) -> None:
    from sqlalchemy import text

    with engine.database.write() as session:
        session.execute(text(statement))


def test_answers_of_a_lost_claim_are_dropped(bench: Any) -> None:
    config = bench.config()
    with bench.open(config) as slow, bench.open(config) as quick:
        with slow.lease():
            slow.propose()
            slow.commit()
            slow.submit()
        keys = slow.outstanding()["low"]
        claimed = slow.repository.claim(keys, slow._worker.id)
        assert [row.key for row in claimed] == keys
        # While the other works, nothing is evaluated twice, and no round is proposed over its head.
        quick.evaluate("low", keys)
        assert {row.state for row in quick.repository.evaluations(fidelities=["low"])} == {"running"}
        with pytest.raises(LeaseHeldError, match="still evaluating"):
            quick.decide()
        bench_write(slow, f"UPDATE workers SET heartbeat = heartbeat - 31 WHERE id = '{slow._worker.id}'")
        quick.evaluate("low", keys)
        from activelearning.measurement import Measurement
        from activelearning.store.records import Answer

        late = [Answer(key, Measurement.of("y", 77.0), 0.25) for key in keys]
        assert slow.repository.finish(late, worker=slow._worker.id) == []
    assert [row.state for row in bench.evaluations() if row.fidelity == "low"] == ["succeeded"] * 2
    assert bench.rows("SELECT count(*) AS n FROM measurements WHERE value = 77.0") == [{"n": 0}]
    assert bench.rows("SELECT count(*) AS n FROM ledger WHERE kind = 'settle'") == [{"n": 2}]


def test_a_cancelled_campaign_stays_cancelled(bench: Any) -> None:
    with bench.open(bench.config()) as engine:
        engine.repository.set_state(CampaignState.CANCELLED, "enough")
        engine.mark_interrupted("stopped by Ctrl-C")
        engine.mark_failed("it broke")
        assert engine.repository.state() == (CampaignState.CANCELLED, "enough")


def test_an_error_that_ends_a_run_is_told_and_the_next_run_goes_on(bench: Any) -> None:
    with bench.open(bench.config({"stopping.max_rounds": 1})) as engine:
        with pytest.raises(ValueError, match="no  such luck"), _marking(engine):
            raise ValueError("no  such luck")
        assert engine.repository.state() == (CampaignState.FAILED, "ValueError: no such luck")
        assert status(engine.database, "small")["state"] == "failed"
        with pytest.raises(LeaseHeldError), _marking(engine):
            raise LeaseHeldError("another one")
        assert run(engine).action == "finished"
        assert engine.repository.state()[0] is CampaignState.FINISHED
