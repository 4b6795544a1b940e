"""The folder of a job: what is to be computed, the script, what came out, and a record of the attempts."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from oracles.dft import runner
from oracles.dft.faults import Fault
from oracles.dft.runner import DUPLICATE
from oracles.dynamics import motion

RECORD, SCRIPT, RUNNER = "record.json", "job.sh", "runner.py"
LOG_HEAD, LOG_TAIL = 4_096, 16_384  # bytes of the beginning and of the end of a log that are looked at


@dataclass(frozen=True)
class Attempt:
    """One try at a job.

    Attributes:
        number: From 1.
        name: Under which the scheduler has it.
        id: The scheduler's; None until its answer is recorded.
        fault: Why it came to nothing; None while it may still come to something.
        detail: What is known about the fault.
        seconds: Wall time that it used, once it has ended.
        holder: Identity of the scheduler that was asked to run it; None on records of earlier versions.
    """

    number: int
    name: str
    id: str | None = None
    fault: Fault | None = None
    detail: str = ""
    seconds: float = 0.0
    holder: str | None = None


@dataclass(frozen=True)
class Record:
    """How a job has fared.

    Attributes:
        attempts: In order; the last one counts.
        not_before: Unix time before which no further attempt is made.
        final: Whether the last fault is final: no further attempt is made.
        cancelled: Whether it was cancelled, by us or outside.
        ended_at: Unix time at which the last attempt was first seen to have ended without a result.
    """

    attempts: tuple[Attempt, ...] = ()
    not_before: float = 0.0
    final: bool = False
    cancelled: bool = False
    ended_at: float | None = None

    @property
    def last(self) -> Attempt | None:
        """The attempt that counts."""
        return self.attempts[-1] if self.attempts else None

    @property
    def seconds(self) -> float:
        """Wall time of all attempts that have ended."""
        return sum(attempt.seconds for attempt in self.attempts)

    def with_last(self, **changes: Any) -> Record:
        """The record with the last attempt changed."""
        return replace(self, attempts=(*self.attempts[:-1], replace(self.attempts[-1], **changes)))


@dataclass(frozen=True)
class JobFolder:
    """One job's files.

    Attributes:
        path: The folder; its name is the job's key.
    """

    path: Path

    @property
    def key(self) -> str:
        """Key of the job."""
        return self.path.name

    def create(self, job: Mapping[str, Any], script: str) -> None:
        """Write what is to be computed; a folder that is there already stays as it is."""
        if self.path.is_dir():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        waiting = self.path.with_name(f".{self.path.name[:40]}.{uuid.uuid4().hex[:12]}")
        waiting.mkdir()
        runner.write_json(waiting / runner.JOB, job)
        runner.write_json(waiting / RECORD, asdict(Record()))
        shutil.copyfile(runner.__file__, waiting / RUNNER)
        if job.get("dynamics") is not None:
            shutil.copyfile(motion.__file__, waiting / f"{runner.MOTION}.py")
        (waiting / SCRIPT).write_text(script, encoding="utf-8")
        (waiting / SCRIPT).chmod(0o755)
        try:
            waiting.rename(self.path)
        except OSError:
            shutil.rmtree(waiting)
            if not self.path.is_dir():
                raise
            # Another process was there first, with the same job: the key says what is in it.

    def job(self) -> dict[str, Any]:
        """What is to be computed."""
        job: dict[str, Any] = json.loads((self.path / runner.JOB).read_text(encoding="utf-8"))
        return job

    def record(self) -> Record | None:
        """How it has fared; None where there is no such job."""
        value = runner.read_json(self.path / RECORD)
        if value is None:
            return None
        attempts = [
            Attempt(**{**a, "fault": None if a["fault"] is None else Fault(a["fault"])})
            for a in value["attempts"]
        ]
        return Record(**{**value, "attempts": tuple(attempts)})

    def keep(self, record: Record) -> None:
        """Write the record; whoever changes it holds the lock."""
        runner.write_json(self.path / RECORD, asdict(record))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from starting or ending attempts at the same time."""
        with (self.path / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def result(self) -> dict[str, Any] | None:
        """What the runner wrote at its end, be it a result or a failure; None where it has not."""
        value: dict[str, Any] | None = runner.read_json(self.path / runner.RESULT)
        return value

    def owner(self, attempt: int) -> str | None:
        """Id of the job that has taken an attempt on."""
        try:
            return (self.path / f"claim-{attempt}").read_text().strip() or None
        except FileNotFoundError:
            return None

    def end(self, attempt: int) -> tuple[int, float] | None:
        """Exit code and wall seconds of an attempt whose script came to its end."""
        try:
            value = runner.read_json(self.path / f"exit-{attempt}.json")
        except ValueError:  # cut short, as its machine went down
            return None
        return None if value is None else (int(value["code"]), float(value["seconds"]))

    def seconds_taken(self, attempt: int) -> float:
        """Wall seconds of an attempt until its end or, if it has none, until now."""
        end = self.end(attempt)
        begun = _age(self.path / f"claim-{attempt}")
        return end[1] if end is not None else begun or 0.0

    def last_beat(self, attempt: int) -> tuple[float, float] | None:
        """Age (s) of an attempt's last sign of life, and for how long it had run by then."""
        value = runner.read_json(self.path / runner.HEARTBEAT)
        if value is None or value["attempt"] != attempt:
            return None
        age = time.time() - (self.path / runner.HEARTBEAT).stat().st_mtime
        return age, float(value["seconds"])

    def silence(self, attempt: int) -> float | None:
        """Seconds since the last sign that an attempt is under way; None where it has not begun."""
        beat = self.last_beat(attempt)
        ages = [age for age in (_age(self.path / f"claim-{attempt}"), beat and beat[0]) if age is not None]
        return min(ages, default=None)

    def record_age(self) -> float:
        """Seconds since the record was last changed."""
        return _age(self.path / RECORD) or 0.0

    def restart_attempt(self) -> int | None:
        """Number of the attempt that last got on, by the restart file."""
        value = runner.read_json(self.path / runner.RESTART)
        return None if value is None else int(value["attempt"])

    def log_tail(self, attempt: int) -> str:
        """The end of what an attempt wrote to its standard output and error."""
        return _end(self.path / log_name(attempt))

    def output_tail(self, name: str, attempt: int) -> str:
        """The end of what an engine's program wrote; nothing where that is older than the attempt."""
        try:
            begun = (self.path / f"claim-{attempt}").stat().st_mtime
            if (self.path / name).stat().st_mtime < begun:
                return ""
        except FileNotFoundError:
            return ""
        return _end(self.path / name)

    def output_head(self, name: str) -> str:
        """The beginning of what an engine's program wrote."""
        try:
            with (self.path / name).open("rb") as file:
                return file.read(LOG_HEAD).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def files(self, outputs: Sequence[str] = ()) -> tuple[str, ...]:
        """Files worth keeping, `outputs` of an engine among them."""
        names = [runner.JOB, runner.RESULT, runner.FINAL, SCRIPT, *outputs]
        found = [self.path / name for name in names] + sorted(self.path.glob("attempt-*.log"))
        return tuple(str(path) for path in found if path.is_file())


def _age(path: Path) -> float | None:
    """Seconds since a file was written, None where there is none."""
    try:
        return max(time.time() - path.stat().st_mtime, 0.0)
    except FileNotFoundError:
        return None


def _end(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - LOG_TAIL, 0))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def log_name(attempt: int) -> str:
    """File of an attempt's standard output and error."""
    return f"attempt-{attempt}.log"


