"""The temporary server: it answers, is started again when it dies, and ends with its parent in whatever
way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from flows import server as servers
from flows.server import PrefectError, TemporaryServer, require_api

# Started one after the other, on one worker: each takes a few seconds of both cores.
pytestmark = pytest.mark.xdist_group("prefect")


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def answers(url: str) -> bool:
    return servers._answers(url, timeout=2.0)


def test_the_server_answers_comes_back_and_stops() -> None:
    with TemporaryServer() as server:
        url = server.wait()
        assert url.startswith("http://127.0.0.1:")
        first = server._process.pid
        os.kill(first, signal.SIGKILL)
        assert wait_until(lambda: server._process.pid != first)
        assert server.wait() == url
        second = server._process.pid
    assert not is_running(second)
    assert not answers(url)


def test_the_server_ends_with_a_killed_parent() -> None:
    script = (
        "import time\n"
        "from flows.server import TemporaryServer\n"
        "server = TemporaryServer()\n"
        "print(server._process.pid, server.wait(), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, url = parent.stdout.readline().split()
        assert answers(url)
        parent.kill()
    assert wait_until(lambda: not is_running(int(pid)), 30.0)
    assert not answers(url)


def test_a_server_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "sqlite+aiosqlite:////nowhere/at/all.db")
    with TemporaryServer() as server, pytest.raises(PrefectError, match=r"did not start.*PREFECT_API_URL"):
        server.wait()


def test_an_api_that_is_gone_is_noticed() -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        with pytest.raises(PrefectError, match="no server answers at"):
            require_api(patience=0.5)
        with pytest.raises(PrefectError, match="PREFECT_API_URL"):
            servers.check_api()
