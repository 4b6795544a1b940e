"""A Gaussian process over (features, fidelity) with intrinsic coregionalisation.

The prior of the answer at features x and fidelity m, in the fidelity's own unit, is

    y_m(x) = offset_m + scale_m · (c_m + g_m(x)) + noise_m,        c_m ~ N(0, MEAN_VARIANCE),
    cov(g_m(x), g_n(x')) = a_m a_n R_mn k(x, x'),

with R a correlation matrix between fidelities and k a Matérn-5/2 kernel with one lengthscale a feature
(intrinsic coregionalisation: Bonilla, Chai & Williams, NeurIPS 2007). The constants c_m are integrated out, so
that a fidelity with few answers has an uncertain mean. Entries of R may be negative: a reversed source tells as
much as a straight one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.model import Model
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.posterior import Posterior
from botorch.sampling.base import MCSampler
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_linear_operator
from torch import Tensor

MEAN_VARIANCE = 1.0  # of each fidelity's constant, in units of its scale


@dataclass(frozen=True)
class Hyperparameters:
    """Hyper-parameters, in standardised units.

    Attributes:
        lengthscales: `d`, positive.
        amplitudes: a, `M`, positive.
        correlation: R, `M x M`, symmetric, positive definite, unit diagonal.
        noise: Variance of each fidelity's noise, `M`, positive.
    """

    lengthscales: Tensor
    amplitudes: Tensor
    correlation: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Units:
    """Each fidelity's standardisation, answer = offset + scale · standardised answer; `M` each, scale > 0."""

    offset: Tensor
    scale: Tensor


def matern52(squared_distance: Tensor) -> Tensor:
    """Matérn-5/2 kernel of squared scaled distances, elementwise."""
    # Below the clamp the kernel is 1 to machine precision and its gradient in x is 0, which the square root
    # can't say.
    r = math.sqrt(5.0) * squared_distance.clamp_min(1e-20).sqrt()
    return (1.0 + r + r.square() / 3.0) * (-r).exp()


def prior_covariance(parameters: Hyperparameters, X: Tensor, Z: Tensor) -> Tensor:
    """Prior covariance of standardised noise-free answers.

    Args:
        parameters: Hyper-parameters.
        X: Features and fidelity index, `... x n x (d + 1)`.
        Z: The same, `... x m x (d + 1)`.

    Returns:
        `... x n x m`.
    """
    fidelity_x, fidelity_z = fidelity_column(X), fidelity_column(Z)
    x = (X[..., :-1] - 0.5) / parameters.lengthscales
    z = (Z[..., :-1] - 0.5) / parameters.lengthscales
    squared = (
        x.square().sum(-1).unsqueeze(-1) + z.square().sum(-1).unsqueeze(-2) - 2.0 * x @ z.transpose(-1, -2)
    )
    between = parameters.amplitudes.unsqueeze(-1) * parameters.correlation * parameters.amplitudes
    rows, columns = fidelity_x.unsqueeze(-1), fidelity_z.unsqueeze(-2)
    return between[rows, columns] * matern52(squared) + MEAN_VARIANCE * (rows == columns)


def fidelity_column(X: Tensor) -> Tensor:
    """Fidelity indices, `... x n` (long), of inputs `... x n x (d + 1)`."""
    return X[..., -1].detach().round().long()


