"""Jobs under a scheduler: put in once, found by key, followed, tried again, brought to an end.

The folder of a job is the truth about it; the scheduler is asked only where the folder does not tell. A result that
lies there counts whatever the scheduler says, so that results outlive the memory of schedulers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from activelearning.contracts.oracle import JobState
from oracles.dft.engines.base import Engine
from oracles.dft.faults import Diagnosis, Fault, diagnose_end, diagnose_failure
from oracles.dft.folder import SCRIPT as SCRIPT_NAME
from oracles.dft.folder import Attempt, JobFolder, Record, log_name, script
from oracles.dft.runner import DUPLICATE
from oracles.dft.schedulers.base import JobStatus, Phase, Scheduler, Ticket

# A job that its scheduler does not know, but that gave a sign of life within these seconds, is alive.
ALIVE_SECONDS = 90.0
# Files of a job that has ended may be seen late on a network's file system.
SETTLE_SECONDS = 60.0
# An attempt under another scheduler than ours is given up only after this time without a sign of life: whoever handed
# it over knows more.
FOREIGN_SECONDS = 3600.0
# Waits between attempts double no further than to this, unless the first one is longer.
LONGEST_WAIT = 3600.0
# Faults that a scheduler may know more about.
_UNEXPLAINED = (Fault.CODE_ERROR, Fault.KILLED)


@dataclass(frozen=True)
class Done:
    """A job that ended for good.

    Attributes:
        folder: Its files.
        result: What came out; None where it failed.
        reason: Why it failed; None where it succeeded.
        core_hours: What all attempts took together.
        seconds: Wall time of all attempts.
        n_attempts: How often it was tried.
    """

    folder: JobFolder
    result: Mapping[str, Any] | None
    reason: str | None
    core_hours: float
    seconds: float
    n_attempts: int


Outcome = JobState | Done


@dataclass(frozen=True)
class Retries:
    """How often a job is tried.

    Attributes:
        max_attempts: In all.
        backoff: Seconds to wait after a fault of the infrastructure; after each further one twice as long as after
            the one before, up to an hour. A job that ran out of time and got on goes on at once.
        max_core_hours: No further attempt is made once this much was used.
    """

    max_attempts: int
    backoff: float
    max_core_hours: float


class JobQueue:
    """Jobs in one folder, under one scheduler.

    Queues with schedulers of their own may share the folder, and jobs with it. An attempt that another scheduler holds
    is never judged by the word of this one, to which it is unknown: only by its files.

    Args:
        folder: Folder of the jobs' folders.
        scheduler: Who runs them.
        engine: What computes; brings the script's set-up, and knows the words of its errors.
        retries: How often a job is tried.
    """

    def __init__(self, folder: Path, scheduler: Scheduler, engine: Engine, retries: Retries) -> None:
        self.folder = folder
        self.scheduler = scheduler
        self.engine = engine
        self.retries = retries
        # What is to be handed over, and whether it may have been already, by an answer that was lost.
        self._kept: dict[JobFolder, bool] = {}

    def put(self, key: str, job: Mapping[str, Any]) -> None:
        """Submit a job under a key, unless it has been.

        Raises:
            SchedulerError: the scheduler can't be reached, or refuses; putting it in again is safe.
        """
        folder = self._job(key)
        folder.create(
            job,
            script(
                folder.path.resolve(),
                header=self.scheduler.header(key),
                id_in_job=self.scheduler.id_in_job,
                setup=self.engine.setup,
                environment=self.engine.environment,
                command=self.engine.command,
            ),
        )
        with folder.lock():
            record = folder.record()
            assert record is not None
            if record.last is None or (
                record.last.id is None
                and not self._is_foreign(record.last)
                and not self._is_over(folder, record)
            ):
                self._prepare(folder, record)
        if not self.scheduler.takes_batches:
            self.flush()

    def flush(self) -> None:
        """Hand over what was put in since the last time, where the scheduler takes batches.

        Jobs that may have been handed over already are looked up first, in one call. Should the process be lost before,
        `look` finds the jobs as ones whose answer was lost.

        Raises:
            SchedulerError: the scheduler can't be reached, or refuses.
        """
        kept, self._kept = self._kept, {}
        open_ = [(folder, last) for folder in kept if (last := _not_handed_over(folder)) is not None]
        doubtful = [last.name for folder, last in open_ if kept[folder]]
        found = self.scheduler.find(doubtful) if doubtful else {}
        tickets = []
        for folder, last in open_:
            if last.name in found:
                self._note_id(folder, last, found[last.name])
            elif self.scheduler.takes_batches:
                tickets.append(_ticket(folder, last))
            else:
                self._submit(folder, last)
        if tickets:
            ids = self.scheduler.submit_all(tickets)
            for folder, last in open_:
                if last.name in ids:
                    self._note_id(folder, last, ids[last.name])

    def renew(self, key: str, job: Mapping[str, Any]) -> None:
        """Submit a job again whose folder is gone, or that was cancelled.

        Raises:
            SchedulerError: as `put`.
        """
        folder = self._job(key)
        record = folder.record()
        if record is None or not record.cancelled:
            self.put(key, job)
            return
        with folder.lock():
            record = replace(record, cancelled=False).with_last(fault=Fault.KILLED, detail="cancelled")
            folder.keep(record)
            self._prepare(folder, record)
        self.flush()

    def job(self, key: str) -> dict[str, Any] | None:
        """What a job computes; None where there is no folder of it."""
        try:
            return self._job(key).job()
        except FileNotFoundError:
            return None

    def over(self, key: str) -> Done | None:
        """The end of a job where its folder tells it, without a word to the scheduler."""
        folder = self._job(key)
        record = folder.record()
        settled = None if record is None else self._settled(folder, record)
        return settled if isinstance(settled, Done) else None

    def find(self, key: str) -> bool:
        """Whether a job was submitted under a key; asks the scheduler only where the folder can't tell.

        Raises:
            SchedulerError: the scheduler can't be reached.
        """
        folder = self._job(key)
        record = folder.record()
        if record is None or record.last is None:
            return False
        if record.last.id is not None or self._is_foreign(record.last) or self._is_over(folder, record):
            return True
        with folder.lock():
            record = folder.record()
            assert record is not None
            return self._adopt(folder, record) is not None

    def look(self, keys: Sequence[str]) -> dict[str, Outcome]:
        """State or end of each job; jobs whose next attempt is due are submitted.

        The scheduler is asked once for all, and once more for those of which it is not on record whether it has them. A
        job without a folder is lost.

        Raises:
            SchedulerError: the scheduler can't be reached.
        """
        outcomes: dict[str, Outcome] = {}
        open_: list[tuple[JobFolder, Record]] = []
        for key in dict.fromkeys(keys):
            folder = self._job(key)
            record = folder.record()
            if record is None:
                outcomes[key] = JobState.LOST
                continue
            outcome = self._settled(folder, record)
            if outcome is None:
                open_.append((folder, record))
            else:
                outcomes[key] = outcome
        jobs = _ids(self._own(record for _, record in open_))
        statuses = self.scheduler.statuses(jobs) if jobs else {}
        for folder, record in open_:
            last = record.last
            status = None if last is None else statuses.get(last.name)
            if last is not None and last.fault is None and status is not None:
                if status.phase is Phase.PENDING:
                    outcomes[folder.key] = JobState.SUBMITTED
                    continue
                if status.phase is Phase.RUNNING:
                    outcomes[folder.key] = JobState.RUNNING
                    continue
            with folder.lock():
                now_there = folder.record()
                # Where another process has gone on with it in the meantime, its next look will tell.
                unchanged = now_there == record
                outcomes[folder.key] = (
                    self._go_on(folder, record, status) if unchanged else JobState.SUBMITTED
                )
        if self._kept:
            self.flush()
        self._end_overtaken(outcomes)
        return outcomes

    def cancel(self, keys: Sequence[str]) -> None:
        """End jobs, in one call of the scheduler; those that are over or unknown are left alone.

        Raises:
            SchedulerError: the scheduler can't be reached; the jobs are not cancelled.
        """
        open_ = []
        for key in keys:
            folder = self._job(key)
            record = folder.record()
            if record is not None and self._settled(folder, record) is None:
                open_.append((folder, record))
        self._end(record for _, record in open_)
        for folder, _ in open_:
            with folder.lock():
                record = folder.record()
                assert record is not None
                folder.keep(replace(record, cancelled=True))

    def _end(self, records: Iterable[Record]) -> None:
        """Have the scheduler end the jobs of the attempts that count."""
        own = self._own(records)
        jobs = _ids(own)
        unrecorded = [attempt.name for attempt in own if attempt.id is None]
        if unrecorded:
            jobs |= self.scheduler.find(unrecorded)
        if jobs:
            self.scheduler.cancel(jobs)

    def _end_overtaken(self, outcomes: dict[str, Outcome]) -> None:
        """End attempts that go on although an earlier one, which was given up for lost, has brought the result."""
        overtaken = []
        for done in outcomes.values():
            if (
                isinstance(done, Done)
                and done.result is not None
                and done.result["attempt"] < done.n_attempts
            ):
                record = done.folder.record()
                if record is not None and record.last is not None and record.last.fault is None:
                    overtaken.append((done, record))
        self._end(record for _, record in overtaken)
        for done, earlier in overtaken:
            folder = done.folder
            with folder.lock():
                record = folder.record()
                if record is None or record.last != earlier.last:
                    continue
                assert done.result is not None
                detail = f"attempt {done.result['attempt']} has brought the result"
                seconds = folder.seconds_taken(record.attempts[-1].number)
                record = record.with_last(fault=Fault.KILLED, detail=detail, seconds=seconds)
                folder.keep(record)
            settled = self._settled(folder, record)
            assert settled is not None
            outcomes[folder.key] = settled

    def _job(self, key: str) -> JobFolder:
        return JobFolder(self.folder / key)

    def _own(self, records: Iterable[Record]) -> list[Attempt]:
        """The attempts that count, but for those of other schedulers."""
        lasts = [record.last for record in records if record.last is not None]
        return [last for last in lasts if not self._is_foreign(last)]

    def _is_foreign(self, attempt: Attempt) -> bool:
        """Whether an attempt is open under another scheduler."""
        return attempt.fault is None and attempt.holder not in (None, self.scheduler.identity)

    def _prepare(self, folder: JobFolder, record: Record) -> None:
        """Make the next attempt, or take up the one that was made and perhaps not handed over; `flush` does that."""
        last = record.last
        is_new = last is None or last.fault is not None
        if is_new:
            # On record before it is handed over: should the answer be lost, it is looked up by this name.
            folder.keep(_next_attempt(folder, record, self.scheduler.identity))
        elif (owner := folder.owner(record.attempts[-1].number)) is not None:
            folder.keep(record.with_last(id=owner))
            return
        self._kept[folder] = not is_new

    def _submit(self, folder: JobFolder, attempt: Attempt) -> None:
        # Under the lock: a process that puts the same job in at the same time finds its id on record.
        with folder.lock():
            record = folder.record()
            if record is not None and record.last == attempt:
                folder.keep(record.with_last(id=self.scheduler.submit(_ticket(folder, attempt))))

    @staticmethod
    def _note_id(folder: JobFolder, attempt: Attempt, job_id: str) -> None:
        with folder.lock():
            record = folder.record()
            if record is not None and record.last == attempt:
                folder.keep(record.with_last(id=job_id))

    def _adopt(self, folder: JobFolder, record: Record) -> str | None:
        """Id of the job of an attempt whose handing over was not recorded; None where there is no such job."""
        last = record.attempts[-1]
        found = folder.owner(last.number) or self.scheduler.find([last.name]).get(last.name)
        if found is not None:
            folder.keep(record.with_last(id=found))
        return found

    def _is_over(self, folder: JobFolder, record: Record) -> bool:
        return self._settled(folder, record) is not None

    def _settled(self, folder: JobFolder, record: Record) -> Outcome | None:
        """The end of a job where its own files tell it."""
        if record.cancelled:
            return JobState.CANCELLED
        if record.final:
            last = record.attempts[-1]
            return self._done(folder, record, None, _reason(last, folder.log_tail(last.number)))
        result = folder.result()
        if result is None or result["state"] != "done" or record.last is None:
            return None
        end = folder.end(result["attempt"])
        seconds = float(result["seconds"]) if end is None else max(end[1], float(result["seconds"]))
        earlier = [a.seconds for a in record.attempts if a.number != result["attempt"]]
        return self._done(folder, record, result, None, seconds=seconds + sum(earlier))

    def _done(
        self,
        folder: JobFolder,
        record: Record,
        result: Mapping[str, Any] | None,
        reason: str | None,
        seconds: float | None = None,
    ) -> Done:
        used = record.seconds if seconds is None else seconds
        return Done(folder, result, reason, self._core_hours(used), used, len(record.attempts))

    def _core_hours(self, seconds: float) -> float:
        return seconds * self.scheduler.cores / 3600.0

    def _go_on(self, folder: JobFolder, record: Record, status: JobStatus | None) -> Outcome:
        """What to make of a job that is neither waiting nor running."""
        # The scheduler was asked after the files were read: what came out since then is there now.
        settled = self._settled(folder, record)
        if settled is not None:
            return settled
        last = record.last
        is_foreign = last is not None and self._is_foreign(last)
        if last is not None and is_foreign:
            elsewhere = self._elsewhere(folder, last)
            if elsewhere is not None:
                return elsewhere
        elif last is None or last.id is None or last.fault is not None:
            if time.time() >= record.not_before:
                self._prepare(folder, record)
            return JobState.SUBMITTED
        if status is not None and status.phase is Phase.CANCELLED:
            folder.keep(replace(record, cancelled=True))
            return JobState.CANCELLED
        owner = folder.owner(last.number)
        if owner is not None and owner != last.id and not is_foreign:
            folder.keep(record.with_last(id=owner))
            return JobState.RUNNING
        beat = folder.last_beat(last.number)
        end = folder.end(last.number)
        if status is None and end is None and beat is not None and beat[0] < ALIVE_SECONDS:
            return JobState.RUNNING
        result = folder.result()
        if result is not None and result["attempt"] == last.number:
            output = "" if self.engine.log is None else folder.output_tail(self.engine.log, last.number)
            diagnosis = diagnose_failure(result, output, self.engine.patterns)
            if status is not None and status.fault is not None and diagnosis.fault in _UNEXPLAINED:
                # Of a program that was ended from outside, the calculation sees no more than its end.
                diagnosis = Diagnosis(status.fault, f"the scheduler says {status.word}")
        elif status is not None and status.fault is not None:
            diagnosis = Diagnosis(status.fault, f"the scheduler says {status.word}")
        elif status is None and end is None:
            knows = "another scheduler had" if is_foreign else "the scheduler no longer knows"
            diagnosis = Diagnosis(Fault.LOST, f"{knows} the job, and it gives no sign of life")
        else:
            if end is None or end[0] == 0:
                # An end without a fault and without a result: its files are on their way, or will not come.
                if record.ended_at is None:
                    folder.keep(replace(record, ended_at=time.time()))
                    return JobState.RUNNING
                if time.time() < record.ended_at + SETTLE_SECONDS:
                    return JobState.RUNNING
            code = None if end is None or end[0] in (0, DUPLICATE) else end[0]
            diagnosis = diagnose_end(code, folder.log_tail(last.number), self.engine.patterns)
        seconds = [s for s in (end and end[1], status and status.seconds, beat and beat[1]) if s]
        return self._close(folder, record, diagnosis, max(seconds, default=0.0))

    def _elsewhere(self, folder: JobFolder, last: Attempt) -> JobState | None:
        """State of an attempt under another scheduler; None where its files tell its end, or too long nothing."""
        result = folder.result()
        if folder.end(last.number) is not None or (result is not None and result["attempt"] == last.number):
            return None
        silence = folder.silence(last.number)
        if silence is None and last.id is not None:
            return JobState.SUBMITTED  # queues can be as long as they like
        if silence is None:  # it was to be handed over, by somebody who has not come back
            return JobState.SUBMITTED if folder.record_age() < FOREIGN_SECONDS else None
        return JobState.RUNNING if silence < FOREIGN_SECONDS else None

    def _close(self, folder: JobFolder, record: Record, diagnosis: Diagnosis, seconds: float) -> Outcome:
        """End an attempt that came to nothing, and the job with it where trying again is of no use."""
        number = record.attempts[-1].number
        record = record.with_last(fault=diagnosis.fault, detail=diagnosis.detail, seconds=seconds)
        # Out of time is worth another attempt only where this one got on.
        got_on = diagnosis.fault is Fault.OUT_OF_TIME and folder.restart_attempt() == number
        again = (
            (diagnosis.fault.is_of_infrastructure or got_on)
            and number < self.retries.max_attempts
            and self._core_hours(record.seconds) < self.retries.max_core_hours
        )
        if again:
            wait = 0.0 if got_on else self._wait(record)
            record = replace(record, not_before=time.time() + wait)
            folder.keep(record)
            if wait <= 0.0:
                self._prepare(folder, record)
            return JobState.SUBMITTED
        record = replace(record, final=True)
        folder.keep(record)
        return self._done(folder, record, None, _reason(record.attempts[-1], folder.log_tail(number)))

    def _wait(self, record: Record) -> float:
        """Seconds before the next attempt, by how often the infrastructure has failed the job."""
        n_faults = sum(a.fault is not None and a.fault.is_of_infrastructure for a in record.attempts)
        longest = max(LONGEST_WAIT, self.retries.backoff)
        return min(self.retries.backoff * 2.0 ** min(n_faults - 1, 60), longest)


def _next_attempt(folder: JobFolder, record: Record, holder: str) -> Record:
    """The record with one attempt more, which a scheduler is to run."""
    number = 1 if record.last is None else record.last.number + 1
    name = folder.key if number == 1 else f"{folder.key}.{number}"
    attempt = Attempt(number, name, holder=holder)
    return replace(record, attempts=(*record.attempts, attempt), ended_at=None)


def _ids(attempts: Iterable[Attempt]) -> dict[str, str]:
    """Ids of attempts by name; those without one are left out."""
    return {attempt.name: attempt.id for attempt in attempts if attempt.id is not None}


def _not_handed_over(folder: JobFolder) -> Attempt | None:
    """The attempt of a job that waits to be handed over."""
    record = folder.record()
    if record is None or record.cancelled or record.last is None or record.last.fault is not None:
        return None
    return record.last if record.last.id is None else None


def _ticket(folder: JobFolder, attempt: Attempt) -> Ticket:
    return Ticket(attempt.name, folder.path.resolve(), SCRIPT_NAME, attempt.number)


def _reason(last: Attempt, log: str) -> str:
    """One paragraph: what went wrong, how often it was tried, and the last lines of the log."""
    assert last.fault is not None
    tried = f" after {last.number} attempts" if last.number > 1 else ""
    lines = [line.strip() for line in log.splitlines() if line.strip()][-3:]
    shown = " | ".join(line[:200] for line in lines) or f"{log_name(last.number)} is empty"
    return f"{last.fault}{tried}: {last.detail}; last lines: {shown}"
