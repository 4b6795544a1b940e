import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surrogates.data import Data, GaussianData
from surrogates.evidence import AutogradEvidence, maximise_posterior
from surrogates.hyperparameters import Coordinates
from surrogates.map_fit import fit_map, with_sites


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
    covariance = truth.covariance(X, X) + torch.diag(truth.noise[X[:, 2].long()])
    Y = torch.linalg.cholesky(covariance) @ torch.randn(n, generator=generator, dtype=torch.float64)
    return c, Data(X, Y, torch.zeros(n).double(), torch.zeros(n).double())


def mixed(n: int, n_fidelities: int, seed: int = 0) -> GaussianData:
    """Answers with known errors, some of them sites, of which no noise is learned."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    X[:, 2] = torch.arange(n) % n_fidelities
    Y, fixed, chance = torch.rand(3, n, generator=generator, dtype=torch.float64).unbind()
    return GaussianData(X, 2.0 * Y - 1.0, 0.1 * fixed, (chance > 0.2).double(), 0.0)


@pytest.mark.parametrize("n_fidelities", [1, 2, 4])
def test_gradient_written_out_is_that_of_differentiation_and_of_differences(n_fidelities: int) -> None:
    data = mixed(20, n_fidelities)
    c = coordinates(n_fidelities=n_fidelities, target=n_fidelities - 1)
    generator = torch.Generator().manual_seed(3)
    theta = c.prior_mode() + 0.4 * torch.randn(c.size, generator=generator, dtype=torch.float64)
    evidence = c.evidence(data)
    value, gradient = evidence(theta.numpy())
    assert evidence.value(theta.numpy()) == value
    slow_value, slow_gradient = AutogradEvidence(c, data)(theta.numpy())
    assert AutogradEvidence(c, data).value(theta.numpy()) == pytest.approx(slow_value, rel=1e-12)
    assert value == pytest.approx(slow_value, rel=1e-12)
    np.testing.assert_allclose(gradient, slow_gradient, rtol=1e-9, atol=1e-9)
    for i in range(c.size):
        step = np.zeros(c.size)
        step[i] = 1e-5
        difference = evidence.value(theta.numpy() + step) - evidence.value(theta.numpy() - step)
        assert gradient[i] == pytest.approx(difference / 2e-5, rel=1e-4, abs=1e-5)


def test_likelihood_is_the_multivariate_normal() -> None:
    c, data = sample(10, 0.5)
    theta = c.prior_mode()
    gaussian = with_sites(data, c.decode(theta))
    parameters = c.decode(theta)
    covariance = parameters.covariance(data.X, data.X) + torch.diag(gaussian.noise(parameters.noise))
    expected = torch.distributions.MultivariateNormal(torch.zeros(10).double(), covariance).log_prob(data.Y)
    value = c.evidence(gaussian).value(theta.numpy())
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
    evidence = c.evidence(with_sites(data, c.decode(c.prior_mode())))
    calls = 0

    def counted(theta: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal calls
        calls += 1
        return evidence(theta)

    maximise_posterior(c.prior_mode(), c, counted, max_iterations=3)
    assert calls <= 8
