"""From a trajectory to a conductivity: mean-squared displacement, self-diffusion, Nernst-Einstein. Pure numpy.

Methods and error estimates: He, Zhu, Epstein & Mo, npj Comput. Mater. 2018, 4, 18. Displacements are in Å, times in ps
and diffusion coefficients in Å²/ps (1 Å²/ps = 1e-4 cm²/s).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from ase.units import _e, _k
from numpy.typing import NDArray
from scipy.special import gammaincinv

Array = NDArray[np.float64]

CM2_PER_S = 1e-4  # of one Å²/ps


@dataclass(frozen=True)
class FitSettings:
    """How diffusion is read off a mean-squared displacement.

    Attributes:
        hop_distance: Typical distance a between neighbouring sites of the mobile ion, Å.
        start: The window begins where the mean-squared displacement reaches this many a².
        end_fraction: The window ends at this fraction of the run; beyond it too few time origins are left.
        min_gain: Least growth of the mean-squared displacement within the window, Å²; below, no slope is fitted.
    """

    hop_distance: float = 3.0
    start: float = 0.5
    end_fraction: float = 0.5
    min_gain: float = 4.5


@dataclass(frozen=True)
class Diffusion:
    """Self-diffusion of one kind of ion.

    Attributes:
        value: D, or an upper bound of it (95 %), Å²/ps.
        relative_error: One standard error of D over D; None for a bound.
        is_bound: Whether too little moved for a slope.
        window: First and last lag of the fit, ps; None for a bound.
        n_effective_hops: N x max MSD / a².
        gain: Growth of the mean-squared displacement within the window, Å².
    """

    value: float
    relative_error: float | None
    is_bound: bool
    window: tuple[float, float] | None
    n_effective_hops: float
    gain: float


def remove_drift(positions: Array, framework: NDArray[np.bool_], masses: Array) -> Array:
    """Positions, `T x N x 3`, seen from the framework's centre of mass (the whole's where there is no framework)."""
    weights = np.where(framework if framework.any() else True, masses, 0.0)
    centre = np.einsum("tnx,n->tx", positions, weights / weights.sum())
    return positions - (centre - centre[0])[:, None, :]


def mean_squared_displacement(positions: Array) -> Array:
    """Mean-squared displacement at every lag over all time origins and particles.

    The sum over origins is an autocorrelation, computed by FFT in O(T log T) (Calandrini et al., Collection SFN 2011,
    12, 201).

    Args:
        positions: Unwrapped positions, `T x N x 3`.

    Returns:
        `T` values, Å²; the lag of entry k is k frames.
    """
    n_frames, n_particles, _ = positions.shape
    # The displacement is the same from any origin; small numbers keep the difference of large sums exact.
    r = positions - positions[0]
    squares = (r**2).sum(axis=(1, 2))
    spectrum = np.fft.rfft(r, n=2 * n_frames, axis=0)
    power = (spectrum.real**2 + spectrum.imag**2).sum(axis=(1, 2))
    correlation = np.fft.irfft(power, n=2 * n_frames)[:n_frames]
    # Σ r²(t) + r²(t + k) over all origins t, for every lag k.
    cumulative = np.concatenate([[0.0], np.cumsum(squares)])
    lags = np.arange(n_frames)
    sums = cumulative[n_frames - lags] + (cumulative[n_frames] - cumulative[lags])
    msd = (sums - 2.0 * correlation) / ((n_frames - lags) * n_particles)
    msd[0] = 0.0
    return np.maximum(msd, 0.0)


def count_hops(positions: Array, hop_distance: float) -> float:
    """Net hops between the first and the last frame of `T x N x 3` positions.

    An ion nearer than half a hop to where it began has vibrated, or gone and come back; any other has made r² / a²
    hops, at least one, as a random walk with steps of a would.
    """
    squares = ((positions[-1] - positions[0]) ** 2).sum(axis=1) / hop_distance**2
    return float(np.maximum(squares, 1.0)[squares > 0.25].sum())


def diffusion(msd: Array, n_hops: float, frame_ps: float, n_ions: int, settings: FitSettings) -> Diffusion:
    """Self-diffusion coefficient from a mean-squared displacement, or an upper bound of it.

    The slope is fitted with a free intercept (vibrations) between the lag where the MSD reaches `start` a² and
    `end_fraction` of the run. Its relative error is 3.43 / sqrt(N_eff) + 0.04 with N_eff = N max(MSD) / a² (He et al.
    2018). Where the MSD gains too little for that, hops are taken for a Poisson process, and D is bounded by
    a² / (6 N t) times the 95 % upper limit of their expected number, given those seen (3.0 where none was seen).

    Args:
        msd: Mean-squared displacement, `T`, Å².
        n_hops: Hops seen, as `count_hops` counts them; of use to a bound only.
        frame_ps: Time between frames, ps.
        n_ions: Number of ions averaged over.
        settings: The fit's.
    """
    if n_ions < 1 or len(msd) < 2:
        raise ValueError(f"diffusion needs ions and time: {n_ions} ions, {len(msd)} frames")
    a2 = settings.hop_distance**2
    last = max(1, int(settings.end_fraction * (len(msd) - 1)))
    seen = msd[: last + 1]
    n_effective = float(n_ions * seen.max() / a2)
    reached = np.flatnonzero(seen >= settings.start * a2)
    first = int(reached[0]) if len(reached) else last
    gain = float(seen[first:].max() - seen[first])
    if last - first >= 2 and gain >= settings.min_gain:
        lags = np.arange(first, last + 1) * frame_ps
        slope = float(np.polyfit(lags, seen[first:], 1)[0])
        if slope > 0.0:
            error = 3.43 / math.sqrt(n_effective) + 0.04
            return Diffusion(slope / 6.0, error, False, (float(lags[0]), float(lags[-1])), n_effective, gain)
    time = (len(msd) - 1) * frame_ps
    expected = float(gammaincinv(n_hops + 1.0, 0.95))
    return Diffusion(expected * a2 / (6.0 * n_ions * time), None, True, None, n_effective, gain)


def nernst_einstein(d: float, n_ions: int, volume: float, temperature: float) -> float:
    """Conductivity of singly charged ions, S/cm: σ = N e² D / (V k_B T), the Haven ratio taken as one.

    Args:
        d: Self-diffusion coefficient, Å²/ps.
        n_ions: Number of ions in the volume.
        volume: Å³.
        temperature: K.
    """
    per_cm3 = n_ions / (volume * 1e-24)
    return per_cm3 * _e**2 * (d * CM2_PER_S) / (_k * temperature)


def log10_error(relative_error: float) -> float:
    """Standard error of log10 x from the relative error of x, to first order."""
    return relative_error / math.log(10.0)


def rms_displacement(positions: Array) -> float:
    """Largest root-mean-square distance, Å, over `T x N x 3` frames, of particles from where they began."""
    return float(np.sqrt(((positions - positions[0]) ** 2).sum(axis=-1).mean(axis=1)).max())
