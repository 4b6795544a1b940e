"""MF-MES against quadrature, brute-force Monte Carlo, BoTorch's implementation, differences and one-by-one values."""

import math

import numpy as np
import pytest
import torch
from acquisition_cases import GRID, NONE, context, model, queries
from botorch.acquisition.max_value_entropy_search import qMaxValueEntropy
from botorch.models import SingleTaskGP
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import log_ndtr
from scipy.stats import norm, spearmanr

from activelearning.acquisition.gibbon import MultiFidelityGibbon
from activelearning.acquisition.max_value_entropy import MultiFidelityMaxValueEntropy, truncation_information
from activelearning.acquisition.posterior import at_fidelity, joint_posterior
from activelearning.contracts import Acquisition
from activelearning.errors import ConfigError
from surrogates.coregionalised_gp import CoregionalisedGP


def by_quadrature(gamma: float, rho: float) -> float:
    """Entropy of y less that of y given t <= γ, by integration of the density itself."""
    s = math.sqrt(1.0 - rho**2)

    def integrand(y: float) -> float:
        log_density = norm.logpdf(y) + log_ndtr((gamma - rho * y) / s) - log_ndtr(gamma)
        return -math.exp(log_density) * log_density

    edge = min(max(gamma / rho if rho else 0.0, -11.0), 11.0)
    entropy = quad(integrand, -12.0, 12.0, points=[edge], limit=400)[0]
    return 0.5 * math.log(2.0 * math.pi * math.e) - entropy


