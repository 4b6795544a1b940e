"""How near a trained sampler is to its reward, and what the reward's own distribution would give.

A sampler that has learned R^β exactly has log p(x) = β log R(x) - log Z: a straight line of slope β. Where it has not,
its samples reweighted by R^β / p still follow the reward, so that what is told of the reward does not depend on how
well it was learned (self-normalised importance sampling).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from activelearning.errors import SamplerError


@dataclass(frozen=True)
class Agreement:
    """Log-probability against log reward over n objects.

    Attributes:
        pearson: Linear correlation; NaN where either is constant, as are the others.
        spearman: Rank correlation.
        slope: Of the least-squares line of log-probability on log reward; β where the reward is learned.
        n: Number of objects.
    """

    pearson: float
    spearman: float
    slope: float
    n: int


def agreement(log_probability: Tensor, log_reward: Tensor) -> Agreement:
    """How log-probabilities, `n`, follow log rewards, `n`, of the same objects.

    Raises:
        SamplerError: there are fewer than three, or they are not numbers.
    """
    p, r = _checked(log_probability, log_reward)
    if p.std() == 0.0 or r.std() == 0.0:
        return Agreement(math.nan, math.nan, math.nan, len(p))
    line = stats.linregress(r.numpy(), p.numpy())
    rank = stats.spearmanr(r.numpy(), p.numpy())
    return Agreement(float(line.rvalue), float(rank.statistic), float(line.slope), len(p))


@dataclass(frozen=True)
class Reweighted:
    """Samples of a policy, weighted to follow the reward.

    Attributes:
        weights: R^β / p of each sample, normalised to sum 1, `n`, float64.
        log_z: Estimate of log Z of R^β: log of the mean of R^β / p.
    """

    weights: Tensor
    log_z: float

    @classmethod
    def of(cls, log_probability: Tensor, log_reward: Tensor, *, beta: float = 1.0) -> Reweighted:
        """Weights of samples that the policy drew.

        Args:
            log_probability: log p of each sample, `n`, under the policy that drew it, without exploration.
            log_reward: log R of each, `n`, with p against the same measure.
            beta: Exponent of the reward.

        Raises:
            SamplerError: there are fewer than three, or they are not numbers.
        """
        p, r = _checked(log_probability, log_reward)
        log_weights = beta * r - p
        total = log_weights.logsumexp(0)
        return cls((log_weights - total).exp(), total.item() - math.log(len(p)))

    @property
    def effective_sample_size(self) -> float:
        """1 / Σ w², from 1 to n (Kish 1965); what is told from few effective samples is not to be trusted."""
        return 1.0 / self.weights.square().sum().item()

    def mean(self, values: Tensor) -> tuple[float, float]:
        """Mean of a property, `n`, under the reward's distribution, and its standard error (delta method)."""
        values = self._values(values)
        mean = (self.weights * values).sum()
        error = (self.weights * (values - mean)).square().sum().sqrt()
        return mean.item(), error.item()

    def quantiles(self, values: Tensor, levels: Sequence[float]) -> list[float]:
        """Quantiles of a property, `n`, under the reward's distribution: the least value that a share of at
        least `level` of the weight does not exceed.
        """
        values = self._values(values)
        order = values.argsort(stable=True)
        cumulative = self.weights[order].cumsum(0)
        cumulative = cumulative / cumulative[-1].clone()
        wanted = torch.tensor(list(levels), dtype=torch.float64)
        # Rounding of the sum must not push a level that a step reaches exactly to the next value.
        rows = torch.searchsorted(cumulative + 1e-12, wanted).clamp(max=len(values) - 1)
        return [float(value) for value in values[order][rows]]

    def _values(self, values: Tensor) -> Tensor:
        values = torch.as_tensor(values).double()
        if values.shape != self.weights.shape:
            raise SamplerError(
                f"A property of {len(self.weights)} samples needs as many values, not {tuple(values.shape)}."
            )
        return values


def _checked(log_probability: Tensor, log_reward: Tensor) -> tuple[Tensor, Tensor]:
    p, r = (torch.as_tensor(x).detach().double() for x in (log_probability, log_reward))
    if p.ndim != 1 or p.shape != r.shape or len(p) < 3 or not torch.isfinite(p + r).all():
        raise SamplerError(
            f"Log-probabilities and log rewards must be finite numbers of the same three or more objects; their "
            f"shapes are {tuple(p.shape)} and {tuple(r.shape)}."
        )
    return p, r
