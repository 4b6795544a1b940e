"""The shipped campaign of four fidelities with cheap potentials in place of MACE and DFT, killed at every stage.

Jobs are real processes under the scheduler of this machine, dynamics are real dynamics; a laboratory answers by a
command, by a table and by the form. `test_four_fidelities_kill.py` runs the campaign as it is shipped.
"""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import four_fidelities
import kill_harness
import pytest
from starlette.testclient import TestClient

from activelearning.campaign.config import CampaignConfig, load_config
from activelearning.campaign.engine import Engine
from activelearning.campaign.shipped import find_config
from activelearning.campaign.tick import tick
from activelearning.cli.main import invoke
from activelearning.report import status
from activelearning.store.database import open_database
from oracles.lab import list_requests
from oracles.lab.web import Access
from oracles.lab.web.app import make_app
from oracles.potentials import checksum

NAME = "four_fidelities"
TOTAL, PRICE = 90.0, 30.0
LENNARD_JONES = {"sigma": 2.2, "epsilon": 0.05, "rc": 5.0, "smooth": True}
CHEAP: dict[str, Any] = {
    "sampler": {"type": "random"},
    "surrogate": {"type": "multi_fidelity_gp", "max_iterations": 3},
    "acquisition": {"batch_size": 2, "pool_size": 16},
    "constraints.formation_energy.at_most": 10.0,
    "initial_design.per_fidelity": {"proxy": 4, "md": 1, "dft": 2, "lab": 3},
    "fidelities.md.timeout": None,  # in this process
    "fidelities.md.params": {
        "potential": {"name": "ase.calculators.lj:LennardJones", "parameters": LENNARD_JONES},
        "temperature": 800,
        "time_ps": 0.1,
        "equilibration_ps": 0.04,
        "min_cell_edge": 3,
        "relax_steps": 10,
        "checkpoint_every": 10,
    },
    "fidelities.dft.cost": 3.0,
    "fidelities.dft.params": {
        "potential": {"name": "ase.calculators.lj:LennardJones", "parameters": LENNARD_JONES},
        "prerelax_steps": 10,
        "engine": {
            "type": "ase",
            "calculator": "ase.calculators.lj:LennardJones",
            "parameters": LENNARD_JONES,
            "python": sys.executable,
        },
        "scheduler": {"type": "local", "total_cores": 2},
        "cost_per_core_hour": PRICE,
        "backoff": 0.0,
    },
    "fidelities.lab.cost": 10.0,
    "budget": {"total": TOTAL, "per_round": 25.0},
    "stopping": {"max_rounds": 1},
}
# What a process is at when it is killed: an event of the engine, and the fidelity that it is about. Most come more than
# once, and in what order depends on the jobs.
STAGES = {
    ("step.reconcile", ""),
    ("step.ingest", ""),
    ("step.fit", ""),
    ("step.propose", ""),
    ("step.commit", ""),
    ("step.submit", ""),
    ("round.committed", ""),
    ("evaluation.handed_over", "dft"),  # submitted, and not yet on record as such
    ("evaluation.handed_over", "lab"),  # between two requests
    ("evaluation.running", "md"),
    ("evaluation.running", "proxy"),
    ("evaluation.succeeded", "md"),
    ("evaluation.succeeded", "dft"),
    ("evaluation.succeeded", "lab"),
    ("evaluation.amended", "lab"),
}
TOKEN, ORIGIN = "t" * 43, "http://127.0.0.1:8765"


