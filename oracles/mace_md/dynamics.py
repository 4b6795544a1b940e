"""Molecular dynamics at constant temperature that can be killed at any instant and goes on bit for bit.

Velocity Verlet with stochastic velocity rescaling (Bussi, Donadio & Parrinello, J. Chem. Phys. 2007, 126, 014101): the
thermostat scales all momenta alike, so that it samples the canonical ensemble, keeps the centre of mass at rest and,
unlike friction on every atom, hardly slows diffusion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from activelearning.crystals.distances import COLLAPSED
from activelearning.crystals.realise import distance_ratio
from activelearning.errors import ActiveLearningError
from oracles.mace_md.protocol import Protocol

Array = NDArray[np.float64]

LOOK_EVERY = 50  # steps between looks for atoms on top of each other


class SimulationError(ActiveLearningError):
    """The atoms or the potential went where no crystal goes; the message says how."""


def energy_and_forces(atoms: Atoms) -> tuple[float, Array]:
    """Potential energy (eV) and forces (eV/Å, `N x 3`) of atoms with a calculator.

    Raises:
        SimulationError: the potential fails or is not finite.
    """
    try:
        forces = np.asarray(atoms.get_forces(), dtype=np.float64)
        energy = float(atoms.get_potential_energy())
    except (RuntimeError, ValueError, ArithmeticError, IndexError) as error:
        raise SimulationError(f"the potential fails: {error}") from error
    if not (math.isfinite(energy) and np.isfinite(forces).all()):
        raise SimulationError("the potential's energy or forces are not finite")
    return energy, forces


def kinetic_energy(momenta: Array, masses: Array) -> float:
    """Kinetic energy, eV, of `N x 3` momenta in ASE's unit."""
    return float(0.5 * (momenta**2 / masses[:, None]).sum())


def rescaling(kinetic: float, target: float, n_dof: int, ratio: float, rng: np.random.Generator) -> float:
    """Factor for all momenta in one step of stochastic velocity rescaling.

    Args:
        kinetic: Kinetic energy now.
        target: Mean kinetic energy wanted, n_dof k_B T / 2.
        n_dof: Degrees of freedom.
        ratio: Time step over the thermostat's relaxation time.
        rng: Source of the noise.
    """
    decay = math.exp(-ratio)
    first = float(rng.standard_normal())
    others = 2.0 * float(rng.standard_gamma((n_dof - 1) / 2.0))  # sum of n_dof - 1 squared normals
    share = target / (n_dof * kinetic) * (1.0 - decay)
    return math.sqrt(decay + share * (first**2 + others) + 2.0 * first * math.sqrt(decay * share))


class Sample(NamedTuple):
    """What is kept of one instant of the production run.

    Attributes:
        positions: Unwrapped, `N x 3`, Å, single precision.
        potential: Potential energy, eV.
        total: Potential and kinetic energy less the heat from the thermostat, eV; constant in exact dynamics.
        temperature: K.
    """

    positions: NDArray[np.float32]
    potential: float
    total: float
    temperature: float


@dataclass
class Run:
    """The state of a run; with the masses, the cell and the potential it fixes all that follows.

    Attributes:
        atoms: Numbers, masses and cell; its positions are those of the start.
        step: Steps done, equilibration included.
        positions: Unwrapped, `N x 3`, Å.
        momenta: `N x 3`, ASE's unit.
        rng: Source of the thermostat's noise.
        heat: Energy that the thermostat has put in, eV.
        n_samples: Samples taken so far.
        pending: Samples taken and not yet on disk, the latest last.
        info: Plain values that travel with the run.
    """

    atoms: Atoms
    step: int
    positions: Array
    momenta: Array
    rng: np.random.Generator
    heat: float = 0.0
    n_samples: int = 0
    pending: list[Sample] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(
        cls, atoms: Atoms, temperature: float, seed: int | np.random.SeedSequence, info: dict[str, Any]
    ) -> Run:
        """A run at step 0: Maxwell-Boltzmann momenta of exactly the temperature, the centre of mass at rest."""
        rng = np.random.default_rng(seed)
        masses = atoms.get_masses()
        momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * units.kB * temperature)[:, None]
        momenta -= masses[:, None] * momenta.sum(axis=0) / masses.sum()
        target = 0.5 * degrees_of_freedom(len(atoms)) * units.kB * temperature
        momenta *= math.sqrt(target / kinetic_energy(momenta, masses))
        return cls(atoms, 0, atoms.positions.copy(), momenta, rng, info=info)

    def sample(self, potential: float, kinetic: float) -> None:
        """Keep this instant."""
        temperature = 2.0 * kinetic / (degrees_of_freedom(len(self.atoms)) * units.kB)
        total = potential + kinetic - self.heat
        self.pending.append(Sample(self.positions.astype(np.float32), potential, total, temperature))
        self.n_samples += 1


