"""MF-MES: what a query at any fidelity tells about the greatest value of the target.

Takeno, Fukuoka, Tsukada, Koyama, Shiga, Takeuchi & Karasuyama, *Multi-fidelity Bayesian optimization with max-value
entropy search and its parallelization*, ICML 2020.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from activelearning.acquisition.maxima import Maxima, check_sizes
from activelearning.acquisition.posterior import PendingWork
from activelearning.contracts import AcquisitionContext, Scorer

# Nodes of the one integral, whose integrand is a smooth function times a Gaussian.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
_LARGEST = 1.0 - 1e-12  # of a squared correlation


class MultiFidelityMaxValueEntropy:
    """Multi-fidelity max-value entropy search with pending work.

    Args:
        n_max_samples: Draws of the target's greatest value, each with an answer of every pending query.
        n_candidates: Most reference points over which that greatest value is taken.

    Raises:
        ConfigError: a number is below 1.
    """

    def __init__(self, n_max_samples: int = 32, n_candidates: int = 1024) -> None:
        check_sizes(n_max_samples, n_candidates)
        self.n_max_samples = n_max_samples
        self.n_candidates = n_candidates

    def build(self, context: AcquisitionContext) -> Scorer:
        """A scorer on the round's model.

        Raises:
            ConfigError: the context has no reference points.
        """
        return MaxValueEntropyScorer(context, Maxima(context, self.n_max_samples, self.n_candidates))


class MaxValueEntropyScorer:
    """Utilities in nats: E [H(y | D, y_P) - H(y | D, y_P, t <= t*)].

    y is a query's noisy answer at any fidelity, t the target at the same features, t* the target's greatest value and
    y_P the answers of pending queries. The expectation is over joint draws of t* and y_P: pending answers move the
    mean of t and narrow both variances.
    """

    def __init__(self, context: AcquisitionContext, maxima: Maxima) -> None:
        self._maxima = maxima
        self._sign = 1.0 if context.maximize else -1.0
        self._work = PendingWork(context.model, context.target, context.pending)
        self.max_values, self._answers = maxima.draw(self._work.queries)

    def add_pending(self, X: Tensor) -> None:
        """Condition on further queries in flight, `q x (d + 1)`."""
        self._work.add(X)
        self.max_values, self._answers = self._maxima.draw(self._work.queries)

    def __call__(self, X: Tensor) -> Tensor:
        """Utilities, `n`, of queries `n x (d + 1)`; none is negative."""
        parts = [X.new_empty(0)]
        for _, moments in self._work.moments(X):
            mean = moments.mean + self._answers.T @ moments.response
            gamma = (self.max_values[:, None] - self._sign * mean) / moments.variance.sqrt()
            parts.append(truncation_information(gamma, moments.squared_correlation).mean(0))
        return torch.cat(parts)


def truncation_information(gamma: Tensor, squared_correlation: Tensor) -> Tensor:
    """Information, in nats, of y about the event t <= γ, for standard normal y and t.

    With ρ their correlation, s² = 1 - ρ² and r = φ/Φ, y given the event has the density φ(y) Φ((γ - ρ y)/s) / Φ(γ), and

        H(y) - H(y | t <= γ) = ½ ρ² γ r(γ) - log Φ(γ) + E [log Φ((γ - ρ y)/s)].

    Turning the plane of (y, (γ - ρ y)/s) by the angle of ρ makes the expectation s r(γ) ∫ φ(z) h(s γ + ρ z) dz with
    h = Φ log Φ / φ, which is smooth and grows no faster than |u|, so that a few nodes of Gauss-Hermite are enough.

    Args:
        gamma: `s x n`.
        squared_correlation: `n`, in [0, 1].
    """
    z = torch.tensor(_NODES, dtype=gamma.dtype)
    weight = torch.tensor(_WEIGHTS / math.sqrt(2.0 * math.pi), dtype=gamma.dtype)
    known = squared_correlation.clamp_max(_LARGEST)
    # The information is even in ρ, and has a slope in ρ² at 0, which a square root has not.
    rho, s = known.clamp_min(1e-24).sqrt(), (1.0 - known).sqrt()
    log_cdf = torch.special.log_ndtr(gamma)
    ratio = (-0.5 * gamma.square() - 0.5 * math.log(2.0 * math.pi) - log_cdf).exp()
    expected = (_h((s * gamma)[..., None] + rho[..., None] * z) * weight).sum(-1)
    return (0.5 * known * gamma * ratio - log_cdf + s * ratio * expected).clamp_min(0.0)


def _h(u: Tensor) -> Tensor:
    """Φ(u) log Φ(u) / φ(u), elementwise, without overflow or cancellation."""
    left, right = u.clamp_max(0.0), u.clamp_min(0.0)
    mills = math.sqrt(math.pi / 2.0)
    below = mills * torch.special.erfcx(-left / math.sqrt(2.0)) * torch.special.log_ndtr(left)
    upper = torch.special.ndtr(-right)  # 1 - Φ
    # log(1 - Q)/Q, by its series where Q is small.
    share = torch.where(
        upper < 1e-4, 1.0 + upper * (0.5 + upper / 3.0), -torch.log1p(-upper) / upper.clamp_min(1e-4)
    )
    above = -(1.0 - upper) * share * mills * torch.special.erfcx(right / math.sqrt(2.0))
    return torch.where(u < 0.0, below, above)
