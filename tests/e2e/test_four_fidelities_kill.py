"""The shipped campaign of four fidelities by the command line, killed (SIGKILL) at every stage, its jobs with it.

Real commands, dynamics with the shipped potential, density-functional theory by GPAW in jobs of its own, and a
laboratory that answers by a command, by a table and by the form in a browser. Sizes are reduced.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import four_fidelities
import kill_harness
import pytest
from chromium import Page, chromium

NAME = "four_fidelities"
TOTAL, PRICE, LIMIT = 80.0, 30.0, -1.7  # the last one is the shipped constraint, eV/atom
REDUCED = {
    "sampler": "{type: gflownet, steps: 60, warm_steps: 30, hidden: [64, 64]}",
    "acquisition.pool_size": "64",
    "acquisition.batch_size": "3",
    "initial_design.per_fidelity": "{proxy: 6, md: 2, dft: 4, lab: 4}",
    "fidelities.md.params.time_ps": "0.4",
    "fidelities.md.params.equilibration_ps": "0.1",
    "fidelities.md.params.min_cell_edge": "5",
    "fidelities.md.params.relax_steps": "40",
    "fidelities.md.params.checkpoint_every": "10",
    "fidelities.dft.cost": "3.0",
    "fidelities.dft.params.prerelax_steps": "40",
    "fidelities.dft.params.backoff": "0",
    "fidelities.dft.params.scheduler": "{type: local, cores: 1, total_cores: 1, time_limit: 1200}",
    "fidelities.lab.cost": "10.0",
    "fidelities.lab.max_in_flight": "4",
    "budget": f"{{total: {TOTAL:g}, per_round: 20}}",
    "stopping": "{max_rounds: 1}",
}
WAITING = 3
COMMAND = (sys.executable, "-m", "activelearning.cli.main")


class Campaign:
    """The campaign in a folder, as its user sees it."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder
        self.environment = {**os.environ, "ACTIVELEARNING_GPAW_PYTHON": python}
        self.store = f"sqlite:///{folder / 'activelearning.db'}"
        self.log = folder / "output.log"
        self.dft = folder / "artifacts" / NAME / "dft"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Begin `activelearning run`."""
        overrides = [word for key, value in REDUCED.items() for word in ("--set", f"{key}={value}")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "run", NAME, *overrides],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        return self.process

    def said(self) -> str:
        """All that the runs printed."""
        return self.log.read_text() if self.log.exists() else ""

    def run(self) -> int:
        """Run to its own end; returns the exit code."""
        return self.start().wait(timeout=900)

    def waits_for(self) -> str:
        """Run until it waits; returns what it says that is out."""
        before = len(self.said())
        assert self.run() == WAITING, self.said()
        found = re.search(r"^out: (.*)$", self.said()[before:], flags=re.MULTILINE)
        assert found is not None, self.said()
        return found[1]

    def kill_when(self, what: str, has_come: Callable[[], object]) -> None:
        """Run, and kill the command in the moment in which something has come about."""
        process = self.start()
        end = time.monotonic() + 900
        while not has_come():
            assert process.poll() is None, f"the run ended before {what}:\n{self.said()}"
            assert time.monotonic() < end, f"{what} did not come:\n{self.said()}"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    def tell(self, *arguments: str) -> str:
        """A command that must succeed; returns what it prints."""
        done = subprocess.run(
            [*COMMAND, *arguments], cwd=self.folder, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def says_anew(self, text: str) -> Callable[[], bool]:
        """Whether the runs from now on print something."""
        before = len(self.said())
        return lambda: text in self.said()[before:]

    def jobs(self) -> set[str]:
        """Keys of the crystals' jobs."""
        return {path.name for path in (self.dft / "jobs").glob("[0-9a-f]*") if path.is_dir()}

    def running(self) -> dict[str, int]:
        """The crystals' jobs that run, and the processes of their scripts."""
        found = {}
        for path in (self.dft / "pool" / "running").glob("[0-9a-f]*.json"):
            try:
                found[path.stem] = int(json.loads(path.read_text())["pid"])
            except FileNotFoundError:
                continue  # it has just ended
        return found

    def lose_a_job(self) -> str:
        """Kill a crystal's job in the midst of its work; its key."""
        end = time.monotonic() + 600
        while True:
            for key, pid in self.running().items():
                # Held first: a job of a few seconds may be over before the signal.
                signal_session(pid, signal.SIGSTOP)
                is_over = (self.dft / "jobs" / key / "result.json").exists()
                signal_session(pid, signal.SIGCONT if is_over else signal.SIGKILL)
                if not is_over:
                    return key
            assert time.monotonic() < end, self.said()
            time.sleep(0.1)

    def is_stable(self, request: str) -> bool:
        """Whether DFT found a crystal that the laboratory is asked for within the constraint."""
        tables = kill_harness.tables(self.store)
        rows = {row["key"]: row for row in tables["evaluations"]}
        energies = {
            rows[m["evaluation_key"]]["candidate_key"]: m["value"]
            for m in tables["measurements"]
            if m["property"] == "formation_energy"
        }
        return bool(energies[rows[request]["candidate_key"]] <= LIMIT)

    def requests(self) -> list[dict[str, Any]]:
        """What waits for the laboratory."""
        found: list[dict[str, Any]] = json.loads(self.tell("lab", "list", "--json"))
        return found


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Campaign]:
    python = os.environ.get("ACTIVELEARNING_GPAW_PYTHON")
    if not python or not Path(python).is_file():
        pytest.fail("ACTIVELEARNING_GPAW_PYTHON must name a Python with GPAW; `make test-slurm` makes one")
    made = Campaign(tmp_path, python)
    yield made
    if made.process is not None and made.process.poll() is None:  # a test that failed
        made.process.kill()
        made.process.wait()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        pytest.skip("no Chromium is installed")
    with chromium(binary, tmp_path / "profile") as opened:
        yield opened