@pytest.mark.parametrize("rho", [0.0, 0.05, -0.3, 0.6, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("gamma", [-6.0, -1.5, 0.0, 0.4, 2.0, 5.0])
def test_information_is_that_of_the_integrated_density(gamma: float, rho: float) -> None:
    found = truncation_information(torch.tensor([[gamma]]).double(), torch.tensor([rho**2]).double())
    assert float(found) == pytest.approx(by_quadrature(gamma, rho), rel=1e-5, abs=1e-8)


@given(
    gamma=st.floats(-40.0, 40.0),
    known=st.floats(0.0, 1.0),
    more=st.floats(0.0, 1.0),
)
def test_information_is_finite_not_negative_and_grows_with_the_correlation(
    gamma: float, known: float, more: float
) -> None:
    low, high = sorted([known, more])
    found = truncation_information(
        torch.tensor([[gamma, gamma]]).double(), torch.tensor([low, high]).double()
    )[0]
    assert torch.isfinite(found).all()
    assert 0.0 <= float(found[0]) <= float(found[1]) + 1e-9


def test_a_perfect_source_is_worth_what_the_target_is() -> None:
    """Wang & Jegelka (2017): γ φ(γ) / (2 Φ(γ)) - log Φ(γ)."""
    gamma = torch.linspace(-5.0, 5.0, 41, dtype=torch.float64)
    ratio = norm.pdf(gamma) / norm.cdf(gamma)
    expected = 0.5 * gamma.numpy() * ratio - log_ndtr(gamma.numpy())
    found = truncation_information(gamma[None], torch.ones(41, dtype=torch.float64))[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_contract_and_parameters() -> None:
    assert isinstance(MultiFidelityMaxValueEntropy(), Acquisition)
    with pytest.raises(ConfigError, match=r"acquisition\.n_candidates"):
        MultiFidelityMaxValueEntropy(n_candidates=0)
    with pytest.raises(ConfigError, match="reference"):
        MultiFidelityMaxValueEntropy().build(context(model(), reference=GRID[:0]))


def test_agrees_with_botorch_on_one_fidelity_without_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(8, 2, generator=generator, dtype=torch.float64)
    X[:, 1] = 0.0
    gp = SingleTaskGP(
        X,
        torch.sin(6.0 * X[:, :1]),
        torch.full((8, 1), 1e-8, dtype=torch.float64),
        outcome_transform=None,
        input_transform=None,
    )
    gp.eval()
    scorer = MultiFidelityMaxValueEntropy(n_max_samples=64).build(context(gp, reference=GRID))
    rows = at_fidelity(queries(), 0)
    theirs = qMaxValueEntropy(gp, rows, num_fantasies=1, num_mv_samples=64, num_y_samples=4096)
    theirs.posterior_max_values = scorer.max_values.reshape(-1, 1, 1)
    with torch.no_grad():
        expected = theirs(rows.unsqueeze(-2))
    np.testing.assert_allclose(scorer(rows).detach(), expected.detach(), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("pending", [None, [[0.3, 1.0], [0.6, 1.0], [0.8, 0.0]]])
def test_is_within_three_standard_errors_of_brute_force(pending: list[list[float]] | None) -> None:
    """Nested Monte Carlo from the model's joint posterior alone: pending answers, then the rest given them."""
    gp, rows = model(0.9), queries(5)
    work = NONE if pending is None else torch.tensor(pending, dtype=torch.float64)
    grid = at_fidelity(torch.cat([GRID, GRID], dim=-1), 0)
    targets = at_fidelity(rows, 0)
    everything = torch.cat([grid, rows, targets, work])
    mean, covariance = joint_posterior(gp, everything)
    noise = gp.noise_variance(everything)
    noise[: len(grid)] = 1e-10
    noise[len(grid) + len(rows) : len(everything) - len(work)] = 1e-10
    covariance = (covariance + torch.diag(noise)).numpy()
    n, g, k = len(everything) - len(work), len(grid), len(rows)
    known, unknown = slice(n, None), slice(0, n)
    gain = covariance[unknown, known] @ np.linalg.pinv(covariance[known, known])
    left = covariance[unknown, unknown] - gain @ covariance[known, unknown]
    factor, spread = np.linalg.cholesky(left), np.linalg.cholesky(covariance[known, known])
    random = np.random.default_rng(1)
    n_outer, n_inner = 600, 400
    information = np.zeros((n_outer, k))
    for outer in range(n_outer):
        centre = mean.numpy()[unknown] + gain @ (spread @ random.standard_normal(len(work)))
        best = (centre + factor @ random.standard_normal(n))[:g].max()
        for i in range(k):
            pair = [g + i, g + k + i]  # the query's noisy answer, and the target at its features
            own = left[np.ix_(pair, pair)]
            s_y, s_t = np.sqrt(own.diagonal())
            rho = own[0, 1] / (s_y * s_t)
            gamma = (best - centre[pair[1]]) / s_t
            # t below t*, then y given t; the mean of log p(y | t <= t*) is the entropy that is left, negative.
            t = norm.ppf(random.uniform(0.0, 1.0, n_inner) * norm.cdf(gamma))
            y = rho * t + math.sqrt(1.0 - rho**2) * random.standard_normal(n_inner)
            log_density = norm.logpdf(y) + log_ndtr((gamma - rho * y) / math.sqrt(1.0 - rho**2))
            left_over = log_ndtr(gamma) - log_density.mean()
            information[outer, i] = 0.5 * math.log(2.0 * math.pi * math.e) - left_over
    expected, error = information.mean(axis=0), information.std(axis=0) / math.sqrt(n_outer)
    found = (
        MultiFidelityMaxValueEntropy(n_max_samples=4000)
        .build(context(gp, reference=GRID, pending=work))(rows)
        .numpy()
    )
    own_error = error * math.sqrt(n_outer / 4000)
    assert (np.abs(found - expected) < 3.0 * np.hypot(error, own_error)).all()


def test_gibbon_is_a_bound_that_ranks_alike() -> None:
    gp, rows = model(0.8), queries(20)
    entropy = MultiFidelityMaxValueEntropy(n_max_samples=64).build(context(gp, reference=GRID))(rows)
    bound = MultiFidelityGibbon(n_max_samples=64).build(context(gp, reference=GRID))(rows)
    assert (bound <= entropy + 1e-9).all()
    assert spearmanr(bound, entropy).statistic > 0.95


def test_signs_units_and_directions_do_not_matter() -> None:
    gp, rows = model(0.9), queries()
    scores = MultiFidelityMaxValueEntropy().build(context(gp, reference=GRID))(rows)
    for other in (model(-0.9), model(0.9, scale=1e6)):
        found = MultiFidelityMaxValueEntropy().build(context(other, reference=GRID))(rows)
        torch.testing.assert_close(found, scores)
    mirrored = CoregionalisedGP(
        gp.hyperparameters, gp.units, gp.train_inputs[0], -gp.train_targets, gp.train_noise
    )
    acquisition = MultiFidelityMaxValueEntropy(n_max_samples=3000)
    down = acquisition.build(context(mirrored, reference=GRID, maximize=False))(rows)
    up = acquisition.build(context(gp, reference=GRID))(rows)
    torch.testing.assert_close(down, up, rtol=0.1, atol=0.01)


def test_batched_values_and_gradients() -> None:
    work = torch.tensor([[0.3, 1.0], [0.8, 0.0]], dtype=torch.float64)
    scorer = MultiFidelityMaxValueEntropy().build(context(model(), reference=GRID, pending=work))
    rows = torch.cat([queries(50), queries(9)])
    torch.testing.assert_close(scorer(rows), torch.cat([scorer(row.unsqueeze(0)) for row in rows]))
    column = rows[:12, 1:]
    assert torch.autograd.gradcheck(
        lambda x: scorer(torch.cat([x, column], dim=-1)), (rows[:12, :1].clone().requires_grad_(True),)
    )


def test_pending_work_takes_away_what_it_tells() -> None:
    rows = queries()
    scorer = MultiFidelityMaxValueEntropy(n_max_samples=256).build(context(model(), reference=GRID))
    before = scorer(rows)
    scorer.add_pending(rows[4:5])
    after = scorer(rows)
    assert float(after[4]) < 0.3 * float(before[4])
    assert float(after[13]) < 0.5 * float(before[13])  # the source at the same features
    told = MultiFidelityMaxValueEntropy(n_max_samples=256).build(
        context(model(), reference=GRID, pending=rows[4:5])
    )
    torch.testing.assert_close(told(rows), after)
