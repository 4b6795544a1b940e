"""Which attempts are made, and when: a scheduler without a machine, and files that a job would have written."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from activelearning.contracts.oracle import JobState
from oracles.dft import runner
from oracles.dft.engines import ASEEngine
from oracles.dft.faults import Fault
from oracles.dft.folder import JobFolder
from oracles.dft.queue import FOREIGN_SECONDS, Done, JobQueue, Retries
from oracles.dft.schedulers import JobStatus, LocalScheduler, Phase, Scheduler, SchedulerError, Ticket

KEY = "a" * 64
EMT = {"class": "ase.calculators.emt:EMT", "params": {}}
CALCULATORS = {"calculator": EMT, "relaxation_calculator": EMT}
JOB: dict[str, Any] = {"atoms": {"numbers": [3]}, "modules": [], "relaxation": None, **CALCULATORS}


class Board(Scheduler):
    """Keeps what it was handed on a list, and runs nothing.

    Args:
        takes_batches: Whether jobs are handed over together.
        identity: What tells it from others.
    """

    id_in_job: ClassVar[str] = "$NUMBER"

    def __init__(self, takes_batches: bool = False, identity: str = "board") -> None:
        super().__init__(cores=1)
        self._identity = identity
        self.takes_batches = takes_batches
        self.jobs: dict[str, str] = {}  # ids of what waits or runs, by name
        self.ended: dict[str, JobStatus] = {}
        self.calls: list[str] = []
        self.is_down = False

    @property
    def identity(self) -> str:
        return self._identity

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.is_down:
            raise SchedulerError("nobody answers")

    def submit(self, ticket: Ticket) -> str:
        self._note(f"submit {ticket.attempt}")
        self.jobs[ticket.name] = str(len(self.calls))
        return self.jobs[ticket.name]

    def submit_all(self, tickets: Sequence[Ticket]) -> Mapping[str, str]:
        self._note(f"submit_all {len(tickets)}")
        self.jobs |= {ticket.name: f"{len(self.calls)}_{i}" for i, ticket in enumerate(tickets)}
        return {ticket.name: self.jobs[ticket.name] for ticket in tickets}

    def find(self, names: Sequence[str]) -> Mapping[str, str]:
        self._note(f"find {len(names)}")
        return {name: self.jobs[name] for name in names if name in self.jobs}

    def statuses(self, jobs: Mapping[str, str]) -> Mapping[str, JobStatus]:
        self._note(f"statuses {len(jobs)}")
        waiting = {name: JobStatus(Phase.PENDING) for name in jobs if name in self.jobs}
        return waiting | {name: self.ended[name] for name in jobs if name in self.ended}

    def cancel(self, jobs: Mapping[str, str]) -> None:
        self._note(f"cancel {' '.join(jobs)}")
        for name in jobs:
            self.jobs.pop(name, None)

    def end(self, name: str) -> None:
        """Have a job end."""
        del self.jobs[name]
        self.ended[name] = JobStatus(Phase.ENDED, seconds=1.0)


def queue_of(folder: Path, scheduler: Scheduler, **retries: Any) -> JobQueue:
    engine = ASEEngine("ase.calculators.emt:EMT")
    bounds = {"max_attempts": 30, "backoff": 60.0, "max_core_hours": 1e6, **retries}
    return JobQueue(folder / "jobs", scheduler, engine, Retries(**bounds))


def record_of(queue: JobQueue, key: str = KEY) -> Any:
    return JobFolder(queue.folder / key).record()


def told(queue: JobQueue, name: str, value: Any, key: str = KEY) -> None:
    """A file that the job wrote."""
    runner.write_json(queue.folder / key / name, value)


def due(queue: JobQueue, key: str = KEY) -> None:
    """Let the time until the next attempt be over."""
    from dataclasses import replace

    folder = JobFolder(queue.folder / key)
    record = folder.record()
    assert record is not None
    folder.keep(replace(record, not_before=0.0))


def waits(queue: JobQueue, ended: Mapping[str, Any]) -> float:
    """Seconds until the next attempt, after the last one has ended with an exit code and perhaps a restart file."""
    last = record_of(queue).last
    code = ended["code"]
    if "got_on" in ended:
        told(queue, runner.RESTART, {"attempt": last.number, "steps": last.number})
        (queue.folder / KEY / f"attempt-{last.number}.log").write_text("CANCELLED DUE TO TIME LIMIT\n")
    told(queue, f"exit-{last.number}.json", {"code": code, "seconds": 1.0})
    queue.scheduler.end(last.name)  # type: ignore[attr-defined]
    queue.look([KEY])
    record = record_of(queue)
    if record.last.number == last.number + 1:
        return 0.0
    wait = float(record.not_before - time.time())
    due(queue)
    queue.look([KEY])
    return wait


KILLED, GOT_ON = {"code": 137}, {"code": 143, "got_on": True}


def test_what_ran_out_of_time_and_got_on_goes_on_at_once(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, Board())
    queue.put(KEY, JOB)
    assert [waits(queue, GOT_ON) for _ in range(12)] == [0.0] * 12


def test_waits_double_with_faults_of_the_infrastructure_alone(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, Board())
    queue.put(KEY, JOB)
    found = [waits(queue, ended) for ended in (GOT_ON, GOT_ON, KILLED, GOT_ON, KILLED, KILLED)]
    assert found == pytest.approx([0.0, 0.0, 60.0, 0.0, 120.0, 240.0], abs=5.0)


def test_an_exit_file_that_a_lost_machine_cut_short_says_nothing(tmp_path: Path) -> None:
    scheduler = Board()
    queue = queue_of(tmp_path, scheduler, backoff=0.0)
    queue.put(KEY, JOB)
    (queue.folder / KEY / "exit-1.json").write_text("")
    scheduler.end(KEY)
    scheduler.ended[KEY] = JobStatus(Phase.ENDED, Fault.NODE_LOST, seconds=1.0, word="node lost")
    assert queue.look([KEY]) == {KEY: JobState.SUBMITTED}
    assert [a.fault for a in record_of(queue).attempts] == [Fault.NODE_LOST, None]


def test_no_wait_is_longer_than_an_hour(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, Board())
    queue.put(KEY, JOB)
    found = [waits(queue, KILLED) for _ in range(12)]
    assert found[:6] == pytest.approx([60.0 * 2.0**n for n in range(6)], abs=5.0)
    assert found[6:] == pytest.approx([3600.0] * 6, abs=5.0)
    # Unless that is what was asked for.
    patient = queue_of(tmp_path / "patient", Board(), backoff=7200.0)
    patient.put(KEY, JOB)
    assert [waits(patient, KILLED) for _ in range(2)] == pytest.approx([7200.0] * 2, abs=5.0)


KEYS = [f"{i:064d}" for i in range(5)]


@pytest.mark.parametrize("has_taken_them", [False, True])
@pytest.mark.parametrize("takes_batches", [True, False])
def test_a_handing_over_that_failed_is_repaired_in_one_search(
    tmp_path: Path, takes_batches: bool, has_taken_them: bool
) -> None:
    """By the next look, or by the next time that the jobs are put in; whatever the scheduler had made of it."""
    for again in ("look", "put"):
        folder = tmp_path / again
        scheduler = Board(takes_batches)
        lost = queue_of(folder, scheduler)
        scheduler.is_down = True
        for key in KEYS:
            with contextlib.nullcontext() if takes_batches else pytest.raises(SchedulerError):
                lost.put(key, JOB)
        if takes_batches:
            with pytest.raises(SchedulerError):
                lost.flush()
        assert [record_of(lost, key).last.id for key in KEYS] == [None] * 5
        scheduler.is_down = False
        if has_taken_them:
            scheduler.jobs = {key: f"7_{i}" for i, key in enumerate(KEYS)}
        scheduler.calls.clear()
        queue = queue_of(folder, scheduler)  # as after a kill
        if again == "look":
            assert queue.look(KEYS) == dict.fromkeys(KEYS, JobState.SUBMITTED)
        else:
            for key in KEYS:
                queue.put(key, JOB)
            queue.flush()
        submitted = ["submit_all 5"] if takes_batches else ["submit 1"] * 5
        if takes_batches or again == "look":
            assert scheduler.calls == ["find 5", *([] if has_taken_them else submitted)]
        else:
            assert scheduler.calls.count("find 1") == 5
            assert len(scheduler.calls) == (5 if has_taken_them else 10)
        assert [record_of(queue, key).last.id for key in KEYS] == [scheduler.jobs[key] for key in KEYS]
        scheduler.calls.clear()
        queue.look(KEYS)
        assert scheduler.calls == ["statuses 5"]


def test_attempts_that_are_due_are_handed_over_together(tmp_path: Path) -> None:
    scheduler = Board(takes_batches=True)
    queue = queue_of(tmp_path, scheduler, backoff=0.0)
    for key in KEYS:
        queue.put(key, JOB)
    queue.flush()
    for key in KEYS:
        told(queue, "exit-1.json", {"code": 137, "seconds": 1.0}, key)
        scheduler.end(key)
    scheduler.calls.clear()
    queue.look(KEYS)
    assert scheduler.calls == ["statuses 5", "submit_all 5"]
    assert {f"{key}.2" for key in KEYS} == set(scheduler.jobs)


def test_a_job_that_began_before_its_id_was_on_record_is_not_looked_up(tmp_path: Path) -> None:
    scheduler = Board()
    queue = queue_of(tmp_path, scheduler)
    scheduler.is_down = True
    with pytest.raises(SchedulerError):
        queue.put(KEY, JOB)
    (queue.folder / KEY / "claim-1").write_text("17\n")
    scheduler.is_down, scheduler.calls = False, []
    assert queue.look([KEY]) == {KEY: JobState.SUBMITTED}
    assert record_of(queue).last.id == "17"
    assert scheduler.calls == []


def energy_of(attempt: int) -> dict[str, Any]:
    return {"attempt": attempt, "state": "done", "energy": -1.0, "seconds": 50.0, "versions": {}}


@pytest.mark.parametrize("is_on_record", [True, False])
def test_an_attempt_that_an_earlier_one_has_overtaken_is_ended(tmp_path: Path, is_on_record: bool) -> None:
    """The first was given up for lost, and delivers after all."""
    scheduler = Board()
    queue = queue_of(tmp_path, scheduler, backoff=0.0)
    queue.put(KEY, JOB)
    del scheduler.jobs[KEY]
    assert queue.look([KEY]) == {KEY: JobState.SUBMITTED}
    assert [a.fault for a in record_of(queue).attempts] == [Fault.LOST, None]
    claim = queue.folder / KEY / "claim-2"
    claim.write_text("2\n")
    os.utime(claim, (time.time() - 30.0,) * 2)
    if not is_on_record:
        JobFolder(queue.folder / KEY).keep(record_of(queue).with_last(id=None))
    told(queue, runner.RESULT, energy_of(1))
    scheduler.calls.clear()
    done = queue.look([KEY])[KEY]
    assert isinstance(done, Done)
    assert done.result == energy_of(1)
    assert scheduler.calls == [*([] if is_on_record else ["find 1"]), f"cancel {KEY}.2"]
    assert scheduler.jobs == {}
    # What both attempts took is paid for; and the second look says the same and asks nobody.
    assert done.seconds == pytest.approx(80.0, abs=5.0)
    scheduler.calls.clear()
    assert queue.look([KEY]) == {KEY: done} == {KEY: queue.over(KEY)}
    assert scheduler.calls == []


def test_a_result_that_arrives_during_a_look_ends_the_later_attempt_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = Board()
    queue = queue_of(tmp_path, scheduler, backoff=0.0)
    queue.put(KEY, JOB)
    del scheduler.jobs[KEY]
    queue.look([KEY])
    statuses = scheduler.statuses

    def deliver(jobs: Mapping[str, str]) -> Mapping[str, JobStatus]:
        told(queue, runner.RESULT, energy_of(1))
        return {name: JobStatus(Phase.ENDED) for name in statuses(jobs)}

    monkeypatch.setattr(scheduler, "statuses", deliver)
    assert isinstance(queue.look([KEY])[KEY], Done)
    assert scheduler.calls[-1] == f"cancel {KEY}.2"


def test_an_attempt_that_fails_does_not_undo_the_result_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which came in while the failing one was at work."""

    def deliver_and_fail(*_: Any) -> dict[str, Any]:
        runner.write_json(tmp_path / runner.RESULT, energy_of(1))
        raise ValueError("no self-consistency")

    runner.write_json(tmp_path / runner.JOB, JOB)
    monkeypatch.setattr(runner, "run", deliver_and_fail)
    runner.main(2, tmp_path)
    assert runner.read_json(tmp_path / runner.RESULT) == energy_of(1)


