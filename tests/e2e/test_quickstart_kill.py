"""The real process of the quickstart, Prefect and worker processes with it, killed at random moments."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import kill_harness
import pytest

# Everything is the quickstart's own but the lengths of training and dynamics.
SHORTENED = {
    "sampler": "{type: gflownet, steps: 40, warm_steps: 20, hidden: [64, 64]}",
    "acquisition.pool_size": "64",
    "acquisition.batch_size": "3",
    "initial_design.per_fidelity": "{proxy: 4, md: 1}",
    "budget": "{total: 3.1, per_round: 1.05}",
    "fidelities.1.max_in_flight": "1",
    "fidelities.1.params.time_ps": "0.2",
    "fidelities.1.params.max_time_ps": "0.2",
    "fidelities.1.params.equilibration_ps": "0.05",
    "fidelities.1.params.n_realisations": "1",
    "fidelities.1.params.n_relaxed": "1",
    "fidelities.1.params.relax_steps": "5",
    "fidelities.1.params.checkpoint_every": "20",
}
KILLS = 3


def _start(folder: Path) -> subprocess.Popen[bytes]:
    overrides = [argument for key, value in SHORTENED.items() for argument in ("--set", f"{key}={value}")]
    with (folder / "output.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "activelearning.cli.main", "run", "quickstart", *overrides],
            cwd=folder,
            stdout=log,
            stderr=log,
        )


def _children(pid: int) -> set[int]:
    """Processes that a process has started, and theirs."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(fields[1])
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _rows(folder: Path) -> dict[str, list[dict[str, object]]]:
    tables = kill_harness.tables(f"sqlite:///{folder / 'activelearning.db'}")
    for row in tables["campaigns"]:
        del row["artifacts"]  # each run has a folder of its own
    return tables


@pytest.mark.timeout(900)
def test_killed_at_random_moments_the_quickstart_ends_with_the_same_tables(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    begin = time.monotonic()
    assert _start(whole).wait() == 0, (whole / "output.log").read_text()
    seconds = time.monotonic() - begin

    moments = random.Random(7)
    for _ in range(KILLS):
        process = _start(killed)
        try:
            # From the middle of the start-up to near the end of a whole run.
            process.wait(timeout=moments.uniform(0.2, 0.8) * seconds)
            break
        except subprocess.TimeoutExpired:
            started = _children(process.pid)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and any(map(_is_running, started)):
            time.sleep(0.2)
        assert not any(map(_is_running, started)), "a killed run left processes behind"
    assert _start(killed).wait() == 0, (killed / "output.log").read_text()

    expected, found = _rows(whole), _rows(killed)
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == expected[name], name
    evaluations = expected["evaluations"]
    assert {row["fidelity"] for row in evaluations} == {"proxy", "md"}
    assert len({row["key"] for row in evaluations}) == len(evaluations)
    assert {row["round"] for row in evaluations} >= {0, 1, 2}
    assert sum(row["spent"] for row in expected["ledger"]) <= 3.1 + 1e-9
