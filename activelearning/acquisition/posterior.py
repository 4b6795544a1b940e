"""What acquisitions ask of a model over (features, fidelity): moments of queries, target and pending work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from botorch.models.model import Model
from botorch.posteriors.gpytorch import GPyTorchPosterior
from linear_operator.utils.cholesky import psd_safe_cholesky
from torch import Tensor

# Rows of one joint posterior: its cost grows with the square of the rows, the overhead with the calls.
_CHUNK = 64
_BLOCK = 2**19  # numbers of the projections of one block, 4 MiB: what a cache holds
_KEPT = 2**24  # numbers that are kept between calls, 128 MiB
_SMALLEST = 1e-10  # of a variance, relative to what it was before pending answers
_TINY = 1e-300


@runtime_checkable
class ProjectedModel(Protocol):
    """What a model may offer so that thousands of queries are scored together.

    Its posterior covariance is the prior's less a product, cov(x, z) = prior(x, z) - P(x)^T P(z), as that of every
    Gaussian process is. Moments of a query then need no joint posterior with other queries: the cost of `n` queries is
    that of one projection. A model without these methods is asked for joint posteriors, a few queries at a time.
    Everything is in the unit of each row's fidelity, noise-free, and differentiable in the features.
    """

    def project(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean, `n`, and P, `r x n`, of rows X `n x (d + 1)`."""
        ...

    def prior_covariance(self, X: Tensor, Z: Tensor) -> Tensor:
        """Prior covariance, `n x p`, of rows X `n x (d + 1)` and Z `p x (d + 1)`."""
        ...

    def prior_covariance_at_place(self, fidelity: Tensor, other: Tensor) -> Tensor:
        """Prior covariance, `n`, of answers at the same features and two fidelities, `n` each, long."""
        ...

    def noise_variance(self, X: Tensor) -> Tensor:
        """Variance of the noise of an answer at each row of X, `n`."""
        ...


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
        self._fast: ProjectedModel | None = model if isinstance(model, ProjectedModel) else None
        self._target = target
        self.queries = pending.new_empty(0, pending.shape[-1])
        self._factor = pending.new_empty(0, 0)
        self._projected = pending.new_empty(
            0, 0
        )  # P of pending queries, where the model is a `ProjectedModel`
        self._scored: _Scored | None = None
        self.add(pending)

    def add(self, X: Tensor) -> None:
        """Take in further queries, `q x (d + 1)`."""
        if not len(X):
            return
        self.queries = torch.cat([self.queries, X.detach().to(self.queries)])
        with torch.no_grad():
            _, covariance = joint_posterior(self._model, self.queries, noisy=True)
            self._factor = joint_factor(covariance)
            if self._fast is not None:
                self._projected = self._fast.project(self.queries)[1]

    def moments(self, X: Tensor) -> Iterator[tuple[QueryMoments, QueryMoments]]:
        """Moments of queries `n x (d + 1)`, in chunks, before and after the pending answers are known."""
        if self._fast is not None:
            for block in self._blocks(self._fast, X):
                yield self._after(block.before, block.with_query, block.with_target)
            return
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
            pending = covariance[2 * c :]
            yield self._after(before, pending[:, :c], pending[:, c : 2 * c])

    def _after(
        self, before: QueryMoments, with_query: Tensor, with_target: Tensor
    ) -> tuple[QueryMoments, QueryMoments]:
        """Moments before and after pending answers, from their covariances with y and with t, `p x c` each."""
        if not len(self.queries):
            return before, before
        known = torch.linalg.solve_triangular(
            self._factor, torch.cat([with_query, with_target], dim=1), upper=False
        )
        y, t = known.tensor_split(2, dim=1)
        # Rounding may make a variance that is all but known negative.
        after = QueryMoments(
            before.mean,
            torch.maximum(before.variance - t.square().sum(0), _SMALLEST * before.variance),
            torch.maximum(before.noisy_variance - y.square().sum(0), _SMALLEST * before.noisy_variance),
            before.cross - (y * t).sum(0),
            t,
        )
        return before, after

    def _blocks(self, model: ProjectedModel, X: Tensor) -> Iterator[_Block]:
        """Queries `n x (d + 1)` in blocks, their projections kept for the next call with the same queries.

        A batch is chosen by scoring one pool again after each choice; then all that is new is a pending query.
        """
        if self._scored is not None and not X.requires_grad and torch.equal(self._scored.X, X):
            for block in self._scored.blocks:
                block.extend(model, self.queries, self._projected)
                yield block
            return
        self._scored = None
        n_rows, kept = _BLOCK, 0
        blocks: list[_Block] = []
        start = 0
        while start < len(X):
            # How many numbers a projection of one query has is known after the first few.
            chunk = X[start : start + (min(n_rows, len(X)) if blocks else _CHUNK)]
            block = _Block.of(model, chunk, self._target)
            block.extend(model, self.queries, self._projected)
            start += len(chunk)
            n_rows = max(_CHUNK, _BLOCK // max(1, block.query.shape[0]))
            kept += block.query.numel() + block.target.numel()
            blocks.append(block)
            yield block
        if not X.requires_grad and kept <= _KEPT:
            self._scored = _Scored(X.clone(), blocks)


@dataclass
class _Block:
    """Queries whose moments are known, y and t as in `QueryMoments`.

    Attributes:
        before: Moments without pending work.
        X: The queries, `c x (d + 1)`.
        at_target: The same features at the target.
        query: P of y, `r x c`.
        target: P of t, `r x c`.
        with_query: Covariance of pending queries and y, `p x c`.
        with_target: Covariance of pending queries and t, `p x c`.
    """

    before: QueryMoments
    X: Tensor
    at_target: Tensor
    query: Tensor
    target: Tensor
    with_query: Tensor
    with_target: Tensor

    @classmethod
    def of(cls, model: ProjectedModel, X: Tensor, target: int) -> _Block:
        """Without pending queries."""
        n = len(X)
        at_target = at_fidelity(X, target)
        fidelity = X[:, -1].detach().round().long()
        other = torch.full_like(fidelity, target)
        # A query at the target is its own target.
        rows = (fidelity != target).nonzero().flatten()
        mean, projected = model.project(torch.cat([at_target, X[rows]]))
        mean, p_target = mean[:n], projected[:, :n]
        p_query = p_target.index_copy(1, rows, projected[:, n:]) if len(rows) else p_target
        prior = model.prior_covariance_at_place(other, other)
        own = model.prior_covariance_at_place(fidelity, fidelity)
        before = QueryMoments(
            mean,
            torch.maximum(prior - p_target.square().sum(0), _SMALLEST * prior),
            torch.maximum(own - p_query.square().sum(0), _SMALLEST * own) + model.noise_variance(X),
            model.prior_covariance_at_place(fidelity, other) - (p_query * p_target).sum(0),
            mean.new_empty(0, len(X)),
        )
        empty = mean.new_empty(0, len(X))
        return cls(before, X, at_target, p_query, p_target, empty, empty)

    def extend(self, model: ProjectedModel, pending: Tensor, projected: Tensor) -> None:
        """Take in pending queries `p x (d + 1)`, with their P `r x p`, that are not known yet."""
        p = self.with_query.shape[0]
        if len(pending) == p:
            return
        new, its = pending[p:], projected[:, p:]
        prior = model.prior_covariance(new, torch.cat([self.X, self.at_target]))
        query, target = prior.tensor_split(2, dim=1)
        query, target = query - its.T @ self.query, target - its.T @ self.target
        self.with_query = torch.cat([self.with_query, query])
        self.with_target = torch.cat([self.with_target, target])


@dataclass(frozen=True)
class _Scored:
    """The queries scored last, in blocks."""

    X: Tensor
    blocks: list[_Block]


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
