"""MF-GIBBON against brute-force information gain, BoTorch's implementation, differences and one-by-one values."""

import math

import numpy as np
import pytest
import torch
from acquisition_cases import GRID, NONE, context, model, queries
from botorch.acquisition.max_value_entropy_search import qLowerBoundMaxValueEntropy
from botorch.models import SingleTaskGP
from scipy.special import digamma
from scipy.stats import norm, spearmanr

from activelearning.acquisition.gibbon import MultiFidelityGibbon, truncation_shrinkage
from activelearning.acquisition.posterior import at_fidelity, joint_posterior
from activelearning.contracts import Acquisition
from activelearning.errors import ConfigError
from surrogates.coregionalised_gp import CoregionalisedGP


def test_contract_and_parameters() -> None:
    assert isinstance(MultiFidelityGibbon(), Acquisition)
    with pytest.raises(ConfigError, match=r"acquisition\.n_max_samples"):
        MultiFidelityGibbon(n_max_samples=0)
    with pytest.raises(ConfigError, match="reference"):
        MultiFidelityGibbon().build(context(model(), reference=GRID[:0]))


def test_shrinkage_is_the_variance_of_a_truncated_normal() -> None:
    from scipy.stats import truncnorm

    gamma = torch.tensor([-12.0, -3.0, -1.0, 0.0, 0.5, 2.0, 6.0], dtype=torch.float64)
    expected = [1.0 - truncnorm.var(-np.inf, g) for g in gamma.tolist()]
    np.testing.assert_allclose(truncation_shrinkage(gamma).numpy(), expected, atol=2e-7)
    far = truncation_shrinkage(torch.tensor([-1e8, -31.0, -29.0, 40.0], dtype=torch.float64))
    assert (far >= 0).all()
    assert (far <= 1).all()
    assert float(far[1]) == pytest.approx(1 - 1 / 31**2, abs=1e-5)


def test_agrees_with_botorch_on_one_fidelity() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(8, 2, generator=generator, dtype=torch.float64)
    X[:, 1] = 0.0
    Y = torch.sin(6.0 * X[:, :1])
    gp = SingleTaskGP(X, Y, outcome_transform=None, input_transform=None)
    gp.eval()
    scorer = MultiFidelityGibbon(n_max_samples=64).build(context(gp, reference=GRID))
    rows = at_fidelity(queries(), 0)
    theirs = qLowerBoundMaxValueEntropy(gp, rows, num_mv_samples=64)
    theirs.posterior_max_values = scorer.max_values.unsqueeze(-1)
    torch.testing.assert_close(scorer(rows), theirs(rows.unsqueeze(-2)), rtol=1e-4, atol=1e-6)

    pending = torch.tensor([[0.3, 0.0], [0.62, 0.0]], dtype=torch.float64)
    repulsed = MultiFidelityGibbon(n_max_samples=64, pending="repulsion").build(
        context(gp, reference=GRID, pending=pending)
    )
    theirs.set_X_pending(pending)
    theirs.posterior_max_values = repulsed.max_values.unsqueeze(-1)
    torch.testing.assert_close(repulsed(rows), theirs(rows.unsqueeze(-2)), rtol=1e-3, atol=1e-5)


def spacing_entropy(y: np.ndarray) -> float:
    """Differential entropy by m-spacings (Vasicek 1976, with the digamma correction)."""
    y, n = np.sort(y), len(y)
    m = int(math.sqrt(n))
    return float(np.log(np.maximum(y[m:] - y[:-m], 1e-300)).mean() + math.log(n + 1) - digamma(m))


def test_is_a_lower_bound_that_ranks_as_brute_force_does() -> None:
    """Information of y about the event that its own t is at most t*: the bound's own model, by quadrature."""
    gp, rows = model(0.8, scale=40.0), queries()
    scorer = MultiFidelityGibbon(n_max_samples=16).build(context(gp, reference=GRID))
    found = scorer(rows).tolist()
    exact = []
    for row in rows:
        pair = torch.stack([row, at_fidelity(row, 0)])
        mean, covariance = joint_posterior(gp, pair)
        noisy = float(joint_posterior(gp, row.unsqueeze(0), noisy=True)[1])
        m, v = float(mean[1]), float(covariance[1, 1])
        rho = float(covariance[0, 1]) / math.sqrt(v * noisy)
        total = 0.0
        # Standardised y given t ≤ t* has the density of an extended skew normal (Moss et al. 2021, section 3).
        y = np.linspace(-9.0, 9.0, 4001)
        for value in scorer.max_values.tolist():
            gamma = (value - m) / math.sqrt(v)
            density = norm.pdf(y) * norm.cdf((gamma - rho * y) / math.sqrt(1 - rho**2)) / norm.cdf(gamma)
            entropy = -np.trapezoid(density * np.log(np.maximum(density, 1e-300)), y)
            total += 0.5 * math.log(2 * math.pi * math.e) - entropy
        exact.append(total / len(scorer.max_values))
    assert all(f <= e + 1e-6 for f, e in zip(found, exact, strict=True))
    assert spearmanr(found, exact).statistic > 0.98


