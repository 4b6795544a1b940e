"""Whether an evaluation will answer at all: Gaussian-process classification of what has failed so far.

The latent f over (features, fidelity) has the prior

    E f = MEAN,    cov(f_m(x), f_n(x')) = (SHARED + (1 - SHARED) δ_mn) (MEAN_VARIANCE + a² k(x, x')),

with k a Matérn-5/2 kernel of one lengthscale, and an evaluation answers with probability Φ(f) (Rasmussen & Williams,
*Gaussian Processes for Machine Learning*, 2006, section 3.6). That is the likelihood of a bound at 0 with unit noise,
so expectation propagation is that of `surrogates.bounds`. Scale and lengthscale are those of a small grid with the
greatest evidence: failures are few, and a gradient would only follow their noise.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from surrogates.bounds import bound_sites
from surrogates.priors import matern52

MEAN, MEAN_VARIANCE = 1.3, 1.0  # nine of ten answer, give or take
SHARED = 0.5  # of the variance by all fidelities: what melts in one oracle may not even converge in another
AMPLITUDES = (0.5, 1.0, 2.0)
LENGTHSCALES = (0.1, 0.25, 0.6, 1.5)  # times the diagonal of the unit cube of features
MAX_ROWS = 400  # expectation propagation costs their cube


@dataclass(frozen=True)
class _Posterior:
    """What failures so far say, for one choice of hyper-parameters."""

    amplitude: float
    lengthscale: float
    x: Tensor
    fidelity: Tensor
    factor: Tensor  # of the covariance with the sites' variances
    weights: Tensor  # its inverse times (sites - MEAN)
    log_evidence: float

    def covariance(self, x: Tensor, fidelity: Tensor) -> Tensor:
        """With the rows known, `n x r`."""
        return _covariance(x, fidelity, self.x, self.fidelity, self.amplitude, self.lengthscale)


class Feasibility:
    """Probability that an evaluation answers; 1 as long as none has failed."""

    def __init__(self) -> None:
        self._posterior: _Posterior | None = None

    @property
    def log_evidence(self) -> float | None:
        """Of what was fitted to; None where nothing has failed."""
        return None if self._posterior is None else self._posterior.log_evidence

    def fit(self, features: Tensor, fidelity: Tensor, answered: Tensor, *, seed: int = 0) -> None:
        """Learn from evaluations that have ended.

        Args:
            features: `n x d`, in the unit cube.
            fidelity: Index of the fidelity of each, `n`, long.
            answered: False where it failed, `n`, bool.
            seed: Of the rows taken where there are more than `MAX_ROWS`.
        """
        if bool(answered.all()):
            self._posterior = None
            return
        if len(answered) > MAX_ROWS:
            generator = torch.Generator().manual_seed(seed)
            rows = torch.randperm(len(answered), generator=generator)[:MAX_ROWS].sort().values
            features, fidelity, answered = features[rows], fidelity[rows], answered[rows]
            if bool(answered.all()):
                self._posterior = None
                return
        found = (
            _posterior(features.double(), fidelity, answered, amplitude, lengthscale)
            for amplitude, lengthscale in itertools.product(AMPLITUDES, LENGTHSCALES)
        )
        self._posterior = max(found, key=lambda posterior: posterior.log_evidence)

    def probability(self, features: Tensor, fidelity: Tensor) -> Tensor:
        """Probability that each evaluation answers, `n`, float64; differentiable in the features.

        Args:
            features: `n x d`.
            fidelity: `n`, long.
        """
        known = self._posterior
        if known is None:
            return torch.ones(len(features), dtype=torch.float64)
        cross = known.covariance(features.double(), fidelity)
        mean = MEAN + cross @ known.weights
        projected = torch.linalg.solve_triangular(known.factor, cross.T, upper=False)
        variance = MEAN_VARIANCE + known.amplitude**2 - projected.square().sum(dim=0)
        return torch.special.ndtr(mean / (1.0 + variance.clamp_min(0.0)).sqrt())


def _covariance(
    x: Tensor, fidelity: Tensor, z: Tensor, other: Tensor, amplitude: float, lengthscale: float
) -> Tensor:
    scale = lengthscale * math.sqrt(x.shape[-1])
    squared = (x[:, None, :] - z[None, :, :]).square().sum(dim=-1) / scale**2
    within = MEAN_VARIANCE + amplitude**2 * matern52(squared)
    return torch.where(fidelity[:, None] == other[None, :], within, SHARED * within)


def _posterior(
    x: Tensor, fidelity: Tensor, answered: Tensor, amplitude: float, lengthscale: float
) -> _Posterior:
    prior = _covariance(x, fidelity, x, fidelity, amplitude, lengthscale)
    mean = torch.full((len(x),), MEAN, dtype=torch.float64)
    sign = torch.where(answered, -1.0, 1.0).double()  # an answer is a lower bound of f at 0
    sites, variance, log_scale = bound_sites(mean, prior, torch.zeros_like(mean), sign, torch.ones_like(mean))
    factor = torch.linalg.cholesky(prior + torch.diag(variance))
    deviation = (sites - mean)[:, None]
    whitened = torch.linalg.solve_triangular(factor, deviation, upper=False)
    weights = torch.linalg.solve_triangular(factor.T, whitened, upper=True).squeeze(1)
    log_evidence = (
        log_scale
        - 0.5 * float(whitened.square().sum())
        - float(factor.diagonal().log().sum())
        - 0.5 * len(x) * math.log(2.0 * math.pi)
    )
    return _Posterior(amplitude, lengthscale, x, fidelity, factor, weights, log_evidence)
