"""The config says what is wrong with it, by key, and with the key that was probably meant."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from activelearning.campaign.config import load_config, parse_config, read_yaml
from activelearning.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgte": {}}, r"unknown key 'budgte'; did you mean 'budget'\?"),
        ({"budget.totl": 3}, r"unknown key 'budget\.totl'; did you mean 'total'\?"),
        ({"fidelities.0.max_inflight": 3}, r"'fidelities\.0\.max_inflight'; did you mean 'max_in_flight'\?"),
        ({"objective.zzz": 3}, r"unknown key 'objective\.zzz'; known: direction, property, unit"),
        ({"stopping.max_round": 3}, r"did you mean 'max_rounds'\?"),
        ({"seed": "many"}, "'seed' is 'many': input should be a valid integer"),
        ({"seed": -1}, "'seed' is -1"),
        ({"fidelities.0.cost": "cheap"}, r"'fidelities\.0\.cost' is 'cheap'"),
        ({"fidelities.0.cost": 0}, r"'fidelities\.0\.cost' is 0: input should be greater than 0"),
        ({"fidelities.0.cost": -2.5}, r"'fidelities\.0\.cost' is -2\.5: input should be greater than 0"),
        ({"fidelities.0.cost": math.nan}, r"'fidelities\.0\.cost' is nan"),
        ({"fidelities.0.cost": math.inf}, r"'fidelities\.0\.cost' is inf"),
        ({"budget.total": math.inf}, r"'budget\.total' is inf"),
        ({"fidelities.0.timeout": 0}, r"'fidelities\.0\.timeout' is 0"),
        ({"fidelities.0.max_in_flight": 0}, r"'fidelities\.0\.max_in_flight' is 0"),
        ({"fidelities.0.charge": "guessed"}, r"'fidelities\.0\.charge' is 'guessed'.*'fixed' or 'measured'"),
        ({"objective.direction": "up"}, r"'objective\.direction' is 'up'.*'maximize' or 'minimize'"),
        ({"acquisition.mode": "both"}, r"'acquisition\.mode' is 'both'"),
        ({"fidelities": []}, "'fidelities' is"),
        ({"fidelities": "proxy"}, "'fidelities' is 'proxy'"),
        ({"space": "box"}, "'space' is 'box'"),
        ({"space": {"bounds": [[0, 1]]}}, r"the key 'space\.type' is missing"),
        ({"name": "a campaign"}, "'name' is 'a campaign'"),
        ({"name": "../etc"}, "'name' is '../etc'"),
        ({"fidelities.0.name": "a/b"}, r"'fidelities\.0\.name' is 'a/b'"),
        ({"fidelities.1.target": False}, "none of low, high says `target: true`"),
        ({"fidelities.0.target": True}, "low and high all say `target: true`; exactly one may"),
        ({"fidelities.0.name": "high"}, "the name 'high' is used twice"),
        ({"fidelities.1.property": "z"}, "the target 'high' measures 'z', but the objective is 'y'"),
        ({"budget": {"total": 0.1}}, r"budget\.total: 0\.1 does not pay for one query of the cheapest"),
        ({"budget.total": 0.5}, r"budget\.total: 0\.5 does not pay for one query of the target fidelity"),
        ({"budget.per_round": 0.2}, r"budget\.per_round: 0\.2 does not pay for one query of the cheapest"),
        ({"budget.per_round": 0.5}, r"budget\.per_round: 0\.5 does not pay for .* target fidelity \('high'"),
        ({"initial_design": {"per_fidelity": {"medium": 2}}}, r"no fidelity 'medium' \(known: low, high\)"),
        ({"initial_design": {"per_fidelity": {"low": -1}}}, "counts must not be negative"),
        ({"initial_design": {"per_fidelity": {"low": 0}}}, "at least one must be positive"),
        ({"initial_design": {"share": 1.5}}, r"'initial_design\.share' is 1\.5"),
    ],
)
def test_what_is_wrong_is_named(bench: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bench.config(changes)


@pytest.mark.parametrize("key", ["name", "space", "objective", "fidelities", "budget"])
def test_required_keys(bench: Any, key: str) -> None:
    value = bench.value()
    del value[key]
    with pytest.raises(ConfigError, match=f"the key '{key}' is missing"):
        parse_config(value)


def test_all_mistakes_are_told_at_once(bench: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        bench.config({"seed": "x", "budget.totl": 1, "fidelities.0.cost": 0})
    message = str(caught.value)
    assert "'seed'" in message
    assert "'total'" in message
    assert "'fidelities.0.cost'" in message
    assert "\n" not in message


def test_only_the_required_keys_are_needed(bench: Any) -> None:
    value = {key: bench.value()[key] for key in ("name", "space", "objective", "fidelities", "budget")}
    config = parse_config(value)
    assert config.seed == 0
    assert config.surrogate.type == "multi_fidelity_gp"
    assert config.acquisition.type == "mf_gibbon"
    assert config.acquisition.mode == "joint"
    assert config.target.name == "high"
    assert parse_config(config.to_json()) == config


def test_a_single_fidelity_is_the_target(bench: Any) -> None:
    config = bench.config(
        fidelities=[{"name": "only", "oracle": "density", "cost": 1}],
        initial_design={},
    )
    assert config.target.name == "only"


def test_the_round_s_budget_pays_for_the_target(bench: Any) -> None:
    assert bench.config(budget={"total": 100}).per_round == 10
    assert bench.config(budget={"total": 3}).per_round == 1.0


def test_a_config_is_frozen(bench: Any) -> None:
    with pytest.raises(ValueError, match="frozen"):
        bench.config().seed = 3


@pytest.mark.parametrize("value", [[1], "text", None, 3])
def test_a_config_is_a_mapping(value: Any) -> None:
    with pytest.raises(ConfigError, match="must be a mapping"):
        parse_config(value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml can't be read"):
        read_yaml(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [1, 2")
    with pytest.raises(ConfigError, match=r"broken\.yaml is not valid YAML"):
        read_yaml(broken)
    broken.write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"must be a mapping .* not list"):
        read_yaml(broken)
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="can't be read"):
        read_yaml(broken)


def _written(bench: Any, **more: Any) -> Path:
    path: Path = bench.write("campaign.yaml", yaml.safe_dump(bench.value(**more)))
    return path


def test_overrides_reach_every_key(bench: Any) -> None:
    config = load_config(
        _written(bench),
        {
            "budget.total": "10",
            "fidelities.0.cost": "0.5",
            "fidelities.high.max_in_flight": "3",
            "stopping.max_rounds": "4",
            "space.bounds.1": "[2, 3]",
            "sampler": "{type: pool}",
        },
    )
    assert config.budget.total == 10
    assert [f.cost for f in config.fidelities] == [0.5, 1.0]
    assert config.fidelities[1].max_in_flight == 3
    assert config.stopping.max_rounds == 4
    # The two bounds are equal before: the one that was named is changed, not its equal.
    assert config.space.params["bounds"] == [[0, 1], [2, 3]]
    assert config.sampler is not None
    assert config.sampler.type == "pool"


def test_an_empty_section_can_be_overridden(bench: Any) -> None:
    config = load_config(_written(bench, stopping=None), {"stopping.max_rounds": "2"})
    assert config.stopping.max_rounds == 2


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("seed.first", "1", "'seed' is a single value"),
        ("fidelities.medium.cost", "1", "the list has no entry 'medium'"),
        ("fidelities.2.cost", "1", "the list has no entry '2'"),
        ("budget.total", "[1", "the value is not valid YAML"),
        ("budget.totl", "1", "did you mean 'total'"),
        ("budget.total", "much", "'budget.total' is 'much'"),
    ],
)
def test_overrides_that_lead_nowhere(bench: Any, key: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(_written(bench), {key: text})
