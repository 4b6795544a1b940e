"""Hyper-parameters of the coregionalised GP: coordinates, priors and the maximum a posteriori.

Correlation matrices are written in canonical partial correlations (Joe 2006; Lewandowski, Kurowicka & Joe
2009), each the tanh of an unconstrained number, so that every point of the coordinates is a correlation
matrix, negative entries included. Lengthscales have the dimension-scaled log-normal prior of Hvarfner,
Hellsten & Nardi (ICML 2024).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from surrogates.coregionalised_gp import Hyperparameters, prior_covariance

LENGTHSCALE_LOCATION, LENGTHSCALE_SIGMA = math.sqrt(2.0), math.sqrt(3.0)
AMPLITUDE_SIGMA = 1.0
NOISE_LOCATION, NOISE_SIGMA = -9.0, 2.5
NOISE_FLOOR = 1e-6  # variance, in units of the fidelity's scale squared; keeps Cholesky factors sound
LKJ_SHAPE = 1.5  # weakly against |R| = 1, which a handful of answers would otherwise suggest: worth one datum
COORDINATE_SIGMA = 1.5
_LIMIT = 4.0  # of the coordinate of a partial correlation: |tanh| ≤ 0.9993


@dataclass(frozen=True)
class Coordinates:
    """How hyper-parameters of d features and M fidelities lie in one unconstrained vector θ.

    θ = (log lengthscales, log amplitudes, coordinates of partial correlations, log noise variances).

    Attributes:
        n_features: d.
        order: The fidelities, target first; row i of the factor of R belongs to `order[i]`.
    """

    n_features: int
    order: tuple[int, ...]

    @classmethod
    def of(cls, n_features: int, n_fidelities: int, target: int) -> Coordinates:
        """Coordinates with the target's correlations first."""
        return cls(n_features, (target, *(i for i in range(n_fidelities) if i != target)))

    @property
    def n_fidelities(self) -> int:
        """M."""
        return len(self.order)

    @property
    def parts(self) -> list[slice]:
        """Where the four groups lie in θ."""
        d, m = self.n_features, self.n_fidelities
        ends = np.cumsum([0, d, m, m * (m - 1) // 2, m]).tolist()
        return [slice(start, end) for start, end in itertools.pairwise(ends)]

    @property
    def size(self) -> int:
        """Length of θ."""
        return self.parts[-1].stop

    def prior_mode(self) -> Tensor:
        """θ at the prior's mode."""
        theta = torch.zeros(self.size, dtype=torch.float64)
        lengthscales, _, _, noise = self.parts
        theta[lengthscales] = self._lengthscale_centre()
        theta[noise] = NOISE_LOCATION
        return theta

    def limits(self) -> list[tuple[float, float]]:
        """Box of θ that keeps the model's linear algebra sound."""
        _, amplitudes, partial, noise = self.parts
        limits = [(-4.0, 7.0)] * self.size
        limits[amplitudes] = [(-4.0, 4.0)] * self.n_fidelities
        limits[partial] = [(-_LIMIT, _LIMIT)] * (partial.stop - partial.start)
        limits[noise] = [(math.log(NOISE_FLOOR), 3.0)] * self.n_fidelities
        return limits

    def decode(self, theta: Tensor) -> Hyperparameters:
        """Hyper-parameters at θ; differentiable."""
        lengthscales, amplitudes, partial, noise = self.parts
        return Hyperparameters(
            theta[lengthscales].exp(),
            theta[amplitudes].exp(),
            self._correlation(theta[partial].tanh()),
            theta[noise].exp(),
        )

    def negative_log_prior(self, theta: Tensor) -> Tensor:
        """−log prior density at θ, up to a constant."""
        lengthscales, amplitudes, partial, noise = self.parts
        # log det R is the sum of log(1 − p²) over partial correlations p.
        log_determinant = torch.log1p(-theta[partial].tanh().square())
        return (
            _square(theta[lengthscales] - self._lengthscale_centre(), LENGTHSCALE_SIGMA)
            + _square(theta[amplitudes], AMPLITUDE_SIGMA)
            + _square(theta[noise] - NOISE_LOCATION, NOISE_SIGMA)
            + _square(theta[partial], COORDINATE_SIGMA)
            - (LKJ_SHAPE - 1.0) * log_determinant.sum()
        )

    def _lengthscale_centre(self) -> float:
        # The mode of the log-normal density over lengthscales; in log coordinates here it is a Gaussian about it.
        return LENGTHSCALE_LOCATION + 0.5 * math.log(self.n_features) - LENGTHSCALE_SIGMA**2

    def _correlation(self, partial: Tensor) -> Tensor:
        m = self.n_fidelities
        rows = [torch.ones(1, dtype=partial.dtype)]
        start = 0
        for i in range(1, m):
            p = partial[start : start + i]
            start += i
            left = torch.cumprod((1.0 - p.square()).sqrt(), dim=0)
            entries = torch.cat([p[:1], p[1:] * left[:-1], left[-1:]])
            rows.append(entries)
        factor = torch.stack([torch.cat([row, row.new_zeros(m - row.shape[0])]) for row in rows])
        ordered = factor @ factor.T
        position = torch.tensor(np.argsort(self.order))
        return ordered[position][:, position]


def _square(deviation: Tensor, sigma: float) -> Tensor:
    return 0.5 * (deviation / sigma).square().sum()


def negative_log_posterior(
    theta: Tensor, coordinates: Coordinates, X: Tensor, Y: Tensor, noise: Callable[[Tensor], Tensor]
) -> tuple[float, Tensor]:
    """−log(likelihood × prior) and its gradient.

    Args:
        theta: Coordinates of the hyper-parameters.
        coordinates: Their meaning.
        X: Features and fidelity index, `n x (d + 1)`.
        Y: Standardised answers, `n`.
        noise: From each fidelity's noise variance, `M`, to each answer's, `n`; differentiable.
    """
    leaf = theta.detach().clone().requires_grad_(True)
    parameters = coordinates.decode(leaf)
    covariance = prior_covariance(parameters, X, X) + torch.diag_embed(noise(parameters.noise))
    with torch.no_grad():
        factor = torch.linalg.cholesky(covariance)
        weights = torch.cholesky_solve(Y.unsqueeze(-1), factor)
        value = 0.5 * (Y @ weights.squeeze(-1)) + factor.diagonal().log().sum()
        value = value + 0.5 * Y.shape[0] * math.log(2.0 * math.pi)
        # d value = tr(G dK) with G = ½ (K⁻¹ − α αᵀ): cheaper than the backward pass of a Cholesky factor.
        slope = 0.5 * (torch.cholesky_inverse(factor) - weights @ weights.T)
    prior = coordinates.negative_log_prior(leaf)
    total = (slope * covariance).sum() + prior
    (gradient,) = torch.autograd.grad(total, leaf)
    return float(value + prior.detach()), gradient


def maximise_posterior(
    start: Tensor,
    coordinates: Coordinates,
    X: Tensor,
    Y: Tensor,
    noise: Callable[[Tensor], Tensor],
    *,
    max_iterations: int,
) -> tuple[Tensor, float]:
    """L-BFGS from `start`, bounded by iterations: θ and −log(likelihood × prior) there."""

    def objective(theta: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, object]:
        value, gradient = negative_log_posterior(torch.from_numpy(theta), coordinates, X, Y, noise)
        return value, gradient.numpy()

    limits = coordinates.limits()
    lower, upper = (torch.tensor(side, dtype=torch.float64) for side in zip(*limits, strict=True))
    result = minimize(
        objective,
        torch.maximum(torch.minimum(start, upper), lower).numpy(),
        jac=True,
        method="L-BFGS-B",
        bounds=limits,
        options={"maxiter": max_iterations, "maxfun": 2 * max_iterations},
    )
    return torch.tensor(result.x, dtype=torch.float64), float(result.fun)
