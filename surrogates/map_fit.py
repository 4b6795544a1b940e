"""Maximum-a-posteriori fit of the coregionalised GP's hyper-parameters, bounds included."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from surrogates.bounds import bound_sites
from surrogates.coregionalised_gp import Hyperparameters, fidelity_column, prior_covariance
from surrogates.hyperparameters import Coordinates, maximise_posterior, negative_log_posterior

# Bounds move hyper-parameters and hyper-parameters move the bounds' sites: so many times in turn.
_SITE_ROUNDS = 3
_SCANNED_PARTIAL = (-0.8, 0.0, 0.8)  # coordinates of partial correlations of −0.66, 0 and 0.66
_SCANNED_NOISE = (-7.0, -3.0, -0.5)  # logarithms of variances, where a fidelity's answers vary by about 1


@dataclass(frozen=True)
class Data:
    """Standardised observations.

    Attributes:
        X: Features and fidelity index, `n x (d + 1)`.
        Y: Standardised answers; for a bound, the bound, `n`.
        variance: Squares of the known standard errors, standardised, `n`.
        sign: +1 for an upper bound, −1 for a lower bound, 0 for an answer, `n`.
    """

    X: Tensor
    Y: Tensor
    variance: Tensor
    sign: Tensor

    @property
    def fidelity(self) -> Tensor:
        """Fidelity of each observation, `n` (long)."""
        return fidelity_column(self.X)

    @property
    def is_bound(self) -> Tensor:
        """`n`, bool."""
        return self.sign != 0


@dataclass(frozen=True)
class GaussianData:
    """Data of which every bound is replaced by its Gaussian site.

    Attributes:
        X: Features and fidelity index, `n x (d + 1)`.
        Y: Standardised answers and pseudo-answers, `n`.
        fixed_variance: Known part of each row's noise variance, `n`.
        learned: 1 where the fidelity's learned noise is added, 0 for a site, `n`.
        log_scale: What the sites add to the Gaussian log evidence.
    """

    X: Tensor
    Y: Tensor
    fixed_variance: Tensor
    learned: Tensor
    log_scale: float

    def noise(self, by_fidelity: Tensor) -> Tensor:
        """Noise variance of each row, `n`, from the learned one of each fidelity, `M`."""
        return self.learned * by_fidelity[fidelity_column(self.X)] + self.fixed_variance


def with_sites(data: Data, hyperparameters: Hyperparameters) -> GaussianData:
    """Replace bounds by their expectation-propagation sites under the given hyper-parameters."""
    bound = data.is_bound
    learned = (~bound).to(data.Y)
    if not bool(bound.any()):
        return GaussianData(data.X, data.Y, data.variance, learned, 0.0)
    noise = hyperparameters.noise[data.fidelity] + data.variance
    exact_X, bound_X = data.X[~bound], data.X[bound]
    # What the answers that are no bounds say about the bounded ones: the sites' prior.
    covariance = prior_covariance(hyperparameters, exact_X, exact_X) + torch.diag_embed(noise[~bound])
    factor = torch.linalg.cholesky(covariance)
    cross = torch.linalg.solve_triangular(
        factor, prior_covariance(hyperparameters, exact_X, bound_X), upper=False
    )
    whitened = torch.linalg.solve_triangular(factor, data.Y[~bound].unsqueeze(-1), upper=False)
    target, variance, log_scale = bound_sites(
        (cross.T @ whitened).squeeze(-1),
        prior_covariance(hyperparameters, bound_X, bound_X) - cross.T @ cross,
        data.Y[bound],
        data.sign[bound],
        noise[bound],
    )
    Y, fixed = data.Y.clone(), data.variance.clone()
    Y[bound], fixed[bound] = target, variance
    return GaussianData(data.X, Y, fixed, learned, log_scale)


def fit_map(
    start: Tensor, data: Data, coordinates: Coordinates, max_iterations: int, *, scan: bool
) -> tuple[Tensor, float]:
    """Coordinates of the hyper-parameters with the greatest posterior density, found from a start.

    Args:
        start: θ to begin with.
        data: The observations.
        coordinates: What θ means.
        max_iterations: Most L-BFGS iterations, for each round of sites.
        scan: Look for better noises and correlations around the start first; what a cold start needs.

    Returns:
        θ, and −log(evidence × prior) there.
    """
    theta, value = start, math.inf
    for round_ in range(_SITE_ROUNDS if bool(data.is_bound.any()) else 1):
        gaussian = with_sites(data, coordinates.decode(theta))
        if scan and round_ == 0:
            theta = _scan(theta, gaussian, coordinates)
        theta, value = maximise_posterior(
            theta, coordinates, gaussian.X, gaussian.Y, gaussian.noise, max_iterations=max_iterations
        )
        value -= gaussian.log_scale
    return theta, value


def _scan(theta: Tensor, data: GaussianData, coordinates: Coordinates) -> Tensor:
    """Try a few values of each noise variance and of each partial correlation, one after another.

    The posterior density may have a mode for either sign of a correlation, and for answers that vary by
    noise or by short lengthscales; gradients don't lead from one to the other.
    """

    def objective(at: Tensor) -> float:
        return negative_log_posterior(at, coordinates, data.X, data.Y, data.noise)[0]

    best, value = theta, objective(theta)
    _, _, partial, noise = coordinates.parts
    for part, trials in ((noise, _SCANNED_NOISE), (partial, _SCANNED_PARTIAL)):
        for i in range(part.start, part.stop):
            for coordinate in trials:
                trial = best.clone()
                trial[i] = coordinate
                trial_value = objective(trial)
                if trial_value < value:
                    best, value = trial, trial_value
    return best
