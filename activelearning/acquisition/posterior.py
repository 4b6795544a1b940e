"""What acquisitions ask of a model over (features, fidelity): joint moments of queries, target and pending work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from botorch.models.model import Model
from linear_operator.utils.cholesky import psd_safe_cholesky
from torch import Tensor

# Rows of one joint posterior: its cost grows with the square of the rows, the overhead with the number of
# calls.
_CHUNK = 64


@dataclass(frozen=True)
class QueryMoments:
    """Posterior moments of `c` queries; y is a query's noisy answer, t the noise-free target at the same
    features.

    Attributes:
        mean: Of t, `c`.
        variance: Of t, `c`.
        noisy_variance: Of y, `c`.
        cross: Covariance of y and t, `c`.
        pending: Covariance of y with each pending answer, `c x p`.
        target_pending: Covariance of t with each pending answer, `c x p`.
    """

    mean: Tensor
    variance: Tensor
    noisy_variance: Tensor
    cross: Tensor
    pending: Tensor
    target_pending: Tensor


def at_fidelity(X: Tensor, fidelity: int) -> Tensor:
    """The same features at another fidelity, `... x (d + 1)`."""
    return torch.cat([X[..., :-1], torch.full_like(X[..., -1:], float(fidelity))], dim=-1)


def query_moments(model: Model, X: Tensor, target: int, pending: Tensor) -> Iterator[QueryMoments]:
    """Moments of queries `n x (d + 1)` beside pending ones `p x (d + 1)`, chunk by chunk, in order."""
    for chunk in X.split(_CHUNK):
        c = chunk.shape[0]
        rows = torch.cat([chunk, at_fidelity(chunk, target), pending])
        posterior = model.posterior(rows)
        covariance = posterior.distribution.covariance_matrix
        diagonal = covariance.diagonal()
        noisy = model.posterior(chunk.unsqueeze(-2), observation_noise=True).variance
        yield QueryMoments(
            mean=posterior.mean.squeeze(-1)[c : 2 * c],
            variance=diagonal[c : 2 * c],
            noisy_variance=noisy.flatten(),
            cross=covariance[:c, c : 2 * c].diagonal(),
            pending=covariance[:c, 2 * c :],
            target_pending=covariance[c : 2 * c, 2 * c :],
        )


def joint_factor(covariance: Tensor) -> Tensor:
    """Cholesky factor of a covariance `p x p` of any unit, which rounding may have left slightly indefinite."""
    scale = covariance.diagonal().mean().clamp_min(1e-300)
    return psd_safe_cholesky(covariance / scale, max_tries=6) * scale.sqrt()
