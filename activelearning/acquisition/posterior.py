"""What acquisitions ask of a model over (features, fidelity): moments of queries, target and pending work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from botorch.models.model import Model
from botorch.posteriors.gpytorch import GPyTorchPosterior
from linear_operator.utils.cholesky import psd_safe_cholesky
from torch import Tensor

# Rows of one joint posterior: its cost grows with the square of the rows, the overhead with the calls.
_CHUNK = 64
_SMALLEST = 1e-10  # of a variance, relative to what it was before pending answers
_TINY = 1e-300


@dataclass(frozen=True)
class QueryMoments:
    """Posterior moments of `c` queries: y is a query's noisy answer, t the noise-free target at its features.

    Attributes:
        mean: Of t, `c`.
        variance: Of t, `c`, positive.
        noisy_variance: Of y, `c`, positive.
        cross: Covariance of y and t, `c`.
        response: Change of the mean of t with each pending answer, as standard normals (`Maxima.draw`), `p x c`; empty
            where pending answers are not known yet.
    """

    mean: Tensor
    variance: Tensor
    noisy_variance: Tensor
    cross: Tensor
    response: Tensor

    @property
    def squared_correlation(self) -> Tensor:
        """Of y and t, `c`, in [0, 1]."""
        return (self.cross.square() / (self.variance * self.noisy_variance)).clamp_max(1.0)


class PendingWork:
    """Queries in flight on a model, and the moments of further queries beside them.

    Given the answers of pending queries, variances are known whatever the answers will be; means are not,
    and stay as they are now, which is what they are expected to be.
    """

    def __init__(self, model: Model, target: int, pending: Tensor) -> None:
        self._model = model
        self._target = target
        self.queries = pending.new_empty(0, pending.shape[-1])
        self._factor = pending.new_empty(0, 0)
        self.add(pending)

    def add(self, X: Tensor) -> None:
        """Take in further queries, `q x (d + 1)`."""
        if not len(X):
            return
        self.queries = torch.cat([self.queries, X.detach().to(self.queries)])
        with torch.no_grad():
            _, covariance = joint_posterior(self._model, self.queries, noisy=True)
            self._factor = joint_factor(covariance)

    def moments(self, X: Tensor) -> Iterator[tuple[QueryMoments, QueryMoments]]:
        """Moments of queries `n x (d + 1)`, in chunks, before and after the pending answers are known."""
        for chunk in X.split(_CHUNK):
            c = chunk.shape[0]
            rows = torch.cat([chunk, at_fidelity(chunk, self._target), self.queries])
            mean, covariance = joint_posterior(self._model, rows)
            _, noisy = joint_posterior(self._model, chunk.unsqueeze(-2), noisy=True)
            before = QueryMoments(
                mean[c : 2 * c],
                covariance.diagonal()[c : 2 * c].clamp_min(_TINY),
                noisy.flatten().clamp_min(_TINY),
                covariance[:c, c : 2 * c].diagonal(),
                mean.new_empty(0, c),
            )
            if not len(self.queries):
                yield before, before
                continue
            known = torch.linalg.solve_triangular(self._factor, covariance[: 2 * c, 2 * c :].T, upper=False)
            y, t = known[:, :c], known[:, c:]
            # Rounding may make a variance that is all but known negative.
            after = QueryMoments(
                before.mean,
                torch.maximum(before.variance - t.square().sum(0), _SMALLEST * before.variance),
                torch.maximum(before.noisy_variance - y.square().sum(0), _SMALLEST * before.noisy_variance),
                before.cross - (y * t).sum(0),
                t,
            )
            yield before, after


def at_fidelity(X: Tensor, fidelity: int) -> Tensor:
    """The same features at another fidelity, `... x (d + 1)`."""
    return torch.cat([X[..., :-1], torch.full_like(X[..., -1:], float(fidelity))], dim=-1)


def joint_posterior(model: Model, X: Tensor, *, noisy: bool = False) -> tuple[Tensor, Tensor]:
    """Mean `(b) x q` and covariance `(b) x q x q` of the answers at X `(b) x q x (d + 1)`."""
    posterior = model.posterior(X, observation_noise=noisy)
    if not isinstance(posterior, GPyTorchPosterior):
        raise TypeError(f"the acquisition needs a Gaussian posterior, not {type(posterior).__name__}")
    return posterior.mean.squeeze(-1), posterior.distribution.covariance_matrix


def joint_factor(covariance: Tensor) -> Tensor:
    """Cholesky factor of a covariance `p x p` of any unit, which rounding may have left slightly indefinite."""
    scale = covariance.diagonal().mean().clamp_min(1e-300)
    return psd_safe_cholesky(covariance / scale, max_tries=6) * scale.sqrt()
