"""The funnel: the cheapest fidelity first, then the best of each level at the next."""

from __future__ import annotations

from typing import Any

import pytest

from activelearning.campaign.config import parse_config
from activelearning.campaign.funnel import FunnelProposer
from activelearning.campaign.tick import run
from activelearning.candidate import BoxCandidate
from activelearning.errors import ConfigError

THREE = [
    {"name": "high", "oracle": "function", "cost": 1.0, "target": True, "params": {"function": "branin"}},
    {"name": "low", "oracle": "function", "cost": 0.1, "params": {"function": "branin", "fidelity": "low"}},
    {"name": "over", "oracle": "function", "cost": 3.0, "params": {"function": "branin", "reversed": True}},
    {
        "name": "middle",
        "oracle": "function",
        "cost": 0.3,
        "params": {"function": "branin", "fidelity": "medium"},
    },
]


def funnel(bench: Any, **more: Any) -> dict[str, Any]:
    value = {
        **bench.value(),
        "space": {"type": "box", "bounds": [[-5, 10], [0, 15]]},
        "objective": {"property": "branin", "direction": "minimize"},
        "fidelities": THREE,
        "sampler": {"type": "evolutionary", "steps": 5, "warm_steps": 5, "population": 16},
        "acquisition": {"mode": "funnel", "batch_size": 4, "shares": {"low": 0.2, "middle": 0.3}},
        "initial_design": {"per_fidelity": {"low": 4}},
        "budget": {"total": 7.0, "per_round": 2.0},
    }
    return {**value, **more}


def finish(bench: Any, value: dict[str, Any]) -> list[Any]:
    config = parse_config(value)
    with bench.open(config) as engine:
        run(engine)
        answers = {(c.key, name): v.value for c, name, v in engine.repository.answers()}
    return [(row, answers[row.candidate_key, row.fidelity]) for row in bench.evaluations(config.name)]


def test_each_level_spends_its_share_on_the_best_of_the_one_below(bench: Any) -> None:
    rows = finish(bench, funnel(bench))
    spent = {
        name: sum(r.cost_paid for r, _ in rows if r.fidelity == name) for name in ("low", "middle", "high")
    }
    assert spent["low"] == pytest.approx(1.4)
    assert spent["middle"] == pytest.approx(2.1)
    assert spent["high"] == pytest.approx(3.0)  # whole answers of what is left
    assert not [r for r, _ in rows if r.fidelity == "over"]
    # One level after the other.
    order = list(dict.fromkeys(r.fidelity for r, _ in rows))
    assert order == ["low", "middle", "high"]
    assert [r.fidelity for r, _ in rows] == sorted((r.fidelity for r, _ in rows), key=order.index)
    for below, above in (("low", "middle"), ("middle", "high")):
        ranked = sorted((value, r.candidate_key) for r, value in rows if r.fidelity == below)
        asked = [r.candidate_key for r, _ in rows if r.fidelity == above]
        assert asked == [key for _, key in ranked[: len(asked)]]


def test_the_search_follows_the_cheapest_fidelity(bench: Any) -> None:
    """Its answers get better than those of the initial design."""
    rows = finish(bench, funnel(bench, acquisition={"mode": "funnel", "shares": {"low": 0.4, "middle": 0.2}}))
    low = [(r.round, value) for r, value in rows if r.fidelity == "low"]
    first = [value for index, value in low if index == 0]
    last = [value for index, value in low if index == max(i for i, _ in low)]
    assert min(last) < min(first)
    assert sum(last) / len(last) < sum(first) / len(first) - 20.0


