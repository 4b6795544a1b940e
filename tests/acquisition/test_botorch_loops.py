"""The loops that our own campaigns are compared with start and pay as these do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from activelearning.campaign.config import parse_config
from activelearning.campaign.engine import Engine
from activelearning.campaign.tick import tick
from activelearning.report import trace


@pytest.fixture(scope="module")
def loops() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        import botorch_loops

        yield botorch_loops


def test_costs_are_those_of_the_levels(loops: ModuleType) -> None:
    levels = torch.tensor([0.5, 0.75, 1.0], dtype=torch.float64)
    costs = torch.tensor([0.01, 0.1, 1.0], dtype=torch.float64)
    X = torch.rand(4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for level, cost in zip(levels, costs, strict=True):
        X[..., -1] = level
        found = loops.LevelCost(levels, costs)(X)
        assert torch.equal(found, cost.expand(4, 2, 1))


@pytest.mark.parametrize("name", ["branin", "borehole"])
@pytest.mark.parametrize("method", ["mf_mes", "log_ei"])
def test_the_first_design_is_that_of_a_campaign(
    loops: ModuleType, name: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one with the same fidelities; `log_ei` has the target alone."""
    from problems import campaign, problem

    total = 15.0
    of = problem(name, levels=["high"] if method == "log_ei" else None)
    config = parse_config(campaign(of, total=total, seed=2, initial_design={"share": 0.2}))
    with Engine.open(config, folder=tmp_path, store=f"sqlite:///{tmp_path / 'c.db'}") as engine:
        tick(engine)
        expected = [(p.spent, p.best, p.fidelity) for p in trace(engine.database, config.name)]
    monkeypatch.setattr(loops.Loop, "affordable", lambda _: [])  # it ends with its first design
    monkeypatch.setattr(loops.Loop, "recommendation", lambda loop: loop.X[0, :-1])
    found = [point[:3] for point in loops.run(problem(name), method, 2, total)]
    if method != "log_ei":
        found.pop()  # the recommendation
    assert [p[2] for p in found] == [p[2] for p in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine[0] == pytest.approx(theirs[0])
        assert mine[1] == (None if theirs[1] is None else pytest.approx(theirs[1]))


@pytest.mark.parametrize("method", ["mf_mes", "mf_kg", "log_ei"])
def test_a_loop_pays_for_every_answer_and_stays_in_its_budget(loops: ModuleType, method: str) -> None:
    from problems import problem

    of = problem("branin", levels=["low", "high"])
    costs = {f["name"]: f["cost"] for f in of["fidelities"]}
    counts = {"low": 5, "high": 1} if method != "log_ei" else {"high": 2}
    total = 2.08 if method != "log_ei" else 4.5
    points = loops.run(of, method, 0, total, counts)
    assert points == loops.run(of, method, 0, total, counts)
    spent, best = 0.0, None
    for cost, so_far, fidelity, value in points:
        spent += costs[fidelity]
        if fidelity == "high":
            best = value if best is None else min(best, value)
        assert cost == pytest.approx(spent)
        assert so_far == best
    assert total - min(costs[p[2]] for p in points) < spent <= total * (1 + 1e-9)
    assert points[-1][2] == "high"  # of the multi-fidelity loops the recommendation, for which money is kept
    for fidelity, n in counts.items():
        assert sum(p[2] == fidelity for p in points) >= n


def test_the_knowledge_gradient_is_that_of_botorch(loops: ModuleType) -> None:
    """Its values and gradients, with a cost and a projection to the target."""
    from botorch.acquisition.cost_aware import InverseCostWeightedUtility
    from botorch.acquisition.knowledge_gradient import qMultiFidelityKnowledgeGradient
    from botorch.models.gp_regression_fidelity import SingleTaskMultiFidelityGP
    from botorch.sampling import SobolQMCNormalSampler

    generator = torch.Generator().manual_seed(0)
    X = torch.rand(12, 3, generator=generator, dtype=torch.float64)
    X[:, -1] = torch.tensor([0.5, 0.75, 1.0], dtype=torch.float64).repeat(4)
    Y = 30.0 * torch.sin(3.0 * X.sum(dim=-1, keepdim=True)) + 5.0  # standardised by the model
    model = SingleTaskMultiFidelityGP(X, Y, data_fidelities=[2]).eval()
    levels = torch.tensor([0.5, 0.75, 1.0], dtype=torch.float64)
    utility = InverseCostWeightedUtility(loops.LevelCost(levels, torch.tensor([0.01, 0.1, 1.0])))
    points = torch.rand(5, 1 + 8, 3, generator=generator, dtype=torch.float64)
    found = []
    for kind in (qMultiFidelityKnowledgeGradient, loops.KnowledgeGradient):
        acquisition = kind(
            model,
            num_fantasies=8,
            sampler=SobolQMCNormalSampler(torch.Size([8]), seed=0),
            current_value=Y.max(),
            cost_aware_utility=utility,
            project=loops.at_target,
        )
        at = points.clone().requires_grad_()
        values = acquisition(at)
        values.sum().backward()
        found.append((values.detach(), at.grad))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-5, atol=1e-7)
    assert found[0][0].std() > 1e-3


def test_an_unknown_method(loops: ModuleType) -> None:
    with pytest.raises(ValueError, match="mf_kg"):
        loops.run({}, "kg", 0, 1.0)
