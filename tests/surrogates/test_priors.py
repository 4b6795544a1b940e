"""The covariances of the surrogates, against GPyTorch's and BoTorch's kernels and against the model they stand for."""

import gpytorch
import pytest
import torch
from botorch.models.kernels.linear_truncated_fidelity import LinearTruncatedFidelityKernel
from torch import Tensor

from surrogates.autoregressive_gp import AutoregressiveCoordinates
from surrogates.continuous_fidelity_gp import ContinuousCoordinates
from surrogates.data import GaussianData
from surrogates.deep_kernel_gp import DeepKernelCoordinates
from surrogates.evidence import Parametrisation
from surrogates.fidelity_gp import ExactGP
from surrogates.hyperparameters import Coordinates
from surrogates.priors import MEAN_VARIANCE, Units
from surrogates.sparse_gp import CollapsedBound, prior_variance

D, M = 3, 3
PARAMETRISATIONS: list[Parametrisation] = [
    Coordinates.of(D, M, 1),
    AutoregressiveCoordinates(D, (2, 0, 1)),
    ContinuousCoordinates(D, (0.6, 1.0, 0.25)),
    DeepKernelCoordinates(Coordinates.of(D, M, 1), (5, 4), 0.3, 0),
]
UNITS = Units(torch.zeros(M, dtype=torch.float64), torch.ones(M, dtype=torch.float64))


def inputs(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(n, D, generator=generator, dtype=torch.float64)
    return torch.cat([features, (torch.arange(n) % M).double().unsqueeze(-1)], dim=-1)


def point(parametrisation: Parametrisation, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    start = parametrisation.start(0)
    return start + 0.4 * torch.randn(len(start), generator=generator, dtype=torch.float64)


def name(parametrisation: Parametrisation) -> str:
    return type(parametrisation).__name__


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS, ids=name)
def test_covariances_are_covariances(parametrisation: Parametrisation) -> None:
    prior, X, Z = parametrisation.decode(point(parametrisation)), inputs(12), inputs(5, seed=2)
    covariance = prior.covariance(X, X)
    torch.testing.assert_close(covariance, covariance.T)
    assert float(torch.linalg.eigvalsh(covariance).min()) > -1e-9
    torch.testing.assert_close(covariance.diagonal(), prior_variance(prior, X))
    both = prior.covariance(torch.cat([X, Z]), torch.cat([X, Z]))
    torch.testing.assert_close(prior.covariance(X, Z), both[:12, 12:])
    place = X[:1].repeat(M, 1)
    place[:, -1] = torch.arange(M)
    constants = MEAN_VARIANCE * torch.eye(M, dtype=torch.float64)
    torch.testing.assert_close(prior.covariance(place, place) - constants, prior.between)
    assert parametrisation.size == len(parametrisation.start(0)) == len(parametrisation.limits())


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS, ids=name)
def test_evidence_and_bound_follow_their_gradients(parametrisation: Parametrisation) -> None:
    X = inputs(15)
    Y = torch.sin(5.0 * X[:, 0]) + 0.1 * X[:, -1]
    data = GaussianData(X, Y, torch.full_like(Y, 0.01), torch.ones_like(Y), 0.0)
    theta = point(parametrisation).numpy()
    for objective in (
        parametrisation.evidence(data),
        CollapsedBound(parametrisation, data, torch.tensor([0, 4, 8, 9, 13])),
    ):
        value, gradient = objective(theta)
        assert objective.value(theta) == pytest.approx(value, rel=1e-12)
        for i in range(0, len(theta), 1 if len(theta) < 30 else 7):
            step = torch.zeros(len(theta), dtype=torch.float64).numpy()
            step[i] = 1e-5
            difference = objective.value(theta + step) - objective.value(theta - step)
            assert gradient[i] == pytest.approx(difference / 2e-5, rel=2e-4, abs=2e-5)


def matern(x: Tensor, z: Tensor, lengthscales: Tensor) -> Tensor:
    kernel = gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=D).double()
    kernel.lengthscale = lengthscales
    return kernel(x, z).to_dense().detach()


