"""Schedulers: who runs jobs. Subclass `Scheduler` to bring another one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from activelearning.errors import ActiveLearningError, ConfigError
from oracles.dft.faults import Fault

JobId = str


class SchedulerError(ActiveLearningError):
    """A scheduler can't be reached, or refuses. What was asked of it is asked again later."""


class Phase(StrEnum):
    """Where a job is, as its scheduler sees it."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"
    CANCELLED = "cancelled"  # by a person, or by us


@dataclass(frozen=True)
class JobStatus:
    """What a scheduler knows of a job.

    Attributes:
        phase: Where it is.
        fault: Why it ended, where the scheduler knows better than the job's files: at its time limit, out of memory,
            with its node.
        seconds: Wall time used so far; None where the scheduler does not say.
        word: The scheduler's own word for the state.
    """

    phase: Phase
    fault: Fault | None = None
    seconds: float | None = None
    word: str = ""


@dataclass(frozen=True)
class Ticket:
    """One attempt at a job, as a scheduler is asked to run it.

    Attributes:
        name: Name under which it can be found again: the job's key, and the attempt's number from the second on.
        folder: The job's folder, where `script` is run with `attempt` as its only argument.
        script: Name of the script.
        attempt: Number of the attempt, from 1.
    """

    name: str
    folder: Path
    script: str
    attempt: int


class Scheduler(ABC):
    """Runs scripts somewhere, some time.

    A job is submitted once for each ticket; nothing is tried again here. The script tells apart two jobs of one
    ticket, should a submission be lost between the scheduler and its answer.

    Args:
        cores: Cores of one job.
        time_limit: Of one job, seconds.
        memory: Of one job, MB; None for the scheduler's own limit.
    """

    # The shell's expression for the job's own id, equal to what `submit` returns.
    id_in_job: ClassVar[str]
    # Whether jobs run on this machine, so that what they need can be looked for here.
    runs_here: ClassVar[bool] = False
    # Whether jobs are kept until a batch of them is there, and handed over by `submit_all`.
    takes_batches: bool = False

    def __init__(self, cores: int = 1, time_limit: float = 86400.0, memory: int | None = None) -> None:
        if cores < 1:
            raise ConfigError(f"scheduler.cores must be at least 1, not {cores}.")
        if not time_limit > 0:
            raise ConfigError(f"scheduler.time_limit is in seconds and above 0, not {time_limit:g}.")
        if memory is not None and memory < 1:
            raise ConfigError(f"scheduler.memory is in MB and at least 1, not {memory}.")
        self.cores = cores
        self.time_limit = time_limit
        self.memory = memory

    def bind(self, workdir: Path) -> None:  # noqa: B027 (a hook; most schedulers keep no files)
        """Take notice of a folder for files of the scheduler's own."""

    def check(self) -> None:  # noqa: B027 (a hook)
        """Raise a `ConfigError` where the scheduler can't work here at all."""

    @property
    def identity(self) -> str:
        """What tells this scheduler from others: two of one identity know each other's jobs.

        Jobs are on record with it. By default all schedulers of a class are one.

        Raises:
            SchedulerError: it can't be reached, where that is needed.
        """
        return f"{type(self).__module__}:{type(self).__qualname__}"

    def header(self, name: str) -> Sequence[str]:
        """Lines at the top of a job's script, below `#!/bin/bash`."""
        return ()

    @abstractmethod
    def submit(self, ticket: Ticket) -> JobId:
        """Hand a job over.

        Raises:
            SchedulerError: it can't be reached, or refuses; the job may nevertheless have been taken.
        """

    def submit_all(self, tickets: Sequence[Ticket]) -> Mapping[str, JobId]:
        """Hand jobs over; ids by name. One by one, unless a scheduler knows better.

        Raises:
            SchedulerError: as `submit`; any of the jobs may have been taken.
        """
        return {ticket.name: self.submit(ticket) for ticket in tickets}

    @abstractmethod
    def find(self, names: Sequence[str]) -> Mapping[str, JobId]:
        """Jobs that wait or run, by the names of their tickets.

        Ended ones are left out: what an ended job has done is in its folder, and if nothing is there it may have been
        a job of an earlier folder of that name.
        """

    @abstractmethod
    def statuses(self, jobs: Mapping[str, JobId]) -> Mapping[str, JobStatus]:
        """What is known of jobs, by name, in a number of calls that does not grow with theirs.

        Args:
            jobs: Ids by the names of their tickets. An id that is another job's by now, because the scheduler lost
                its memory and began to count anew, is unknown.

        Returns:
            Statuses by name; unknown jobs are left out.
        """

    @abstractmethod
    def cancel(self, jobs: Mapping[str, JobId]) -> None:
        """End jobs, ids by name; ended and unknown ones are no error."""
