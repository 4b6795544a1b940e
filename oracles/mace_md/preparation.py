"""From a crystal to the cell that is simulated: realisations, relaxation, supercell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.relaxation import realise_relaxed
from oracles.mace_md.dynamics import SimulationError
from oracles.mace_md.protocol import Protocol


def prepare(
    candidate: CrystalCandidate, calculator: Calculator, protocol: Protocol, seed: int
) -> tuple[Atoms, dict[str, Any]]:
    """Atoms ready for dynamics, and what is worth knowing of how they came about.

    Raises:
        RealisationError: the crystal can't be turned into atoms, or they fall apart or collapse in relaxation.
        SimulationError: the supercell is too large.
    """
    best, info = realise_relaxed(
        candidate,
        calculator,
        seed=seed,
        n_trials=protocol.n_realisations,
        n_relaxed=protocol.n_relaxed,
        min_distance_ratio=protocol.min_distance_ratio,
        relaxation={
            "max_steps": protocol.relax_steps,
            "fmax": protocol.relax_fmax,
            "relax_cell": protocol.relax_cell,
            "keep_symmetry": protocol.keep_symmetry,
        },
    )
    relaxed = best.atoms
    repeats = supercell_repeats(relaxed, protocol.min_cell_edge)
    n_atoms = len(relaxed) * math.prod(repeats)
    if n_atoms > protocol.max_atoms:
        raise SimulationError(
            f"the supercell {'x'.join(map(str, repeats))} has {n_atoms} atoms, above max_atoms = {protocol.max_atoms}"
        )
    info |= {
        "formula": relaxed.get_chemical_formula(mode="hill"),
        "supercell": list(repeats),
        "n_atoms": n_atoms,
        "volume": float(relaxed.get_volume()) * math.prod(repeats),
    }
    return relaxed.repeat(repeats), info


def supercell_repeats(atoms: Atoms, min_edge: float) -> tuple[int, int, int]:
    """Repeats along each axis so that opposite faces of the cell are at least `min_edge` Å apart."""
    heights = 1.0 / np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    first, second, third = (max(1, math.ceil(min_edge / height - 1e-6)) for height in heights)
    return first, second, third
