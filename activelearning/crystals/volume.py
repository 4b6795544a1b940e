"""Which volumes a cell may have, by the radii of its atoms or by a stated range.

The volume over the sum of van der Waals spheres, V / Σ nₑ (4/3) π rₑ³, hardly depends on chemistry: over
22,972 structures of the Materials Project (88 elements, ordered, mostly within 0.1 eV/atom of the hull) its
quantiles of 0.5 % and 99.5 % are 0.294 and 1.380, a factor of 4.7 apart. Of the published radii this is the
tightest: the same factor is 5.9 without radii (volume per atom), 6.0 with Alvarez's van der Waals radii, 11
with Cordero's covalent radii, 13 with Slater's atomic radii.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.elements import element_rows, properties
from activelearning.crystals.lattice import VOLUME_MARGIN, LatticeLimits
from activelearning.crystals.symmetry import LATTICE_SYSTEMS

Array = NDArray[np.float64]

# Volume over that of the van der Waals spheres: least and most, quantiles of 0.5 % and 99.5 % (see above).
VOLUME_OVER_SPHERES = (0.294, 1.380)
# Least width of an interval that lengths have moved, in log volume.
_MOVED_WIDTH = math.log(1.05)
# Spheres in units of 1e-6 Å³: sums of whole numbers are exact, so that no row depends on its batch.
_UNIT = 1e-6


class VolumeRange:
    """Interval of the cell's volume for a composition on a lattice system.

    By radii it is V / Σ nₑ vₑ within `VOLUME_OVER_SPHERES`, as far as V lies in the range of
    `limits.volume_per_atom`, too. Where lengths allow no cell of such a volume, as with few atoms and edges of
    10 Å or more, the interval is widened to the nearest volumes they allow (5 % up from the least of them, or
    down from the most), so that each composition within `limits.atoms` has cells.

    Args:
        elements: Symbols of the columns of counts.
        limits: Ranges of the lattice.
        by_radii: Whether radii narrow the range of `limits.volume_per_atom`.
    """

    def __init__(self, elements: Sequence[str], limits: LatticeLimits, *, by_radii: bool) -> None:
        self.limits, self.by_radii = limits, by_radii
        radii = properties(["van_der_waals_radius"])[[element_rows()[symbol] for symbol in elements], 0]
        self._spheres = np.rint(4.0 / 3.0 * math.pi * radii**3 / _UNIT).astype(np.int64)
        factors = [limits.largest_factor(system) for system in LATTICE_SYSTEMS]
        self._log_factors = np.array([math.nan if f is None else math.log(f) for f in factors])

    def log_volumes(self, systems: NDArray[np.int64], counts: NDArray[np.int64]) -> Array:
        """Logarithms of the least and most volume of the cell in Å³, `n x 2`, margins of rounding taken off.

        Args:
            systems: Indices in `LATTICE_SYSTEMS`, `n`.
            counts: Atoms of each element, `n x E`; their sum is within `limits.atoms` of the system.
        """
        allowed = self.limits.log_volumes(counts.sum(axis=1))
        if not self.by_radii:
            return allowed
        log_spheres = np.log((counts * self._spheres).sum(axis=1) * _UNIT)
        margin = math.log1p(VOLUME_MARGIN)
        low = log_spheres + (math.log(VOLUME_OVER_SPHERES[0]) + margin)
        high = log_spheres + (math.log(VOLUME_OVER_SPHERES[1]) - margin)
        shortest, longest = self.limits.log_cubes
        first = np.maximum(allowed[:, 0], self._log_factors[systems] + shortest)
        last = np.minimum(allowed[:, 1], self._log_factors[systems] + longest)
        high = np.minimum(np.maximum(high, first + _MOVED_WIDTH), allowed[:, 1])
        low = np.maximum(np.minimum(low, last - _MOVED_WIDTH), allowed[:, 0])
        return np.stack([low, high], axis=1)
