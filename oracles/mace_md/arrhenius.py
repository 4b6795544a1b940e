"""From conductivities at several temperatures to the activation energy and to a temperature not simulated.

ln(σT) is a line in 1/(k_B T), since the diffusion coefficient is (Nernst-Einstein: σT ∝ D). The line is fitted with
the errors of the points as weights. Its own errors come from the full covariance of slope and intercept, scaled by how
the points scatter about the line. Three or four points say little about that scatter: the stated errors count as
`PRIOR_FREEDOM` observations of it beside the residuals (a scaled inverse chi-squared prior; Gelman et al., Bayesian
Data Analysis, 3rd ed., section 2.6), so that the answer has Student's distribution with as many more degrees
of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.units import kB
from scipy.stats import norm, t

MIN_POINTS = 3
PRIOR_FREEDOM = 6.0  # observations that the stated errors are worth


@dataclass(frozen=True)
class Arrhenius:
    """A fitted line, and what it says at the target temperature.

    Errors are such that ± 1.645 of them hold the truth in 90 % of cases (widened by Student's quantile).

    Attributes:
        activation_energy: eV, of σT, which is that of diffusion.
        activation_error: eV.
        log10_sigma: log10 of the conductivity (S/cm) at the target temperature.
        log10_error: Its error, the covariance of slope and intercept in it.
        target: K.
        temperatures: Of the points, K.
        chi_squared: Of the residuals, by the points' errors.
        freedom: Number of points less two.
    """

    activation_energy: float
    activation_error: float
    log10_sigma: float
    log10_error: float
    target: float
    temperatures: tuple[float, ...]
    chi_squared: float
    freedom: int


def fit_arrhenius(
    temperatures: Sequence[float], log10_sigmas: Sequence[float], errors: Sequence[float], target: float
) -> Arrhenius:
    """Fit the line and carry it to the target temperature.

    Bounds have no place here: one at a low temperature says less than nothing of a line through it.

    Args:
        temperatures: K, at least `MIN_POINTS` different ones.
        log10_sigmas: log10 of the conductivities, S/cm.
        errors: Their standard errors, above zero.
        target: K.

    Raises:
        ValueError: too few points, or an error that is none.
    """
    kelvin, y, s = (np.asarray(a, dtype=np.float64) for a in (temperatures, log10_sigmas, errors))
    if len(set(kelvin.tolist())) < MIN_POINTS or not (s > 0).all():
        raise ValueError(
            f"an Arrhenius line needs {MIN_POINTS} temperatures and errors above zero, not {temperatures}, {errors}"
        )
    y = (y + np.log10(kelvin)) * math.log(10.0)  # ln(σT)
    s = s * math.log(10.0)
    # From the middle of the points on, in eV: slope and intercept are then nearly independent and well scaled.
    middle = float(np.average(1.0 / (kB * kelvin), weights=s**-2.0))
    x = 1.0 / (kB * kelvin) - middle
    design = np.stack([np.ones_like(x), -x], axis=1) / s[:, None]
    covariance = np.linalg.inv(design.T @ design)
    level, energy = covariance @ design.T @ (y / s)
    chi_squared = float((((y - level + energy * x) / s) ** 2).sum())
    freedom = len(x) - 2
    total = PRIOR_FREEDOM + freedom
    widening = (PRIOR_FREEDOM + chi_squared) / total * float(t.ppf(0.95, total) / norm.ppf(0.95)) ** 2
    at = np.array([1.0, -(1.0 / (kB * target) - middle)])
    ln_sigma = float(at @ np.array([level, energy])) - math.log(target)
    ln_error = math.sqrt(widening * float(at @ covariance @ at))
    return Arrhenius(
        activation_energy=float(energy),
        activation_error=math.sqrt(widening * float(covariance[1, 1])),
        log10_sigma=ln_sigma / math.log(10.0),
        log10_error=ln_error / math.log(10.0),
        target=target,
        temperatures=tuple(kelvin.tolist()),
        chi_squared=chi_squared,
        freedom=freedom,
    )
