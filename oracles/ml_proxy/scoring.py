"""Figures of predictions against a table of values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Z_90 = 1.6448536269514722  # half width of a Gaussian's central 90 %, in standard deviations
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
    residual = mean - values
    error = np.where(is_bound, np.maximum(0.0, residual), np.abs(residual))
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
