"""Oracles in processes of their own, killed at their time: a hang or a crash fails one evaluation and nothing else."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from activelearning.campaign.worker import receive, send
from activelearning.candidate import Candidate
from activelearning.contracts.oracle import OracleContext
from activelearning.errors import OracleError
from activelearning.measurement import Measurement

START_SECONDS = (
    300.0  # importing a potential on a busy machine takes a while; it is not the evaluation's time
)


@dataclass(frozen=True)
class OracleSpec:
    """What a worker process needs to make an oracle."""

    oracle: str
    params: Mapping[str, Any]
    key: str
    folder: Path | None
    context: OracleContext


class WorkerProcess:
    """One spawned process with one oracle in it."""

    def __init__(self, spec: OracleSpec, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "activelearning.campaign.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
        self._log = log
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="activelearning-worker", daemon=True).start()
        setup = {
            "oracle": spec.oracle,
            "params": dict(spec.params),
            "key": spec.key,
            "folder": spec.folder,
            "context": spec.context,
            "sys_path": sys.path,
        }
        self._send(setup)
        greeting = self._next(START_SECONDS)
        if not isinstance(greeting, dict) or "ready" not in greeting:
            self.kill()
            said = greeting["error"] if isinstance(greeting, dict) else self._end()
            raise OracleError(f"the worker process of the oracle {spec.oracle!r} did not start: {said}")

    def _send(self, value: Any) -> None:
        assert self._process.stdin is not None
        try:
            send(self._process.stdin, value)  # type: ignore[arg-type]
        except (BrokenPipeError, OSError):
            return  # the process died; reading its answer tells how

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                self._inbox.put(receive(self._process.stdout))  # type: ignore[arg-type]
        except Exception:
            self._inbox.put(None)

    def _next(self, seconds: float) -> Any:
        try:
            return self._inbox.get(timeout=seconds)
        except queue.Empty:
            return TimeoutError()

    def _end(self) -> str:
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"it {how} (its output is in {self._log.name})"

    def ask(self, candidate: Candidate, key: str, timeout: float) -> tuple[Measurement, bool]:
        """Evaluate one candidate; returns the measurement and whether the process can be used again."""
        self._send((candidate, key))
        answer = self._next(timeout)
        if isinstance(answer, Measurement):
            return answer, True
        if isinstance(answer, TimeoutError):
            self.kill()
            return Measurement.failed(f"timed out after {timeout:g} s", seconds=timeout), False
        return Measurement.failed(f"the oracle's process died: {self._end()}"), False

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Let the process end: closing its input is its sign."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()


class WorkerPool:
    """Up to n worker processes of one oracle, started on demand and reused."""

    def __init__(self, spec: OracleSpec, n: int, timeout: float, logs: Path) -> None:
        self._spec = spec
        self._n = n
        self._timeout = timeout
        self._logs = logs
        self._idle: list[WorkerProcess] = []
        self._lock = threading.Lock()
        self._busy: set[WorkerProcess] = set()
        self._started = 0
        self._killed = threading.Event()

    def _take(self) -> WorkerProcess:
        with self._lock:
            if self._idle:
                worker = self._idle.pop()
                self._busy.add(worker)
                return worker
            self._started += 1
            log = self._logs / f"worker-{os.getpid()}-{self._started}.log"
        worker = WorkerProcess(self._spec, log)
        with self._lock:
            self._busy.add(worker)
        return worker

    def run(
        self,
        work: Sequence[tuple[Candidate, str]],
        claim: Callable[[str], bool],
        done: Callable[[str, Measurement], None],
    ) -> None:
        """Evaluate in parallel.

        Args:
            work: Candidates with their evaluations' keys, in order.
            claim: Called right before an evaluation starts; False skips it.
            done: Called with each result as it comes, from the thread that waited for it.
        """
        pending: queue.SimpleQueue[tuple[Candidate, str]] = queue.SimpleQueue()
        for item in work:
            pending.put(item)
        errors: list[BaseException] = []
        stop = threading.Event()

        def loop() -> None:
            try:
                while not (stop.is_set() or self._killed.is_set()):
                    try:
                        candidate, key = pending.get_nowait()
                    except queue.Empty:
                        return
                    if claim(key):
                        measurement = self._evaluate(candidate, key)
                        if self._killed.is_set():
                            return  # the process died by our hand, which says nothing of the candidate
                        done(key, measurement)
            except BaseException as error:
                errors.append(error)
                stop.set()

        threads = [
            threading.Thread(target=loop, name=f"activelearning-evaluate-{i}", daemon=True)
            for i in range(min(self._n, len(work)))
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)  # short waits, so that Ctrl-C is heard
        except BaseException:
            stop.set()
            self.kill()
            raise
        if errors:
            raise errors[0]

    def _evaluate(self, candidate: Candidate, key: str) -> Measurement:
        begin = time.perf_counter()
        try:
            worker = self._take()
        except OracleError as error:
            return Measurement.failed(str(error))
        measurement, reusable = worker.ask(candidate, key, self._timeout)
        with self._lock:
            self._busy.discard(worker)
            if reusable:
                self._idle.append(worker)
        if measurement.seconds is None:
            return replace(measurement, seconds=time.perf_counter() - begin)
        return measurement

    def kill(self) -> None:
        """End every process at once; what they were at stays unanswered."""
        self._killed.set()
        with self._lock:
            workers = [*self._idle, *self._busy]
            self._idle.clear()
            self._busy.clear()
        for worker in workers:
            worker.kill()

    def close(self) -> None:
        """End idle processes in peace."""
        with self._lock:
            workers, self._idle = self._idle, []
        for worker in workers:
            worker.close()
