"""Configs of sampling: what they need, what they refuse, and how they build on one another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from activelearning.campaign.config import load_config, read_yaml
from activelearning.campaign.shipped import shipped_configs
from activelearning.errors import ConfigError
from activelearning.sampling.config import find_sample_config, load_sample_config, parse_sample_config

MINIMAL: dict[str, Any] = {
    "name": "minimal",
    "space": {"type": "crystal", "elements": ["Li", "O"]},
    "objective": {"property": "density"},
}


def test_name_space_and_objective_are_enough() -> None:
    config = parse_sample_config(MINIMAL)
    (objective,) = config.rewarded
    assert objective.direction == "maximize"
    assert config.reward_of(objective).type == "exponential"
    assert config.oracle_of(objective) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": None}, "'space' is None"),
        ({"objective": None}, "the key 'objective' is missing"),
        ({"rewards": {}}, "unknown key 'rewards'; did you mean 'reward'"),
        ({"objectives": [{"property": "density"}]}, "'objective' and 'objectives' exclude one another"),
        ({"objective": {"property": "density", "reward": {}}, "reward": {}}, "exclude one another"),
        (
            {"objective": None, "objectives": [{"property": "a"}, {"property": "b"}], "reward": {}},
            "'reward' is for one objective",
        ),
        ({"objective": None, "objectives": [{"property": "a"}] * 2}, "property 'a' is there twice"),
        ({"fidelities": [{"name": "x"}]}, r"'fidelities\.0\.oracle' is missing"),
        ({"n": 3}, "unknown key 'n'"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_sample_config({**MINIMAL, **change}, source="c.yaml")


def test_keys_of_a_campaign_are_not_looked_at() -> None:
    config = parse_sample_config(
        {
            **MINIMAL,
            "fidelities": [
                {"name": "dear", "oracle": "mine.py:Dear", "cost": 10},
                {"name": "cheap", "oracle": "density", "cost": 1, "params": {"scale": 2.0}},
                {"name": "other", "oracle": "ml_proxy", "cost": 0.1, "property": "log10_conductivity"},
            ],
            "budget": {"total": 3},
            "acquisition": {"type": "mf_gibbon"},
            "stopping": {"max_rounds": 3},
        }
    )
    oracle = config.oracle_of(config.rewarded[0])
    assert oracle is not None
    assert (oracle.oracle, oracle.params) == ("density", {"scale": 2.0})


def test_a_base_gives_what_a_config_does_not_state(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text(yaml.safe_dump({**MINIMAL, "seed": 5}))
    (tmp_path / "second.yaml").write_text("base: first.yaml\nname: second\nrestrict: {elements: [O]}\n")
    config = load_sample_config(tmp_path / "second.yaml", {"restrict.max_atoms": "8"})
    assert (config.name, config.seed, config.rewarded[0].property) == ("second", 5, "density")
    assert config.restrict == {"elements": ["O"], "max_atoms": 8}


def test_relative_paths_of_a_base_start_at_its_own_folder(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "mine.py").write_text(
        "from pathlib import Path\nfrom oracles import Oracle\n\n\nclass Own(Oracle):\n"
        "    def __init__(self, table: Path, more: list[Path] = [], word: str = ''):\n        pass\n"
    )
    params = {"table": "table.csv", "more": ["a", "/b"], "word": "as it is"}
    base = {
        **MINIMAL,
        "validation": "known.csv",
        "dataset": "~/known.csv",
        "reward": {"type": "mine.py:Own", "word": "as it is"},
        "fidelities": [{"oracle": "mine.py:Own", "params": params}, {"oracle": "density"}],
        "sampler": {"type": "missing.py:Sampler", "word": "not looked at, as it is stated below"},
    }
    (there / "base.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "own.yaml").write_text("{base: there/base.yaml, name: own, sampler: {type: random}}")
    config = load_sample_config(tmp_path / "own.yaml")
    assert (config.validation, config.dataset) == (there / "known.csv", Path.home() / "known.csv")
    assert config.reward is not None
    assert (config.reward.type, config.reward.params) == (f"{there}/mine.py:Own", {"word": "as it is"})
    own, exact = config.fidelities
    assert own.oracle == f"{there}/mine.py:Own"
    assert own.params == {
        "table": str(there / "table.csv"),
        "more": [str(there / "a"), "/b"],
        "word": "as it is",
    }
    assert (exact.oracle, exact.params) == ("density", {})
    (there / "own.yaml").write_text("{base: base.yaml, name: own, sampler: {type: random}}")
    assert load_sample_config(there / "own.yaml").validation == Path("known.csv")


def test_a_key_that_is_there_twice_is_named_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: own\nspace:\n  type: crystal\n  max_atoms: 8\n  max_atoms: 12\n")
    with pytest.raises(ConfigError, match=r"c\.yaml has the key 'max_atoms' twice, in lines 4 and 5"):
        load_sample_config(path)
    path.write_text("a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, x: 3}\n")
    assert read_yaml(path)["c"] == {"x": 3}


def test_a_config_is_looked_for_among_those_that_can_be_sampled() -> None:
    with pytest.raises(ConfigError, match="shipped for sampling: band-gap") as refused:
        find_sample_config("nosuch")
    assert "branin" not in str(refused.value)
    assert "formation-energy-a" in str(refused.value)
    with pytest.raises(ConfigError, match="Did you mean the shipped config 'crystal-density'"):
        find_sample_config("crystal-densty")
    assert find_sample_config("branin").name == "branin.yaml"


def test_a_base_is_found_by_shipped_name_and_not_in_a_circle(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("{base: crystal-density, name: own}")
    assert load_sample_config(path).rewarded[0].property == "density"
    path.write_text("{base: own.yaml, name: own}")
    with pytest.raises(ConfigError, match="its own base"):
        load_sample_config(path)
    path.write_text("{base: crystal-densty, name: own}")
    with pytest.raises(ConfigError, match="Did you mean the shipped config 'crystal-density'"):
        load_sample_config(path)
    path.write_text("{base: 3, name: own}")
    with pytest.raises(ConfigError, match="'base' is 3"):
        load_sample_config(path)


def test_a_campaign_says_what_a_config_of_sampling_lacks(write_config: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"'budget' is missing.*`activelearning sample`") as refused:
        load_config(write_config())
    assert "'fidelities' is missing" in str(refused.value)


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_every_shipped_config_is_a_campaign_or_one_of_sampling(name: str) -> None:
    path = shipped_configs()[name]
    if "budget" in yaml.safe_load(path.read_text()):
        assert load_config(path).name == name
    else:
        assert load_sample_config(path).name == name
