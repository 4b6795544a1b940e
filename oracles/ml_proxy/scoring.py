"""Figures of predictions against a table of values."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

Z_90 = 1.6448536269514722  # half width of a Gaussian's central 90 %, in standard deviations
EDGES = (0.0, 0.05, 0.25, 0.5, 0.75, 1.0)  # quantiles of the predictions between which coverage is told apart
Array = npt.NDArray[np.float64]


def score(
    property: str, values: Array, is_bound: npt.NDArray[np.bool_], mean: Array, std: Array
) -> dict[str, Any]:
    """Figures of predictions: `property, n, mae, rmse, r2, spearman, coverage_90`.

    A row that is an upper bound contributes max(0, prediction - bound) to MAE and RMSE, is covered where the interval
    reaches below the bound, enters Spearman's rank correlation with the bound as its value, and is left out of R².

    Args:
        property: Its name.
        values: Measured or computed values, `n`, for a bound the bound.
        is_bound: True where the truth is at most the value, `n`.
        mean: Predictions, `n`.
        std: Predictive standard deviations, `n`.
    """
    from scipy.stats import spearmanr

    # JSON has no NaN: what a constant leaves undefined is null.
    is_constant = len(np.unique(mean)) == 1 or len(np.unique(values)) == 1
    residual, error = mean - values, errors(values, is_bound, mean)
    exact = values[~is_bound]
    total = float(((exact - exact.mean()) ** 2).sum()) if len(exact) else 0.0
    return {
        "property": property,
        "n": len(values),
        "mae": float(error.mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": 1.0 - float((residual[~is_bound] ** 2).sum()) / total if total > 0.0 else None,
        "spearman": None if is_constant else float(spearmanr(mean, values).statistic),
        "coverage_90": float((error <= Z_90 * std).mean()),
    }


def errors(values: Array, is_bound: npt.NDArray[np.bool_], mean: Array) -> Array:
    """Absolute errors, `n`; of an upper bound, how far the prediction is above. Arguments as of `score`."""
    above = mean - values
    return np.where(is_bound, np.maximum(0.0, above), np.abs(above))


def coverage_by_prediction(
    values: Array, is_bound: npt.NDArray[np.bool_], mean: Array, std: Array
) -> list[dict[str, Any]]:
    """Coverage of the 90 % interval where predictions are low and where they are high, and of bounds by themselves.

    An average over all rows hides intervals that are too wide for some and too narrow for others. Arguments as of
    `score`.

    Returns:
        `rows, n, mae, mean_std, coverage_90` of each range of predictions, rows that are no bounds, and of the bounds.
    """
    error = errors(values, is_bound, mean)
    edges = np.quantile(mean, EDGES)
    parts = [
        (
            f"predicted {low:.1f} to {high:.1f}",
            ~is_bound & (mean >= low) & ((mean < high) | (high == edges[-1])),
        )
        for low, high in itertools.pairwise(edges)
    ]
    return [
        {
            "rows": name,
            "n": int(rows.sum()),
            "mae": float(error[rows].mean()),
            "mean_std": float(std[rows].mean()),
            "coverage_90": float((error <= Z_90 * std)[rows].mean()),
        }
        for name, rows in [*parts, ("upper bounds", is_bound)]
        if rows.any()
    ]
