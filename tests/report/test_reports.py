"""Reports over rows written by hand, each with a known answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Lattice, Structure

from activelearning import report
from activelearning.candidate import BoxCandidate, Candidate, CrystalCandidate
from activelearning.errors import InputError
from activelearning.report.crystals import crystals
from activelearning.report.text import candidate_text, value_text
from activelearning.store.database import Database, open_database
from activelearning.store.models import (
    Artifact,
    Campaign,
    Evaluation,
    Lease,
    LedgerEntry,
    MeasurementRow,
    Round,
    Worker,
)

AT = "2026-01-01T00:00:00.000000+00:00"


def config(name: str, direction: str = "maximize") -> dict[str, Any]:
    return {
        "name": name,
        "objective": {"property": "y", "unit": "eV", "direction": direction},
        "fidelities": [
            {"name": "cheap", "cost": 0.1, "property": "z", "target": False},
            {"name": "dear", "cost": 1.0, "property": None, "target": True},
        ],
        "budget": {"total": 10.0},
    }


class Writer:
    """Writes a campaign's rows the way the engine does, with values of our choice."""

    def __init__(
        self, database: Database, name: str = "search", direction: str = "maximize", **row: Any
    ) -> None:
        self.database, self.name, self._n = database, name, 0
        facts = {"folder": ".", "artifacts": ".", "state": "running", "reason": None, **row}
        with database.write() as session:
            session.add(
                Campaign(name=name, config=config(name, direction), created_at=AT, updated_at=AT, **facts)
            )

    def round(self, index: int) -> None:
        with self.database.write() as session:
            session.add(
                Round(
                    campaign=self.name,
                    index=index,
                    model_fingerprint=None,
                    summary={"index": index},
                    timings={},
                    committed_at=AT,
                )
            )

    def evaluation(
        self,
        index: int,
        fidelity: str,
        value: float | None = None,
        *,
        state: str = "succeeded",
        censoring: str = "none",
        candidate: Candidate | None = None,
        **row: Any,
    ) -> str:
        candidate = candidate or BoxCandidate((float(self._n),))
        key = f"{self.name}-{self._n:03d}"
        cost = {"cheap": 0.1, "dear": 1.0}[fidelity]
        prop = {"cheap": "z", "dear": "y"}[fidelity]
        is_open = state in ("intent", "submitted", "running")
        facts = {"predicted_mean": None, "predicted_std": None, "reason": None, "claimed_by": None}
        facts |= {"details": {}} | row
        with self.database.write() as session:
            session.add(
                Evaluation(
                    key=key,
                    campaign=self.name,
                    round=index,
                    position=self._n,
                    content_key=f"content-{key}",
                    replicate=0,
                    candidate_key=candidate.key,
                    candidate=candidate.to_dict(),
                    fidelity=fidelity,
                    oracle="function",
                    oracle_version="1",
                    property=prop,
                    state=state,
                    acquisition=None,
                    cost_reserved=cost,
                    cost_paid=None if is_open else cost,
                    external_id=None,
                    seconds=None,
                    created_at=AT,
                    finished_at=None if is_open else AT,
                    **facts,
                )
            )
            session.flush()
            session.add(self._entry(key, 0, "reserve", cost, 0.0))
            if not is_open:
                session.add(self._entry(key, 1, "settle", -cost, cost))
            if value is not None:
                session.add(
                    MeasurementRow(
                        evaluation_key=key,
                        property=prop,
                        value=value,
                        std=0.5,
                        censoring=censoring,
                        unit=None,
                    )
                )
        self._n += 1
        return key

    def _entry(self, key: str, sequence: int, kind: str, reserved: float, spent: float) -> LedgerEntry:
        return LedgerEntry(
            evaluation_key=key,
            sequence=sequence,
            campaign=self.name,
            kind=kind,
            reserved=reserved,
            spent=spent,
            at=AT,
        )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path}/report.db", create=True)
    yield opened
    opened.close()


@pytest.fixture
def campaign(database: Database) -> Writer:
    """Two rounds: cheap answers, target answers, a bound, a failure, and open work."""
    rows = Writer(database)
    rows.round(0)
    rows.evaluation(0, "cheap", 100.0)
    rows.evaluation(0, "dear", 1.0)
    rows.round(1)
    rows.evaluation(1, "dear", 9.0, censoring="upper")  # 9 at most: no achievement when maximising
    rows.evaluation(1, "dear", 3.0, predicted_mean=2.5, predicted_std=0.7)
    rows.evaluation(1, "dear", state="failed", reason="melted")
    rows.evaluation(1, "dear", 2.0)
    rows.evaluation(1, "dear", state="running")
    return rows


