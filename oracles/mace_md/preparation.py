"""From a crystal to the cell that is simulated: realisations, relaxation, supercell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.realise import distance_ratio, realise
from oracles.mace_md.dynamics import MIN_DISTANCE_RATIO, SimulationError, energy_and_forces
from oracles.mace_md.protocol import Protocol

MAX_VOLUME_GROWTH = 4.0  # of a relaxed cell; beyond, the atoms fly apart and no crystal is left


def prepare(
    candidate: CrystalCandidate, calculator: Calculator, protocol: Protocol, seed: int
) -> tuple[Atoms, dict[str, Any]]:
    """Atoms ready for dynamics, and what is worth knowing of how they came about.

    Raises:
        RealisationError: the crystal can't be turned into atoms.
        SimulationError: it falls apart or collapses in relaxation, or its supercell is too large.
    """
    realisations = realise(
        candidate,
        n_trials=protocol.n_realisations,
        seed=seed,
        calculator=calculator,
        min_distance_ratio=protocol.min_distance_ratio,
    )
    best = realisations[0]
    relaxed, info = relax(best.atoms, calculator, protocol)
    repeats = supercell_repeats(relaxed, protocol.min_cell_edge)
    n_atoms = len(relaxed) * math.prod(repeats)
    if n_atoms > protocol.max_atoms:
        raise SimulationError(
            f"the supercell {'x'.join(map(str, repeats))} has {n_atoms} atoms, above max_atoms = {protocol.max_atoms}"
        )
    info |= {
        "formula": relaxed.get_chemical_formula(mode="hill"),
        "n_realisations": len(realisations),
        "realisation": best.trial,
        "supercell": list(repeats),
        "n_atoms": n_atoms,
        "volume": float(relaxed.get_volume()) * math.prod(repeats),
    }
    return relaxed.repeat(repeats), info


def relax(atoms: Atoms, calculator: Calculator, protocol: Protocol) -> tuple[Atoms, dict[str, Any]]:
    """Relax positions, and the cell where the protocol says so, by at most `relax_steps` steps of FIRE.

    A relaxation that has not converged is no failure: dynamics at hundreds of kelvin follow.

    Raises:
        SimulationError: the cell expands without end, atoms collapse onto each other or the potential fails.
    """
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    copy = atoms.copy()
    copy.calc = calculator
    energy_and_forces(copy)
    target = FrechetCellFilter(copy) if protocol.relax_cell else copy
    optimiser = FIRE(target, logfile=None)
    try:
        converged = bool(optimiser.run(fmax=protocol.relax_fmax, steps=protocol.relax_steps))
    except (RuntimeError, ValueError, ArithmeticError, IndexError, np.linalg.LinAlgError) as error:
        raise SimulationError(f"relaxation fails: {error}") from error
    energy, _ = energy_and_forces(copy)
    if copy.get_volume() > MAX_VOLUME_GROWTH * atoms.get_volume():
        raise SimulationError(
            f"falls apart in relaxation: {copy.get_volume() / len(copy):.0f} Å³ per atom after {optimiser.nsteps} steps"
        )
    if distance_ratio(copy) < MIN_DISTANCE_RATIO:
        raise SimulationError("collapses in relaxation: atoms on top of each other")
    info = {
        "relaxation_steps": int(optimiser.nsteps),
        "relaxation_converged": converged,
        "relaxed_energy_per_atom": energy / len(copy),
        "relaxed_volume_ratio": float(copy.get_volume() / atoms.get_volume()),
    }
    return Atoms(numbers=copy.numbers, positions=copy.positions, cell=copy.cell, pbc=True), info


def supercell_repeats(atoms: Atoms, min_edge: float) -> tuple[int, int, int]:
    """Repeats along each axis so that opposite faces of the cell are at least `min_edge` Å apart."""
    heights = 1.0 / np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    first, second, third = (max(1, math.ceil(min_edge / height - 1e-6)) for height in heights)
    return first, second, third
