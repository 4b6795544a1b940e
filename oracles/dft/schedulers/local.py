"""Jobs on this machine: a bounded pool of processes that outlives the command that started it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from activelearning.errors import ConfigError
from oracles.dft.faults import Fault
from oracles.dft.folder import log_name
from oracles.dft.schedulers import supervisor
from oracles.dft.schedulers.base import JobId, JobStatus, Phase, Scheduler, SchedulerError, Ticket

_ENDS: Mapping[str, tuple[Phase, Fault | None]] = {
    "ended": (Phase.ENDED, None),
    "timeout": (Phase.ENDED, Fault.OUT_OF_TIME),
    "out_of_memory": (Phase.ENDED, Fault.OUT_OF_MEMORY),
    "killed": (Phase.ENDED, Fault.KILLED),
    "node_lost": (Phase.ENDED, Fault.NODE_LOST),
    "cancelled": (Phase.CANCELLED, None),
}


class LocalScheduler(Scheduler):
    """Runs jobs on this machine, several at once as far as its cores go, in the order in which they came.

    A process of its own (`supervisor.py`) starts and watches them. It is started on demand, needs no service, and ends
    by itself. Should it or the command that started it be killed, running jobs go on, and the next command that asks
    has them taken over.

    Args:
        cores: Cores of one job.
        time_limit: Of one job, seconds; at it the job is ended.
        memory: Of one job, MB of resident memory; beyond it the job is ended. None for no limit.
        total_cores: Cores of all jobs that run at once; by default those of the machine.
        folder: The pool's files; by default one in the fidelity's own folder. Fidelities and campaigns that name
            the same folder share one pool.
    """

    id_in_job: ClassVar[str] = "$ACTIVELEARNING_JOB"
    runs_here: ClassVar[bool] = True

    def __init__(
        self,
        cores: int = 1,
        time_limit: float = 86400.0,
        memory: int | None = None,
        total_cores: int | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(cores, time_limit, memory)
        self.total_cores = len(os.sched_getaffinity(0)) if total_cores is None else total_cores
        if self.total_cores < cores:
            raise ConfigError(
                f"scheduler.cores is {cores}, but the pool has {self.total_cores}; lower it, or raise "
                f"scheduler.total_cores."
            )
        self._spool = None if folder is None else folder.expanduser()

    def bind(self, workdir: Path) -> None:
        """The pool is in the fidelity's folder unless another one was named."""
        if self._spool is None:
            self._spool = workdir / "pool"

    @property
    def spool(self) -> Path:
        """Folder of the pool."""
        assert self._spool is not None, "bind() comes first"
        return self._spool

    @property
    def identity(self) -> str:
        """The pool, by its folder."""
        return f"local:{self.spool.resolve()}"

    def submit(self, ticket: Ticket) -> JobId:
        """Ask for a job; its id is its name, so asking twice changes nothing."""
        for name in (supervisor.JOBS, supervisor.RUNNING, supervisor.ENDED, supervisor.CANCEL):
            (self.spool / name).mkdir(parents=True, exist_ok=True)
        if not (self.spool / supervisor.JOBS / f"{ticket.name}.json").exists():
            # The end of an earlier job of this name, whose folder was removed, would be taken for this one's.
            (self.spool / supervisor.ENDED / f"{ticket.name}.json").unlink(missing_ok=True)
            entry = {
                "name": ticket.name,
                "folder": str(ticket.folder),
                "script": ticket.script,
                "attempt": ticket.attempt,
                "log": log_name(ticket.attempt),
                "cores": self.cores,
                "time_limit": self.time_limit,
                "submitted": time.time(),
                **({} if self.memory is None else {"memory": self.memory}),
            }
            supervisor.write_json(self.spool / supervisor.JOBS / f"{ticket.name}.json", entry)
        self._wake()
        return ticket.name

    def find(self, names: Sequence[str]) -> Mapping[str, JobId]:
        """Jobs that were asked for and have not ended."""
        return {name: name for name in names if (self.spool / supervisor.JOBS / f"{name}.json").exists()}

    def statuses(self, jobs: Mapping[str, JobId]) -> Mapping[str, JobStatus]:
        """By the files of the pool."""
        found = {}
        for name in jobs:
            # In the order in which a job goes through them, so that one on its way is not missed.
            if (self.spool / supervisor.JOBS / f"{name}.json").exists():
                run = supervisor.read_json(self.spool / supervisor.RUNNING / f"{name}.json")
                if run is None:
                    found[name] = JobStatus(Phase.PENDING, word="waiting")
                else:
                    found[name] = JobStatus(Phase.RUNNING, seconds=time.time() - run["begun"], word="running")
            ended = supervisor.read_json(self.spool / supervisor.ENDED / f"{name}.json")
            if ended is not None:
                phase, fault = _ENDS[ended["state"]]
                found[name] = JobStatus(phase, fault, ended["seconds"], ended["state"].replace("_", " "))
        if any(status.phase in (Phase.PENDING, Phase.RUNNING) for status in found.values()):
            self._wake()
        return found

    def cancel(self, jobs: Mapping[str, JobId]) -> None:
        """Ask for the end of jobs, and wait until none of them runs."""
        asked = [name for name in jobs if (self.spool / supervisor.JOBS / f"{name}.json").exists()]
        for name in asked:
            (self.spool / supervisor.CANCEL / name).touch()
        if not asked:
            return
        self._wake()
        end = time.monotonic() + supervisor.LOCK_PATIENCE + 2 * supervisor.GRACE
        while any((self.spool / supervisor.JOBS / f"{name}.json").exists() for name in asked):
            if time.monotonic() > end:
                raise SchedulerError(
                    f"The local pool in {self.spool} does not end its jobs; see {self.spool / supervisor.LOG}."
                )
            time.sleep(supervisor.PERIOD)

    def _wake(self) -> None:
        """Have a supervisor at work."""
        held = supervisor.lock(self.spool, patience=0.0)
        if held is None:
            return
        held.close()
        # Isolated, so that neither the working directory nor PYTHONPATH can stand in its way.
        command = [
            sys.executable,
            "-I",
            supervisor.__file__,
            str(self.spool.resolve()),
            str(self.total_cores),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SchedulerError(f"The local pool can't be started: {done.stderr.strip()[-500:]}")
