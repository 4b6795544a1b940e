"""What only a cluster does to jobs: daemons die and come back, the controller forgets, a thousand are in flight."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_harness import Cluster

from activelearning.contracts.oracle import JobState
from oracles.dft.schedulers import SchedulerError, SlurmScheduler
from oracles.dft.schedulers.base import JobStatus, Phase
from oracles.dft.schedulers.slurm import _seconds, _status

KEY = "a" * 64
slurm_only = pytest.mark.slurm


@pytest.fixture
def scheduler_section() -> dict[str, Any]:
    return {"type": "slurm", "accounting": "jobcomp"}


@pytest.fixture
def whole(slurm: Cluster) -> Iterator[Cluster]:
    """The cluster, both daemons up again after the test."""
    yield slurm
    if not (slurm.folder / "slurmctld.pid").exists():
        slurm.start_controller()
    if not (slurm.folder / "slurmd.pid").exists():
        slurm.start_node()


def _wait_for_cluster(queue: Any, key: str = KEY) -> Any:
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(SchedulerError):
            return queue.look([key])[key]
        assert time.monotonic() < end
        time.sleep(0.5)


@slurm_only
def test_a_job_outlives_the_node_daemon(bench: Any, whole: Cluster) -> None:
    queue = bench.queue(seconds=6.0)
    bench.put(queue)
    bench.running(queue)
    whole.kill("slurmd")
    time.sleep(1.0)
    whole.start_node()
    done = bench.done(bench.queue())
    assert done.n_attempts == 1
    assert bench.ran() == ["1"]


@slurm_only
@pytest.mark.timeout(400)
def test_a_job_lost_with_its_node_is_tried_again(bench: Any, whole: Cluster) -> None:
    queue = bench.queue("hangs-once")
    bench.put(queue)
    bench.running(queue)
    whole.kill("slurmd")
    _cut_power(bench.folder / "jobs" / KEY)
    bench.until(queue, KEY, lambda _: len(bench.record()["attempts"]) == 2, seconds=200)
    first = bench.record()["attempts"][0]
    assert (first["fault"], first["detail"]) == ("node lost", "the scheduler says NODE_FAIL")
    whole.start_node()
    done = bench.done(queue)
    assert done.n_attempts == 2
    assert bench.ran() == ["1", "2"]


@slurm_only
def test_a_job_outlives_the_controller(bench: Any, whole: Cluster) -> None:
    running, other = KEY, "b" * 64
    queue = bench.queue(seconds=12.0)
    bench.put(queue, running)
    bench.running(queue, running)
    whole.save(bench.record(running)["attempts"][0]["id"])
    whole.kill("slurmctld")
    with pytest.raises(SchedulerError, match="squeue failed: "):
        queue.look([running])
    with pytest.raises(SchedulerError, match="sbatch failed: "):
        bench.put(queue, other)
    whole.start_controller()
    _wait_for_cluster(queue, running)
    done = bench.done(bench.queue(), running)
    assert done.n_attempts == 1
    assert bench.ran(running) == ["1"]
    bench.put(queue, other)
    assert bench.done(queue, other).n_attempts == 1


@slurm_only
@pytest.mark.timeout(400)
def test_a_controller_without_its_memory_loses_no_result(
    bench: Any, whole: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is gone, it counts from 1 again, and ids mean other jobs."""
    monkeypatch.setattr("oracles.dft.queue.ALIVE_SECONDS", 15.0)
    finished, running = "b" * 64, KEY
    quick, slow = bench.queue(), bench.queue(seconds=5.0)
    bench.put(quick, finished)
    # The job has ended, but nobody has looked.
    end = time.monotonic() + 60
    while not (bench.folder / "jobs" / finished / "exit-1.json").exists():
        assert time.monotonic() < end
        time.sleep(0.2)
    bench.put(slow, running)
    bench.running(slow, running)
    whole.kill("slurmctld")
    whole.start_controller(forget=True)
    _wait_for_cluster(slow)
    assert bench.done(bench.queue(), finished).n_attempts == 1
    # The node ends jobs that its controller does not know; if it had gone on, its result would count.
    done = bench.done(slow, running, seconds=200)
    assert done.result is not None
    assert done.n_attempts <= 2
    if done.n_attempts == 2:
        assert bench.record(running)["attempts"][0]["fault"] in ("lost by the scheduler", "killed")


