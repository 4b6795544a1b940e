"""Jobs under a scheduler: the same suite for the pool of this machine and for a real Slurm."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from activelearning.contracts.oracle import JobState
from oracles.dft.queue import JobQueue
from oracles.dft.schedulers import SchedulerError, Ticket, supervisor

KEY = "a" * 64


def test_a_job_comes_back_with_its_result_and_its_cost(bench: Any) -> None:
    queue = bench.queue(seconds=1.0)
    assert not queue.find(KEY)
    bench.put(queue)
    assert queue.find(KEY)
    done = bench.done(queue)
    assert done.reason is None
    # Two atoms in 8 Å³: the minimum.
    assert done.result["energy"] == pytest.approx(-2.0)
    assert set(done.result["versions"]) == {"python", "ase"}
    assert 1.0 <= done.seconds < 120
    assert done.core_hours == pytest.approx(done.seconds / 3600)
    assert bench.ran() == ["1"]
    # The scheduler may forget it: the folder has not.
    assert bench.queue().over(KEY) == done


def test_putting_a_job_in_twice_runs_it_once(bench: Any) -> None:
    bench.put(bench.queue())
    queue = bench.queue()
    bench.put(queue)
    bench.done(queue)
    bench.put(queue)
    assert isinstance(bench.done(queue).result, dict)
    assert bench.ran() == ["1"]


def test_a_submission_whose_answer_was_lost_is_found(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = bench.queue(seconds=1.0)
    submit = queue.scheduler.submit

    def lose(ticket: Ticket) -> str:
        submit(ticket)
        raise SchedulerError("Socket timed out on send/recv operation")

    monkeypatch.setattr(queue.scheduler, "submit", lose)
    with pytest.raises(SchedulerError):
        bench.put(queue)
    assert bench.record()["attempts"][0]["id"] is None
    again = bench.queue()
    assert again.find(KEY)
    assert bench.record()["attempts"][0]["id"] is not None
    assert bench.done(again).n_attempts == 1
    assert bench.ran() == ["1"]


def test_two_jobs_of_one_attempt_do_the_work_once(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler that had taken a job, and did not know it when it was asked."""
    queue = bench.queue(seconds=2.0)
    submit, find = queue.scheduler.submit, queue.scheduler.find
    monkeypatch.setattr(queue.scheduler, "submit", lambda ticket: [submit(ticket), submit(ticket)][1])
    monkeypatch.setattr(queue.scheduler, "find", lambda names: {} if bench.kind == "slurm" else find(names))
    bench.put(queue)
    assert bench.done(queue).n_attempts == 1
    time.sleep(1.0)
    assert bench.ran() == ["1"]


@pytest.mark.parametrize(
    ("fate", "reason"),
    [
        (
            "diverges",
            "did not converge: fake_calculators.ConvergenceError: no self-consistency after 333 iter",
        ),
        ("refuses", "bad input: ValueError: a parameter is wrong"),
        ("needs memory", "out of memory: MemoryError"),
        ("crashes", "the code failed: it crashed with SIGSEGV"),
    ],
)
def test_faults_of_the_calculation_are_final(bench: Any, fate: str, reason: str) -> None:
    queue = bench.queue(fate)
    bench.put(queue)
    done = bench.done(queue)
    assert done.result is None
    assert done.reason.startswith(reason), done.reason
    assert "last lines: " in done.reason
    if fate == "diverges":
        assert (
            "iteration 333: still 0.3 eV apart" in (bench.folder / "jobs" / KEY / "attempt-1.log").read_text()
        )
        assert "ConvergenceError" in done.reason.split("last lines")[1]
    assert done.n_attempts == 1
    assert bench.queue().over(KEY) == done


@pytest.mark.parametrize("fate", ["is killed", "disk fails"])
def test_faults_of_the_infrastructure_are_tried_again(bench: Any, fate: str) -> None:
    queue = bench.queue(f"{fate}-once")
    bench.put(queue)
    done = bench.done(queue)
    assert done.result["attempt"] == 2
    assert done.n_attempts == 2
    assert bench.ran() == ["1", "2"]
    first, second = bench.record()["attempts"]
    assert first["fault"] == {"is killed": "killed", "disk fails": "node lost"}[fate]
    assert second["name"] == f"{KEY}.2"
    # Both attempts were paid for.
    assert done.seconds > first["seconds"] > 0


def test_attempts_are_bounded(bench: Any) -> None:
    queue = bench.queue("is killed", max_attempts=2)
    bench.put(queue)
    done = bench.done(queue)
    assert done.reason.startswith("killed after 2 attempts: it was ended by signal 9")
    assert bench.ran() == ["1", "2"]


