"""How good, and how different from one another, the best K of a search are.

As in Hernández-García et al., Multi-Fidelity Active Learning with GFlowNets (arXiv 2306.11715): the mean of the K best
by the target's value, and the mean distance between all pairs of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class TopK:
    """The best K.

    Attributes:
        k: How many there are; fewer than asked for where fewer distinct candidates have a value.
        mean: Mean of their values, in the unit of the values; NaN where there are none.
        diversity: Mean Euclidean distance of their pairs over the square root of the number of features, so that the
            farthest corners of the unit cube are 1 apart; NaN where there are fewer than two.
        rows: Their rows, the best first.
    """

    k: int
    mean: float
    diversity: float
    rows: NDArray[np.int64]


def top_k(values: ArrayLike, features: ArrayLike, k: int, *, maximize: bool = True) -> TopK:
    """Mean value and diversity of the best K.

    Rows with the same features are one candidate, and count once, by their best value: a candidate that a search asked
    for twice is no second discovery. Rows without a value (NaN) don't count. Of equal values the earlier row is taken.

    Args:
        values: Values at the target, `n`.
        features: Features of the candidates scaled to [0, 1], `n x d`.
        k: How many.
        maximize: Whether more is better.

    Raises:
        ValueError: k is below 1, the shapes don't agree, or a feature is not finite.
    """
    value, x = np.asarray(values, dtype=np.float64), np.asarray(features, dtype=np.float64)
    if k < 1:
        raise ValueError(f"the best {k} are none; k must be at least 1")
    if value.ndim != 1 or x.ndim != 2 or len(value) != len(x):
        raise ValueError(f"values of shape {value.shape} and features of shape {x.shape} are not n and n x d")
    if not np.isfinite(x).all():
        raise ValueError("features must be finite")
    order = np.argsort(-value if maximize else value, kind="stable")
    order = order[np.isfinite(value[order])]
    _, first = np.unique(x[order], axis=0, return_index=True)
    rows = order[np.sort(first)][:k]
    best = x[rows]
    n = len(rows)
    mean = float(value[rows].mean()) if n else math.nan
    if n < 2:
        return TopK(n, mean, math.nan, rows)
    distances = np.sqrt(((best[:, None] - best[None]) ** 2).sum(axis=-1))
    return TopK(n, mean, float(distances.sum() / (n * (n - 1)) / math.sqrt(x.shape[1])), rows)
