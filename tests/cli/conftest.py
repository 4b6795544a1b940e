"""A way to run commands in process, and a small real campaign to read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml


@dataclass(frozen=True)
class Ran:
    """A command that was run."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run `activelearning` with arguments, in this process."""
    monkeypatch.delenv("ACTIVELEARNING_DEBUG", raising=False)

    def invoke(*arguments: object) -> Ran:
        from activelearning.cli.main import invoke as invoke_command

        capfd.readouterr()
        code = invoke_command([str(argument) for argument in arguments])
        said = capfd.readouterr()
        return Ran(code, said.out, said.err)

    return invoke


TINY: dict[str, Any] = {
    "name": "tiny",
    "space": {"type": "box", "bounds": [[-5, 10], [0, 15]]},
    "objective": {"property": "branin", "direction": "minimize"},
    "fidelities": [
        {
            "name": "low",
            "oracle": "function",
            "cost": 0.1,
            "params": {"function": "branin", "fidelity": "low"},
        },
        {"name": "high", "oracle": "function", "cost": 1, "target": True, "params": {"function": "branin"}},
    ],
    "sampler": {"type": "random"},
    "acquisition": {"type": "random", "mode": "random", "batch_size": 4, "pool_size": 16},
    "initial_design": {"per_fidelity": {"low": 3, "high": 2}},
    "budget": {"total": 12, "per_round": 3},
    "stopping": {"max_rounds": 2},
}


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[..., Path]:
    """Write the small campaign's config, changed by a function."""

    def write(change: Callable[[dict[str, Any]], object] = lambda _: None, name: str = "tiny.yaml") -> Path:
        config = json.loads(json.dumps(TINY))
        change(config)
        path = tmp_path / name
        path.write_text(yaml.safe_dump(config))
        return path

    return write


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of a store with the small campaign, run to its end by the engine alone."""
    from activelearning.campaign.config import parse_config
    from activelearning.campaign.engine import Engine
    from activelearning.campaign.tick import run as run_engine

    folder = tmp_path_factory.mktemp("finished")
    url = f"sqlite:///{folder}/store.db"
    with Engine.open(parse_config(TINY), folder=folder, store=url) as engine:
        run_engine(engine)
    return url
