"""How alike two crystals are: a kernel on distances between compositions, frameworks, cells and space groups.

Each part is a distance whose exponential is positive definite (Euclidean distances, and sums of absolute differences),
so their weighted sum in the exponent is a kernel. Distances are in units of their median over the training crystals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from activelearning.crystals.descriptors import DESCRIPTOR_NAMES
from activelearning.crystals.elements import element_rows, properties

Array = npt.NDArray[np.float64]

_COLUMN = {name: i for i, name in enumerate(DESCRIPTOR_NAMES)}
_FRACTIONS = [_COLUMN[f"fraction_{symbol}"] for symbol in element_rows()]
_COMPLEXITY = [_COLUMN[name] for name in ("n_elements", "entropy", "fraction_norm_2", "ionicity")]
_SYMMETRY = [
    i
    for name, i in _COLUMN.items()
    if name in ("point_group_order", "multiplicity", "mean_wyckoff_multiplicity", "fixed_wyckoff_share")
    or name.startswith(("is_", "centering_"))
]
PARTS = ("composition", "framework", "cell", "complexity", "symmetry")
METRICS = ("euclidean", "cityblock", "euclidean", "euclidean", "euclidean")


def coordinates(descriptors: Array) -> tuple[Array, ...]:
    """Where crystals lie in each of `PARTS`, `n x d_p` each, from their descriptors, `n x len(DESCRIPTOR_NAMES)`.

    - composition: square roots of the elements' fractions; their Euclidean distance is Hellinger's.
    - framework: the share of the atoms other than Li up to each place in the order of Mendeleev numbers; the sum of
      absolute differences is the earth mover's distance of the frameworks along that order (Hargreaves et al.,
      Chem. Mater. 32, 10610, 2020, who take all atoms).
    - cell: logarithms of lengths and of the volume per atom, cosines of angles.
    - complexity: elements, entropy and 2-norm of the fractions, ionic character, logarithm of the atoms in the cell.
    - symmetry: what the space group's number says of its point group, centring and Wyckoff positions.
    """
    fractions = descriptors[:, _FRACTIONS]
    others = fractions.copy()
    others[:, element_rows()["Li"]] = 0.0
    total = others.sum(axis=1, keepdims=True)
    others = others / np.where(total > 0.0, total, 1.0)
    order = np.argsort(properties(["mendeleev_number"])[:, 0], kind="stable")
    lengths = np.log(descriptors[:, [_COLUMN[x] for x in ("a", "b", "c", "volume_per_atom")]])
    cosines = descriptors[:, [_COLUMN[f"cos_{x}"] for x in ("alpha", "beta", "gamma")]]
    return (
        np.sqrt(fractions),
        np.cumsum(others[:, order], axis=1),
        np.column_stack([lengths, cosines]),
        np.column_stack([descriptors[:, _COMPLEXITY], np.log(descriptors[:, _COLUMN["n_atoms"]])]),
        descriptors[:, _SYMMETRY],
    )


@dataclass(frozen=True)
class Space:
    """Coordinates scaled as the training crystals ask for.

    Attributes:
        centres: What is taken off each coordinate, `d_p` for each part.
        scales: What each coordinate is divided by, `d_p` for each part: its deviation and the median distance at once.
    """

    centres: tuple[Array, ...]
    scales: tuple[Array, ...]

    @classmethod
    def of(cls, descriptors: Array) -> Space:
        """The scales of training crystals, `n x len(DESCRIPTOR_NAMES)`."""
        centres, scales = [], []
        for part, metric, x in zip(PARTS, METRICS, coordinates(descriptors), strict=True):
            # Fractions are alike in unit, other coordinates are not.
            is_share = part in ("composition", "framework")
            centre = np.zeros(x.shape[1]) if is_share else x.mean(axis=0)
            deviation = x.std(axis=0)
            # A coordinate that all training crystals share says nothing of how far others are.
            scale = np.ones(x.shape[1]) if is_share else np.where(deviation > 0.0, deviation, np.inf)
            middle = _median((x - centre) / scale, metric)
            centres.append(centre)
            scales.append(scale * middle)
        return cls(tuple(centres), tuple(scales))

    def place(self, descriptors: Array) -> tuple[Array, ...]:
        """Scaled coordinates in each part, `n x d_p` each, of crystals by their descriptors."""
        found = zip(coordinates(descriptors), self.centres, self.scales, strict=True)
        return tuple((x - centre) / scale for x, centre, scale in found)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name."""
        return {
            f"{kind}.{part}": value
            for kind, values in (("centre", self.centres), ("scale", self.scales))
            for part, value in zip(PARTS, values, strict=True)
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Space:
        """Read scales back from `arrays()`."""
        centres, scales = (tuple(arrays[f"{kind}.{part}"] for part in PARTS) for kind in ("centre", "scale"))
        return cls(centres, scales)


def distances(a: tuple[Array, ...], b: tuple[Array, ...]) -> Array:
    """Distances in each part between crystals placed by one `Space`, `len(PARTS) x n x m`.

    A pair's distance has the same bits whatever other pairs are asked for.
    """
    from scipy.spatial.distance import cdist

    return np.stack([cdist(x, y, metric) for x, y, metric in zip(a, b, METRICS, strict=True)])


def _median(x: Array, metric: str) -> float:
    from scipy.spatial.distance import pdist

    between = pdist(x, metric)
    positive = between[between > 0.0]
    return float(np.median(positive)) if len(positive) else 1.0
