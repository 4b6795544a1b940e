"""Slurm, by its command line: `sbatch`, `squeue`, `sacct`, `scancel`, `scontrol`."""

from __future__ import annotations

import functools
import getpass
import math
import re
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from activelearning.errors import ConfigError
from oracles.dft.faults import Fault
from oracles.dft.folder import log_name
from oracles.dft.runner import read_json, write_json
from oracles.dft.schedulers.base import JobId, JobStatus, Phase, Scheduler, SchedulerError, Ticket

# https://slurm.schedmd.com/job_state_codes.html
_ENDS: Mapping[str, tuple[Phase, Fault | None]] = {
    "COMPLETED": (Phase.ENDED, None),
    "FAILED": (Phase.ENDED, None),
    "TIMEOUT": (Phase.ENDED, Fault.OUT_OF_TIME),
    "DEADLINE": (Phase.ENDED, Fault.OUT_OF_TIME),
    "OUT_OF_MEMORY": (Phase.ENDED, Fault.OUT_OF_MEMORY),
    "NODE_FAIL": (Phase.ENDED, Fault.NODE_LOST),
    "BOOT_FAIL": (Phase.ENDED, Fault.NODE_LOST),
    "LAUNCH_FAILED": (Phase.ENDED, Fault.NODE_LOST),
    "RECONFIG_FAIL": (Phase.ENDED, Fault.NODE_LOST),
    "PREEMPTED": (Phase.ENDED, Fault.KILLED),
    "REVOKED": (Phase.ENDED, Fault.LOST),
    "CANCELLED": (Phase.CANCELLED, None),
}
_PENDING = {
    "PENDING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
}
_SEPARATOR = "|"
_ID = re.compile(r"\d+")
_ARRAY = "array-"
_NAME_OF_ARRAY = re.compile(_ARRAY + "[0-9a-f]{32}")


