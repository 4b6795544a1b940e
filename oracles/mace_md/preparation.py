"""From a crystal to the cell that is simulated: realisations, relaxation, supercell."""

from __future__ import annotations

from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.relaxation import realise_relaxed
from oracles.dynamics.supercell import supercell
from oracles.mace_md.protocol import Protocol


def prepare(
    candidate: CrystalCandidate, calculator: Calculator, protocol: Protocol, seed: int
) -> tuple[Atoms, Atoms, dict[str, Any]]:
    """The relaxed crystal, the atoms that are simulated, and what is worth knowing of how they came about.

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
    atoms, cell = supercell(best.atoms, protocol.min_cell_edge, protocol.max_atoms)
    return best.atoms, atoms, info | cell
