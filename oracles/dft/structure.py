"""From a candidate to the cell that is computed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import spglib
from ase import Atoms
from ase.calculators.calculator import Calculator

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.realise import RealisationError, realise
from activelearning.crystals.relaxation import realise_relaxed
from activelearning.errors import OracleError
from oracles.potentials import Potential, load_calculator, torch_threads, unsupported_elements

SYMMETRY_TOLERANCE = 1e-3  # Å


@dataclass(frozen=True)
class Start:
    """How a crystal becomes the atoms that a job is given.

    Attributes:
        n_realisations: Draws of the sites of a crystal without a structure.
        potential: Ranks them, and relaxes; None where there is nothing to rank and to relax.
        relax_steps: Most steps by which the potential relaxes atoms and cell; 0 for none.
        keep_symmetry: Whether the space group is kept in that.
    """

    n_realisations: int = 1
    potential: Potential | None = None
    relax_steps: int = 0
    keep_symmetry: bool = True

    def potential_for(self, candidate: CrystalCandidate) -> Calculator | None:
        """The potential that a crystal needs; None where there is nothing to rank and to relax.

        Raises:
            OracleError: it lacks one of the crystal's elements.
        """
        if self.potential is None or not (self.relax_steps or candidate.structure is None):
            return None
        unknown = unsupported_elements(self._calculator, list(candidate.composition))
        if unknown:
            raise OracleError(f"the potential {self.potential.name} does not cover {', '.join(unknown)}")
        return self._calculator

    @cached_property
    def _calculator(self) -> Calculator:
        assert self.potential is not None
        return load_calculator(self.potential)


def cell_of(candidate: CrystalCandidate, start: Start, *, seed: int) -> tuple[Atoms, dict[str, Any]]:
    """The cell of a crystal as it is described, and plain values that say how it came about.

    Args:
        candidate: The crystal.
        start: How it becomes atoms.
        seed: Of the draws of its sites, where it has no structure.

    Raises:
        OracleError: it can't be turned into atoms, or the potential lacks one of its elements.
    """
    calculator = start.potential_for(candidate)
    try:
        if calculator is None or not start.relax_steps:
            found = realise(candidate, n_trials=start.n_realisations, seed=seed, calculator=calculator)
            return found[0].atoms, {}
        with torch_threads(1):
            relaxed, how = realise_relaxed(
                candidate,
                calculator,
                seed=seed,
                n_trials=start.n_realisations,
                relaxation={"max_steps": start.relax_steps, "keep_symmetry": start.keep_symmetry},
            )
        return relaxed.atoms, how
    except RealisationError as error:
        raise OracleError(str(error).removesuffix(".")) from error


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