def two_queues(folder: Path, **retries: Any) -> tuple[JobQueue, JobQueue]:
    """Of one folder, each with a scheduler of its own."""
    ours, theirs = (queue_of(folder, Board(identity=name), backoff=0.0, **retries) for name in ("a", "b"))
    return ours, theirs


def aged(path: Path, seconds: float) -> None:
    """Let a file have been written a while ago."""
    os.utime(path, (time.time() - seconds,) * 2)


def calls(queue: JobQueue) -> list[str]:
    assert isinstance(queue.scheduler, Board)
    return queue.scheduler.calls


def test_an_attempt_under_another_scheduler_is_followed_by_its_files(tmp_path: Path) -> None:
    ours, theirs = two_queues(tmp_path)
    theirs.put(KEY, JOB)
    ours.put(KEY, JOB)
    aged(ours.folder / KEY / "record.json", 1e6)
    assert ours.look([KEY]) == {KEY: JobState.SUBMITTED}  # days in a queue
    (ours.folder / KEY / "claim-1").write_text("1\n")
    assert ours.look([KEY]) == {KEY: JobState.RUNNING}
    aged(ours.folder / KEY / "claim-1", 1e6)
    told(ours, runner.HEARTBEAT, {"attempt": 1, "seconds": 20.0})
    aged(ours.folder / KEY / runner.HEARTBEAT, FOREIGN_SECONDS - 60.0)
    assert ours.look([KEY]) == {KEY: JobState.RUNNING}
    told(ours, runner.RESULT, energy_of(1))
    assert ours.look([KEY]) == theirs.look([KEY])
    assert isinstance(ours.over(KEY), Done)
    assert calls(ours) == []
    assert calls(theirs) == ["submit 1"]