class CoregionalisedGP(Model):
    """BoTorch model with fixed hyper-parameters, exact given Gaussian noise.

    The posterior is that of the noise-free answer in each row's fidelity's own unit; batches
    `b x q x (d + 1)` and gradients with respect to the features pass through.

    Args:
        hyperparameters: Hyper-parameters.
        units: Each fidelity's standardisation.
        train_X: Features and fidelity index, `(batch) x n x (d + 1)`; n may be 0.
        train_Y: Standardised answers, `(batch) x n`.
        train_noise: Noise variances of the standardised answers, `n`, positive.
    """

    def __init__(
        self,
        hyperparameters: Hyperparameters,
        units: Units,
        train_X: Tensor,
        train_Y: Tensor,
        train_noise: Tensor,
    ) -> None:
        super().__init__()
        self.hyperparameters = hyperparameters
        self.units = units
        self.train_inputs = (train_X,)
        self.train_targets = train_Y
        self.train_noise = train_noise
        covariance = prior_covariance(hyperparameters, train_X, train_X) + torch.diag_embed(train_noise)
        self._factor = torch.linalg.cholesky(covariance)
        # Whitened answers: the posterior mean is (factor⁻¹ K(X_train, x))ᵀ times these.
        self._whitened = torch.linalg.solve_triangular(self._factor, train_Y.unsqueeze(-1), upper=False)

    @property
    def num_outputs(self) -> int:
        """One: the answer at the row's fidelity."""
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        """Batch shape of the training data."""
        return self.train_inputs[0].shape[:-2]

    def noise_variance(self, X: Tensor) -> Tensor:
        """Learned noise variance of answers at X `... x (d + 1)`, in the fidelity's unit squared, `...`."""
        fidelity = fidelity_column(X)
        return self.hyperparameters.noise[fidelity] * self.units.scale[fidelity].square()

    def forward(self, X: Tensor) -> MultivariateNormal:
        """Posterior of the noise-free answers at X `(b) x q x (d + 1)`, in each fidelity's unit."""
        fidelity = fidelity_column(X)
        scale = self.units.scale[fidelity]
        projected = self._project(X)
        mean = (projected.transpose(-1, -2) @ self._whitened).squeeze(-1)
        covariance = prior_covariance(self.hyperparameters, X, X) - projected.transpose(-1, -2) @ projected
        # Rounding may leave a tiny negative variance next to an observation of (almost) no noise.
        floor = 1e-10 * self.hyperparameters.amplitudes[fidelity].square()
        lack = (floor - covariance.diagonal(dim1=-1, dim2=-2)).clamp_min(0.0)
        covariance = covariance + torch.diag_embed(lack)
        covariance = scale.unsqueeze(-1) * covariance * scale.unsqueeze(-2)
        # As an operator, so that it is factorised only where somebody samples.
        return MultivariateNormal(self.units.offset[fidelity] + scale * mean, to_linear_operator(covariance))

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | Callable[..., Posterior] | None = None,
        **kwargs: Any,
    ) -> Posterior:
        """Joint posterior over the q rows of X, `(b) x q x (d + 1)`.

        Args:
            X: Features and fidelity index.
            output_indices: Unused; there is one output.
            observation_noise: True adds each fidelity's learned noise; a tensor `(b) x q (x 1)` is added as
                variances in the fidelity's unit squared.
            posterior_transform: Applied to the posterior.
            **kwargs: Unused.
        """
        distribution = self.forward(X)
        if observation_noise is not False:
            if isinstance(observation_noise, Tensor):
                noise = observation_noise.reshape(observation_noise.shape[: X.dim() - 1])
            else:
                noise = self.noise_variance(X)
            covariance = distribution.covariance_matrix + torch.diag_embed(noise)
            distribution = MultivariateNormal(distribution.mean, to_linear_operator(covariance))
        posterior = GPyTorchPosterior(distribution)
        return posterior if posterior_transform is None else posterior_transform(posterior)

    def condition_on_observations(
        self, X: Tensor, Y: Tensor, noise: Tensor | None = None, **kwargs: Any
    ) -> CoregionalisedGP:
        """A model that knows further answers as well; hyper-parameters stay.

        Args:
            X: `(batch) x q x (d + 1)`.
            Y: Answers in each fidelity's unit, `(batch') x q x 1`; batch' may lead with dimensions more than
                X has.
            noise: Their noise variances, as Y, in the fidelity's unit squared; the learned noise by default.
            **kwargs: Unused.
        """
        Y = Y.squeeze(-1)
        batch = torch.broadcast_shapes(X.shape[:-2], Y.shape[:-1], self.batch_shape)
        X = X.expand(*batch, *X.shape[-2:])
        Y = Y.expand(*batch, Y.shape[-1])
        fidelity = fidelity_column(X)
        scale = self.units.scale[fidelity]
        standardised = (Y - self.units.offset[fidelity]) / scale
        if noise is None:
            variance = self.hyperparameters.noise[fidelity]
        else:
            variance = noise.squeeze(-1).expand(standardised.shape) / scale.square()
        old_X, old_Y, old_noise = self.train_inputs[0], self.train_targets, self.train_noise
        return CoregionalisedGP(
            self.hyperparameters,
            self.units,
            torch.cat([old_X.expand(*batch, *old_X.shape[-2:]), X], dim=-2),
            torch.cat([old_Y.expand(*batch, old_Y.shape[-1]), standardised], dim=-1),
            torch.cat([old_noise.expand(*batch, old_noise.shape[-1]), variance], dim=-1),
        )

    def fantasize(
        self, X: Tensor, sampler: MCSampler, observation_noise: Tensor | None = None, **kwargs: Any
    ) -> CoregionalisedGP:
        """A batch of models, each of which knows one draw of the answers at X.

        Args:
            X: `(b) x q x (d + 1)`.
            sampler: Draws `s x (b) x q x 1` from the posterior.
            observation_noise: Noise variances, `(b) x q x 1`, instead of the learned ones.
            **kwargs: Unused.
        """
        noise: bool | Tensor = True if observation_noise is None else observation_noise
        answers = sampler(self.posterior(X, observation_noise=noise))
        return self.condition_on_observations(
            X, answers, noise=None if observation_noise is None else observation_noise.expand(answers.shape)
        )

    def _project(self, X: Tensor) -> Tensor:
        """factor⁻¹ K(X_train, X), `(b) x n x q`."""
        cross = prior_covariance(self.hyperparameters, self.train_inputs[0], X)
        if self._factor.dim() == 2 and cross.dim() > 2:
            # One factor for all batches: one triangular solve with all columns side by side.
            flat = cross.movedim(-2, 0)
            solved = torch.linalg.solve_triangular(self._factor, flat.flatten(1), upper=False)
            return solved.reshape(flat.shape).movedim(0, -2)
        return torch.linalg.solve_triangular(self._factor, cross, upper=False)
