"""The laboratory's form in a real Chromium, served by the command; the campaign is killed and resumed in between."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from chromium import Page, chromium
from kill_harness import in_child

from activelearning.campaign.config import parse_config
from activelearning.campaign.engine import Engine
from activelearning.campaign.tick import run, tick
from activelearning.store.database import open_database
from oracles.lab import list_requests, read_request

CONFIG: dict[str, Any] = {
    "name": "search",
    "space": {"type": "box", "bounds": [[0, 1], [0, 1]]},
    "objective": {"property": "log10_conductivity", "unit": "log10(S/cm)"},
    "fidelities": [{"name": "lab", "oracle": "lab", "cost": 1.0, "target": True}],
    "sampler": {"type": "random"},
    "acquisition": {"type": "random", "batch_size": 2, "pool_size": 16},
    "initial_design": {"per_fidelity": {"lab": 3}},
    # Pays for the initial design, and for no round after it.
    "budget": {"total": 3.5},
}


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        pytest.skip("no Chromium is installed")
    with chromium(binary, tmp_path / "profile") as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> str:
    """URL of a store with a campaign that waits for its laboratory."""
    url = f"sqlite:///{tmp_path}/store.db"
    with Engine.open(parse_config(CONFIG), folder=tmp_path, store=url) as engine:
        assert run(engine).action == "waiting"
    return url


@pytest.fixture
def address(store: str) -> Iterator[str]:
    """What `activelearning lab serve` prints."""
    command = [
        sys.executable,
        "-m",
        "activelearning.cli.main",
        "lab",
        "serve",
        "--port",
        "0",
        "--store",
        store,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found is not None
        yield found[0]
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=120) in (0, -signal.SIGINT, 130)


@pytest.fixture
def elsewhere() -> Iterator[ThreadingHTTPServer]:
    """Another site, whose page sends what its `body` attribute is set to."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(self.server.page)  # type: ignore[attr-defined]

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.browser
def test_results_come_by_the_browser_into_a_campaign_that_is_killed(
    page: Page, store: str, address: str, tmp_path: Path
) -> None:
    database = open_database(store)
    first, second, third = [request["key"] for request in list_requests(database)]
    page.open(address)
    # The token is gone from the address bar, and so from history and links.
    assert "token" not in page.address
    assert page.text.count("log10_conductivity") == 3
    page.click(f"a[href='/requests/{first}']")
    assert first in page.text
    assert "1 of 3" in page.text or "priority" in page.text

    # A slip of the hand is told, and what was typed is still there.
    page.type("#value", "0.00032")
    page.type("#method", "impedance, 25 °C")
    page.click("#record button")
    assert "without a unit" in page.text
    assert page.evaluate("document.querySelector('#method').value") == "impedance, 25 °C"
    page.choose("#unit", "S/cm")
    raw = tmp_path / "arc 1.mpt"
    raw.write_bytes(b"\x00\r\n--raw\xff")
    page.attach("#file", raw)
    page.click("#record button")
    assert "The result is recorded" in page.text
    (result,) = read_request(database, first)["results"]
    assert (result["value"], result["unit"], result["method"]) == (3.2e-4, "S/cm", "impedance, 25 °C")
    kept = tmp_path / "artifacts" / "search" / result["files"][0]["path"]
    assert kept.read_bytes() == raw.read_bytes()

    def kill_at(event: str) -> None:
        def work() -> None:
            def observe(what: str, _facts: Mapping[str, Any]) -> None:
                if what == event:
                    os.kill(os.getpid(), signal.SIGKILL)

            with Engine.open(parse_config(CONFIG), folder=tmp_path, store=store, observer=observe) as engine:
                tick(engine)

        assert os.WIFSIGNALED(in_child(work))

    kill_at("evaluation.succeeded")
    page.choose("#kind", "1")
    page.type("#value", "3.2e-3")
    page.choose("#unit", "S/cm")
    page.click("#record button")
    assert "corrected by 2" in page.text
    page.open(address.split("?")[0] + f"requests/{second}")
    page.type("#reason", "explosive <script>alert(1)</script>")
    page.click("#reject button")
    assert "The request is rejected" in page.text
    assert "<script>alert(1)</script>" in page.text  # as text
    page.open(address.split("?")[0] + "import")
    table = tmp_path / "lab.csv"
    table.write_text(f"key,value,unit\n{third},<1e-10,S/cm\n")
    page.attach("#table", table)
    page.click("form button")
    assert "1 results are recorded" in page.text
    kill_at("evaluation.amended")
    with Engine.open(parse_config(CONFIG), folder=tmp_path, store=store) as engine:
        with engine.lease():
            engine.reconcile()
            engine.ingest()
        rows = {row.key: row.state for row in engine.repository.evaluations()}
        observed = sorted((round(o.value, 3), o.censoring.value) for o in engine._observations())
        assert engine.balance().reserved == 0.0
    assert rows == {first: "succeeded", second: "failed", third: "succeeded"}
    assert observed == [(-10.0, "upper"), (-2.495, "none")]
    database.close()


@pytest.mark.browser
def test_another_site_can_change_nothing(
    page: Page, store: str, address: str, elsewhere: ThreadingHTTPServer
) -> None:
    database = open_database(store)
    before = list_requests(database, state=None)
    key = before[0]["key"]
    home = address.split("?")[0]
    page.open(home)
    assert "Token" in page.text
    assert key not in page.text
    page.open(address)
    # The victim is logged in; the other site (of another port, and so of the same "site" for cookies) sends a form.
    action = f"{home}requests/{key}/results"
    elsewhere.page = (  # type: ignore[attr-defined]
        f'<form method="post" enctype="multipart/form-data" action="{action}"><input name="value" value="-1">'
        f'<input name="n_seen" value="0"><button>Win</button></form>'
    ).encode()
    port = elsewhere.server_address[1]
    page.open(f"http://127.0.0.1:{port}/")
    page.click("button")
    assert page.address == action
    assert "sent from another site" in page.text
    # Nor can it look: a frame shows nothing, and what a script fetches it may not read.
    page.open(f"http://127.0.0.1:{port}/")
    found = page.call(
        "Runtime.evaluate",
        expression=f"fetch('{home}', {{credentials: 'include'}}).then(r => r.text()).catch(() => 'refused')",
        awaitPromise=True,
        returnByValue=True,
    )
    assert found["result"]["value"] == "refused"
    assert list_requests(database, state=None) == before
    database.close()
