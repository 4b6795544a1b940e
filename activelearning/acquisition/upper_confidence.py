"""MF-UCB: what a query at any fidelity takes away of the target's optimism.

Kandasamy, Dasarathy, Oliva, Schneider & Póczos, *Gaussian process bandit optimisation with multi-fidelity
evaluations*, NeurIPS 2016, ask where the target's upper confidence bound is greatest, at the cheapest fidelity that
is still uncertain there. Their bounds need fidelities in an order, each within a known distance of the target. Here
the relation of every fidelity to the target is what the model has learned, and the price of uncertainty is the
fidelity's cost.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from activelearning.acquisition.incumbent import best_expected
from activelearning.acquisition.posterior import PendingWork
from activelearning.contracts import AcquisitionContext, Scorer
from activelearning.errors import ConfigError

_LEFT = 1e-12  # least share of a variance that an answer leaves, for the slope of its root


class MultiFidelityUCB:
    """Multi-fidelity upper confidence bound with pending work.

    Args:
        beta: Square of the number of standard deviations in the bound; 4 is two of them.

    Raises:
        ConfigError: beta is not positive and finite.
    """

    def __init__(self, beta: float = 4.0) -> None:
        if not (0.0 < beta < math.inf):
            raise ConfigError(f"acquisition.beta must be greater than 0 and finite, not {beta}.")
        self.beta = beta

    def build(self, context: AcquisitionContext) -> Scorer:
        """A scorer on the round's model.

        Raises:
            ConfigError: the context has no reference points.
        """
        if not len(context.reference):
            raise ConfigError(
                "An acquisition by upper confidence bounds needs reference points of the space; it has none."
            )
        return UCBScorer(context, self.beta)


class UCBScorer:
    """Utilities, in the target's unit, of queries given what is pending.

    For a query with noisy answer y, t the target at the same features (maximised), and everything but E t given the
    pending answers,

        h = E t + √β sd t - τ,      share = 1 - √(1 - ρ²),      utility = h · share    (h alone where it is negative).

    ρ is the correlation of y and t. τ is the best value that the model expects of the target over the reference points,
    so that h is the improvement that is still plausible. Knowing y narrows the half-width √β sd t by `share`, whatever
    the answer, and leaves E t where it is on average: the utility is the plausible improvement, weighted by how much of
    the doubt behind it the query settles.

    An answer of the target without noise has the share 1: queries of it rank as by the bound itself, whatever τ. A
    source that is known as well as its correlation allows has little share left, and the target's turn comes, which
    is Kandasamy's rule; a source that tells nothing is worth nothing. Where h is negative no answer is wanted: the
    utility says how far the bound is below τ, the same at every fidelity. Pending answers narrow the bound and do not
    move it, as in GP-BUCB (Desautels, Krause & Burdick, JMLR 15, 2014).
    """

    def __init__(self, context: AcquisitionContext, beta: float) -> None:
        self._sign = 1.0 if context.maximize else -1.0
        self._root = math.sqrt(beta)
        self._best = best_expected(context)
        self._work = PendingWork(context.model, context.target, context.pending)

    def add_pending(self, X: Tensor) -> None:
        """Condition on further queries in flight, `q x (d + 1)`."""
        self._work.add(X)

    def __call__(self, X: Tensor) -> Tensor:
        """Utilities, `n`, of queries `n x (d + 1)`."""
        parts = [X.new_empty(0)]
        for _, moments in self._work.moments(X):
            plausible = self._sign * (moments.mean - self._best) + self._root * moments.variance.sqrt()
            known = moments.squared_correlation
            # 1 - √(1 - ρ²), without cancellation where ρ is small.
            share = known / (1.0 + (1.0 - known).clamp_min(_LEFT).sqrt())
            parts.append(torch.where(plausible > 0.0, plausible * share, plausible))
        return torch.cat(parts)
