"""A prior: rewards by which a sampler's own reward is multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from activelearning.candidate import Candidate
from activelearning.contracts import LogReward
from activelearning.rewards.product import ProductReward


@dataclass(frozen=True)
class Prior:
    """log P(x) = Σ w_k log R_k(x), up to a constant.

    A sampler in proportion to R · P samples as one in proportion to R that starts from P in place of the uniform
    density.

    Attributes:
        terms: Rewards of one property each.
        weights: w_k of each, positive.
    """

    terms: tuple[ProductReward, ...]
    weights: tuple[float, ...]

    def __call__(self, candidates: Sequence[Candidate]) -> Tensor:
        """log P, `n`, float64, finite."""
        total = torch.zeros(len(candidates), dtype=torch.float64)
        for weight, term in zip(self.weights, self.terms, strict=True):
            total = total + weight * term(candidates)
        return total

    def on(self, log_reward: LogReward) -> LogReward:
        """log R + log P for a sampler to be trained on."""

        def both(candidates: Sequence[Candidate], fidelities: Sequence[int] | None) -> Tensor:
            return log_reward(candidates, fidelities) + self(candidates)

        return both
