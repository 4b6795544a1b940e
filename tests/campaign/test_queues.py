"""Oracles whose answers come later: waiting, going on, cancelling, and outsides that can't be reached."""

from __future__ import annotations

import json
from typing import Any

import pytest

from activelearning.campaign.tick import run, tick
from activelearning.store.models import CampaignState

QUEUE = """
import json
from pathlib import Path

from activelearning.contracts import JobState
from activelearning.errors import OracleError
from activelearning.measurement import Measurement
from oracles import Oracle, QueuedOracle


class Low(Oracle):
    def evaluate_one(self, candidate):
        return sum(candidate.values)


class Folder(QueuedOracle):
    '''Jobs are files; what they say decides what `poll` tells. `broken` lists methods that fail.'''

    def __init__(self, folder: Path):
        self.folder = folder

    def content(self):
        return {}

    def _may(self, method):
        broken = self.folder / "broken"
        if broken.exists() and method in broken.read_text().split():
            raise ConnectionError("no route to host")

    def submit(self, candidate, key):
        self._may("submit")
        if (self.folder / "refuse").exists():
            raise OracleError("too many electrons")
        if (self.folder / "odd").exists():
            return 3
        with (self.folder / f"{key}.job").open("x") as file:
            json.dump("submitted", file)
        return key[:20]

    def find(self, key):
        self._may("find")
        return key[:20] if (self.folder / f"{key}.job").exists() else None

    def poll(self, ids):
        self._may("poll")
        answers = {}
        for path in sorted(self.folder.glob("*.job")):
            said = json.loads(path.read_text())
            if isinstance(said, str) and said in list(JobState):
                said = JobState(said)
            elif isinstance(said, dict):
                said = Measurement.of("y", **said)
            if said != "silent":
                answers[path.name[:20]] = said
        return {i: answers[i] for i in ids if i in answers}

    def cancel(self, ids):
        self._may("cancel")
        for i in ids:
            (path,) = self.folder.glob(f"{i}*.job")
            path.write_text(json.dumps("cancelled"))
"""


@pytest.fixture
def queue(bench: Any) -> Any:
    """A bench whose target is a queue of files."""
    bench.write("oracle.py", QUEUE)
    (bench.folder / "jobs").mkdir()
    return bench


def _config(queue: Any, **changes: Any) -> Any:
    return queue.config(
        {
            "fidelities.1.oracle": "oracle.py:Folder",
            "fidelities.1.params": {"folder": "jobs"},
            "initial_design": {"per_fidelity": {"low": 2, "high": 2}},
            **changes,
        }
    )


def _jobs(queue: Any) -> list[Any]:
    return sorted((queue.folder / "jobs").glob("*.job"))


def _say(queue: Any, said: Any) -> None:
    for path in _jobs(queue):
        if json.loads(path.read_text()) in ("submitted", "running", "silent"):
            path.write_text(json.dumps(said))