def test_a_job_goes_over_to_who_first_sees_its_end(tmp_path: Path) -> None:
    """The attempt's own files say that it was killed; the next one is under the scheduler of who read them."""
    ours, theirs = two_queues(tmp_path, max_attempts=2)
    theirs.put(KEY, JOB)
    told(ours, "exit-1.json", {"code": 137, "seconds": 7.0})
    assert ours.look([KEY]) == {KEY: JobState.SUBMITTED}
    first, second = record_of(ours).attempts
    assert (first.holder, first.fault, first.seconds) == ("b", Fault.KILLED, 7.0)
    assert (second.holder, second.id) == ("a", "1")
    assert theirs.look([KEY]) == {KEY: JobState.SUBMITTED}
    assert (calls(ours), calls(theirs)) == (["submit 2"], ["submit 1"])
    told(
        theirs,
        runner.RESULT,
        {"attempt": 2, "state": "failed", "stage": "set-up", "type": "E", "message": ""},
    )
    done = theirs.look([KEY])[KEY]
    assert isinstance(done, Done)
    assert done.reason is not None
    assert done.reason.startswith("bad input after 2 attempts")
    assert ours.look([KEY])[KEY] == done


@pytest.mark.parametrize("was_handed_over", [True, False])
def test_an_attempt_that_its_scheduler_has_let_down_is_made_again(
    tmp_path: Path, was_handed_over: bool
) -> None:
    ours, theirs = two_queues(tmp_path)
    if was_handed_over:
        theirs.put(KEY, JOB)
        (ours.folder / KEY / "claim-1").write_text("1\n")
        what = "claim-1"
    else:
        theirs.scheduler.is_down = True  # type: ignore[attr-defined]
        with pytest.raises(SchedulerError):
            theirs.put(KEY, JOB)
        what = "record.json"
    ours.put(KEY, JOB)
    assert ours.find(KEY)
    aged(ours.folder / KEY / what, FOREIGN_SECONDS - 60.0)
    ours.look([KEY])
    assert record_of(ours).last.number == 1
    aged(ours.folder / KEY / what, FOREIGN_SECONDS + 60.0)
    assert ours.look([KEY]) == {KEY: JobState.SUBMITTED}
    first, second = record_of(ours).attempts
    assert (first.fault, second.holder) == (Fault.LOST, "a")
    assert calls(ours) == ["submit 2"]


def test_cancelling_asks_nothing_of_a_scheduler_for_an_attempt_of_another(tmp_path: Path) -> None:
    ours, theirs = two_queues(tmp_path)
    theirs.put(KEY, JOB)
    ours.cancel([KEY])
    assert calls(ours) == []
    assert theirs.look([KEY]) == {KEY: JobState.CANCELLED}


def test_records_of_earlier_versions_are_ones_own(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, Board())
    queue.put(KEY, JOB)
    record = runner.read_json(queue.folder / KEY / "record.json")
    del record["attempts"][0]["holder"]
    told(queue, "record.json", record)
    queue.look([KEY])
    assert calls(queue) == ["submit 1", "statuses 1"]


def test_pools_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    one, same, other = (LocalScheduler(folder=tmp_path / name) for name in ("one", "x/../one", "two"))
    assert one.identity == same.identity != other.identity
