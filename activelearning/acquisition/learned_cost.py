"""What answers cost, learned from what they have cost: a correction of the oracle's own word.

Of one fidelity, with s the cost that its oracle foresaw and c the cost that was charged,

    log c = log s + b + w · z + noise,      b ~ N(0, κ σ²),  w ~ N(0, τ σ² / p),  noise ~ N(0, σ²),

where z holds the features and log s, standardised, p in number. σ² has an inverse-gamma prior, so that the posterior is
closed (Gelman et al., *Bayesian Data Analysis*, 3rd ed. 2013, section 14.2 and 14.8); τ is the value of a few with the
greatest evidence, 0 among them. Without a measured cost the prediction is the oracle's word.

No prediction of log c - log s falls below the least of b + w · z at the costs it was learned from. A linear function
takes its extremes over the convex hull of points at the points, so that nothing between them is changed. Beyond them, a
slope that is noise would promise answers for next to nothing, and utility per cost goes after exactly those. It is the
least fitted value, not the least cost, for the least of many noisy costs is as low as chance likes; nor is it left to
the variance of the prediction, which rests on the same few costs as the slope does. Upwards nothing more is needed: no
charge exceeds what was foreseen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# σ² has this prior: mean 0.1, costs that scatter by about a third about what is foreseen.
_SHAPE, _RATE = 2.0, 0.1
_BIAS_VARIANCE = 10.0  # κ: an oracle may well be wrong by a factor of e
_SLOPE_VARIANCES = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # τ


@dataclass(frozen=True)
class LearnedCost:
    """Costs of one fidelity.

    Attributes:
        centre: Means of the features and of log s, `p`.
        scale: Their standard deviations, 1 where they do not differ, `p`.
        weights: Posterior mean of b and w, `1 + p`.
        least: Least b + w · z among the costs it was learned from; 0 without any.
        slope_variance: τ.
        scatter: Square root of the posterior mean of σ².
        n: Number of costs it was learned from.
    """

    centre: Tensor
    scale: Tensor
    weights: Tensor
    least: float
    slope_variance: float
    scatter: float
    n: int

    @classmethod
    def fit(cls, features: Tensor, foreseen: Tensor, charged: Tensor) -> LearnedCost:
        """Learn from measured costs.

        Args:
            features: `n x d`.
            foreseen: Cost that the oracle foresaw, positive, `n`.
            charged: Cost that was charged, positive, `n`.
        """
        rows = torch.cat([features, foreseen.log().unsqueeze(-1)], dim=-1).to(torch.float64)
        n, p = rows.shape
        if n:
            centre, spread = rows.mean(0), rows.std(0, correction=0)
        else:
            centre, spread = rows.new_zeros(p), rows.new_ones(p)
        # What is constant up to rounding says nothing.
        scale = torch.where(spread > 1e-9 * (1.0 + centre.abs()), spread, torch.ones_like(spread))
        z = (rows - centre) / scale
        ratio = (charged / foreseen).log().to(torch.float64)
        fits = [(slope, *_posterior(z, ratio, slope)) for slope in _SLOPE_VARIANCES]
        slope_variance, _, weights, rate = max(
            fits, key=lambda fit: fit[1]
        )  # of equal ones the first, the least
        scatter = math.sqrt(rate / (_SHAPE + 0.5 * n - 1.0))
        least = float((weights[0] + z @ weights[1:]).min()) if n else 0.0
        return cls(centre, scale, weights, least, slope_variance, scatter, n)

    def predict(self, features: Tensor, foreseen: Tensor) -> Tensor:
        """Median of the cost of each answer, `n`: at most what was foreseen, which limits the charge.

        In proportion to what was foreseen, no answer is cheaper than the cheapest on the line that it was learned from.

        Args:
            features: `n x d`.
            foreseen: Cost that the oracle foresees, `n`.
        """
        rows = torch.cat([features, foreseen.log().unsqueeze(-1)], dim=-1).to(torch.float64)
        correction = self.weights[0] + (rows - self.centre) / self.scale @ self.weights[1:]
        return foreseen * correction.clamp_min(self.least).clamp_max(0.0).exp()


def _posterior(z: Tensor, ratio: Tensor, slope_variance: float) -> tuple[float, Tensor, float]:
    """Log evidence up to a constant, posterior mean of (b, w), and the rate of σ²'s posterior."""
    n, p = z.shape
    root = torch.full((1 + p,), math.sqrt(slope_variance / p), dtype=z.dtype)
    root[0] = math.sqrt(_BIAS_VARIANCE)
    design = torch.cat([torch.ones(n, 1, dtype=z.dtype), z], dim=-1) * root
    factor = torch.linalg.cholesky(torch.eye(1 + p, dtype=z.dtype) + design.T @ design)
    solved = torch.cholesky_solve((design.T @ ratio).unsqueeze(-1), factor).squeeze(-1)
    rate = _RATE + 0.5 * float(ratio @ (ratio - design @ solved))
    evidence = -float(factor.diagonal().log().sum()) - (_SHAPE + 0.5 * n) * math.log(rate)
    return evidence, root * solved, rate
