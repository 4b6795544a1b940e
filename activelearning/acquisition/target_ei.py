"""Expected improvement at the target, weighted by how much a query tells about it: the cheap acquisition."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from activelearning.acquisition.incumbent import best_expected
from activelearning.acquisition.posterior import PendingWork
from activelearning.contracts import AcquisitionContext, Scorer


class TargetExpectedImprovement:
    """Expected improvement of the target, times the squared correlation of the query with it.

    The improvement is that of Jones, Schonlau & Welch (1998). The correlation is that of the query's noisy
    answer, given what is pending, as in the fidelity choice of augmented EI (Huang, Allen, Notz & Miller
    2006).
    """

    def build(self, context: AcquisitionContext) -> Scorer:
        """A scorer on the round's model."""
        return TargetEIScorer(context)


class TargetEIScorer:
    """Utilities, in the target's unit, of queries given what is pending."""

    def __init__(self, context: AcquisitionContext) -> None:
        self._sign = 1.0 if context.maximize else -1.0
        # Best value observed at the target or, before any, the best that the model expects.
        self._best = best_expected(context) if context.best is None else context.best
        self._work = PendingWork(context.model, context.target, context.pending)

    def add_pending(self, X: Tensor) -> None:
        """Condition on further queries in flight, `q x (d + 1)`; their answers are taken as the model expects them."""
        self._work.add(X)

    def __call__(self, X: Tensor) -> Tensor:
        """Utilities, `n`, of queries `n x (d + 1)`."""
        parts = [X.new_empty(0)]
        for _, moments in self._work.moments(X):
            deviation = moments.variance.sqrt()
            z = self._sign * (moments.mean - self._best) / deviation
            parts.append(deviation * standard_improvement(z) * moments.squared_correlation)
        return torch.cat(parts)


def standard_improvement(z: Tensor) -> Tensor:
    """φ(z) + z Φ(z), elementwise, without cancellation to the left."""
    density = (-0.5 * z.square()).exp() / math.sqrt(2.0 * math.pi)
    # Φ(z)/φ(z) = √(π/2) erfcx(−z/√2) where z is negative; erfcx grows without bound where it is positive.
    left = z.clamp_max(0.0)
    ratio = math.sqrt(math.pi / 2.0) * torch.special.erfcx(-left / math.sqrt(2.0))
    return torch.where(z < 0.0, density * (1.0 + left * ratio), density + z * torch.special.ndtr(z))
