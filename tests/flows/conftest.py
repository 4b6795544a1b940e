"""Small campaigns for the flows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from activelearning.campaign.config import CampaignConfig, parse_config
from activelearning.campaign.engine import Engine
from activelearning.campaign.evaluation import Observer


@pytest.fixture
def tiny() -> Callable[..., CampaignConfig]:
    """Config of a small campaign; keywords replace its keys."""

    def make(**keys: Any) -> CampaignConfig:
        config: dict[str, Any] = {
            "name": "Tiny_1.Branin",
            "space": {"type": "box", "bounds": [[-5, 10], [0, 15]]},
            "objective": {"property": "branin", "direction": "minimize"},
            "fidelities": [
                {
                    "name": "low",
                    "oracle": "function",
                    "cost": 0.1,
                    "params": {"function": "branin", "fidelity": "low"},
                },
                {
                    "name": "high",
                    "oracle": "function",
                    "cost": 1,
                    "target": True,
                    "params": {"function": "branin"},
                },
            ],
            "sampler": {"type": "random"},
            "acquisition": {"type": "random", "mode": "random", "batch_size": 4, "pool_size": 16},
            "initial_design": {"per_fidelity": {"low": 3, "high": 2}},
            "budget": {"total": 20, "per_round": 3},
            "stopping": {"max_rounds": 2},
        }
        return parse_config({**config, **keys})

    return make


@pytest.fixture
def open_engine(tmp_path: Path) -> Callable[..., Engine]:
    """Open a campaign in a store of the test's own."""

    def open_(config: CampaignConfig, observer: Observer | None = None, store: str = "store") -> Engine:
        return Engine.open(
            config, folder=tmp_path, store=f"sqlite:///{tmp_path}/{store}.db", observer=observer
        )

    return open_
