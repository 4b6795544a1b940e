"""Utilities of queries that may fail."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from activelearning.contracts import Scorer


class FeasibleScorer:
    """A scorer whose utilities are multiplied by the probability that the query answers.

    What fails tells nothing about the objective, so that this is the expected utility. A negative utility stays as it
    is: a chance of failing must not make it look better.

    Args:
        scorer: Utilities of answers.
        probability: Of an answer, `n`, for queries `n x (d + 1)`.
    """

    def __init__(self, scorer: Scorer, probability: Callable[[Tensor], Tensor]) -> None:
        self._scorer = scorer
        self._probability = probability

    def add_pending(self, X: Tensor) -> None:
        """Condition on further queries in flight, `q x (d + 1)`."""
        self._scorer.add_pending(X)

    def __call__(self, X: Tensor) -> Tensor:
        """Utilities, `n`, of queries `n x (d + 1)`."""
        utilities = self._scorer(X)
        return torch.where(utilities > 0.0, utilities * self._probability(X).to(utilities), utilities)
