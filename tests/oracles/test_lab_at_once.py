"""Several people who record at the same moment, in both kinds of store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from lab_cases import KEYS

from activelearning.candidate import BoxCandidate
from activelearning.contracts.oracle import OracleContext
from activelearning.store.database import Database, open_database
from activelearning.store.repository import Repository
from oracles.lab import LabOracle, NewResult, RefusedError, Unrequested, list_requests, record_all

POINT = BoxCandidate((0.25, 0.75))
CAMPAIGN: dict[str, Any] = {
    "name": "search",
    "space": {"type": "box", "bounds": [[0, 1], [0, 1]]},
    "objective": {"property": "y"},
    "fidelities": [{"name": "lab", "oracle": "lab", "cost": 1, "target": True}],
    "budget": {"total": 10},
}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A store with a campaign that states no unit."""
    is_postgres = request.param == "postgres"
    url = request.getfixturevalue("postgres_url") if is_postgres else f"sqlite:///{tmp_path}/lab.db"
    opened = open_database(url, create=True)
    Repository(opened, "search").save(CAMPAIGN, str(tmp_path), str(tmp_path / "artifacts"))
    yield opened
    opened.close()


def at_once(works: list[Callable[[], list[str]]]) -> list[list[str] | RefusedError]:
    """What each gives, or is refused with, all begun together."""
    barrier = Barrier(len(works))

    def begin(work: Callable[[], list[str]]) -> list[str] | RefusedError:
        barrier.wait(60)
        try:
            return work()
        except RefusedError as error:
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(begin, works))


def test_a_form_sent_several_times_at_once_is_recorded_once(database: Database) -> None:
    for once in ("first", "second", "third"):
        result = NewResult(Unrequested(POINT.to_dict(), "search", once=once), -3.0)
        keys = at_once([lambda result=result: record_all(database, [result])] * 4)  # type: ignore[misc]
        assert keys == [keys[0]] * 4
    requests = list_requests(database, state=None)
    assert [len(request["results"]) for request in requests] == [1, 1, 1]


def test_of_two_units_at_once_one_is_refused(database: Database, tmp_path: Path) -> None:
    for number in range(3):
        fidelity = f"lab {number}"
        lab = LabOracle()
        lab.bind(OracleContext("search", fidelity, "y", None, 1.0, database.text, tmp_path))
        keys = [f"{number}{key[1:]}" for key in KEYS]
        for key in keys:
            lab.submit(POINT, key)
        units = ("mS/cm", "S/cm", "uS/cm")
        results = [NewResult(key, 0.5, unit=unit) for key, unit in zip(keys, units, strict=True)]
        found = at_once([lambda result=result: record_all(database, [result]) for result in results])  # type: ignore[misc]
        assert sum(isinstance(one, RefusedError) for one in found) == 2
        answered = [r for r in list_requests(database, state="answered") if r["fidelity"] == fidelity]
        assert len(answered) == 1
