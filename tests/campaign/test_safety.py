"""Fidelities other than the target must earn their money, and can't hide the best candidates for good."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from activelearning.acquisition.safe import AloneScorer, SafeScorer
from activelearning.campaign.config import SafetyConfig
from activelearning.campaign.safety import Expectation, Standing, Trust, judge, log_score
from activelearning.campaign.tick import run
from activelearning.measurement import Censoring, MeasuredValue

SOURCES = """
import math
from oracles import Oracle


def f(candidate):
    x, y = candidate.values
    return math.sin(5.0 * x) * math.cos(4.0 * y) + x


class High(Oracle):
    def evaluate_one(self, candidate):
        return f(candidate)


class Straight(Oracle):
    def evaluate_one(self, candidate):
        return 3.0 * f(candidate) + 0.1 * candidate.values[0]


class Chance(Oracle):
    def evaluate_one(self, candidate):
        x, y = candidate.values
        return math.sin(1e4 * x + 3e4 * y)
"""
CHANGES: Mapping[str, Any] = {
    "surrogate": {"type": "multi_fidelity_gp"},
    "acquisition": {"type": "target_ei", "batch_size": 6, "pool_size": 64},
    "initial_design": {"per_fidelity": {"low": 6, "high": 2}},
    "budget": {"total": 12.0, "per_round": 1.0},
}


def _campaign(bench: Any, source: str, name: str, **safety: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    bench.write("sources.py", SOURCES)
    fidelities = [
        {"name": "low", "oracle": f"sources.py:{source}", "cost": 0.05},
        {"name": "high", "oracle": "sources.py:High", "cost": 1.0, "target": True},
    ]
    with bench.open(
        bench.config({**CHANGES, "name": name, "fidelities": fidelities, "safety": safety})
    ) as engine:
        run(engine)
        return engine.repository.evaluations(), engine.repository.round_summaries()


def test_a_source_that_foretells_the_target_is_proven(bench: Any) -> None:
    _, summaries = _campaign(bench, "Straight", "straight")
    last = summaries[-1]["safety"]
    assert last["trust"] == Trust.PROVEN
    assert last["evidence"] >= 2.0
    assert last["allowance"] > 0.0


def test_a_source_that_proves_nothing_stays_within_its_credit(bench: Any) -> None:
    rows, summaries = _campaign(bench, "Chance", "chance", credit=0.04)
    trusts = [summary["safety"]["trust"] for summary in summaries[1:]]
    assert Trust.PROVEN not in trusts
    asked = [row for row in rows if row.fidelity == "low" and row.round > 0]
    assert 0.0 < math.fsum(row.cost_paid for row in asked) <= 0.48 + 1e-9
    assert sum(row.fidelity == "high" for row in rows) == 11


def test_a_share_of_the_targets_queries_is_independent(bench: Any) -> None:
    # The source has next to nothing beyond its initial design, so that the target is asked a good many times.
    shares = {"credit": 0.05, "target_share": 1.0, "independent_share": 0.5}
    _, summaries = _campaign(bench, "Straight", "independent", **shares)
    expected = [e for summary in summaries[1:] for e in summary["safety"]["expected"]]
    n = sum(e["independent"] for e in expected)
    assert len(expected) >= 8
    assert len(expected) // 2 - 1 <= n <= len(expected) // 2


def test_without_safety_nothing_of_it_is_fitted_or_kept(bench: Any) -> None:
    _, summaries = _campaign(bench, "Straight", "off", enabled=False)
    assert not any("safety" in summary for summary in summaries)


@given(
    mean=st.floats(-3, 3),
    std=st.floats(0.1, 3),
    value=st.floats(-5, 5),
    known=st.one_of(st.none(), st.floats(0.01, 2)),
)
def test_scores_are_log_densities_and_log_probabilities(
    mean: float, std: float, value: float, known: float | None
) -> None:
    normal = stats.norm(mean, math.hypot(std, known or 0.0))
    for censoring, exact in (
        (Censoring.NONE, normal.logpdf(value)),
        (Censoring.UPPER, normal.logcdf(value)),
        (Censoring.LOWER, normal.logsf(value)),
    ):
        found = log_score(MeasuredValue(value, None, known, censoring), mean, std)
        assert found == pytest.approx(exact, rel=1e-6, abs=1e-9)


def _expected(
    joint: tuple[float, float], alone: tuple[float, float], candidate: str = "a", n_known: int = 3
) -> Expectation:
    return Expectation(candidate, joint, alone, independent=False, n_known=n_known)


def test_evidence_is_the_difference_of_scores_and_no_answer_weighs_more_than_three_nats() -> None:
    answers = {"a": MeasuredValue(0.0, None), "b": MeasuredValue(50.0, None)}
    [score] = judge(
        [(_expected((0.0, 0.5), (0.0, 1.0)), answers["a"]), (_expected((0.0, 1.0), (0.0, 1.0)), None)]
    )
    assert score == pytest.approx(math.log(2.0))
    assert judge([(_expected((0.0, 1.0), (50.0, 1.0), "b"), answers["b"])]) == [-3.0]
    assert judge([(_expected((0.0, 1.0), (50.0, 1.0), "b", n_known=2), answers["b"])]) == []
    assert judge([(_expected((50.0, 1.0), (0.0, 1.0), "b"), answers["b"])]) == [3.0]


def test_verdicts_allowances_and_dues() -> None:
    config = SafetyConfig(credit=0.1, target_share=0.25, independent_share=0.2)
    proven = Standing(scores=[1.0, 1.5], n_target=10, spent_target=10.0, spent_others=4.0)
    assert proven.trust is Trust.PROVEN
    assert proven.allowance(config, 50.0) == pytest.approx(5.0 + 3.0 * 10.0 - 4.0)
    assert proven.n_due(config) == 2
    unproven = Standing(scores=[1.0], n_target=10, n_independent=1, spent_target=10.0, spent_others=4.0)
    assert unproven.trust is Trust.UNPROVEN
    assert unproven.allowance(config, 50.0) == pytest.approx(1.0 + 0.5 * 30.0)  # half proven
    assert unproven.n_due(config) == 1
    misled = Standing(scores=[3.0, 1.0, -3.0], n_target=10, spent_others=6.0)
    assert misled.trust is Trust.UNPROVEN
    assert misled.n_due(config) == 5
    assert misled.allowance(config, 50.0) == 0.0
    assert Standing(scores=[-3.0] + [0.1] * 10, n_target=11).n_due(config) == 2  # long ago
    assert Standing(scores=[-3.0, 3.0, 3.0], n_target=10).n_due(config) == 2  # the exception
    assert Standing(scores=[-1.0, -1.5]).trust is Trust.REFUTED
    assert Standing(scores=[-1.0, -1.5]).allowance(config, 50.0) == pytest.approx(5.0)
    assert Standing(scores=[-3.0] + [0.3] * 10).trust is Trust.PROVEN  # long ago


class _Feature:
    """Utility: a feature, and a mark of who answered."""

    def __init__(self, mark: float) -> None:
        self.mark, self.pending = mark, torch.empty(0, 2, dtype=torch.float64)

    def __call__(self, X: torch.Tensor) -> torch.Tensor:
        return X[:, 0] + self.mark

    def add_pending(self, X: torch.Tensor) -> None:
        self.pending = torch.cat([self.pending, X])


def test_who_answers_what() -> None:
    X = torch.tensor(
        [[0.1, 0.0], [0.2, 1.0], [0.3, 1.0], [0.4, 0.0]], dtype=torch.float64, requires_grad=True
    )
    joint, alone = _Feature(10.0), _Feature(20.0)
    trusted = SafeScorer(joint, None, 1, others_allowed=True)
    assert trusted(X).tolist() == pytest.approx([10.1, 10.2, 10.3, 10.4])
    penniless = SafeScorer(joint, None, 1, others_allowed=False)
    assert penniless(X).tolist() == pytest.approx([0.0, 10.2, 10.3, 0.0])
    refuted = SafeScorer(joint, AloneScorer(alone, 1), 1, others_allowed=True)
    utilities = refuted(X)
    assert utilities.tolist() == pytest.approx([10.1, 20.2, 20.3, 10.4])
    (gradient,) = torch.autograd.grad(utilities.sum(), X)
    assert gradient[:, 0].tolist() == [1.0] * 4
    refuted.add_pending(X.detach())
    assert len(joint.pending) == 4
    assert alone.pending.tolist() == [[0.2, 0.0], [0.3, 0.0]]  # the target alone, as fidelity 0