class SlurmScheduler(Scheduler):
    """Submits to Slurm from a machine that has its commands.

    Every look is one `squeue` of the user's jobs, and one `sacct` for those that it has forgotten. Jobs are not
    requeued by Slurm: trying again is the oracle's, which counts.

    Args:
        cores: Cores (`--cpus-per-task`, or with `tasks` the tasks times those) of one job.
        time_limit: Of one job, seconds; rounded up to whole minutes, as Slurm has it.
        memory: Of one job and node, MB.
        partition: `--partition`.
        account: `--account`.
        nodes: `--nodes`.
        tasks: `--ntasks`, for engines under MPI; the cores are divided among them.
        options: Further options of sbatch, as in `["--qos=long", "--constraint=avx512"]`.
        modules: Loaded by `module load` before the job's set-up.
        accounting: Who remembers ended jobs: `sacct` (a database), `jobcomp` (`sacct -c`, a log of completions), or
            `none`; then a job that squeue has forgotten is judged by its own files.
        array: Most tasks of one array job; by 2 or more, the jobs of a round are handed over as arrays, each in one
            `sbatch`. Tasks are known by a list in the fidelity's folder; their names are not the jobs' keys.
        timeout: Seconds that a command of Slurm may take.
    """

    # A task of an array is known by the array's id and its own number.
    id_in_job: ClassVar[str] = (
        "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}; id=${id:-$SLURM_JOB_ID}"
    )

    def __init__(
        self,
        cores: int = 1,
        time_limit: float = 86400.0,
        memory: int | None = None,
        partition: str | None = None,
        account: str | None = None,
        nodes: int | None = None,
        tasks: int = 1,
        options: list[str] | None = None,
        modules: list[str] | None = None,
        accounting: Literal["sacct", "jobcomp", "none"] = "sacct",
        array: int = 1,
        timeout: float = 120.0,
    ) -> None:
        super().__init__(cores, time_limit, memory)
        if array < 1:
            raise ConfigError(f"scheduler.array is a number of tasks, at least 1, not {array}.")
        if tasks < 1 or cores % tasks:
            raise ConfigError(
                f"scheduler.tasks must divide scheduler.cores, which {tasks} and {cores} do not."
            )
        for option in options or ():
            if not option.startswith("-") or "\n" in option:
                raise ConfigError(f"scheduler.options holds {option!r}, which is no option of sbatch.")
        self.partition = partition
        self.account = account
        self.nodes = nodes
        self.tasks = tasks
        self.options = tuple(options or ())
        self.modules = tuple(modules or ())
        self.accounting = accounting
        self.timeout = timeout
        self.array = array
        self.takes_batches = array > 1
        self._arrays: Path | None = None
        self._lists: dict[str, list[str]] = {}

    def bind(self, workdir: Path) -> None:
        """Lists of arrays are in the fidelity's folder."""
        self._arrays = workdir / "arrays"

    def check(self) -> None:
        """Raise a `ConfigError` where Slurm's commands are missing."""
        wanted = [
            "sbatch",
            "squeue",
            "scancel",
            *([] if self.accounting == "none" else ["sacct"]),
            "scontrol",
        ]
        missing = [name for name in wanted if shutil.which(name) is None]
        if missing:
            raise ConfigError(
                f"scheduler.type is slurm, but this machine has no {', '.join(missing)}. Run the campaign where jobs "
                f"are submitted from, or take `type: local`."
            )

    @property
    def identity(self) -> str:
        """The cluster, and the user whose jobs are looked at; with arrays the folder of their lists as well."""
        lists = f":{self._arrays.resolve()}" if self.takes_batches and self._arrays is not None else ""
        return f"slurm:{getpass.getuser()}@{self._cluster}{lists}"

    @functools.cached_property
    def _cluster(self) -> str:
        text = self._call("scontrol", "show", "config")
        shown = re.search(r"^ClusterName\s*=\s*(\S+)", text, re.MULTILINE)
        if shown is None:
            raise SchedulerError("scontrol show config does not tell the name of the cluster.")
        return shown[1]

    def header(self, name: str) -> Sequence[str]:
        """Directives, so that the script can be submitted by hand as well, and modules."""
        directives = {
            "--job-name": name,
            "--partition": self.partition,
            "--account": self.account,
            "--nodes": self.nodes,
            "--ntasks": self.tasks,
            "--cpus-per-task": self.cores // self.tasks,
            "--mem": None if self.memory is None else f"{self.memory}M",
            "--time": math.ceil(self.time_limit / 60.0),
        }
        lines = [f"#SBATCH {option}={value}" for option, value in directives.items() if value is not None]
        lines += [f"#SBATCH {option}" for option in ("--no-requeue", *self.options)]
        return [*lines, *(f"module load {module}" for module in self.modules)]

    def submit(self, ticket: Ticket) -> JobId:
        """One `sbatch`."""
        return self._batch(
            f"--job-name={ticket.name}",
            f"--chdir={ticket.folder}",
            f"--output={ticket.folder / log_name(ticket.attempt)}",
            "--open-mode=append",
            str(ticket.folder / ticket.script),
            str(ticket.attempt),
        )

    def _batch(self, *options: str) -> JobId:
        text = self._call("sbatch", "--parsable", *options)
        job_id = text.strip().split(";")[0]  # the cluster's name may follow
        if not _ID.fullmatch(job_id):
            raise SchedulerError(f"sbatch answered {text.strip()!r} where the id of a job was expected.")
        return job_id

    def submit_all(self, tickets: Sequence[Ticket]) -> Mapping[str, JobId]:
        """One `sbatch` for each array."""
        found: dict[str, JobId] = {}
        for begin in range(0, len(tickets), self.array):
            part = tickets[begin : begin + self.array]
            if len(part) == 1:
                found[part[0].name] = self.submit(part[0])
            else:
                found |= self._submit_array(part)
        return found

    def _submit_array(self, tickets: Sequence[Ticket]) -> dict[str, JobId]:
        assert self._arrays is not None, "bind() comes first"
        self._arrays.mkdir(parents=True, exist_ok=True)
        name = _ARRAY + uuid.uuid4().hex
        listed = self._arrays / f"{name}.json"
        script = self._arrays / f"{name}.sh"
        # On the list before it is handed over, so that a task can be told by it whatever becomes of us.
        write_json(listed, [ticket.name for ticket in tickets])
        tasks = [
            f"{i}) exec /bin/bash {shlex.quote(str(t.folder / t.script))} {t.attempt} "
            f">> {shlex.quote(str(t.folder / log_name(t.attempt)))} 2>&1 ;;"
            for i, t in enumerate(tickets)
        ]
        lines = ["#!/bin/bash", *self.header(name), "case $SLURM_ARRAY_TASK_ID in", *tasks, "esac", ""]
        script.write_text("\n".join(lines), encoding="utf-8")
        job_id = self._batch(f"--array=0-{len(tickets) - 1}", "--output=/dev/null", str(script.resolve()))
        return {ticket.name: f"{job_id}_{i}" for i, ticket in enumerate(tickets)}

    def find(self, names: Sequence[str]) -> Mapping[str, JobId]:
        """By name in one `squeue`; the latest of a name counts."""
        wanted = set(names)
        found: dict[str, JobId] = {}
        for job_id, name, state, _ in self._queue():
            if name in wanted and _status(state, None).phase in (Phase.PENDING, Phase.RUNNING):
                found[name] = max(job_id, found.get(name, job_id), key=_number)
        return found

    def statuses(self, jobs: Mapping[str, JobId]) -> Mapping[str, JobStatus]:
        """One `squeue` for all, and one `sacct` for those that it has forgotten."""
        rows = [row for row in self._queue() if jobs.get(row[1]) == row[0]]
        forgotten = set(jobs) - {name for _, name, _, _ in rows}
        if forgotten and self.accounting != "none":
            ids = ",".join(sorted(jobs[name] for name in forgotten))
            known = self._account("--starttime=now-30days", f"--jobs={ids}")
            rows += [row for row in known if row[1] in forgotten and jobs[row[1]] == row[0]]
        return {name: _status(state, seconds) for _, name, state, seconds in rows}

    def cancel(self, jobs: Mapping[str, JobId]) -> None:
        """One `squeue`, since an id may be another job's by now, and one `scancel`."""
        ids = [job_id for job_id, name, _, _ in self._queue() if jobs.get(name) == job_id]
        if ids:
            self._call("scancel", "--quiet", *ids)

    def _queue(self) -> list[tuple[str, str, str, float | None]]:
        """Id, name, state and elapsed seconds of every job of ours that Slurm's controller remembers."""
        text = self._call(
            "squeue",
            "--noheader",
            "--states=all",
            "--array",
            f"--user={getpass.getuser()}",
            f"--format={_SEPARATOR.join(('%i', '%T', '%M', '%j'))}",
        )
        return [
            (job_id, self._task(name, job_id), state, _seconds(elapsed))
            for job_id, state, elapsed, name in _rows(text, 4)
        ]

    def _task(self, name: str, job_id: str) -> str:
        """Name of the ticket of a job, which for a task of an array is on its list."""
        if self._arrays is None or not _NAME_OF_ARRAY.fullmatch(name):
            return name
        names = self._lists.get(name)
        if names is None:
            names = self._lists[name] = read_json(self._arrays / f"{name}.json") or []
        task = job_id.partition("_")[2]
        return names[int(task)] if task.isdigit() and int(task) < len(names) else name

    def _account(self, *which: str) -> list[tuple[str, str, str, float | None]]:
        """The same of ended jobs, by Slurm's accounting."""
        by_database = self.accounting == "sacct"
        fields = "JobID,State,ElapsedRaw,JobName" if by_database else "JobID,State,JobName"
        options = ["-X"] if by_database else ["--completion"]
        text = self._call("sacct", *options, "--noheader", "--parsable2", f"--format={fields}", *which)
        rows = []
        for job_id, state, *elapsed, name in _rows(text, 4 if by_database else 3):
            seconds = float(elapsed[0]) if elapsed and elapsed[0] else None
            rows.append((job_id, self._task(name, job_id), state, seconds))
        return rows

    def _call(self, *command: str) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self.timeout, check=False)
        except subprocess.TimeoutExpired:
            raise SchedulerError(f"{command[0]} gave no answer within {self.timeout:g} s.") from None
        except OSError as error:
            raise SchedulerError(f"{command[0]} can't be run: {error}.") from error
        if done.returncode != 0:
            said = " ".join(done.stderr.split())[-500:] or f"exit code {done.returncode}"
            hint = ""
            if command[0] == "sacct":
                hint = " Without a database of jobs, set scheduler.accounting to jobcomp or none."
            raise SchedulerError(f"{command[0]} failed: {said}.{hint}")
        return done.stdout