class Campaign:
    """The campaign in a folder, run by processes that are killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / 'store.db'}"
        changes = {key: json.dumps(value) for key, value in CHEAP.items()}
        self.config: CampaignConfig = load_config(find_config(NAME), changes)

        self.left = set(STAGES)
        checksum(
            CHEAP["fidelities.md.params"]["potential"]
        )  # once, for all the processes that are forked from here

    def work(self) -> str | None:
        """Tick in a process that is killed at the first stage at which none was before.

        Returns:
            What was decided by a tick that was not killed.
        """
        told = self.folder / "told"
        told.unlink(missing_ok=True)

        def work() -> None:
            def observe(what: str, facts: Mapping[str, Any]) -> None:
                fidelity = facts.get("fidelity", "") if what.startswith("evaluation") else ""
                if (what, fidelity) in self.left:
                    told.write_text(f"{what} {fidelity}")
                    os.kill(os.getpid(), signal.SIGKILL)

            with Engine.open(self.config, folder=self.folder, store=self.url, observer=observe) as engine:
                told.write_text(tick(engine).action)

        status = kill_harness.in_child(work)
        if os.WIFSIGNALED(status):
            what, _, fidelity = told.read_text().partition(" ")
            self.left.remove((what, fidelity))
            return None
        assert os.WEXITSTATUS(status) == 0
        return told.read_text()

    def work_until(self, *decisions: str) -> None:
        """Have processes at work, one after the other, until one comes to a decision."""
        end = time.monotonic() + 240
        while (decision := self.work()) not in decisions:
            assert time.monotonic() < end, (decision, self.left)

    def requests(self) -> list[str]:
        """Keys of what waits for the laboratory."""
        database = open_database(self.url)
        found = [request["key"] for request in list_requests(database)]
        database.close()
        return found

    def tell(self, *arguments: object) -> None:
        """A command of the command line, which must succeed."""
        assert invoke([*map(str, arguments), "--store", self.url]) == 0


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    monkeypatch.setenv("ACTIVELEARNING_GPAW_PYTHON", sys.executable)
    monkeypatch.chdir(tmp_path)
    return Campaign(tmp_path)


def send_form(url: str, key: str, **typed: str) -> None:
    """Fill a request's form in and send it, as a browser would."""
    database = open_database(url)
    client = TestClient(make_app(database, Access((ORIGIN,), TOKEN)), base_url=ORIGIN)
    client.get("/", params={"token": TOKEN})
    client.headers["origin"] = ORIGIN
    page = client.get(f"/requests/{key}").text
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page))
    fields = {name: (None, text) for name, text in {**hidden, **typed}.items()}
    assert "The result is recorded" in client.post(f"/requests/{key}/results", files=fields).text
    database.close()


def fill_in(table: Path, key: str, **cells: str) -> None:
    """Fill in one row of a table of requests."""
    rows = list(csv.DictReader(table.open(newline="")))
    next(row for row in rows if row["key"] == key).update(cells)
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_killed_at_every_stage_nothing_is_lost_or_done_twice(campaign: Campaign, tmp_path: Path) -> None:
    campaign.work_until("waiting")
    first, second, third, *_ = campaign.requests()
    campaign.tell("lab", "record", first[:12], "--value", "1e-4", "--unit", "S/cm")
    campaign.work_until("waiting")
    campaign.tell("lab", "export", "--out", tmp_path / "requests.csv")
    fill_in(tmp_path / "requests.csv", second, value="<1e-8", unit="S/cm")
    campaign.tell("lab", "import", tmp_path / "requests.csv")
    send_form(campaign.url, third, value="-5.25", unit="log10(S/cm)")
    campaign.tell("lab", "record", first[:12], "--value", "2e-4", "--unit", "S/cm", "--corrects", 1)
    campaign.work_until("waiting", "finished")
    for key in campaign.requests():  # of the round after the initial design
        campaign.tell("lab", "reject", key, "--reason", "it does not form")
    campaign.work_until("finished")
    assert campaign.left == set()

    four_fidelities.check_ledger(campaign.url, TOTAL)
    four_fidelities.check_jobs(campaign.url, tmp_path / "artifacts" / NAME / "dft" / "jobs", price=PRICE)
    tables = kill_harness.tables(campaign.url)
    measured = {row["evaluation_key"]: row for row in tables["measurements"]}
    assert measured[first]["value"] == pytest.approx(-3.699, abs=1e-3)
    assert [row["value"] for row in tables["earlier_measurements"]] == [pytest.approx(-4.0)]
    assert (measured[second]["value"], measured[second]["censoring"]) == (pytest.approx(-8.0), "upper")
    assert measured[third]["value"] == -5.25
    rows = tables["evaluations"]
    assert {row["round"] for row in rows} == {0, 1}
    assert {row["fidelity"] for row in rows} == {"proxy", "md", "dft", "lab"}
    asked = {row["key"] for row in rows if row["fidelity"] == "lab"}
    assert asked == {row["key"] for row in tables["lab_requests"]}
    # Of the initial design two crystals are known to DFT and to the laboratory, and the constraint is kept by all.
    database = open_database(campaign.url)
    best = status(database, NAME)["best"]
    database.close()
    known = {row["candidate_key"] for row in rows if row["fidelity"] == "dft"}
    exact = [
        measured[row["key"]]["value"]
        for row in rows
        if row["fidelity"] == "lab" and row["state"] == "succeeded" and row["candidate_key"] in known
    ]
    assert len(exact) >= 2
    assert best["value"] == pytest.approx(max(exact))
    assert json.loads(json.dumps(best))["fidelity"] == "lab"
