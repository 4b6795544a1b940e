"""Percolation barriers of one crystal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from oracles.bvse.landscape import LandscapeError, framework, grid_shape, site_energies
from oracles.bvse.percolation import percolation_energies

SYMMETRY_TOLERANCE = 0.01  # Å


@dataclass(frozen=True)
class Settings:
    """Numbers of a calculation; see `BVSEOracle` for what each means."""

    resolution: float = 0.15
    cutoff: float = 8.0
    max_barrier: float = 5.0
    max_grid_points: int = 2_000_000
    max_atoms: int = 1000


@dataclass(frozen=True)
class Barriers:
    """Energies, eV, above the lowest site at which networks open; infinity beyond `Settings.max_barrier`.

    Attributes:
        by_dimension: Of networks along at least one, two and three directions, ascending.
        grid: Points along the axes of the reduced primitive cell.
        n_atoms: Atoms of the reduced primitive cell.
        lowest: Energy of the lowest site, eV.
    """

    by_dimension: tuple[float, float, float]
    grid: tuple[int, int, int]
    n_atoms: int
    lowest: float


def barriers(
    structure: Structure, mobile_ion: str, charges: Mapping[str, float], settings: Settings
) -> Barriers:
    """Percolation barriers of a mobile ion through what stands still of a crystal.

    The landscape is that of the reduced primitive cell, so that the choice of cell matters little, and is that of one
    ion alone: mobile ions do not feel each other.

    Raises:
        LandscapeError: the cell is too large, or the landscape can't be computed.
    """
    if len(structure) > settings.max_atoms:
        raise LandscapeError(f"its cell has {len(structure)} atoms, above max_atoms = {settings.max_atoms}")
    cell = primitive(structure)
    still = framework(cell, mobile_ion, dict(charges))
    shape = grid_shape(still.matrix, settings.resolution)
    n_points = math.prod(shape)
    if n_points > settings.max_grid_points:
        raise LandscapeError(
            f"its cell of {cell.volume:.0f} Å³ takes {n_points} grid points at a resolution of "
            f"{settings.resolution} Å, above max_grid_points = {settings.max_grid_points}"
        )
    energies = site_energies(still, shape, settings.cutoff)
    lowest = float(energies.min())
    opened = percolation_energies(energies, limit=lowest + settings.max_barrier)
    first, second, third = (energy - lowest for energy in opened)
    return Barriers((first, second, third), shape, len(cell), lowest)


def primitive(structure: Structure) -> Structure:
    """The Niggli-reduced primitive cell; short, nearly right-angled axes serve grid and sums alike.

    Raises:
        LandscapeError: the lattice or its symmetry is degenerate.
    """
    plain = Structure(structure.lattice, [site.specie.symbol for site in structure], structure.frac_coords)
    try:
        cell = SpacegroupAnalyzer(plain, symprec=SYMMETRY_TOLERANCE).find_primitive() or plain
        reduced = cell.get_reduced_structure("niggli")
    except (ValueError, TypeError, np.linalg.LinAlgError) as error:
        raise LandscapeError(f"no primitive cell can be found ({error})") from error
    return reduced
