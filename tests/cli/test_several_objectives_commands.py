"""Two objectives and a constraint on the command line: run, status, best, export, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Run = Callable[..., Any]

CONFIG: dict[str, Any] = {
    "name": "pair",
    "space": {"type": "box", "bounds": [[0, 1], [0, 1]]},
    "objectives": [
        {"property": "branin", "direction": "minimize", "reference": 200},
        {"property": "currin", "direction": "minimize", "reference": 14},
    ],
    "fidelities": [
        {
            "name": "b-low",
            "oracle": "function",
            "property": "branin",
            "cost": 0.1,
            "params": {"function": "branin", "fidelity": "low", "unit_cube": True},
        },
        {
            "name": "b",
            "oracle": "function",
            "property": "branin",
            "cost": 1,
            "target": True,
            "params": {"function": "branin", "unit_cube": True},
        },
        {
            "name": "c",
            "oracle": "function",
            "property": "currin",
            "cost": 1,
            "params": {"function": "currin"},
        },
    ],
    "sampler": {"type": "random"},
    "surrogate": {"type": "multi_fidelity_gp", "max_iterations": 5},
    "acquisition": {"batch_size": 2, "pool_size": 8},
    "initial_design": {"per_fidelity": {"b-low": 2, "b": 2, "c": 2}},
    "budget": {"total": 8.5, "per_round": 2.2},
    "stopping": {"max_rounds": 1},
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "pair.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


def store_of(config: Path) -> str:
    """A store with the campaign, run to its end by the engine alone."""
    from activelearning.campaign.config import load_config
    from activelearning.campaign.engine import Engine
    from activelearning.campaign.tick import run as run_engine

    url = f"sqlite:///{config.parent}/store.db"
    with Engine.open(load_config(config), folder=config.parent, store=url) as engine:
        run_engine(engine)
    return url


def test_status_best_and_export(run: Run, config: Path, tmp_path: Path) -> None:
    store = store_of(config)
    standing = run("status", "pair", "--json", "--store", store).json
    assert list(standing) == ["campaign", "state", "reason", "rounds", "budget", "evaluations", "best"]
    assert list(standing["best"]) == ["hypervolume", "size", "reference"]
    assert standing["best"]["hypervolume"] > 0
    assert standing["best"]["reference"] == {"branin": 200.0, "currin": 14.0}
    rows = run("best", "pair", "--json", "--store", store).json
    assert len(rows) == standing["best"]["size"] >= 1
    first = ["candidate", "key", "fidelity", "property", "value", "std", "predicted_mean", "predicted_std"]
    for row in rows:
        assert list(row) == [*first, "objectives", "constraints"]
        assert list(row["objectives"]) == ["branin", "currin"]
        assert row["objectives"]["branin"]["key"] == row["key"]
        assert row["objectives"]["currin"]["fidelity"] == "c"
        assert row["constraints"] == {}

    text = run("status", "pair", "--store", store).out
    assert f"best         hypervolume {standing['best']['hypervolume']:.4g} of " in text
    head, *lines = run("best", "pair", "--store", store).out.splitlines()
    assert head.split() == ["branin", "currin", "candidate", "key"]
    assert len(lines) == len(rows)

    out = tmp_path / "rows.json"
    assert run("export", "pair", "--format", "json", "--out", out, "--store", store).code == 0
    measured = {row["key"]: row["value"] for row in json.loads(out.read_text())}
    assert all(measured[g["key"]] == g["value"] for row in rows for g in row["objectives"].values())


def test_the_round_page_shows_the_hypervolume(config: Path) -> None:
    from activelearning import report
    from activelearning.store.database import open_database
    from flows.artifacts import best_markdown, summary_markdown

    database = open_database(store_of(config))
    standing, rounds = report.status(database, "pair"), report.rounds(database, "pair")
    database.close()
    page = summary_markdown(
        standing, rounds, "hypervolume of branin, currin", best_markdown(standing["best"]), b""
    )
    shown = f"{standing['best']['hypervolume']:.4g}"
    assert f"**Best hypervolume of branin, currin** {shown}, of {standing['best']['size']} candidates" in page
    assert rounds[-1]["best"] == pytest.approx(standing["best"]["hypervolume"])


def test_what_is_refused_leaves_no_store(run: Run, config: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'none.db'}"
    for override, message in (
        ("acquisition.type=mf_gibbon", "mf_hypervolume"),
        ("stopping.target_value=1", "stopping.target_value is a value of one objective"),
        ("fidelities.b.target=false", "none of b-low, b says `target: true`"),
    ):
        ran = run("run", config, "--set", override, "--store", store)
        assert ran.code == 2, override
        assert message in ran.err
        assert ran.err.count("\n") == 1
    assert not (tmp_path / "none.db").exists()


def test_run_ends_by_saying_the_front(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from activelearning import report
    from activelearning.campaign.stopping import Action, Decision
    from activelearning.cli.display import Display
    from activelearning.store.database import open_database

    database = open_database(store_of(config))
    standing = report.status(database, "pair")
    database.close()
    Display().conclude(Decision(Action.FINISHED, ""), standing)
    assert f"best hypervolume {standing['best']['hypervolume']:.4g} of" in capsys.readouterr().out
