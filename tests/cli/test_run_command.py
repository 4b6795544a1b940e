"""`run` as a user starts it: a process of its own, with no Prefect server set up; stopped by Ctrl-C, and
killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from activelearning import report
from activelearning.cli.display import describe
from activelearning.cli.running import parse_overrides
from activelearning.errors import InputError
from activelearning.store.database import open_database

# Each of these starts a server of its own, which is best done one after the other.
pytestmark = pytest.mark.xdist_group("prefect")
ACTIVELEARNING = [sys.executable, "-m", "activelearning.cli.main"]
SLEEPY = """
import time
from oracles import Oracle

class Sleepy(Oracle):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def content(self):
        return {}

    def evaluate_one(self, candidate):
        time.sleep(self.seconds)
        return sum(candidate.values)
"""


def sleepy(seconds: float) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        config["fidelities"][1] = {
            "name": "high",
            "oracle": "sleepy.py:Sleepy",
            "cost": 1,
            "target": True,
            "timeout": 600,
            "params": {"seconds": seconds},
        }
        config["stopping"] = {"max_rounds": 1}

    return change


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}

    def start_process(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*ACTIVELEARNING, *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # as a shell does, so that Ctrl-C goes to the command and its children
        )

    return start_process


def read_until(process: subprocess.Popen[str], words: str) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if words in line:
            return lines
    raise AssertionError(f"ended without {words!r}: {lines} {process.communicate()[1]}")


def group_is_gone(group: int, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def status_of(tmp_path: Path) -> dict[str, Any]:
    database = open_database(f"sqlite:///{tmp_path}/activelearning.db")
    try:
        return report.status(database, "tiny")
    finally:
        database.close()


def test_run_in_plain_lines_and_once_more(
    start: Callable[..., subprocess.Popen[str]], write_config: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_config()
    process = start("run", path, "--set", "stopping.max_rounds=1")
    out, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (0, "")
    lines = out.splitlines()
    assert lines[:3] == ["round 0: fit", "round 0: propose", "round 0: 5 evaluations committed"]
    assert "round 1: fit" in lines
    assert "tiny is finished: all 1 rounds are done" in lines
    assert lines[-1].startswith("best branin ")
    n_evaluated = len([line for line in lines if line.startswith(("  low ", "  high "))])
    standing = status_of(tmp_path)
    assert n_evaluated == sum(n for states in standing["evaluations"].values() for n in states.values())

    # A finished campaign goes on where there is more to do: stopping may change.
    process = start("run", path, "--json")
    out, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out) == status_of(tmp_path)
    assert json.loads(out)["rounds"] == 2


def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on(
    start: Callable[..., subprocess.Popen[str]], write_config: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "sleepy.py").write_text(SLEEPY)
    path = write_config(sleepy(300.0))
    process = start("run", path)
    read_until(process, "at high")
    time.sleep(3.0)  # the worker process is starting, or asleep in its oracle
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - began < 45.0
    assert err.strip().splitlines()[-1] == (
        f"Stopped by Ctrl-C. Everything that was committed is in the store; `activelearning run {path}` goes on "
        f"from there."
    )
    assert "Traceback" not in err
    assert group_is_gone(process.pid)
    standing = status_of(tmp_path)
    assert (standing["state"], standing["reason"]) == ("interrupted", "stopped by Ctrl-C")
    assert "failed" not in standing["evaluations"]["high"]
    # What was not answered stays reserved; the cheap ones may have been on their way, too.
    budget = standing["budget"]
    assert budget["reserved"] >= 2
    assert budget["reserved"] + budget["spent"] == pytest.approx(2.3)

    # The oracle's answers do not depend on its patience (`content`), but the config may not change.
    (tmp_path / "sleepy.py").write_text(SLEEPY.replace("time.sleep(self.seconds)", "pass"))
    process = start("run", path)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    standing = status_of(tmp_path)
    assert standing["state"] == "finished"
    assert set(standing["evaluations"]["high"]) == {"succeeded"}


def test_a_killed_run_leaves_no_process_and_goes_on(
    start: Callable[..., subprocess.Popen[str]], write_config: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "sleepy.py").write_text(SLEEPY)
    path = write_config(sleepy(300.0))
    process = start("run", path)
    read_until(process, "at high")
    time.sleep(3.0)
    process.kill()
    process.communicate()
    assert group_is_gone(process.pid)
    assert status_of(tmp_path)["state"] == "interrupted"
    (tmp_path / "sleepy.py").write_text(SLEEPY.replace("time.sleep(self.seconds)", "pass"))
    process = start("tick", path)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    standing = status_of(tmp_path)
    assert standing["rounds"] == 1
    assert set(standing["evaluations"]["high"]) == {"succeeded"}
    spent = sum(
        {"low": 0.1, "high": 1.0}[fidelity] * n
        for fidelity, states in standing["evaluations"].items()
        for n in states.values()
    )
    assert standing["budget"]["spent"] == pytest.approx(spent)


def test_overrides_are_read() -> None:
    assert parse_overrides(["budget.total=10", "name=a=b", " seed = 3"]) == {
        "budget.total": "10",
        "name": "a=b",
        "seed": " 3",
    }
    with pytest.raises(InputError, match="KEY=VALUE"):
        parse_overrides(["budget"])


@pytest.mark.parametrize(
    ("event", "facts", "line"),
    [
        ("step.fit", {"round": 3}, "round 3: fit"),
        ("step.reconcile", {"round": 3}, None),
        ("step.evaluate", {"fidelity": "md", "n": 2}, "evaluate 2 at md"),
        ("round.committed", {"round": 3, "n": 8}, "round 3: 8 evaluations committed"),
        (
            "evaluation.succeeded",
            {"key": "0123456789", "fidelity": "md", "value": -3.21, "reason": None, "seconds": 12.34},
            "  md 01234567 -3.21 (12.3 s)",
        ),
        (
            "evaluation.succeeded",
            {"key": "0123456789", "fidelity": "md", "value": -3.21, "censoring": "upper", "reason": None},
            "  md 01234567 ≤ -3.21",
        ),
        (
            "evaluation.failed",
            {"key": "0123456789", "fidelity": "md", "value": None, "reason": "it melted", "seconds": None},
            "  md 01234567 failed: it melted",
        ),
        ("evaluation.running", {"keys": ["0"], "fidelity": "md"}, None),
    ],
)
def test_events_as_plain_lines(event: str, facts: dict[str, Any], line: str | None) -> None:
    assert describe(event, facts) == line
