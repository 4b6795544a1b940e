"""The process behind the `local` scheduler: starts jobs as cores get free, holds them to their limits, notes their end.

Run as `python -I supervisor.py SPOOL CORES`; it needs nothing but the standard library. It leaves the session of the
command that started it, so it outlives it, and ends when nothing is left to do. One at a time works on a spool, by a
lock. Its jobs are sessions of their own: should it be killed they go on, and the next one takes them over, each known
by its process id together with the time at which that process started.

    SPOOL/jobs/NAME.json     asked for, not ended
    SPOOL/running/NAME.json  started: pid, start time, boot of the machine
    SPOOL/ended/NAME.json    ended: state, seconds
    SPOOL/cancel/NAME        to be ended
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCK, LOG = "supervisor.lock", "supervisor.log"
JOBS, RUNNING, ENDED, CANCEL = "jobs", "running", "ended", "cancel"
MARK = "ACTIVELEARNING_JOB"  # the variable by which a job knows its name
# Files of a job: its end, and its last sign of life.
EXIT, HEARTBEAT = "exit-{attempt}.json", "heartbeat"
PERIOD = 0.1  # seconds between looks
MEMORY_PERIOD = 1.0
IDLE = 5.0  # seconds without work after which it ends
GRACE = 5.0  # between asking a job to end and ending it
LOCK_PATIENCE = 10.0  # a predecessor about to end needs less
# A job begins once it is on record. Were we killed before that, the line would never come and nothing would begin.
_WHEN_TOLD = 'read -r && exec /bin/bash "$0" "$1" < /dev/null'


def write_json(path: Path, value: Any) -> None:
    """Write at once or not at all."""
    waiting = path.with_name(f".{path.name}.{os.getpid()}")
    with waiting.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    waiting.replace(path)


def read_json(path: Path) -> Any:
    """The value of a JSON file, None where there is no file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def boot_id() -> str:
    """The machine's current boot; process ids mean nothing beyond it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def process(pid: int) -> tuple[str, int, int] | None:
    """State, session and start time (clock ticks since boot) of a process, None where there is none to be seen."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The command's name, in parentheses, may hold blanks and parentheses of its own.
    fields = stat.rpartition(")")[2].split()
    return fields[0], int(fields[3]), int(fields[19])


def session_memory() -> dict[int, float]:
    """Resident memory of each session's processes, MB."""
    page = os.sysconf("SC_PAGE_SIZE") / 2**20
    found: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            known = process(int(entry.name))
            with contextlib.suppress(OSError):
                if known is not None:
                    resident = int((entry / "statm").read_text().split()[1]) * page
                    found[known[1]] = found.get(known[1], 0.0) + resident
    return found


@dataclass
class Job:
    """A job that was started.

    Attributes:
        entry: As it was asked for.
        pid: Of its script, which leads a session; 0 where there is no such process in this boot.
        ticks: Start time of that process.
        begun: Unix time.
        child: The process, where it is our own child.
        is_watched: Whether we have seen it alive, so that its end is seen as well.
        verdict: Why it is being ended.
        ending: Unix time since which it is.
    """

    entry: dict[str, Any]
    pid: int
    ticks: int
    begun: float
    child: subprocess.Popen[bytes] | None = None
    is_watched: bool = False
    verdict: str | None = None
    ending: float = 0.0

    def is_alive(self) -> bool:
        """Whether its script is running."""
        if self.child is not None:
            return self.child.poll() is None
        known = process(self.pid)
        return known is not None and known[2] == self.ticks and known[0] != "Z"

    def signal(self, number: int) -> None:
        """Signal every process of it."""
        for pid in self._processes():
            # One that took another user's rights is not ours to end.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _processes(self) -> list[int]:
        """Those of its session, in whichever process group: a launcher may have made some.

        The number of a session is given again once nobody is left in it. Where its first process is gone, the others
        are told by the variable that the job was started with.
        """
        leader = process(self.pid) if self.pid else None
        if not self.pid or (leader is not None and leader[2] != self.ticks):
            return []
        mark = f"{MARK}={self.entry['name']}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                known = process(int(entry.name))
                if known is not None and known[1] == self.pid and (leader is not None or _has(entry, mark)):
                    found.append(int(entry.name))
        return found


