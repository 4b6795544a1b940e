"""Choosing a batch: greedy, under a budget and limits, each pick conditioning the next."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from activelearning.acquisition.cost import per_cost
from activelearning.acquisition.diversity import Diversity, diverse
from activelearning.contracts import Scorer

# Relative slack of the budget, for sums of costs that are decimal fractions.
_SLACK = 1e-9


@dataclass(frozen=True)
class SharedLimit:
    """What the queries of some fidelities, by index, may cost together in one batch."""

    fidelities: frozenset[int]
    budget: float


def choose_batch(
    scorer: Scorer,
    X: Tensor,
    costs: Tensor,
    *,
    budget: float,
    reserved: Tensor | None = None,
    remaining: Mapping[int, int] | None = None,
    exponent: float = 1.0,
    shared: SharedLimit | None = None,
    patient: Collection[int] = (),
    diversity: Diversity | None = None,
    rescore: bool = True,
) -> list[int]:
    """Rows of a batch, in order of choice; the scorer is left conditioned on them.

    Greedy: the query with the greatest utility per cost that is still allowed and affordable is chosen, the
    scorer told that it is pending, and the rest scored again. Ties go to the lower row. Equal rows (a candidate
    at a fidelity) are chosen once. Utility per cost fills the round's budget with cheap queries as long as they
    tell more per cost; a dear query is chosen only while it still fits what is left.

    Args:
        scorer: Utilities given what is pending.
        X: Queries, `n x (d + 1)`.
        costs: Expected cost of each, positive, `n`; utility is divided by it.
        budget: Most that the batch may reserve together.
        reserved: What each reserves, positive, `n`; the expected costs by default.
        remaining: Most queries of a fidelity (its index) that may still be started; a fidelity not named has
            no limit.
        exponent: Of the cost.
        shared: What some fidelities may cost together.
        patient: Fidelities whose answers are there before the next batch is chosen. Where one of them has reached its
            limit, the batch ends as soon as what is left is a poorer bargain than it was: its answers come first.
        diversity: Of the pool X; told of every pick. What is pending it must know already.
        rescore: Whether the scorer is told of each pick and asked again. Without, it is asked once, what a batch
            shares is left to `diversity`, and the scorer is told of the batch at the end.
    """
    reserved = costs if reserved is None else reserved
    allowed = torch.ones(len(X), dtype=torch.bool)
    left = dict(remaining or {})
    fidelity = X[:, -1].round().long()
    _, group = torch.unique(X, dim=0, return_inverse=True)
    chosen: list[int] = []
    money = budget * (1.0 + _SLACK)
    purse = math.inf if shared is None else shared.budget * (1.0 + _SLACK)
    is_shared = torch.zeros(len(X), dtype=torch.bool)
    for index in () if shared is None else shared.fidelities:
        is_shared |= fidelity == index
    awaited = -math.inf
    utilities = None if rescore else _utilities(scorer, X)
    while True:
        for index, count in left.items():
            if count <= 0:
                allowed &= fidelity != index
        allowed &= reserved <= money
        allowed &= ~is_shared | (reserved <= purse)
        rows = allowed.nonzero().flatten()
        if not len(rows):
            break
        # All of X, whatever is still allowed: a scorer keeps what it knows of the queries it scored last.
        now = _utilities(scorer, X) if utilities is None else utilities
        scores = per_cost(now, costs, exponent)[rows]
        if diversity is not None:
            scores = diverse(scores, diversity.share[rows])
        # argmax does not promise the first of equal maxima.
        best = int(rows[(scores == scores.max()).nonzero()[0, 0]])
        if chosen and float(scores.max()) < awaited:
            break
        chosen.append(best)
        money -= float(reserved[best])
        if is_shared[best]:
            purse -= float(reserved[best])
        allowed &= group != group[best]
        index = int(fidelity[best])
        if index in left:
            left[index] -= 1
            beside = (
                allowed[rows] & (fidelity[rows] == index) & (~is_shared[rows] | (reserved[rows] <= purse))
            )
            if left[index] <= 0 and index in patient and bool(beside.any()):
                # Utilities only fall as the batch grows, so that this is what its answers may be worth at most.
                awaited = max(awaited, float(scores[beside].max()))
        if diversity is not None:
            diversity.take(X[best : best + 1])
        if utilities is None:
            scorer.add_pending(X[best : best + 1])
    if utilities is not None and chosen:
        scorer.add_pending(X[chosen])
    return chosen


def _utilities(scorer: Scorer, X: Tensor) -> Tensor:
    with torch.no_grad():
        return scorer(X)


def polish(scorer: Scorer, X: Tensor, *, n_steps: int = 20, step: float = 0.05) -> Tensor:
    """Move queries uphill within the unit box, their fidelities fixed.

    Projected ascent along each query's own normalised gradient; a step that does not improve is taken back
    and halved, one that does grows. Every query ends at least as good as it began. Deterministic and bounded
    by `n_steps`.

    Args:
        scorer: Utilities, differentiable.
        X: Queries, features in [0, 1], `n x (d + 1)`.
        n_steps: Number of steps.
        step: Length of the first step, in units of the box.

    Returns:
        Polished queries, `n x (d + 1)`.
    """
    best = X.detach().clone()
    value, slope = _value_and_slope(scorer, best)
    lengths = torch.full((len(X), 1), step, dtype=X.dtype)
    for _ in range(n_steps):
        direction = slope / slope.norm(dim=-1, keepdim=True).clamp_min(1e-300)
        trial = best.clone()
        trial[:, :-1] = (best[:, :-1] + lengths * direction).clamp(0.0, 1.0)
        trial_value, trial_slope = _value_and_slope(scorer, trial)
        better = trial_value > value
        best = torch.where(better.unsqueeze(-1), trial, best)
        slope = torch.where(better.unsqueeze(-1), trial_slope, slope)
        value = torch.where(better, trial_value, value)
        lengths = torch.where(better.unsqueeze(-1), 1.5 * lengths, 0.5 * lengths)
    return best


def _value_and_slope(scorer: Scorer, X: Tensor) -> tuple[Tensor, Tensor]:
    leaf = X.clone().requires_grad_(True)
    value = scorer(leaf)
    if not value.requires_grad:
        return value.detach(), torch.zeros_like(X[:, :-1])
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    gradient = torch.where(gradient.isfinite(), gradient, torch.zeros_like(gradient))
    # On the boundary, what points out of the box leads nowhere.
    features, slope = X[:, :-1], gradient[:, :-1]
    blocked = ((features <= 0.0) & (slope < 0.0)) | ((features >= 1.0) & (slope > 0.0))
    return value.detach(), torch.where(blocked, torch.zeros_like(slope), slope)