def record_by_form(campaign: Campaign, page: Page, key: str, value: str, unit: str) -> None:
    """Serve the form, open the printed address, fill it in and send it."""
    command = [*COMMAND, "lab", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=campaign.folder, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            address = re.search(r"http://\S+", server.stdout.readline())
            assert address is not None
            page.open(address[0])
            page.click(f"a[href='/requests/{key}']")
            page.type("#value", value)
            page.choose("#unit", unit)
            page.type("#method", "impedance")
            page.click("#record button")
            assert "The result is recorded" in page.text
        finally:
            server.send_signal(signal.SIGINT)
        server.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.gpaw
@pytest.mark.browser
@pytest.mark.timeout(3600)
def test_killed_at_every_stage_nothing_is_lost_or_done_twice(campaign: Campaign, page: Page) -> None:
    dynamics = campaign.dft.with_name("md")
    campaign.kill_when("the first job", campaign.jobs)
    campaign.kill_when(
        "a request to the laboratory", lambda: kill_harness.tables(campaign.store)["lab_requests"]
    )
    # A node that is lost takes the command and its job: the job is tried again, and both attempts are paid.
    campaign.kill_when("a running job", campaign.running)
    lost = campaign.lose_a_job()
    campaign.kill_when("a checkpoint of dynamics", lambda: [*dynamics.glob("*/*/checkpoint.npz")])
    campaign.kill_when("a proposal", campaign.says_anew("round 1: propose"))
    while "at dft" in campaign.waits_for():
        time.sleep(1.0)

    asked = kill_harness.tables(campaign.store)["evaluations"]
    keys = [row["key"] for row in asked if row["fidelity"] == "lab" and row["round"] == 0]
    first, second, third, fourth = sorted(keys, key=campaign.is_stable)
    # The one that is recorded as the best conductor does not keep the constraint; the worst does.
    stable = {key for key in keys if campaign.is_stable(key)}
    assert first not in stable
    assert fourth in stable
    campaign.tell("lab", "record", first[:12], "--value", "3.2e-4", "--unit", "S/cm", "--std", "4e-5")
    campaign.kill_when("the answer of a command", campaign.says_anew(f"lab {first[:8]} -3.495"))
    campaign.tell("lab", "export", "--out", "requests.csv")
    table = campaign.folder / "requests.csv"
    rows = list(csv.DictReader(table.open(newline="")))
    waiting = {row["key"] for row in rows}
    assert waiting >= {second, third, fourth}
    assert first not in waiting
    for row in rows:
        if row["key"] == second:
            row |= {"value": "<1e-8", "unit": "S/cm", "method": "impedance"}
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert "Recorded 1 result" in campaign.tell("lab", "import", "requests.csv")
    campaign.kill_when("the answer of a table", campaign.says_anew(f"lab {second[:8]} ≤ -8"))
    record_by_form(campaign, page, third, "-5.25", "log10(S/cm)")
    record_by_form(campaign, page, fourth, "7.9e-4", "mS/cm")
    end = time.monotonic() + 900
    while (code := campaign.run()) == WAITING:
        # What the round after the initial design asked of the laboratory can't be made.
        for request in campaign.requests():
            campaign.tell("lab", "reject", request["key"], "--reason", "it does not form")
        assert time.monotonic() < end, campaign.said()
        time.sleep(1.0)
    assert code == 0, campaign.said()
    assert campaign.run() == 0  # nothing is left to do

    four_fidelities.check_ledger(campaign.store, TOTAL)
    four_fidelities.check_jobs(campaign.store, campaign.dft / "jobs", price=PRICE, killed={lost})
    tables = kill_harness.tables(campaign.store)
    measured = {row["evaluation_key"]: row for row in tables["measurements"]}
    assert measured[first]["value"] == pytest.approx(math.log10(3.2e-4))
    assert measured[first]["std"] == pytest.approx(4e-5 / 3.2e-4 / math.log(10))
    assert (measured[second]["value"], measured[second]["censoring"]) == (pytest.approx(-8.0), "upper")
    assert measured[third]["value"] == -5.25
    assert measured[fourth]["value"] == pytest.approx(math.log10(7.9e-7))
    evaluations = tables["evaluations"]
    assert {row["fidelity"] for row in evaluations} == {"proxy", "md", "dft", "lab"}
    assert {row["key"] for row in evaluations if row["fidelity"] == "lab"} == {
        row["key"] for row in tables["lab_requests"]
    }
    status = json.loads(campaign.tell("status", NAME, "--json"))
    assert (status["state"], status["budget"]["reserved"]) == ("finished", 0.0)
    assert status["best"]["value"] == pytest.approx(
        max(measured[key]["value"] for key in stable if measured[key]["censoring"] == "none")
    )


def signal_session(pid: int, number: int) -> None:
    """Signal a job's script and all that it started."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(status.parent.name), number)
