import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surrogates.coregionalised_gp import prior_covariance
from surrogates.hyperparameters import Coordinates, maximise_posterior, negative_log_posterior
from surrogates.map_fit import Data, fit_map, with_sites


def coordinates(n_features: int = 2, n_fidelities: int = 3, target: int = 1) -> Coordinates:
    return Coordinates.of(n_features, n_fidelities, target)


@given(st.lists(st.floats(-4.0, 4.0), min_size=6, max_size=6))
def test_every_point_is_a_correlation_matrix(values: list[float]) -> None:
    c = coordinates(n_fidelities=4, target=2)
    theta = c.prior_mode()
    theta[c.parts[2]] = torch.tensor(values, dtype=torch.float64)
    R = c.decode(theta).correlation
    torch.testing.assert_close(R, R.T)
    torch.testing.assert_close(R.diagonal(), torch.ones(4, dtype=torch.float64))
    assert float(torch.linalg.eigvalsh(R).min()) > -1e-12


def test_first_partials_are_correlations_with_the_target() -> None:
    c = coordinates(n_fidelities=3, target=1)
    theta = c.prior_mode()
    theta[c.parts[2]] = torch.tensor([-0.9, 0.4, 0.1], dtype=torch.float64).atanh()
    R = c.decode(theta).correlation
    assert float(R[1, 0]) == pytest.approx(-0.9)
    assert float(R[1, 2]) == pytest.approx(0.4)
    # Partial correlation of the two others given the target: (r02 − r01 r12)/√((1 − r01²)(1 − r12²)).
    assert float(R[0, 2]) == pytest.approx(-0.36 + 0.1 * math.sqrt((1 - 0.81) * (1 - 0.16)))


def test_prior_favours_no_sign() -> None:
    c = coordinates()
    torch.testing.assert_close(c.decode(c.prior_mode()).correlation, torch.eye(3).double())
    theta = c.prior_mode()
    theta[c.parts[2]] = torch.tensor([0.7, -0.2, 1.1], dtype=torch.float64)
    mirrored = theta.clone()
    mirrored[c.parts[2]] *= -1.0
    assert float(c.negative_log_prior(theta)) == pytest.approx(float(c.negative_log_prior(mirrored)))


def sample(n: int, correlation: float, seed: int = 0) -> tuple[Coordinates, Data]:
    """Answers of two fidelities drawn from the model itself."""
    c = Coordinates.of(2, 2, 0)
    theta = c.prior_mode()
    theta[c.parts[0]] = math.log(0.4)
    theta[c.parts[2]] = math.atanh(correlation)
    theta[c.parts[3]] = torch.tensor([1e-4, 1e-2], dtype=torch.float64).log()
    truth = c.decode(theta)
    generator = torch.Generator().manual_seed(seed)
    X = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    X[:, 2] = torch.arange(n) % 2
    covariance = prior_covariance(truth, X, X) + torch.diag(truth.noise[X[:, 2].long()])
    Y = torch.linalg.cholesky(covariance) @ torch.randn(n, generator=generator, dtype=torch.float64)
    return c, Data(X, Y, torch.zeros(n).double(), torch.zeros(n).double())


def test_gradient_agrees_with_differences() -> None:
    c, data = sample(16, -0.6)
    gaussian = with_sites(data, c.decode(c.prior_mode()))
    theta = c.prior_mode() + 0.3 * torch.randn(
        c.size, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    _, gradient = negative_log_posterior(theta, c, gaussian.X, gaussian.Y, gaussian.noise)
    for i in range(c.size):
        step = torch.zeros(c.size, dtype=torch.float64)
        step[i] = 1e-5
        up, down = (
            negative_log_posterior(theta + s * step, c, gaussian.X, gaussian.Y, gaussian.noise)[0]
            for s in (1.0, -1.0)
        )
        assert float(gradient[i]) == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-5)


def test_likelihood_is_the_multivariate_normal() -> None:
    c, data = sample(10, 0.5)
    theta = c.prior_mode()
    gaussian = with_sites(data, c.decode(theta))
    parameters = c.decode(theta)
    covariance = prior_covariance(parameters, data.X, data.X) + torch.diag(gaussian.noise(parameters.noise))
    expected = torch.distributions.MultivariateNormal(torch.zeros(10).double(), covariance).log_prob(data.Y)
    value, _ = negative_log_posterior(theta, c, gaussian.X, gaussian.Y, gaussian.noise)
    assert value == pytest.approx(float(c.negative_log_prior(theta) - expected))


@pytest.mark.parametrize("correlation", [-0.95, 0.95])
def test_fit_recovers_what_the_answers_were_drawn_from(correlation: float) -> None:
    c, data = sample(120, correlation)
    theta, value = fit_map(c.prior_mode(), data, c, 100, scan=True)
    found = c.decode(theta)
    assert float(found.correlation[0, 1]) == pytest.approx(correlation, abs=0.08)
    assert found.lengthscales.tolist() == pytest.approx([0.4, 0.4], rel=0.4)
    assert float(found.noise[1]) == pytest.approx(1e-2, rel=0.6)
    again, again_value = fit_map(theta, data, c, 100, scan=True)
    assert again_value <= value + 1e-6
    torch.testing.assert_close(again, theta, atol=0.05, rtol=0.0)


def test_wrong_sign_of_the_start_is_left() -> None:
    c, data = sample(60, -0.9)
    start = c.prior_mode()
    start[c.parts[2]] = 2.0
    theta, _ = fit_map(start, data, c, 100, scan=True)
    assert float(c.decode(theta).correlation[0, 1]) < -0.7


def test_iterations_are_bounded() -> None:
    c, data = sample(30, 0.5)
    gaussian = with_sites(data, c.decode(c.prior_mode()))
    calls = 0

    def noise(by_fidelity: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return gaussian.noise(by_fidelity)

    maximise_posterior(c.prior_mode(), c, gaussian.X, gaussian.Y, noise, max_iterations=3)
    assert calls <= 8
