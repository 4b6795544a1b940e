"""Bond-valence site energy: what a mobile ion feels of the framework, point by point of a crystal's cell.

Ions of opposite sign attract by a Morse potential whose constants come from bond valences, ions of equal sign repel by
a screened Coulomb potential (Adams & Rao, Phys. Status Solidi A 2011, 208, 1746; Chen, Wong & Adams, Acta Cryst. B
2019, 75, 18). The constants are those of the package bvlain (A. Dembitskiy), read from its tables; the sums are our
own, since bvlain's are cut at a number of neighbours, hold all pairs in memory at once and run on every core.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import pickle
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray
from pymatgen.core import Structure
from scipy.special import erfc

from activelearning.errors import ActiveLearningError, ConfigError

Array = NDArray[np.float64]

COULOMB = 14.4  # e² / (4 π ε₀), eV Å
SCREENING = 0.74  # of the sum of covalent radii (Adams & Rao 2011)
NEAREST = 0.1  # Å; closer to a nucleus, the repulsion is that at this distance


class LandscapeError(ActiveLearningError):
    """A crystal has no bond-valence site energies; the message says why."""


@dataclass(frozen=True)
class Framework:
    """The ions that stand still.

    Attributes:
        matrix: Lattice vectors as rows, `3 x 3`, Å.
        fractional: Coordinates, `n x 3`.
        kinds: Number of the pair potential of each ion, `n`.
        potentials: Pair potentials with the mobile ion.
    """

    matrix: Array
    fractional: Array
    kinds: NDArray[np.int64]
    potentials: tuple[PairPotential, ...]


@dataclass(frozen=True)
class PairPotential:
    """Energy of the mobile ion and one ion of the framework, eV, by distance in Å.

    Attributes:
        morse: (D₀ in eV, R_min in Å, α in 1/Å) for an ion of opposite sign, else None.
        coulomb: (Coulomb's constant times charges over the root of the principal quantum numbers in eV Å, screening
            length in Å) for an ion of equal sign, else None.
    """

    morse: tuple[float, float, float] | None = None
    coulomb: tuple[float, float] | None = None

    def __call__(self, r: Array) -> Array:
        """Energies, eV, of distances in Å, any shape."""
        r = np.maximum(r, NEAREST)
        if self.morse is not None:
            depth, r_min, alpha = self.morse
            return np.asarray(0.5 * depth * ((np.exp(alpha * (r_min - r)) - 1.0) ** 2 - 1.0))
        assert self.coulomb is not None
        strength, length = self.coulomb
        return np.asarray(strength / r * erfc(r / length))


def framework(structure: Structure, mobile_ion: str, charges: dict[str, float]) -> Framework:
    """A crystal without its mobile ions, as what they feel.

    Args:
        structure: Ordered crystal.
        mobile_ion: Symbol of the ion that moves.
        charges: Oxidation state of every element; fractional where one has a mixed valence.

    Raises:
        LandscapeError: there is nothing but mobile ions, or a pair is not in bvlain's tables.
    """
    symbols = [site.specie.symbol for site in structure]
    still = [k for k, symbol in enumerate(symbols) if symbol != mobile_ion]
    if not still:
        raise LandscapeError(f"holds nothing but {mobile_ion}: no framework to move through")
    elements = sorted({symbols[k] for k in still})
    potentials = tuple(
        pair_potential(mobile_ion, charges[mobile_ion], symbol, charges[symbol]) for symbol in elements
    )
    return Framework(
        matrix=np.array(structure.lattice.matrix, dtype=np.float64),
        fractional=np.array(structure.frac_coords[still], dtype=np.float64),
        kinds=np.array([elements.index(symbols[k]) for k in still], dtype=np.int64),
        potentials=potentials,
    )


def pair_potential(mobile: str, mobile_charge: float, other: str, charge: float) -> PairPotential:
    """Potential of a mobile cation and an ion of the framework.

    Raises:
        LandscapeError: bvlain's tables lack the pair.
    """
    z, z_other = atomic_numbers[mobile], atomic_numbers[other]
    if charge > 0:
        quantum_numbers = _table("quantum_n.pkl")
        if z_other not in quantum_numbers:
            raise LandscapeError(f"{other} is not in bvlain's tables")
        strength = COULOMB * mobile_charge * charge / math.sqrt(quantum_numbers[z] * quantum_numbers[z_other])
        return PairPotential(coulomb=(strength, SCREENING * (covalent_radii[z] + covalent_radii[z_other])))
    try:
        constants = _table("cation.pkl")[z][round(mobile_charge)][z_other][_whole(charge)]
    except KeyError:
        raise LandscapeError(
            f"{mobile}{mobile_charge:+g} and {other}{charge:+g} are no pair of bvlain's tables"
        ) from None
    return PairPotential(morse=(float(constants["d0"]), float(constants["r_min"]), float(constants["alpha"])))


def _whole(charge: float) -> int:
    if abs(charge - round(charge)) > 1e-9:
        raise KeyError(charge)
    return round(charge)


def grid_shape(matrix: Array, resolution: float) -> tuple[int, int, int]:
    """Points along each axis of a cell so that neighbours are at most `resolution` Å apart."""
    first, second, third = (
        max(1, math.ceil(length / resolution - 1e-9)) for length in np.linalg.norm(matrix, axis=1)
    )
    return first, second, third


def site_energies(still: Framework, shape: tuple[int, int, int], cutoff: float) -> Array:
    """Energy of a mobile ion, eV, on the points (i / n₁, j / n₂, k / n₃) of the cell, `n₁ x n₂ x n₃`.

    One ion of the framework is worked on at a time, with all grid points within the cutoff, images included: memory
    grows with the grid and the cutoff's sphere, not with the number of pairs.

    Args:
        still: The framework.
        shape: Grid points along each axis.
        cutoff: Pairs further apart do not count, Å.
    """
    size = np.array(shape)
    metric = still.matrix @ still.matrix.T
    heights = 1.0 / np.linalg.norm(np.linalg.inv(still.matrix), axis=0)
    reach = np.ceil(cutoff / heights * size).astype(np.int64) + 1
    total = np.zeros(math.prod(shape))
    for position, kind in zip(still.fractional, still.kinds, strict=True):
        nearest = np.round(position * size).astype(np.int64)
        axes = [np.arange(-m, m + 1) + k for m, k in zip(reach, nearest, strict=True)]
        x, y, z = (axis / n - f for axis, n, f in zip(axes, shape, position, strict=True))
        i, j, k = (axis % n for axis, n in zip(axes, shape, strict=True))
        # Plane by plane, so that what is held at once stays small.
        yz = metric[1, 1] * y[:, None] ** 2 + metric[2, 2] * z**2 + 2.0 * metric[1, 2] * y[:, None] * z
        linear = 2.0 * (metric[0, 1] * y[:, None] + metric[0, 2] * z)
        columns = j[:, None] * shape[2] + k
        energies, points = [], []
        for a, row in zip(x, i, strict=True):
            squared = metric[0, 0] * a * a + a * linear + yz
            near = squared <= cutoff**2
            energies.append(squared[near])
            points.append(columns[near] + row * (shape[1] * shape[2]))
        values = still.potentials[kind](np.sqrt(np.concatenate(energies)))
        total += np.bincount(np.concatenate(points), weights=values, minlength=len(total))
    return total.reshape(shape)


@cache
def _table(name: str) -> Any:
    return pickle.loads(tables_file(name).read_bytes())


def tables_file(name: str) -> Path:
    """A file of bvlain's tables. They are pickles of the installed package: to trust as its code is.

    Raises:
        ConfigError: bvlain is not installed, or keeps its tables elsewhere.
    """
    spec = importlib.util.find_spec("bvlain")
    if spec is None or spec.origin is None:
        raise ConfigError("The oracle 'bvse' needs the package bvlain: pip install 'bvlain>=0.25'.")
    path = Path(spec.origin).parent / "data" / name
    if not path.is_file():
        raise ConfigError(f"The installed bvlain lacks its table {name}; install bvlain 0.25.")
    return path


def tables_checksum() -> str:
    """SHA-256 (hex) of the constants, so that answers are shared only where these are the same."""
    names = ("cation.pkl", "quantum_n.pkl")
    return hashlib.sha256(b"".join(tables_file(name).read_bytes() for name in names)).hexdigest()