def test_no_attempt_is_made_beyond_the_cost(bench: Any) -> None:
    queue = bench.queue("is killed", max_core_hours=1e-9)
    bench.put(queue)
    assert bench.done(queue).n_attempts == 1


def test_attempts_wait_longer_and_longer(bench: Any) -> None:
    queue = bench.queue("is killed-once", backoff=1000.0)
    bench.put(queue)
    bench.until(queue, KEY, lambda _: bench.record()["attempts"][0]["fault"] is not None)
    waits = bench.record()["not_before"] - time.time()
    assert 900 < waits <= 1000
    assert queue.look([KEY]) == {KEY: JobState.SUBMITTED}
    assert bench.ran() == ["1"]


def test_a_cancelled_job_ends(bench: Any) -> None:
    queue = bench.queue("hangs")
    bench.put(queue)
    bench.running(queue)
    queue.cancel([KEY, "unknown"])
    assert queue.look([KEY]) == {KEY: JobState.CANCELLED}
    name_and_id = {KEY: bench.record()["attempts"][0]["id"]}
    end = time.monotonic() + 30
    while queue.scheduler.statuses(name_and_id)[KEY].phase != "cancelled":
        assert time.monotonic() < end
        time.sleep(0.2)
    queue.cancel([KEY])
    assert bench.queue().look([KEY]) == {KEY: JobState.CANCELLED}


def test_a_job_cancelled_outside_is_cancelled_here(bench: Any) -> None:
    queue = bench.queue("hangs")
    bench.put(queue)
    bench.running(queue)
    queue.scheduler.cancel({KEY: bench.record()["attempts"][0]["id"]})
    bench.until(queue, KEY, lambda o: o is JobState.CANCELLED)


def test_a_job_whose_folder_is_gone_is_lost(bench: Any) -> None:
    assert bench.queue().look(["b" * 64]) == {"b" * 64: JobState.LOST}


def test_a_program_that_was_killed_is_started_again(bench: Any) -> None:
    queue = bench.queue("program is killed-once")
    bench.put(queue)
    assert bench.done(queue).result["energy"] == pytest.approx(-2.0)
    (first, second) = bench.record()["attempts"]
    assert first["fault"] == "killed"
    assert "SIGKILL" in first["detail"]
    assert second["fault"] is None
    assert bench.ran() == ["1", "2"]