def test_status_has_the_keys_and_numbers_of_its_interface(database: Database, campaign: Writer) -> None:
    standing = report.status(database, "search")
    best = standing.pop("best")
    assert standing == {
        "campaign": "search",
        "state": "interrupted",
        "reason": standing["reason"],
        "rounds": 1,
        "budget": {"total": 10.0, "reserved": 1.0, "spent": 5.1, "remaining": 3.9},
        "evaluations": {"cheap": {"succeeded": 1}, "dear": {"failed": 1, "running": 1, "succeeded": 4}},
    }
    assert best == report.best(database, "search", 1)[0]


def test_best_leaves_bounds_and_other_fidelities_out(database: Database, campaign: Writer) -> None:
    rows = report.best(database, "search", 10)
    assert [row["value"] for row in rows] == [3.0, 2.0, 1.0]
    assert rows[0] == {
        "candidate": {"kind": "box", "values": [3.0]},
        "key": "search-003",
        "fidelity": "dear",
        "property": "y",
        "value": 3.0,
        "std": 0.5,
        "predicted_mean": 2.5,
        "predicted_std": 0.7,
    }
    assert [row["value"] for row in report.best(database, "search", 2)] == [3.0, 2.0]


def test_a_bound_counts_where_the_truth_is_at_least_as_good(database: Database) -> None:
    rows = Writer(database, "down", "minimize")
    rows.round(0)
    rows.evaluation(0, "dear", 1.0)
    rows.evaluation(0, "dear", 0.5, censoring="upper")  # at most 0.5, which is what minimising wants
    rows.evaluation(0, "dear", -9.0, censoring="lower")  # at least -9: says nothing good
    assert [row["value"] for row in report.best(database, "down", 5)] == [0.5, 1.0]
    assert [point.best for point in report.trace(database, "down")] == [1.0, 0.5, 0.5]


def test_where_there_is_no_best_it_is_said_why(database: Database) -> None:
    up, down = Writer(database, "up"), Writer(database, "down", "minimize")
    assert report.why_no_best(database, "up") == "no value at the target fidelity yet"
    up.round(0)
    up.evaluation(0, "dear", 9.0, censoring="upper")
    up.evaluation(0, "cheap", 9.0, censoring="upper")
    up.evaluation(0, "dear", state="failed", reason="melted")
    assert report.best(database, "up") == []
    assert report.why_no_best(database, "up") == "no value at the target fidelity yet, 1 bound"
    down.round(0)
    for bound in (-9.0, -8.0):
        down.evaluation(0, "dear", bound, censoring="lower")
    assert report.best(database, "down") == []
    assert report.why_no_best(database, "down") == "no value at the target fidelity yet, 2 bounds"

    held = Writer(database, "held")
    with database.write() as session:
        row = session.get_one(Campaign, "held")
        row.config = {**row.config, "constraints": [{"property": "z", "at_least": 1.0}]}
    assert report.why_no_best(database, "held") == "no candidate is measured at every target fidelity yet"
    held.round(0)
    both = BoxCandidate((0.5,))
    held.evaluation(0, "dear", 3.0, candidate=both)
    assert report.why_no_best(database, "held") == "no candidate is measured at every target fidelity yet"
    held.evaluation(0, "cheap", 0.5, candidate=both)
    assert report.best(database, "held") == []
    said = "of 1 measured at every target fidelity none is known to have a value of each objective and to keep the"
    assert report.why_no_best(database, "held") == f"{said} constraints"
    held.evaluation(0, "cheap", 1.5, candidate=both)
    assert [row["value"] for row in report.best(database, "held")] == [3.0]


def test_export_has_one_row_for_each_evaluation_in_order(database: Database, campaign: Writer) -> None:
    rows = report.export_rows(database, "search")
    assert [tuple(row) for row in rows] == [report.EXPORT_COLUMNS] * 7
    assert [row["round"] for row in rows] == [0, 0, 1, 1, 1, 1, 1]
    assert [row["value"] for row in rows] == [100.0, 1.0, 9.0, 3.0, None, 2.0, None]
    assert rows[0]["property"] == "z"
    assert rows[2]["censoring"] == "upper"
    assert rows[4]["reason"] == "melted"
    assert rows[4]["cost_paid"] == 1.0
    assert (rows[6]["state"], rows[6]["cost_paid"], rows[6]["finished_at"]) == ("running", None, None)


