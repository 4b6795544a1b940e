"""Cells within narrower limits, told by the coordinates u of wider ones.

A sampler trained on wide limits draws the coordinates of `lattice` one after the other: angles, volume, lengths.
Each narrower limit leaves an interval of the next coordinate, given those before it, so that draws truncated to
these intervals keep the narrower limits without a new training.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.lattice import LatticeLimits, LatticeWalk, cosines, volume_factor

Array = NDArray[np.float64]

# Columns of u in the order in which they are drawn: α, β, γ, volume, a, b.
DRAWN_IN_ORDER = (3, 4, 5, 0, 1, 2)
_TINY = 1e-12


def is_narrower(outer_volumes: Array, inner_volumes: Array) -> NDArray[np.bool_]:
    """`n`: whether intervals of log volume, `n x 2`, lie within others."""
    contained: NDArray[np.bool_] = (inner_volumes[:, 0] >= outer_volumes[:, 0] - 1e-9) & (
        inner_volumes[:, 1] <= outer_volumes[:, 1] + 1e-9
    )
    return contained


def bounds(
    outer: LatticeLimits,
    inner: LatticeLimits,
    systems: NDArray[np.int64],
    outer_volumes: Array,
    inner_volumes: Array,
    column: int,
    u: Array,
) -> tuple[Array, Array]:
    """Interval of one coordinate of `outer` that the limits `inner` leave, given those drawn before it.

    Args:
        outer: Limits whose map u stands for.
        inner: Limits within them.
        systems: Indices in `LATTICE_SYSTEMS`, `n`.
        outer_volumes: Logarithms of the least and most volume in Å³ under `outer`, `n x 2`.
        inner_volumes: The same under `inner`, within `outer_volumes`.
        column: Column of u, one of `DRAWN_IN_ORDER`.
        u: Coordinates, `n x 6`, of which the columns drawn before this one are set.

    Returns:
        Lowest and highest u, `n` each, in [0, 1]; (0, 1) where the lattice system does not use the column.
    """
    wide, narrow = LatticeWalk(outer, systems, outer_volumes), LatticeWalk(inner, systems, inner_volumes)
    low, high = np.zeros(len(u)), np.ones(len(u))
    angles = wide.fixed.copy()
    known = cosines(angles)
    for k in range(3):
        rows = np.flatnonzero(wide.is_free[:, 3 + k])
        first, last = wide.angle_interval(k, rows, known[rows])
        if column == 3 + k:
            low[rows], high[rows] = _scaled(narrow.angle_interval(k, rows, known[rows]), (first, last))
            return low, high
        angles[rows, k] = first + u[rows, 3 + k] * np.maximum(last - first, _TINY)
        known[rows, k] = cosines(angles[rows, k])
    log_factor = np.log(volume_factor(*known.T))
    interval = wide.log_volume_interval(log_factor)
    if column == 0:
        return _scaled(narrow.log_volume_interval(log_factor), interval)
    rest = interval[0] + u[:, 0] * np.maximum(interval[1] - interval[0], _TINY) - log_factor
    interval = wide.log_a_interval(rest)
    if column == 1:
        scaled = _scaled(narrow.log_a_interval(rest), interval)
    else:
        log_a = interval[0] + u[:, 1] * np.maximum(interval[1] - interval[0], _TINY)
        rest = rest - np.where(wide.equal == 3, rest / 3.0, log_a)
        scaled = _scaled(narrow.log_b_interval(rest), wide.log_b_interval(rest))
    free = wide.is_free[:, column]
    return np.where(free, scaled[0], low), np.where(free, scaled[1], high)


def _scaled(inner: tuple[Array, Array], outer: tuple[Array, Array]) -> tuple[Array, Array]:
    """Ends of one interval as shares of another that holds it."""
    width = np.maximum(outer[1] - outer[0], _TINY)
    low = np.clip((inner[0] - outer[0]) / width, 0.0, 1.0)
    high = np.clip((inner[1] - outer[0]) / width, 0.0, 1.0)
    return low, high