def test_autoregression_is_what_its_recursion_says() -> None:
    """cov(g_t, g_u) by the rule g_t = ρ_t g_{t−1} + s_t δ_t, applied to matrices of GPyTorch's kernel."""
    c = AutoregressiveCoordinates(D, (2, 0, 1))
    theta = point(c)
    prior, X = c.decode(theta), inputs(9)
    _, scales, regression, noise = c.parts
    s, rho = theta[scales].exp(), theta[regression]
    own = [s[t] ** 2 * matern(X[:, :-1], X[:, :-1], prior.scales[t]) for t in range(M)]
    first = own[0]
    second = rho[0] ** 2 * first + own[1]
    third = rho[1] ** 2 * second + own[2]
    # Of levels t < u: the covariance of level t with itself, times the regressions between.
    by_level = [
        [first, rho[0] * first, rho[0] * rho[1] * first],
        [rho[0] * first, second, rho[1] * second],
        [rho[0] * rho[1] * first, rho[1] * second, third],
    ]
    level = torch.tensor([1, 2, 0])[X[:, -1].long()]  # fidelity 2 is the first, then 0, then 1
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    expected = torch.stack([torch.stack(row) for row in by_level])[level[rows], level[columns], rows, columns]
    expected = expected + MEAN_VARIANCE * (X[:, -1].unsqueeze(-1) == X[:, -1])
    torch.testing.assert_close(prior.covariance(X, X), expected)
    torch.testing.assert_close(prior.noise[torch.tensor([2, 0, 1])], theta[noise].exp())


def test_continuous_covariance_is_that_of_botorch() -> None:
    levels = (0.6, 1.0, 0.25)
    c = ContinuousCoordinates(D, levels)
    prior, X, Z = c.decode(point(c)), inputs(9), inputs(6, seed=4)
    kernel = LinearTruncatedFidelityKernel(fidelity_dims=[D], dimension=D + 1, nu=2.5).double()
    kernel.covar_module_unbiased.lengthscale = prior.unbiased
    kernel.covar_module_biased.lengthscale = prior.biased
    kernel.power = prior.power

    def at_level(rows: Tensor) -> Tensor:
        level = torch.tensor(levels, dtype=torch.float64)[rows[:, -1].long()]
        return torch.cat([rows[:, :-1], level.unsqueeze(-1)], dim=-1)

    expected = prior.amplitude**2 * kernel(at_level(X), at_level(Z)).to_dense().detach()
    expected = expected + MEAN_VARIANCE * (X[:, -1].unsqueeze(-1) == Z[:, -1])
    torch.testing.assert_close(prior.covariance(X, Z), expected)


def test_deep_kernel_is_the_plain_one_on_the_features_of_a_torch_network() -> None:
    c = PARAMETRISATIONS[3]
    assert isinstance(c, DeepKernelCoordinates)
    prior = c.decode(point(c))
    network = torch.nn.Sequential(
        torch.nn.Linear(D, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, D)
    ).double()
    for layer, (weight, bias) in zip(network[::2], prior.layers, strict=True):
        layer.load_state_dict({"weight": weight, "bias": bias})
    X = inputs(8)
    mapped = torch.cat([X[:, :-1] + network(X[:, :-1] - 0.5), X[:, -1:]], dim=-1)
    torch.testing.assert_close(prior.covariance(X, X), prior.kernel.covariance(mapped, mapped).detach())
    plain = c.decode(c.start(0))
    torch.testing.assert_close(plain.covariance(X, X), plain.kernel.covariance(X, X))


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS, ids=name)
def test_posterior_is_the_textbook_one(parametrisation: Parametrisation) -> None:
    prior, X, Z = parametrisation.decode(point(parametrisation)), inputs(10), inputs(4, seed=5)
    Y = torch.cos(4.0 * X[:, 0])
    noise = prior.noise[X[:, -1].long()] + 0.01
    model = ExactGP(prior, UNITS, X, Y, noise)
    inverse = torch.linalg.inv(prior.covariance(X, X) + torch.diag(noise))
    cross = prior.covariance(Z, X)
    posterior = model.posterior(Z)
    torch.testing.assert_close(posterior.mean.squeeze(-1), cross @ inverse @ Y)
    expected = prior.covariance(Z, Z) - cross @ inverse @ cross.T
    torch.testing.assert_close(posterior.distribution.covariance_matrix, expected)
    mean, projected = model.project(Z)
    torch.testing.assert_close(mean, posterior.mean.squeeze(-1))
    torch.testing.assert_close(model.prior_covariance(Z, Z) - projected.T @ projected, expected)
