import math

import pytest
import torch
from botorch.acquisition import ExpectedImprovement
from scipy.stats import norm
from torch import Tensor

from activelearning.acquisition.random import RandomAcquisition
from activelearning.acquisition.target_ei import TargetExpectedImprovement, standard_improvement
from activelearning.contracts import Acquisition, AcquisitionContext
from surrogates.coregionalised_gp import CoregionalisedGP, Hyperparameters, Units

NONE = torch.empty(0, 2, dtype=torch.float64)
GRID = torch.linspace(0, 1, 20, dtype=torch.float64).unsqueeze(-1)


def model(correlation: float = -0.7, noise: float = 1e-2) -> CoregionalisedGP:
    hyperparameters = Hyperparameters(
        torch.tensor([0.3], dtype=torch.float64),
        torch.ones(2, dtype=torch.float64),
        torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64),
        torch.full((2,), noise, dtype=torch.float64),
    )
    units = Units(torch.tensor([5.0, 0.0]).double(), torch.tensor([2.0, 10.0]).double())
    X = torch.tensor([[0.1, 0], [0.5, 1], [0.9, 0]], dtype=torch.float64)
    Y = torch.tensor([0.3, -0.2, -1.0], dtype=torch.float64)
    return CoregionalisedGP(hyperparameters, units, X, Y, torch.full((3,), noise, dtype=torch.float64))


def context(
    best: float | None = 6.0, *, maximize: bool = True, pending: Tensor = NONE, seed: int = 0
) -> AcquisitionContext:
    return AcquisitionContext(model(), [], 0, maximize, best, GRID, pending, seed)


def queries() -> Tensor:
    return torch.cat([torch.cat([GRID, torch.full_like(GRID, m)], dim=-1) for m in (0.0, 1.0)])


@pytest.mark.parametrize("maximize", [True, False])
def test_expected_improvement_is_botorch_s_times_squared_correlation(maximize: bool) -> None:
    assert isinstance(TargetExpectedImprovement(), Acquisition)
    gp, rows = model(), queries()
    target = torch.cat([rows[:, :1], torch.zeros_like(rows[:, :1])], dim=-1)
    ei = ExpectedImprovement(gp, best_f=6.0, maximize=maximize)(target.unsqueeze(-2))
    joint = gp(torch.stack([rows, target], dim=-2)).covariance_matrix
    noisy = joint[:, 0, 0] + gp.noise_variance(rows)
    squared = joint[:, 0, 1].square() / (noisy * joint[:, 1, 1])
    found = TargetExpectedImprovement().build(context(maximize=maximize))(rows)
    torch.testing.assert_close(found, ei * squared)
    assert (found > 0).all()


def test_before_any_target_answer_the_expected_best_stands_in() -> None:
    scores = TargetExpectedImprovement().build(context(None))(queries())
    assert scores.isfinite().all()
    assert float(scores.max()) > 0


def test_pending_answers_lower_it() -> None:
    rows = queries()
    scorer = TargetExpectedImprovement().build(context())
    before = scorer(rows)
    scorer.add_pending(rows[10:11])
    assert (scorer(rows)[:20] <= before[:20] + 1e-12).all()  # at the target
    assert float(scorer(rows)[10]) < 0.5 * float(before[10])


def test_gradients() -> None:
    scorer = TargetExpectedImprovement().build(context(pending=queries()[3:4]))
    column = queries()[::4, 1:]
    x = queries()[::4, :1].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: scorer(torch.cat([x, column], dim=-1)), (x,))


def test_standard_improvement_far_to_the_left() -> None:
    z = torch.tensor([-30.0, -12.0, -8.1, -7.9, -2.0, 0.0, 3.0], dtype=torch.float64)
    expected = [_improvement(v) for v in z.tolist()]
    torch.testing.assert_close(
        standard_improvement(z), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=0.0
    )


def _improvement(z: float) -> float:
    if z > -7.0:
        return float(norm.pdf(z) + z * norm.cdf(z))
    # ∫ Φ from −∞ to z, a form without cancellation.
    x = torch.linspace(z - 40.0 / abs(z), z, 20_001, dtype=torch.float64)
    return float(torch.trapezoid(torch.special.log_ndtr(x).exp(), x))


def test_random_utilities_depend_on_the_query_and_the_seed_alone() -> None:
    assert isinstance(RandomAcquisition(), Acquisition)
    rows = queries()
    scorer = RandomAcquisition().build(context(seed=1))
    values = scorer(rows)
    assert ((values > 0) & (values < 1)).all()
    torch.testing.assert_close(values.flip(0), scorer(rows.flip(0)), rtol=0.0, atol=0.0)
    scorer.add_pending(rows[:3])
    assert torch.equal(values, scorer(rows))
    assert not torch.equal(values, RandomAcquisition().build(context(seed=2))(rows))
    assert len(values.unique()) == len(values)
    many = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spread = scorer(many)
    assert float(spread.mean()) == pytest.approx(0.5, abs=3 / math.sqrt(12 * 2000))
