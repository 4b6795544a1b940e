"""Expected improvement of a hypervolume by one more answer of any fidelity: several objectives, with constraints.

The value of an answer is what it does to the posterior means, as in the knowledge gradient (Frazier, Powell & Dayanik,
INFORMS Journal on Computing 21, 2009); that of a front is its hypervolume, as in expected hypervolume improvement
(Emmerich, Giannakoglou & Naujoks, IEEE Transactions on Evolutionary Computation 10, 2006; Daulton, Balandat & Bakshy,
NeurIPS 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from botorch.models.model import Model
from torch import Tensor

from activelearning.acquisition.front import Front, inferred_reference
from activelearning.acquisition.posterior import PendingWork, QueryMoments, at_fidelity, joint_posterior
from activelearning.contracts import AcquisitionContext, Constraint, Goals, Scorer
from activelearning.errors import ConfigError

# Panels of the quadrature, in standard deviations of the answer, mirrored to the other side: what is beyond has a
# probability of 1e-15. Integrands have kinks, at 0 among others, so that many short panels beat few long ones.
_PANELS = (0.0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.8, 3.2, 3.6, 4.0, 4.6, 5.2, 5.8, 6.6, 8.0)
_NODES = 4
_LEAST_SHARE = 1e-8  # of a variance, that is left at least when an answer is known: a slope needs a width


class MultiFidelityHypervolume:
    """Expected hypervolume improvement by any answer, times the probability that the constraints hold.

    See `HypervolumeScorer`. With one objective and no constraint it is an expected improvement.
    """

    supports_many_targets: ClassVar[bool] = True

    def build(self, context: AcquisitionContext) -> Scorer:
        """A scorer on the round's model.

        Raises:
            ConfigError: the context states no goals, or has neither answers nor reference points.
        """
        return HypervolumeScorer(context)


class HypervolumeScorer:
    """Utilities, without unit, of queries given what is pending.

    For a query of any fidelity with noisy answer y at features x, let t be the objectives' targets at x, μ their
    present means, p the present probability that all constraints hold at x, and μ', p' the same once y is known:
    with y = E y + sd(y) z, means move by cov(t, y)/sd(y) · z, and variances by what does not depend on y. Then

        utility = (1 − κ) E_z [ p' H(μ') − min(p, p') H(min(μ, μ')) ]  +  κ E_z [ p' E(H(t) | z) ],

    where H(t) is the hypervolume that a point t adds to the front of what has been measured.

    The first part is what the answer tells. As boxes from the reference point meet in the box of their least
    coordinates, it is exactly the hypervolume that the point after the answer adds to the front with the point
    before it: an answer that tells nothing is worth nothing, and none harms. The second part is what it is for: a
    candidate counts once all its targets are measured, and then is expected to add E p H(t). κ is the share of an
    answer in that, 1/r where it is one of the r target answers that x still lacks, else 0. For a last target answer
    all is expected hypervolume improvement; of one objective, expected improvement (Jones, Schonlau & Welch 1998).

    Probabilities are a further dimension. The front holds (μ_i, p_i) of candidates whose targets are all answered or
    pending, and p H(t) is short for a volume of k + 1 dimensions: hypervolumes of the points that hold with
    probability u or more, averaged over u in (0, 1). A point known to break a constraint has none, one known to
    keep them counts in full. Given y, targets are taken as independent of one another.

    Pending answers leave means and probabilities as they are, and narrow both what a further answer can move and what
    is left unknown of the objectives, so that what is measured next to them is not bought twice. Objectives are
    divided by the standard deviation of their target's prediction over the space, so that no unit matters.
    """

    def __init__(self, context: AcquisitionContext) -> None:
        if context.goals is None or context.answered is None:
            raise ConfigError(
                "The acquisition 'mf_hypervolume' needs the campaign's goals and answered queries."
            )
        self._goals: Goals = context.goals
        self._model = context.model
        self._works = [
            PendingWork(context.model, fidelity, context.pending) for fidelity in self._goals.targets
        ]
        self._asked = context.answered.new_empty(0, context.answered.shape[-1])
        self._nodes, self._weights = _quadrature()
        known = torch.cat([context.answered[:, :-1], context.reference.to(context.answered)])
        if not len(known):
            raise ConfigError(
                "The acquisition 'mf_hypervolume' needs an answer or a reference point; it has neither."
            )
        moments = _marginals(context.model, known, [o.fidelity for o in self._goals.objectives])
        self._scale = (moments.mean.var(0, correction=0) + moments.variance.mean(0)).sqrt()
        self._reference = self._inferred(context, known)
        self._extend(context.answered)
        self._extend(context.pending)

    @property
    def reference(self) -> Tensor:
        """The reference point, in the unit of each objective, `k`."""
        return self._reference * self._scale * self._signs

    def add_pending(self, X: Tensor) -> None:
        """Condition on further queries in flight, `q x (d + 1)`."""
        for work in self._works:
            work.add(X)
        self._extend(X)

    def __call__(self, X: Tensor) -> Tensor:
        """Utilities, `n`, of queries `n x (d + 1)`."""
        shares = self._shares(X.detach())
        parts, begin = [X.new_empty(0)], 0
        for chunks in zip(*(work.moments(X) for work in self._works), strict=True):
            end = begin + len(chunks[0][0].mean)
            parts.append(self._utility(chunks, shares[begin:end]))
            begin = end
        return torch.cat(parts)

    def _utility(self, chunks: tuple[tuple[QueryMoments, QueryMoments], ...], share: Tensor) -> Tensor:
        n = len(self._goals.objectives)
        move = torch.stack([after.cross / after.noisy_variance.sqrt() for _, after in chunks], dim=-1)
        mean = torch.stack([before.mean for before, _ in chunks], dim=-1)
        variance = torch.stack([before.variance for before, _ in chunks], dim=-1)
        after = torch.stack([after.variance for _, after in chunks], dim=-1)
        left = torch.maximum(after - move.square(), _LEAST_SHARE * variance)
        moved = mean.unsqueeze(1) + self._nodes[:, None] * move.unsqueeze(1)
        unit = self._signs / self._scale
        now, then = (mean[:, :n] * unit).unsqueeze(1), moved[..., :n] * unit
        deviation = (left[:, :n].sqrt() / self._scale).unsqueeze(1).expand_as(then)
        if self._goals.constraints:
            p_now = _probability(self._goals.constraints, mean[:, n:], variance[:, n:])
            # Of a constraint, what pending answers will tell is as unknown as what no answer does.
            unknown = torch.maximum(variance - move.square(), _LEAST_SHARE * variance)[:, n:]
            p_then = _probability(self._goals.constraints, moved[..., n:], unknown.unsqueeze(1))
            now, then = (
                torch.cat([now, p_now.reshape(-1, 1, 1)], -1),
                torch.cat([then, p_then.unsqueeze(-1)], -1),
            )
            deviation = torch.cat([deviation, torch.zeros_like(deviation[..., :1])], -1)
        told = self._front.improvement(then) - self._front.improvement(torch.minimum(now, then))
        utility = (1.0 - share) * (told @ self._weights)
        counts = share > 0.0
        if not bool(counts.any()):
            return utility
        measured = self._front.expected_improvement(then[counts], deviation[counts]) @ self._weights
        return utility.index_add(0, counts.nonzero().flatten(), share[counts] * measured)

    def _shares(self, X: Tensor) -> Tensor:
        """κ of queries `n x (d + 1)`, `n`."""
        lacking = torch.stack(
            [~_contains(self._asked, at_fidelity(X, m)) for m in self._goals.targets], dim=-1
        )
        asks = torch.stack([X[:, -1].round() == m for m in self._goals.targets], dim=-1)
        counts = lacking.sum(-1).clamp_min(1).to(X)
        return (lacking & asks).any(-1).to(X) / counts

    def _extend(self, X: Tensor) -> None:
        """Take in queries that are answered or on their way; the front is that of candidates asked at every target."""
        self._asked = torch.cat([self._asked, X.detach().to(self._asked)])
        features = torch.unique(self._asked[:, :-1], dim=0)
        complete = torch.ones(len(features), dtype=torch.bool)
        for fidelity in self._goals.targets:
            complete &= _contains(self._asked, _rows(features, fidelity))
        self._front = Front(self._points(features[complete]), self._floor())

    def _points(self, features: Tensor) -> Tensor:
        """(μ, p) at features, objectives maximised and without unit, `n x k` or, with constraints, `n x (k + 1)`."""
        n = len(self._goals.objectives)
        moments = _marginals(self._model, features, self._goals.targets)
        points = moments.mean[:, :n] / self._scale * self._signs
        if not self._goals.constraints:
            return points
        p = _probability(self._goals.constraints, moments.mean[:, n:], moments.variance[:, n:])
        return torch.cat([points, p.unsqueeze(-1)], dim=-1)

    def _floor(self) -> Tensor:
        """The reference point of the front: that of the objectives, and probability 0."""
        zero = self._reference.new_zeros(1 if self._goals.constraints else 0)
        return torch.cat([self._reference, zero])

    @property
    def _signs(self) -> Tensor:
        return torch.tensor(
            [1.0 if o.maximize else -1.0 for o in self._goals.objectives], dtype=self._scale.dtype
        )

    def _inferred(self, context: AcquisitionContext, known: Tensor) -> Tensor:
        """The reference point without unit: as stated or, where it is not, by the means of what has been asked."""
        assert context.answered is not None
        features = context.answered[:, :-1] if len(context.answered) else known
        points = self._points(torch.unique(features, dim=0))
        if self._goals.constraints:
            likely = points[:, -1] >= 0.5
            points = points[likely, :-1] if bool(likely.any()) else points[:, :-1]
        stated = [
            math.nan if objective.reference is None else objective.reference
            for objective in self._goals.objectives
        ]
        wanted = torch.tensor(stated, dtype=points.dtype) / self._scale * self._signs
        return torch.where(wanted.isnan(), inferred_reference(points), wanted)


@dataclass(frozen=True)
class _Marginals:
    """Posterior moments of targets at features, `n x T` each."""

    mean: Tensor
    variance: Tensor


def _marginals(model: Model, features: Tensor, fidelities: Sequence[int]) -> _Marginals:
    means, variances = [], []
    with torch.no_grad():
        for fidelity in fidelities:
            mean, variance = joint_posterior(model, _rows(features, fidelity).unsqueeze(-2))
            means.append(mean.flatten())
            variances.append(variance.flatten())
    return _Marginals(torch.stack(means, dim=-1), torch.stack(variances, dim=-1))


def _probability(constraints: tuple[Constraint, ...], mean: Tensor, variance: Tensor) -> Tensor:
    """Probability that all constraints hold, `...`, by the moments of their targets, `... x C`; differentiable."""
    total = torch.ones_like(mean[..., 0])
    for i, constraint in enumerate(constraints):
        deviation = variance[..., i].sqrt()
        chance = torch.ones_like(total)
        if constraint.at_most is not None:
            chance = torch.special.ndtr((constraint.at_most - mean[..., i]) / deviation)
        if constraint.at_least is not None:
            above = torch.special.ndtr((mean[..., i] - constraint.at_least) / deviation)
            # Of a range, what is below it is taken from what is below its upper end.
            chance = above if constraint.at_most is None else (chance + above - 1.0).clamp_min(0.0)
        total = total * chance
    return total


def _rows(features: Tensor, fidelity: int) -> Tensor:
    """Queries `n x (d + 1)` of one fidelity at features `n x d`."""
    return torch.cat(
        [features, torch.full((len(features), 1), float(fidelity), dtype=features.dtype)], dim=-1
    )


def _contains(rows: Tensor, wanted: Tensor) -> Tensor:
    """Whether each row of `wanted`, `n x (d + 1)`, is one of `rows`, `m x (d + 1)`; `n`, bool."""
    if not len(rows):
        return torch.zeros(len(wanted), dtype=torch.bool)
    known = {row.tobytes() for row in (rows + 0.0).contiguous().numpy()}
    return torch.tensor(
        [row.tobytes() in known for row in (wanted + 0.0).contiguous().numpy()], dtype=torch.bool
    )


def _quadrature() -> tuple[Tensor, Tensor]:
    """Nodes and weights of E f(z) for a standard normal z, by Gauss-Legendre rules on panels."""
    x, w = np.polynomial.legendre.leggauss(_NODES)
    low, high = np.array(_PANELS[:-1])[:, None], np.array(_PANELS[1:])[:, None]
    nodes = (0.5 * (high + low) + 0.5 * (high - low) * x).ravel()
    weights = (0.5 * (high - low) * w).ravel() * np.exp(-0.5 * nodes**2) / math.sqrt(2.0 * math.pi)
    z, weights = np.concatenate([-nodes[::-1], nodes]), np.concatenate([weights[::-1], weights])
    return torch.from_numpy(z), torch.from_numpy(weights / weights.sum())