@slurm_only
def test_jobs_that_the_controller_has_forgotten_are_found_by_the_log_of_completions(
    bench: Any, slurm: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = bench.queue("diverges")
    bench.put(queue)
    scheduler = bench.scheduler()
    job_id = bench.record()["attempts"][0]["id"]
    end = time.monotonic() + 60
    while scheduler.statuses({KEY: job_id})[KEY].phase is not Phase.ENDED:
        assert time.monotonic() < end
        time.sleep(0.3)
    monkeypatch.setattr(SlurmScheduler, "_queue", lambda _: [])  # as after MinJobAge
    assert scheduler.statuses({KEY: job_id})[KEY].word == "COMPLETED"
    assert scheduler.find([KEY]) == {}  # what has ended is not looked up again
    assert scheduler.statuses({"another name": job_id}) == {}
    # Without any accounting the files of the job tell.
    assert bench.scheduler(accounting="none").statuses({KEY: job_id}) == {}
    silent = bench.queue("diverges", accounting="none")
    assert bench.done(silent).reason.startswith("did not converge")


@slurm_only
def test_a_database_of_jobs_that_is_not_there_is_told(bench: Any, slurm: Cluster) -> None:
    with pytest.raises(SchedulerError, match=r"sacct failed: .*set scheduler.accounting to jobcomp or none"):
        bench.scheduler(accounting="sacct").statuses({KEY: "999999"})


@slurm_only
def test_what_sbatch_refuses_is_told(bench: Any, slurm: Cluster) -> None:
    with pytest.raises(SchedulerError, match=r"sbatch failed: .*partition"):
        bench.put(bench.queue(partition="nowhere"))


@slurm_only
def test_options_reach_the_job(bench: Any, slurm: Cluster) -> None:
    queue = bench.queue(
        "hangs", partition="batch", cores=2, time_limit=600.0, nodes=1, options=["--comment=batteries"]
    )
    bench.put(queue)
    job_id = bench.record()["attempts"][0]["id"]
    shown = slurm.call("scontrol", "show", "job", job_id)
    for fact in (
        f"JobName={KEY}",
        "Partition=batch",
        "NumCPUs=2",
        "TimeLimit=00:10:00",
        "Requeue=0",
        "batteries",
    ):
        assert fact in shown
    bench.running(queue)


@slurm_only
def test_a_round_is_handed_over_as_one_array(
    bench: Any, slurm: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = bench.queue(array=10)
    # Who of us knows which jobs: asked once, and not while a thousand are looked at.
    plain = f"slurm:{getpass.getuser()}@tests"
    assert bench.scheduler().identity == plain
    assert queue.scheduler.identity == f"{plain}:{bench.folder.resolve() / 'arrays'}"
    calls: list[str] = []
    call = SlurmScheduler._call
    monkeypatch.setattr(SlurmScheduler, "_call", lambda s, *c: [calls.append(c[0]), call(s, *c)][1])
    keys = [f"{i:064d}" for i in range(3)]
    for key in keys:
        bench.put(queue, key)
    assert calls == []
    queue.flush()
    queue.flush()
    assert calls == ["sbatch"]
    ids = [bench.record(key)["attempts"][0]["id"] for key in keys]
    array = ids[0].removesuffix("_0")
    assert ids == [f"{array}_{i}" for i in range(3)]
    # Another process finds each by its key.
    assert bench.scheduler(array=10).find(keys) == dict(zip(keys, ids, strict=True))
    for key in keys:
        assert bench.done(bench.queue(array=10), key).n_attempts == 1
        assert bench.ran(key) == ["1"]
        assert (bench.folder / "jobs" / key / "claim-1").read_text().strip() in ids


@slurm_only
def test_one_task_of_an_array_is_cancelled_and_the_others_go_on(bench: Any, slurm: Cluster) -> None:
    queue = bench.queue("hangs", array=10)
    keys = [f"{i:064d}" for i in range(2)]
    for key in keys:
        bench.put(queue, key)
    queue.flush()
    for key in keys:
        bench.running(queue, key)
    queue.cancel(keys[:1])
    time.sleep(3.0)
    assert bench.queue(array=10).look(keys) == {keys[0]: JobState.CANCELLED, keys[1]: JobState.RUNNING}


@slurm_only
def test_a_batch_that_was_never_handed_over_is_handed_over_by_the_next_look(
    bench: Any, slurm: Cluster
) -> None:
    lost = bench.queue(array=10)
    for key in (KEY, "b" * 64):
        bench.put(lost, key)
    queue = bench.queue(array=10)  # as after a kill
    for key in (KEY, "b" * 64):
        assert bench.done(queue, key).n_attempts == 1
        assert bench.ran(key) == ["1"]


@slurm_only
@pytest.mark.timeout(600)
def test_a_thousand_jobs_are_looked_at_in_one_call(bench: Any, slurm: Cluster, tmp_path: Path) -> None:
    queue = bench.queue("hangs")
    holder = bench.queue("hangs", options=["--hold"])  # each a job of its own
    keys = [f"{i:064d}" for i in range(1000)]
    for key in keys:
        bench.put(holder, key)
    assert queue.scheduler.identity == holder.scheduler.identity
    calls: list[str] = []
    seconds_outside = 0.0
    call = queue.scheduler._call

    def count(*command: str) -> str:
        nonlocal seconds_outside
        calls.append(command[0])
        begin = time.perf_counter()
        try:
            return call(*command)
        finally:
            seconds_outside += time.perf_counter() - begin

    queue.scheduler._call = count
    begin = time.perf_counter()
    states = queue.look(keys)
    own = time.perf_counter() - begin - seconds_outside
    assert set(states.values()) == {JobState.SUBMITTED}
    assert calls == ["squeue"]
    print(f"1000 jobs: {own:.2f} s of our own, {seconds_outside:.2f} s of squeue")
    assert own < 2.0
    calls.clear()
    queue.cancel(keys)
    assert calls == ["squeue", "scancel"]
    assert set(queue.look(keys).values()) == {JobState.CANCELLED}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:07", 7.0),
        ("12:34", 754.0),
        ("1:00:01", 3601.0),
        ("2-01:00:00", 176400.0),
        ("INVALID", None),
        ("", None),
    ],
)
def test_elapsed_times_are_read(text: str, seconds: float | None) -> None:
    assert _seconds(text) == seconds


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ("PENDING", Phase.PENDING),
        ("COMPLETING", Phase.RUNNING),
        ("CANCELLED by 1000", Phase.CANCELLED),
        ("CANCELLED+", Phase.CANCELLED),
        ("NODE_FAIL", Phase.ENDED),
    ],
)
def test_states_are_read(state: str, phase: Phase) -> None:
    assert _status(state, None).phase is phase


