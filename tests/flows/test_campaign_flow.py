"""The flows against Prefect's real server: what its API shows afterwards, and what becomes of the
campaign."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from activelearning import report
from activelearning.campaign.config import CampaignConfig
from activelearning.campaign.engine import Engine
from activelearning.campaign.stopping import Action
from activelearning.campaign.tick import run as run_alone
from activelearning.errors import InputError, LeaseHeldError
from flows import session, tasks
from flows.artifacts import artifact_key
from flows.launch import run_campaign, run_tick

pytestmark = pytest.mark.usefixtures("prefect_harness")
Tiny = Callable[..., CampaignConfig]
Open = Callable[..., Engine]


def ask_prefect(name: str) -> tuple[Any, list[Any], list[Any]]:
    """The last flow run of a name with its task runs and artifacts, from Prefect's API."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterFlowRunId,
        FlowRunFilter,
        FlowRunFilterId,
        FlowRunFilterName,
    )
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        (run, *_) = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        )
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        deadline = time.monotonic() + 30.0
        while True:  # states of tasks reach the API by events, a moment later
            task_runs = client.read_task_runs(flow_run_filter=of_run)
            done = [t for t in task_runs if t.state is not None and t.state.is_final()]
            if len(done) == len(task_runs) > 0 or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        )
    return run, task_runs, artifacts


def test_prefect_shows_the_flow_its_tasks_tags_and_artifacts(tiny: Tiny, open_engine: Open) -> None:
    with open_engine(tiny()) as engine:
        decision = run_campaign(engine, None)
        standing = report.status(engine.database, engine.name)
        committed = report.rounds(engine.database, engine.name)
    assert decision.action is Action.FINISHED
    assert decision.reason == "all 2 rounds are done"
    assert standing["state"] == "finished"

    run, task_runs, artifacts = ask_prefect("Tiny_1.Branin")
    assert run.state.is_completed()
    assert run.parameters == {"campaign": "Tiny_1.Branin", "rounds": None}
    names = sorted(task_run.name for task_run in task_runs)
    steps = ("reconcile", "ingest", "decide", "fit", "propose", "commit", "submit")
    expected = [f"{step}-round-{i}" for step in steps for i in range(3)]
    expected += [
        f"{step}-round-3" for step in ("reconcile", "ingest", "decide")
    ]  # which then ends the campaign
    evaluated = [
        f"evaluate-{fidelity}-round-{row['round']}" for row in committed for fidelity in row["evaluations"]
    ]
    assert names == sorted(expected + evaluated)
    assert all(task_run.state.is_completed() for task_run in task_runs)
    tags = {t.name: set(t.tags) for t in task_runs}
    assert tags["evaluate-low-round-0"] == {"oracle:function", "fidelity:low"}
    assert tags["evaluate-high-round-0"] == {"oracle:function", "fidelity:high"}
    assert tags["fit-round-1"] == set()

    by_key: dict[str, list[Any]] = {}
    for artifact in artifacts:
        by_key.setdefault(artifact.key, []).append(artifact)
    assert {key: len(versions) for key, versions in by_key.items()} == {
        "tiny-1-branin-round": 3,
        "tiny-1-branin-batch": 3,
    }
    page = max(by_key["tiny-1-branin-round"], key=lambda a: a.created)
    assert page.type == "markdown"
    assert "**Budget**" in page.data
    assert "](data:image/png;base64,iVBOR" in page.data
    committed_table, model = page.data.split("**Model**")
    assert committed_table.count("\n| ") == 4  # the head and three rounds
    assert "| low | left out | " in model
    assert "| low | forecasts, now | " in model
    assert "| with the target |" in model
    assert "| low | high |" in model
    table = min(by_key["tiny-1-branin-batch"], key=lambda a: a.created)
    assert table.type == "table"
    assert '"fidelity": "high"' in table.data
    assert table.description == "Campaign Tiny_1.Branin, round 0: the batch and its results"


def test_the_flow_does_what_the_engine_does_alone(tiny: Tiny, open_engine: Open) -> None:
    def rows(engine: Engine) -> list[dict[str, Any]]:
        volatile = ("created_at", "finished_at")
        exported = report.export_rows(engine.database, engine.name)
        return [{k: v for k, v in row.items() if k not in volatile} for row in exported]

    with open_engine(tiny(), store="prefect") as engine:
        run_campaign(engine, None)
        under_prefect = rows(engine)
    with open_engine(tiny(), store="alone") as engine:
        run_alone(engine)
        assert rows(engine) == under_prefect


def test_rounds_are_counted_without_the_initial_design(tiny: Tiny, open_engine: Open) -> None:
    with open_engine(tiny()) as engine:
        assert run_campaign(engine, None, rounds=1).action is Action.CONTINUE
        standing = report.status(engine.database, engine.name)
        assert (standing["rounds"], standing["state"]) == (1, "interrupted")
        assert "rounds that were asked for are done" in standing["reason"]
    with open_engine(tiny()) as engine:  # the next command
        assert run_campaign(engine, None, rounds=5).action is Action.FINISHED
        assert report.status(engine.database, engine.name)["rounds"] == 2


def test_a_tick_is_one_round(tiny: Tiny, open_engine: Open) -> None:
    with open_engine(tiny(name="ticking")) as engine:
        for rounds in range(3):
            assert run_tick(engine, None).action is Action.CONTINUE
            assert engine.round == rounds + 1
        assert run_tick(engine, None).action is Action.FINISHED
    _, task_runs, _ = ask_prefect("ticking-tick")
    assert sorted(t.name for t in task_runs) == ["decide-round-3", "ingest-round-3", "reconcile-round-3"]


