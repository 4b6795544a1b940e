"""Queues of DFT jobs under each scheduler, with a cheap calculator in place of a code."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from slurm_harness import Cluster, cluster

from activelearning.contracts.oracle import JobState
from oracles.dft.engines import ASEEngine
from oracles.dft.queue import Done, JobQueue, Outcome, Retries
from oracles.dft.schedulers import LocalScheduler, Scheduler, SlurmScheduler

HERE = Path(__file__).parent
CUBE = {"numbers": [3, 9], "positions": [[0, 0, 0], [1, 1, 1]], "cell": [[2, 0, 0], [0, 2, 0], [0, 0, 2]]}


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Slurm of the session's own."""
    with cluster(tmp_path_factory.mktemp("slurm") / "cluster") as made:
        yield made


@pytest.fixture(params=["local", pytest.param("slurm", marks=pytest.mark.slurm)])
def scheduler_section(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The config section of each scheduler."""
    if request.param == "local":
        return {"type": "local", "total_cores": 2}
    request.getfixturevalue("slurm")
    return {"type": "slurm", "accounting": "jobcomp"}


class Bench:
    """A queue, and what tests do with it."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.kind = kind

    def scheduler(self, **changes: Any) -> Scheduler:
        """The scheduler, as a process that has just started makes it."""
        made: Scheduler = (
            LocalScheduler(**{"total_cores": 2, **changes})
            if self.kind == "local"
            else SlurmScheduler(**{"accounting": "jobcomp", **changes})
        )
        made.bind(self.folder)
        return made

    def queue(self, fate: str = "converges", seconds: float = 0.0, **changes: Any) -> JobQueue:
        """A queue whose calculations meet a fate."""
        retries = {"max_attempts": 2, "backoff": 0.0, "max_core_hours": 1.0}
        retries |= {name: changes.pop(name) for name in list(changes) if name in retries}
        engine = ASEEngine(
            "fake_calculators:Spring",
            {"fate": fate, "seconds": seconds},
            environment={"PYTHONPATH": f"{HERE}:{HERE.parents[1]}"},
        )
        return JobQueue(self.folder / "jobs", self.scheduler(**changes), engine, Retries(**retries))

    @staticmethod
    def job(queue: JobQueue, **changes: Any) -> dict[str, Any]:
        """What is computed."""
        atoms = {**CUBE, "pbc": [True] * 3}
        base = {"atoms": atoms, "modules": ["ase"], "relaxation": None}
        calculator = queue.engine.calculator(None)  # type: ignore[arg-type]
        return {**base, "calculator": calculator, "relaxation_calculator": calculator, **changes}

    def put(self, queue: JobQueue, key: str = "a" * 64, **changes: Any) -> str:
        """Put a job in."""
        queue.put(key, self.job(queue, **changes))
        return key

    def ran(self, key: str = "a" * 64) -> list[str]:
        """Attempts of each calculation that was begun."""
        path = self.folder / "jobs" / key / "ran"
        return path.read_text().split() if path.exists() else []

    def record(self, key: str = "a" * 64) -> Mapping[str, Any]:
        """How a job has fared."""
        value: Mapping[str, Any] = json.loads((self.folder / "jobs" / key / "record.json").read_text())
        return value

    @staticmethod
    def until(queue: JobQueue, key: str, wanted: Callable[[Outcome], bool], seconds: float = 120) -> Outcome:
        """Look until an outcome is as wanted."""
        end = time.monotonic() + seconds
        while True:
            outcome = queue.look([key])[key]
            if wanted(outcome):
                return outcome
            assert time.monotonic() < end, f"{outcome} after {seconds} s"
            time.sleep(0.2)

    def done(self, queue: JobQueue, key: str = "a" * 64, seconds: float = 120) -> Done:
        """Look until a job is over."""
        outcome = self.until(queue, key, lambda o: isinstance(o, Done), seconds)
        assert isinstance(outcome, Done)
        return outcome

    def running(self, queue: JobQueue, key: str = "a" * 64) -> None:
        """Look until a job's calculation has begun."""
        self.until(queue, key, lambda o: o is JobState.RUNNING and bool(self.ran(key)))


@pytest.fixture
def bench(tmp_path: Path, scheduler_section: dict[str, Any]) -> Iterator[Bench]:
    """A queue in a folder of the test's own; nothing of it runs on after the test."""
    made = Bench(tmp_path, scheduler_section["type"])
    yield made
    scheduler = made.scheduler()
    names = [path.name for path in (tmp_path / "jobs").glob("[!.]*")]
    if names:
        found = scheduler.find([*names, *(f"{name}.2" for name in names)])
        scheduler.cancel(found)


@pytest.fixture(scope="session")
def gpaw_python() -> str:
    """The interpreter of an environment with GPAW, from ACTIVELEARNING_GPAW_PYTHON."""
    given = os.environ.get("ACTIVELEARNING_GPAW_PYTHON")
    if not given or not Path(given).is_file():
        pytest.fail("ACTIVELEARNING_GPAW_PYTHON must name a Python with GPAW; `make test-slurm` makes one")
    return given
