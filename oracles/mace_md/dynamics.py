"""Molecular dynamics at constant temperature that can be killed at any instant and goes on bit for bit.

Velocity Verlet with stochastic velocity rescaling (Bussi, Donadio & Parrinello, J. Chem. Phys. 2007, 126, 014101): the
thermostat scales all momenta alike, so that it samples the canonical ensemble, keeps the centre of mass at rest and,
unlike friction on every atom, hardly slows diffusion.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from activelearning.crystals.realise import distance_ratio
from activelearning.errors import ActiveLearningError
from oracles.mace_md.protocol import Protocol

Array = NDArray[np.float64]

MIN_DISTANCE_RATIO = 0.35  # of the sum of covalent radii; closer, the potential has no meaning


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


@dataclass
class Run:
    """The state of a run; with the masses, the cell and the potential it fixes all that follows.

    Attributes:
        atoms: Numbers, masses and cell; its positions are those of the start.
        step: Steps done, equilibration included.
        positions: Unwrapped, `N x 3`, Å.
        momenta: `N x 3`, ASE's unit.
        rng: Source of the thermostat's noise.
        frames: Samples of the production run so far (`N x 3` each), its start first.
        temperature_sum: Sum of temperatures over the production run's steps, K.
        energies: Potential energy at the first and at the latest sample, eV.
        info: Plain values that travel with the run.
    """

    atoms: Atoms
    step: int
    positions: Array
    momenta: Array
    rng: np.random.Generator
    frames: list[Array] = field(default_factory=list)
    temperature_sum: float = 0.0
    energies: tuple[float, float] = (0.0, 0.0)
    info: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(cls, atoms: Atoms, temperature: float, seed: int, info: dict[str, Any]) -> Run:
        """A run at step 0: Maxwell-Boltzmann momenta of exactly the temperature, the centre of mass at rest."""
        rng = np.random.default_rng(seed)
        masses = atoms.get_masses()
        momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * units.kB * temperature)[:, None]
        momenta -= masses[:, None] * momenta.sum(axis=0) / masses.sum()
        target = 0.5 * degrees_of_freedom(len(atoms)) * units.kB * temperature
        momenta *= math.sqrt(target / kinetic_energy(momenta, masses))
        return cls(atoms, 0, atoms.positions.copy(), momenta, rng, info=info)


def degrees_of_freedom(n_atoms: int) -> int:
    """Degrees of freedom of momenta whose sum is zero."""
    return 3 * n_atoms - 3


def advance(
    run: Run,
    calculator: Calculator,
    protocol: Protocol,
    *,
    checkpoint: Callable[[Run], None] | None = None,
    checkpoint_every: int = 500,
) -> None:
    """Carry a run on to its end, in place.

    Args:
        run: The run.
        calculator: The potential; its forces must depend on the positions alone.
        protocol: Step, temperature and lengths.
        checkpoint: Called with the run every `checkpoint_every` steps, between steps.
        checkpoint_every: In steps.

    Raises:
        SimulationError: the temperature ran away, atoms collided or the potential failed.
    """
    atoms = run.atoms.copy()
    atoms.positions = run.positions
    atoms.calc = calculator
    masses = atoms.get_masses()
    inverse = 1.0 / masses[:, None]
    dt = protocol.timestep_fs * units.fs
    ratio = protocol.timestep_fs / protocol.thermostat_time_fs
    n_dof = degrees_of_freedom(len(atoms))
    target = 0.5 * n_dof * units.kB * protocol.temperature
    limit = protocol.max_temperature_ratio * target

    energy, forces = energy_and_forces(atoms)
    n_steps = protocol.n_equilibration + protocol.n_production
    while run.step < n_steps:
        run.step += 1
        if run.step == protocol.n_equilibration + 1:
            run.frames = [run.positions.copy()]
            run.energies = (energy, energy)
        half = run.momenta + 0.5 * dt * forces
        run.positions = run.positions + dt * half * inverse
        atoms.positions = run.positions
        energy, forces = energy_and_forces(atoms)
        run.momenta = half + 0.5 * dt * forces
        kinetic = kinetic_energy(run.momenta, masses)
        if not kinetic < limit:
            raise SimulationError(
                f"unstable: {2 * kinetic / (n_dof * units.kB):.0f} K after {run.step} steps "
                f"at {protocol.temperature:g} K"
            )
        factor = rescaling(kinetic, target, n_dof, ratio, run.rng)
        run.momenta *= factor

        done = run.step - protocol.n_equilibration
        if done > 0:
            run.temperature_sum += 2.0 * kinetic * factor**2 / (n_dof * units.kB)
            if done % protocol.sample_every == 0:
                run.frames.append(run.positions.copy())
                run.energies = (run.energies[0], energy)
        if run.step % 50 == 0 and distance_ratio(atoms) < MIN_DISTANCE_RATIO:
            raise SimulationError(f"unstable: atoms on top of each other after {run.step} steps")
        if checkpoint is not None and run.step % checkpoint_every == 0:
            checkpoint(run)


class CheckpointFolder:
    """A run on disk: a small file of state replaced atomically, and a file of samples that only grows.

    Samples beyond those that the state counts were written by a process that died before it replaced the state; they
    are cut off when the run is taken up again.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        self._state = folder / "checkpoint.npz"
        self._samples = folder / "samples.f64"

    def save(self, run: Run) -> None:
        """Make the run durable."""
        self._folder.mkdir(parents=True, exist_ok=True)
        size = run.positions.nbytes
        on_disk = self._samples.stat().st_size // size if self._samples.exists() else 0
        with open(self._samples, "r+b" if self._samples.exists() else "w+b") as file:
            file.truncate(on_disk * size)
            file.seek(on_disk * size)
            for frame in run.frames[on_disk:]:
                file.write(np.ascontiguousarray(frame).tobytes())
            file.flush()
            os.fsync(file.fileno())
        plain = {
            "fingerprint": self._fingerprint,
            "step": run.step,
            "n_frames": len(run.frames),
            "temperature_sum": run.temperature_sum.hex(),
            "energies": [energy.hex() for energy in run.energies],
            "rng": run.rng.bit_generator.state,
            "info": run.info,
        }
        partial = self._state.with_suffix(".partial")
        with open(partial, "wb") as file:
            np.savez(
                file,
                plain=np.array(json.dumps(plain)),
                numbers=run.atoms.numbers,
                cell=run.atoms.cell.array,
                start=run.atoms.positions,
                positions=run.positions,
                momenta=run.momenta,
            )
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._state)

    def load(self) -> Run | None:
        """The run as last saved; None where there is none, or one of other parameters, whose files are removed."""
        if not self._state.exists():
            self.clear()
            return None
        with np.load(self._state, allow_pickle=False) as content:
            plain = json.loads(str(content["plain"]))
            if plain["fingerprint"] != self._fingerprint:
                self.clear()
                return None
            atoms = Atoms(
                numbers=content["numbers"], positions=content["start"], cell=content["cell"], pbc=True
            )
            positions, momenta = content["positions"], content["momenta"]
        rng = np.random.default_rng()
        rng.bit_generator.state = plain["rng"]
        n_frames = plain["n_frames"]
        frames: list[Array] = []
        if n_frames:
            with open(self._samples, "r+b") as file:
                file.truncate(n_frames * positions.nbytes)
                stored = np.fromfile(file, dtype=np.float64, count=n_frames * positions.size)
            frames = list(stored.reshape(n_frames, *positions.shape))
        else:
            self._samples.unlink(missing_ok=True)
        first, latest = (float.fromhex(text) for text in plain["energies"])
        return Run(
            atoms=atoms,
            step=plain["step"],
            positions=positions,
            momenta=momenta,
            rng=rng,
            frames=frames,
            temperature_sum=float.fromhex(plain["temperature_sum"]),
            energies=(first, latest),
            info=plain["info"],
        )

    def clear(self) -> None:
        """Remove the run's files."""
        for path in (self._state, self._samples, self._state.with_suffix(".partial")):
            path.unlink(missing_ok=True)
