"""Oracles with a timeout run in processes of their own: a hang or a crash fails one evaluation and nothing else."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from activelearning.campaign.isolation import OracleSpec, WorkerPool
from activelearning.campaign.tick import run, tick
from activelearning.candidate import BoxCandidate
from activelearning.contracts.oracle import OracleContext
from activelearning.errors import MachineError
from activelearning.measurement import Measurement

ORACLE = """
import ctypes, errno, os, signal, subprocess, sys, time
from pathlib import Path
from oracles import Oracle


class Scripted(Oracle):
    '''Does what the first parameter says; the second is what it answers.'''

    def __init__(self, folder: Path):
        self.folder = folder

    def evaluate_one(self, candidate):
        what, value = candidate.values
        with (self.folder / "pids").open("a") as file:
            file.write(f"{os.getpid()}\\n")
        if what == 1:
            time.sleep(600)
        elif what == 2:
            os._exit(7)
        elif what == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == 4:
            print("x" * 3_000_000)
            sys.stderr.write("y" * 3_000_000)
            os.write(1, b"z" * 3_000_000)
            subprocess.run(["sh", "-c", "cat; head -c 1000000 /dev/zero"], check=True)
        elif what == 5:
            ctypes.PyDLL(None).sleep(600)  # native code that keeps the interpreter's lock
        elif what == 6:
            child = subprocess.Popen(["sleep", "600"])
            (self.folder / "grandchild").write_text(str(child.pid))
            time.sleep(600)
        elif what == 7:
            raise ValueError("not this one")
        elif what == 8:
            return None
        elif what == 9:
            # Ends only when three are at work at the same time.
            until = time.monotonic() + 50
            while len(set((self.folder / "pids").read_text().split())) < 3:
                assert time.monotonic() < until
                time.sleep(0.02)
        elif what == 10:
            try:
                raise OSError(errno.ENOSPC, "No space left on device", "trajectory.npz")
            except OSError as error:
                raise ValueError("the trajectory can't be kept") from error
        return value


class Slow(Oracle):
    def __init__(self):
        raise RuntimeError("no licence")


class Homeless(Oracle):
    def __init__(self):
        raise OSError(errno.EROFS, "Read-only file system")
"""


def _pool(folder: Path, n: int = 1, timeout: float | None = 60.0, cls: str = "Scripted") -> WorkerPool:
    (folder / "scripted.py").write_text(ORACLE)
    context = OracleContext("c", "f", "y", None, 1.0, "sqlite:///none.db", folder / "work")
    params = {"folder": str(folder)} if cls == "Scripted" else {}
    spec = OracleSpec(f"scripted.py:{cls}", params, "fidelities.f.params", folder, context)
    return WorkerPool(spec, n, timeout, folder / "logs")


def _ask(pool: WorkerPool, *whats: int) -> list[Measurement]:
    answers: dict[str, Measurement] = {}
    work = [(BoxCandidate((float(what), float(i))), f"key-{i}") for i, what in enumerate(whats)]
    pool.run(work, lambda _key: True, answers.__setitem__)
    return [answers[key] for _, key in work]


def _value(measurement: Measurement) -> float | None:
    return measurement.values["y"].value if measurement.is_success else None


def _gone(pid: int, seconds: float) -> bool:
    """Whether a process ends (or is a zombie that nobody reaps) within a time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_hangs_and_crashes_fail_one_evaluation_each(tmp_path: Path) -> None:
    pool = _pool(tmp_path, timeout=1.0)
    try:
        answers = _ask(pool, 0, 7, 8, 0, 1, 0, 2, 0, 3, 0)
    finally:
        pool.close()
    assert [_value(a) for a in answers] == [0.0, None, None, 3.0, None, 5.0, None, 7.0, None, 9.0]
    reasons = [a.reason or "" for a in answers]
    name = "scripted.py:Scripted"
    assert reasons[1] == f"the oracle {name!r} raised ValueError: not this one"
    assert f"the oracle {name!r} raised TypeError" in reasons[2]
    assert reasons[4] == f"the oracle {name!r} timed out after 1 s"
    assert f"the process of the oracle {name!r} died: it ended with code 7" in reasons[6]
    assert f"the process of the oracle {name!r} died: it was killed by signal 9" in reasons[8]
    pids = (tmp_path / "pids").read_text().split()
    # One process as long as nothing kills it: it raised twice and went on.
    assert [pids.index(pid) for pid in pids] == [0, 0, 0, 0, 0, 5, 5, 7, 7, 9]
    assert all(_gone(int(pid), 1.0) for pid in pids)


def test_a_full_disk_is_no_answer_about_a_candidate(tmp_path: Path) -> None:
    pool = _pool(tmp_path)
    answers: dict[str, Measurement] = {}
    work = [(BoxCandidate((float(what), 3.0)), f"key-{i}") for i, what in enumerate((0, 10, 0))]
    try:
        with pytest.raises(
            MachineError, match=r"'scripted\.py:Scripted': ValueError: the trajectory can't be kept\. What"
        ):
            pool.run(work, lambda _key: True, answers.__setitem__)
    finally:
        pool.close()
    assert list(answers) == ["key-0"]
    assert all(_gone(int(pid), 1.0) for pid in (tmp_path / "pids").read_text().split())


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        ("Homeless", r"can't be made: .*Read-only file system\. What"),
        ("Scripted", "can't be started: .*open files"),
    ],
)
def test_a_worker_that_the_machine_can_not_start_fails_no_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cls: str, said: str
) -> None:
    if cls == "Scripted":
        full = OSError(errno.EMFILE, "Too many open files")
        monkeypatch.setattr(os, "pipe", Mock(side_effect=full))
    pool = _pool(tmp_path, cls=cls)
    answers: dict[str, Measurement] = {}
    with pytest.raises(MachineError, match=said):
        pool.run([(BoxCandidate((0.0, 0.0)), "key")], lambda _key: True, answers.__setitem__)
    assert answers == {}
    pool.close()


