"""MF-GIBBON: a lower bound on what a query at any fidelity tells about the greatest value of the target.

Moss, Leslie, Gonzalez & Rayson, *GIBBON: General-purpose Information-Based Bayesian OptimisatioN*, JMLR 22
(2021).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from activelearning.acquisition.posterior import joint_factor, query_moments
from activelearning.contracts import AcquisitionContext, Scorer
from activelearning.errors import ConfigError

_SMALLEST = 1e-12


class MultiFidelityGibbon:
    """Multi-fidelity GIBBON with pending work.

    Args:
        n_max_samples: Draws of the target's greatest value.
        n_candidates: Most reference points over which that greatest value is taken.

    Raises:
        ConfigError: a number is below 1.
    """

    def __init__(self, n_max_samples: int = 32, n_candidates: int = 1024) -> None:
        for key, value in {"n_max_samples": n_max_samples, "n_candidates": n_candidates}.items():
            if value < 1:
                raise ConfigError(f"acquisition.{key} must be at least 1, not {value}.")
        self.n_max_samples = n_max_samples
        self.n_candidates = n_candidates

    def build(self, context: AcquisitionContext) -> Scorer:
        """A scorer on the round's model.

        Raises:
            ConfigError: the context has no reference points.
        """
        return GibbonScorer(context, self._max_values(context))

    def _max_values(self, context: AcquisitionContext) -> Tensor:
        """Draws of max (min, where the objective is minimised: of −min) of the target, `n_max_samples`."""
        reference = context.reference
        if not len(reference):
            raise ConfigError("MF-GIBBON needs reference points of the space, and was given none.")
        generator = torch.Generator().manual_seed(context.seed % 2**63)
        if len(reference) > self.n_candidates:
            chosen = torch.randperm(len(reference), generator=generator)[: self.n_candidates]
            reference = reference[chosen.sort().values]
        column = torch.full((len(reference), 1), float(context.target), dtype=reference.dtype)
        with torch.no_grad():
            posterior = context.model.posterior(torch.cat([reference, column], dim=-1))
            mean = posterior.mean.squeeze(-1)
            factor = joint_factor(posterior.distribution.covariance_matrix)
            normal = torch.randn(len(mean), self.n_max_samples, generator=generator, dtype=mean.dtype)
            draws = mean.unsqueeze(-1) + factor @ normal
        return (draws if context.maximize else -draws).amax(0)


class GibbonScorer:
    """Utilities in nats: information of one more answer about the target's greatest value, less what pending
    answers say already.

    For a query y of any fidelity, with ρ its posterior correlation (noise included) with the target t at the
    same features, and γ = (t* − E t)/sd t for a draw t* of the greatest value,

        utility = −½ E log(1 − ρ² r(γ) (γ + r(γ))) + ½ log(1 − cᵀ V⁻¹ c / var y),     r = φ/Φ,

    where c holds the covariances of y with the pending answers and V is theirs. The second term is the
    increment of the paper's ½ log |R|; it may outweigh the first, and a utility be negative.
    """

    def __init__(self, context: AcquisitionContext, max_values: Tensor) -> None:
        self._model = context.model
        self._target = context.target
        self._sign = 1.0 if context.maximize else -1.0
        self.max_values = max_values
        self._pending = context.reference.new_empty(0, context.reference.shape[1] + 1)
        self._factor = context.reference.new_empty(0, 0)
        self.add_pending(context.pending)

    @property
    def pending(self) -> Tensor:
        """Queries in flight, `p x (d + 1)`."""
        return self._pending

    def add_pending(self, X: Tensor) -> None:
        """Condition on further queries in flight, `q x (d + 1)`."""
        if not len(X):
            return
        self._pending = torch.cat([self._pending, X.detach().to(self._pending)])
        with torch.no_grad():
            answers = self._model.posterior(self._pending, observation_noise=True)
            self._factor = joint_factor(answers.distribution.covariance_matrix)

    def __call__(self, X: Tensor) -> Tensor:
        """Utilities, `n`, of queries `n x (d + 1)`."""
        parts = [X.new_empty(0)]
        for moments in query_moments(self._model, X, self._target, self._pending):
            smallest = _SMALLEST * moments.noisy_variance.detach().clamp_min(1e-300)
            variance = moments.variance.clamp_min(smallest)
            gamma = (self.max_values.unsqueeze(-1) - self._sign * moments.mean) / variance.sqrt()
            correlation = moments.cross.square() / (variance * moments.noisy_variance)
            known = correlation.clamp_max(1.0) * truncation_shrinkage(gamma)
            utility = -0.5 * torch.log1p(-known.clamp_max(1.0 - _SMALLEST)).mean(0)
            if len(self._pending):
                solved = torch.linalg.solve_triangular(self._factor, moments.pending.T, upper=False)
                said = solved.square().sum(0) / moments.noisy_variance
                utility = utility + 0.5 * torch.log1p(-said.clamp_max(1.0 - _SMALLEST))
            parts.append(utility)
        return torch.cat(parts)


def truncation_shrinkage(gamma: Tensor) -> Tensor:
    """r(γ)(γ + r(γ)) with r = φ/Φ: the share by which knowing t ≤ t* shrinks the variance of t, elementwise."""
    log_ratio = -0.5 * gamma.square() - 0.5 * math.log(2.0 * math.pi) - torch.special.log_ndtr(gamma)
    ratio = log_ratio.exp()
    # Far to the left r ≈ −γ + 1/γ … and γ + r cancels; there the share is 1 − 1/γ² + 6/γ⁴ − … .
    far = gamma < -30.0
    series = 1.0 - gamma.clamp_max(-30.0).square().reciprocal()
    return torch.where(far, series, ratio * (torch.where(far, torch.zeros_like(gamma), gamma) + ratio))