def _has(entry: Path, mark: bytes) -> bool:
    """Whether a process was started with a variable of that value."""
    try:
        return mark in (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


class Supervisor:
    """Works on one spool.

    Args:
        spool: Its folder.
        cores: Of all jobs that run at once.
    """

    def __init__(self, spool: Path, cores: int) -> None:
        self.spool = spool
        self.cores = cores
        self.boot = boot_id()
        self.jobs: dict[str, Job] = {}

    def run(self) -> None:
        """Work until there has been nothing to do for a while."""
        self._take_over()
        idle_since = looked = time.monotonic()
        while True:
            self._start()
            memory = time.monotonic() - looked >= MEMORY_PERIOD
            if memory:
                looked = time.monotonic()
            self._watch(
                session_memory() if memory and any("memory" in j.entry for j in self.jobs.values()) else {}
            )
            if self.jobs or any((self.spool / JOBS).iterdir()):
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since >= IDLE:
                return
            time.sleep(PERIOD)

    def _take_over(self) -> None:
        """Go on with what a predecessor started."""
        for path in sorted((self.spool / RUNNING).glob("*.json")):
            entry, run = read_json(self.spool / JOBS / path.name), read_json(path)
            if entry is None:  # it was ended between two files
                path.unlink()
                continue
            if run["boot"] != self.boot:
                # Its process has gone with the machine; its number is somebody else's.
                self._end(Job(entry, 0, 0, run["begun"]), "node_lost")
            else:
                self.jobs[path.stem] = Job(entry, run["pid"], run["ticks"], run["begun"])

    def _start(self) -> None:
        used = sum(job.entry["cores"] for job in self.jobs.values())
        waiting = []
        for path in (self.spool / JOBS).glob("*.json"):
            if path.stem not in self.jobs:
                entry = read_json(path)
                if entry is None:
                    continue
                if (self.spool / CANCEL / entry["name"]).exists():
                    self._end(Job(entry, 0, 0, time.time()), "cancelled")
                else:
                    waiting.append(entry)
        for entry in sorted(waiting, key=lambda e: (e["submitted"], e["name"])):
            if used + entry["cores"] > self.cores:
                return  # in order: a large job must not wait for ever behind small ones
            used += entry["cores"]
            self._launch(entry)

    def _launch(self, entry: dict[str, Any]) -> None:
        name = entry["name"]
        folder = Path(entry["folder"])
        environment = {**os.environ, MARK: name}
        try:
            with (folder / entry["log"]).open("ab") as log:
                child = subprocess.Popen(
                    ["/bin/bash", "-c", _WHEN_TOLD, entry["script"], str(entry["attempt"])],
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            print(f"{name} can't be started: {error}", flush=True)
            self._end(Job(entry, 0, 0, time.time()), "node_lost")
            return
        known = process(child.pid)
        job = Job(entry, child.pid, known[2] if known else 0, time.time(), child, is_watched=True)
        write_json(
            self.spool / RUNNING / f"{name}.json",
            {"pid": job.pid, "ticks": job.ticks, "begun": job.begun, "boot": self.boot},
        )
        self.jobs[name] = job
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError), child.stdin as line:
            line.write(b"go\n")

    def _watch(self, memory: dict[int, float]) -> None:
        for name, job in list(self.jobs.items()):
            if not job.is_alive():
                self.jobs.pop(name)
                self._end(job, job.verdict or self._verdict(job))
                continue
            job.is_watched = True
            seconds = time.time() - job.begun
            if job.verdict is None:
                if (self.spool / CANCEL / name).exists():
                    self._stop(job, "cancelled")
                elif seconds > job.entry["time_limit"]:
                    self._stop(job, "timeout")
                elif memory.get(job.pid, 0.0) > job.entry.get("memory", float("inf")):
                    self._stop(job, "out_of_memory")
            elif time.time() > job.ending + GRACE:
                job.signal(signal.SIGKILL)

    def _stop(self, job: Job, verdict: str) -> None:
        job.verdict, job.ending = verdict, time.time()
        # Memory has to be freed now; whatever else gets time to put its files in order.
        job.signal(signal.SIGKILL if verdict == "out_of_memory" else signal.SIGTERM)

    def _verdict(self, job: Job) -> str:
        """How a job ended that we did not end: by itself, or by somebody's signal to its script."""
        if job.child is not None:
            return "ended" if job.child.returncode >= 0 else "killed"
        return "ended" if _exit_file(job).exists() else "killed"

    def _end(self, job: Job, state: str) -> None:
        name = job.entry["name"]
        job.signal(signal.SIGKILL)  # what the script left behind
        seconds = time.time() - job.begun if job.is_watched else _seconds_told(job)
        ended = {**job.entry, "state": state, "seconds": seconds}
        write_json(self.spool / ENDED / f"{name}.json", ended)
        (self.spool / JOBS / f"{name}.json").unlink(missing_ok=True)
        (self.spool / RUNNING / f"{name}.json").unlink(missing_ok=True)
        (self.spool / CANCEL / name).unlink(missing_ok=True)


def _exit_file(job: Job) -> Path:
    return Path(job.entry["folder"]) / EXIT.format(attempt=job.entry["attempt"])


def _seconds_told(job: Job) -> float:
    """Wall time of a job that ended while nobody watched, by its files: since then hours may have gone by."""
    heartbeat = Path(job.entry["folder"]) / HEARTBEAT
    try:
        told = read_json(_exit_file(job))
        if told is not None:
            return float(told["seconds"])
        beat, last = read_json(heartbeat), heartbeat.stat().st_mtime
    except (FileNotFoundError, ValueError):  # none, or cut short as the machine went down
        return 0.0
    return max(last - job.begun, 0.0) if beat["attempt"] == job.entry["attempt"] else 0.0


def lock(spool: Path, patience: float) -> Any:
    """The lock of a spool as an open file, None where another supervisor keeps it."""
    file = (spool / LOCK).open("a")
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() >= end:
                file.close()
                return None
            time.sleep(PERIOD)


def main(spool: Path, cores: int) -> None:
    """Leave the session of whoever started it, then work."""
    if os.fork():
        return
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    log = os.open(spool / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    held = lock(spool, LOCK_PATIENCE)
    if held is not None:
        Supervisor(spool, cores).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
