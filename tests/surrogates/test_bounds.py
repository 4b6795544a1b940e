"""Expectation propagation against numerical integration."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from surrogates.bounds import bound_sites, truncation_ratio


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def posterior(
    mean: torch.Tensor, covariance: torch.Tensor, target: torch.Tensor, variance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Moments and log evidence under Gaussian pseudo-observations."""
    total = covariance + torch.diag(variance)
    gain = covariance @ torch.linalg.inv(total)
    evidence = float(multivariate_normal(mean.numpy(), total.numpy()).logpdf(target.numpy()))
    return mean + gain @ (target - mean), covariance - gain @ covariance, evidence


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("bound", [-6.0, -1.0, 0.3, 4.0])
@pytest.mark.parametrize("noise", [1e-4, 0.5])
def test_one_bound_has_the_exact_moments(sign: float, bound: float, noise: float) -> None:
    m, v = 0.4, 1.7
    target, variance, log_scale = bound_sites(
        tensor(m), tensor(v).reshape(1, 1), tensor(bound), tensor(sign), tensor(noise)
    )

    def density(f: float) -> float:
        return float(norm.pdf(f, m, math.sqrt(v)) * norm.cdf(sign * (bound - f) / math.sqrt(noise)))

    limits = {"points": [bound], "limit": 500, "epsabs": 0.0, "epsrel": 1e-9}
    mass = quad(density, -15, 15, **limits)[0]
    mean = quad(lambda f: f * density(f), -15, 15, **limits)[0] / mass
    second = quad(lambda f: (f - mean) ** 2 * density(f), -15, 15, **limits)[0] / mass

    found_mean, found_variance, evidence = posterior(tensor(m), tensor(v).reshape(1, 1), target, variance)
    assert float(found_mean) == pytest.approx(mean, abs=1e-4)
    assert float(found_variance) == pytest.approx(second, abs=1e-4)
    assert evidence + log_scale == pytest.approx(math.log(mass), abs=1e-4)


def test_two_correlated_bounds_come_close_to_integration() -> None:
    mean = tensor(0.2, -0.3)
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.5]], dtype=torch.float64)
    bound, sign, noise = tensor(-0.5, 0.5), tensor(1.0, -1.0), tensor(0.05, 0.1)
    target, variance, log_scale = bound_sites(mean, covariance, bound, sign, noise)
    found_mean, found_covariance, evidence = posterior(mean, covariance, target, variance)

    prior = multivariate_normal(mean.numpy(), covariance.numpy())
    grid = np.linspace(-7.0, 7.0, 1201)
    first, second = np.meshgrid(grid, grid, indexing="ij")
    weight = prior.pdf(np.stack([first, second], axis=-1))
    for value, b, s, n in zip((first, second), bound.tolist(), sign.tolist(), noise.tolist(), strict=True):
        weight = weight * norm.cdf(s * (b - value) / math.sqrt(n))
    mass = weight.sum()
    exact = np.array([(first * weight).sum(), (second * weight).sum()]) / mass
    centred = first - exact[0], second - exact[1]
    exact_covariance = np.array([[(a * b * weight).sum() / mass for b in centred] for a in centred])

    # EP is not exact for two factors; its errors here are known to be of the order of 1e-2.
    np.testing.assert_allclose(found_mean.numpy(), exact, atol=0.03)
    np.testing.assert_allclose(found_covariance.numpy(), exact_covariance, atol=0.03)
    assert evidence + log_scale == pytest.approx(math.log(mass * (grid[1] - grid[0]) ** 2), abs=0.03)


def test_bounds_that_say_nothing_change_nothing() -> None:
    mean = tensor(0.0, 0.0, 0.0)
    covariance = torch.eye(3, dtype=torch.float64) + 0.5
    target, variance, log_scale = bound_sites(
        mean, covariance, tensor(50.0, -50.0, 40.0), tensor(1.0, -1.0, 1.0), tensor(0.1, 0.1, 0.1)
    )
    found_mean, found_covariance, evidence = posterior(mean, covariance, target, variance)
    torch.testing.assert_close(found_mean, mean, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(found_covariance, covariance, atol=1e-5, rtol=0.0)
    assert evidence + log_scale == pytest.approx(0.0, abs=1e-5)


def test_truncation_ratio_far_out() -> None:
    z = tensor(-1e6, -40.0, -5.0, 0.0, 5.0, 40.0)
    expected = tensor(1e6, 40.0249688, 5.1865036, 0.7978845608, 1.4867199e-06, 0.0)
    torch.testing.assert_close(truncation_ratio(z), expected, rtol=1e-6, atol=1e-12)
