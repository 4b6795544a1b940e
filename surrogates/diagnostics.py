"""Leave-one-out diagnostics of the coregionalised GP, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surrogates.coregionalised_gp import CoregionalisedGP, fidelity_column, prior_covariance

_QUANTILE_90 = 1.6448536269514722  # of |standard normal|


@dataclass(frozen=True)
class LeaveOneOut:
    """By fidelity: error in its unit, share of answers in their 90 % interval; None where none counts."""

    rmse: tuple[float | None, ...]
    coverage_90: tuple[float | None, ...]


def leave_one_out(model: CoregionalisedGP, keep: Tensor) -> LeaveOneOut:
    """Errors of answers left out one at a time, hyper-parameters as they are.

    Sundararajan & Keerthi (Neural Computation 2001); Rasmussen & Williams (2006), eq. 5.12.

    Args:
        model: The model.
        keep: Rows of its training data that count (bounds have no error), `n`, bool.
    """
    X = model.train_inputs[0]
    covariance = prior_covariance(model.hyperparameters, X, X) + torch.diag_embed(model.train_noise)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    variance = 1.0 / inverse.diagonal()
    error = (inverse @ model.train_targets) * variance
    inside = error.abs() <= _QUANTILE_90 * variance.sqrt()
    rmse: list[float | None] = []
    coverage: list[float | None] = []
    for index, scale in enumerate(model.units.scale.tolist()):
        mine = keep & (fidelity_column(X) == index)
        some = bool(mine.any())
        rmse.append(float(error[mine].square().mean().sqrt()) * scale if some else None)
        coverage.append(float(inside[mine].double().mean()) if some else None)
    return LeaveOneOut(tuple(rmse), tuple(coverage))
