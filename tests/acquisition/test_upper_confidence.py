"""MF-UCB against BoTorch's bound, and against bounds of models that were told the answer."""

import math

import pytest
import torch
from acquisition_cases import GRID, context, model, queries
from botorch.acquisition import UpperConfidenceBound
from torch import Tensor

from activelearning.acquisition.posterior import at_fidelity, joint_posterior
from activelearning.acquisition.upper_confidence import MultiFidelityUCB
from activelearning.errors import ConfigError
from surrogates.coregionalised_gp import CoregionalisedGP


def best_mean(gp: CoregionalisedGP, maximize: bool = True) -> float:
    mean = joint_posterior(gp, at_fidelity(torch.cat([GRID, GRID], dim=-1), 0).unsqueeze(-2))[0]
    return float(mean.max() if maximize else mean.min())


def bound(gp: CoregionalisedGP, rows: Tensor, beta: float, maximize: bool = True) -> Tensor:
    """Of the target at the queries' features, by BoTorch; the negative target's where it is minimised."""
    acquisition = UpperConfidenceBound(gp, beta=beta, maximize=maximize)
    return acquisition(at_fidelity(rows, 0).unsqueeze(-2)).detach()


def test_parameters() -> None:
    for beta in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match=r"acquisition\.beta"):
            MultiFidelityUCB(beta=beta)
    with pytest.raises(ConfigError, match="reference"):
        MultiFidelityUCB().build(context(model(), reference=GRID[:0]))


@pytest.mark.parametrize("beta", [0.5, 4.0, 9.0])
@pytest.mark.parametrize("maximize", [True, False])
def test_a_target_without_noise_is_worth_its_bound_over_the_best_expected(
    beta: float, maximize: bool
) -> None:
    gp, rows = model(noise=1e-9), queries()[:9]
    found = MultiFidelityUCB(beta).build(context(gp, reference=GRID, maximize=maximize))(rows)
    expected = bound(gp, rows, beta, maximize) - (1.0 if maximize else -1.0) * best_mean(gp, maximize)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("answer", [-1.0, 0.2, 3.0])
@pytest.mark.parametrize("pending", [None, [[0.3, 1.0], [0.8, 0.0]]])
def test_weight_is_the_share_by_which_any_answer_narrows_the_bound(
    answer: float, pending: list[list[float]] | None
) -> None:
    gp, rows = model(0.8, scale=40.0), queries()
    known = gp
    work = torch.empty(0, 2, dtype=torch.float64)
    if pending is not None:
        work = torch.tensor(pending, dtype=torch.float64)
        # What the model expects as answers leaves means as they are and narrows variances.
        known = gp.condition_on_observations(work, joint_posterior(gp, work)[0].unsqueeze(-1))
    found = MultiFidelityUCB(4.0).build(context(gp, reference=GRID, pending=work))(rows)
    for row, utility in zip(rows, found.tolist(), strict=True):
        told = known.condition_on_observations(
            row.unsqueeze(0), torch.tensor([[answer * 40.0 ** float(row[1])]], dtype=torch.float64)
        )
        at = at_fidelity(row.unsqueeze(0), 0)
        before, after = (float(joint_posterior(g, at)[1]) ** 0.5 for g in (known, told))
        plausible = float(bound(known, at, 4.0)) - best_mean(gp)
        expected = plausible * (1.0 - after / before) if plausible > 0 else plausible
        assert utility == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_the_target_s_turn_comes_when_a_cheap_source_is_exhausted() -> None:
    """Per cost the source goes first at a place; once it is asked there, it gives way."""
    both = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    answers = torch.tensor([0.2, 0.2, -0.9, -0.9], dtype=torch.float64).unsqueeze(-1)
    gp = model(0.9, noise=1e-3).condition_on_observations(both, answers)  # their offset is known
    pair = torch.tensor([[0.3, 0.0], [0.3, 1.0]], dtype=torch.float64)
    costs = torch.tensor([1.0, 0.1], dtype=torch.float64)
    scorer = MultiFidelityUCB().build(context(gp, reference=GRID))
    assert int((scorer(pair) / costs).argmax()) == 1
    scorer.add_pending(pair[1:])
    after = scorer(pair)
    assert (after > 0).all()
    assert int((after / costs).argmax()) == 0


def test_what_cannot_be_the_best_is_wanted_at_no_fidelity() -> None:
    rows = queries()
    found = MultiFidelityUCB(0.01).build(context(model(), reference=GRID))(rows)
    excess = bound(model(), rows, 0.01) - best_mean(model())
    lost = excess < 0
    assert lost.any()
    torch.testing.assert_close(found[lost], excess[lost])
