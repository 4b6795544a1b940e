"""What fails where others have failed is not asked again and again."""

from __future__ import annotations

from typing import Any

import torch

from activelearning.acquisition.feasible import FeasibleScorer
from activelearning.campaign.tick import run

# Two hills; nothing survives on the higher one.
CLIFF = """
import math
import torch
from activelearning.errors import OracleError
from oracles import Oracle
from surrogates.multi_fidelity_gp import MultiFidelityGP


class High(Oracle):
    def evaluate_one(self, candidate):
        x, y = candidate.values
        if x > 0.5:
            raise OracleError("it has fallen off the cliff")
        return 5.0 * x + math.sin(12.0 * x) * math.cos(11.0 * y)


class Blind(MultiFidelityGP):
    def feasibility(self, X):
        return torch.ones(len(X), dtype=X.dtype)
"""
CHANGES = {
    "fidelities": [{"name": "high", "oracle": "cliff.py:High", "cost": 1.0, "target": True}],
    "acquisition": {"type": "target_ei", "batch_size": 3, "pool_size": 200, "mode": "after"},
    "initial_design": {"per_fidelity": {"high": 6}},
    "budget": {"total": 33.0, "per_round": 3.0},
    "stopping": {"max_failed_rounds": 20},
}


def _failed(bench: Any, name: str, surrogate: str) -> tuple[int, dict[str, Any]]:
    bench.write("cliff.py", CLIFF)
    values = {"name": name, "surrogate": {"type": surrogate, "max_iterations": 20}}
    with bench.open(bench.config({**CHANGES, **values})) as engine:
        run(engine)
        rows = engine.repository.evaluations()
        figures = engine.repository.round_summary(max(row.round for row in rows))["surrogate"]
    late = [row for row in rows if row.round > 0]
    assert len(late) == 27
    return sum(row.state == "failed" for row in late), figures


def test_a_campaign_learns_where_evaluations_fail(bench: Any) -> None:
    seeing, figures = _failed(bench, "seeing", "multi_fidelity_gp")
    blind, _ = _failed(bench, "blind", "cliff.py:Blind")
    assert figures["feasibility"]["n_failed"]["high"] >= seeing
    assert figures["feasibility"]["log_evidence"] < 0.0
    assert blind > 15
    assert seeing < 0.75 * blind


def test_utilities_are_multiplied_where_they_are_worth_something() -> None:
    class Given:
        def __call__(self, X: torch.Tensor) -> torch.Tensor:
            return X[:, 0]

        def add_pending(self, X: torch.Tensor) -> None:
            self.pending = X

    inner = Given()
    scorer = FeasibleScorer(inner, lambda X: X[:, 1])
    X = torch.tensor([[2.0, 0.25], [2.0, 1.0], [-2.0, 0.25], [0.0, 0.5]])
    assert scorer(X).tolist() == [0.5, 2.0, -2.0, 0.0]
    scorer.add_pending(X[:1])
    assert torch.equal(inner.pending, X[:1])