def script(
    folder: Path,
    *,
    header: Sequence[str],
    id_in_job: str,
    setup: Sequence[str],
    environment: Mapping[str, str],
    command: str,
) -> str:
    """The script of a job, for `bash job.sh ATTEMPT` under any scheduler.

    Args:
        folder: The job's folder.
        header: A scheduler's directives.
        id_in_job: The shell's expression for the job's id.
        setup: Lines of the user's own, such as `module load`.
        environment: Variables to set.
        command: What starts `runner.py`.
    """
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())]
    return "\n".join(
        [
            "#!/bin/bash",
            *header,
            f"cd {shlex.quote(str(folder))} || exit {runner.TROUBLE_OF_THE_NODE}",
            "attempt=$1",
            f"id={id_in_job}",
            "# An attempt is one job's: of two that a lost answer of the scheduler made of it, one goes on.",
            'if ! (set -o noclobber; echo "$id" > claim-$attempt) 2> /dev/null; then',
            f'    [ "$(cat claim-$attempt)" == "$id" ] || exit {DUPLICATE}',
            "fi",
            *setup,
            *exports,
            f"{command} $attempt",
            "code=$?",
            'echo "{\\"code\\": $code, \\"seconds\\": $SECONDS}" > .exit-$attempt',
            "mv .exit-$attempt exit-$attempt.json",
            "exit $code",
            "",
        ]
    )