def test_trace_is_the_best_so_far_against_what_was_paid(database: Database, campaign: Writer) -> None:
    points = report.trace(database, "search")
    assert [point.best for point in points] == [None, 1.0, 1.0, 3.0, 3.0, 3.0]
    assert [point.spent for point in points] == pytest.approx([0.1, 1.1, 2.1, 3.1, 4.1, 5.1])
    assert [point.round for point in points] == [0, 0, 1, 1, 1, 1]


def test_rounds_sum_up_their_evaluations(database: Database, campaign: Writer) -> None:
    campaign.round(2)  # committed, nothing answered yet
    campaign.evaluation(2, "cheap", state="intent")
    first, second, third = report.rounds(database, "search")
    assert first["evaluations"] == {"cheap": {"succeeded": 1}, "dear": {"succeeded": 1}}
    assert (first["spent"], first["best"]) == (pytest.approx(1.1), 1.0)
    assert second["evaluations"] == {"dear": {"succeeded": 3, "failed": 1, "running": 1}}
    assert (second["cost_reserved"], second["cost_paid"]) == (5.0, 4.0)
    assert (second["spent"], second["best"], second["summary"]) == (pytest.approx(5.1), 3.0, {"index": 1})
    # What a round has not changed, it takes over from the one before.
    assert (third["cost_paid"], third["spent"], third["best"]) == (0.0, pytest.approx(5.1), 3.0)


def test_batch_is_one_round_in_order(database: Database, campaign: Writer) -> None:
    rows = report.batch(database, "search", 1)
    assert [row["state"] for row in rows] == ["succeeded", "succeeded", "failed", "succeeded", "running"]
    assert rows[1]["predicted_mean"] == 2.5
    assert report.batch(database, "search", 7) == []


def test_a_campaign_without_results_has_no_best(database: Database) -> None:
    Writer(database, "new")
    standing = report.status(database, "new")
    assert standing["best"] is None
    assert standing["rounds"] == 0
    assert standing["evaluations"] == {"cheap": {}, "dear": {}}
    assert standing["budget"] == {"total": 10.0, "reserved": 0.0, "spent": 0.0, "remaining": 10.0}
    assert report.best(database, "new") == report.export_rows(database, "new") == []
    assert report.trace(database, "new") == report.rounds(database, "new") == []


def test_an_unknown_campaign_names_the_nearest(database: Database) -> None:
    with pytest.raises(InputError, match="the store holds none"):
        report.status(database, "search")
    Writer(database, "search")
    for read in (report.status, report.best, report.export_rows, report.trace, report.rounds, crystals):
        with pytest.raises(InputError, match=r"no campaign 'serach'.*Did you mean 'search'"):
            read(database, "serach")
    assert exit_code_of(database) == 2


def exit_code_of(database: Database) -> int:
    try:
        report.status(database, "serach")
    except InputError as error:
        return error.exit_code
    return 0


def this_process() -> dict[str, Any]:
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return {"host": socket.gethostname(), "pid": os.getpid(), "process_started": stat[19]}


def test_a_running_campaign_is_interrupted_where_no_live_process_works_on_it(database: Database) -> None:
    rows = Writer(database)
    rows.round(0)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with database.write() as session:
        beat = time.time()
        session.add(Worker(id="alive", heartbeat=beat, **this_process()))
        session.add(Worker(id="lapsed", heartbeat=beat - 3600.0, **this_process()))
        gone = {**this_process(), "pid": process.pid}
        session.add(Worker(id="gone", heartbeat=beat, **gone))
    assert report.status(database, "search")["state"] == "interrupted"

    for worker, state in (("gone", "interrupted"), ("lapsed", "interrupted"), ("alive", "running")):
        with database.write() as session:
            session.merge(Lease(campaign="search", worker=worker))
        assert report.status(database, "search")["state"] == state, worker
    with database.write() as session:
        session.delete(session.get_one(Lease, "search"))
    rows.evaluation(0, "dear", state="running", claimed_by="gone")
    assert report.status(database, "search")["state"] == "interrupted"
    rows.evaluation(0, "dear", state="running", claimed_by="alive")
    assert report.status(database, "search")["state"] == "running"


