"""The process behind the local pool, taken over after a death or a reboot, step by step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oracles.dft.schedulers import supervisor
from oracles.dft.schedulers.supervisor import Supervisor

NAME = "reference-Li-0123456789abcdef"
HOURS = 3600.0


class Pool:
    """A spool and one job's folder."""

    def __init__(self, folder: Path) -> None:
        self.spool = folder / "pool"
        self.job = folder / "job"
        self.job.mkdir()
        for name in (supervisor.JOBS, supervisor.RUNNING, supervisor.ENDED, supervisor.CANCEL):
            (self.spool / name).mkdir(parents=True)

    def asked(self, name: str = NAME, cores: int = 1, submitted: float = 0.0) -> None:
        entry = {
            "name": name,
            "folder": str(self.job),
            "script": "job.sh",
            "attempt": 1,
            "log": "attempt-1.log",
            "cores": cores,
            "time_limit": 24 * HOURS,
            "submitted": submitted,
        }
        (self.spool / supervisor.JOBS / f"{name}.json").write_text(json.dumps(entry))

    def started(self, pid: int, ticks: int, *, ago: float = 0.0, boot: str | None = None) -> None:
        """As a supervisor that is dead by now had noted it."""
        self.asked()
        run = {"pid": pid, "ticks": ticks, "begun": time.time() - ago, "boot": boot or supervisor.boot_id()}
        (self.spool / supervisor.RUNNING / f"{NAME}.json").write_text(json.dumps(run))

    def beat(self, ago: float, attempt: int = 1) -> None:
        heartbeat = self.job / supervisor.HEARTBEAT
        heartbeat.write_text(json.dumps({"attempt": attempt, "seconds": 1.0}))
        os.utime(heartbeat, (time.time() - ago,) * 2)

    def taken_over(self) -> Supervisor:
        made = Supervisor(self.spool, cores=1)
        made._take_over()
        made._watch({})
        return made

    def end(self, name: str = NAME) -> Any:
        return supervisor.read_json(self.spool / supervisor.ENDED / f"{name}.json")


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool(tmp_path)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a session, and is none of ours."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def orphan(mark: str) -> tuple[int, int]:
    """Session whose first process is gone, and the process that it left behind."""
    environment = {**os.environ, **({supervisor.MARK: mark} if mark else {})}
    command = "sleep 600 > /dev/null & echo $!"
    leader = subprocess.Popen(
        ["bash", "-c", command], env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    assert leader.stdout is not None
    left = int(leader.stdout.read())
    leader.wait()
    return leader.pid, left


def is_alive(pid: int) -> bool:
    known = supervisor.process(pid)
    return known is not None and known[0] != "Z"


def start_ticks(pid: int) -> int:
    known = supervisor.process(pid)
    assert known is not None
    return known[2]


@pytest.mark.parametrize("boot", ["another", None])
def test_downtime_is_not_charged(pool: Pool, boot: str | None) -> None:
    """Ten minutes of work, and eight hours until somebody looked."""
    pool.started(2**22 + 1, 1, ago=8 * HOURS + 600, boot=boot)
    pool.beat(ago=8 * HOURS)
    pool.taken_over()
    assert pool.end()["state"] == ("node_lost" if boot else "killed")
    assert pool.end()["seconds"] == pytest.approx(600, abs=5)


def test_a_job_that_ended_unwatched_took_what_its_script_says(pool: Pool) -> None:
    pool.started(2**22 + 1, 1, ago=8 * HOURS)
    pool.beat(ago=7 * HOURS)
    (pool.job / "exit-1.json").write_text('{"code": 1, "seconds": 3605}')
    pool.taken_over()
    assert (pool.end()["state"], pool.end()["seconds"]) == ("ended", 3605.0)


@pytest.mark.parametrize("exit_file", [None, ""])
def test_an_attempt_without_a_sign_of_life_took_nothing(pool: Pool, exit_file: str | None) -> None:
    pool.started(2**22 + 1, 1, ago=8 * HOURS, boot="another")
    pool.beat(ago=8 * HOURS, attempt=2)
    if exit_file is not None:
        (pool.job / "exit-1.json").write_text(exit_file)  # as a lost machine may leave it
    pool.taken_over()
    assert pool.end()["seconds"] == 0.0


def test_a_job_that_is_taken_over_alive_is_watched_to_its_end(
    pool: Pool, stranger: subprocess.Popen[bytes]
) -> None:
    pool.started(stranger.pid, start_ticks(stranger.pid), ago=HOURS)
    work = pool.taken_over()
    assert pool.end() is None
    stranger.kill()
    stranger.wait()
    work._watch({})
    assert pool.end()["seconds"] == pytest.approx(HOURS, abs=5)


@pytest.mark.parametrize(("boot", "ticks"), [("another", 0), (None, 1)])
def test_who_has_the_number_of_an_earlier_job_is_left_alone(
    pool: Pool, stranger: subprocess.Popen[bytes], boot: str | None, ticks: int
) -> None:
    """After another boot, even with the same start time; in the same boot with another one."""
    pool.started(stranger.pid, start_ticks(stranger.pid) + ticks, boot=boot)
    pool.taken_over()
    assert pool.end()["state"] == ("node_lost" if boot else "killed")
    time.sleep(0.2)
    assert stranger.poll() is None


@pytest.mark.parametrize(("mark", "is_ours"), [(NAME, True), ("another", False), ("", False)])
def test_what_a_job_left_behind_is_ended_and_nothing_else(pool: Pool, mark: str, is_ours: bool) -> None:
    session, left = orphan(mark)
    try:
        pool.started(session, 1)
        pool.taken_over()
        end = time.monotonic() + 10
        while is_ours and is_alive(left):
            assert time.monotonic() < end
            time.sleep(0.05)
        time.sleep(0.2)
        assert is_alive(left) != is_ours
    finally:
        if is_alive(left):
            os.kill(left, signal.SIGKILL)


def test_a_process_of_another_user_does_not_stop_the_pool(
    pool: Pool, stranger: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.started(stranger.pid, start_ticks(stranger.pid))
    (pool.spool / supervisor.CANCEL / NAME).touch()

    def refuse(pid: int, _number: int) -> None:
        assert pid == stranger.pid
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    assert pool.taken_over().jobs[NAME].verdict == "cancelled"


def test_jobs_that_wait_behind_a_large_one_can_be_cancelled(pool: Pool) -> None:
    pool.asked("first", cores=2, submitted=1.0)
    pool.asked("second", submitted=2.0)
    (pool.spool / supervisor.CANCEL / "second").touch()
    Supervisor(pool.spool, cores=1)._start()
    assert pool.end("first") is None
    assert (pool.end("second")["state"], pool.end("second")["seconds"]) == ("cancelled", 0.0)
    assert not (pool.spool / supervisor.JOBS / "second.json").exists()
