"""The lease: one process at a time runs a campaign's steps, and a dead one is in nobody's way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from activelearning.errors import LeaseHeldError
from activelearning.store import workers
from activelearning.store.database import Database, open_database
from activelearning.store.models import Lease, Worker
from activelearning.store.repository import Repository
from activelearning.store.workers import WorkerRegistration, is_alive

HOLDER = """
import sys, time
from activelearning.store.database import open_database
from activelearning.store.workers import WorkerRegistration
worker = WorkerRegistration(open_database(sys.argv[1]))
with worker.lease("c"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store with a campaign."""
    found = f"sqlite:///{tmp_path / 'store.db'}"
    database = open_database(found, create=True)
    Repository(database, "c").save({}, "", "")
    database.close()
    return found


def _holder(url: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def _write(database: Database, statement: str) -> None:
    with database.write() as session:
        session.execute(text(statement))


def test_a_live_process_keeps_it_and_a_dead_one_loses_it_at_once(url: str) -> None:
    process = _holder(url)
    database = open_database(url)
    mine = WorkerRegistration(database)
    try:
        with (
            pytest.raises(LeaseHeldError, match=f"'c' is being run by process {process.pid} on "),
            mine.lease("c"),
        ):
            pass
        # Stopped is not dead: its heartbeat has not lapsed yet.
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(LeaseHeldError), mine.lease("c"):
            pass
        process.kill()
        process.wait()
        begin = time.monotonic()
        with mine.lease("c"):
            assert time.monotonic() - begin < workers.LAPSE_SECONDS / 3
            with database.read() as session:
                assert session.get_one(Lease, "c").worker == mine.id
    finally:
        process.kill()
        process.wait()
        mine.close()
        database.close()


def test_it_is_given_back_and_can_be_taken_again(url: str) -> None:
    database = open_database(url)
    one, two = WorkerRegistration(database), WorkerRegistration(database)
    with one.lease("c"):
        pass
    with two.lease("c"), pytest.raises(LeaseHeldError), one.lease("c"):
        pass
    with pytest.raises(RuntimeError, match="step failed"), one.lease("c"):
        raise RuntimeError("step failed")
    with two.lease("c"):
        pass
    one.close()
    two.close()
    with database.read() as session:
        assert session.query(Lease).count() == session.query(Worker).count() == 0
    database.close()


def test_a_heartbeat_that_lapsed_loses_it(url: str) -> None:
    database = open_database(url)
    one, two = WorkerRegistration(database), WorkerRegistration(database)
    with one.lease("c"):
        _write(database, f"UPDATE workers SET heartbeat = heartbeat - 25 WHERE id = '{one.id}'")
        with pytest.raises(LeaseHeldError), two.lease("c"):
            pass
        _write(database, f"UPDATE workers SET heartbeat = heartbeat - 6 WHERE id = '{one.id}'")
        with two.lease("c"):
            with pytest.raises(LeaseHeldError, match="was taken over"), database.write() as session:
                one.check_lease(session, "c")
            with database.write() as session:
                two.check_lease(session, "c")
            # It lives after all, and says so again: its claims are its own.
            one.beat()
            with database.read() as session:
                assert is_alive(session.get(Worker, one.id))
    # Its own end does not take what is another's by now.
    with two.lease("c"):
        one.close()
        with database.write() as session:
            two.check_lease(session, "c")
    two.close()
    database.close()


def test_a_process_elsewhere_is_judged_by_its_heartbeat(url: str) -> None:
    database = open_database(url)
    mine = WorkerRegistration(database)
    now = time.time()
    columns = "id, host, pid, process_started, heartbeat"
    _write(
        database, f"INSERT INTO workers ({columns}) VALUES ('far', 'another-host', {os.getpid()}, '', {now})"
    )
    _write(database, "INSERT INTO leases VALUES ('c', 'far')")
    with pytest.raises(LeaseHeldError, match="on another-host"), mine.lease("c"):
        pass
    _write(database, f"UPDATE workers SET heartbeat = {now - workers.LAPSE_SECONDS - 1} WHERE id = 'far'")
    with mine.lease("c"):
        pass
    mine.close()
    database.close()


def test_a_process_number_given_anew_is_another_process(url: str) -> None:
    """The number of a dead process may be a living one's by now."""
    database = open_database(url)
    mine = WorkerRegistration(database)
    with database.read() as session:
        me = session.get_one(Worker, mine.id)
        assert is_alive(me)
        stranger = Worker(id="x", host=me.host, pid=me.pid, process_started="1", heartbeat=time.time())
        assert not is_alive(stranger)
        assert not is_alive(None)
    mine.close()
    database.close()


def test_the_heartbeat_beats(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "HEARTBEAT_SECONDS", 0.05)
    database = open_database(url)
    mine = WorkerRegistration(database)
    _write(database, "UPDATE workers SET heartbeat = 0")
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with database.read() as session:
            if is_alive(session.get(Worker, mine.id)):
                break
        time.sleep(0.05)
    else:
        pytest.fail("no beat in 20 s")
    mine.close()
    database.close()
