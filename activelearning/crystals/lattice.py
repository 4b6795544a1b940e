"""Lattice parameters from coordinates u in (0, 1)^6, so that every u gives a real cell within its limits.

The free parameters of a lattice system are reached in one step: angles first, each on the interval that the
earlier ones leave open, then the volume, then lengths. With x = cos α, y = cos β and z = cos γ the volume is
V = a b c f, where f² = 1 − x² − y² − z² + 2xyz is the determinant of the Gram matrix of three unit vectors.
Its logarithm is concave in (x, y, z), so {f ≥ f₀} within a box of angles is convex, and each conditional set
of one angle is an interval, given here in closed form. Volume and lengths are drawn on logarithmic scales,
where V and the range of lengths leave intervals, too; log-uniform lengths make no axis special. The interval
of volumes comes from outside (`activelearning.crystals.volume`).

Columns of u belong to (volume, a, b, α, β, γ); those that a lattice system does not use are ignored. All
arrays are float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.symmetry import LATTICE_SYSTEMS, LatticeSystem

Array = NDArray[np.float64]

# The flattest cell, f = V / (a b c). Niggli cells have f ≥ 0.7, conventional ones hardly less; near f = 0 a
# cell is a sheet.
MIN_VOLUME_FACTOR = 0.2

# Candidates are rounded to 1e-4 Å and 1e-3°. Intervals are narrower than the limits by these margins, so that
# a rounded cell keeps them: at f ≥ 0.2 rounding changes the volume by less than 7e-4 of itself, lengths of
# 0.5 Å included.
LENGTH_MARGIN = 1e-4
ANGLE_MARGIN = 1e-3
VOLUME_MARGIN = 1e-3
MIN_LENGTH = 0.5

# By about how much rounding moves an angle in degrees, and the logarithm of a length in Å or of a volume.
SHIFT_ANGLE, SHIFT_LOG = 5e-4, 2e-5
EDGE = 1e-6  # of an interval of u that no draw reaches
# Parameters that symmetry makes equal may differ by the rounding of both when a lattice comes from elsewhere.
_ROUNDING = 1.5e-4, 1.5e-3
# By how much a cell from elsewhere may miss its setting in Å and degrees: what symmetry is looked for by in atoms.
SETTING_TOLERANCES = 0.01, 0.1

_HEXAGONAL = (
    LatticeSystem.TRIGONAL_RHOMBOHEDRAL,
    LatticeSystem.TRIGONAL_HEXAGONAL,
    LatticeSystem.HEXAGONAL,
)
# Columns of u that each system uses.
FREE_COORDINATES: dict[LatticeSystem, tuple[int, ...]] = {
    LatticeSystem.TRICLINIC: (0, 1, 2, 3, 4, 5),
    LatticeSystem.MONOCLINIC: (0, 1, 2, 4),
    LatticeSystem.ORTHORHOMBIC: (0, 1, 2),
    LatticeSystem.TETRAGONAL: (0, 1),
    **dict.fromkeys(_HEXAGONAL, (0, 1)),
    LatticeSystem.CUBIC: (0,),
}


def free_coordinates() -> NDArray[np.bool_]:
    """`8 x 6`: whether each system of `LATTICE_SYSTEMS` uses each column of u."""
    return np.array([[j in FREE_COORDINATES[s] for j in range(6)] for s in LATTICE_SYSTEMS])


def fixed_angles(system: LatticeSystem) -> tuple[float | None, float | None, float | None]:
    """α, β, γ in degrees where the system fixes them (unique axis b, hexagonal axes for R groups)."""
    if system == LatticeSystem.TRICLINIC:
        return (None, None, None)
    if system == LatticeSystem.MONOCLINIC:
        return (90.0, None, 90.0)
    return (90.0, 90.0, 120.0) if system in _HEXAGONAL else (90.0, 90.0, 90.0)


def equal_lengths(system: LatticeSystem) -> int:
    """How many of the lengths equal a: 1, 2 (a = b) or 3 (a = b = c)."""
    if system == LatticeSystem.CUBIC:
        return 3
    if system == LatticeSystem.TETRAGONAL or system in _HEXAGONAL:
        return 2
    return 1


def misfits(
    system: LatticeSystem, lattice: Sequence[float], tolerances: tuple[float, float] = SETTING_TOLERANCES
) -> list[str]:
    """Where a lattice is not what its system says of the conventional cell, in words; empty where it is.

    Args:
        system: Lattice system of the space group.
        lattice: (a, b, c, α, β, γ) in Å and degrees.
        tolerances: Largest difference of lengths that must be equal in Å, and of an angle from its value in degrees.
    """
    lengths, angles = list(lattice[:3]), list(lattice[3:])
    found = [
        f"{name} = {value:g} must be {fixed:g} in the {system} lattice system"
        for name, value, fixed in zip(("alpha", "beta", "gamma"), angles, fixed_angles(system), strict=True)
        if fixed is not None and abs(value - fixed) > tolerances[1]
    ]
    tied = lengths[: equal_lengths(system)]
    if max(tied) - min(tied) > tolerances[0]:
        equal = "a = b = c" if equal_lengths(system) == 3 else "a = b"
        found.append(f"lengths {lengths} must have {equal} in the {system} lattice system")
    return found


def volume_factor(x: Array, y: Array, z: Array) -> Array:
    """f = V / (a b c) of cosines x, y, z of the angles; 0 where they close no cell."""
    factor: Array = np.sqrt(np.maximum(1.0 - x * x - y * y - z * z + 2.0 * x * y * z, 0.0))
    return factor


def cosines(degrees: Array) -> Array:
    """Cosines of angles in degrees."""
    values: Array = np.cos(np.radians(degrees))
    return values


@dataclass(frozen=True)
class LatticeLimits:
    """Ranges of lattice parameters, each (lowest, highest); parameters fixed by symmetry must keep them, too.

    Attributes:
        lengths: a, b and c in Å.
        angles: α, β and γ in degrees.
        volume_per_atom: Å³ per atom.
    """

    lengths: tuple[float, float]
    angles: tuple[float, float]
    volume_per_atom: tuple[float, float]

    @cached_property
    def _log_lengths(self) -> tuple[float, float]:
        return math.log(self.lengths[0] + LENGTH_MARGIN), math.log(self.lengths[1] - LENGTH_MARGIN)

    @cached_property
    def _angles(self) -> tuple[float, float]:
        return self.angles[0] + ANGLE_MARGIN, self.angles[1] - ANGLE_MARGIN

    @cached_property
    def _cosines(self) -> tuple[float, float]:
        low, high = self._angles
        return math.cos(math.radians(high)), math.cos(math.radians(low))

    @cached_property
    def _log_volumes(self) -> tuple[float, float]:
        margin = math.log1p(VOLUME_MARGIN)
        return math.log(self.volume_per_atom[0]) + margin, math.log(self.volume_per_atom[1]) - margin

    @property
    def log_cubes(self) -> tuple[float, float]:
        """Logarithms of a b c in Å³ of the shortest and longest lengths."""
        return 3.0 * self._log_lengths[0], 3.0 * self._log_lengths[1]

    def log_volumes(self, n_atoms: NDArray[np.int64]) -> Array:
        """Logarithms of the least and most volume in Å³ of cells of n atoms, `n x 2`, margins taken off."""
        return np.log(n_atoms.astype(np.float64))[:, None] + np.array(self._log_volumes)

    @cached_property
    def _nearest_cosine(self) -> float:
        """Cosine of the allowed angle nearest to 90°, where three equal angles give the largest f."""
        low, high = self._cosines
        return min(max(0.0, low), high)

    def largest_factor(self, system: LatticeSystem) -> float | None:
        """Largest f of a system within the range of angles; None where no cell of the system is within it."""
        low, high = self.angles
        fixed = fixed_angles(system)
        if any(angle is not None and not low <= angle <= high for angle in fixed):
            return None
        if system == LatticeSystem.TRICLINIC:
            t = self._nearest_cosine
            squared = 1.0 - 3.0 * t * t + 2.0 * t**3
            factor = math.sqrt(max(squared, 0.0))
        else:
            factor = math.sqrt(0.75) if system in _HEXAGONAL else 1.0
        return factor if factor > MIN_VOLUME_FACTOR * (1.0 + VOLUME_MARGIN) else None

    def atoms(self, system: LatticeSystem) -> tuple[int, int] | None:
        """Fewest and most atoms a cell of the system can hold; None where it can hold none.

        The largest cell must not be too small for them, nor the cell of shortest lengths and largest f (a
        cube, where the angles are free) too large. The second is a definition: flatter and smaller cells are
        left out with it, so that the allowed angles stay a convex set.
        """
        factor = self.largest_factor(system)
        if factor is None:
            return None
        log_low, log_high = self._log_volumes
        # Margins of 1e-9 keep the intervals from being empty at the very ends.
        fewest = math.exp(math.log(factor) + 3 * self._log_lengths[0] - log_high)
        most = math.exp(math.log(factor) + 3 * self._log_lengths[1] - log_low)
        low, high = max(1, math.ceil(fewest * (1 + 1e-9))), math.floor(most * (1 - 1e-9))
        return (low, high) if low <= high else None

    # ---------------------------------------------------------------- the map

    def parameters(self, systems: NDArray[np.int64], log_volumes: Array, u: Array) -> tuple[Array, Array]:
        """Lattice parameters of coordinates.

        Args:
            systems: Indices in `LATTICE_SYSTEMS`, `n`.
            log_volumes: Logarithms of the least and most volume in Å³, `n x 2`, that lengths and angles
                allow, margins taken off; of `log_volumes`, or within them.
            u: Coordinates in (0, 1), `n x 6`.

        Returns:
            (a, b, c, α, β, γ) in Å and degrees, `n x 6`, and `n` values log |det ∂θ/∂u| over the system's
            free parameters θ, each scaled to [0, 1] by its configured range (lengths: a, b, c less those
            equal to an earlier one).
        """
        walk = LatticeWalk(self, systems, log_volumes)
        return walk.down(u)

    def coordinates(self, systems: NDArray[np.int64], log_volumes: Array, lattices: Array) -> Array:
        """Coordinates u, `n x 6`, of lattices, `n x 6`: the inverse of `parameters`.

        Unused columns are 0.5. Lattices within rounding of the limits are taken inside.
        """
        walk = LatticeWalk(self, systems, log_volumes)
        return walk.up(lattices)

    def violations(self, system: LatticeSystem, log_volumes: Array, lattice: Sequence[float]) -> list[str]:
        """What is wrong with a lattice, in words; empty where all is well.

        Args:
            system: Lattice system of the space group.
            log_volumes: Logarithms of the least and most volume in Å³, `2`, margins taken off.
            lattice: (a, b, c, α, β, γ) in Å and degrees.
        """
        lengths, angles = list(lattice[:3]), list(lattice[3:])
        found = [
            f"{name} = {value:g} is not within {kind} {list(limits)}"
            for names, values, kind, limits in (
                (("a", "b", "c"), lengths, "lengths", self.lengths),
                (("alpha", "beta", "gamma"), angles, "angles", self.angles),
            )
            for name, value in zip(names, values, strict=True)
            if not limits[0] <= value <= limits[1]
        ]
        found += misfits(system, lattice, _ROUNDING)
        x, y, z = cosines(np.array(angles))
        factor = float(volume_factor(x, y, z))
        if factor < MIN_VOLUME_FACTOR:
            found.append(
                f"angles {angles} give a cell of V/(abc) = {factor:.3g}, flatter than {MIN_VOLUME_FACTOR}"
            )
        volume = math.prod(lengths) * factor
        margin = math.log1p(VOLUME_MARGIN)
        low, high = math.exp(log_volumes[0] - margin), math.exp(log_volumes[1] + margin)
        # A relative 1e-12: the logarithm there and back.
        if not low * (1.0 - 1e-12) <= volume <= high * (1.0 + 1e-12):
            found.append(f"volume {volume:.5g} Å³ is not within {low:.5g} to {high:.5g}")
        return found


class LatticeWalk:
    """Intervals of the parameters in turn, for a batch of cells of mixed systems."""

    def __init__(self, limits: LatticeLimits, systems: NDArray[np.int64], log_volumes: Array) -> None:
        self.limits = limits
        self.is_free = _FREE[systems]
        self.fixed = _FIXED_ANGLES[systems]
        self.equal = _EQUAL_LENGTHS[systems]
        self.log_volume = (log_volumes[:, 0], log_volumes[:, 1])
        # The flattest angles that still reach the smallest volume with the longest axes.
        log_factor = np.maximum(
            self.log_volume[0] - 3.0 * limits._log_lengths[1],
            math.log(MIN_VOLUME_FACTOR) + math.log1p(VOLUME_MARGIN),
        )
        self.least = np.exp(2.0 * log_factor)

    def angle_interval(self, column: int, rows: NDArray[np.int64], cosines: Array) -> tuple[Array, Array]:
        """Lowest and highest angle of some rows in degrees, given cosines whose earlier columns are set.

        A monoclinic β (x = 0, γ = 90° within the range) has the interval of a triclinic one.
        """
        low, high = self.limits._cosines
        least = self.least[rows]
        x, y, _ = cosines.T
        if column == 0:
            # The other two at the cosine nearest to zero leave most room: 1 − x² − 2t²(1 − x) ≥ f₀².
            t = self.limits._nearest_cosine**2
            half = np.sqrt(np.maximum((1.0 - t) ** 2 - least, 0.0))
            ends = t - half, t + half
        elif column == 1:
            # |y − xz| ≤ √((1 − x²)(1 − z²) − f₀²) for some z; the extreme y is reached at ±x·y₀, or as near
            # as z may go.
            sine = 1.0 - x * x
            reach = np.sqrt(np.maximum(1.0 - least / sine, 0.0))
            bottom, top = np.maximum(low, -reach), np.minimum(high, reach)
            z = np.clip(-x * reach, bottom, np.maximum(top, bottom))
            first = x * z - np.sqrt(np.maximum(sine * (1.0 - z * z) - least, 0.0))
            z = np.clip(x * reach, bottom, np.maximum(top, bottom))
            ends = first, x * z + np.sqrt(np.maximum(sine * (1.0 - z * z) - least, 0.0))
        else:
            half = np.sqrt(np.maximum((1.0 - x * x) * (1.0 - y * y) - least, 0.0))
            ends = x * y - half, x * y + half
        first, last = np.clip(ends[0], low, high), np.clip(ends[1], low, high)
        return np.degrees(np.arccos(last)), np.degrees(np.arccos(first))

    def log_volume_interval(self, log_factor: Array) -> tuple[Array, Array]:
        """Lowest and highest log volume, given log f."""
        low, high = self.limits._log_lengths
        return (
            np.maximum(self.log_volume[0], log_factor + 3.0 * low),
            np.minimum(self.log_volume[1], log_factor + 3.0 * high),
        )

    def log_a_interval(self, rest: Array) -> tuple[Array, Array]:
        """Lowest and highest log a, given log(a b c)."""
        low, high = self.limits._log_lengths
        single = self.equal == 1
        bottom = np.where(single, rest - 2.0 * high, (rest - high) / 2.0)
        top = np.where(single, rest - 2.0 * low, (rest - low) / 2.0)
        return np.maximum(bottom, low), np.minimum(top, high)

    def log_b_interval(self, rest: Array) -> tuple[Array, Array]:
        """Lowest and highest log b, given log(b c)."""
        low, high = self.limits._log_lengths
        return np.maximum(rest - high, low), np.minimum(rest - low, high)

    def down(self, u: Array) -> tuple[Array, Array]:
        """From u to parameters."""
        n = len(u)
        angles = self.fixed.copy()
        known = cosines(angles)
        log_det = np.zeros(n)
        angle_range = self.limits.angles[1] - self.limits.angles[0]
        for k in range(3):
            rows = np.flatnonzero(self.is_free[:, 3 + k])
            low, high = self.angle_interval(k, rows, known[rows])
            width = np.maximum(high - low, _TINY)
            angles[rows, k] = low + u[rows, 3 + k] * width
            known[rows, k] = cosines(angles[rows, k])
            log_det[rows] += np.log(width / angle_range)
        log_factor = np.log(volume_factor(*known.T))
        low, high = self.log_volume_interval(log_factor)
        width_v = np.maximum(high - low, _TINY)
        rest = low + u[:, 0] * width_v - log_factor
        low, high = self.log_a_interval(rest)
        width_a = np.maximum(high - low, _TINY)
        log_a = np.where(self.equal == 3, rest / 3.0, low + u[:, 1] * width_a)
        low, high = self.log_b_interval(rest - log_a)
        width_b = np.maximum(high - low, _TINY)
        log_b = np.where(self.equal > 1, log_a, low + u[:, 2] * width_b)
        log_c = np.where(self.equal == 3, log_a, rest - log_a - log_b)
        # log a, log b, log c have unit Jacobian in (log V, log a, log b), or (log V, log a); a cube's edge
        # has 1/3.
        n_lengths = 4 - self.equal
        log_det += np.log(width_v) + np.where(self.equal == 3, log_a - math.log(3.0), log_a + log_c)
        log_det += np.where(self.equal < 3, np.log(width_a), 0.0)
        log_det += np.where(self.equal == 1, np.log(width_b) + log_b, 0.0)
        log_det -= n_lengths * math.log(self.limits.lengths[1] - self.limits.lengths[0])
        lengths = np.exp(np.stack([log_a, log_b, log_c], axis=1))
        return np.concatenate([lengths, angles], axis=1), log_det

    def up(self, lattices: Array) -> Array:
        """From parameters to u, each on the interval that the earlier ones leave once they are taken inside."""
        u = np.full((len(lattices), 6), 0.5)
        angles = np.where(self.is_free[:, 3:], lattices[:, 3:], self.fixed)
        known = cosines(angles)
        for k in range(3):
            rows = np.flatnonzero(self.is_free[:, 3 + k])
            interval = self.angle_interval(k, rows, known[rows])
            u[rows, 3 + k], angles[rows, k] = _inside(angles[rows, k], interval, SHIFT_ANGLE)
            known[rows, k] = cosines(angles[rows, k])
        log_a, log_b, log_c = np.log(lattices[:, :3]).T
        log_factor = np.log(np.maximum(volume_factor(*known.T), _TINY))
        log_volume = log_a + log_b + log_c + log_factor
        u[:, 0], log_volume = _inside(log_volume, self.log_volume_interval(log_factor), SHIFT_LOG)
        rest = log_volume - log_factor
        u[:, 1], inside = _inside(log_a, self.log_a_interval(rest), SHIFT_LOG)
        log_a = np.where(self.equal == 3, rest / 3.0, inside)
        u[:, 2], _ = _inside(log_b, self.log_b_interval(rest - log_a), SHIFT_LOG)
        return np.where(self.is_free, u, 0.5)


def _inside(value: Array, interval: tuple[Array, Array], shift: float) -> tuple[Array, Array]:
    """Where values lie in intervals, from 0 to 1, and the values.

    Rounding may take a value to the edge or out of its interval, where densities are those of no draw: it is taken
    back by as much as rounding can have moved it.
    """
    low, high = interval
    width = np.maximum(high - low, _TINY)
    edge = np.clip(shift / width, EDGE, 0.25)
    u = (value - low) / width
    u = np.where(u < EDGE, edge, np.where(u > 1.0 - EDGE, 1.0 - edge, u))
    return u, low + u * width


_TINY = 1e-12
_FREE = free_coordinates()
# Angles where fixed, NaN-free: free ones start from 90° and are replaced in turn.
_FIXED_ANGLES = np.array([[90.0 if a is None else a for a in fixed_angles(s)] for s in LATTICE_SYSTEMS])
_EQUAL_LENGTHS = np.array([equal_lengths(s) for s in LATTICE_SYSTEMS])
