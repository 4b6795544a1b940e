"""The sparse process against the exact one, GPyTorch's bound, dense algebra and BoTorch's acquisitions."""

import gpytorch
import pytest
import torch
from botorch.acquisition import qKnowledgeGradient, qLogNoisyExpectedImprovement
from gpytorch.kernels import InducingPointKernel, MaternKernel, ScaleKernel
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from surrogates.coregionalised_gp import CoregionalisedGP, Hyperparameters, Units
from surrogates.data import GaussianData
from surrogates.diagnostics import Bounds, leave_one_out
from surrogates.fidelity_gp import ConditionedGP
from surrogates.hyperparameters import Coordinates
from surrogates.priors import MEAN_VARIANCE
from surrogates.sparse_gp import CollapsedBound, SparseGP, choose_inducing

D, M, N = 2, 2, 40
COORDINATES = Coordinates.of(D, M, 0)
UNITS = Units(
    torch.tensor([-4.0, 100.0], dtype=torch.float64), torch.tensor([2.0, 30.0], dtype=torch.float64)
)


def prior() -> Hyperparameters:
    return Hyperparameters(
        torch.tensor([0.4, 0.7], dtype=torch.float64),
        torch.tensor([1.1, 0.8], dtype=torch.float64),
        torch.tensor([[1.0, -0.7], [-0.7, 1.0]], dtype=torch.float64),
        torch.tensor([1e-2, 5e-2], dtype=torch.float64),
    )


