"""Batches of a campaign: what holds them apart, and what may be asked again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from activelearning.campaign.tick import run
from activelearning.errors import ConfigError

NOISY = """
import random

from oracles import Oracle


class Low(Oracle):
    def expect(self, keys):
        self.keys = dict(keys)

    def evaluate_one(self, candidate):
        return sum(candidate.values) + random.Random(self.keys[candidate.key]).gauss(0, 1)


class High(Low):
    pass
"""
POOL = "x,y\n0.1,0.2\n0.4,0.3\n0.8,0.9\n"


def _pool(bench: Any, **changes: Any) -> Any:
    """A campaign on three candidates only."""
    bench.write("oracle.py", NOISY)
    bench.write("pool.csv", POOL)
    value = {
        "budget": {"total": 30.0, "per_round": 2.0},
        "initial_design.per_fidelity": {"low": 3, "high": 3},
    }
    sampler = {"type": "pool"}
    return bench.config({**value, **changes}, space={"type": "pool", "file": "pool.csv"}, sampler=sampler)


def _asked(bench: Any, campaign: str = "small") -> Counter[tuple[str, str]]:
    return Counter((row.candidate_key, row.fidelity) for row in bench.evaluations(campaign))


def test_nothing_is_asked_twice_unless_it_may(bench: Any) -> None:
    with bench.open(_pool(bench)) as engine:
        assert "nothing new" in run(engine).reason
    assert set(_asked(bench).values()) == {1}


def test_replicates_are_asked_as_often_as_they_may(bench: Any) -> None:
    with bench.open(_pool(bench, **{"acquisition.replicates": 3})) as engine:
        assert "nothing new" in run(engine).reason
    assert set(_asked(bench).values()) == {3}
    assert len(_asked(bench)) == 6
    rows = bench.evaluations()
    assert len({row.key for row in rows}) == len(rows) == 18
    assert Counter(row.replicate for row in rows) == {0: 6, 1: 6, 2: 6}
    # One pair is asked once a round, and each answer is one of its own.
    assert len({(row.round, row.candidate_key, row.fidelity) for row in rows}) == len(rows)
    assert len({row["value"] for row in bench.rows("SELECT value FROM measurements")}) == 18


def test_replicates_are_offered_on_a_continuum(bench: Any) -> None:
    bench.write("oracle.py", NOISY)
    acquisition = {"type": "random", "batch_size": 4, "pool_size": 2, "replicates": 2}
    budget = {"total": 20.0, "per_round": 4.0}
    with bench.open(bench.config(acquisition=acquisition, budget=budget)) as engine:
        run(engine)
    assert max(_asked(bench).values()) == 2


def test_each_answer_of_another_campaign_is_shared_once(bench: Any) -> None:
    changes = {"acquisition.replicates": 3}
    with bench.open(_pool(bench, **changes)) as engine:
        run(engine)
    with bench.open(_pool(bench, **changes).model_copy(update={"name": "second"})) as engine:
        run(engine)
    # A third campaign with more replicates takes the first's answers, no copies of them, and asks for the rest.
    with bench.open(
        _pool(bench, **{"acquisition.replicates": 4}).model_copy(update={"name": "third"})
    ) as engine:
        run(engine)
    first, second, third = (bench.evaluations(name) for name in ("small", "second", "third"))
    assert {row.details["shared_from"] for row in second} == {row.key for row in first}
    assert len(second) == len(first) == 18
    shared = [row.details["shared_from"] for row in third if row.details]
    assert sorted(shared) == sorted(row.key for row in first)
    assert len(third) == 24


@pytest.mark.parametrize("diversity", ["none", "distance", "determinantal"])
def test_diverse_campaigns_keep_their_limits_and_are_repeatable(bench: Any, diversity: str) -> None:
    changes = {
        "acquisition": {"type": "target_ei", "batch_size": 4, "pool_size": 64, "diversity": diversity},
        "budget": {"total": 12.0, "per_round": 3.0},
        "initial_design.per_fidelity": {"low": 6, "high": 2},
    }
    batches = []
    for name in ("small", "again"):
        with bench.open(bench.config(changes, name=name)) as engine:
            run(engine)
            assert engine.balance().spent <= 12.0 + 1e-9
        rows = bench.evaluations(name)
        batches.append([(row.round, row.candidate_key, row.fidelity) for row in rows])
        for index in range(1, max(row.round for row in rows) + 1):
            batch = [row for row in rows if row.round == index]
            assert sum(row.cost_reserved for row in batch) <= 3.0 + 1e-9
            assert max(Counter(row.fidelity for row in batch).values()) <= 4
    assert batches[0] == batches[1]
    assert max(Counter(batches[0]).values()) == 1


@pytest.mark.parametrize("diversity", ["distance", "determinantal"])
def test_the_batch_keeps_away_from_what_was_chosen_independently(
    bench: Any, monkeypatch: pytest.MonkeyPatch, diversity: str
) -> None:
    """Three clusters of near copies, and three queries of the target a round, some of them for the safety rule."""
    monkeypatch.setattr("activelearning.campaign.safety.EVIDENCE", 1e9)  # no verdict ends the rule
    centres = [(0.1, 0.1), (0.9, 0.2), (0.4, 0.9)]
    points = [(x + 1e-4 * i, y) for x, y in centres for i in range(16)]
    bench.write("pool.csv", "x,y\n" + "".join(f"{x:.4f},{y}\n" for x, y in points))
    config = bench.config(
        {"fidelities.0.cost": 1.0, "safety": {"independent_share": 0.5, "credit": 1.0}},
        space={"type": "pool", "file": "pool.csv"},
        sampler={"type": "pool"},
        acquisition={"type": "random", "batch_size": 3, "pool_size": 48, "diversity": diversity},
        initial_design={"per_fidelity": {"low": 3, "high": 3}},
        budget={"total": 36.0, "per_round": 6.0},
    )
    with bench.open(config) as engine:
        run(engine)
        safety = [summary["safety"] for summary in engine.repository.round_summaries()[1:]]
    assert sum(e["independent"] for found in safety for e in found["expected"]) >= 3
    rows = [row for row in bench.evaluations() if row.round > 0 and row.fidelity == "high"]
    where = Counter((row.round, round(row.candidate["values"][1], 1)) for row in rows)
    assert len(rows) >= 9
    assert set(where.values()) == {1}


def test_kinds_of_diversity_that_are_none_are_refused(bench: Any) -> None:
    with pytest.raises(ConfigError, match=r"acquisition\.diversity.*'none', 'distance' or 'determinantal'"):
        bench.config({"acquisition.diversity": "much"})
    with pytest.raises(ConfigError, match=r"acquisition\.replicates"):
        bench.config({"acquisition.replicates": 0})


def _sequence(bench: Any, name: str = "small", **changes: Any) -> list[str]:
    """Fidelities in the order in which a campaign asked them after its first design, `low` being nearly free."""
    base = {"fidelities.0.cost": 0.01, "safety.enabled": False, "budget": {"total": 40.0, "per_round": 2.5}}
    with bench.open(bench.config({**base, **changes}, name=name)) as engine:
        run(engine)
    return [row.fidelity for row in bench.evaluations(name) if row.round > 0]


def test_fidelities_are_drawn_blindly(bench: Any) -> None:
    """Each as often as the other, though `low` is always the better bargain."""
    asked = _sequence(bench, **{"acquisition.mode": "random"})
    n_high = asked.count("high")
    assert n_high > 25
    # The numbers of the two differ by less than three standard deviations of 2 x binomial.
    assert abs(2 * n_high - len(asked)) < 3 * len(asked) ** 0.5
    # What a round can't pay for opens the next one: how the budget is cut into rounds does not matter.
    other = _sequence(bench, "other", **{"acquisition.mode": "random", "budget.per_round": 7.5})
    assert other.count("high") == n_high
    assert abs(len(other) - len(asked)) <= 5


def test_fidelities_drawn_blindly_wait_for_no_answers(bench: Any) -> None:
    """A round goes on beside what has no place left in it."""
    asked = _sequence(bench, **{"acquisition.mode": "random", "acquisition.batch_size": 1})
    assert abs(2 * asked.count("high") - len(asked)) < 3 * len(asked) ** 0.5


def test_cheap_answers_are_waited_for_only_where_there_are_rounds_to_spare(bench: Any) -> None:
    """By blind utilities `low` is always the better bargain; without a limit of rounds `high` would wait for ever."""
    changes = {
        "fidelities.0.cost": 0.01,
        "safety.enabled": False,
        "budget": {"total": 10.0, "per_round": 2.5},
    }
    changes["acquisition.mode"] = "after"
    with bench.open(bench.config({**changes, "stopping.max_rounds": 5}, name="few")) as engine:
        run(engine)
        left = engine.balance().remaining
    rows = bench.evaluations("few")
    asked = [{row.fidelity for row in rows if row.round == index} for index in range(1, 6)]
    # The budget of ten, less the first design, is spent in the last of five rounds of at most two and a half.
    assert left < 2.5
    assert asked[0] == {"low"}
    assert all("high" in of_round for of_round in asked[-3:])


TWINS = """
from oracles import Oracle


