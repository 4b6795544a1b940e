"""A campaign as a deployment: a run goes on with what is in the store, and ends as waiting for its laboratory."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from activelearning.campaign.config import CampaignConfig
from activelearning.campaign.engine import Engine
from flows.artifacts import artifact_key, laboratory_markdown
from flows.events import LAB_RECORDED, lab_recorded
from oracles.lab import list_requests, record

Tiny = Callable[..., CampaignConfig]


@pytest.fixture
def waiting(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a campaign with a laboratory that is in the store, and not begun."""
    config = tiny(
        name="search",
        objective={"property": "branin", "unit": "S/cm", "direction": "minimize"},
        fidelities=[{"name": "lab", "oracle": "lab", "cost": 1, "target": True}],
        initial_design={"per_fidelity": {"lab": 2}},
        # Pays for the initial design, and for no round after it.
        budget={"total": 2.5},
    )
    store = f"sqlite:///{tmp_path}/store.db"
    monkeypatch.setenv("ACTIVELEARNING_STORE", store)
    with Engine.open(config, folder=tmp_path, store=store) as engine:
        return engine.name


def test_a_run_ends_as_waiting_and_the_next_goes_on(
    waiting: str, tmp_path: Path, prefect_harness: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    from activelearning.store.database import open_database
    from flows.deployment import continue_campaign

    def go_on() -> tuple[str, str]:
        state = continue_campaign(waiting, return_state=True)
        assert state.is_completed()
        return str(state.name), str(state.message)

    assert go_on()[0] == "Waiting"
    database = open_database(f"sqlite:///{tmp_path}/store.db")
    first, second = [request["key"] for request in list_requests(database)]
    of_lab = ArtifactFilter(key=ArtifactFilterKey(any_=[artifact_key(waiting, "lab")]))
    with get_client(sync_client=True) as client:
        (artifact, *_) = client.read_artifacts(artifact_filter=of_lab)
    assert f"http://127.0.0.1:8765/requests/{first}" in str(artifact.data)
    record(database, first, 1e-3)
    assert go_on()[0] == "Waiting"
    # Another process that works on it is not in the way, and no failure.
    monkeypatch.setattr("flows.deployment.BUSY_SECONDS", 0.0)
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, os\n"
            "from activelearning.store.database import open_database\n"
            "from activelearning.store.workers import WorkerRegistration\n"
            "worker = WorkerRegistration(open_database(os.environ['ACTIVELEARNING_STORE']), 'search')\n"
            "with worker.lease('search'):\n"
            "    print('held', flush=True)\n"
            "    sys.stdin.read()\n"
            "worker.close()\n",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    name, message = go_on()
    assert (name, "is being run by process" in message) == ("Busy", True)
    # Where the other one is about to end, it is waited for: it may have missed what woke this run.
    monkeypatch.setattr("flows.deployment.BUSY_SECONDS", 60.0)
    threading.Timer(3.0, child.communicate, [""]).start()
    assert go_on()[0] == "Waiting"
    record(database, second, 2e-3)
    assert lab_recorded(waiting)  # the harness's server takes it
    assert go_on()[0] == "Finished"
    database.close()


def test_a_deployment_is_woken_by_its_own_laboratory() -> None:
    from flows.deployment import deployment_of

    made = deployment_of("search", timedelta(minutes=5))
    (trigger,) = made.triggers
    told: dict[str, Any] = trigger.model_dump(mode="json")
    assert told["expect"] == [LAB_RECORDED]
    assert told["match"] == {"prefect.resource.id": "activelearning.campaign.search"}
    assert made.parameters == {"campaign": "search"}  # and no store: parameters are shown
    assert made.entrypoint == "flows.deployment.continue_campaign"


def test_without_a_server_nothing_is_sent_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    import flows.server

    monkeypatch.setattr(flows.server, "configured_url", lambda: None)
    assert not lab_recorded("search")
    monkeypatch.setattr(flows.server, "configured_url", lambda: "http://127.0.0.1:9/api")
    monkeypatch.setattr(flows.server, "_answers", lambda *_, **__: False)
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert not lab_recorded("search")


def test_the_page_for_the_laboratory_names_what_is_open() -> None:
    request = {
        "key": "a" * 64,
        "candidate": {"kind": "box", "values": [0.5, 1.0]},
        "property": "y",
        "unit": None,
        "state": "open",
    }
    text = laboratory_markdown(
        "search", [request, {**request, "state": "answered"}], "https://lab.example.org"
    )
    assert "1 of 2 requests wait" in text
    assert f"[(0.5, 1)](https://lab.example.org/requests/{'a' * 64})" in text
