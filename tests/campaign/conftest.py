"""A small campaign on a box, its oracles plug-ins in files of the test's own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from activelearning.campaign.config import CampaignConfig, parse_config
from activelearning.campaign.engine import Engine
from activelearning.store.database import open_database
from activelearning.store.models import Evaluation
from activelearning.store.repository import Repository

BASE: dict[str, Any] = {
    "name": "small",
    "seed": 7,
    "space": {"type": "box", "bounds": [[0, 1], [0, 1]]},
    "objective": {"property": "y", "unit": "eV"},
    "fidelities": [
        {"name": "low", "oracle": "oracle.py:Low", "cost": 0.25},
        {"name": "high", "oracle": "oracle.py:High", "cost": 1.0, "target": True},
    ],
    "sampler": {"type": "random"},
    "surrogate": {"type": "multi_fidelity_gp", "max_iterations": 2},
    "acquisition": {"type": "random", "batch_size": 2, "pool_size": 16},
    "initial_design": {"per_fidelity": {"low": 2, "high": 1}},
    "budget": {"total": 6.0, "per_round": 2.0},
}

ORACLES = """
from oracles import Oracle


class Low(Oracle):
    def evaluate_one(self, candidate):
        return sum(candidate.values)


class High(Oracle):
    def evaluate_one(self, candidate):
        return -sum((v - 0.3) ** 2 for v in candidate.values)
"""


class Bench:
    """A folder with a config's plug-ins, and the store of its campaigns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = f"sqlite:///{folder / 'store.db'}"
        self.write("oracle.py", ORACLES)

    def write(self, name: str, source: str) -> Path:
        """Write a file of the config's folder."""
        path = self.folder / name
        path.write_text(source)
        return path

    def value(self, changes: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """The base config with dotted keys changed (`{"fidelities.1.cost": 2}`) and top-level keys replaced."""
        value = copy.deepcopy(BASE)
        for dotted, new in (changes or {}).items():
            *parents, last = dotted.split(".")
            here: Any = value
            for part in parents:
                here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
            if isinstance(here, list):
                here[int(last)] = new
            else:
                here[last] = new
        return {**value, **more}

    def config(self, changes: Mapping[str, Any] | None = None, **more: Any) -> CampaignConfig:
        """The base config, changed, parsed."""
        return parse_config(self.value(changes, **more))

    def open(self, config: CampaignConfig, **more: Any) -> Engine:
        """Open the campaign in the bench's store."""
        return Engine.open(config, folder=self.folder, **{"store": self.store, **more})

    def evaluations(self, campaign: str = "small") -> list[Evaluation]:
        """Rows of the store, in order."""
        database = open_database(self.store)
        try:
            return Repository(database, campaign).evaluations()
        finally:
            database.close()

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Rows of any query."""
        database = open_database(self.store)
        try:
            with database.read() as session:
                return [dict(row) for row in session.execute(text(query)).mappings()]
        finally:
            database.close()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench in a folder of the test's own."""
    return Bench(tmp_path)
