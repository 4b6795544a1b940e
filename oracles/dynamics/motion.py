"""Molecular dynamics at constant temperature that can be killed at any instant and goes on bit for bit.

Velocity Verlet with stochastic velocity rescaling (Bussi, Donadio & Parrinello, J. Chem. Phys. 2007, 126, 014101): the
thermostat scales all momenta alike, so that it samples the canonical ensemble, keeps the centre of mass at rest and,
unlike friction on every atom, hardly slows diffusion.

On disk a run is a small file of state replaced atomically, and files of samples that only grow. Samples go there with
every checkpoint, so that the memory of the dynamics does not grow with the run; what reads them in between
(`oracles.dynamics.reading`) does need memory for the positions of ions and molecules. Samples beyond what the state
counts were written by a process that died before it replaced the state; they are cut off when the run goes on.
Where there are fewer than the state counts, files were damaged, and the run is begun anew. Where they grow fewer while
the run goes on, another process is at it: one that lost its claim to the evaluation and has finished it nevertheless.

This file is copied into jobs that run without this package (see `oracles.dft.runner`), so it imports nothing but the
standard library, numpy and ASE.
"""

from __future__ import annotations

import json
import logging
import math
import os
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

Array = NDArray[np.float64]

_log = logging.getLogger(__name__)

LOOK_EVERY = 50  # steps between looks for atoms on top of each other
N_OBSERVABLES = 3  # potential and total energy (eV), temperature (K)


class SimulationError(Exception):
    """The atoms or the potential went where no crystal goes; the message says how."""


class SamplesLostError(Exception):
    """Another process removed or cut a run's samples: nothing of the run can be relied on any more."""


@dataclass(frozen=True)
class Motion:
    """Everything that shapes a trajectory but its start and its forces.

    Attributes:
        temperature: K.
        timestep_fs: fs.
        thermostat_time_fs: Relaxation time of the velocity rescaling, fs.
        n_equilibration: Steps before the first sample.
        sample_every: Steps from one sample to the next.
        max_temperature_ratio: Temperature over the one wanted at which the run counts as unstable.
        min_distance_ratio: Distance over the sum of covalent radii below which atoms are on top of each other.
    """

    temperature: float
    timestep_fs: float
    thermostat_time_fs: float
    n_equilibration: int
    sample_every: int
    max_temperature_ratio: float
    min_distance_ratio: float


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


def steps(
    run: Run,
    motion: Motion,
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
        motion: Step, temperature and equilibration.
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
    dt = motion.timestep_fs * units.fs
    ratio = motion.timestep_fs / motion.thermostat_time_fs
    n_dof = degrees_of_freedom(len(atoms))
    target = 0.5 * n_dof * units.kB * motion.temperature
    limit = motion.max_temperature_ratio * target

    energy, forces = yield atoms
    while run.step < until:
        if run.step == motion.n_equilibration and run.n_samples == 0:
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
                f"at {motion.temperature:g} K"
            )
        factor = rescaling(kinetic, target, n_dof, ratio, run.rng)
        run.momenta *= factor
        rescaled = kinetic * factor**2
        run.heat += rescaled - kinetic

        done = run.step - motion.n_equilibration
        if done % motion.sample_every == 0:
            if done > 0:
                run.sample(energy, rescaled)
            if progress is not None:
                progress(run, 2.0 * rescaled / (n_dof * units.kB))
        if run.step % LOOK_EVERY == 0 and _collide(atoms, motion.min_distance_ratio):
            raise SimulationError(
                f"unstable: atoms on top of each other after {run.step} steps at {motion.temperature:g} K"
            )
        if checkpoint is not None and (run.step % checkpoint_every == 0 or run.step == until):
            checkpoint(run)


def _collide(atoms: Atoms, ratio: float) -> bool:
    """Whether two atoms, images included, are closer than so many times the sum of their covalent radii."""
    return len(neighbor_list("i", atoms, cutoff=ratio * covalent_radii[atoms.numbers])) > 0


