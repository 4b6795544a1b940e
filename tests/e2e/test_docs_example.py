"""The documentation's examples run as a user would run them: by the command line, from another folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from botorch.test_functions import Branin

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
COMMAND = Path(sys.executable).with_name("activelearning")


def activelearning(folder: Path, *arguments: str) -> str:
    """Run the installed command in a folder; returns what it prints."""
    result = subprocess.run(
        [str(COMMAND), *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=280
    )
    assert result.returncode == 0, result.stderr + result.stdout
    return result.stdout


def run_example(folder: Path, config: str, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run a campaign to its end; returns its status and its evaluations."""
    store = ["--store", "sqlite:///example.db"]
    activelearning(folder, "run", str(EXAMPLES / config), *store)
    status = json.loads(activelearning(folder, "status", name, "--json", *store))
    activelearning(folder, "export", name, "--format", "json", "--out", "rows.json", *store)
    return status, json.loads((folder / "rows.json").read_text())


@pytest.fixture(scope="module")
def branin(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return run_example(tmp_path_factory.mktemp("branin"), "plugin_campaign.yaml", "branin-plugin")


def test_oracle_from_a_file_runs_to_the_end_of_the_budget(
    branin: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    status, rows = branin
    assert status["state"] == "finished"
    assert status["rounds"] >= 3
    assert set(status["evaluations"]) == {"cheap", "exact"}
    paid = sum(row["cost_paid"] for row in rows)
    assert status["budget"]["spent"] == pytest.approx(paid)
    assert 0 < paid <= 15 + 1e-9
    assert status["budget"]["reserved"] == pytest.approx(0)


def test_oracle_from_a_file_is_the_one_that_answered(
    branin: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    _, rows = branin
    truth = Branin()
    for row in rows:
        assert row["state"] == "succeeded"
        values = row["candidate"]
        values = (json.loads(values) if isinstance(values, str) else values)["values"]
        true = float(truth(torch.tensor(values, dtype=torch.float64)))
        if row["fidelity"] == "exact":
            assert row["value"] == pytest.approx(true, rel=1e-6)
        else:
            # The bias shifts the valley v by 1, so the value by 1 - 2 v, and |v| < 17.3 on this box.
            assert row["value"] != pytest.approx(true, rel=1e-6)
            assert abs(row["value"] - true) < 36


def test_space_sampler_surrogate_and_acquisition_of_ones_own(tmp_path: Path) -> None:
    status, rows = run_example(tmp_path, "own_parts_campaign.yaml", "own-parts")
    assert status["state"] == "finished"
    assert status["rounds"] >= 2
    assert {row["fidelity"] for row in rows} == {"low", "exact"}
    assert all(row["state"] == "succeeded" for row in rows)
    keys = [row["key"] for row in rows]
    assert len(set(keys)) == len(keys)