def test_a_pool_is_asked_from_the_best_and_the_rest_goes_to_the_target(bench: Any) -> None:
    bench.write("pool.csv", "x,y\n" + "\n".join(f"{i},{(7 * i) % 15}" for i in range(-5, 10)))
    pool = {
        "space": {"type": "pool", "file": "pool.csv"},
        "sampler": {"type": "pool"},
        # More than fifteen answers cost: a level that has nothing more to ask leaves its share to the target.
        "acquisition": {"mode": "funnel", "shares": {"low": 0.5, "middle": 0.2}},
        "budget": {"total": 12.0, "per_round": 4.0},
    }
    rows = finish(bench, funnel(bench, **pool))
    count = {name: sum(r.fidelity == name for r, _ in rows) for name in ("low", "middle", "high")}
    assert count["low"] == 15
    assert count["middle"] == 8
    assert count["high"] == 8
    best = min(value for r, value in rows if r.fidelity == "middle")
    first = next(r for r, _ in rows if r.fidelity == "high")
    assert (
        next(v for r, v in rows if r.fidelity == "middle" and r.candidate_key == first.candidate_key) == best
    )


def test_crystals_go_through_it_too(bench: Any) -> None:
    value = {
        **funnel(bench),
        "space": {
            "type": "crystal",
            "elements": ["Li", "O", "Mg"],
            "max_atoms": 12,
            "space_groups": [1, 2, 225],
        },
        "objective": {"property": "density", "unit": "g/cm3"},
        "fidelities": [
            {"name": "low", "oracle": "density", "cost": 0.25, "params": {"bias": 0.5}},
            {"name": "high", "oracle": "density", "cost": 1.0, "target": True},
        ],
        "acquisition": {"mode": "funnel", "batch_size": 4, "shares": {"low": 0.4}},
        "budget": {"total": 6.0, "per_round": 2.0},
    }
    rows = finish(bench, value)
    ranked = sorted((-v, r.candidate_key) for r, v in rows if r.fidelity == "low")
    asked = [r.candidate_key for r, _ in rows if r.fidelity == "high"]
    assert len(ranked) == 9
    assert asked == [key for _, key in ranked[:3]]


def test_a_level_waits_for_all_of_the_one_below(bench: Any) -> None:
    """Where an answer of the cheap fidelity is still to come, nothing is asked yet of the next."""
    config = parse_config(funnel(bench, initial_design={"per_fidelity": {"low": 14}}))
    with bench.open(config) as engine:
        engine.propose()
        with engine.lease():
            engine.commit()
            engine.submit()
            for fidelity, keys in engine.outstanding().items():
                engine.evaluate(fidelity, keys)
            engine.fit()
            proposer = engine._proposer(1)
            assert isinstance(proposer, FunnelProposer)
            assert {e.fidelity for e in proposer.plan().evaluations} == {3}
            proposer.pending = [(BoxCandidate((0.0, 0.0)), 1)]
            assert proposer.plan().evaluations == []


@pytest.mark.parametrize(
    ("acquisition", "message"),
    [
        ({"mode": "funnel"}, "acquisition.shares: a funnel needs the share.*low: 0.25, middle: 0.25"),
        ({"mode": "funnel", "shares": {"low": 0.5}}, "acquisition.shares: a funnel needs"),
        ({"mode": "funnel", "shares": {"low": 0.5, "middle": 0.2, "over": 0.1}}, "acquisition.shares"),
        ({"mode": "funnel", "shares": {"low": 0.6, "middle": 0.4}}, "sum to 1, which leaves nothing"),
        ({"mode": "funnel", "shares": {"low": 0.0, "middle": 0.4}}, "acquisition.shares.low"),
        (
            {"mode": "joint", "shares": {"low": 0.6, "middle": 0.2}},
            "acquisition.shares is for `mode: funnel`",
        ),
    ],
    ids=str,
)
def test_shares_that_make_no_funnel_are_refused(
    bench: Any, acquisition: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(funnel(bench, acquisition=acquisition))


def test_a_funnel_needs_something_cheaper_than_the_target(bench: Any) -> None:
    with pytest.raises(ConfigError, match="cheaper than the target 'high', and there is none"):
        parse_config(funnel(bench, fidelities=[THREE[0], THREE[2]], initial_design={}))
