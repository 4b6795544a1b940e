"""A small run of sampling by density, quick enough to be made again and again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

SMALL: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "space": {
        "type": "crystal",
        "elements": ["Li", "O", "Fe"],
        "space_groups": [2, 12, 62, 139, 166, 194, 225],
        "n_elements": [2, 3],
        "max_atoms": 12,
    },
    "objective": {"property": "density", "unit": "g/cm3"},
    "reward": {"beta": 2.0},
    "sampler": {"type": "gflownet", "steps": 23, "batch_size": 16, "hidden": [32, 32], "n_components": 4},
}


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[..., Path]:
    """Write the small config, changed by a function."""

    def write(change: Callable[[dict[str, Any]], object] = lambda _: None, name: str = "small.yaml") -> Path:
        config = yaml.safe_load(yaml.safe_dump(SMALL))
        change(config)
        path = tmp_path / name
        path.write_text(yaml.safe_dump(config))
        return path

    return write
