"""MF-GIBBON: a lower bound on what a query at any fidelity tells about the greatest value of the target.

Moss, Leslie, Gonzalez & Rayson, *GIBBON: General-purpose Information-Based Bayesian OptimisatioN*, JMLR 22
(2021).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from activelearning.acquisition.maxima import Maxima, check_sizes
from activelearning.acquisition.posterior import PendingWork, QueryMoments
from activelearning.contracts import AcquisitionContext, Scorer

_SMALLEST = 1e-12

PendingRule = Literal["conditioning", "repulsion"]


class MultiFidelityGibbon:
    """Multi-fidelity GIBBON with pending work.

    Args:
        n_max_samples: Draws of the target's greatest value.
        n_candidates: Most reference points over which that greatest value is taken.
        pending: How work in flight counts, see `GibbonScorer`. Against brute force, `conditioning` ranks
            queries better and keeps the scale of the information; `repulsion` is the paper's.

    Raises:
        ConfigError: a number is below 1.
    """

    def __init__(
        self, n_max_samples: int = 32, n_candidates: int = 1024, pending: PendingRule = "conditioning"
    ) -> None:
        check_sizes(n_max_samples, n_candidates)
        self.n_max_samples = n_max_samples
        self.n_candidates = n_candidates
        self.pending = pending

    def build(self, context: AcquisitionContext) -> Scorer:
        """A scorer on the round's model.

        Raises:
            ConfigError: the context has no reference points.
        """
        maxima = Maxima(context, self.n_max_samples, self.n_candidates)
        return GibbonScorer(context, maxima.draw(context.pending[:0])[0], self.pending)


class GibbonScorer:
    """Utilities in nats: what one more answer tells about the target's greatest value, given what is pending.

    For a query with noisy answer y of any fidelity, t the target at the same features, ρ their posterior
    correlation, and γ = (t* − E t)/sd t for a draw t* of the greatest value,

        utility = −½ E log(1 − ρ² r(γ) (γ + r(γ))),     r = φ/Φ.

    With pending work either ρ and sd t are those after the pending answers are known (`conditioning`), or
    the utility gains ½ log(1 − cᵀ V⁻¹ c / var y), with c the covariances of y with the pending answers and V
    theirs, which is the increment of the paper's ½ log |R| (`repulsion`). The first is never negative.
    """

    def __init__(self, context: AcquisitionContext, max_values: Tensor, pending: PendingRule) -> None:
        self.max_values = max_values
        self._sign = 1.0 if context.maximize else -1.0
        self._pending = pending
        self._work = PendingWork(context.model, context.target, context.pending)

    def add_pending(self, X: Tensor) -> None:
        """Condition on further queries in flight, `q x (d + 1)`."""
        self._work.add(X)

    def __call__(self, X: Tensor) -> Tensor:
        """Utilities, `n`, of queries `n x (d + 1)`."""
        parts = [X.new_empty(0)]
        for before, after in self._work.moments(X):
            if self._pending == "conditioning":
                parts.append(self._information(after))
            else:
                # The conditional variance of y is var y − cᵀ V⁻¹ c.
                parts.append(
                    self._information(before) + 0.5 * (after.noisy_variance / before.noisy_variance).log()
                )
        return torch.cat(parts)

    def _information(self, moments: QueryMoments) -> Tensor:
        gamma = (self.max_values.unsqueeze(-1) - self._sign * moments.mean) / moments.variance.sqrt()
        known = moments.squared_correlation * truncation_shrinkage(gamma)
        return -0.5 * torch.log1p(-known.clamp_max(1.0 - _SMALLEST)).mean(0)


def truncation_shrinkage(gamma: Tensor) -> Tensor:
    """r(γ)(γ + r(γ)) with r = φ/Φ: the share by which knowing t ≤ t* shrinks the variance of t, elementwise."""
    log_ratio = -0.5 * gamma.square() - 0.5 * math.log(2.0 * math.pi) - torch.special.log_ndtr(gamma)
    ratio = log_ratio.exp()
    # Far to the left r ≈ −γ + 1/γ … and γ + r cancels; there the share is 1 − 1/γ² + 6/γ⁴ − … .
    far = gamma < -30.0
    series = 1.0 - gamma.clamp_max(-30.0).square().reciprocal()
    return torch.where(far, series, ratio * (torch.where(far, torch.zeros_like(gamma), gamma) + ratio))
