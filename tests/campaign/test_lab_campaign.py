"""A campaign with a laboratory: corrections, replicates, rejections, results that nobody asked for, kills."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from kill_harness import in_child

from activelearning.campaign.tick import run, tick
from activelearning.candidate import BoxCandidate
from activelearning.errors import ConfigError, InputError
from activelearning.store.database import Database, open_database
from oracles.lab import (
    NewResult,
    RefusedError,
    Unrequested,
    Upload,
    list_requests,
    record,
    record_all,
    reject,
)


@pytest.fixture
def lab(bench: Any) -> Any:
    """A bench whose target is a laboratory."""
    bench.config_of_lab = bench.config(
        {
            "fidelities.1": {"name": "lab", "oracle": "lab", "cost": 1.0, "target": True},
            "initial_design": {"per_fidelity": {"low": 2, "lab": 3}},
            "objective": {"property": "y", "unit": "log10(S/cm)"},
            # Pays for the initial design, and for no round after it.
            "budget": {"total": 3.6, "per_round": 2.0},
        }
    )
    return bench


@pytest.fixture
def store(lab: Any) -> Any:
    """The campaign's store, with its initial design handed over."""
    with lab.open(lab.config_of_lab) as engine:
        assert run(engine).action == "waiting"
    database = open_database(lab.store)
    yield database
    database.close()


def go_on(lab: Any) -> Any:
    with lab.open(lab.config_of_lab) as engine:
        return tick(engine)


def keys(store: Database) -> list[str]:
    return [request["key"] for request in list_requests(store)]


def values(lab: Any) -> dict[str, tuple[float, float | None]]:
    query = "SELECT evaluation_key AS key, value, std FROM measurements"
    return {row["key"]: (row["value"], row["std"]) for row in lab.rows(query)}


def ledger(lab: Any) -> list[dict[str, Any]]:
    return lab.rows("SELECT * FROM ledger ORDER BY evaluation_key, sequence")  # type: ignore[no-any-return]


def test_a_unit_in_another_spelling_is_refused_before_anything_is_kept(lab: Any, tmp_path: Path) -> None:
    objective = lab.config_of_lab.objective.model_copy(update={"unit": "log10(S cm^-1)"})
    config = lab.config_of_lab.model_copy(update={"objective": objective})
    with pytest.raises(ConfigError, match=r"fidelities\.lab: .* as 'log10\(S/cm\)': write that"):
        lab.open(config)
    assert not (tmp_path / "store.db").exists()


def test_a_correction_after_the_answer_was_taken_in(lab: Any, store: Database) -> None:
    first, second, third = keys(store)
    record_all(store, [NewResult(first, -3.0, std=0.1), NewResult(second, -4.0)])
    assert go_on(lab).action == "waiting"
    assert values(lab)[first] == (-3.0, 0.1)
    paid = ledger(lab)

    record(store, first, -5.0, corrects=1, by="a chemist", cost=700.0)
    with lab.open(lab.config_of_lab) as engine:
        # Something was learned, so that a campaign that waits for the rest may go on.
        before = engine._stopping.n_answers()
        with engine.lease():
            assert engine.ingest() == 1
            assert engine.ingest() == 0
        assert engine._stopping.n_answers() == before + 1
        observed = {o.value for o in engine._observations() if o.fidelity == 1}
    # The next fit sees the correction alone; the log, the history and the results show both.
    assert observed == {-5.0, -4.0}
    assert values(lab)[first] == (-5.0, None)
    history = lab.rows("SELECT * FROM earlier_measurements")
    assert [(row["evaluation_key"], row["value"], row["std"]) for row in history] == [(first, -3.0, 0.1)]
    log = lab.rows(f"SELECT * FROM transitions WHERE evaluation_key = '{first}' ORDER BY sequence")
    assert [row["state"] for row in log] == ["intent", "submitted", "succeeded", "succeeded"]
    assert log[-1]["sequence"] == history[0]["sequence"]
    assert ledger(lab) == paid
    (row,) = [e for e in lab.evaluations() if e.key == first]
    assert row.details["recorded_by"] == "a chemist"
    # A result that was corrected before it was taken in never was one for the campaign.
    record(store, third, -1.0)
    record(store, third, -2.0, corrects=1)
    assert go_on(lab).action == "finished"
    assert values(lab)[third] == (-2.0, None)
    assert len(lab.rows("SELECT * FROM earlier_measurements")) == 1


