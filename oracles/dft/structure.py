"""From a candidate to the cell that is computed."""

from __future__ import annotations

import warnings

import numpy as np
import spglib
from ase import Atoms
from ase.calculators.calculator import Calculator

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.realise import RealisationError, realise
from activelearning.errors import OracleError

SYMMETRY_TOLERANCE = 1e-3  # Å


def cell_of(candidate: CrystalCandidate, *, seed: int, n_trials: int, calculator: Calculator | None) -> Atoms:
    """The primitive cell of a crystal.

    Args:
        candidate: The crystal.
        seed: Of the draws of its sites, where it has no structure.
        n_trials: Number of those draws.
        calculator: Ranks them by its energy; without one they stay in the order drawn.

    Raises:
        OracleError: it can't be turned into atoms.
    """
    try:
        found = realise(candidate, n_trials=n_trials, seed=seed, calculator=calculator)
    except RealisationError as error:
        raise OracleError(str(error).removesuffix(".")) from error
    return primitive(found[0].atoms)


def primitive(atoms: Atoms) -> Atoms:
    """The primitive cell, in the orientation and with the positions that the atoms have."""
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of spglib, about how it will tell of errors
        found = spglib.standardize_cell(cell, to_primitive=True, no_idealize=True, symprec=SYMMETRY_TOLERANCE)
    if found is None or len(found[2]) >= len(atoms):
        return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    lattice, scaled, numbers = (np.asarray(part) for part in found)
    order = np.argsort(numbers, kind="stable")
    return Atoms(numbers=numbers[order], scaled_positions=scaled[order], cell=lattice, pbc=True)