def test_an_end_without_a_result_is_no_success(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oracles.dft.queue.SETTLE_SECONDS", 0.5)
    queue = bench.queue("is quiet")
    bench.put(queue)
    assert bench.done(queue).reason.startswith("killed after 2 attempts: it ended without a word")


@pytest.mark.parametrize("fate", ["hangs", "program hangs"])
def test_a_job_at_its_time_limit_is_out_of_time(bench: Any, fate: str) -> None:
    """Of a program that it waits for, the calculation sees the end, and not why."""
    # Slurm counts in minutes.
    queue = bench.queue(fate, time_limit=5.0 if bench.kind == "local" else 60.0)
    bench.put(queue)
    done = bench.done(queue, seconds=200)
    assert done.reason.startswith("out of time: the scheduler says timeout") or "TIMEOUT" in done.reason
    assert done.n_attempts == 1
    assert done.seconds >= (5.0 if bench.kind == "local" else 60.0)


def test_a_relaxation_goes_on_from_its_last_step(bench: Any) -> None:
    """Killed in mid-relaxation: the second attempt starts where the first was, and both count against the steps."""
    queue = bench.queue(seconds=0.3)
    cell = [[2.3, 0, 0], [0, 2.3, 0], [0, 0, 2.3]]
    atoms = {**bench.job(queue)["atoms"], "cell": cell}
    relaxation = {"cell": True, "symmetry": True, "fmax": 1e-3, "max_steps": 50}
    bench.put(queue, atoms=atoms, relaxation=relaxation)
    restart = bench.folder / "jobs" / KEY / "restart.json"
    bench.until(queue, KEY, lambda _: restart.exists() and json.loads(restart.read_text())["steps"] >= 2)
    _kill_script_of(bench.folder / "jobs" / KEY)
    done = bench.done(queue)
    assert done.n_attempts == 2
    assert done.result["energy"] == pytest.approx(-2.0, abs=1e-4)
    volume = done.result["atoms"]["cell"][0][0] ** 3
    assert volume == pytest.approx(8.0, rel=1e-2)
    ran = bench.ran()
    assert ran.count("1") >= 2
    # A whole relaxation, its final energy, and the step that was lost.
    assert done.result["steps"] >= 3
    assert len(ran) <= done.result["steps"] + 5
    assert (bench.folder / "jobs" / KEY / "final.extxyz").is_file()


def test_a_relaxation_out_of_steps_did_not_converge(bench: Any) -> None:
    queue = bench.queue()
    atoms = {**bench.job(queue)["atoms"], "cell": [[2.3, 0, 0], [0, 2.3, 0], [0, 0, 2.3]]}
    relaxation = {"cell": True, "symmetry": True, "fmax": 1e-6, "max_steps": 1}
    bench.put(queue, atoms=atoms, relaxation=relaxation)
    done = bench.done(queue)
    assert done.reason.startswith("did not converge")
    assert "still above 1e-06 eV/Å after 1 steps" in done.reason


def _kill_script_of(folder: Path) -> None:
    """SIGKILL to the runner of a job, found by its working directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").resolve() == folder and b"runner.py" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    assert found
    for pid in found:
        os.kill(pid, signal.SIGKILL)


class TestLocal:
    """What only the pool of this machine has."""

    @pytest.fixture
    def scheduler_section(self) -> dict[str, Any]:
        return {"type": "local"}

    def _supervisor(self, bench: Any) -> int:
        """Process of the supervisor that holds the lock."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if supervisor.__file__.encode() in command and str(bench.folder / "pool").encode() in command:
                    return int(entry.name)
        raise AssertionError("no supervisor at work")

    def test_jobs_outlive_their_supervisor(self, bench: Any) -> None:
        queue = bench.queue(seconds=4.0)
        bench.put(queue)
        bench.running(queue)
        os.kill(self._supervisor(bench), signal.SIGKILL)
        done = bench.done(bench.queue())
        assert done.n_attempts == 1
        assert bench.ran() == ["1"]

    def test_a_job_that_ends_unsupervised_is_taken_in(self, bench: Any) -> None:
        queue = bench.queue("is killed-once", seconds=2.0)
        key = "b" * 64
        slow = bench.queue(seconds=2.0)
        bench.put(slow, key)
        bench.running(slow, key)
        os.kill(self._supervisor(bench), signal.SIGKILL)
        _kill_script_of(bench.folder / "jobs" / key)
        assert bench.done(queue, key).n_attempts == 2
        assert bench.record(key)["attempts"][0]["fault"] == "killed"

    def test_a_job_of_another_boot_was_lost_with_its_node(self, bench: Any) -> None:
        queue = bench.queue("hangs", max_attempts=1)
        bench.put(queue)
        bench.running(queue)
        os.kill(self._supervisor(bench), signal.SIGKILL)
        run = bench.folder / "pool" / "running" / f"{KEY}.json"
        old = json.loads(run.read_text())
        run.write_text(json.dumps({**old, "boot": "another"}))
        assert bench.done(queue).reason.startswith("node lost: the scheduler says node lost")

    def test_a_job_forgotten_by_the_pool_is_noticed(
        self, bench: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("oracles.dft.queue.ALIVE_SECONDS", 0.0)
        queue = bench.queue("hangs", max_attempts=1)
        bench.put(queue)
        bench.running(queue)
        queue.scheduler.cancel({KEY: KEY})
        (bench.folder / "pool" / "ended" / f"{KEY}.json").unlink()
        assert bench.done(queue).reason.startswith("lost by the scheduler: ")

    def test_cores_bound_what_runs_at_once(self, bench: Any) -> None:
        queue = bench.queue("hangs", total_cores=2)
        keys = [str(i) * 64 for i in range(4)]
        for key in keys:
            bench.put(queue, key)
        for key in keys[:2]:
            bench.running(queue, key)
        time.sleep(1.0)
        states = [queue.look(keys)[key] for key in keys]
        assert states == [JobState.RUNNING] * 2 + [JobState.SUBMITTED] * 2
        queue.cancel(keys[:1])
        bench.running(queue, keys[2])

    def test_memory_is_bounded(self, bench: Any) -> None:
        queue = bench.queue("fills memory", seconds=20.0, memory=400)
        bench.put(queue)
        done = bench.done(queue)
        assert done.reason.startswith("out of memory: the scheduler says out of memory")
        assert done.n_attempts == 1

    def test_a_supervisor_ends_when_it_has_nothing_to_do(self, bench: Any) -> None:
        queue: JobQueue = bench.queue()
        bench.put(queue)
        bench.done(queue)
        pid = self._supervisor(bench)
        end = time.monotonic() + supervisor.IDLE + 20
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < end
            time.sleep(0.2)