@pytest.mark.parametrize("pending", [None, [[0.3, 1.0], [0.6, 1.0], [0.8, 0.0]]])
def test_follows_the_information_about_the_maximum(pending: list[list[float]] | None) -> None:
    """Monte Carlo over joint draws, nothing of the bound's model assumed: I(y; max of t over the grid | pending)."""
    gp, rows = model(0.9), queries(7)
    work = NONE if pending is None else torch.tensor(pending, dtype=torch.float64)
    grid = at_fidelity(torch.cat([GRID, GRID], dim=-1), 0)
    everything = torch.cat([grid, rows, work])
    mean, covariance = joint_posterior(gp, everything)
    noise = gp.noise_variance(everything)
    noise[: len(grid)] = 1e-9
    covariance = (covariance + torch.diag(noise)).numpy()
    n = len(grid) + len(rows)
    known, unknown = slice(n, None), slice(0, n)
    gain = covariance[unknown, known] @ np.linalg.pinv(covariance[known, known])
    factor = np.linalg.cholesky(covariance[unknown, unknown] - gain @ covariance[known, unknown])
    spread = np.linalg.cholesky(covariance[known, known])
    random = np.random.default_rng(0)
    information = np.zeros(len(rows))
    repeats, size = (1, 100_000) if pending is None else (12, 20_000)
    for _ in range(repeats):
        centre = mean.numpy()[unknown] + gain @ (spread @ random.standard_normal(len(work)))
        draws = centre[:, None] + factor @ random.standard_normal((n, size))
        order = np.argsort(draws[: len(grid)].max(axis=0))
        shuffled = random.permutation(order)  # what the estimator says where there is no information
        for i in range(len(rows)):
            y = draws[len(grid) + i]
            told, nothing = (
                np.mean([spacing_entropy(y[part]) for part in np.array_split(order_, 25)])
                for order_ in (order, shuffled)
            )
            information[i] += (nothing - told) / repeats
    scorer = MultiFidelityGibbon(n_max_samples=256).build(context(gp, reference=GRID, pending=work))
    found = scorer(rows).numpy()
    assert (found <= information + 0.05).all()
    # Not one by one: the bound leaves out what y says about the maximum other than by t at its own features.
    assert np.corrcoef(found, information)[0, 1] > 0.9
    # What it picks is worth nearly what the best is worth.
    assert information[found.argmax()] > 0.75 * information.max()


def test_a_reversed_source_scores_as_a_straight_one() -> None:
    straight = MultiFidelityGibbon().build(context(model(0.9), reference=GRID))
    reversed_ = MultiFidelityGibbon().build(context(model(-0.9), reference=GRID))
    torch.testing.assert_close(straight(queries()), reversed_(queries()))


def test_units_do_not_matter() -> None:
    plain = MultiFidelityGibbon().build(context(model(scale=1.0), reference=GRID))
    other = MultiFidelityGibbon().build(context(model(scale=1e6), reference=GRID))
    torch.testing.assert_close(plain(queries()), other(queries()))


def test_more_informative_queries_score_higher() -> None:
    rows = queries()
    scores = [
        MultiFidelityGibbon().build(context(model(c), reference=GRID))(rows) for c in (0.0, 0.5, 0.8, 0.99)
    ]
    x = scores[-1][9:].argmax() + 9
    values = [float(s[x]) for s in scores]
    assert values == sorted(values)
    target = scores[-1][:9]
    assert (scores[-1][9:] <= target + 1e-6).all()
    noisy = MultiFidelityGibbon().build(context(model(0.99, noise=1.0), reference=GRID))(rows)
    assert float(noisy[x]) < float(scores[-1][x])


def test_minimising_is_maximising_the_negative() -> None:
    gp = model()
    mirrored = CoregionalisedGP(
        gp.hyperparameters, gp.units, gp.train_inputs[0], -gp.train_targets, gp.train_noise
    )
    found = MultiFidelityGibbon(n_max_samples=2000).build(context(gp, reference=GRID, maximize=False))
    expected = MultiFidelityGibbon(n_max_samples=2000).build(context(mirrored, reference=GRID))
    torch.testing.assert_close(found(queries()), expected(queries()), rtol=0.1, atol=0.01)


@pytest.mark.parametrize("rule", ["conditioning", "repulsion"])
def test_batched_values_and_gradients(rule: str) -> None:
    work = torch.tensor([[0.3, 1.0], [0.8, 0.0]], dtype=torch.float64)
    acquisition = MultiFidelityGibbon(pending=rule)  # type: ignore[arg-type]
    scorer = acquisition.build(context(model(), reference=GRID, pending=work))
    rows = torch.cat([queries(50), queries(9)])
    values = scorer(rows)
    torch.testing.assert_close(values, torch.cat([scorer(row.unsqueeze(0)) for row in rows]))
    column = rows[:12, 1:]
    assert torch.autograd.gradcheck(
        lambda x: scorer(torch.cat([x, column], dim=-1)), (rows[:12, :1].clone().requires_grad_(True),)
    )


def test_pending_work_takes_away_what_it_tells() -> None:
    rows = queries()
    scorer = MultiFidelityGibbon().build(context(model(), reference=GRID))
    before = scorer(rows)
    scorer.add_pending(rows[4:5])
    after = scorer(rows)
    assert (after >= 0).all()
    assert float(after[4]) < 0.3 * float(before[4])
    assert float(after[13]) < 0.5 * float(before[13])  # the source at the same features
    told = MultiFidelityGibbon().build(context(model(), reference=GRID, pending=rows[4:5]))
    torch.testing.assert_close(told(rows), after)


def test_same_seed_same_scores_and_a_large_reference_is_thinned() -> None:
    reference = torch.linspace(0, 1, 500, dtype=torch.float64).unsqueeze(-1)
    acquisition = MultiFidelityGibbon(n_candidates=50)
    first = acquisition.build(context(model(), reference=reference, seed=3))
    second = acquisition.build(context(model(), reference=reference, seed=3))
    other = acquisition.build(context(model(), reference=reference, seed=4))
    assert torch.equal(first(queries()), second(queries()))
    assert not torch.equal(first(queries()), other(queries()))
