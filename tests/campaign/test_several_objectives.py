"""Campaigns of several objectives and constraints, run to their ends by the engine, and killed anywhere."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import kill_harness
import pytest
import torch
from botorch.utils.multi_objective.hypervolume import Hypervolume

from activelearning import report
from activelearning.campaign.config import CampaignConfig, load_config, parse_config
from activelearning.campaign.engine import Engine
from activelearning.campaign.shipped import find_config
from activelearning.campaign.tick import run
from activelearning.store.database import open_database

ORACLES = """
import math
from oracles import Oracle


class Gain(Oracle):
    def evaluate_one(self, candidate):
        x, y = candidate.values
        return math.sin(3 * x) + 0.2 * y


class CheapGain(Oracle):
    def evaluate_one(self, candidate):
        x, y = candidate.values
        return -math.sin(3 * x + 0.2)


class Loss(Oracle):
    def evaluate_one(self, candidate):
        x, y = candidate.values
        return x**2 + (y - 0.4) ** 2


class Gap(Oracle):
    def evaluate_one(self, candidate):
        x, y = candidate.values
        return 1.0 + x - y
"""

CONFIG: dict[str, Any] = {
    "name": "pair",
    "seed": 5,
    "space": {"type": "box", "bounds": [[0, 1], [0, 1]]},
    "objectives": [{"property": "gain"}, {"property": "loss", "direction": "minimize"}],
    "constraints": [{"property": "gap", "at_least": 0.9}],
    "fidelities": [
        {"name": "cheap", "oracle": "oracle.py:CheapGain", "cost": 0.1, "property": "gain"},
        {"name": "gain", "oracle": "oracle.py:Gain", "cost": 1.0, "property": "gain", "target": True},
        {"name": "loss", "oracle": "oracle.py:Loss", "cost": 0.5, "property": "loss"},
        {"name": "gap", "oracle": "oracle.py:Gap", "cost": 0.5, "property": "gap"},
    ],
    "sampler": {"type": "random"},
    "surrogate": {"type": "multi_fidelity_gp", "max_iterations": 8},
    "acquisition": {"batch_size": 4, "pool_size": 24},
    "initial_design": {"per_fidelity": {"cheap": 4, "gain": 3, "loss": 3, "gap": 3}},
    "budget": {"total": 20.0, "per_round": 5.0},
}


def config(folder: Path, **changes: Any) -> CampaignConfig:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "oracle.py").write_text(ORACLES)
    value = {**CONFIG, **changes}
    return parse_config({k: v for k, v in value.items() if v is not None})


def finished(folder: Path, config: CampaignConfig) -> str:
    store = f"sqlite:///{folder / 'store.db'}"
    with Engine.open(config, folder=folder, store=store) as engine:
        assert run(engine).action == "finished"
    return store


def test_a_campaign_of_two_objectives_and_a_constraint(tmp_path: Path) -> None:
    store = finished(tmp_path, config(tmp_path))
    database = open_database(store)
    rows = report.export_rows(database, "pair")
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        values.setdefault(str(row["candidate"]), {})[row["fidelity"]] = row["value"]
    complete = [v for v in values.values() if {"gain", "loss", "gap"} <= set(v)]
    kept = [v for v in complete if v["gap"] >= 0.9]
    assert len(complete) > 3 + 2  # candidates beyond the initial design's are completed
    assert len(kept) > 2
    beaten = [
        any(o["gain"] >= v["gain"] and o["loss"] <= v["loss"] and o is not v for o in kept) for v in kept
    ]
    front = sorted((v["gain"], v["loss"]) for v, is_beaten in zip(kept, beaten, strict=True) if not is_beaten)

    best = report.best(database, "pair", 100)
    assert sorted((r["objectives"]["gain"]["value"], r["objectives"]["loss"]["value"]) for r in best) == front
    assert all(r["constraints"]["gap"]["value"] >= 0.9 for r in best)
    assert all((r["fidelity"], r["property"]) == ("gain", "gain") for r in best)
    assert [r["value"] for r in best] == sorted((r["value"] for r in best), reverse=True)

    standing = report.status(database, "pair")["best"]
    assert standing["size"] == len(front)
    reference = standing["reference"]
    corner = torch.tensor([reference["gain"], -reference["loss"]], dtype=torch.float64)
    points = torch.tensor([(gain, -loss) for gain, loss in front], dtype=torch.float64)
    assert standing["hypervolume"] == pytest.approx(Hypervolume(corner).compute(points))

    trace = report.trace(database, "pair")
    known = [point.best for point in trace if point.best is not None]
    assert known == sorted(known)
    assert known[-1] == pytest.approx(standing["hypervolume"])
    rounds = report.rounds(database, "pair")
    assert rounds[-1]["best"] == known[-1]
    # A round's summary has the front that it began with.
    assert rounds[0]["summary"]["front"] is None
    for before, after in itertools.pairwise(rounds):
        assert after["summary"]["front"]["hypervolume"] == pytest.approx(before["best"])
    database.close()


def test_one_objective_with_a_constraint_ends_by_the_best_that_keeps_it(tmp_path: Path) -> None:
    constrained = config(
        tmp_path,
        objectives=None,
        objective={"property": "gain"},
        fidelities=[f for f in CONFIG["fidelities"] if f["name"] != "loss"],
        initial_design={"per_fidelity": {"cheap": 4, "gain": 3, "gap": 3}},
        constraints=[{"property": "gap", "at_least": 0.9, "at_most": 1.3}],
        stopping={"target_value": 0.9},
    )
    store = finished(tmp_path, constrained)
    database = open_database(store)
    best = report.best(database, "pair", 50)
    assert all(0.9 <= row["constraints"]["gap"]["value"] <= 1.3 for row in best)
    assert report.status(database, "pair")["best"] == best[0]
    assert report.trace(database, "pair")[-1].best == best[0]["value"]
    assert report.status(database, "pair")["reason"].startswith("the target fidelity reached")
    assert 0.9 <= best[0]["value"] <= math.sin(1.5) + 0.3
    database.close()


@pytest.mark.parametrize("mode", ["after", "random"])
def test_the_random_baseline_and_the_other_modes_know_several_targets(tmp_path: Path, mode: str) -> None:
    kind = "random" if mode == "random" else "mf_hypervolume"
    changes = {"acquisition": {"type": kind, "mode": mode, "batch_size": 3, "pool_size": 24}}
    store = finished(tmp_path, config(tmp_path, stopping={"max_rounds": 2}, **changes))
    database = open_database(store)
    assert report.status(database, "pair")["rounds"] == 2
    assert report.best(database, "pair")
    database.close()


def test_killed_and_resumed_the_tables_are_the_same(tmp_path: Path) -> None:
    short = {
        "sampler": {"type": "gflownet", "steps": 3, "warm_steps": 2, "batch_size": 8, "hidden": [8]},
        "surrogate": {"type": "multi_fidelity_gp", "max_iterations": 2},
        "acquisition": {"batch_size": 2, "pool_size": 8},
        "initial_design": {"per_fidelity": {"cheap": 1, "gain": 1, "loss": 1, "gap": 1}},
        "budget": {"total": 5.0, "per_round": 1.6},
        "stopping": {"max_rounds": 2},
    }
    (tmp_path / "whole").mkdir()
    wanted = config(tmp_path / "whole", **short)
    events = kill_harness.run_whole(wanted, tmp_path / "whole", f"sqlite:///{tmp_path}/whole/store.db")
    whole = kill_harness.tables(f"sqlite:///{tmp_path}/whole/store.db")
    assert len(whole["rounds"]) == 3
    # Every step of a round with a model: before the fit, before the choice, and once it is committed.
    for event in ("step.fit 2", "step.commit 2", "round.committed 1"):
        kill_at = next(i for i, seen in enumerate(events) if seen.startswith(event))
        folder = tmp_path / f"killed-{kill_at}"
        wanted = config(folder, **short)
        store = f"sqlite:///{folder}/store.db"
        assert not kill_harness.run_killed(wanted, folder, store, kill_at)
        assert kill_harness.run_killed(wanted, folder, store, None)
        resumed = kill_harness.tables(store)
        for name, rows in whole.items():
            assert _without_paths(resumed[name]) == _without_paths(rows), f"{name}, killed at {event}"


def _without_paths(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("folder", "artifacts")} for row in rows]


@pytest.mark.slow
def test_the_shipped_campaign_finds_most_of_the_front(tmp_path: Path) -> None:
    path = find_config("branin-currin")
    store = f"sqlite:///{tmp_path / 'store.db'}"
    with Engine.open(load_config(path), folder=path.parent, store=store) as engine:
        run(engine)
        best = report.status(engine.database, "branin-currin")["best"]
    # The greatest hypervolume over (18, 6) is 59.36 (BoTorch's BraninCurrin).
    assert best["reference"] == {"branin": 18.0, "currin": 6.0}
    assert 0.75 * 59.36 < best["hypervolume"] < 59.36
