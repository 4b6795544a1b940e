"""`plugins`, `schema`, `doctor`, `db upgrade`, `--version`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from activelearning.campaign.config import DEFAULT_STORE
from activelearning.campaign.shipped import shipped_configs
from activelearning.cli import common
from activelearning.cli.doctor import ROOMS, examine
from activelearning.contracts.registry import GROUPS, plugin_names

Run = Callable[..., Any]


def test_version(run: Run) -> None:
    assert run("--version").out == f"activelearning {version('activelearning')}\n"


def test_reading_commands_know_the_configs_default_store() -> None:
    assert common.DEFAULT_STORE == DEFAULT_STORE


def test_plugins_lists_every_entry_point_with_its_first_line(run: Run) -> None:
    found = run("plugins", "--json").json
    expected = [(group, name) for group in GROUPS for name in plugin_names(group)]
    assert [(p["group"], p["name"]) for p in found] == expected
    assert all(list(p) == ["group", "name", "class", "doc"] for p in found)
    (function,) = [p for p in found if p["name"] == "function"]
    assert function["class"] == "oracles.function:FunctionOracle"
    assert function["doc"].startswith("An analytic function of box candidates")
    text = run("plugins").out.splitlines()
    assert text[0].split() == ["group", "name", "doc"]
    assert len(text) == len(found) + 1


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    from activelearning.cli.schema import config_schema

    schema = json.loads(json.dumps(config_schema()))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.fixture(scope="module")
def sample_validator() -> Draft202012Validator:
    from activelearning.cli.schema import sample_schema

    schema = json.loads(json.dumps(sample_schema()))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_schemas_accept_every_shipped_config(
    validator: Draft202012Validator, sample_validator: Draft202012Validator
) -> None:
    for name, path in shipped_configs().items():
        config = yaml.safe_load(path.read_text())
        of_its_kind = validator if "budget" in config else sample_validator
        errors = [error.message for error in of_its_kind.iter_errors(config)]
        assert not errors, (name, errors)


@pytest.mark.parametrize(
    "change",
    [
        {"reward": {"type": "target"}},
        {"reward": {"type": "exponential", "betta": 1.0}},
        {"reward": {"beta": "much"}},
        {"sampler": {"type": "gflownet", "stepps": 3}},
        {"fidelities": [{"oracle": "density", "params": {"scala": 1.0}}]},
        {"rewards": {}},
    ],
)
def test_schema_of_sampling_refuses_what_the_config_refuses(
    sample_validator: Draft202012Validator, change: dict[str, Any]
) -> None:
    config = {
        "name": "small",
        "space": {"type": "crystal", "elements": ["Li", "O"]},
        "objective": {"property": "density"},
        "reward": {"beta": 2.0},
    }
    assert sample_validator.is_valid(config)
    assert not sample_validator.is_valid({**config, **change})


def test_schema_accepts_the_small_campaign_and_classes_of_ones_own(
    validator: Draft202012Validator, write_config: Callable[..., Path]
) -> None:
    assert validator.is_valid(yaml.safe_load(write_config().read_text()))

    def own(config: dict[str, Any]) -> None:
        config["sampler"] = {"type": "mine.py:Mine", "whatever": 3}
        config["fidelities"][0].update(oracle="package.module:Mine", params={"whatever": 3})

    assert validator.is_valid(yaml.safe_load(write_config(own).read_text()))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(budgt={"total": 3}),
        lambda c: c.pop("space"),
        lambda c: c["space"].update(type="boks"),
        lambda c: c["space"].update(bonds=[[0, 1]]),
        lambda c: c["space"].pop("type"),
        lambda c: c["sampler"].update(type="gflownet", nonsense=1),
        lambda c: c["fidelities"][0]["params"].update(fidelty="low"),
        lambda c: c["fidelities"][0].update(cost=0),
        lambda c: c["fidelities"][0].update(oracle="nonsense"),
        lambda c: c["acquisition"].update(batch_size="many"),
    ],
)
def test_schema_refuses_what_the_config_refuses(
    validator: Draft202012Validator, write_config: Callable[..., Path], change: Callable[[Any], object]
) -> None:
    assert not validator.is_valid(yaml.safe_load(write_config(change).read_text()))


def test_schema_is_printed(run: Run) -> None:
    schema = run("schema").json
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert set(schema["required"]) == {"name", "space", "fidelities", "budget"}
    assert schema["oneOf"] == [{"required": ["objective"]}, {"required": ["objectives"]}]
    of_sampling = run("schema", "--sample").json
    assert {"reward", "restrict", "objectives", "base"} <= set(of_sampling["properties"])


def test_doctor_finds_this_installation_whole(tmp_path: Path, prefect_harness: None) -> None:
    findings = {f.what: f for f in examine(f"sqlite:///{tmp_path}/new.db")}
    broken = [f"{f.what}: {f.says}" for f in findings.values() if f.is_broken]
    assert not broken
    assert findings["torch"].says == version("torch")
    assert "can be created" in findings["store"].says
    assert {f"package {room}" for room in ROOMS} <= set(findings)
    assert list(tmp_path.iterdir()) == []


def test_doctor_exits_with_1_where_something_is_broken(
    run: Run, tmp_path: Path, prefect_harness: None
) -> None:
    ran = run("doctor", "--json", "--store", f"sqlite:///{tmp_path}/nowhere/x.db")
    assert ran.code == 1
    (store,) = [f for f in ran.json if f["what"] == "store"]
    assert store["state"] == "broken"
    assert "does not exist" in store["says"]


def test_doctor_tells_a_foreign_package_that_hides_ours(tmp_path: Path) -> None:
    (tmp_path / "oracles").mkdir()
    (tmp_path / "oracles" / "__init__.py").write_text("")
    script = (
        "import json\nfrom activelearning.cli.doctor import _rooms\n"
        "print(json.dumps({f.what: [f.state, f.says] for f in _rooms()}))"
    )
    # `python -c` puts the working folder first on the path, as `python -m` does.
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    states = json.loads(ran.stdout)
    assert states["package oracles"][0] == "broken"
    assert str(tmp_path / "oracles") in states["package oracles"][1]
    assert states["package samplers"][0] == "ok"


def test_db_upgrade_of_a_store_that_is_up_to_date(run: Run, finished: str) -> None:
    ran = run("db", "upgrade", "--store", finished)
    assert ran.code == 0
    assert "has the schema" in ran.out
    assert run("status", "tiny", "--store", finished).code == 0
