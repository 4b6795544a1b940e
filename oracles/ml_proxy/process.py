"""A Gaussian process for measurements of which some are only bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.special import log_ndtr

from oracles.ml_proxy.kernel import PARTS, Space, distances

Array = npt.NDArray[np.float64]

CHUNK = 128  # rows a pass: a matrix product rounds by its shape, and an answer must not depend on what else was asked
MAX_SWEEPS, TOLERANCE, DAMPING = 500, 1e-9, 0.7


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of the process.

    Attributes:
        amplitude: Standard deviation of the function, in the property's unit.
        level: Standard deviation of the constant it varies about, in the same unit.
        noise: Standard deviation of a measurement, in the same unit.
        weights: Of the distances in each of `PARTS`, in the exponent.
    """

    amplitude: float
    level: float
    noise: float
    weights: tuple[float, ...]

    def covariance(self, between: Array) -> Array:
        """Covariances of the function, `n x m`, from distances in each part, `len(PARTS) x n x m`."""
        exponent = np.zeros(between.shape[1:])
        for weight, distance in zip(self.weights, between, strict=True):
            exponent += weight * distance
        covariance: Array = self.amplitude**2 * np.exp(-exponent) + self.level**2
        return covariance


@dataclass(frozen=True)
class Process:
    """A process that has seen measurements and bounds.

    Attributes:
        space: Scales of the distances.
        settings: Hyperparameters.
        descriptors: Of the training crystals, `n x len(DESCRIPTOR_NAMES)`.
        mean: What the function varies about, in the property's unit.
        site_means: Gaussian stand-ins for the likelihoods of the rows: their means less `mean`, `n`, and
        site_variances: their variances, `n`; infinite where a bound says nothing.
    """

    space: Space
    settings: Settings
    descriptors: Array
    mean: float
    site_means: Array
    site_variances: Array

    @classmethod
    def fit(
        cls, descriptors: Array, values: Array, is_bound: npt.NDArray[np.bool_], settings: Settings
    ) -> Process:
        """Condition on training rows.

        Args:
            descriptors: `n x len(DESCRIPTOR_NAMES)`.
            values: Measured values, `n`, for a bound the bound.
            is_bound: True where the truth is at most the value, `n`.
            settings: Hyperparameters.
        """
        space = Space.of(descriptors)
        placed = space.place(descriptors)
        mean = float(np.median(values))
        covariance = settings.covariance(distances(placed, placed))
        means, variances = censored_sites(covariance, values - mean, is_bound, settings.noise)
        return cls(space, settings, descriptors, mean, means, variances)

    @property
    def summary(self) -> str:
        """What it is, in words."""
        chosen = self.settings
        weights = ", ".join(f"{part} {weight:g}" for part, weight in zip(PARTS, chosen.weights, strict=True))
        return (
            f"A Gaussian process of the exponential of a weighted sum of distances ({weights}, each in units of its "
            f"median), amplitude {chosen.amplitude:g}, noise {chosen.noise:g}; bounds by expectation propagation"
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name."""
        settings = self.settings
        return {
            **self.space.arrays(),
            "settings": np.array([settings.amplitude, settings.level, settings.noise, *settings.weights]),
            "process_mean": np.array(self.mean),
            "descriptors": self.descriptors,
            "site_means": self.site_means,
            "site_variances": self.site_variances,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Process:
        """Read a process back from `arrays()`."""
        amplitude, level, noise, *weights = arrays["settings"].tolist()
        return cls(
            space=Space.from_arrays(arrays),
            settings=Settings(amplitude, level, noise, tuple(weights)),
            mean=float(arrays["process_mean"]),
            **{name: arrays[name] for name in ("descriptors", "site_means", "site_variances")},
        )

    @cached_property
    def _solved(self) -> tuple[tuple[Array, ...], Array, Array]:
        """Places of the rows that say something, weights of their covariances, and factor of their covariance."""
        rows = np.isfinite(self.site_variances)
        placed = self.space.place(self.descriptors[rows])
        covariance = self.settings.covariance(distances(placed, placed))
        factor = cholesky(covariance + np.diag(self.site_variances[rows]), lower=True)
        return placed, cho_solve((factor, True), self.site_means[rows]), factor

    def predict(self, descriptors: Array) -> tuple[Array, Array]:
        """Mean and variance of the function, `n` each, for crystals by their descriptors.

        A row's answer does not depend on the rows beside it, to the last bit.
        """
        placed, weights, factor = self._solved
        n = len(descriptors)
        mean, variance = np.empty(n), np.empty(n)
        for start in range(0, n, CHUNK):
            # Distances and their exponentials round each by itself, and are not worth filling up: they cost the most.
            own = self.space.place(descriptors[start : start + CHUNK])
            cross = self.settings.covariance(distances(own, placed))
            cross = cross[np.minimum(np.arange(CHUNK), len(cross) - 1)]
            half = solve_triangular(factor, cross.T, lower=True)
            prior = self.settings.amplitude**2 + self.settings.level**2
            mean[start : start + CHUNK] = (self.mean + cross @ weights)[: n - start]
            variance[start : start + CHUNK] = (prior - (half**2).sum(axis=0))[: n - start]
        return mean, np.maximum(variance, 0.0)


def censored_sites(
    covariance: Array, values: Array, is_bound: npt.NDArray[np.bool_], noise: float
) -> tuple[Array, Array]:
    """Gaussian stand-ins for the likelihoods of the rows, by expectation propagation.

    A measured value y stands for N(y; f, noise²). An upper bound b says y ≤ b, so its likelihood is Φ((b − f) / noise)
    (Tobin, Econometrica 26, 24, 1958); expectation propagation replaces it by the Gaussian that leaves the moments of f
    right (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, sections 3.6 and 3.9).

    Args:
        covariance: Of the function at the rows, `n x n`.
        values: Measured values less the mean of the function, `n`, for a bound the bound.
        is_bound: True where the truth is at most the value, `n`.
        noise: Standard deviation of a measurement.

    Returns:
        Means and variances of the stand-ins, `n` each; the variance is infinite where a bound says nothing.

    Raises:
        FloatingPointError: the stand-ins do not settle.
    """
    exact, bounds = np.flatnonzero(~is_bound), np.flatnonzero(is_bound)
    means, variances = values.copy(), np.full(len(values), noise**2)
    if not len(bounds):
        return means, variances
    # Measured values are conditioned on exactly; what is left to approximate lives at the bounds alone.
    factor = cholesky(covariance[np.ix_(exact, exact)] + noise**2 * np.eye(len(exact)), lower=True)
    half = solve_triangular(factor, covariance[np.ix_(exact, bounds)], lower=True)
    prior_mean = half.T @ solve_triangular(factor, values[exact], lower=True)
    prior = covariance[np.ix_(bounds, bounds)] - half.T @ half
    precision, shift = _bound_sites(prior_mean, prior, values[bounds], noise)
    says = precision > 0.0
    divisor = np.where(says, precision, 1.0)
    means[bounds] = np.where(says, shift / divisor, 0.0)
    variances[bounds] = np.where(says, 1.0 / divisor, np.inf)
    return means, variances


def _bound_sites(prior_mean: Array, prior: Array, bounds: Array, noise: float) -> tuple[Array, Array]:
    """Precisions of the stand-ins for bounds, and precisions times means, `m` each, under a Gaussian prior."""
    precision, shift = np.zeros(len(bounds)), np.zeros(len(bounds))
    for _ in range(MAX_SWEEPS):
        # Posterior under the present stand-ins (Rasmussen & Williams, equation 3.68), stable at zero precision.
        root = np.sqrt(precision)
        factor = cholesky(np.eye(len(root)) + root[:, None] * prior * root, lower=True)
        half = solve_triangular(factor, root[:, None] * prior, lower=True)
        posterior = prior - half.T @ half
        mean = prior_mean + posterior @ (shift - precision * prior_mean)
        variance = np.diag(posterior)
        # The cavity, the posterior without the row's own stand-in, times the exact likelihood, has known moments.
        cavity_variance = 1.0 / (1.0 / variance - precision)
        cavity_mean = cavity_variance * (mean / variance - shift)
        spread = np.sqrt(noise**2 + cavity_variance)
        z = (bounds - cavity_mean) / spread
        ratio = np.exp(-0.5 * z**2 - 0.5 * np.log(2.0 * np.pi) - log_ndtr(z))  # φ(z) / Φ(z)
        tilted_mean = cavity_mean - cavity_variance * ratio / spread
        tilted_variance = cavity_variance - (cavity_variance / spread) ** 2 * ratio * (ratio + z)
        wanted = np.maximum(1.0 / tilted_variance - 1.0 / cavity_variance, 0.0)
        wanted_shift = wanted * tilted_mean + (tilted_mean - cavity_mean) / cavity_variance
        change = max(np.abs(wanted - precision).max(), np.abs(wanted_shift - shift).max())
        if change < TOLERANCE:
            return precision, shift
        precision = precision + DAMPING * (wanted - precision)
        shift = shift + DAMPING * (wanted_shift - shift)
    raise FloatingPointError("the stand-ins for bounds do not settle")


def left_out(
    covariance: Array, means: Array, variances: Array, groups: npt.NDArray[np.int64]
) -> tuple[Array, Array]:
    """Mean and variance of the function at each row from the rows of other groups alone, `n` each, in closed form.

    With P the inverse of the covariance of the observations, the rows G of a group are predicted with the error
    P_GG⁻¹ (P y)_G and the covariance P_GG⁻¹ (Rasmussen & Williams, section 5.4.2, for blocks).

    Args:
        covariance: Of the function at the rows, `n x n`.
        means: Observations less the mean of the function, `n`.
        variances: Of their errors, `n`.
        groups: Numbers of groups, `n`.
    """
    inverse = np.linalg.inv(covariance + np.diag(variances))
    pull = inverse @ means
    mean, variance = np.empty(len(means)), np.empty(len(means))
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        block = np.linalg.inv(inverse[np.ix_(rows, rows)])
        mean[rows] = means[rows] - block @ pull[rows]
        variance[rows] = np.diag(block) - variances[rows]
    return mean, variance