def inputs(n: int, seed: int = 0) -> Tensor:
    X = torch.rand(n, D + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    X[:, -1] = torch.arange(n) % M
    return X


def data(n: int = N) -> tuple[Tensor, Tensor, Tensor]:
    X = inputs(n)
    Y = torch.sin(5.0 * X[:, 0] + 2.0 * X[:, 1]) * (1.0 - 2.0 * X[:, -1])
    return X, Y, prior().noise[X[:, -1].long()]


def exact() -> CoregionalisedGP:
    return CoregionalisedGP(prior(), UNITS, *data())


def sparse(m: int) -> SparseGP:
    X, Y, noise = data()
    return SparseGP(prior(), UNITS, X, Y, noise, choose_inducing(prior(), X, noise, m))


def test_all_points_inducing_is_the_exact_process() -> None:
    X = inputs(7, seed=3)
    found, expected = sparse(N).posterior(X), exact().posterior(X)
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.variance, expected.variance, rtol=1e-3, atol=1e-4)
    for mine, theirs in zip(sparse(N).left_out(), exact().left_out(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-3, atol=2e-3)


def test_posterior_is_that_of_titsias() -> None:
    model, X = sparse(9), inputs(6, seed=4)
    train, Y, noise = data()
    U = train[model.inducing]
    Kuu = prior().covariance(U, U) + 1e-6 * torch.eye(9, dtype=torch.float64)
    Kuf, Kux = prior().covariance(U, train), prior().covariance(U, X)
    sigma = torch.linalg.inv(Kuu + Kuf @ torch.diag(1.0 / noise) @ Kuf.T)
    scale, offset = UNITS.scale[X[:, -1].long()], UNITS.offset[X[:, -1].long()]
    mean = offset + scale * (Kux.T @ sigma @ Kuf @ (Y / noise))
    covariance = prior().covariance(X, X) - Kux.T @ (torch.linalg.inv(Kuu) - sigma) @ Kux
    posterior = model.posterior(X)
    torch.testing.assert_close(posterior.mean.squeeze(-1), mean)
    expected = scale.unsqueeze(-1) * covariance * scale
    torch.testing.assert_close(posterior.distribution.covariance_matrix, expected)


def test_left_out_is_what_leaving_out_gives() -> None:
    model = sparse(9)
    X, Y, noise = data()
    U = X[model.inducing]
    Kuu = prior().covariance(U, U) + 1e-6 * torch.eye(9, dtype=torch.float64)
    Kuf = prior().covariance(U, X)
    Q = Kuf.T @ torch.linalg.solve(Kuu, Kuf)
    error, variance = model.left_out()
    for i in (0, 7, 22):
        rest = torch.arange(N) != i
        gain = Q[i, rest] @ torch.linalg.inv(Q[rest][:, rest] + torch.diag(noise[rest]))
        assert float(error[i]) == pytest.approx(float(Y[i] - gain @ Y[rest]), abs=1e-6)
        expected = prior().covariance(X[i : i + 1], X[i : i + 1]).squeeze() - gain @ Q[rest, i] + noise[i]
        assert float(variance[i]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("site_noise", [1e-3, 1.0, 2.0, 1e6])
def test_sites_of_bounds_are_left_out_as_answers_are(site_noise: float) -> None:
    """A site as wide as the prior or wider too, where few inducing points leave much unexplained."""
    X, Y, noise = data()
    site, bound = 23, 0.4
    noise[site] = site_noise
    model = SparseGP(prior(), UNITS, X, Y, noise, torch.arange(0, 20, 5))
    Kuf = prior().covariance(X[model.inducing], X)
    Kuu = prior().covariance(X[model.inducing], X[model.inducing])
    Q = Kuf.T @ torch.linalg.solve(Kuu + 1e-6 * torch.eye(4, dtype=torch.float64), Kuf)
    rest = torch.arange(N) != site
    gain = Q[site, rest] @ torch.linalg.inv(Q[rest][:, rest] + torch.diag(noise[rest]))
    own = prior().covariance(X[site : site + 1], X[site : site + 1]).squeeze()
    assert float(own - Q[site, site]) > 0.1
    mean, variance = gain @ Y[rest], own - gain @ Q[rest, site]
    sign, bounds = torch.zeros(N, dtype=torch.float64), torch.full((N,), bound, dtype=torch.float64)
    sign[site] = 1.0
    learned, stated = prior().noise[1], 0.02
    answer_noise = torch.full((N,), float(learned) + stated, dtype=torch.float64)
    found = leave_one_out(model, sign == 0, Bounds(bounds, sign, answer_noise)).bound_log_probability
    deviation = (variance + learned + stated).sqrt()
    expected = torch.special.log_ndtr((bound - mean) / deviation)
    assert found == (None, pytest.approx(float(expected), rel=1e-5))


def test_bound_is_that_of_gpytorch() -> None:
    """On one fidelity, its constant a constant kernel: the objective of sparse GP regression, n times."""
    X, Y, _ = data(30)
    X[:, -1] = 0.0
    inducing = torch.tensor([0, 5, 11, 17, 29])
    coordinates = Coordinates.of(D, 1, 0)
    theta = coordinates.prior_mode()
    theta[-1] = -3.0
    parameters = coordinates.decode(theta)

    class Process(gpytorch.models.ExactGP):
        def __init__(self, likelihood: gpytorch.likelihoods.GaussianLikelihood) -> None:
            super().__init__(X[:, :-1], Y, likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            base = ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=D)) + gpytorch.kernels.ConstantKernel()
            base = base.double()
            base.kernels[0].base_kernel.lengthscale = parameters.lengthscales
            base.kernels[0].outputscale = parameters.amplitudes.square()
            base.kernels[1].constant = torch.tensor(MEAN_VARIANCE, dtype=torch.float64)
            self.covar_module = InducingPointKernel(
                base, inducing_points=X[inducing, :-1].clone(), likelihood=likelihood
            )

        def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    likelihood.noise = parameters.noise
    process = Process(likelihood).double()
    process.train()
    with gpytorch.settings.cholesky_jitter(double_value=1e-6), torch.no_grad():
        objective = ExactMarginalLogLikelihood(likelihood, process)
        expected = float(objective(process(X[:, :-1]), Y)) * 30
    gaussian = GaussianData(X, Y, torch.zeros(30).double(), torch.ones(30).double(), 0.0)
    bound = CollapsedBound(coordinates, gaussian, inducing).value(theta.numpy())
    assert -bound + float(coordinates.negative_log_prior(theta)) == pytest.approx(expected, rel=1e-3)


def test_bound_rises_to_the_evidence() -> None:
    X, Y, _ = data()
    gaussian = GaussianData(X, Y, torch.zeros(N).double(), torch.ones(N).double(), 0.0)
    theta = COORDINATES.prior_mode()
    theta[-2:] = -3.0
    parameters = COORDINATES.decode(theta)
    order = choose_inducing(parameters, X, gaussian.noise(parameters.noise), N)
    values = [
        CollapsedBound(COORDINATES, gaussian, order[:m]).value(theta.numpy())
        for m in (2, 5, 10, 20, len(order))
    ]
    truth = COORDINATES.evidence(gaussian).value(theta.numpy())
    assert values == sorted(values, reverse=True)
    assert values[0] > truth + 1.0
    assert truth <= values[-1] < truth + 0.01


def test_inducing_points_are_pivots() -> None:
    X, _, noise = data()
    chosen = choose_inducing(prior(), X, noise, 6)
    weighted = prior().covariance(X, X) / (noise.sqrt().unsqueeze(-1) * noise.sqrt())
    for i, row in enumerate(chosen.tolist()):
        done = chosen[:i]
        known = weighted[done]
        rest = weighted - known.T @ torch.linalg.solve(weighted[done][:, done], known) if i else weighted
        assert row == int(rest.diagonal().argmax())
    twice = choose_inducing(prior(), torch.cat([X[:5], X[:5]]), torch.cat([noise[:5], noise[:5]]), 10)
    assert len(twice) == 5  # the same rows again explain nothing


def test_conditioning_agrees_with_the_joint_posterior() -> None:
    """Conditioning by hand on the Gaussian over queries and further answers."""
    model, X, query = sparse(9), inputs(3, seed=8), inputs(5, seed=9)
    Y = torch.tensor([[-3.0], [90.0], [-5.0]], dtype=torch.float64)
    joint = model.posterior(torch.cat([X, query]))
    mean, covariance = joint.mean.squeeze(-1), joint.distribution.covariance_matrix
    inner = covariance[:3, :3] + torch.diag(model.noise_variance(X))
    gain = covariance[3:, :3] @ torch.linalg.inv(inner)
    found = model.condition_on_observations(X, Y)
    assert isinstance(found, ConditionedGP)
    posterior = found.posterior(query)
    torch.testing.assert_close(posterior.mean.squeeze(-1), mean[3:] + gain @ (Y.squeeze(-1) - mean[:3]))
    torch.testing.assert_close(
        posterior.distribution.covariance_matrix, covariance[3:, 3:] - gain @ covariance[:3, 3:]
    )
    one_by_one = model
    for i in range(3):
        one_by_one = one_by_one.condition_on_observations(X[i : i + 1], Y[i : i + 1])
    torch.testing.assert_close(one_by_one.posterior(query).mean, posterior.mean)


def test_botorch_acquisitions_run_on_it() -> None:
    model = sparse(9)
    baseline = torch.cat([inputs(4, seed=1)[:, :-1], torch.zeros(4, 1, dtype=torch.float64)], dim=-1)
    expected_improvement = qLogNoisyExpectedImprovement(model, baseline, prune_baseline=False)
    for acquisition, X in (
        (expected_improvement, inputs(5, seed=2).unsqueeze(-2)),
        (qKnowledgeGradient(model, num_fantasies=4), inputs(10, seed=3).reshape(2, 5, D + 1)),
    ):
        leaf = X.clone().requires_grad_(True)
        values = acquisition(leaf)
        assert values.shape == (len(X),)
        values.sum().backward()
        assert leaf.grad is not None
        assert leaf.grad[..., :-1].isfinite().all()
        assert leaf.grad.abs().sum() > 0
