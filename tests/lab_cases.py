"""A laboratory and what it is asked for, shared by the tests of the oracle and of its form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from activelearning.candidate import CrystalCandidate
from activelearning.contracts.oracle import OracleContext
from activelearning.store.database import Database, open_database
from oracles.lab import LabOracle

CRYSTAL = CrystalCandidate(225, {"Li": 4, "Cl": 4}, (5.14, 5.14, 5.14, 90, 90, 90))
KEYS = ["aa" + "0" * 62, "ab" + "1" * 62, "c" * 64]  # the first two begin alike


@contextmanager
def empty_store(folder: Path) -> Iterator[Database]:
    """A new store in a folder, closed at the end."""
    opened = open_database(f"sqlite:///{folder}/lab.db", create=True)
    try:
        yield opened
    finally:
        opened.close()


def laboratory(database: Database, workdir: Path) -> LabOracle:
    """The oracle of the campaign `search`, whose requests are in a store."""
    lab = LabOracle()
    lab.bind(
        OracleContext(
            campaign="search",
            fidelity="lab",
            property="log10_conductivity",
            unit="log10(S/cm)",
            cost=1000.0,
            store=database.text,
            workdir=workdir,
        )
    )
    return lab
