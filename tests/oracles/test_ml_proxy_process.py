"""The Gaussian process of the proxy against brute force, quadrature, GPyTorch and the textbook."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm, wasserstein_distance

from activelearning.crystals.elements import element_rows, properties
from activelearning.crystals.features import descriptor_table
from oracles.ml_proxy.kernel import PARTS, Space, distances
from oracles.ml_proxy.process import CHUNK, Process, Settings, censored_sites, left_out
from oracles.ml_proxy.process_training import CHOICES, choose

CRYSTALS = (
    ({"Li": 20, "Ge": 2, "P": 4, "S": 24}, 137, (8.7, 8.7, 12.6, 90.0, 90.0, 90.0)),
    ({"Li": 24, "P": 4, "S": 20, "Cl": 4}, 216, (9.9, 9.9, 9.9, 90.0, 90.0, 90.0)),
    ({"Li": 56, "La": 24, "Zr": 16, "O": 96}, 230, (13.0, 13.0, 13.0, 90.0, 90.0, 90.0)),
    ({"Li": 6, "Ti": 12, "P": 18, "O": 72}, 167, (8.5, 8.5, 20.8, 90.0, 90.0, 120.0)),
    ({"Li": 3, "N": 1}, 191, (3.65, 3.65, 3.87, 90.0, 90.0, 120.0)),
    ({"Li": 2}, 229, (3.5, 3.5, 3.5, 90.0, 90.0, 90.0)),
)
SETTINGS = Settings(1.7, 1.4, 0.3, (0.25, 0.25, 0.25, 0.25, 0.05))


def random_descriptors(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    crystals = []
    for _ in range(n):
        others = rng.choice(["P", "S", "Cl", "O", "Ti", "La", "Ge"], rng.integers(1, 4), replace=False)
        composition = {s: float(rng.integers(1, 9)) for s in ["Li", *others]}
        a, b, c = (sum(composition.values()) * rng.uniform(8, 30)) ** (1 / 3) * rng.uniform(0.7, 1.4, 3)
        crystals.append((composition, int(rng.integers(1, 231)), (a, b, c, *rng.uniform(70, 110, 3))))
    return descriptor_table(*zip(*crystals, strict=True))


def placed(x: np.ndarray) -> tuple[np.ndarray, ...]:
    return Space.of(x).place(x)


def test_distances_are_those_of_the_textbook():
    x = descriptor_table(*zip(*CRYSTALS, strict=True))
    space = Space.of(x)
    between = distances(space.place(x), space.place(x))
    fractions = np.zeros((len(CRYSTALS), 103))
    for i, (composition, _, _) in enumerate(CRYSTALS):
        for symbol, amount in composition.items():
            fractions[i, element_rows()[symbol]] = amount / sum(composition.values())
    place = np.argsort(np.argsort(properties(["mendeleev_number"])[:, 0], kind="stable"))
    others = np.delete(fractions, element_rows()["Li"], axis=1)
    sites = np.delete(place, element_rows()["Li"])
    hellinger, mover = np.zeros((2, 5, 5))
    for i in range(5):  # the last holds lithium alone, and has no framework to move
        for j in range(5):
            hellinger[i, j] = np.sqrt(max(0.0, 2.0 - 2.0 * np.sqrt(fractions[i] * fractions[j]).sum()))
            mover[i, j] = wasserstein_distance(sites, sites, others[i], others[j])
    for part, expected in (("composition", hellinger), ("framework", mover)):
        found = between[PARTS.index(part)][:5, :5]
        # equal up to the unit, the median distance
        np.testing.assert_allclose(found / found[0, 1], expected / expected[0, 1], atol=1e-7)
    assert np.isfinite(between).all()
    upper = between[:, *np.triu_indices(len(x), 1)]
    np.testing.assert_allclose([np.median(d[d > 0.0]) for d in upper], 1.0)


def test_covariances_are_positive_definite():
    x = random_descriptors(80)
    between = distances(placed(x), placed(x))
    for settings in CHOICES:
        covariance = settings.covariance(between)
        np.testing.assert_allclose(np.diag(covariance), settings.amplitude**2 + settings.level**2)
        assert np.linalg.eigvalsh(covariance).min() > -1e-9


def test_without_bounds_it_is_an_exact_process():
    import gpytorch
    import torch

    x, new = random_descriptors(40), random_descriptors(7, seed=1)
    y = np.random.default_rng(2).normal(-5.0, 2.0, 40)
    process = Process.fit(x, y, np.zeros(40, dtype=bool), SETTINGS)
    space = Space.of(x)
    everything = np.vstack([x, new])
    joint = torch.from_numpy(SETTINGS.covariance(distances(space.place(everything), space.place(everything))))

    class Kernel(gpytorch.kernels.Kernel):
        def forward(self, a, b, **_):
            return joint[a[:, 0].long()][:, b[:, 0].long()]

    class Model(gpytorch.models.ExactGP):
        def __init__(self, rows, values, likelihood):
            super().__init__(rows, values, likelihood)
            self.mean, self.kernel = gpytorch.means.ZeroMean(), Kernel()

        def forward(self, rows):
            return gpytorch.distributions.MultivariateNormal(self.mean(rows), self.kernel(rows))

    rows = torch.arange(47, dtype=torch.float64)[:, None]
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    likelihood.noise = SETTINGS.noise**2
    model = Model(rows[:40], torch.from_numpy(y - np.median(y)), likelihood).double().eval()
    with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
        expected = model(rows[40:])
    mean, variance = process.predict(new)
    np.testing.assert_allclose(mean - np.median(y), expected.mean.numpy(), atol=1e-6)
    np.testing.assert_allclose(variance, expected.variance.numpy(), atol=1e-6)


def test_one_bound_has_the_moments_of_quadrature():
    covariance = np.array([[2.0, 1.2], [1.2, 1.5]])
    values, noise = np.array([0.7, -1.0]), 0.4
    means, variances = censored_sites(covariance, values, np.array([False, True]), noise)
    gain = np.linalg.solve(covariance + np.diag(variances), covariance).T
    mean, posterior = gain @ means, covariance - gain @ covariance
    # p(f1, f2) ∝ N(f; 0, K) N(0.7; f1, noise²) Φ((-1 - f2) / noise), on a grid
    f1, f2 = np.meshgrid(np.linspace(-6, 6, 801), np.linspace(-8, 6, 801), indexing="ij")
    density = multivariate_normal([0, 0], covariance).pdf(np.stack([f1, f2], axis=-1))
    density *= norm.pdf(values[0], f1, noise) * norm.cdf((values[1] - f2) / noise)
    density /= density.sum()
    for f, m, v in ((f1, mean[0], posterior[0, 0]), (f2, mean[1], posterior[1, 1])):
        exact = (f * density).sum()
        # With one bound the approximation is exact in these moments.
        assert m == pytest.approx(exact, abs=1e-4)
        assert v == pytest.approx((f**2 * density).sum() - exact**2, abs=1e-4)


def test_many_bounds_agree_with_sampling():
    rng = np.random.default_rng(0)
    x = random_descriptors(14)
    covariance = SETTINGS.covariance(distances(placed(x), placed(x)))
    is_bound = np.arange(14) < 5
    noise = 0.3
    values = rng.multivariate_normal(np.zeros(14), covariance) + 0.3 * rng.normal(size=14)
    values[is_bound] -= 0.2  # bounds that say something
    means, variances = censored_sites(covariance, values, is_bound, noise)
    gain = np.linalg.solve(covariance + np.diag(variances), covariance).T
    # Draws from the process given the measured values, weighted by the likelihood of the bounds.
    exact = ~is_bound
    k = np.linalg.solve(covariance[np.ix_(exact, exact)] + noise**2 * np.eye(9), covariance[exact]).T
    draws = rng.multivariate_normal(k @ values[exact], covariance - k @ covariance[exact], 400_000)
    weights = norm.cdf((values[is_bound] - draws[:, is_bound]) / noise).prod(axis=1)
    weights /= weights.sum()
    assert 1.0 / (weights**2).sum() > 3_000  # enough draws count
    assert gain @ means == pytest.approx(weights @ draws, abs=0.06)


@pytest.mark.parametrize(("bound", "low", "high"), [(-3.0, -4.0, -1.0), (5.0, -1e-3, 1e-3)])
def test_a_bound_pulls_down_only_where_it_is_broken(bound, low, high):
    covariance = np.array([[1.0, 0.9], [0.9, 1.0]])
    means, variances = censored_sites(covariance, np.array([0.0, bound]), np.array([False, True]), 0.1)
    rows = np.isfinite(variances)
    weights = np.linalg.solve(covariance[np.ix_(rows, rows)] + np.diag(variances[rows]), means[rows])
    assert low < (covariance[1, rows] @ weights) < high


def test_left_out_groups_are_those_of_refitting():
    x = random_descriptors(30)
    y = np.random.default_rng(3).normal(size=30)
    groups = np.random.default_rng(4).integers(0, 8, 30)
    covariance = SETTINGS.covariance(distances(placed(x), placed(x)))
    noise = np.random.default_rng(5).uniform(0.1, 0.5, 30)
    mean, variance = left_out(covariance, y, noise, groups)
    for group in range(8):
        out, kept = groups == group, groups != group
        gain = np.linalg.solve(
            covariance[np.ix_(kept, kept)] + np.diag(noise[kept]), covariance[np.ix_(kept, out)]
        ).T
        np.testing.assert_allclose(mean[out], gain @ y[kept], atol=1e-9)
        expected = np.diag(covariance)[out] - (gain * covariance[np.ix_(out, kept)]).sum(axis=1)
        np.testing.assert_allclose(variance[out], expected, atol=1e-9)


def test_the_choice_follows_what_groups_tell_of_one_another():
    x = random_descriptors(60)
    true = Settings(1.7, 1.4, 0.2, (0.125, 0.125, 0.125, 0.125, 0.0))
    rng = np.random.default_rng(6)
    smooth = rng.multivariate_normal(np.zeros(60), true.covariance(distances(placed(x), placed(x))))
    none = np.zeros(60, dtype=bool)
    groups = np.arange(60) // 2
    precise = choose(x, smooth + 0.05 * rng.normal(size=60), none, groups)
    noisy = choose(x, smooth + 3.0 * rng.normal(size=60), none, groups)
    assert precise.noise < noisy.noise


def test_an_answer_does_not_depend_on_its_batch():
    x, new = random_descriptors(50), random_descriptors(CHUNK + 9, seed=8)
    is_bound = np.arange(50) % 7 == 0
    y = np.random.default_rng(1).normal(-5.0, 2.0, 50)
    process = Process.fit(x, y, is_bound, SETTINGS)
    again = Process.from_arrays(process.arrays())
    mean, variance = process.predict(new)
    assert (variance > 0.0).all()
    for i in (0, 5, CHUNK - 1, CHUNK, CHUNK + 8):
        m, v = again.predict(new[i : i + 1])
        assert (m[0], v[0]) == (mean[i], variance[i])
    assert process.predict(new[:0])[0].shape == (0,)
