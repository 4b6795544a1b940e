"""The BoTorch model against dense algebra, GPyTorch's kernels and BoTorch's own acquisitions."""

import gpytorch
import pytest
import torch
from botorch.acquisition import LogExpectedImprovement, qKnowledgeGradient, qLogNoisyExpectedImprovement
from botorch.acquisition.max_value_entropy_search import qMultiFidelityMaxValueEntropy
from botorch.sampling import SobolQMCNormalSampler
from torch import Tensor

from surrogates.coregionalised_gp import CoregionalisedGP, Hyperparameters
from surrogates.priors import MEAN_VARIANCE, Units

D, M = 3, 2
HYPERPARAMETERS = Hyperparameters(
    torch.tensor([0.3, 0.8, 1.5], dtype=torch.float64),
    torch.tensor([1.2, 0.7], dtype=torch.float64),
    torch.tensor([[1.0, -0.8], [-0.8, 1.0]], dtype=torch.float64),
    torch.tensor([1e-3, 2e-2], dtype=torch.float64),
)
UNITS = Units(
    torch.tensor([-4.0, 100.0], dtype=torch.float64), torch.tensor([2.0, 30.0], dtype=torch.float64)
)


def inputs(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(*shape, D, generator=generator, dtype=torch.float64)
    fidelity = torch.randint(0, M, (*shape, 1), generator=generator).double()
    return torch.cat([features, fidelity], dim=-1)


def model(n: int = 12) -> CoregionalisedGP:
    X = inputs(n)
    Y = torch.randn(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return CoregionalisedGP(HYPERPARAMETERS, UNITS, X, Y, HYPERPARAMETERS.noise[X[:, -1].long()])


def test_prior_is_gpytorch_matern_times_index_kernel() -> None:
    X, Z = inputs(7, seed=2), inputs(5, seed=3)
    matern = gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=D).double()
    matern.lengthscale = HYPERPARAMETERS.lengthscales
    amplitudes = torch.diag(HYPERPARAMETERS.amplitudes)
    between = amplitudes @ HYPERPARAMETERS.correlation @ amplitudes
    rows, columns = X[:, -1].long(), Z[:, -1].long()
    expected = matern(X[:, :-1], Z[:, :-1]).to_dense() * between[rows][:, columns]
    expected = expected + MEAN_VARIANCE * (rows.unsqueeze(-1) == columns)
    torch.testing.assert_close(HYPERPARAMETERS.covariance(X, Z), expected.detach())


def test_posterior_is_the_textbook_one_in_each_fidelity_unit() -> None:
    gp, X = model(), inputs(6, seed=5)
    train = gp.train_inputs[0]
    inverse = torch.linalg.inv(HYPERPARAMETERS.covariance(train, train) + torch.diag(gp.train_noise))
    cross = HYPERPARAMETERS.covariance(X, train)
    scale, offset = UNITS.scale[X[:, -1].long()], UNITS.offset[X[:, -1].long()]
    mean = offset + scale * (cross @ inverse @ gp.train_targets)
    covariance = HYPERPARAMETERS.covariance(X, X) - cross @ inverse @ cross.T
    covariance = scale.unsqueeze(-1) * covariance * scale
    posterior = gp.posterior(X)
    torch.testing.assert_close(posterior.mean.squeeze(-1), mean)
    torch.testing.assert_close(posterior.distribution.covariance_matrix, covariance)
    noise = HYPERPARAMETERS.noise[X[:, -1].long()] * scale.square()
    noisy = gp.posterior(X, observation_noise=True).variance.squeeze(-1)
    torch.testing.assert_close(noisy, covariance.diagonal() + noise)


def test_batches_equal_one_by_one() -> None:
    gp, X = model(), inputs(4, 3, 2, seed=6)
    batched = gp.posterior(X)
    for i in range(4):
        for j in range(3):
            single = gp.posterior(X[i, j])
            torch.testing.assert_close(batched.mean[i, j], single.mean)
            torch.testing.assert_close(
                batched.distribution.covariance_matrix[i, j], single.distribution.covariance_matrix
            )


def test_gradients_agree_with_differences() -> None:
    gp, X = model(), inputs(3, seed=7)

    def moments(features: Tensor) -> Tensor:
        distribution = gp(torch.cat([features, X[:, -1:]], dim=-1))
        return torch.cat([distribution.mean, distribution.covariance_matrix.flatten()])

    assert torch.autograd.gradcheck(moments, (X[:, :-1].clone().requires_grad_(True),))


def test_gradient_at_a_training_point_is_finite() -> None:
    gp = model()
    X = gp.train_inputs[0].clone().requires_grad_(True)
    gp.posterior(X).variance.sum().backward()
    assert X.grad is not None
    assert X.grad.isfinite().all()


def test_no_data_gives_the_prior() -> None:
    gp = CoregionalisedGP(
        HYPERPARAMETERS, UNITS, inputs(0), torch.empty(0).double(), torch.empty(0, dtype=torch.float64)
    )
    X = inputs(2, 4)
    posterior = gp.posterior(X)
    torch.testing.assert_close(posterior.mean.squeeze(-1), UNITS.offset[X[..., -1].long()])
    prior = (HYPERPARAMETERS.amplitudes**2 + MEAN_VARIANCE) * UNITS.scale**2
    torch.testing.assert_close(posterior.variance.squeeze(-1), prior[X[..., -1].long()])


def test_conditioning_equals_training_on_all() -> None:
    gp, X = model(), inputs(3, seed=8)
    Y = torch.tensor([[-3.0], [90.0], [-5.0]], dtype=torch.float64)
    fidelity = X[:, -1].long()
    whole = CoregionalisedGP(
        HYPERPARAMETERS,
        UNITS,
        torch.cat([gp.train_inputs[0], X]),
        torch.cat([gp.train_targets, (Y.squeeze(-1) - UNITS.offset[fidelity]) / UNITS.scale[fidelity]]),
        torch.cat([gp.train_noise, HYPERPARAMETERS.noise[fidelity]]),
    )
    query = inputs(5, seed=9)
    found = gp.condition_on_observations(X, Y).posterior(query)
    torch.testing.assert_close(found.mean, whole.posterior(query).mean)
    torch.testing.assert_close(found.variance, whole.posterior(query).variance)


def test_fantasies_average_to_the_posterior() -> None:
    gp, X, query = model(), inputs(2, seed=10), inputs(4, seed=11)
    fantasies = gp.fantasize(X, SobolQMCNormalSampler(torch.Size([256]), seed=0))
    assert fantasies.batch_shape == (256,)
    posterior = fantasies.posterior(query)
    assert posterior.mean.shape == (256, 4, 1)
    # Law of total expectation and of total variance.
    torch.testing.assert_close(posterior.mean.mean(0), gp.posterior(query).mean, rtol=0.02, atol=0.02)
    total = posterior.variance.mean(0) + posterior.mean.var(0)
    torch.testing.assert_close(total, gp.posterior(query).variance, rtol=0.05, atol=1e-6)


def project(X: Tensor) -> Tensor:
    return torch.cat([X[..., :-1], torch.zeros_like(X[..., -1:])], dim=-1)


def test_botorch_acquisitions_run_on_it() -> None:
    gp, X = model(), inputs(5, 1, seed=12)
    candidates = inputs(64, seed=13)
    acquisitions = [
        LogExpectedImprovement(gp, best_f=-3.0),
        qLogNoisyExpectedImprovement(gp, project(gp.train_inputs[0]), prune_baseline=False),
        qMultiFidelityMaxValueEntropy(gp, candidates, project=project, X_pending=inputs(2, seed=14)),
    ]
    for acquisition in acquisitions:
        leaf = X.clone().requires_grad_(True)
        values = acquisition(leaf)
        assert values.shape == (5,)
        values.sum().backward()
        assert leaf.grad is not None
        assert leaf.grad[..., :-1].isfinite().all()


def test_knowledge_gradient_runs_on_it() -> None:
    gp = model()
    acquisition = qKnowledgeGradient(gp, num_fantasies=4)
    X = inputs(2, 1 + 4, seed=15).requires_grad_(True)
    values = acquisition(X)
    values.sum().backward()
    assert values.shape == (2,)
    assert X.grad is not None
    assert X.grad.abs().sum() > 0


@pytest.mark.parametrize("n", [1, 5])
def test_mean_passes_through_noiseless_answers(n: int) -> None:
    X = inputs(n, seed=16)
    Y = torch.linspace(-1, 1, n, dtype=torch.float64)
    gp = CoregionalisedGP(HYPERPARAMETERS, UNITS, X, Y, torch.full((n,), 1e-9, dtype=torch.float64))
    fidelity = X[:, -1].long()
    expected = UNITS.offset[fidelity] + UNITS.scale[fidelity] * Y
    torch.testing.assert_close(gp.posterior(X).mean.squeeze(-1), expected, rtol=1e-6, atol=1e-5)
    assert float(gp.posterior(X).variance.sqrt().max()) < 1e-2
