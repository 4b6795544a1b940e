"""Leave-one-out diagnostics of a Gaussian process over fidelities, in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from surrogates.fidelity_gp import FidelityGP
from surrogates.priors import MEAN_VARIANCE, fidelity_column

# Of |standard normal|.
_QUANTILE_50 = 0.6744897501960817
_QUANTILE_90 = 1.6448536269514722


@dataclass(frozen=True)
class Bounds:
    """Which rows of a model's training data are sites that stand for bounds, and for which; `n` each, standardised.

    Attributes:
        value: The bound.
        sign: +1 for an upper bound, −1 for a lower one, 0 for an answer.
        noise: Variance of the noise of the bounded answer.
    """

    value: Tensor
    sign: Tensor
    noise: Tensor


@dataclass(frozen=True)
class LeaveOneOut:
    """Answers left out one at a time, by fidelity; None where none counts.

    Attributes:
        rmse: Root mean square error, in the fidelity's unit.
        nlpd: Mean negative logarithm of the predictive density at the answer, in nats, the density in 1 / the
            fidelity's unit.
        coverage_50: Share of answers within the central 50 % interval of their prediction, noise included.
        coverage_90: The same at 90 %.
        bound_log_probability: Mean log probability, in nats, of what the bounds say.
    """

    rmse: tuple[float | None, ...]
    nlpd: tuple[float | None, ...]
    coverage_50: tuple[float | None, ...]
    coverage_90: tuple[float | None, ...]
    bound_log_probability: tuple[float | None, ...]

    def figures(self, names: Sequence[str]) -> dict[str, Any]:
        """`loo_rmse`, `loo_nlpd`, `loo_coverage_50`, `loo_coverage_90`, `loo_bound_log_probability`, each by name."""
        return {
            f"loo_{key}": dict(zip(names, getattr(self, key), strict=True))
            for key in ("rmse", "nlpd", "coverage_50", "coverage_90", "bound_log_probability")
        }


def leave_one_out(model: FidelityGP, keep: Tensor, bounds: Bounds | None = None) -> LeaveOneOut:
    """How answers left out one at a time are predicted, hyper-parameters as they are.

    Rasmussen & Williams (2006), eq. 5.10 to 5.12. Hyper-parameters have seen what is left out, which flatters a
    surrogate of many lengthscales; `surrogates.recalibration` tells by how much. A bound has no error; what counts is
    the probability of what it says, its own site left out and the others as they are.

    Args:
        model: The model.
        keep: Rows of its training data that are answers, `n`, bool.
        bounds: What the other rows stand for.
    """
    fidelity, scales = fidelity_column(model.train_inputs[0]), model.units.scale.tolist()
    error, variance = model.left_out()
    ratio = error.abs() / variance.sqrt()
    nlpd = 0.5 * ((2.0 * math.pi * variance).log() + ratio.square())

    def means(values: Tensor, rows: Tensor) -> list[float | None]:
        chosen = [values[rows & (fidelity == index)] for index in range(len(scales))]
        return [float(v.mean()) if len(v) else None for v in chosen]

    log_probability: list[float | None] = [None] * len(scales)
    if bounds is not None and bool((bounds.sign != 0).any()):
        log_probability = means(_bound_log_probability(model, error, variance, bounds), bounds.sign != 0)
    return LeaveOneOut(
        rmse=tuple(
            None if m is None else m**0.5 * s
            for m, s in zip(means(error.square(), keep), scales, strict=True)
        ),
        # The density of an answer in another unit is divided by that unit.
        nlpd=tuple(
            None if m is None else m + math.log(s) for m, s in zip(means(nlpd, keep), scales, strict=True)
        ),
        coverage_50=tuple(means((ratio <= _QUANTILE_50).double(), keep)),
        coverage_90=tuple(means((ratio <= _QUANTILE_90).double(), keep)),
        bound_log_probability=tuple(log_probability),
    )


def _bound_log_probability(model: FidelityGP, error: Tensor, variance: Tensor, bounds: Bounds) -> Tensor:
    """log Φ(s (b − m)/√(v + σ²)), `n`, with m and v of the noise-free answer without the row's own site."""
    X, target, noise = model.train_inputs[0], model.train_targets, model.train_noise
    fidelity = fidelity_column(X)
    scale = model.units.scale[fidelity]
    with torch.no_grad():
        known = model.forward(X.unsqueeze(-2))
        mean = (known.mean.squeeze(-1) - model.units.offset[fidelity]) / scale
        lost = model.unexplained()
        posterior = known.variance.squeeze(-1) / scale.square() - lost
    # A site narrower than the prior is left out by the formula of answers, a wide one by division of Gaussians: each
    # form loses its digits where the other keeps them. What inducing points leave out is no part of the division.
    wide_variance = 1.0 / (1.0 / posterior - 1.0 / noise)
    wide_mean = wide_variance * (mean / posterior - target / noise)
    is_narrow = noise < model.hyperparameters.between.diagonal()[fidelity] + MEAN_VARIANCE
    v = torch.where(is_narrow, variance - noise, wide_variance + lost)
    m = torch.where(is_narrow, target - error, wide_mean)
    return torch.special.log_ndtr(bounds.sign * (bounds.value - m) / (v + bounds.noise).sqrt())
