"""The benchmark problems are campaigns that the config accepts."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from activelearning.campaign.config import parse_config
from activelearning.contracts.registry import load_plugin
from oracles.function import FUNCTIONS, FunctionOracle

_spec = importlib.util.spec_from_file_location(
    "benchmark_problems", Path(__file__).parents[2] / "benchmarks" / "problems.py"
)
problems = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(problems)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_a_problem(name):
    of = problems.problem(name)
    config = parse_config(problems.campaign(of, total=20, seed=3, stopping={"max_rounds": 2}))
    assert config.target.name == "high"
    assert config.objective.direction == FUNCTIONS[name].direction
    assert [f.name for f in config.fidelities] == list(problems.COSTS[name])
    assert set(problems.COSTS[name]) == set(FUNCTIONS[name].levels)
    assert len(of["bounds"]) == FUNCTIONS[name].dimension
    for fidelity in config.fidelities:
        assert fidelity.cost <= config.target.cost
        oracle = load_plugin("oracles", fidelity.oracle)(**fidelity.params)
        assert isinstance(oracle, FunctionOracle)
        assert oracle.level == fidelity.name


def test_levels_can_be_left_out_and_reversed():
    of = problems.problem("branin", levels=["low", "high"], reversed_levels=["low"])
    assert [(f["name"], f["params"].get("reversed", False)) for f in of["fidelities"]] == [
        ("low", True),
        ("high", False),
    ]


@pytest.mark.parametrize(
    "wrong", [{"levels": ["low"]}, {"reversed_levels": ["high"]}, {"levels": ["high", "middle"]}], ids=str
)
def test_the_target_is_neither_left_out_nor_reversed(wrong):
    with pytest.raises(ValueError, match="'high' is the target"):
        problems.problem("branin", **wrong)