_ODD_NAMES = ["a|b", "|", "two\nlines", "array-" + "x" * 300, "array-a/b", ""]
_FAKE = """#!{python}
# squeue or sacct: the fields that were asked for, of jobs on a list.
import json, re, sys
fields = next(a.split("=", 1)[1] for a in sys.argv if a.startswith(("--format=%", "--format=J")))
for job in json.load(open({jobs!r})):
    if "%" in fields:
        print(re.sub("%[ijTM]", lambda f: job[f[0]], fields))
    else:
        of = {{"JobID": "%i", "JobName": "%j", "State": "%T", "ElapsedRaw": "%M"}}
        print("|".join(job[of[field]] for field in fields.split(",")))
"""


@pytest.mark.parametrize("accounting", ["none", "jobcomp", "sacct"])
def test_whatever_people_name_their_jobs_ours_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accounting: Any
) -> None:
    forgotten = "b" * 64
    jobs = [{"%i": str(i), "%j": name, "%T": "RUNNING", "%M": "0:07"} for i, name in enumerate(_ODD_NAMES)]
    jobs += [{"%i": "40", "%j": KEY, "%T": "RUNNING", "%M": "1:00"}]
    ended = [{**job, "%T": "FAILED", "%M": "60"} for job in [*jobs, {"%i": "39", "%j": forgotten}]]
    for command, listed in (("squeue", jobs), ("sacct", ended)):
        (tmp_path / f"{command}.json").write_text(json.dumps(listed))
        script = _FAKE.format(python=sys.executable, jobs=str(tmp_path / f"{command}.json"))
        (tmp_path / command).write_text(script)
        (tmp_path / command).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    scheduler = SlurmScheduler(accounting=accounting)
    scheduler.bind(tmp_path)
    assert scheduler.find([KEY]) == {KEY: "40"}
    found = scheduler.statuses({KEY: "40", forgotten: "39"})
    assert (found[KEY].phase, found[KEY].seconds) == (Phase.RUNNING, 60.0)
    if accounting == "none":
        assert set(found) == {KEY}
    else:
        seconds = 60.0 if accounting == "sacct" else None
        assert found[forgotten] == JobStatus(Phase.ENDED, None, seconds, "FAILED")


@slurm_only
def test_a_strangers_name_does_not_stop_the_look(bench: Any, slurm: Cluster) -> None:
    for name in ("a|b", "|", "two\nlines"):
        slurm.call("sbatch", "--hold", f"--job-name={name}", "--wrap=true")
    queue = bench.queue()
    bench.put(queue)
    assert bench.done(queue).n_attempts == 1
    slurm.call("scancel", "--state=PENDING", "--me")


def _cut_power(folder: Path) -> None:
    """Kill every process of a job and the daemon's own that watches it."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            inside = (entry / "cwd").resolve() == folder
            watching = b"slurmstepd" in (entry / "cmdline").read_bytes()
            if inside or watching:
                os.kill(int(entry.name), signal.SIGKILL)