def _states(queue: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in queue.evaluations():
        if row.fidelity == "high":
            counts[row.state] = counts.get(row.state, 0) + 1
    return counts


def test_a_campaign_waits_and_goes_on_after_results(queue: Any) -> None:
    # Without a limit on what `low` may cost, the budget is reserved to its end before anything comes back.
    config = _config(queue, **{"safety.enabled": False})
    with queue.open(config) as engine:
        decision = run(engine)
        assert decision.action == "waiting"
        assert "evaluations are still out" in decision.reason
        assert engine.repository.state() == (CampaignState.WAITING, decision.reason)
        first = engine.round
        balance = engine.balance()
        assert balance.reserved == len(_jobs(queue)) * 1.0
        # Nothing changes while nothing comes back.
        assert run(engine) == decision
        assert engine.round == first
        assert engine.balance() == balance
    for _ in range(20):
        _say(queue, {"value": 1.5, "std": 0.1})
        with queue.open(config) as engine:
            decision = run(engine)
        if decision.action == "finished":
            break
    assert "the budget is spent" in decision.reason
    assert set(_states(queue)) == {"succeeded"}
    spent = sum(row.cost_paid for row in queue.evaluations())
    assert 5.0 < spent <= 6.0 + 1e-9


def test_nothing_is_proposed_on_what_is_known_already(queue: Any) -> None:
    value = queue.value()
    only = {**value["fidelities"][1], "oracle": "oracle.py:Folder", "params": {"folder": "jobs"}}
    config = queue.config(
        {"initial_design": {"per_fidelity": {"high": 2}}, "budget.total": 20.0, "fidelities": [only]}
    )
    with queue.open(config) as engine:
        decision = run(engine)
        assert decision.action == "waiting"
        assert decision.reason == "2 evaluations are out and nothing new was learned since the last round"
        assert engine.round == 1
        _jobs(queue)[0].write_text(json.dumps({"value": 1.0}))  # one of the two is enough to go on with
        assert run(engine).action == "waiting"
        assert engine.round == 2
        assert _states(queue) == {"succeeded": 1, "submitted": 3}


def test_what_is_running_outside_is_running_here(queue: Any) -> None:
    config = _config(queue, **{"stopping.max_rounds": 1})
    with queue.open(config) as engine:
        run(engine)
        n = len(_jobs(queue))
        _say(queue, "running")
        tick(engine)
        assert _states(queue) == {"running": n}
        _say(queue, "silent")  # an outside that says nothing of a job has not lost it
        tick(engine)
        assert _states(queue) == {"running": n}
        _say(queue, {"value": 1.0})
        assert run(engine).action == "finished"
    assert _states(queue) == {"succeeded": n}
    logs = queue.rows(
        "SELECT t.state FROM transitions t JOIN evaluations e ON e.key = t.evaluation_key "
        "WHERE e.fidelity = 'high' ORDER BY e.round, e.position, t.sequence"
    )
    assert [row["state"] for row in logs] == ["intent", "submitted", "running", "succeeded"] * n


def test_lost_work_stays_charged(queue: Any) -> None:
    config = _config(queue, **{"stopping.max_rounds": 1})
    with queue.open(config) as engine:
        run(engine)
        n = len(_jobs(queue))
        before = engine.balance()
        _say(queue, "lost")
        assert run(engine).action == "finished"
        after = engine.balance()
    assert _states(queue) == {"abandoned": n}
    assert after.reserved == before.reserved == n * 1.0
    assert after.spent == before.spent


def test_work_cancelled_outside_is_released(queue: Any) -> None:
    with queue.open(_config(queue, **{"stopping.max_rounds": 1})) as engine:
        run(engine)
        n = len(_jobs(queue))
        _say(queue, "cancelled")
        run(engine)
        assert engine.balance().reserved == 0
    assert _states(queue) == {"cancelled": n}


def test_a_wrong_answer_fails_its_evaluation(queue: Any) -> None:
    with queue.open(_config(queue, **{"stopping.max_rounds": 1})) as engine:
        run(engine)
        for path, said in zip(_jobs(queue), ["done", [1.0]] * 9, strict=False):
            path.write_text(json.dumps(said))
        run(engine)
    reasons = {row.reason for row in queue.evaluations() if row.fidelity == "high"}
    assert reasons == {
        f"the oracle 'oracle.py:Folder' returned a {kind}; a number or a Measurement is wanted"
        for kind in ("str", "list")
    }


def test_cancelling_releases_and_cancels_outside(queue: Any) -> None:
    config = _config(queue)
    with queue.open(config) as engine:
        run(engine)
        spent = engine.balance().spent
        finished = _jobs(queue)[0]
        finished.write_text(json.dumps({"value": 2.0}))  # it is there already, and has been paid for
        engine.repository.set_state(CampaignState.CANCELLED, "no more money")
        decision = run(engine)
        assert (decision.action, decision.reason) == ("cancelled", "no more money")
        balance = engine.balance()
    assert (balance.reserved, balance.spent) == (0.0, spent + 1.0)
    states = _states(queue)
    assert states == {"succeeded": 1, "cancelled": len(_jobs(queue)) - 1}
    outside = [json.loads(path.read_text()) for path in _jobs(queue) if path != finished]
    assert set(outside) == {"cancelled"}
    with queue.open(config) as engine:
        n = len(engine.repository.evaluations())
        assert run(engine).action == "cancelled"
        assert len(engine.repository.evaluations()) == n


def test_a_cancelled_campaign_finds_work_that_was_never_recorded(queue: Any) -> None:
    """A process lost between `submit` and its record leaves a job outside that has to be cancelled too."""
    with queue.open(_config(queue)) as engine:
        with engine.lease():
            engine.propose()
            engine.commit()
        row = next(row for row in engine.repository.evaluations() if row.fidelity == "high")
        (queue.folder / "jobs" / f"{row.key}.job").write_text(json.dumps("submitted"))
        engine.repository.set_state(CampaignState.CANCELLED, "enough")
        with engine.lease():
            engine.reconcile()
    assert [json.loads(path.read_text()) for path in _jobs(queue)] == ["cancelled"]
    assert {row.state for row in queue.evaluations()} == {"cancelled"}


@pytest.mark.parametrize("method", ["submit", "find"])
def test_an_outside_that_cannot_be_reached_stops_only_itself(queue: Any, method: str) -> None:
    config = _config(queue, **{"stopping.max_rounds": 1})
    broken = queue.folder / "jobs" / "broken"
    broken.write_text(method)
    told = []
    with queue.open(config, observer=lambda event, facts: told.append((event, facts))) as engine:
        decision = run(engine)
    fault = f"{method}() of the oracle 'oracle.py:Folder' raised ConnectionError: no route to host"
    assert decision.action == "waiting"
    assert fault in decision.reason
    assert ("oracle.unreachable", {"fidelity": "high", "reason": fault}) in told
    assert _jobs(queue) == []
    assert set(_states(queue)) == {"intent"}
    assert {row.state for row in queue.evaluations() if row.fidelity == "low"} == {"succeeded"}
    broken.unlink()
    with queue.open(config) as engine:
        run(engine)
        _say(queue, {"value": 1.0})
        assert run(engine).action == "finished"
    assert set(_states(queue)) == {"succeeded"}


def test_a_poll_that_raises_is_tried_again(queue: Any) -> None:
    config = _config(queue, **{"stopping.max_rounds": 1})
    with queue.open(config) as engine:
        run(engine)
        _say(queue, {"value": 1.0})
        (queue.folder / "jobs" / "broken").write_text("poll")
        decision = run(engine)
        assert decision.action == "waiting"
        assert "poll() of the oracle 'oracle.py:Folder' raised ConnectionError" in decision.reason
        (queue.folder / "jobs" / "broken").unlink()
        assert run(engine).action == "finished"
    assert set(_states(queue)) == {"succeeded"}


def test_a_cancel_that_raises_is_tried_again(queue: Any) -> None:
    with queue.open(_config(queue)) as engine:
        run(engine)
        reserved = engine.balance().reserved
        (queue.folder / "jobs" / "broken").write_text("cancel")
        engine.repository.set_state(CampaignState.CANCELLED, "enough")
        assert run(engine).action == "cancelled"
        # It may be alive outside: not released.
        assert engine.balance().reserved == reserved
        (queue.folder / "jobs" / "broken").unlink()
        run(engine)
        assert engine.balance().reserved == 0
    assert set(_states(queue)) == {"cancelled"}


def test_a_refused_candidate_fails_free_of_charge(queue: Any) -> None:
    (queue.folder / "jobs" / "refuse").touch()
    with queue.open(_config(queue, **{"stopping.max_rounds": 1})) as engine:
        assert run(engine).action == "finished"
        assert engine.balance().reserved == 0
    rows = [row for row in queue.evaluations() if row.fidelity == "high"]
    assert {row.reason for row in rows} == {"the oracle 'oracle.py:Folder' refuses it: too many electrons"}
    assert {(row.state, row.cost_paid) for row in rows} == {("failed", 0.0)}


def test_an_external_id_that_is_no_text_is_told(queue: Any) -> None:
    (queue.folder / "jobs" / "odd").touch()
    with queue.open(_config(queue, **{"stopping.max_rounds": 1})) as engine:
        decision = run(engine)
    assert "gave 3 as an external id; it must be a text" in decision.reason
    assert set(_states(queue)) == {"intent"}


def test_limits_in_flight_are_kept(queue: Any) -> None:
    config = _config(
        queue,
        **{
            "fidelities.1.max_in_flight": 2,
            "budget": {"total": 40.0, "per_round": 8.0},
            "acquisition.batch_size": 8,
            "initial_design": {"per_fidelity": {"low": 2, "high": 1}},
        },
    )
    for _ in range(3):
        with queue.open(config) as engine:
            run(engine, rounds=2)
        open_ = sum(n for state, n in _states(queue).items() if state in ("intent", "submitted", "running"))
        assert 0 < open_ <= 2
        _say(queue, {"value": 1.0})


def test_the_initial_design_waits_for_room_outside(queue: Any) -> None:
    config = _config(
        queue,
        **{
            "fidelities.1.max_in_flight": 2,
            "budget": {"total": 40.0, "per_round": 8.0},
            "initial_design": {"per_fidelity": {"low": 2, "high": 5}},
            "stopping.max_rounds": 1,
        },
    )
    with queue.open(config) as engine:
        decision = run(engine)
        assert decision.action == "waiting"
        assert _states(queue) == {"intent": 3, "submitted": 2}
        assert engine.balance().reserved == 5.0  # what waits is committed, and paid for
        run(engine)
        assert len(_jobs(queue)) == 2
    design = [row.key for row in queue.evaluations() if row.fidelity == "high"]
    asked = [path.stem for path in _jobs(queue)]
    assert set(asked) == set(design[:2])
    for n_jobs in (4, 5):  # as they come back, in one tick, the next ones go out
        _say(queue, {"value": 1.0})
        with queue.open(config) as engine:
            run(engine, rounds=1)
        assert len(_jobs(queue)) == n_jobs
        open_ = [row for row in queue.evaluations() if row.state in ("submitted", "running")]
        assert len(open_) <= 2
    assert {path.stem for path in _jobs(queue)} >= set(design[:5])
    _say(queue, {"value": 1.0})
    with queue.open(config) as engine:
        run(engine)
    assert _states(queue)["succeeded"] >= 5


def test_what_waits_for_room_is_not_handed_over_once_cancelled(queue: Any) -> None:
    config = _config(
        queue,
        **{"fidelities.1.max_in_flight": 1, "initial_design": {"per_fidelity": {"low": 2, "high": 3}}},
    )
    with queue.open(config) as engine:
        run(engine)
        (queue.folder / "jobs" / "broken").write_text("cancel")
        _say(queue, {"value": 1.0})
        engine.repository.set_state(CampaignState.CANCELLED, "enough")
        with engine.lease():
            engine.reconcile()
            engine.ingest()
        assert len(_jobs(queue)) == 1
        (queue.folder / "jobs" / "broken").unlink()
        run(engine)
    assert _states(queue) == {"succeeded": 1, "cancelled": 2}


def test_a_job_that_was_never_recorded_takes_the_first_room(queue: Any) -> None:
    config = _config(
        queue,
        **{"fidelities.1.max_in_flight": 1, "initial_design": {"per_fidelity": {"low": 2, "high": 3}}},
    )
    with queue.open(config) as engine:
        with engine.lease():
            engine.propose()
            engine.commit()
        row = next(row for row in engine.repository.evaluations() if row.fidelity == "high")
        (queue.folder / "jobs" / f"{row.key}.job").write_text(json.dumps("submitted"))
        run(engine)
    assert [path.stem for path in _jobs(queue)] == [row.key]
    assert _states(queue) == {"intent": 2, "submitted": 1}


def test_the_laboratory_answers_when_it_does(bench: Any) -> None:
    from activelearning.store.database import open_database
    from oracles.lab import list_requests, record

    config = bench.config(
        {
            "fidelities.1.oracle": "lab",
            "stopping.max_rounds": 1,
            "initial_design": {"per_fidelity": {"low": 2, "high": 1}},
        }
    )
    with bench.open(config) as engine:
        assert run(engine).action == "waiting"
    database = open_database(bench.store)
    for request in list_requests(database):
        record(database, request["key"], 0.25, std=0.05, method="impedance")
    database.close()
    with bench.open(config) as engine:
        assert run(engine).action == "finished"
    high = [row for row in bench.evaluations() if row.fidelity == "high"]
    assert high
    assert {row.state for row in high} == {"succeeded"}
    assert {row.details["method"] for row in high} == {"impedance"}


def test_what_was_cancelled_outside_is_asked_again_under_another_key(queue: Any) -> None:
    (queue.folder / "pool.csv").write_text("x,y\n0.1,0.2\n0.4,0.3\n0.8,0.9\n")
    only = {**queue.value()["fidelities"][1], "oracle": "oracle.py:Folder", "params": {"folder": "jobs"}}
    config = queue.config(
        {"initial_design": {"per_fidelity": {"high": 3}}},
        space={"type": "pool", "file": "pool.csv"},
        sampler={"type": "pool"},
        fidelities=[only],
    )
    with queue.open(config) as engine:
        assert run(engine).action == "waiting"
        _say(queue, "cancelled")
        assert run(engine).action == "waiting"
    rows = queue.evaluations()
    assert [row.state for row in rows] == ["cancelled"] * 3 + ["submitted"] * 2
    again = rows[3]
    first = next(row for row in rows if row.candidate_key == again.candidate_key)
    assert (first.replicate, again.replicate) == (0, 1)
    assert first.content_key == again.content_key
    assert first.key != again.key
