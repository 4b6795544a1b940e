"""What a campaign reserves, what it expects to pay, and how much that counts."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest

from activelearning.campaign.tick import run
from activelearning.store.database import open_database
from activelearning.store.repository import Repository

# Foreseen at a flat 0.5; what it takes depends on the candidate.
METERED = """
from activelearning.measurement import Measurement
from oracles import Oracle


class Low(Oracle):
    def cost(self, candidate):
        return 0.5

    def evaluate_one(self, candidate):
        return Measurement.of("y", sum(candidate.values), cost=0.05 + 0.3 * candidate.values[0])


class High(Oracle):
    def evaluate_one(self, candidate):
        return -sum((v - 0.3) ** 2 for v in candidate.values)
"""
METERED_CONFIG: dict[str, Any] = {
    "fidelities.0.charge": "measured",
    "initial_design": {"per_fidelity": {"low": 8, "high": 1}},
    "budget": {"total": 14.0, "per_round": 3.0},
    "acquisition.batch_size": 3,
    "safety.enabled": False,  # `low` tells nothing, and is asked all the same
}


def _summaries(bench: Any) -> list[dict[str, Any]]:
    rows = bench.rows('SELECT summary FROM rounds ORDER BY "index"')
    return [json.loads(row["summary"]) for row in rows]


def test_costs_are_learned_and_reservations_stay_the_oracle_s_word(bench: Any) -> None:
    bench.write("oracle.py", METERED)
    with bench.open(bench.config(METERED_CONFIG)) as engine:
        run(engine)
        balance = engine.balance()
        pairs = [(candidate, 0) for candidate, name, _, _ in engine.repository.charges(["low"])]
        charged = [row[3] for row in engine.repository.charges(["low"])]
        engine._learn_costs()
        expected = engine._costs.expected(pairs).tolist()
        high = engine._costs.expected([(pairs[0][0], 1)]).tolist()
    low = [row for row in bench.evaluations() if row.fidelity == "low"]
    assert {row.cost_reserved for row in low} == {0.5}
    assert balance.reserved == pytest.approx(0.0)
    assert balance.spent <= 14.0
    assert balance.spent == pytest.approx(sum(row.cost_paid for row in bench.evaluations()))
    assert len(charged) > 12
    errors = [abs(math.log(e / c)) for e, c in zip(expected, charged, strict=True)]
    # The costs are no exponential of the features; by the oracle's word the error would be 1.
    assert sum(errors) / len(errors) < 0.2
    assert high == [1.0]
    summaries = _summaries(bench)
    learned = summaries[-1]["costs"]["low"]
    before = [row.cost_paid / row.cost_reserved for row in low if row.round < len(summaries) - 1]
    assert learned["n"] == len(before)
    # At average features the median is the geometric mean, but for a prior that ten times the scatter leaves wide.
    assert learned["bias"] == pytest.approx(math.exp(sum(map(math.log, before)) / len(before)), rel=0.02)
    assert learned["bias"] < 0.5
    assert learned["slope_variance"] > 0


def test_stated_costs_are_not_learned(bench: Any) -> None:
    bench.write("oracle.py", METERED)
    with bench.open(bench.config({**METERED_CONFIG, "acquisition.costs": "stated"})) as engine:
        run(engine)
        pairs = [(candidate, 0) for candidate, _, _, _ in engine.repository.charges(["low"])]
        assert set(engine._costs.expected(pairs).tolist()) == {0.5}
    assert all("costs" not in summary for summary in _summaries(bench))


def test_answers_that_another_campaign_paid_for_teach_no_cost(bench: Any) -> None:
    bench.write("oracle.py", METERED)
    config = {**METERED_CONFIG, "stopping.max_rounds": 1}
    with bench.open(bench.config(config)) as engine:
        run(engine)
    with bench.open(bench.config(config, name="second")) as engine:
        run(engine)
        low = [row for row in bench.evaluations("second") if row.fidelity == "low"]
        free = [row for row in low if "shared_from" in row.details]
        assert len(free) >= 8
        assert {row.cost_paid for row in free} == {0.0}
        assert len(engine.repository.charges(["low"])) == len(low) - len(free)


@pytest.mark.parametrize("charge", ["fixed", "measured"])
def test_the_cost_exponent_cools_with_the_budget(bench: Any, charge: str) -> None:
    bench.write("oracle.py", METERED)
    changes = {**METERED_CONFIG, "acquisition.cost_exponent": "cooled", "fidelities.0.charge": charge}
    with bench.open(bench.config(changes)) as engine:
        run(engine)
    exponents = [summary["cost_exponent"] for summary in _summaries(bench)[1:]]
    assert exponents[0] == pytest.approx(1.0)
    assert all(later < earlier for earlier, later in itertools.pairwise(exponents))
    paid = [0.0] * len(exponents) + [0.0]
    for row in bench.evaluations():
        paid[row.round] += row.cost_paid
    left = [14.0 - sum(paid[: index + 1]) for index in range(len(exponents))]
    assert exponents == pytest.approx([money / left[0] for money in left])


def test_a_continued_campaign_of_more_money_is_no_hotter_than_one(bench: Any) -> None:
    changes = {"acquisition.cost_exponent": "cooled", "stopping.max_rounds": 1}
    with bench.open(bench.config(changes)) as engine:
        run(engine)
    with bench.open(bench.config({**changes, "budget.total": 50.0, "stopping.max_rounds": 2})) as engine:
        run(engine)
    exponents = [summary["cost_exponent"] for summary in _summaries(bench)[1:]]
    assert exponents[0] == pytest.approx(1.0)
    database = open_database(bench.store)
    start = 50.0 - Repository(database, "small").cost_of_round(0)
    second = Repository(database, "small").cost_of_round(1)
    database.close()
    assert exponents[1] == pytest.approx((start - second) / start)


def test_exponents_that_are_none_are_refused(bench: Any) -> None:
    from activelearning.errors import ConfigError

    for wrong in ("cold", -1.0):
        with pytest.raises(ConfigError, match=r"acquisition\.cost_exponent"):
            bench.config({"acquisition.cost_exponent": wrong})
