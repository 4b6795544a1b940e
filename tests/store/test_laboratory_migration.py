"""Revision 0003: what a laboratory had recorded before is its requests' first result afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from activelearning.store.database import MIGRATIONS, Database, open_database, resolve_url
from oracles.lab import list_requests, record

_REQUEST = (
    "INSERT INTO lab_requests (key, campaign, fidelity, property, unit, candidate, state, created_at) "
    "VALUES (:key, 'c', 'lab', 'y', 'S/cm', '{}', :state, '2026-01-01')"
)
_RESULT = (
    "INSERT INTO lab_results (key, value, std, unit, censoring, method, recorded_by, cost, recorded_at) "
    "VALUES (:key, 0.002, 0.001, 'mS/cm', 'upper', 'impedance', 'me', 3.5, '2026-01-02')"
)


def _move(database: Database, revision: str, *, up: bool = True) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database._writers.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        (command.upgrade if up else command.downgrade)(config, revision)


def _up_and_down(url: str) -> None:
    database = Database(resolve_url(url))
    _move(database, "0002")
    with database.write() as session:
        for key, state in (("a" * 64, "answered"), ("b" * 64, "open")):
            session.execute(text(_REQUEST), {"key": key, "state": state})
        session.execute(text(_RESULT), {"key": "a" * 64})
    _move(database, "0003")
    database.close()

    database = open_database(url)
    answered, waiting = list_requests(database, state=None)
    assert (answered["origin"], answered["state"], answered["closed_at"]) == (
        "campaign",
        "answered",
        "2026-01-02",
    )
    (result,) = answered["results"]
    assert (result["number"], result["value"], result["std"], result["unit"]) == (1, 0.002, 0.001, "mS/cm")
    assert (result["censoring"], result["method"], result["recorded_by"]) == ("upper", "impedance", "me")
    assert (waiting["state"], waiting["results"], waiting["closed_at"]) == ("open", [], None)
    record(database, "a" * 64, 4.0, unit="mS/cm", corrects=1)
    record(database, "a" * 64, 6.0, unit="mS/cm", is_replicate=True)
    _move(database, "0002", up=False)
    with database.read() as session:
        rows = session.execute(text("SELECT key, value FROM lab_results")).all()
    assert [tuple(row) for row in rows] == [("a" * 64, 6.0)]  # one result a request, the newest
    database.close()


def test_on_sqlite(tmp_path: Path) -> None:
    _up_and_down(f"sqlite:///{tmp_path}/store.db")


@pytest.mark.postgres
def test_on_postgresql(postgres_url: str) -> None:
    _up_and_down(postgres_url)
