"""The evidence of the coregionalised prior and its gradient, written out.

A fit asks for them a hundred times, and for tens or hundreds of answers automatic differentiation spends most of its
time on bookkeeping. With K the covariance of the answers, α = K⁻¹ y and G = ½ (K⁻¹ − α αᵀ), the slope of −log evidence
along any change dK is Σ G dK (Rasmussen & Williams, *Gaussian Processes for Machine Learning*, 2006, eq. 5.9).
`surrogates.evidence.AutogradEvidence` gives the same numbers for any prior, more slowly.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from surrogates.data import GaussianData
from surrogates.hyperparameters import (
    AMPLITUDE_SIGMA,
    COORDINATE_SIGMA,
    LENGTHSCALE_SIGMA,
    LKJ_SHAPE,
    NOISE_LOCATION,
    NOISE_SIGMA,
    Coordinates,
    lengthscale_centre,
)
from surrogates.priors import constants

Vector = np.ndarray[tuple[int], np.dtype[np.float64]]
Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]


class CoregionalisedEvidence:
    """−log(evidence × prior) of the coregionalised prior, as a function of its coordinates.

    Args:
        coordinates: What θ means.
        data: Answers and sites, `n`.
    """

    def __init__(self, coordinates: Coordinates, data: GaussianData) -> None:
        self._coordinates = coordinates
        self._data = data
        self._x = data.X[:, :-1] - 0.5
        fidelity = data.X[:, -1].round().long()
        m = coordinates.n_fidelities
        self._one_hot = torch.nn.functional.one_hot(fidelity, m).to(data.X)
        self._constants = constants(fidelity.unsqueeze(-1), fidelity.unsqueeze(-2)).to(data.X)
        self._learned = (self._one_hot * data.learned.unsqueeze(-1)).numpy()
        self._position = np.argsort(coordinates.order)

    def value(self, theta: Vector) -> float:
        """At θ."""
        with torch.no_grad():
            return self._evaluate(theta, False)[0]

    def __call__(self, theta: Vector) -> tuple[float, Vector]:
        """Value and gradient at θ."""
        with torch.no_grad():
            return self._evaluate(theta, True)

    def _evaluate(self, theta: Vector, with_gradient: bool) -> tuple[float, Vector]:
        c, data = self._coordinates, self._data
        lengthscales, amplitudes, partial, noise = c.parts
        length = torch.from_numpy(np.exp(theta[lengthscales]))
        amplitude, variance = np.exp(theta[amplitudes]), np.exp(theta[noise])
        p = np.tanh(theta[partial])
        left, factor = _factor(p, c.n_fidelities)
        ordered = factor @ factor.T
        correlation = ordered[np.ix_(self._position, self._position)]
        between = torch.from_numpy(amplitude[:, None] * correlation * amplitude)

        x = self._x / length
        squares = x.square().sum(-1)
        r = torch.addmm(squares.unsqueeze(-1) + squares, x, x.T, alpha=-2.0)
        r = r.mul_(5.0).clamp_min_(5e-20).sqrt_()
        decay = r.neg().exp_()
        kernel = torch.addcmul(r + 1.0, r, r, value=1.0 / 3.0).mul_(decay)
        weight = self._one_hot @ between @ self._one_hot.T
        K = torch.addcmul(self._constants, weight, kernel)
        K.diagonal().add_(torch.from_numpy(self._learned @ variance) + data.fixed_variance)

        L = torch.linalg.cholesky(K)
        alpha = torch.cholesky_solve(data.Y.unsqueeze(-1), L)
        value = 0.5 * float(data.Y @ alpha.squeeze(-1)) + float(L.diagonal().log().sum())
        value += 0.5 * len(data.Y) * math.log(2.0 * math.pi)
        centre = lengthscale_centre(c.n_features)
        z = (
            (theta[lengthscales] - centre) / LENGTHSCALE_SIGMA,
            theta[amplitudes] / AMPLITUDE_SIGMA,
            theta[partial] / COORDINATE_SIGMA,
            (theta[noise] - NOISE_LOCATION) / NOISE_SIGMA,
        )
        value += sum(0.5 * float(part @ part) for part in z)
        value -= (LKJ_SHAPE - 1.0) * float(np.log1p(-(p**2)).sum())
        if not with_gradient:
            return value, theta

        slope = torch.cholesky_inverse(L).addmm_(alpha, alpha.T, alpha=-1.0).mul_(0.5)
        gradient = np.empty_like(theta)
        gradient[noise] = variance * (slope.diagonal().numpy() @ self._learned)
        gradient[noise] += z[3] / NOISE_SIGMA

        d_between = (self._one_hot.T @ (slope * kernel) @ self._one_hot).numpy()
        gradient[amplitudes] = 2.0 * (d_between * between.numpy()).sum(axis=1) + z[1] / AMPLITUDE_SIGMA
        d_ordered = (d_between * amplitude[:, None] * amplitude)[np.ix_(c.order, c.order)]
        d_factor = 2.0 * d_ordered @ factor
        gradient[partial] = _partial_gradient(p, left, factor, d_factor)
        gradient[partial] += z[2] / COORDINATE_SIGMA + 2.0 * (LKJ_SHAPE - 1.0) * p

        # dk/d(r²/5) = −(5/6)(1 + r) exp(−r), and d(r²/5)/d log ℓ = −2 (x − x')².
        h = slope.mul_(weight).mul_(decay).mul_(r.add_(1.0))
        along = (h.sum(-1) @ x.square()) - (x * (h @ x)).sum(0)
        gradient[lengthscales] = (10.0 / 3.0) * along.numpy() + z[0] / LENGTHSCALE_SIGMA
        return value, gradient


def _factor(p: Vector, m: int) -> tuple[Matrix, Matrix]:
    """Factor of the ordered correlation matrix from partial correlations, and what each of its rows has left.

    Row i is (p₁, p₂ l₁, p₃ l₂, …, l_i) with l_j = √(1 − p₁²) … √(1 − p_j²); entry j of the first result is l_{j-1}.
    """
    left, factor = np.ones((m, m)), np.eye(m)
    start = 0
    for i in range(1, m):
        row = p[start : start + i]
        start += i
        left[i, 1 : i + 1] = np.cumprod(np.sqrt(1.0 - row**2))
        factor[i, :i] = row * left[i, :i]
        factor[i, i] = left[i, i]
    return left, factor


def _partial_gradient(p: Vector, left: Matrix, factor: Matrix, d_factor: Matrix) -> Vector:
    """Gradient along the coordinates artanh p, given that along the factor's entries."""
    m = len(factor)
    gradient = np.empty_like(p)
    start = 0
    products = d_factor * factor
    for i in range(1, m):
        row = p[start : start + i]
        # Entry j carries p_j itself, every later one √(1 − p_j²); dp_j is 1 − p_j².
        later = products[i, : i + 1].sum() - np.cumsum(products[i, :i])
        gradient[start : start + i] = d_factor[i, :i] * left[i, :i] * (1.0 - row**2) - row * later
        start += i
    return gradient
