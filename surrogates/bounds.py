"""Bounds as observations: expectation propagation for one-sided likelihoods.

A bound says that a noisy answer lies on one side of a value b, so its likelihood is Φ(s·(b − f)/σ) with s = +1
for an upper and −1 for a lower bound, σ the noise of that answer. Expectation propagation (Minka 2001;
Rasmussen & Williams, *Gaussian Processes for Machine Learning*, 2006, section 3.6) replaces each such factor
by a Gaussian one, a pseudo-observation with a pseudo-noise, after which the GP is exact again.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# A pseudo-noise above this (the prior variance is about 1) says nothing; the cap keeps numbers finite.
_MAX_VARIANCE = 1e8
_DAMPING = 0.8


def truncation_ratio(z: Tensor) -> Tensor:
    """φ(z)/Φ(z), elementwise, without underflow: about −z far to the left."""
    return math.sqrt(2.0 / math.pi) / torch.special.erfcx(-z / math.sqrt(2.0))


def bound_sites(
    mean: Tensor,
    covariance: Tensor,
    bound: Tensor,
    sign: Tensor,
    noise: Tensor,
    *,
    max_sweeps: int = 100,
    tolerance: float = 1e-8,
) -> tuple[Tensor, Tensor, float]:
    """Gaussian sites that stand for bounds on a jointly Gaussian vector.

    Args:
        mean: Mean of the latent vector before the bounds are known, `c`.
        covariance: Its covariance, `c x c`.
        bound: The bounds, `c`.
        sign: +1 where the bound is an upper, −1 where it is a lower one, `c`.
        noise: Variance of the noise of each bounded answer, `c`, positive.
        max_sweeps: Most parallel sweeps.
        tolerance: Sweeps end when no natural parameter moves by more than this.

    Returns:
        Pseudo-observations and their variances, each `c`, and the logarithm of the product of the sites'
        scales: added to the Gaussian log evidence of the pseudo-observations, it gives that of the bounds.
    """
    n = mean.shape[0]
    precision = torch.zeros_like(mean)
    shift = torch.zeros_like(mean)  # precision times pseudo-observation
    identity = torch.eye(n, dtype=mean.dtype)
    for _ in range(max_sweeps):
        # Posterior under the present sites: Σ = K − K S½ (I + S½ K S½)⁻¹ S½ K, well-conditioned for S = 0 too.
        root = precision.sqrt()
        factor = torch.linalg.cholesky(identity + root.unsqueeze(1) * covariance * root)
        half = torch.linalg.solve_triangular(factor, root.unsqueeze(1) * covariance, upper=False)
        posterior_covariance = covariance - half.T @ half
        posterior_mean = mean + posterior_covariance @ (shift - precision * mean)
        variance = posterior_covariance.diagonal().clamp_min(1e-12)

        cavity_variance = 1.0 / (1.0 / variance - precision).clamp_min(1e-12)
        cavity_mean = cavity_variance * (posterior_mean / variance - shift)

        # Moments of the cavity times Φ(s (b − f)/σ): Rasmussen & Williams, eq. 3.58.
        spread = (cavity_variance + noise).sqrt()
        z = sign * (bound - cavity_mean) / spread
        ratio = truncation_ratio(z)
        first = -sign * ratio / spread  # d log Z / d cavity mean
        second = (
            ratio * (z + ratio) / spread.square()
        )  # −d² log Z / d cavity mean²; positive: log Φ is concave
        new_precision = (second / (1.0 - cavity_variance * second).clamp_min(1e-12)).clamp_min(
            1.0 / _MAX_VARIANCE
        )
        new_shift = new_precision * cavity_mean + first * (1.0 + cavity_variance * new_precision)

        step_precision = _DAMPING * (new_precision - precision)
        step_shift = _DAMPING * (new_shift - shift)
        precision = precision + step_precision
        shift = shift + step_shift
        if max(float(step_precision.abs().max()), float(step_shift.abs().max())) < tolerance:
            break
    target, variance = shift / precision, 1.0 / precision
    total = cavity_variance + variance
    log_scale = (
        torch.special.log_ndtr(z)
        + 0.5 * (2.0 * math.pi * total).log()
        + 0.5 * (cavity_mean - target).square() / total
    )
    return target, variance, float(log_scale.sum())