def test_fidelities_are_evaluated_at_the_same_time(tiny: Tiny, open_engine: Open, tmp_path: Path) -> None:
    # Each fidelity waits for the other one: evaluated one after the other, both would fail.
    (tmp_path / "meeting.py").write_text(
        "import threading\n"
        "from oracles import Oracle\n"
        "BARRIER = threading.Barrier(2)\n"
        "class Meeting(Oracle):\n"
        "    def __init__(self, who: str) -> None:\n"
        "        self.who = who\n"
        "    def evaluate(self, candidates):\n"
        "        BARRIER.wait(timeout=60)\n"
        "        return [float(sum(c.values)) for c in candidates]\n"
    )
    fidelities = [
        {"name": "a", "oracle": "meeting.py:Meeting", "cost": 1, "params": {"who": "a"}},
        {"name": "b", "oracle": "meeting.py:Meeting", "cost": 1, "target": True, "params": {"who": "b"}},
    ]
    config = tiny(
        fidelities=fidelities, initial_design={"per_fidelity": {"a": 1, "b": 1}}, stopping={"max_rounds": 1}
    )
    with open_engine(config) as engine:
        run_tick(engine, None)
        counts = report.status(engine.database, engine.name)["evaluations"]
    assert counts == {"a": {"succeeded": 1}, "b": {"succeeded": 1}}


def test_infrastructure_faults_are_tried_again_and_nothing_else(
    tiny: Tiny, open_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    calls: list[str] = []
    ingest = Engine.ingest

    def flaky(self: Engine) -> int:
        calls.append("ingest")
        if len(calls) == 1:
            raise OperationalError("SELECT 1", {}, Exception("database is locked"))
        return ingest(self)

    monkeypatch.setattr(Engine, "ingest", flaky)
    with open_engine(tiny()) as engine:
        assert run_tick(engine, None).action is Action.CONTINUE
    assert len(calls) == 2

    def broken(self: Engine) -> int:
        calls.append("broken")
        raise ValueError("a bug")

    monkeypatch.setattr(Engine, "ingest", broken)
    with open_engine(tiny()) as engine, pytest.raises(ValueError, match="a bug"):
        run_tick(engine, None)
    assert calls.count("broken") == 1


def test_a_campaign_in_other_hands_is_left_alone(tiny: Tiny, open_engine: Open) -> None:
    with open_engine(tiny()) as engine, open_engine(tiny()) as other:
        with other.lease(), pytest.raises(LeaseHeldError, match="is being run by process"):
            run_tick(engine, None)
        assert engine.round == 0
        assert run_tick(engine, None).action is Action.CONTINUE


def test_what_a_lost_run_left_is_evaluated_before_anything_new(tiny: Tiny, open_engine: Open) -> None:
    with open_engine(tiny()) as engine, engine.lease():
        engine.propose()
        engine.commit()
        engine.submit()
    events: list[tuple[str, int | None]] = []
    with open_engine(tiny(), lambda event, facts: events.append((event, facts.get("round")))) as engine:
        run_tick(engine, None)
        assert engine.round == 2
    names = [event for event, _ in events]
    assert names.index("step.evaluate") < names.index("step.fit") < names.index("round.committed")


def test_the_flows_know_only_open_campaigns(tiny: Tiny, open_engine: Open) -> None:
    with pytest.raises(InputError, match="'elsewhere' is not open in this process"):
        session.engine_of("elsewhere")
    with open_engine(tiny()) as engine, session.registered(engine):
        assert session.engine_of(engine.name) is engine
        with (
            pytest.raises(InputError, match="is being run by this process already"),
            session.registered(engine),
        ):
            pass
    with pytest.raises(InputError):
        session.engine_of("Tiny_1.Branin")


def test_every_task_is_uncached_and_keeps_no_result() -> None:
    from prefect import Task
    from prefect.cache_policies import NO_CACHE

    found = {name: task for name, task in vars(tasks).items() if isinstance(task, Task)}
    assert set(found) == {
        "reconcile",
        "ingest",
        "decide",
        "fit",
        "propose",
        "commit",
        "submit",
        "evaluate",
    }
    for name, task in found.items():
        assert task.name == name
        assert task.cache_policy is NO_CACHE or task.cache_policy == NO_CACHE
        assert task.persist_result is False


@pytest.mark.parametrize(
    ("campaign", "key"),
    [("quickstart", "quickstart-round"), ("Li.P_S-Cl", "li-p-s-cl-round"), ("x__", "x-round")],
)
def test_artifact_keys_are_what_prefect_takes(campaign: str, key: str) -> None:
    assert artifact_key(campaign, "round") == key


def test_a_lost_api_does_not_end_the_campaign(
    tiny: Tiny, open_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    from flows import campaign, launch

    def lose(*_: object) -> None:
        # As the client does once its own attempts are used up, in the middle of a round.
        raise httpx.ConnectError("All connection attempts failed")

    monkeypatch.setattr(campaign, "evaluate_outstanding", lose)
    monkeypatch.setattr(launch, "prefect_is_lost", False)
    told: list[str] = []
    with open_engine(tiny()) as engine:
        decision = run_campaign(engine, None, notice=told.append)
        standing = report.status(engine.database, engine.name)
    assert decision.action is Action.FINISHED
    assert standing["rounds"] == 2
    assert set(standing["evaluations"]["high"]) == {"succeeded"}
    (notice,) = told
    assert "Prefect was lost (ConnectError: All connection attempts failed)" in notice
    assert launch.prefect_is_lost


def test_threads_do_not_outlive_the_flow(tiny: Tiny, open_engine: Open) -> None:
    with open_engine(tiny()) as engine:
        run_tick(engine, None)
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("activelearning")]