def degrees_of_freedom(n_atoms: int) -> int:
    """Degrees of freedom of momenta whose sum is zero."""
    return 3 * n_atoms - 3


# Dynamics hand out atoms and are handed energy (eV) and forces (eV/Å): who computes them, for one run or for several
# together, is not their business. `T` is what they return at their end.
T = TypeVar("T")
Dynamics = Generator[Atoms, tuple[float, Array], T]


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
    drive(steps(run, protocol, **options), calculator)


def steps(
    run: Run,
    protocol: Protocol,
    *,
    until: int,
    checkpoint: Callable[[Run], None] | None = None,
    checkpoint_every: int = 500,
    progress: Callable[[Run, float], None] | None = None,
) -> Dynamics[None]:
    """Carry a run on to a step, in place.

    The forces that are handed in must depend on the positions alone.

    Args:
        run: The run.
        protocol: Step, temperature and equilibration.
        until: The last step.
        checkpoint: Called with the run every `checkpoint_every` steps, between steps, and at the end.
        checkpoint_every: In steps.
        progress: Called with the run and its temperature (K) at every sample, during equilibration too.

    Raises:
        SimulationError: the temperature ran away, atoms collided or the potential failed.
    """
    if run.step >= until:
        return
    atoms = run.atoms.copy()
    atoms.positions = run.positions
    masses = atoms.get_masses()
    inverse = 1.0 / masses[:, None]
    dt = protocol.timestep_fs * units.fs
    ratio = protocol.timestep_fs / protocol.thermostat_time_fs
    n_dof = degrees_of_freedom(len(atoms))
    target = 0.5 * n_dof * units.kB * protocol.temperature
    limit = protocol.max_temperature_ratio * target

    energy, forces = yield atoms
    while run.step < until:
        if run.step == protocol.n_equilibration and run.n_samples == 0:
            run.heat = 0.0
            run.sample(energy, kinetic_energy(run.momenta, masses))
        run.step += 1
        half = run.momenta + 0.5 * dt * forces
        run.positions = run.positions + dt * half * inverse
        atoms.positions = run.positions
        energy, forces = yield atoms
        run.momenta = half + 0.5 * dt * forces
        kinetic = kinetic_energy(run.momenta, masses)
        if not kinetic < limit:
            raise SimulationError(
                f"unstable: {2 * kinetic / (n_dof * units.kB):.0f} K after {run.step} steps "
                f"at {protocol.temperature:g} K"
            )
        factor = rescaling(kinetic, target, n_dof, ratio, run.rng)
        run.momenta *= factor
        rescaled = kinetic * factor**2
        run.heat += rescaled - kinetic

        done = run.step - protocol.n_equilibration
        if done % protocol.sample_every == 0:
            if done > 0:
                run.sample(energy, rescaled)
            if progress is not None:
                progress(run, 2.0 * rescaled / (n_dof * units.kB))
        if run.step % LOOK_EVERY == 0 and distance_ratio(atoms) < COLLAPSED:
            raise SimulationError(
                f"unstable: atoms on top of each other after {run.step} steps at {protocol.temperature:g} K"
            )
        if checkpoint is not None and (run.step % checkpoint_every == 0 or run.step == until):
            checkpoint(run)
