"""`status`, `best`, `export`: their JSON is a stable interface."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
COLUMNS = (
    "key,content_key,candidate,round,fidelity,property,state,value,std,censoring,cost_reserved,cost_paid,reason,"
    "created_at,finished_at"
).split(",")


def test_status_as_json(run: Run, finished: str) -> None:
    standing = run("status", "tiny", "--json", "--store", finished).json
    assert list(standing) == ["campaign", "state", "reason", "rounds", "budget", "evaluations", "best"]
    assert standing["campaign"] == "tiny"
    assert standing["state"] == "finished"
    assert standing["rounds"] == 2
    assert list(standing["budget"]) == ["total", "reserved", "spent", "remaining"]
    budget = standing["budget"]
    assert budget["reserved"] == 0
    assert budget["spent"] + budget["remaining"] == pytest.approx(budget["total"])
    assert budget["total"] == 12
    assert set(standing["evaluations"]) == {"low", "high"}
    counts = standing["evaluations"]
    assert 0.1 * counts["low"]["succeeded"] + counts["high"]["succeeded"] == pytest.approx(budget["spent"])


def test_status_as_text(run: Run, finished: str) -> None:
    ran = run("status", "tiny", "--store", finished)
    assert ran.code == 0
    assert ran.out.startswith("tiny: finished (all 2 rounds are done)")
    assert "evaluations  high:" in ran.out
    assert "model        low: left out, rmse" in ran.out
    assert "correlation with high" in ran.out


def test_best_as_json(run: Run, finished: str) -> None:
    rows = run("best", "tiny", "-n", "3", "--json", "--store", finished).json
    assert len(rows) == 3
    keys = ["candidate", "key", "fidelity", "property", "value", "std", "predicted_mean", "predicted_std"]
    assert all(list(row) == keys for row in rows)
    assert [row["value"] for row in rows] == sorted(row["value"] for row in rows)
    assert {row["fidelity"] for row in rows} == {"high"}
    assert run("status", "tiny", "--json", "--store", finished).json["best"] == rows[0]


def test_best_as_text(run: Run, finished: str) -> None:
    ran = run("best", "tiny", "-n", "2", "--store", finished)
    head, *rows = ran.out.splitlines()
    assert head.split() == ["value", "predicted", "candidate", "key"]
    assert len(rows) == 2


def test_export_formats_agree(run: Run, finished: str, tmp_path: Path) -> None:
    for format in ("csv", "json", "parquet"):
        ran = run(
            "export", "tiny", "--format", format, "--out", tmp_path / f"x.{format}", "--store", finished
        )
        assert (ran.code, ran.err) == (0, "")
    rows = json.loads((tmp_path / "x.json").read_text())
    assert [list(row) for row in rows] == [COLUMNS] * len(rows)
    assert len({row["key"] for row in rows}) == len(rows) > 5
    assert [row["round"] for row in rows][:6] == [0, 0, 0, 0, 0, 1]
    assert rows[0]["candidate"]["kind"] == "box"

    with (tmp_path / "x.csv").open() as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == COLUMNS
    assert [json.loads(row["candidate"]) for row in table] == [row["candidate"] for row in rows]
    assert [float(row["value"]) for row in table] == [row["value"] for row in rows]
    assert {row["std"] for row in table} == {""}

    import pandas

    frame = pandas.read_parquet(tmp_path / "x.parquet")
    assert list(frame.columns) == COLUMNS
    assert frame["value"].tolist() == [row["value"] for row in rows]
    assert frame["std"].isna().all()
    assert frame["std"].dtype == float


def test_export_without_pyarrow_names_the_package(
    run: Run, finished: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ran = run("export", "tiny", "--format", "parquet", "--out", tmp_path / "x", "--store", finished)
    assert ran.code == 2
    assert "pip install pyarrow" in ran.err


def test_export_that_can_not_be_written_says_so(run: Run, finished: str, tmp_path: Path) -> None:
    ran = run("export", "tiny", "--out", tmp_path / "nowhere" / "x.csv", "--store", finished)
    assert ran.code == 2
    assert "No such file or directory" in ran.err
    ran = run("export", "tiny", "--format", "cif", "--out", tmp_path / "cifs", "--store", finished)
    assert ran.code == 2
    assert "no crystal of this campaign has known atoms" in ran.err
    assert not (tmp_path / "cifs").exists()


def test_an_unknown_campaign_is_bad_input(run: Run, finished: str) -> None:
    for command in (["status", "tinny"], ["best", "tinny"], ["cancel", "tinny"], ["tick", "tinny"]):
        ran = run(*command, "--store", finished)
        assert ran.code == 2, command
        assert "Did you mean 'tiny'" in ran.err, command
        assert ran.err.count("\n") == 1


def test_a_store_is_chosen_by_option_then_environment_then_default(
    run: Run, finished: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("status", "tiny")
    assert ran.code == 2
    assert f"no store {tmp_path}/activelearning.db" in ran.err
    monkeypatch.setenv("ACTIVELEARNING_STORE", finished)
    assert run("status", "tiny").code == 0
    assert run("status", "tiny", "--store", f"sqlite:///{tmp_path}/other.db").code == 2
    assert list(tmp_path.iterdir()) == []


def test_reading_commands_do_without_torch_and_prefect(finished: str) -> None:
    script = (
        "import sys; from activelearning.cli.main import invoke; "
        "code = invoke(sys.argv[1:]); "
        "heavy = {'torch', 'botorch', 'prefect', 'pymatgen', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(code)"
    )
    for arguments in (["--help"], ["status", "tiny"], ["best", "tiny"], ["run", "--help"]):
        command = [sys.executable, "-c", script, *arguments]
        environment = {"ACTIVELEARNING_STORE": finished, "PATH": ""}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
