"""`proxy`: figures as JSON, from the shipped weights and from new ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
FIGURES = ["property", "n", "mae", "rmse", "r2", "spearman", "coverage_90"]


def test_evaluate_the_shipped_weights(run: Run, obelix: Path) -> None:
    asked = ["proxy", "evaluate", "--property", "log10_conductivity", "--data", obelix]
    ran = run(*asked, "--json")
    assert ran.code == 0, ran.err
    assert list(ran.json) == FIGURES
    # Better than the median's 2.16 (OBELiX's published baselines).
    assert 0.0 < ran.json["mae"] < 1.8
    assert ran.json["n"] > 100
    assert 0.7 < ran.json["coverage_90"] <= 1.0
    text = run(*asked).out
    assert text.startswith("property      log10_conductivity\n")


def test_bad_input(run: Run, tmp_path: Path) -> None:
    ran = run("proxy", "evaluate", "--property", "log10_conductivity", "--data", tmp_path / "no.csv")
    assert ran.code == 2
    assert "no.csv" in ran.err
    ran = run("proxy", "train", "--property", "colour", "--data", tmp_path)
    assert ran.code == 2
    assert "colour" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_train_hands_over_what_was_asked_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oracles.ml_proxy import train

    asked: list[Any] = []
    models: list[Any] = []

    def fake(*arguments: Any, model: str | None, **_: Any) -> dict[str, Any]:
        asked.append(arguments)
        models.append(model)
        return {"property": "log10_conductivity", "n": 3, "mae": 0.25}

    monkeypatch.setattr(train, "train", fake)
    options = [
        "--property",
        "log10_conductivity",
        "--data",
        "data",
        "--seed",
        "3",
        "--out",
        tmp_path / "w.npz",
    ]
    assert run("proxy", "train", *options, "--json").json["mae"] == 0.25
    assert asked == [("log10_conductivity", Path("data"), tmp_path / "w.npz", 3)]
    assert "weights" in run("proxy", "train", *options[:4]).out
    run("proxy", "train", *options[:4], "--out", "~/w.npz")
    assert asked.pop()[2] == Path.home() / "w.npz"
    assert asked[1] == ("log10_conductivity", Path("data"), Path("log10_conductivity.npz"), 0)
    run("proxy", "train", *options[:4], "--model", "forest")
    assert models == [None, None, None, "forest"]


def test_fetch_says_what_came(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from oracles.ml_proxy import fetching

    monkeypatch.setattr(fetching, "fetch_obelix", lambda folder: {"data": str(folder), "n": 599})
    ran = run("proxy", "fetch", "--out", tmp_path / "obelix", "--json")
    assert ran.json == {"data": str(tmp_path / "obelix"), "n": 599}


def test_fetch_into_a_folder_that_exists_is_refused(run: Run, tmp_path: Path) -> None:
    ran = run("proxy", "fetch", "--out", tmp_path)
    assert ran.code == 2
    assert f"{tmp_path} exists" in " ".join(ran.err.split())


TABLE = """space_group,composition,a,b,c,alpha,beta,gamma,formation_energy_per_atom,band_gap
225,"{""Mg"": 4, ""O"": 4}",4.25,4.25,4.25,90,90,90,-3.04,4.45
225,"{""Na"": 4, ""Cl"": 4}",5.69,5.69,5.69,90,90,90,-2.10,5.0
216,"{""Ga"": 4, ""As"": 4}",5.75,5.75,5.75,90,90,90,-0.44,
"""


@pytest.mark.parametrize(("name", "n"), [("formation_energy", 3), ("band_gap", 2)])
def test_evaluate_on_a_table_of_materials(run: Run, tmp_path: Path, name: str, n: int) -> None:
    table = tmp_path / "materials.csv"
    table.write_text(TABLE)
    ran = run("proxy", "evaluate", "--property", name, "--data", table, "--json")
    assert ran.code == 0, ran.err
    assert list(ran.json) == FIGURES
    assert ran.json["n"] == n
    assert ran.json["mae"] < 1.0


def test_a_table_without_the_property_is_refused_by_column(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "materials.csv"
    table.write_text(TABLE)
    ran = run("proxy", "evaluate", "--property", "energy_above_hull", "--data", table)
    assert ran.code == 2
    assert "lacks the column e_above_hull" in ran.err
    assert "Traceback" not in ran.err


def test_progress_is_told_on_stderr_alone(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from oracles.ml_proxy import train

    def fake(*_: Any, progress: Callable[[str], None], model: str | None) -> dict[str, Any]:
        progress("network 1 of 5")
        return {"property": "band_gap", "n": 3}

    monkeypatch.setattr(train, "train", fake)
    ran = run("proxy", "train", "--property", "band_gap", "--data", tmp_path, "--json")
    assert ran.json == {"property": "band_gap", "n": 3}
    assert "network 1 of 5" in ran.err


def test_tables_for_campaigns(run: Run, obelix: Path, tmp_path: Path) -> None:
    ran = run("proxy", "tables", "--data", obelix, "--out", tmp_path / "campaign", "--json")
    assert ran.code == 0, ran.err
    assert Path(ran.json["pool"]).is_file()
    assert ran.json["n_observations"] > 450
    ran = run("proxy", "tables", "--data", tmp_path / "nowhere")
    assert ran.code == 2
    assert "nowhere" in ran.err