def test_a_replicate_after_the_answer_was_taken_in(lab: Any, store: Database) -> None:
    first, *_ = keys(store)
    record(store, first, -3.0, std=0.1)
    go_on(lab)
    record(store, first, -3.1, std=0.1, is_replicate=True)
    go_on(lab)
    assert values(lab)[first] == (pytest.approx(-3.05), pytest.approx(0.1 / 2**0.5))
    assert len(lab.rows(f"SELECT * FROM measurements WHERE evaluation_key = '{first}'")) == 1


def test_another_word_about_the_same_value_is_no_correction(lab: Any, store: Database) -> None:
    first, *_ = keys(store)
    record(store, first, -3.0)
    go_on(lab)
    record(store, first, -3.0, corrects=1, method="impedance", files=(Upload("arc.mpt", b"1"),))
    go_on(lab)
    assert lab.rows("SELECT * FROM earlier_measurements") == []
    (row,) = [e for e in lab.evaluations() if e.key == first]
    assert row.details["method"] == "impedance"
    assert [a["evaluation_key"] for a in lab.rows("SELECT * FROM artifacts")] == [first]


def test_a_rejection_fails_the_evaluation_and_costs_what_was_tried(lab: Any, store: Database) -> None:
    first, second, third = keys(store)
    reject(store, first, reason="explosive")
    reject(store, second, reason="decomposed", cost=0.25)
    record(store, third, -3.0)
    with lab.open(lab.config_of_lab) as engine, engine.lease():
        assert engine.ingest() == 3
    rows = {e.key: e for e in lab.evaluations() if e.fidelity == "lab"}
    assert (rows[first].state, rows[first].reason) == ("failed", "rejected by the laboratory: explosive")
    assert [rows[key].cost_paid for key in (first, second, third)] == [0.0, 0.25, 1.0]
    with lab.open(lab.config_of_lab) as engine:
        balance = engine.balance()
        assert (balance.reserved, balance.spent) == (0.0, pytest.approx(1.25 + 2 * 0.25))


def test_a_result_that_nobody_asked_for_is_a_free_observation(lab: Any, store: Database) -> None:
    asked = keys(store)
    point = BoxCandidate((0.25, 0.75))
    of = Unrequested(point.to_dict(), "small")
    (key,) = record_all(store, [NewResult(of, 2.0, unit="mS/cm", files=(Upload("arc.mpt", b"1"),))])
    with lab.open(lab.config_of_lab) as engine, engine.lease():
        assert engine.ingest() == 1
        assert engine.ingest() == 0
    (row,) = [e for e in lab.evaluations() if e.external_id == key]
    assert (row.state, row.cost_paid, row.cost_reserved, row.round) == ("succeeded", 0.0, 0.0, 0)
    assert row.candidate == point.to_dict()
    assert values(lab)[row.key][0] == pytest.approx(-2.69897)
    assert [a["evaluation_key"] for a in lab.rows("SELECT * FROM artifacts")] == [row.key]
    assert keys(store) == asked
    # It is corrected as any other is.
    record(store, key, -2.5, corrects=1)
    go_on(lab)
    assert values(lab)[row.key] == (-2.5, None)
    # The same material again is another observation, under a key of its own.
    (again,) = record_all(store, [NewResult(of, -2.4)])
    go_on(lab)
    assert again != key
    assert sorted(v for v, _ in values(lab).values() if v < -1) == [-2.5, -2.4]


