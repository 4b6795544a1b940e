"""What a campaign of all four fidelities must have come to, however often it was killed on the way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container
from pathlib import Path

import kill_harness
import pytest
from ase.data import chemical_symbols
from sqlalchemy import text

from activelearning.store.database import open_database
from oracles.dft.references import reference_atoms


def check_ledger(store: str, total: float) -> None:
    """Reserved once and settled once for each evaluation; never more than the budget, at no instant."""
    database = open_database(store)
    with database.read() as session:
        query = "SELECT evaluation_key, kind, reserved, spent FROM ledger ORDER BY rowid"
        entries = [dict(row) for row in session.execute(text(query)).mappings()]
    database.close()
    evaluations = kill_harness.tables(store)["evaluations"]
    keys = [row["key"] for row in evaluations]
    assert len(keys) == len(set(keys))
    asked = Counter((row["content_key"], row["fidelity"]) for row in evaluations)
    assert set(asked.values()) == {1}
    for kind in ("reserve", "settle"):
        assert sorted(e["evaluation_key"] for e in entries if e["kind"] == kind) == sorted(keys), kind
    out = 0.0
    for entry in entries:
        out += entry["reserved"] + entry["spent"]
        assert out <= total + 1e-9
    assert sum(entry["reserved"] for entry in entries) == pytest.approx(0.0, abs=1e-9)
    spent = sum(entry["spent"] for entry in entries)
    assert spent == pytest.approx(sum(row["cost_paid"] for row in evaluations))


def check_jobs(store: str, jobs: Path, *, price: float, killed: Container[str] = ()) -> None:
    """One job for each evaluation by DFT, each attempt run once, energies and charges those of the jobs' files.

    Args:
        store: URL of the store.
        jobs: Folder of the jobs' folders.
        price: Of a core-hour; each job has one core.
        killed: Keys of the jobs, of elements too, whose first attempt was killed.
    """
    tables = kill_harness.tables(store)
    rows = {row["key"]: row for row in tables["evaluations"] if row["fidelity"] == "dft"}
    values = {row["evaluation_key"]: row["value"] for row in tables["measurements"]}
    folders = {path.name: path for path in jobs.iterdir() if not path.name.startswith(".")}
    elements = {}
    for key, path in folders.items():
        record = json.loads((path / "record.json").read_text())
        n_attempts = len(record["attempts"])
        assert n_attempts == (2 if key in killed else 1), (key, record)
        assert len(list(path.glob("claim-*"))) == n_attempts
        result = json.loads((path / "result.json").read_text())
        assert result["state"] == "done", result
        if key.startswith("reference-"):
            symbol = key.split("-")[1]
            elements[symbol] = result["energy"] / len(reference_atoms(symbol))
    asked = {key: path for key, path in folders.items() if not key.startswith("reference-")}
    assert asked.keys() == rows.keys()
    for key, path in asked.items():
        row, result = rows[key], json.loads((path / "result.json").read_text())
        assert row["state"] == "succeeded", row["reason"]
        symbols = [chemical_symbols[number] for number in result["atoms"]["numbers"]]
        formation = (result["energy"] - sum(elements[symbol] for symbol in symbols)) / len(symbols)
        assert values[key] == pytest.approx(formation, abs=1e-9)
        hours = json.loads(row["details"])["core_hours"]
        assert row["cost_paid"] == pytest.approx(hours * price)
        # A lost attempt is paid, too.
        seconds = hours * 3600
        assert seconds > result["seconds"] if key in killed else seconds >= result["seconds"] - 1e-6
