"""Collective diffusion: how charge moves, correlations between ions included, and the Haven ratio.

D_σ is that of the ions' summed displacement, ⟨|Σ Δr|²⟩ / (6 N t), and the Haven ratio D* / D_σ (Murch, Solid State
Ionics 1982, 7, 177). A run holds one such sum where it holds N ions, so that its error is √N times larger or so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from oracles.dynamics.analysis import Array, mean_squared_displacement

N_LAGS = 24  # at which the covariance of mean-squared displacements is computed


@dataclass(frozen=True)
class Collective:
    """Collective diffusion of ions.

    Attributes:
        value: D_σ, Å²/ps.
        relative_error: Its standard error over itself.
        haven_ratio: D* / D_σ; below one where ions push one another along.
        haven_error: Relative standard error of the ratio.
    """

    value: float
    relative_error: float
    haven_ratio: float
    haven_error: float


def collective_diffusion(
    positions: Array, frame_ps: float, window: tuple[float, float], tracer: float, tracer_error: float
) -> Collective | None:
    """Collective diffusion coefficient in the window of the self-diffusion; None where the sum does not move away.

    Args:
        positions: Of the ions, unwrapped, seen from the framework, `T x N x 3`, Å.
        frame_ps: Time between frames, ps.
        window: First and last lag of the fit, ps.
        tracer: Self-diffusion coefficient, Å²/ps.
        tracer_error: Its relative standard error.
    """
    n_frames, n_ions, _ = positions.shape
    first, last = (round(lag / frame_ps) for lag in window)
    total = np.asarray(positions, dtype=np.float64).sum(axis=1, keepdims=True)
    msd = mean_squared_displacement(total) / n_ions
    slope = float(np.polyfit(np.arange(first, last + 1) * frame_ps, msd[first : last + 1], 1)[0])
    if not slope > 0.0:
        return None
    value = slope / 6.0
    error = walker_error(n_frames, first, last)
    return Collective(value, error, tracer / value, math.hypot(error, tracer_error))


def walker_error(n_frames: int, first: int, last: int) -> float:
    """Relative standard error of the slope between two lags of one Brownian walker's mean-squared displacement.

    Exact but for the lags between: displacements over lags m and n that share s frames have squares of covariance
    6 s² (in three dimensions and units of one frame's variance), summed over all pairs of origins.
    """
    lags = np.unique(np.linspace(first, last, N_LAGS).round().astype(int))
    covariance = np.empty((len(lags), len(lags)))
    for i, m in enumerate(lags):
        for j, n in enumerate(lags[i:], start=i):
            a, b = n_frames - m, n_frames - n  # origins of each
            shift = np.arange(-(b - 1), a)
            pairs = np.minimum(np.minimum(a, b), np.minimum(a - shift, b + shift))
            shared = np.clip(np.minimum(shift + m, n) - np.maximum(shift, 0), 0, None).astype(np.float64)
            covariance[i, j] = covariance[j, i] = 6.0 * float((pairs * shared**2).sum()) / (a * b)
    centred = lags - lags.mean()
    weights = centred / (centred @ centred)
    return float(math.sqrt(weights @ covariance @ weights) / 3.0)
