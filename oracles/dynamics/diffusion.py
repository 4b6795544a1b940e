"""Self-diffusion from the displacements of ions, with an error that holds, or an upper bound.

The slope of the mean-squared displacement is an average over the ions of each ion's own slope, and how those scatter
is its error, whatever the ions' own motion is: Brownian, hops with returns, vibration in between, long stays in traps.
That ions move together (concerted hops) leaves fewer independent ones than there are; the factor is measured, too.
For comparison the error by the empirical formula of He, Zhu, Epstein & Mo, npj Comput. Mater. 2018, 4, 18, is given
beside it; that for a slope read between given lags is about twice as large for independent walkers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv
from scipy.stats import norm, t

from activelearning.errors import ConfigError
from oracles.dynamics.analysis import Array, count_hops, particle_displacements

LEVEL = 0.95  # one-sided, of bounds and of the quantiles behind the error of few ions
# By how much runs scatter more than their ions say, on average over the walks of benchmarks/md_coverage.py: the
# distribution over ions is skewed, the window is chosen by the data, and a small D comes with a small error.
CALIBRATION = 1.07
MIN_SEGMENTS = 4  # of a run, from which a concertedness is worth computing


@dataclass(frozen=True)
class FitSettings:
    """How diffusion is read off a mean-squared displacement.

    Attributes:
        hop_distance: Typical distance a between neighbouring sites of the mobile ion, Å.
        start: The window begins where the mean-squared displacement reaches this many a².
        stop: The window ends where it reaches this many a², or at `end_fraction` of the run. Longer lags are known
            so much worse that they would spoil the slope: with a fixed fraction of the run it never gets better.
        end_fraction: The window ends at this fraction of the run at the latest; beyond, too few origins are left.
        min_gain: Least growth of the mean-squared displacement within the window, Å²; below, no slope is fitted.
        min_hops: Least effective number of hops, N x MSD / a²; below, no slope is fitted.
        curvature: The window moves on while the slope of its first half exceeds that of its second by more than this
            many standard errors: ions still rattle within a cage, or come back. (One in twenty straight lines is taken
            for a curve; the next window serves.)
    """

    hop_distance: float = 3.0
    start: float = 0.5
    stop: float = 6.0
    end_fraction: float = 0.5
    min_gain: float = 4.5
    min_hops: float = 10.0
    curvature: float = 1.64

    def check(self, subject: str) -> None:
        """Raise a `ConfigError`, which says `subject` before the keys, where there can be no such fit."""
        if not (
            self.hop_distance > 0
            and self.stop > self.start > 0
            and 0 < self.end_fraction <= 1
            and self.min_gain > 0
        ):
            raise ConfigError(
                f"{subject}hop_distance, fit_start and min_msd_gain must be above zero, fit_stop above fit_start and "
                f"fit_end at most 1, not {self.hop_distance}, {self.start}, {self.min_gain}, {self.stop} and "
                f"{self.end_fraction}."
            )


@dataclass(frozen=True)
class Diffusion:
    """Self-diffusion of one kind of ion.

    Attributes:
        value: D, or an upper bound of it (95 %), Å²/ps.
        relative_error: Standard error of ln D, such that ± 1.645 of it hold the truth in 90 % of runs (few ions widen
            it by Student's quantile); None for a bound.
        is_bound: Whether too little moved for a slope.
        window: First and last lag of the fit, ps; None for a bound.
        n_effective_hops: N x MSD / a² at the end of the window.
        n_hops: Net hops seen between the first and the last frame.
        gain: Growth of the mean-squared displacement within the window, Å².
        concertedness: Ions that move as one, at least 1; the error is that of N over this many ions.
        he_error: Relative error after He et al. 2018; None for a bound.
        reason: Why only a bound; None for a value, which only a straight window gives.
    """

    value: float
    relative_error: float | None
    is_bound: bool
    window: tuple[float, float] | None
    n_effective_hops: float
    n_hops: float
    gain: float
    concertedness: float = 1.0
    he_error: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Window:
    first: int
    last: int
    gain: float
    slopes: Array  # of each ion


def self_diffusion(positions: Array, frame_ps: float, settings: FitSettings) -> tuple[Diffusion, Array]:
    """Self-diffusion coefficient of ions, or an upper bound of it, and their mean-squared displacement.

    The slope is fitted with a free intercept (vibrations), unweighted, in a window that moves on while it curves.
    Where no window that gains enough is straight, D is bounded by a² / (6 N t) times `most_hops`, or by the upper limit
    of the slope where that is more.

    Args:
        positions: Unwrapped, drift removed, `T x N x 3`, Å.
        frame_ps: Time between frames.
        settings: The fit's.

    Returns:
        The coefficient, and the mean-squared displacement, `T`, Å².
    """
    n_frames, n_ions, _ = positions.shape
    if n_ions < 1 or n_frames < 2:
        raise ValueError(f"diffusion needs ions and time: {n_ions} ions, {n_frames} frames")
    displacements = particle_displacements(positions)
    msd = displacements.mean(axis=1)
    a2 = settings.hop_distance**2
    n_hops = count_hops(positions, settings.hop_distance)
    last = max(1, int(settings.end_fraction * (n_frames - 1)))
    first = _reached(msd, settings.start * a2, last)
    together = concertedness(positions, first)
    window, is_straight = _latest_window(displacements, msd, first, last, together, settings)

    seen = window.last if window is not None else last
    n_effective = float(n_ions * msd[: seen + 1].max() / a2)
    gain = float(msd[first : last + 1].max() - msd[first]) if window is None else window.gain
    reason = None
    if window is None:
        reason = f"the mean-squared displacement gains {gain:.1f} Å², less than {settings.min_gain:g}"
    elif n_effective < settings.min_hops:
        reason = f"{n_effective:.1f} effective hops, less than {settings.min_hops:g}"
    elif not is_straight:
        reason = (
            "the mean-squared displacement curves as far as it is known: ions rattle in cages, or come back"
        )
    elif not window.slopes.mean() > 0.0:
        reason = "the mean-squared displacement does not grow within the fit"
    if window is None or reason is not None:
        hops = most_hops(n_hops, n_ions, together) * a2 / (n_ions * (n_frames - 1))
        # Ions that hop together or from trap to trap are no Poisson process: what the slope may be counts as well.
        steepest = _most_slope(_slopes(displacements, min(first, last // 2), last), together)
        bound = max(hops, steepest) / (6.0 * frame_ps)
        found = Diffusion(bound, None, True, None, n_effective, n_hops, gain, together, reason=reason)
        return found, msd

    slope = float(window.slopes.mean())
    he = 3.43 / math.sqrt(n_effective) + 0.04
    error = _relative_error(window.slopes, together)
    lags = (window.first * frame_ps, window.last * frame_ps)
    found = Diffusion(
        slope / (6.0 * frame_ps),
        he if error is None else error,
        False,
        lags,
        n_effective,
        n_hops,
        window.gain,
        together,
        he_error=he,
    )
    return found, msd


def concertedness(positions: Array, lag: int) -> float:
    """How many ions of `T x N x 3` positions move as one on the time of a hop, between 1 and N/2.

    N times the variance of the ions' mean squared displacement over that of one ion's, across the successive segments
    of `lag` frames into which the run falls: 1 for independent ions, 2 for pairs that hop together.
    """
    n_ions = positions.shape[1]
    found = []
    for offset in {phase * lag // 4 for phase in range(4)}:
        ends = positions[offset::lag]
        if len(ends) <= MIN_SEGMENTS:
            continue
        squares = ((ends[1:] - ends[:-1]) ** 2).sum(axis=2)
        single = float(squares.var(axis=0, ddof=1).mean())
        if single > 0.0:
            found.append(n_ions * float(squares.mean(axis=1).var(ddof=1)) / single)
    # Of few segments the ratio is uncertain; below one it is chance.
    return min(max(1.0, float(np.mean(found))), max(1.0, n_ions / 2)) if found else 1.0


def most_hops(n_hops: float, n_ions: int, together: float = 1.0) -> float:
    """Upper limit (95 %) of the expected number of hops of random walkers, given the net hops seen.

    Hops are a Poisson process: 3.0 where none was seen. The squared distances by which net hops are counted scatter
    as well, by 2/3 of their square for each ion, so that n hops count as no more than n / (1 + 2 n / 3 N) events, and
    as fewer by the number of ions that hop `together`.
    """
    per_event = together * (1.0 + 2.0 * n_hops / (3.0 * n_ions))
    return per_event * float(gammaincinv(n_hops / per_event + 1.0, LEVEL))


def _reached(msd: Array, height: float, last: int) -> int:
    above = np.flatnonzero(msd[: last + 1] >= height)
    return int(above[0]) if len(above) else last


def _slopes(displacements: Array, first: int, last: int) -> Array:
    """Slope of each column of displacements over the lags first to last, per frame."""
    lags = np.arange(first, last + 1) - 0.5 * (first + last)
    slopes: Array = lags @ displacements[first : last + 1] / (lags @ lags)
    return slopes


def _latest_window(
    displacements: Array, msd: Array, first: int, last: int, together: float, settings: FitSettings
) -> tuple[_Window | None, bool]:
    """The earliest window in which the displacement is straight, else the latest there is; whether it is straight."""
    n_ions = displacements.shape[1]
    stop = _reached(msd, settings.stop * settings.hop_distance**2, last)
    best: _Window | None = None
    while True:
        end = min(last, max(stop, 3 * first))
        gain = float(msd[first : end + 1].max() - msd[first])
        if end - first < 2 or gain < settings.min_gain:
            return best, False
        best = _Window(first, end, gain, _slopes(displacements, first, end))
        if n_ions < 2 or end - first < 4:
            return best, True
        half = (first + end) // 2
        bend = _slopes(displacements, first, half) - _slopes(displacements, half, end)
        error = float(bend.std(ddof=1)) * math.sqrt(together / n_ions)
        if not bend.mean() > settings.curvature * error:
            return best, True
        first = half


def _most_slope(slopes: Array, together: float) -> float:
    """Upper limit (95 %) of the mean of slopes, or zero where there is one alone."""
    if len(slopes) < 2:
        return 0.0
    return float(slopes.mean()) + _standard_error(slopes, together) * _student(len(slopes), together)


def _relative_error(slopes: Array, together: float) -> float | None:
    """Standard error of the mean of `N` slopes over that mean, for `N` / `together` independent ions."""
    if len(slopes) < 2:
        return None
    widened = _student(len(slopes), together) / float(norm.ppf(LEVEL))
    return CALIBRATION * widened * _standard_error(slopes, together) / float(slopes.mean())


def _standard_error(slopes: Array, together: float) -> float:
    n = len(slopes)
    # Ions that move together scatter less among themselves than they do as a whole.
    shared = max(1.0 - (together - 1.0) / (n - 1.0), 0.3)
    return math.sqrt(float(slopes.var(ddof=1)) * together / shared / n)


def _student(n: int, together: float) -> float:
    """Student's quantile at `LEVEL` of `n` / `together` independent ions."""
    return float(t.ppf(LEVEL, max(1.0, n / together - 1.0)))
