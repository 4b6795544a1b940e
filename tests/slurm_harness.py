"""A Slurm of the tests' own: controller and node daemon on loopback, from Debian's `slurm-wlm` and `munge`, as root."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CONFIG = """\
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobcomp.log
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout={node_timeout}
SlurmdParameters=config_overrides
InactiveLimit=0
MinJobAge={memory}
KillWait=2
MaxArraySize=10001
MaxJobCount=20000
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 State=UNKNOWN
PartitionName=batch Nodes=localhost Default=YES MaxTime=INFINITE State=UP
AccountingStorageType=accounting_storage/none
"""
COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sacct", "scancel", "scontrol")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Cluster:
    """One controller and one node.

    Args:
        folder: State, logs and configuration.
        memory: Seconds for which the controller remembers ended jobs.
        node_timeout: Seconds after which the controller gives a silent node up.
        cpus: Of the node; more than the machine has is fine.
    """

    def __init__(self, folder: Path, *, memory: int = 300, node_timeout: int = 10, cpus: int = 4) -> None:
        self.folder = folder
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        self.config = folder / "slurm.conf"
        self.config.write_text(
            CONFIG.format(
                folder=folder,
                controller_port=_free_port(),
                node_port=_free_port(),
                memory=memory,
                node_timeout=node_timeout,
                cpus=cpus,
            )
        )
        self.environment = {**os.environ, "SLURM_CONF": str(self.config), "PATH": _PATH}

    def start(self) -> None:
        """Start both daemons and wait until the node takes jobs."""
        self.start_controller()
        self.start_node()

    def stop(self) -> None:
        """End all jobs and both daemons."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.call("scancel", "--user=root")
            _until(lambda: not self.call("squeue", "--noheader"), 30, "jobs to end")
        self.kill("slurmd")
        self.kill("slurmctld")

    def start_controller(self, *, forget: bool = False) -> None:
        """Start the controller, by `forget` without its memory of jobs."""
        self.call("slurmctld", *(["-c"] if forget else []))
        _until(lambda: "UP" in self._try("scontrol", "ping"), 60, "the controller")

    def start_node(self) -> None:
        """Start the node daemon."""
        self.call("slurmd", "-N", "localhost")

        def is_up() -> bool:
            state = self._try("sinfo", "--noheader", "--format=%T")
            return state.strip() in ("idle", "mixed", "allocated", "completing")

        _until(is_up, 90, "the node")

    def save(self, job_id: str) -> None:
        """Wait until the controller has written a job down as it is now.

        What it learns within the few seconds before it is killed, it forgets: it gives the job's id to another one, or
        starts what runs already, and then takes the node out of service.
        """
        mark = uuid.uuid4().hex
        self.call("scontrol", "update", f"JobId={job_id}", f"Comment={mark}")
        file = self.folder / "state" / "job_state"
        _until(lambda: file.exists() and mark.encode() in file.read_bytes(), 60, f"{mark} in {file}")

    def kill(self, daemon: str) -> None:
        """Kill a daemon as a power cut would; the jobs' own processes go on."""
        file = self.folder / f"{daemon}.pid"
        if file.exists():
            pid = int(file.read_text())
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _until(lambda: not _is_alive(pid), 20, f"the end of {daemon}")
            file.unlink(missing_ok=True)

    def call(self, *command: str) -> str:
        """Run a command of Slurm against this cluster."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def _try(self, *command: str) -> str:
        try:
            return self.call(*command)
        except subprocess.SubprocessError:
            return ""


@contextlib.contextmanager
def cluster(folder: Path, **settings: int) -> Iterator[Cluster]:
    """A running cluster, its configuration in the environment; fails the test where it can't be had."""
    missing = [name for name in COMMANDS if shutil.which(name, path=_PATH) is None]
    if missing or os.geteuid() != 0:
        pytest.fail(
            f"needs root and slurm-wlm and munge, as `make test-slurm` installs; missing: {missing or 'root'}"
        )
    _start_munge()
    made = Cluster(folder, **settings)
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(made.config)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


def _start_munge() -> None:
    if _answers("munge", "-n"):
        return
    subprocess.run(["install", "-d", "-o", "munge", "-g", "munge", "-m", "755", "/run/munge"], check=True)
    subprocess.run(["runuser", "-u", "munge", "--", "/usr/sbin/munged", "--force"], check=True)
    _until(lambda: _answers("munge", "-n"), 20, "munge")


def _answers(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
