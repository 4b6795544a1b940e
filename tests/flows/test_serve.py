"""`activelearning serve` with a Prefect server that stays: a recorded result wakes the campaign by its event."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

COMMAND = (sys.executable, "-m", "activelearning.cli.main")
CONFIG = """
name: search
space: {type: box, bounds: [[0, 1], [0, 1]]}
objective: {property: conductivity, unit: S/cm}
fidelities: [{name: lab, oracle: lab, cost: 1, target: true}]
sampler: {type: random}
acquisition: {type: random, batch_size: 1, pool_size: 16}
initial_design: {per_fidelity: {lab: 2}}
budget: {total: 2.5}
"""
SECONDS = 240.0


@contextlib.contextmanager
def started(folder: Path, environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that goes on until it is interrupted."""
    with (folder / f"{arguments[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(what: str, look: Callable[[], Any]) -> Any:
    """What a look finds, once it finds something."""
    end = time.monotonic() + SECONDS
    while not (found := look()):
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.5)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("prefect")
def test_a_result_wakes_the_campaign_and_the_schedule_does_not(tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text(CONFIG)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": api}
    here = httpx.Client(trust_env=False, timeout=30.0)

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return here.get(f"{api}/health").status_code == 200
        return False

    def tell(*arguments: str) -> Any:
        done = subprocess.run(
            [*COMMAND, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def requests() -> Any:
        return (tmp_path / "activelearning.db").exists() and tell("lab", "list", "--json")

    def ended() -> dict[str, Any]:
        """Runs that have ended, by the name of their state."""
        runs = here.post(f"{api}/flow_runs/filter", json={}).json()
        return {run["state_name"]: run for run in runs if run["end_time"] is not None}

    with started(tmp_path, environment, "ui", "--port", str(port)):
        wait_for("the server", answers)
        # Ten hours to the schedule's first run: what happens before happens for another reason.
        with started(tmp_path, environment, "serve", "search.yaml", "--every", "600"):
            first, second = wait_for("the first round", requests)
            wait_for("the end of the first run", lambda: ended().get("Waiting"))
            tell("lab", "record", first["key"], "--value", "1e-4", "--json")
            tell("lab", "record", second["key"], "--value", "2e-4", "--json")
            run = wait_for("the run that ends the campaign", lambda: ended().get("Finished"))
    assert run["created_by"]["type"] == "AUTOMATION"
    standing = tell("status", "search", "--json")
    assert (standing["state"], standing["budget"]["spent"]) == ("finished", 2.0)
    assert standing["best"]["value"] == 2e-4
