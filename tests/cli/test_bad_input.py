"""Bad input stops a command before it starts: exit code 2, one paragraph, and no store left behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_harness: None) -> None:
    monkeypatch.chdir(tmp_path)


def refused(ran: Any, *words: str) -> None:
    assert ran.code == 2, (ran.out, ran.err)
    for word in words:
        assert word in ran.err
    assert ran.err.startswith("Error: ")
    assert ran.err.strip().count("\n") == 0
    assert "Traceback" not in ran.err


CASES: dict[str, tuple[Change, tuple[str, ...]]] = {
    "unknown key": (lambda c: c.update(budgt=3), ("'budgt'", "did you mean 'budget'")),
    "unknown nested key": (lambda c: c["stopping"].update(max_round=3), ("stopping.max_round", "max_rounds")),
    "missing key": (lambda c: c.pop("objective"), ("'objective' is missing",)),
    "wrong type": (lambda c: c["budget"].update(total="a lot"), ("budget.total", "a lot")),
    "wrong type of a plug-in's parameter": (
        lambda c: c["fidelities"][0]["params"].update(noise_std="loud"),
        ("fidelities.low.params", "noise_std"),
    ),
    "unknown parameter of a plug-in": (
        lambda c: c["fidelities"][0]["params"].update(nois_std=0.1),
        ("fidelities.low.params", "nois_std", "noise_std"),
    ),
    "unknown oracle": (
        lambda c: c["fidelities"][0].update(oracle="functoin"),
        ("no oracle named 'functoin'", "Did you mean 'function'"),
    ),
    "unknown sampler": (lambda c: c["sampler"].update(type="randm"), ("no sampler named 'randm'", "random")),
    "unknown space": (lambda c: c["space"].update(type="boks"), ("no space named 'boks'",)),
    "plug-in file that is not there": (
        lambda c: c["fidelities"][0].update(oracle="mine.py:Mine"),
        ("mine.py:Mine", "does not exist"),
    ),
    "no target": (lambda c: c["fidelities"][1].update(target=False), ("low, high", "`target: true`")),
    "two targets": (lambda c: c["fidelities"][0].update(target=True), ("low and high", "exactly one")),
    "zero cost": (lambda c: c["fidelities"][0].update(cost=0), ("fidelities.0.cost", "greater than 0")),
    "negative cost": (lambda c: c["fidelities"][1].update(cost=-1), ("fidelities.1.cost", "greater than 0")),
    "budget below the cheapest query": (
        lambda c: c.update(budget={"total": 0.05}),
        ("budget.total", "0.05", "'low' costs 0.1"),
    ),
    "two fidelities of one name": (
        lambda c: c["fidelities"][0].update(name="high"),
        ("'high' is used twice",),
    ),
    "two fidelities that ask the same": (
        lambda c: c["fidelities"][0]["params"].update(fidelity="high"),
        ("'low' and 'high'", "the same question"),
    ),
    "unreachable store": (
        lambda c: c.update(store="sqlite:///nowhere/x.db"),
        ("nowhere/x.db", "does not exist"),
    ),
    "store of an unknown kind": (lambda c: c.update(store="mysql://x/y"), ("SQLite or PostgreSQL",)),
    "store that is no URL": (
        lambda c: c.update(store="campaigns.db"),
        ("'campaigns.db' is no database URL",),
    ),
    "initial design for an unknown fidelity": (
        lambda c: c["initial_design"].update(per_fidelity={"mid": 2}),
        ("initial_design.per_fidelity", "'mid'"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_refused_config_leaves_nothing_behind(
    run: Run, write_config: Callable[..., Path], tmp_path: Path, case: str
) -> None:
    change, words = CASES[case]
    path = write_config(change)
    refused(run("run", path), *words)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_is_no_config(run: Run, tmp_path: Path) -> None:
    refused(run("run", "nowhere.yaml"), "no config file 'nowhere.yaml'")
    refused(run("run", "quickstrat"), "Did you mean the shipped config 'quickstart'")
    (tmp_path / "broken.yaml").write_text("name: [")
    refused(run("run", "broken.yaml"), "broken.yaml", "is not valid YAML")
    (tmp_path / "list.yaml").write_text("- 1")
    refused(run("run", "list.yaml"), "list.yaml", "must be a mapping")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    refused(run("run", "binary.yaml"), "binary.yaml", "can't be read")
    refused(run("run", tmp_path), "is a folder")


def test_overrides_that_lead_nowhere(run: Run, write_config: Callable[..., Path]) -> None:
    path = write_config()
    refused(run("run", path, "--set", "budget"), "--set budget", "KEY=VALUE")
    refused(run("run", path, "--set", "=3"), "KEY=VALUE")
    refused(run("run", path, "--set", "budget.totl=3"), "budget.totl", "did you mean 'total'")
    refused(run("run", path, "--set", "budget.total=-3"), "budget.total", "greater than 0")
    refused(run("run", path, "--set", "name.first=3"), "name", "no keys below it")
    refused(run("run", path, "--set", "fidelities.7.cost=3"), "no entry '7'")
    refused(run("run", path, "--set", "budget.total=[1"), "not valid YAML")


def test_options_that_exclude_one_another(run: Run, write_config: Callable[..., Path]) -> None:
    refused(run("run", write_config(), "--until-idle", "--rounds", "2"), "exclude one another")


def test_usage_errors_are_bad_input_too(run: Run) -> None:
    for arguments in (["run"], ["nonsense"], ["status", "x", "--nonsense"], ["best", "x", "-n", "0"]):
        ran = run(*arguments)
        assert ran.code == 2, arguments
        assert "Traceback" not in ran.err


def test_a_store_of_a_newer_schema(run: Run, write_config: Callable[..., Path], finished: str) -> None:
    path = Path("newer.db")
    path.write_bytes(Path(finished.removeprefix("sqlite:///")).read_bytes())
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    for command in (["status", "tiny"], ["run", write_config()], ["db", "upgrade"]):
        ran = run(*command, "--store", "sqlite:///newer.db")
        refused(ran, "9999")
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
    connection.close()


def test_a_store_that_is_no_store(run: Run, write_config: Callable[..., Path]) -> None:
    Path("notes.db").write_text("these are notes, not a database")
    for command in (["status", "tiny"], ["run", write_config()]):
        refused(run(*command, "--store", "sqlite:///notes.db"), "is not a SQLite database")
    assert Path("notes.db").read_text() == "these are notes, not a database"
    refused(run("db", "upgrade", "--store", "sqlite:///nowhere.db"), "There is no store")
    assert not Path("nowhere.db").exists()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda c: c.update(seed=1), "'seed'"),
        (lambda c: c["fidelities"][0].update(cost=0.2), "cost"),
        (lambda c: c["space"].update(bounds=[[-5, 10], [0, 14]]), "space"),
        (lambda c: c["objective"].update(direction="maximize"), "objective.direction"),
    ],
)
def test_a_campaign_continues_with_the_same_config(
    run: Run, write_config: Callable[..., Path], finished: str, change: Change, key: str
) -> None:
    store = Path("continued.db")
    store.write_bytes(Path(finished.removeprefix("sqlite:///")).read_bytes())
    before = run(
        "export", "tiny", "--out", "before.json", "--format", "json", "--store", "sqlite:///continued.db"
    )
    assert before.code == 0
    refused(run("run", write_config(change), "--store", "sqlite:///continued.db"), "'tiny'", key)
    run("export", "tiny", "--out", "after.json", "--format", "json", "--store", "sqlite:///continued.db")
    assert Path("after.json").read_text() == Path("before.json").read_text()


def test_a_bug_is_called_one_and_shows_its_traceback_only_on_request(
    run: Run, finished: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from activelearning import report

    def fall(*_: object) -> None:
        raise RuntimeError("it fell\nover")

    monkeypatch.setattr(report, "status", fall)
    ran = run("status", "tiny", "--store", finished)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "Error: This is a bug: RuntimeError: it fell over. With --debug it shows where.\n"
    ran = run("--debug", "status", "tiny", "--store", finished)
    assert ran.code == 1
    assert "Traceback" in ran.err
    assert "Traceback" not in run("status", "tiny", "--store", finished).err  # it was for that one command


def test_a_store_that_fails_on_the_way_is_no_bug(
    run: Run, finished: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    from activelearning import report

    def fall(*_: object) -> None:
        raise OperationalError("SELECT 1", {}, sqlite3.OperationalError("disk I/O error"))

    monkeypatch.setattr(report, "status", fall)
    ran = run("status", "tiny", "--store", finished)
    assert ran.code == 1
    assert ran.err == "Error: The store failed: disk I/O error. All that was committed is kept.\n"