def durable(path: Path, **arrays: NDArray[np.generic]) -> None:
    """Write arrays as `.npz`, in place of an earlier file only once they are on disk."""
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of another once all is written; its folder is made.

    It has a name of its own: two processes may be at one evaluation, after a claim is taken over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file written by `replacing`, and what killed processes left of it."""
    for file in (path, *path.parent.glob(f"{path.name}.*.partial")):
        file.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """See the names in a folder on disk: without that a renamed file may have its old content after a power cut."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError:  # nor do all file systems know how to do this
        pass
    finally:
        os.close(descriptor)


class RunFolder:
    """The files of one run.

    Args:
        folder: Where they are, made on demand.
        fingerprint: Of all that the run depends on; a run of another one is not taken up.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        self._state = folder / "checkpoint.npz"
        self._positions = folder / "positions.f32"
        self._observables = folder / "observables.f64"

    def save(self, run: Run) -> None:
        """Make the run durable, and forget its samples, which are then on disk.

        Raises:
            SamplesLostError: samples saved earlier are gone, or another process removes what is written now.
        """
        self._state.parent.mkdir(parents=True, exist_ok=True)
        n_saved = run.n_samples - len(run.pending)
        positions = b"".join(np.ascontiguousarray(s.positions).tobytes() for s in run.pending)
        observables = np.array(
            [(s.potential, s.total, s.temperature) for s in run.pending], dtype=np.float64
        ).tobytes()
        _append(self._positions, n_saved * run.positions.size * 4, positions)
        _append(self._observables, n_saved * N_OBSERVABLES * 8, observables)
        plain = {
            "fingerprint": self._fingerprint,
            "step": run.step,
            "n_samples": run.n_samples,
            "heat": run.heat.hex(),
            "rng": run.rng.bit_generator.state,
            "info": run.info,
        }
        try:
            durable(
                self._state,
                plain=np.array(json.dumps(plain)),
                numbers=run.atoms.numbers,
                cell=run.atoms.cell.array,
                start=run.atoms.positions,
                positions=run.positions,
                momenta=run.momenta,
            )
        except FileNotFoundError as error:
            raise SamplesLostError(str(error)) from error
        run.pending = []

    def load(self) -> Run | None:
        """The run as last saved.

        Returns:
            None where there is none, where it is one of other parameters, whose files are removed, or where samples
            that it counts are missing. What is left of those stays until the run is saved.
        """
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
        if self._are_samples_short(plain["n_samples"], len(atoms)):
            _log.warning(
                "%s counts %d samples, and the files beside it hold fewer; it is not taken up",
                self._state,
                plain["n_samples"],
            )
            return None
        rng = np.random.default_rng()
        rng.bit_generator.state = plain["rng"]
        return Run(
            atoms=atoms,
            step=plain["step"],
            positions=positions,
            momenta=momenta,
            rng=rng,
            heat=float.fromhex(plain["heat"]),
            n_samples=plain["n_samples"],
            info=plain["info"],
        )

    def _are_samples_short(self, n_samples: int, n_atoms: int) -> bool:
        wanted = {self._positions: n_atoms * 3 * 4, self._observables: N_OBSERVABLES * 8}
        sizes = {path: path.stat().st_size if path.exists() else 0 for path in wanted}
        return any(sizes[path] < n_samples * size for path, size in wanted.items())

    def frames(self, run: Run) -> NDArray[np.float32]:
        """Samples of a saved run's positions, `T x N x 3`, Å, as a read-only memory map."""
        shape = (run.n_samples, len(run.atoms), 3)
        return np.memmap(self._positions, dtype=np.float32, mode="r", shape=shape)

    def observables(self, run: Run) -> Array:
        """Potential and total energy (eV) and temperature (K) of a saved run's samples, `T x 3`."""
        n = run.n_samples * N_OBSERVABLES
        return np.fromfile(self._observables, dtype=np.float64, count=n).reshape(-1, N_OBSERVABLES)

    def clear(self) -> None:
        """Remove the run's files."""
        remove(self._state)
        for path in (self._positions, self._observables):
            path.unlink(missing_ok=True)


def _append(path: Path, offset: int, data: bytes) -> None:
    """Put data at an offset, cut off what is beyond, and see it on disk."""
    with open(path, "r+b" if path.exists() else "w+b") as file:
        if file.seek(0, os.SEEK_END) < offset:  # or the gap would be read as zeros
            raise SamplesLostError(f"{path} holds fewer than the {offset} bytes written to it")
        file.seek(offset)
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
