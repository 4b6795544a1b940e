"""Slurm, by its command line: `sbatch`, `squeue`, `sacct`, `scancel`."""

from __future__ import annotations

import getpass
import math
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from activelearning.errors import ConfigError
from oracles.dft.faults import Fault
from oracles.dft.folder import log_name
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
        timeout: Seconds that a command of Slurm may take.
    """

    id_in_job: ClassVar[str] = "$SLURM_JOB_ID"

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
        timeout: float = 120.0,
    ) -> None:
        super().__init__(cores, time_limit, memory)
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

    def check(self) -> None:
        """Raise a `ConfigError` where Slurm's commands are missing."""
        wanted = ["sbatch", "squeue", "scancel", *([] if self.accounting == "none" else ["sacct"])]
        missing = [name for name in wanted if shutil.which(name) is None]
        if missing:
            raise ConfigError(
                f"scheduler.type is slurm, but this machine has no {', '.join(missing)}. Run the campaign where jobs "
                f"are submitted from, or take `type: local`."
            )

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
        text = self._call(
            "sbatch",
            "--parsable",
            f"--job-name={ticket.name}",
            f"--chdir={ticket.folder}",
            f"--output={ticket.folder / log_name(ticket.attempt)}",
            "--open-mode=append",
            str(ticket.folder / ticket.script),
            str(ticket.attempt),
        )
        job_id = text.strip().split(";")[0]  # the cluster's name may follow
        if not _ID.fullmatch(job_id):
            raise SchedulerError(f"sbatch answered {text.strip()!r} where the id of a job was expected.")
        return job_id

    def find(self, names: Sequence[str]) -> Mapping[str, JobId]:
        """By name in one `squeue`, and one `sacct` where that does not know them all; the latest of a name counts."""
        wanted = set(names)
        found: dict[str, JobId] = {}
        for job_id, name, _, _ in self._queue():
            if name in wanted:
                found[name] = max(job_id, found.get(name, job_id), key=int)
        if self.accounting != "none" and wanted - set(found):
            # The start of sacct's window is midnight unless it is told.
            rows = self._account("--starttime=now-30days", f"--name={','.join(sorted(wanted - set(found)))}")
            for job_id, name, _, _ in rows:
                if name in wanted - set(found):
                    found[name] = job_id
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
            f"--user={getpass.getuser()}",
            f"--format=%i{_SEPARATOR}%j{_SEPARATOR}%T{_SEPARATOR}%M",
        )
        rows = []
        for line in text.splitlines():
            job_id, name, state, elapsed = line.split(_SEPARATOR)
            rows.append((job_id, name, state, _seconds(elapsed)))
        return rows

    def _account(self, *which: str) -> list[tuple[str, str, str, float | None]]:
        """The same of ended jobs, by Slurm's accounting."""
        by_database = self.accounting == "sacct"
        fields = "JobID,JobName,State,ElapsedRaw" if by_database else "JobID,JobName,State"
        options = ["-X"] if by_database else ["--completion"]
        text = self._call("sacct", *options, "--noheader", "--parsable2", f"--format={fields}", *which)
        rows = []
        for line in text.splitlines():
            job_id, name, state, *elapsed = line.split(_SEPARATOR)
            rows.append((job_id, name, state, float(elapsed[0]) if elapsed and elapsed[0] else None))
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


def _status(state: str, seconds: float | None) -> JobStatus:
    word = state.split()[0].rstrip("+") if state.split() else ""  # "CANCELLED by 1000"
    if word in _ENDS:
        phase, fault = _ENDS[word]
        return JobStatus(phase, fault, seconds, word)
    phase = Phase.PENDING if word in _PENDING else Phase.RUNNING  # COMPLETING, SUSPENDED, STOPPED …
    return JobStatus(phase, seconds=seconds, word=word)


def _seconds(elapsed: str) -> float | None:
    """Seconds of Slurm's [days-][hours:]minutes:seconds; None of what is none."""
    if not re.fullmatch(r"(\d+-)?(\d+:)?\d+:\d+", elapsed):
        return None
    days, _, clock = elapsed.rpartition("-")
    seconds = 0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(part)
    return float(seconds + 86400 * int(days or 0))
