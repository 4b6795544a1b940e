"""Oracles in processes of their own, killed at their time: a hang or a crash fails one evaluation and nothing else."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
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
from activelearning.errors import DeviceError, MachineError, OracleError
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
        far, self._lifeline = os.pipe()
        try:
            with log.open("ab") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "activelearning.campaign.worker", str(far)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=environment,
                    pass_fds=(far,),
                    # A group of its own, so that what an oracle starts dies with it, and Ctrl-C is ours to handle.
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(far)
        self._name = spec.oracle
        self._log = log
        self._lock = threading.Lock()
        self._is_gone = False
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
        if isinstance(greeting, MachineError):
            self.kill()
            raise MachineError(f"The oracle {spec.oracle!r} can't be made: {greeting.reason}")
        if not isinstance(greeting, dict) or "ready" not in greeting:
            said = greeting["error"] if isinstance(greeting, dict) else None
            if isinstance(greeting, TimeoutError):
                said = f"it was not ready after {START_SECONDS:g} s"
            said = said or self._end()
            self.kill()
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

    def _next(self, seconds: float | None) -> Any:
        try:
            return self._inbox.get(timeout=seconds)
        except queue.Empty:
            return TimeoutError()

    def _end(self) -> str:
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return f"it sent what can't be read (its output is in {self._log.name})"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"it {how} (its output is in {self._log.name})"

    def ask(self, candidate: Candidate, key: str, timeout: float | None) -> tuple[Measurement, bool]:
        """Evaluate one candidate; returns the measurement and whether the process can be used again.

        Raises:
            MachineError: the machine failed the oracle.
        """
        self._send((candidate, key))
        answer = self._next(timeout)
        if isinstance(answer, Measurement):
            return answer, True
        if isinstance(answer, DeviceError):
            # As a crash: it may be this candidate that does it, and the next one has a device of its own again.
            self.kill()
            return Measurement.failed(answer.reason), False
        if isinstance(answer, MachineError):
            raise answer
        if isinstance(answer, TimeoutError):
            self.kill()
            reason = f"the oracle {self._name!r} timed out after {timeout:g} s"
            return Measurement.failed(reason, seconds=timeout), False
        how = self._end()
        self.kill()  # what it started may be alive still
        return Measurement.failed(f"the process of the oracle {self._name!r} died: {how}"), False

    def kill(self) -> None:
        """End the process at once, and all that it has started."""
        with self._lock:
            if self._is_gone:
                return  # its number may be another's by now
            self._is_gone = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            os.close(self._lifeline)
        self._process.wait()

    def close(self) -> None:
        """Let the process end: closing its input is its sign."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self.kill()


class WorkerPool:
    """Up to n worker processes of one oracle, started on demand and reused."""

    def __init__(self, spec: OracleSpec, n: int, timeout: float | None, logs: Path) -> None:
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
            # Processes may share a log: it is appended to, and its name, which reasons of failure tell, stays the same.
            log = self._logs / f"worker-{self._started}.log"
        worker = WorkerProcess(self._spec, log)
        with self._lock:
            self._busy.add(worker)
        if self._killed.is_set():
            worker.kill()  # it was being started while the others were killed
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
        except OSError as error:
            raise MachineError(
                f"A worker process of the oracle {self._spec.oracle!r} can't be started: {error}"
            ) from error
        try:
            measurement, reusable = worker.ask(candidate, key, self._timeout)
        except BaseException:
            worker.kill()
            with self._lock:
                self._busy.discard(worker)
            raise
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