def test_a_campaign_that_a_live_process_has_open_runs_between_its_steps_too(database: Database) -> None:
    Writer(database)
    with database.write() as session:
        session.add(Worker(id="alive", campaign="another", heartbeat=time.time(), **this_process()))
    assert report.status(database, "search")["state"] == "interrupted"
    with database.write() as session:
        session.get_one(Worker, "alive").campaign = "search"
    assert report.status(database, "search")["state"] == "running"


@pytest.mark.parametrize("state", ["waiting", "finished", "cancelled", "failed", "interrupted"])
def test_other_states_are_told_as_they_are(database: Database, state: str) -> None:
    Writer(database, state=state, reason="as it is")
    standing = report.status(database, "search")
    assert (standing["state"], standing["reason"]) == (state, "as it is")


def test_crystals_come_with_the_atoms_that_were_measured(database: Database, tmp_path: Path) -> None:
    rows = Writer(database, artifacts=str(tmp_path))
    rows.round(0)
    cell = (5.14, 5.14, 5.14, 90.0, 90.0, 90.0)
    bare = CrystalCandidate(225, {"Li": 4, "Cl": 4}, cell)
    atoms = Structure.from_spacegroup(225, Lattice.cubic(5.14), ["Li", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    known = CrystalCandidate(225, {"Li": 4, "Cl": 4}, cell, structure=atoms)
    rows.evaluation(0, "dear", 1.0, candidate=bare)  # no atoms anywhere
    measured = rows.evaluation(0, "dear", 2.0, candidate=bare)
    own = rows.evaluation(0, "cheap", 3.0, candidate=known)
    rows.evaluation(0, "dear", 4.0, candidate=known)  # the same atoms again
    rows.evaluation(0, "dear", state="failed", candidate=known)
    relaxed = str(atoms.to(fmt="cif"))
    (tmp_path / "relaxed.cif").write_text(relaxed)
    with database.write() as session:
        session.add(Artifact(evaluation_key=measured, path="relaxed.cif", sha256="0" * 64, size=len(relaxed)))
        session.add(Artifact(evaluation_key=measured, path="trajectory.xyz", sha256="0" * 64, size=1))
    found = crystals(database, "search")
    assert [crystal.key for crystal in found] == [measured, own]
    assert found[0].cif == relaxed
    again = Structure.from_str(found[1].cif, fmt="cif")
    assert again.composition.reduced_formula == "LiCl"
    assert len(again) == 8


def test_an_answer_that_is_shared_has_the_atoms_of_the_one_that_was_measured(
    database: Database, tmp_path: Path
) -> None:
    salt = CrystalCandidate(225, {"Li": 4, "Cl": 4}, (5.14, 5.14, 5.14, 90.0, 90.0, 90.0))
    first, second = (
        Writer(database, name, artifacts=str(tmp_path / name)) for name in ("measured", "sharing")
    )
    for rows in (first, second):
        rows.round(0)
    measured = first.evaluation(0, "dear", 2.0, candidate=salt)
    shared = second.evaluation(0, "dear", 2.0, candidate=salt, details={"shared_from": measured})
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "relaxed.cif").write_text("data_of_the_measured")
    with database.write() as session:
        session.add(Artifact(evaluation_key=measured, path="relaxed.cif", sha256="0" * 64, size=1))
    (found,) = crystals(database, "sharing")
    assert (found.key, found.cif) == (shared, "data_of_the_measured")


def test_texts_for_people() -> None:
    assert candidate_text({"kind": "box", "values": [0.5, -3.25, 1e-9]}) == "(0.5, -3.25, 1e-09)"
    crystal = CrystalCandidate(216, {"Li": 6, "P": 1, "S": 5, "Cl": 1}, (9.85, 9.85, 9.85, 90, 90, 90))
    text = candidate_text(crystal.to_dict())
    assert text == "Cl Li6 P S5, group 216, 9.85 9.85 9.85 Å 90 90 90°"
    assert value_text(None) == "-"
    assert value_text(-3.21987, 0.123) == "-3.22 ± 0.12"
    assert value_text(-4.5, None, "upper") == "≤ -4.5"
    assert value_text(-4.5, 0.0, "lower") == "≥ -4.5"
    assert value_text(0.0, None, "none") == "0"
