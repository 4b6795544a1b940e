"""Schedulers of jobs: this machine's own cores, and Slurm."""

from oracles.dft.schedulers.base import JobStatus, Phase, Scheduler, SchedulerError, Ticket
from oracles.dft.schedulers.local import LocalScheduler
from oracles.dft.schedulers.slurm import SlurmScheduler

SCHEDULERS: dict[str, type[Scheduler]] = {"local": LocalScheduler, "slurm": SlurmScheduler}

__all__ = [
    "SCHEDULERS",
    "JobStatus",
    "LocalScheduler",
    "Phase",
    "Scheduler",
    "SchedulerError",
    "SlurmScheduler",
    "Ticket",
]
