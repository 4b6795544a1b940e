"""What a job runs: a calculator from `job.json`, an energy, a relaxation or dynamics, `result.json` at the end.

This file is copied beside each `job.json` (with `oracles/dynamics/motion.py`, where atoms are to move) and run there by
the engine's own Python, so it imports nothing but the standard library, numpy and ASE (and, through ASE, the engine).
It is started as

    python runner.py ATTEMPT                              # or, in parallel,
    mpiexec -n N python -m gpaw python runner.py ATTEMPT  # and likewise of other packages

and exits with 0 where `result.json` says what came out, be it an energy or an error of the calculation, with
`TROUBLE_OF_THE_NODE` where a disk or a network was at fault, and else with what Python or a signal makes of it. Under
MPI only the first process writes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

JOB, RESULT, RESTART, HEARTBEAT = "job.json", "result.json", "restart.json", "heartbeat"
FINAL = "final.extxyz"
MOTION = "motion"  # the module of molecular dynamics, by the name that it has beside this file
HEARTBEAT_SECONDS = 10.0
TROUBLE_OF_THE_NODE = 75  # sysexits' EX_TEMPFAIL
DUPLICATE = 97  # exit code of a job whose attempt, or a later one, is another job's


def write_json(path: Path, value: Any) -> None:
    """Write at once or not at all: a reader never sees half a file, nor one that a lost node takes back."""
    waiting = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")
    with waiting.open("w", encoding="utf-8") as file:
        json.dump(value, file, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    waiting.replace(path)


def read_json(path: Path) -> Any:
    """The value of a JSON file, None where there is no file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def build(value: Any) -> Any:
    """Make what JSON describes: `{"class": "module:Name", "params": {...}}` is a call, anywhere within.

    Lists, mappings and plain values stay what they are.
    """
    if isinstance(value, list):
        return [build(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"class", "params"}:
        module, _, name = value["class"].partition(":")
        return getattr(importlib.import_module(module), name)(**build(value["params"]))
    return {key: build(item) for key, item in value.items()}


def make_atoms(value: Mapping[str, Any]) -> Any:
    """ASE's atoms from their JSON: numbers, positions (`n x 3`, Å), cell (`3 x 3`, Å), pbc, magmoms (μB)."""
    from ase import Atoms

    return Atoms(
        numbers=value["numbers"],
        positions=value["positions"],
        cell=value["cell"],
        pbc=value["pbc"],
        magmoms=value.get("magmoms"),
    )


def atoms_json(atoms: Any) -> dict[str, Any]:
    """The JSON that `make_atoms` reads."""
    moments = atoms.get_initial_magnetic_moments()
    return {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "magmoms": moments.tolist() if moments.any() else None,
    }


@contextlib.contextmanager
def beating(path: Path, attempt: int, begin: float) -> Iterator[None]:
    """Tell, at once and every few seconds, that the job is alive and for how long it has been.

    Args:
        path: Of the file that tells.
        attempt: Number of this attempt.
        begin: When it began, by `time.monotonic`.
    """
    end = threading.Event()

    def beat() -> None:
        with contextlib.suppress(OSError):  # a full disk must not end what may still come out
            write_json(path, {"attempt": attempt, "seconds": time.monotonic() - begin})

    def go_on() -> None:
        while not end.wait(HEARTBEAT_SECONDS):
            beat()

    beat()
    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


class NotConvergedError(Exception):
    """A relaxation ran out of steps."""


def relax(
    atoms: Any, calculator: Any, settings: Mapping[str, Any], folder: Path, attempt: int, first: bool
) -> int:
    """Relax atoms in place, from the restart file where there is one; returns the steps taken by all attempts.

    Args:
        atoms: What to relax; positions, and the cell where `settings["cell"]`.
        calculator: For energy, forces and stress.
        settings: `cell`, `symmetry` (keep the space group), `fmax` (eV/Å; for the cell the generalised force of
            the deformation gradient's logarithm, by ASE's `FrechetCellFilter`) and `max_steps`.
        folder: Where the restart file is.
        attempt: Number of this attempt.
        first: Whether this process is the one that writes.

    Raises:
        NotConvergedError: forces are still above `fmax` after `max_steps`.
    """
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    done = 0
    if settings["symmetry"]:
        from ase.constraints import FixSymmetry

        # Of the structure that came in, not of a half-relaxed one: a restart keeps the same group.
        atoms.set_constraint(FixSymmetry(atoms, symprec=1e-3))
    saved = read_json(folder / RESTART)
    if saved is not None:
        atoms.set_cell(saved["cell"], apply_constraint=False)
        atoms.set_positions(saved["positions"], apply_constraint=False)
        done = saved["steps"]
    atoms.calc = calculator
    moving: Any = FrechetCellFilter(atoms) if settings["cell"] else atoms
    optimiser = BFGS(moving, logfile="-" if first else None)
    begun = done

    def keep() -> None:
        steps = begun + optimiser.nsteps
        if first and steps > begun:
            write_json(
                folder / RESTART,
                {
                    "attempt": attempt,
                    "steps": steps,
                    "cell": atoms.cell.array.tolist(),
                    "positions": atoms.positions.tolist(),
                },
            )

    optimiser.attach(keep)
    converged = optimiser.run(fmax=settings["fmax"], steps=max(settings["max_steps"] - begun, 0))
    atoms.set_constraint()
    steps = begun + int(optimiser.nsteps)
    if not converged:
        raise NotConvergedError(
            f"forces are still above {settings['fmax']:g} eV/Å after {steps} steps of relaxation"
        )
    return steps


def simulate(
    atoms: Any, calculator: Any, job: Mapping[str, Any], folder: Path, attempt: int, first: bool
) -> dict[str, Any]:
    """Molecular dynamics at constant temperature, from the last checkpoint where there is one; returns the result.

    The state holds positions, momenta and random numbers, and samples beyond it are cut off: with forces that depend on
    the positions alone, a run that was lost ends as one that was not. (Those of self-consistency, begun anew, differ
    within its tolerance.)

    Args:
        atoms: Where the run begins, with its initial magnetic moments.
        calculator: For energy and forces.
        job: With `key` and `dynamics`: `motion`, `until` (the last step), `checkpoint_every` (steps), `seed` and
            `info`, plain values that travel with the run.
        folder: Where checkpoint and samples are.
        attempt: Number of this attempt.
        first: Whether this process is the one that writes.
    """
    import numpy as np
    from ase.parallel import world

    settings = job["dynamics"]
    motion = importlib.import_module(MOTION)
    files = motion.RunFolder(folder, job["key"])
    pace = motion.Motion(**settings["motion"])
    run = files.load()
    world.barrier()  # no process writes before all have read
    if run is None:
        sequence = np.random.SeedSequence(settings["seed"])
        run = motion.Run.begin(atoms, pace.temperature, sequence, settings["info"])
    run.atoms.set_initial_magnetic_moments(atoms.get_initial_magnetic_moments())

    def keep(state: Any) -> None:
        if (folder / f"claim-{attempt + 1}").exists():
            # This job was given up for lost, and another goes on with its samples.
            print("a later attempt has taken over")
            sys.exit(DUPLICATE)
        if not first:
            state.pending = []
            return
        files.save(state)
        write_json(folder / RESTART, {"attempt": attempt, "steps": state.step})

    steps = motion.steps(
        run, pace, until=settings["until"], checkpoint=keep, checkpoint_every=settings["checkpoint_every"]
    )
    try:
        moved = next(steps, None)
        while moved is not None:
            moved.calc = calculator
            moved = steps.send(energy_and_forces(moved))
    except StopIteration:
        pass
    except motion.SimulationError as error:
        return {"steps": run.step, "unstable": str(error)}
    return {"steps": run.step}


def energy_and_forces(atoms: Any) -> tuple[float, Any]:
    """Energy (eV) and its negative gradient (eV/Å, `n x 3`).

    With smearing, that energy is the free energy of the electrons, and not the one extrapolated to no smearing.
    """
    import numpy as np
    from ase.calculators.calculator import PropertyNotImplementedError

    forces = np.asarray(atoms.get_forces(), dtype=np.float64)
    try:
        energy = float(atoms.get_potential_energy(force_consistent=True))
    except PropertyNotImplementedError:  # a potential knows of no electrons
        energy = float(atoms.get_potential_energy())
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise FloatingPointError("the energy or the forces are not finite")
    return energy, forces


def run(
    job: Mapping[str, Any], folder: Path, attempt: int, first: bool, stage: Callable[[str], None]
) -> dict[str, Any]:
    """Do the work of a job; returns its result, JSON."""
    import numpy as np

    atoms = make_atoms(job["atoms"])
    calculator = build(job["relaxation_calculator" if job["relaxation"] is not None else "calculator"])
    stage("calculation")
    if job.get("dynamics") is not None:
        return simulate(atoms, calculator, job, folder, attempt, first)
    steps, max_force = 0, None
    if job["relaxation"] is not None:
        steps = relax(atoms, calculator, job["relaxation"], folder, attempt, first)
        max_force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
        if job["relaxation"]["cell"]:
            # The basis was made for the cell at the start, and for stress; energies are compared in one that was made
            # for the cell at hand.
            calculator = build(job["calculator"])
    atoms.calc = calculator
    energy = float(atoms.get_potential_energy())
    if not np.isfinite(energy):
        raise FloatingPointError(f"the energy is {energy}")
    result: dict[str, Any] = {"energy": energy, "steps": steps, "atoms": atoms_json(atoms)}
    if atoms.get_initial_magnetic_moments().any():
        from ase.calculators.calculator import PropertyNotImplementedError

        with contextlib.suppress(PropertyNotImplementedError):  # potentials know of no moments
            result["magnetic_moment"] = float(atoms.get_magnetic_moment())
    if first and steps:
        from ase.io import write

        write(folder / FINAL, atoms, format="extxyz")
    if max_force is not None:
        result["max_force"] = max_force
    return result


def versions(modules: list[str]) -> dict[str, str]:
    """Versions of the engine's Python packages, which this imports."""
    found = {"python": platform.python_version()}
    for name in modules:
        found[name] = str(getattr(importlib.import_module(name), "__version__", "unknown"))
    return found


def load(job: Mapping[str, Any]) -> dict[str, str]:
    """Import the engine; returns the versions of its packages.

    This comes before a look at `ase.parallel.world`, which takes its communicator, once, from what is imported by then:
    of processes that have not imported GPAW or mpi4py each counts itself the first.
    """
    found = versions(job["modules"])
    for name in ("relaxation_calculator", "calculator"):
        importlib.import_module(job[name]["class"].partition(":")[0])
    return found


def _is_done(folder: Path) -> bool:
    result = read_json(folder / RESULT)
    return result is not None and result["state"] == "done"


@contextlib.contextmanager
def telling(facts: dict[str, Any], stage: list[str]) -> Iterator[None]:
    """Put an error of the calculation into the facts, with the stage that it came to."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, (FileNotFoundError, PermissionError)):
            raise  # nothing about the crystal
        traceback.print_exc()
        name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        message = str(error).strip()[-2000:]
        facts |= {"state": "failed", "stage": stage[-1], "type": name, "message": message}


def main(attempt: int, folder: Path) -> None:
    """Run the job of a folder."""
    job = read_json(folder / JOB)
    if _is_done(folder):
        print("done already, by another attempt")
        return
    begin, stage = time.monotonic(), ["set-up"]
    facts: dict[str, Any] = {"attempt": attempt}
    with telling(facts, stage):
        facts["versions"] = load(job)
    from ase.parallel import world

    first = world.rank == 0
    with beating(folder / HEARTBEAT, attempt, begin) if first else contextlib.nullcontext():
        if "state" not in facts:
            with telling(facts, stage):
                facts |= {"state": "done", **run(job, folder, attempt, first, stage.append)}
        # What another attempt has brought in the meantime stays.
        if first and not _is_done(folder):
            write_json(folder / RESULT, {**facts, "seconds": time.monotonic() - begin})


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), Path.cwd())
    except OSError:
        traceback.print_exc()
        sys.exit(TROUBLE_OF_THE_NODE)
