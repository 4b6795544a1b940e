"""What a trajectory tells: drift, mean-squared displacements, hops, Nernst-Einstein. Pure numpy.

Displacements are in Å, times in ps and diffusion coefficients in Å²/ps (1 Å²/ps = 1e-4 cm²/s).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ase.units import _e, _k
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

CM2_PER_S = 1e-4  # of one Å²/ps


def drift(
    positions: Array, framework: NDArray[np.bool_], masses: Array, start: Array | None = None
) -> NDArray[np.float64]:
    """How far the framework's centre of mass (the whole's where there is no framework) has gone, `T x 3`, Å.

    Args:
        positions: Unwrapped, `T x N x 3`, Å.
        framework: Which particles belong to it, `N`.
        masses: `N`.
        start: Positions from which it is counted, `N x 3`, Å; the first frame by default.
    """
    weights = np.where(framework if framework.any() else True, masses, 0.0)
    weights = weights / weights.sum()
    # The centre is found in double precision: it is subtracted from all positions of a long run.
    centre = np.einsum("tnx,n->tx", positions, weights)
    gone: NDArray[np.float64] = centre - (centre[0] if start is None else weights @ start)
    return gone


def remove_drift(positions: Array, shift: Array) -> Array:
    """A copy of positions, `T x N x 3`, less a drift, `T x 3`, in the positions' own precision.

    In single precision a hop is 1e6 units.
    """
    seen: Array = positions - shift.astype(positions.dtype)[:, None, :]
    return seen


def particle_displacements(positions: Array) -> Array:
    """Mean-squared displacement of each particle at every lag over all time origins.

    The sum over origins is an autocorrelation, computed by FFT in O(T log T) (Calandrini et al., Collection SFN 2011,
    12, 201).

    Args:
        positions: Unwrapped positions, `T x N x 3`.

    Returns:
        `T x N` values, Å²; the lag of row k is k frames.
    """
    n_frames, n_particles, _ = positions.shape
    msd = np.empty((n_frames, n_particles))
    lags = np.arange(n_frames)
    for particle in range(n_particles):  # one at a time: memory grows with the frames alone
        # The displacement is the same from any origin; small numbers keep the difference of large sums exact.
        r = np.asarray(positions[:, particle] - positions[0, particle], dtype=np.float64)
        spectrum = np.fft.rfft(r, n=2 * n_frames, axis=0)
        power = (spectrum.real**2 + spectrum.imag**2).sum(axis=1)
        correlation = np.fft.irfft(power, n=2 * n_frames)[:n_frames]
        # Σ r²(t) + r²(t + k) over all origins t, for every lag k.
        cumulative = np.concatenate([[0.0], np.cumsum((r**2).sum(axis=1))])
        sums = cumulative[n_frames - lags] + (cumulative[n_frames] - cumulative[lags])
        msd[:, particle] = (sums - 2.0 * correlation) / (n_frames - lags)
    msd[0] = 0.0
    return np.maximum(msd, 0.0)


def mean_squared_displacement(positions: Array) -> Array:
    """Mean-squared displacement, `T`, Å², of `T x N x 3` unwrapped positions over all time origins and particles."""
    return particle_displacements(positions).mean(axis=1)


def count_hops(positions: Array, hop_distance: float) -> float:
    """Net hops between the first and the last frame of `T x N x 3` positions.

    An ion nearer than half a hop to where it began has vibrated, or gone and come back; any other has made r² / a²
    hops, at least one, as a random walk with steps of a would.
    """
    squares = ((positions[-1] - positions[0]) ** 2).sum(axis=1) / hop_distance**2
    return float(np.maximum(squares, 1.0)[squares > 0.25].sum())


def nernst_einstein(d: float, n_ions: int, volume: float, temperature: float) -> float:
    """Conductivity of singly charged ions, S/cm: σ = N e² D / (V k_B T).

    With the self-diffusion coefficient the Haven ratio is taken as one; with the collective one nothing is.

    Args:
        d: Diffusion coefficient, Å²/ps.
        n_ions: Number of ions in the volume.
        volume: Å³.
        temperature: K.
    """
    per_cm3 = n_ions / (volume * 1e-24)
    return per_cm3 * _e**2 * (d * CM2_PER_S) / (_k * temperature)


def log10_error(relative_error: float) -> float:
    """Standard error of log10 x from the relative error of x, to first order."""
    return relative_error / math.log(10.0)


def rms_displacement(displacements: Array) -> float:
    """Largest root-mean-square length, Å, over the frames of `T x N x 3` displacements."""
    squares = np.einsum("tnx,tnx->t", displacements, displacements, dtype=np.float64)
    return math.sqrt(float(squares.max()) / displacements.shape[1])
