"""Leave-one-out diagnostics of a Gaussian process over fidelities, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from surrogates.fidelity_gp import FidelityGP
from surrogates.priors import fidelity_column

_QUANTILE_90 = 1.6448536269514722  # of |standard normal|


@dataclass(frozen=True)
class LeaveOneOut:
    """By fidelity: error in its unit, share of answers in their 90 % interval; None where none counts."""

    rmse: tuple[float | None, ...]
    coverage_90: tuple[float | None, ...]


def leave_one_out(model: FidelityGP, keep: Tensor) -> LeaveOneOut:
    """Errors of answers left out one at a time, hyper-parameters as they are.

    Args:
        model: The model.
        keep: Rows of its training data that count (bounds have no error), `n`, bool.
    """
    X = model.train_inputs[0]
    error, variance = model.left_out()
    inside = error.abs() <= _QUANTILE_90 * variance.sqrt()
    rmse: list[float | None] = []
    coverage: list[float | None] = []
    for index, scale in enumerate(model.units.scale.tolist()):
        mine = keep & (fidelity_column(X) == index)
        some = bool(mine.any())
        rmse.append(float(error[mine].square().mean().sqrt()) * scale if some else None)
        coverage.append(float(inside[mine].double().mean()) if some else None)
    return LeaveOneOut(tuple(rmse), tuple(coverage))
