"""MF-KG: how much one answer at any fidelity is expected to raise the target's best expected value.

Frazier, Powell & Dayanik, *The knowledge-gradient policy for correlated normal beliefs*, INFORMS J. Comput. 21 (2009);
over continuous spaces Scott, Frazier & Powell, SIAM J. Optim. 21 (2011); over fidelities Poloczek, Wang & Frazier,
*Multi-information source optimization*, NeurIPS 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from activelearning.acquisition.envelope import expected_rise
from activelearning.acquisition.posterior import at_fidelity, joint_factor, joint_posterior
from activelearning.contracts import AcquisitionContext, Scorer
from activelearning.errors import ConfigError

_CHUNK = 64  # queries of one joint posterior
_SMALLEST = 1e-10  # of a variance, relative to what it was before pending answers
_TINY = 1e-300


class MultiFidelityKnowledgeGradient:
    """Multi-fidelity knowledge gradient with pending work.

    Args:
        n_candidates: Most reference points that may become the target's best.
        n_fantasies: Draws of the answers of pending work.

    Raises:
        ConfigError: a number is below 1.
    """

    def __init__(self, n_candidates: int = 128, n_fantasies: int = 16) -> None:
        for key, value in {"n_candidates": n_candidates, "n_fantasies": n_fantasies}.items():
            if value < 1:
                raise ConfigError(f"acquisition.{key} must be at least 1, not {value}.")
        self.n_candidates = n_candidates
        self.n_fantasies = n_fantasies

    def build(self, context: AcquisitionContext) -> Scorer:
        """A scorer on the round's model.

        Raises:
            ConfigError: the context has no reference points.
        """
        if not len(context.reference):
            raise ConfigError("The knowledge gradient needs reference points of the space; it has none.")
        return KnowledgeGradientScorer(context, self.n_candidates, self.n_fantasies)


class KnowledgeGradientScorer:
    """Utilities, in the target's unit: E [max_i E(t_i | y, y_P) - max_i E(t_i | y_P)].

    y is a query's noisy answer at any fidelity, y_P those of pending queries, and t_i the target at reference points
    and at the query's own features, maximised. Given y_P, the means after y are lines in a standard normal number, so
    that the expectation over y is exact (`expected_rise`); that over y_P is a mean over draws, and nothing is drawn
    without pending work.

    Of many reference points those are kept whose targets are the likeliest to exceed the best expected value, which
    is itself always among them; without pending work the utility over fewer points is then a lower bound on that over
    all. The same normal numbers serve whatever is pending. A second query where a noisy one is in flight may be worth
    more than the first was alone: the knowledge gradient is not concave in the number of answers (Frazier & Powell,
    Decis. Anal. 7, 2010).
    """

    def __init__(self, context: AcquisitionContext, n_candidates: int, n_fantasies: int) -> None:
        self._model = context.model
        self._target = context.target
        self._sign = 1.0 if context.maximize else -1.0
        self._seed = context.seed
        self._n_fantasies = n_fantasies
        self._points = likeliest_best(context, n_candidates)
        self._pending = context.pending.new_empty(0, context.pending.shape[-1])
        self.add_pending(context.pending)

    def add_pending(self, X: Tensor) -> None:
        """Condition on further queries in flight, `q x (d + 1)`."""
        self._pending = torch.cat([self._pending, X.detach().to(self._pending)])
        p = len(self._pending)
        with torch.no_grad():
            mean, covariance = joint_posterior(self._model, torch.cat([self._pending, self._points]))
            if p:
                noisy = joint_posterior(self._model, self._pending, noisy=True)[1]
                self._factor = joint_factor(noisy)
            else:
                self._factor = covariance[:0, :0]
            self._known = self._whitened(covariance[:p, p:])
            self._answers = self._draws(p)
            self._means = self._sign * (mean[p:] + self._answers @ self._known)

    def __call__(self, X: Tensor) -> Tensor:
        """Utilities, `n`, of queries `n x (d + 1)`; none is negative."""
        return torch.cat([X.new_empty(0), *(self._rises(chunk) for chunk in X.split(_CHUNK))])

    def _rises(self, X: Tensor) -> Tensor:
        c, p = len(X), len(self._pending)
        rows = torch.cat([X, at_fidelity(X, self._target), self._pending, self._points])
        mean, covariance = joint_posterior(self._model, rows)
        variance = joint_posterior(self._model, X.unsqueeze(-2), noisy=True)[1].flatten().clamp_min(_TINY)
        own, points = slice(c, 2 * c), slice(2 * c + p, None)
        # What pending answers tell of the queries' answers and of the targets at their features, `p x c` each.
        told = self._whitened(covariance[: 2 * c, 2 * c : 2 * c + p].T)
        y, t = told[:, :c], told[:, c:]
        after = torch.maximum(variance - y.square().sum(0), _SMALLEST * variance)
        # Lines of the reference points and, last, of the query's own features, `c x (n + 1)`.
        slopes = torch.cat(
            [
                covariance[:c, points] - y.T @ self._known,
                (covariance[:c, own].diagonal() - (y * t).sum(0)).unsqueeze(-1),
            ],
            dim=-1,
        )
        means = torch.cat(
            [
                self._means.expand(c, *self._means.shape),
                self._sign * (mean[own] + self._answers @ t).T.unsqueeze(-1),
            ],
            dim=-1,
        )
        slopes = self._sign * slopes / after.sqrt().unsqueeze(-1)
        return expected_rise(means, slopes.unsqueeze(-2)).mean(-1)

    def _whitened(self, covariance: Tensor) -> Tensor:
        """L⁻¹ C for covariances C of pending answers with something, `p x k`."""
        return torch.linalg.solve_triangular(self._factor, covariance, upper=False)

    def _draws(self, p: int) -> Tensor:
        """Pending answers as standard normals, `S x p`, whose first columns stay when p grows; one row without any."""
        if not p:
            return self._points.new_empty(1, 0)
        generator = torch.Generator().manual_seed(self._seed % 2**63)
        dtype = self._points.dtype
        draws = [torch.randn(self._n_fantasies, generator=generator, dtype=dtype) for _ in range(p)]
        return torch.stack(draws, dim=-1)


def likeliest_best(context: AcquisitionContext, n: int) -> Tensor:
    """The n reference points likeliest to exceed the best expected value, at the target, `n x (d + 1)`."""
    reference = context.reference
    points = at_fidelity(torch.cat([reference, torch.zeros_like(reference[:, :1])], dim=-1), context.target)
    if len(points) <= n:
        return points
    with torch.no_grad():
        mean, variance = joint_posterior(context.model, points.unsqueeze(-2))
    mean = mean.flatten() if context.maximize else -mean.flatten()
    # 0 for the best itself, negative for all others: a number of standard deviations.
    distance = (mean - mean.max()) / variance.flatten().clamp_min(_TINY).sqrt()
    chosen = torch.argsort(distance, descending=True, stable=True)[:n]
    return points[chosen.sort().values]