def test_much_output_stops_nothing(tmp_path: Path) -> None:
    pool = _pool(tmp_path)
    try:
        answers = _ask(pool, 4, 0, 4)
    finally:
        pool.close()
    assert [_value(a) for a in answers] == [0.0, 1.0, 2.0]
    assert (tmp_path / "logs" / "worker-1.log").stat().st_size >= 20_000_000


def test_processes_work_in_parallel(tmp_path: Path) -> None:
    pool = _pool(tmp_path, n=3)
    try:
        answers = _ask(pool, 9, 9, 9)
        again = _ask(pool, 0, 0, 0)
    finally:
        pool.close()
    assert [_value(a) for a in answers] == [0.0, 1.0, 2.0]
    assert [_value(a) for a in again] == [0.0, 1.0, 2.0]
    assert len(set((tmp_path / "pids").read_text().split())) == 3


def test_what_an_oracle_started_dies_with_it(tmp_path: Path) -> None:
    pool = _pool(tmp_path, timeout=2.0)
    try:
        (answer,) = _ask(pool, 6)
    finally:
        pool.close()
    assert "timed out after 2 s" in (answer.reason or "")
    assert _gone(int((tmp_path / "grandchild").read_text()), 1.0)


def test_a_worker_that_cannot_start_fails_its_evaluations(tmp_path: Path) -> None:
    pool = _pool(tmp_path, cls="Slow")
    try:
        (answer,) = _ask(pool, 0)
    finally:
        pool.close()
    assert "the worker process of the oracle 'scripted.py:Slow' did not start" in (answer.reason or "")
    assert "no licence" in (answer.reason or "")


PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_isolation import _pool, _ask
_ask(_pool(Path({folder!r}), timeout=500.0), {what})
"""


@pytest.mark.parametrize("what", [1, 5, 6], ids=["python", "native code with the lock", "with a child"])
def test_a_worker_dies_with_its_parent(tmp_path: Path, what: int) -> None:
    script = PARENT.format(here=str(Path(__file__).parent), folder=str(tmp_path), what=what)
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        waited_for = tmp_path / ("grandchild" if what == 6 else "pids")
        until = time.monotonic() + 120
        while not (waited_for.exists() and waited_for.read_text().strip()):
            assert parent.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(0.2)  # into the sleep
    finally:
        parent.kill()
        parent.wait()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    if what == 6:
        pids.append(int((tmp_path / "grandchild").read_text()))
    assert all(_gone(pid, 1.0) for pid in pids)


CAMPAIGN = """
import time
from oracles import Oracle


class Low(Oracle):
    def evaluate_one(self, candidate):
        if candidate.values[0] > 0.5:
            time.sleep(600)
        return 1.0


class High(Oracle):
    def evaluate_one(self, candidate):
        return 0.5
"""


def test_a_campaign_lives_with_an_oracle_that_hangs(bench: Any) -> None:
    bench.write("oracle.py", CAMPAIGN)
    config = bench.config(
        {
            "fidelities.0.timeout": 0.5,
            "fidelities.0.max_in_flight": 2,
            "initial_design": {"per_fidelity": {"low": 6, "high": 1}},
            "stopping.max_rounds": 1,
        }
    )
    with bench.open(config) as engine:
        decision = run(engine)
        assert engine.balance().reserved == 0
    assert decision.action == "finished"
    rows = [row for row in bench.evaluations() if row.fidelity == "low"]
    for row in rows:
        hangs = row.candidate["values"][0] > 0.5
        assert row.state == ("failed" if hangs else "succeeded")
        assert row.reason == ("the oracle 'oracle.py:Low' timed out after 0.5 s" if hangs else None)
        assert row.cost_paid == 0.25
    assert {row.state for row in rows} == {"failed", "succeeded"}


def test_ctrl_c_leaves_what_was_at_work_open(bench: Any) -> None:
    bench.write("oracle.py", CAMPAIGN.replace("> 0.5", "> -1"))
    config = bench.config({"fidelities.0.timeout": 500})

    def interrupt(event: str, _facts: Any) -> None:
        if event == "evaluation.running":
            signal.setitimer(signal.ITIMER_REAL, 0.5)

    def stop(_signal: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt), bench.open(config, observer=interrupt) as engine:
            tick(engine)
        assert time.monotonic() - begin < 60
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    rows = bench.evaluations()
    assert {row.state for row in rows if row.fidelity == "low"} <= {"running", "submitted"}
    assert any(row.state == "running" for row in rows)
    assert all(row.claimed_by is None for row in rows)
    assert bench.rows("SELECT * FROM leases") == []
    assert bench.rows("SELECT kind FROM ledger WHERE kind != 'reserve'") == []