def test_what_can_not_be_a_free_observation(lab: Any, store: Database) -> None:
    def refused(of: Unrequested, match: str) -> None:
        with pytest.raises(RefusedError, match=match):
            record_all(store, [NewResult(of, -3.0)])

    point = BoxCandidate((0.25, 0.75)).to_dict()
    refused(Unrequested(point, "smal"), "Did you mean 'small'")
    refused(Unrequested(point, "small", "low"), r"one of the campaign's laboratories \(lab\), not 'low'")
    refused(Unrequested({"kind": "gas"}, "small"), "can't learn from this material: unknown kind")
    refused(Unrequested({"kind": "box", "values": [1.0]}, "small"), "can't learn from this material")
    waiting = list_requests(store)[0]
    refused(Unrequested(waiting["candidate"], "small"), f"under its key, {waiting['key'][:16]}")
    assert all(request["state"] == "open" for request in list_requests(store, state=None))


def test_a_material_recorded_before_the_first_round_waits_for_it(lab: Any) -> None:
    with lab.open(lab.config_of_lab) as engine:
        of = Unrequested(BoxCandidate((0.5, 0.5)).to_dict(), "small")
        (key,) = record_all(engine.database, [NewResult(of, -3.0)])
        with engine.lease():
            assert engine.ingest() == 0
        assert run(engine).action == "waiting"
    assert [e.external_id for e in lab.evaluations()].count(key) == 1


def test_another_campaign_that_took_an_answer_over_follows_its_correction(lab: Any, store: Database) -> None:
    first, second, third = keys(store)
    record_all(store, [NewResult(key, -3.0) for key in (first, second, third)])
    go_on(lab)
    other = lab.config_of_lab.model_copy(update={"name": "other"})
    with lab.open(other) as engine:
        run(engine)
    record(store, first, -6.0, corrects=1)
    with lab.open(other) as engine:
        tick(engine)
        tick(engine)
    taken = {e.details["shared_from"]: e.key for e in lab.evaluations("other") if e.fidelity == "lab"}
    assert values(lab)[taken[first]] == (-6.0, None)
    assert values(lab)[taken[second]] == (-3.0, None)
    # Each took notice by itself, once.
    assert len(lab.rows("SELECT * FROM earlier_measurements")) == 1
    go_on(lab)
    assert len(lab.rows("SELECT * FROM earlier_measurements")) == 2


@pytest.mark.parametrize("event", ["step.ingest", "evaluation.succeeded", "evaluation.amended", "step.fit"])
def test_results_survive_a_campaign_that_is_killed(lab: Any, store: Database, event: str) -> None:
    """Whatever the process was at when it was killed, the next one has every result, once."""
    first, second, third = keys(store)
    record(store, first, -3.0)
    go_on(lab)
    record(store, first, -5.0, corrects=1)
    record(store, second, -4.0)
    record_all(store, [NewResult(Unrequested(BoxCandidate((0.5, 0.5)).to_dict(), "small"), -2.0)])
    store.close()  # connections do not survive a fork
    budget = lab.config_of_lab.budget.model_copy(update={"total": 8.0})
    config = lab.config_of_lab.model_copy(update={"budget": budget})

    def work() -> None:
        def observe(what: str, _facts: Mapping[str, Any]) -> None:
            if what == event:
                os.kill(os.getpid(), signal.SIGKILL)

        with lab.open(config, observer=observe) as engine:
            tick(engine)

    assert os.WIFSIGNALED(in_child(work))
    with lab.open(config) as engine:
        tick(engine)
        observed = sorted(o.value for o in engine._observations() if o.fidelity == 1)
        assert observed == [-5.0, -4.0, -2.0]
        assert engine.balance().spent <= engine.balance().total
    assert [row["value"] for row in lab.rows("SELECT value FROM earlier_measurements")] == [-3.0]
    for request in list_requests(open_database(lab.store), state=None):
        if request["state"] == "open":
            assert request["key"] not in (first, second)
    with pytest.raises(InputError, match="has a result already"):
        record(open_database(lab.store), first, -1.0)
    assert third
