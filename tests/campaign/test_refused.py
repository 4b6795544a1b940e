"""A refused config leaves nothing behind: no store, no folder of files, no lock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from activelearning.errors import ActiveLearningError, ConfigError, StoreError

ORACLES = """
from activelearning.errors import ConfigError
from oracles import Oracle, QueuedOracle


class Fine(Oracle):
    def evaluate_one(self, candidate):
        return 1.0


class Made(Fine):
    def __init__(self):
        raise RuntimeError("no licence")


class Bound(Fine):
    def bind(self, context):
        raise ConfigError("answers in K only.")


class Checked(Fine):
    def check(self):
        raise ConfigError("weights are missing.")


class Crashing(Fine):
    def check(self):
        raise KeyError("weights")


class Contents(Fine):
    def content(self):
        return {"weights": object()}


class Halfway(QueuedOracle):
    def submit(self, candidate, key):
        return key


class NoOracle:
    pass


no_class = 3
"""

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"sampler.type": "gflownet", "sampler.loss": "forward_looking"}, r"partial\(states\)\. Take sub_traj"),
    ({"space.type": "bx"}, r"no space named 'bx'\. Did you mean 'box'\?"),
    ({"space.bounds": [[1, 0]]}, r"space.*bounds"),
    ({"space.bouns": 1}, r"unknown key 'space\.bouns'; did you mean 'bounds'\?"),
    ({"sampler.type": "gfn"}, "no sampler named 'gfn'"),
    ({"sampler": {"type": "gflownet", "stps": 1}}, r"unknown key 'sampler\.stps'; did you mean 'steps'\?"),
    ({"surrogate.max_iterations": 0}, "max_iterations"),
    ({"surrogate.max_iteration": 3}, "did you mean 'max_iterations'"),
    ({"acquisition.type": "ei"}, "no acquisition named 'ei'"),
    ({"fidelities.0.oracle": "absent"}, "no oracle named 'absent'"),
    ({"fidelities.0.oracle": "faulty.py:Absent"}, "has no class 'Absent'"),
    ({"fidelities.0.oracle": "faulty.py:no_class"}, "must be a class"),
    ({"fidelities.0.oracle": "faulty.py:NoOracle"}, r"fidelities\.low\.oracle: .* subclass oracles\.Oracle"),
    ({"fidelities.0.oracle": "faulty.py:Made"}, "RuntimeError: no licence"),
    ({"fidelities.0.oracle": "faulty.py:Bound"}, r"fidelities\.low: answers in K only"),
    ({"fidelities.0.oracle": "faulty.py:Checked"}, r"fidelities\.low: weights are missing"),
    ({"fidelities.0.oracle": "faulty.py:Crashing"}, "fails its own check: KeyError: 'weights'"),
    ({"fidelities.0.oracle": "faulty.py:Contents"}, "the content .* is no JSON"),
    ({"fidelities.0.oracle": "faulty.py:Halfway"}, "Halfway"),
    ({"fidelities.0.params": {"steps": 3}}, r"unknown key 'fidelities\.low\.params\.steps'"),
    ({"initial_design": {"per_fidelity": {"high": 9}}}, r"costs 9 in all, but budget\.total is 6"),
    ({"initial_design": {"observations": "absent.csv"}}, "absent.csv.*can't be read"),
    ({"artifacts": "s3://bucket/campaigns"}, "artifacts: 's3://bucket/campaigns' is not a folder"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_a_refused_config_leaves_nothing_behind(bench: Any, changes: dict[str, Any], message: str) -> None:
    bench.write("faulty.py", ORACLES)
    before = {path.name for path in bench.folder.iterdir()}
    with pytest.raises(ActiveLearningError, match=message) as caught:
        bench.open(bench.config(changes))
    assert caught.value.exit_code == 2
    assert {path.name for path in bench.folder.iterdir()} - before <= {"__pycache__"}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:////no/such/folder/store.db", "the folder /no/such/folder does not exist"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("mysql://localhost/x", "is not supported: use SQLite or PostgreSQL"),
        ("campaigns.db", "is no database URL"),
        (
            "postgresql://nobody:secret@127.0.0.1:1/none",
            r"nobody:\*\*\*@127\.0\.0\.1:1/none can't be reached",
        ),
    ],
)
def test_a_store_that_cannot_be_had(bench: Any, url: str, message: str) -> None:
    before = {path.name for path in bench.folder.iterdir()}
    with pytest.raises(StoreError, match=message) as caught:
        bench.open(bench.config(), store=url)
    assert "secret" not in str(caught.value)
    assert {path.name for path in bench.folder.iterdir()} == before


def test_a_folder_is_no_store(bench: Any) -> None:
    with pytest.raises(StoreError, match="is a folder; name a file in it"):
        bench.open(bench.config(), store=f"sqlite:///{bench.folder}")


def test_artifacts_may_be_a_file_url(bench: Any) -> None:
    with bench.open(bench.config(artifacts=f"file://{bench.folder / 'files'}")) as engine:
        assert engine.artifacts == bench.folder / "files" / "small"


def test_an_accepted_config_makes_the_store(bench: Any) -> None:
    bench.open(bench.config()).close()
    assert (bench.folder / "store.db").is_file()
    assert bench.rows("SELECT name, state FROM campaigns") == [{"name": "small", "state": "running"}]


def test_a_design_that_asks_nothing_is_refused(bench: Any) -> None:
    # The target alone is dearer than the share, and the cheaper fidelity too.
    config = bench.config({"initial_design": {"share": 1e-9}, "budget.total": 6.0})
    with bench.open(config) as engine:
        assert engine.round == 0  # the target is asked once all the same, since the whole budget pays for it
    with pytest.raises(ConfigError, match="must be positive"):
        bench.config({"initial_design": {"per_fidelity": {"low": 0, "high": 0}}})


def test_the_folder_of_a_relative_store_is_the_working_directory(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any
) -> None:
    here: Path = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    bench.open(bench.config(), store="sqlite:///relative.db").close()
    assert (here / "relative.db").is_file()