def _rows(text: str, n: int) -> list[list[str]]:
    """Lines of `n` fields, the job's name last: people give jobs any name, with separators and line ends in it."""
    rows = [line.split(_SEPARATOR, maxsplit=n - 1) for line in text.split("\n")]
    return [row for row in rows if len(row) == n]


def _status(state: str, seconds: float | None) -> JobStatus:
    word = state.split()[0].rstrip("+") if state.split() else ""  # "CANCELLED by 1000"
    if word in _ENDS:
        phase, fault = _ENDS[word]
        return JobStatus(phase, fault, seconds, word)
    phase = Phase.PENDING if word in _PENDING else Phase.RUNNING  # COMPLETING, SUSPENDED, STOPPED …
    return JobStatus(phase, seconds=seconds, word=word)


def _number(job_id: JobId) -> tuple[int, ...]:
    """What orders ids in time, those of an array's tasks (`12_3`) among them."""
    return tuple(int(part) for part in job_id.split("_") if part.isdigit())


def _seconds(elapsed: str) -> float | None:
    """Seconds of Slurm's [days-][hours:]minutes:seconds; None of what is none."""
    if not re.fullmatch(r"(\d+-)?(\d+:)?\d+:\d+", elapsed):
        return None
    days, _, clock = elapsed.rpartition("-")
    seconds = 0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(part)
    return float(seconds + 86400 * int(days or 0))
