"""A campaign that is killed anywhere and resumed ends with the same tables as one that never was."""

from __future__ import annotations

from pathlib import Path

import kill_harness
import pytest

from activelearning.campaign.config import CampaignConfig, parse_config

# A queue whose outside world is a folder: it outlives the campaign's process, as a scheduler would.
QUEUE = """
import json
import math
from pathlib import Path

from activelearning.contracts import JobState
from activelearning.measurement import Measurement
from oracles import QueuedOracle


class FolderQueue(QueuedOracle):
    def __init__(self, folder: Path):
        self.folder = folder

    def content(self):
        return {}  # where the jobs lie changes no result

    def submit(self, candidate, key):
        path = self.folder / key
        with path.open("x") as file:  # a second submission of the same key would be an error
            json.dump(list(candidate.values), file)
        return f"job-{key[:12]}"

    def find(self, key):
        return f"job-{key[:12]}" if (self.folder / key).exists() else None

    def poll(self, ids):
        answers = {}
        for path in self.folder.iterdir():
            job = f"job-{path.name[:12]}"
            if job in ids:
                x, y = json.loads(path.read_text())
                answers[job] = Measurement.of(self.context.property, -((x - 1) ** 2) - (y - 7) ** 2)
        return {job: answers.get(job, JobState.LOST) for job in ids}

    def cancel(self, ids):
        pass
"""


def _config(queued: bool) -> CampaignConfig:
    target = (
        {"oracle": "folder_queue.py:FolderQueue", "params": {"folder": "jobs"}}
        if queued
        else {"oracle": "function", "params": {"function": "branin"}}
    )
    return parse_config(
        {
            "name": "killed",
            "seed": 3,
            "space": {"type": "box", "bounds": [[-5, 10], [0, 15]]},
            "objective": {"property": "y", "direction": "maximize"},
            "fidelities": [
                {
                    "name": "low",
                    "oracle": "function",
                    "cost": 0.2,
                    "params": {"function": "branin", "fidelity": "low", "noise_std": 0.1},
                },
                {"name": "high", "cost": 1, "target": True, **target},
            ],
            "sampler": {"type": "gflownet", "steps": 3, "warm_steps": 2, "batch_size": 8, "hidden": [8]},
            "surrogate": {"type": "multi_fidelity_gp", "max_iterations": 2},
            "acquisition": {"batch_size": 2, "pool_size": 32, "n_max_samples": 8},
            "initial_design": {"per_fidelity": {"low": 3, "high": 1}},
            "budget": {"total": 4.6, "per_round": 1.6},
        }
    )


def _prepare(folder: Path) -> Path:
    (folder / "jobs").mkdir(parents=True)
    (folder / "folder_queue.py").write_text(QUEUE)
    return folder


@pytest.mark.parametrize("queued", [False, True], ids=["in process", "queued"])
def test_killed_at_every_event_the_tables_are_the_same(tmp_path: Path, queued: bool) -> None:
    config = _config(queued)

    def path_of(name: str) -> tuple[Path, str]:
        folder = _prepare(tmp_path / name)
        return folder, f"sqlite:///{folder / 'store.db'}"

    folder, store = path_of("whole")
    events = kill_harness.run_whole(config, folder, store)
    whole = kill_harness.tables(store)
    rounds = {row["index"] for row in whole["rounds"]}
    assert len(rounds) >= 3
    assert {event.split()[0] for event in events} >= {
        "step.reconcile",
        "step.ingest",
        "step.fit",
        "step.propose",
        "step.commit",
        "step.submit",
        "round.committed",
        "evaluation.running",
        "evaluation.succeeded",
    }
    fidelities = {row["fidelity"] for row in whole["evaluations"]}
    assert fidelities == {"low", "high"}

    for kill_at in range(len(events)):
        folder, store = path_of(f"killed-{kill_at}")
        assert not kill_harness.run_killed(config, folder, store, kill_at)
        assert kill_harness.run_killed(config, folder, store, None)
        resumed = kill_harness.tables(store)
        assert resumed.keys() == whole.keys()
        for name, rows in whole.items():
            assert _without_paths(resumed[name]) == _without_paths(rows), (
                f"{name} differs after a kill at {events[kill_at]}"
            )


def _without_paths(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Each run has a folder of its own."""
    return [{k: v for k, v in row.items() if k not in ("folder", "artifacts")} for row in rows]


def test_killed_again_and_again_everything_is_paid_once(tmp_path: Path) -> None:
    config = _config(queued=True)
    folder = _prepare(tmp_path / "run")
    store = f"sqlite:///{folder / 'store.db'}"
    kills = 0
    # Every process gets a little further than it would need for one event, so that the campaign ends at last.
    while not kill_harness.run_killed(config, folder, store, 4 + kills % 9):
        kills += 1
        assert kills < 100
    assert kills >= 5
    rows = kill_harness.tables(store)
    keys = [row["key"] for row in rows["evaluations"]]
    assert len(keys) == len(set(keys))
    settled = [row for row in rows["ledger"] if row["kind"] == "settle"]
    assert sorted(row["evaluation_key"] for row in settled) == sorted(keys)
    spent = sum(row["spent"] for row in rows["ledger"])
    assert spent == pytest.approx(sum(row["cost_paid"] for row in rows["evaluations"]))
    assert spent <= config.budget.total + 1e-9
    assert sum(row["reserved"] for row in rows["ledger"]) == pytest.approx(0.0, abs=1e-12)
    submitted = [row["key"] for row in rows["evaluations"] if row["fidelity"] == "high"]
    assert sorted(path.name for path in (folder / "jobs").iterdir()) == sorted(submitted)
