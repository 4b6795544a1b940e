"""The cell that is simulated: a crystal's own, repeated until it is wide enough."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ase import Atoms

from oracles.dynamics.motion import SimulationError


def supercell(atoms: Atoms, min_edge: float, max_atoms: int) -> tuple[Atoms, dict[str, Any]]:
    """Atoms repeated so that opposite faces are at least `min_edge` Å apart, and plain values that say what they are.

    Raises:
        SimulationError: there are more than `max_atoms` of them.
    """
    repeats = supercell_repeats(atoms, min_edge)
    n_atoms = len(atoms) * math.prod(repeats)
    if n_atoms > max_atoms:
        raise SimulationError(
            f"the supercell {'x'.join(map(str, repeats))} has {n_atoms} atoms, above max_atoms = {max_atoms}"
        )
    info = {
        "formula": atoms.get_chemical_formula(mode="hill"),
        "supercell": list(repeats),
        "n_atoms": n_atoms,
        "volume": float(atoms.get_volume()) * math.prod(repeats),
    }
    return atoms.repeat(repeats), info


def supercell_repeats(atoms: Atoms, min_edge: float) -> tuple[int, int, int]:
    """Repeats along each axis so that opposite faces of the cell are at least `min_edge` Å apart."""
    heights = 1.0 / np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    first, second, third = (max(1, math.ceil(min_edge / height - 1e-6)) for height in heights)
    return first, second, third
