"""Choosing the hyperparameters of the process, and fitting it."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from oracles.ml_proxy.kernel import Space, distances
from oracles.ml_proxy.process import Process, Settings, left_out

Array = npt.NDArray[np.float64]

# Conductivities of known conductors spread over a few decades about a common level; how far, calibration settles.
AMPLITUDE, LEVEL = 1.7, 1.4
NOISES = (0.2, 0.3, 0.45)  # decades; repeated measurements differ by 0.41 on average
REACHES = (
    2.0,
    4.0,
    8.0,
)  # median distances, over composition, framework, cell and complexity, at which 1/e is left
SYMMETRIES = (0.0, 0.2)  # weight of the space group's distance, against 1 for each of the others
CHOICES = tuple(
    Settings(AMPLITUDE, LEVEL, noise, (*(4 * [1.0 / reach]), symmetry / reach))
    for noise, reach, symmetry in itertools.product(NOISES, REACHES, SYMMETRIES)
)


def choose(
    x: Array, values: Array, is_bound: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]
) -> Settings:
    """The settings under which rows are best predicted from those of other groups.

    A row's error is absolute; for a bound it is how far the prediction is above. Marginal likelihood is no guide here:
    it asks for what tells rows of one publication apart, and so for too short a reach. In this choice alone bounds
    count as values when other rows are predicted from them.

    Args:
        x: Descriptors, `n x len(DESCRIPTOR_NAMES)`.
        values: Measured values, `n`, for a bound the bound.
        is_bound: True where the truth is at most the value, `n`.
        groups: Numbers of groups, `n`.
    """
    placed = Space.of(x).place(x)
    between = distances(placed, placed)
    centred = values - np.median(values)

    def error(settings: Settings) -> float:
        noise = np.full(len(values), settings.noise**2)
        mean, _ = left_out(settings.covariance(between), centred, noise, groups)
        above = mean - centred
        return float(np.where(is_bound, np.maximum(above, 0.0), np.abs(above)).mean())

    return min(CHOICES, key=error)


def fit_process(
    x: Array, values: Array, is_bound: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]
) -> Process:
    """Choose settings and condition a process on the rows; arguments as of `choose`."""
    return Process.fit(x, values, is_bound, choose(x, values, is_bound, groups))
