"""BoTorch models over (features, fidelity): a Gaussian prior less what is known of it.

Every posterior here has the form

    mean(x) = offset + scale · P(x)ᵀ w,        cov(x, z) = scale scale' · (k(x, z) − P(x)ᵀ P(z)),

with k the prior covariance and P(x) a column of `r` numbers, which for an exact Gaussian process is the whitened
covariance of x with the data (Rasmussen & Williams, *Gaussian Processes for Machine Learning*, 2006, algorithm 2.1).
That form is what lets acquisitions score thousands of queries with one triangular solve, see
`activelearning.acquisition.posterior.ProjectedModel`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.model import Model
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.posterior import Posterior
from botorch.sampling.base import MCSampler
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_linear_operator
from torch import Tensor

from surrogates.priors import MEAN_VARIANCE, Prior, Units, fidelity_column

_SMALLEST = 1e-10  # of a posterior variance, relative to the prior's


class FidelityGP(Model, ABC):
    """BoTorch model with fixed hyper-parameters.

    The posterior is that of the noise-free answer in each row's fidelity's own unit; batches
    `b x q x (d + 1)` and gradients with respect to the features pass through.

    Attributes:
        hyperparameters: The prior.
        units: Each fidelity's standardisation.
        train_inputs: Features and fidelity index, a tuple of one `(batch) x n x (d + 1)`.
        train_targets: Standardised answers, `(batch) x n`.
        train_noise: Noise variances of the standardised answers, `(batch) x n`.
    """

    def __init__(
        self, hyperparameters: Prior, units: Units, train_X: Tensor, train_Y: Tensor, train_noise: Tensor
    ) -> None:
        super().__init__()
        self.hyperparameters = hyperparameters
        self.units = units
        self.train_inputs = (train_X,)
        self.train_targets = train_Y
        self.train_noise = train_noise

    @abstractmethod
    def _project(self, X: Tensor) -> Tensor:
        """P(X), `(b) x r x q`, of X `(b) x q x (d + 1)`."""

    @property
    @abstractmethod
    def _weights(self) -> Tensor:
        """w, `(b) x r x 1`."""

    @abstractmethod
    def left_out(self) -> tuple[Tensor, Tensor]:
        """Error of every standardised answer when it alone is left out, and the variance of that error, `n` each."""

    def unexplained(self) -> Tensor:
        """Variance of the standardised answers that none of them takes away, `n`: nought, but for inducing points."""
        return torch.zeros_like(self.train_targets)

    def condition_on_observations(
        self, X: Tensor, Y: Tensor, noise: Tensor | None = None, **kwargs: Any
    ) -> FidelityGP:
        """A model that knows further answers as well; hyper-parameters stay.

        Args:
            X: `(batch) x q x (d + 1)`.
            Y: Answers in each fidelity's unit, `(batch') x q x 1`; batch' may lead with dimensions more than
                X has.
            noise: Their noise variances, as Y, in the fidelity's unit squared; the learned noise by default.
            **kwargs: Unused.
        """
        _, X, standardised, variance = self._standardise(X, Y, noise)
        return ConditionedGP(self, X, standardised, variance)

    @property
    def num_outputs(self) -> int:
        """One: the answer at the row's fidelity."""
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        """Batch shape of the training data."""
        return self.train_targets.shape[:-1]

    def noise_variance(self, X: Tensor) -> Tensor:
        """Learned noise variance of answers at X `... x (d + 1)`, in the fidelity's unit squared, `...`."""
        fidelity = fidelity_column(X)
        return self.hyperparameters.noise[fidelity] * self.units.scale[fidelity].square()

    def forward(self, X: Tensor) -> MultivariateNormal:
        """Posterior of the noise-free answers at X `(b) x q x (d + 1)`, in each fidelity's unit."""
        fidelity = fidelity_column(X)
        scale = self.units.scale[fidelity]
        projected = self._project(X)
        mean = (projected.transpose(-1, -2) @ self._weights).squeeze(-1)
        covariance = self.hyperparameters.covariance(X, X) - projected.transpose(-1, -2) @ projected
        # Rounding may leave a tiny negative variance next to an observation of (almost) no noise.
        floor = _SMALLEST * self.hyperparameters.between.diagonal()[fidelity]
        lack = (floor - covariance.diagonal(dim1=-1, dim2=-2)).clamp_min(0.0)
        covariance = covariance + torch.diag_embed(lack)
        covariance = scale.unsqueeze(-1) * covariance * scale.unsqueeze(-2)
        # As an operator, so that it is factorised only where somebody samples.
        return MultivariateNormal(self.units.offset[fidelity] + scale * mean, to_linear_operator(covariance))

    def project(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean, `n`, and what is known of the prior, `r x n`, of rows X `n x (d + 1)`, in their units."""
        fidelity = fidelity_column(X)
        scale = self.units.scale[fidelity]
        projected = self._project(X)
        mean = (projected.T @ self._weights).squeeze(-1)
        return self.units.offset[fidelity] + scale * mean, projected * scale

    def prior_covariance(self, X: Tensor, Z: Tensor) -> Tensor:
        """Prior covariance, `n x p`, of answers at X `n x (d + 1)` and Z `p x (d + 1)`, in their units."""
        scale_x, scale_z = (self.units.scale[fidelity_column(rows)] for rows in (X, Z))
        return scale_x.unsqueeze(-1) * self.hyperparameters.covariance(X, Z) * scale_z

    def prior_covariance_at_place(self, fidelity: Tensor, other: Tensor) -> Tensor:
        """Prior covariance, `n`, of answers at the same features and two fidelities (`n` each, long)."""
        prior = self.hyperparameters.between[fidelity, other] + MEAN_VARIANCE * (fidelity == other)
        return self.units.scale[fidelity] * prior * self.units.scale[other]

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

    def fantasize(
        self, X: Tensor, sampler: MCSampler, observation_noise: Tensor | None = None, **kwargs: Any
    ) -> FidelityGP:
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

    def _standardise(
        self, X: Tensor, Y: Tensor, noise: Tensor | None
    ) -> tuple[torch.Size, Tensor, Tensor, Tensor]:
        """Batch shape, inputs, standardised answers and noises of further answers, as `condition_on_observations`."""
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
        return batch, X, standardised, variance


class ExactGP(FidelityGP):
    """A Gaussian process that knows its data exactly, given Gaussian noise.

    Args:
        hyperparameters: The prior.
        units: Each fidelity's standardisation.
        train_X: Features and fidelity index, `(batch) x n x (d + 1)`; n may be 0.
        train_Y: Standardised answers, `(batch) x n`.
        train_noise: Noise variances of the standardised answers, `n`, positive.
    """

    def __init__(
        self, hyperparameters: Prior, units: Units, train_X: Tensor, train_Y: Tensor, train_noise: Tensor
    ) -> None:
        super().__init__(hyperparameters, units, train_X, train_Y, train_noise)
        covariance = hyperparameters.covariance(train_X, train_X) + torch.diag_embed(train_noise)
        self._factor = torch.linalg.cholesky(covariance)
        self._whitened = torch.linalg.solve_triangular(self._factor, train_Y.unsqueeze(-1), upper=False)

    @property
    def _weights(self) -> Tensor:
        return self._whitened

    def condition_on_observations(
        self, X: Tensor, Y: Tensor, noise: Tensor | None = None, **kwargs: Any
    ) -> Self:
        """See `FidelityGP.condition_on_observations`."""
        batch, X, standardised, variance = self._standardise(X, Y, noise)
        old_X, old_Y, old_noise = self.train_inputs[0], self.train_targets, self.train_noise
        return type(self)(
            self.hyperparameters,
            self.units,
            torch.cat([old_X.expand(*batch, *old_X.shape[-2:]), X], dim=-2),
            torch.cat([old_Y.expand(*batch, old_Y.shape[-1]), standardised], dim=-1),
            torch.cat([old_noise.expand(*batch, old_noise.shape[-1]), variance], dim=-1),
        )

    def left_out(self) -> tuple[Tensor, Tensor]:
        """In closed form: Sundararajan & Keerthi (2001); Rasmussen & Williams (2006), eq. 5.12."""
        inverse = torch.cholesky_inverse(self._factor)
        variance = 1.0 / inverse.diagonal()
        return (inverse @ self.train_targets) * variance, variance

    def _project(self, X: Tensor) -> Tensor:
        """factor⁻¹ K(X_train, X), `(b) x n x q`."""
        cross = self.hyperparameters.covariance(self.train_inputs[0], X)
        if self._factor.dim() == 2 and cross.dim() > 2:
            # One factor for all batches: one triangular solve with all columns side by side.
            flat = cross.movedim(-2, 0)
            solved = torch.linalg.solve_triangular(self._factor, flat.flatten(1), upper=False)
            return solved.reshape(flat.shape).movedim(0, -2)
        return torch.linalg.solve_triangular(self._factor, cross, upper=False)


class ConditionedGP(FidelityGP):
    """A model that knows further answers, `q`, beside those of another whose own form stays.

    The posterior of the other is the prior here: P(x) gains the rows C⁻¹ cov(further, x), with C the Cholesky factor of
    the further answers' covariance.

    Args:
        base: The other model.
        X: Further queries, `(batch) x q x (d + 1)`.
        Y: Their standardised answers, `(batch) x q`.
        noise: Their noise variances, `(batch) x q`.
    """

    def __init__(self, base: FidelityGP, X: Tensor, Y: Tensor, noise: Tensor) -> None:
        batch = Y.shape[:-1]
        old_X, old_Y, old_noise = base.train_inputs[0], base.train_targets, base.train_noise
        super().__init__(
            base.hyperparameters,
            base.units,
            torch.cat([old_X.expand(*batch, *old_X.shape[-2:]), X], dim=-2),
            torch.cat([old_Y.expand(*batch, old_Y.shape[-1]), Y], dim=-1),
            torch.cat([old_noise.expand(*batch, old_noise.shape[-1]), noise], dim=-1),
        )
        self._base = base
        self._X = X
        self._known = base._project(X)
        mean = (self._known.transpose(-1, -2) @ base._weights).squeeze(-1)
        covariance = base.hyperparameters.covariance(X, X) - self._known.transpose(-1, -2) @ self._known
        self._factor = torch.linalg.cholesky(covariance + torch.diag_embed(noise))
        further = torch.linalg.solve_triangular(self._factor, (Y - mean).unsqueeze(-1), upper=False)
        old = base._weights
        self._whitened = torch.cat([old.expand(*batch, *old.shape[-2:]), further], dim=-2)

    @property
    def _weights(self) -> Tensor:
        return self._whitened

    def left_out(self) -> tuple[Tensor, Tensor]:
        """Of the other model's answers, which are those that were measured."""
        return self._base.left_out()

    def unexplained(self) -> Tensor:
        """Of the other model's answers."""
        return self._base.unexplained()

    def _project(self, X: Tensor) -> Tensor:
        old = self._base._project(X)
        cross = self.hyperparameters.covariance(self._X, X) - self._known.transpose(-1, -2) @ old
        factor = self._factor.expand(*cross.shape[:-2], *self._factor.shape[-2:])
        further = torch.linalg.solve_triangular(factor, cross, upper=False)
        return torch.cat([old.expand(*further.shape[:-2], *old.shape[-2:]), further], dim=-2)