class Low(Oracle):
    def evaluate_one(self, candidate):
        return -sum((v - 0.3) ** 2 for v in candidate.values)


class High(Low):
    pass
"""


@pytest.mark.parametrize(("mode", "returns"), [("joint", True), ("after", True), ("random", False)])
def test_what_a_cheap_answer_promises_is_offered_at_the_target(bench: Any, mode: str, returns: bool) -> None:
    bench.write("oracle.py", TWINS)
    config = bench.config(
        {"fidelities.0.cost": 0.05, "safety.enabled": False},
        acquisition={"type": "target_ei", "batch_size": 4, "pool_size": 4, "mode": mode},
        surrogate={"type": "multi_fidelity_gp"},
        initial_design={"per_fidelity": {"low": 12, "high": 1}},
    )
    with bench.open(config) as engine:
        run(engine)
    rows = sorted(bench.evaluations(), key=lambda row: (row.round, row.position))
    asked_low = {row.candidate_key: row.round for row in reversed(rows) if row.fidelity == "low"}
    returned = [
        row
        for row in rows
        if row.round > 0
        and row.fidelity == "high"
        and asked_low.get(row.candidate_key, row.round) < row.round
    ]
    # A continuum's sampler never draws the same candidate twice.
    assert bool(returned) == returns
