"""Dynamics carried on with a potential: one calculator, one run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from activelearning.errors import is_machine_trouble
from oracles.dynamics.motion import Array, Dynamics, Run, SimulationError, T, steps
from oracles.mace_md.protocol import Protocol
from oracles.potentials.mace_model import MaceCalculator


def energy_and_forces(atoms: Atoms) -> tuple[float, Array]:
    """Potential energy (eV) and forces (eV/Å, `N x 3`) of atoms with a calculator.

    Raises:
        SimulationError: the potential fails or is not finite. (Trouble of the machine, such as no memory, is raised as
            it is: it says nothing of the crystal.)
    """
    try:
        if isinstance(atoms.calc, MaceCalculator):
            # ASE would compare the atoms with the last ones, and copy them.
            (found,) = atoms.calc.evaluate([atoms])
            energy, forces = found.energy, found.forces
        else:
            forces = np.asarray(atoms.get_forces(), dtype=np.float64)
            energy = float(atoms.get_potential_energy())
    except (RuntimeError, ValueError, ArithmeticError, IndexError) as error:
        if is_machine_trouble(error):
            raise
        raise SimulationError(f"the potential fails: {error}") from error
    if not (math.isfinite(energy) and np.isfinite(forces).all()):
        raise SimulationError("the potential's energy or forces are not finite")
    return energy, forces


def drive(dynamics: Dynamics[T], calculator: Calculator) -> T:
    """Carry dynamics to their end with one calculator; what fails there is raised within them."""
    try:
        atoms = next(dynamics)
        while True:
            atoms.calc = calculator
            try:
                found = energy_and_forces(atoms)
            except SimulationError as error:
                atoms = dynamics.throw(error)
            else:
                atoms = dynamics.send(found)
    except StopIteration as end:
        result: T = end.value
        return result


def advance(run: Run, calculator: Calculator, protocol: Protocol, **options: Any) -> None:
    """Carry a run on to a step, in place, with one calculator; see `steps` for the options."""
    drive(steps(run, protocol.motion, **options), calculator)
