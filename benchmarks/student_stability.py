"""Dynamics of the shipped student that must not go astray: 20 ps at 1000 K, and the drift of the energy at 600 K.

    python benchmarks/student_stability.py

Ten crystals of lithium from published coordinates, their cells as they are, positions relaxed. At 1000 K with the
oracle's thermostat and 2 fs: a run fails where the temperature runs away or atoms collide. Then at 600 K without a
thermostat and 1 fs: the slope of the total energy. Writes `benchmarks/results/student_stability.json` and a table after
each crystal; what they hold of the same weights and times is not run again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.optimize import FIRE
from ase.spacegroup import crystal
from kept import keep_json

from oracles.dynamics.motion import Run, SimulationError, kinetic_energy
from oracles.mace_md import MaceMDOracle
from oracles.mace_md.dynamics import advance
from oracles.potentials import checksum, expected_force_errors, load_calculator
from oracles.potentials.student.structures import prototypes

RESULTS = Path(__file__).parent / "results"


def crystals() -> dict[str, Atoms]:
    """Ten crystals, 13 to 40 atoms each."""
    known = prototypes()
    found = {
        "LiF": bulk("LiF", "rocksalt", a=4.03, cubic=True).repeat((2, 1, 1)),
        "LiI": bulk("LiI", "rocksalt", a=6.00, cubic=True).repeat((2, 1, 1)),
        "Li2O": crystal(
            ["O", "Li"], basis=[(0, 0, 0), (0.25, 0.25, 0.25)], spacegroup=225, cellpar=[4.62] * 3 + [90] * 3
        ).repeat((2, 1, 1)),
        "Li2S": known["Li2S antifluorite"].repeat((2, 1, 1)),
        "Li3OCl": crystal(
            ["Li", "O", "Cl"],
            basis=[(0.5, 0.5, 0), (0.5, 0.5, 0.5), (0, 0, 0)],
            spacegroup=221,
            cellpar=[3.91] * 3 + [90] * 3,
        ).repeat((2, 2, 2)),
        # Rabenau & Schulz, J. Less-Common Met. 1976, 50, 155.
        "Li3N": crystal(
            ["N", "Li", "Li"],
            basis=[(0, 0, 0), (0, 0, 0.5), (1 / 3, 2 / 3, 0)],
            spacegroup=191,
            cellpar=[3.648, 3.648, 3.875, 90, 90, 120],
        ).repeat((2, 2, 2)),
        # Marezio, Acta Cryst. 1965, 19, 396.
        "γ-LiAlO2": crystal(
            ["Al", "Li", "O"],
            basis=[(0.1759, 0.1759, 0), (0.8126, 0.8126, 0), (0.3369, 0.2906, 0.7723)],
            spacegroup=92,
            cellpar=[5.169, 5.169, 6.268, 90, 90, 90],
        ),
        # The layered type of Asano et al., Adv. Mater. 2018, 30, 1803075, idealised.
        "Li3InCl6": crystal(
            ["In", "Li", "Li", "Cl", "Cl"],
            basis=[(0, 0, 0), (0, 1 / 3, 0), (0, 0.5, 0.5), (0.25, 0, 0.76), (0.25, 0.16, 0.24)],
            spacegroup=12,
            cellpar=[6.41, 11.06, 6.39, 90, 109.8, 90],
        ),
        "γ-Li3PS4": known["γ-Li3PS4"],
        "Li6PS5Cl": known["Li6PS5Cl"],
    }
    return {
        name: Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
        for name, atoms in found.items()
    }


def hot(atoms: Atoms, calculator: Calculator, time_ps: float) -> dict[str, Any]:
    """Dynamics at 1000 K: the reason of a failure or none, mean temperature, the highest expected error of forces."""
    protocol = MaceMDOracle(
        temperature=1000.0, time_ps=time_ps, timestep_fs=2.0, equilibration_ps=0.5
    ).protocol
    run = Run.begin(atoms, 1000.0, 0, {})
    expected, temperatures = [], []

    def measure(state: Run, temperature: float) -> None:
        if state.step > protocol.n_equilibration:
            temperatures.append(temperature)

    def watch(state: Run) -> None:
        copy = atoms.copy()
        copy.positions = state.positions
        estimate = expected_force_errors(calculator, copy)
        assert estimate is not None
        expected.append(estimate.mean)

    started = time.process_time()
    watch(run)
    try:
        until = protocol.n_equilibration + round(1000.0 * time_ps / protocol.timestep_fs)
        advance(
            run, calculator, protocol, until=until, checkpoint=watch, checkpoint_every=250, progress=measure
        )
        reason = None
    except SimulationError as error:
        reason = str(error)
    return {
        "failure": reason,
        "steps": run.step,
        "temperature, K": float(np.mean(temperatures)) if temperatures else None,
        "expected force error, mean, eV/Å": float(np.mean(expected)),
        "expected force error, highest, eV/Å": float(np.max(expected)),
        "ms a step": 1e3 * (time.process_time() - started) / run.step,
    }


def drift(atoms: Atoms, calculator: Calculator, time_ps: float) -> float:
    """Slope of the total energy without a thermostat at 600 K and 1 fs, meV per atom and ps."""
    protocol = MaceMDOracle(
        temperature=600.0, time_ps=time_ps, timestep_fs=1.0, equilibration_ps=0.0, thermostat_time_fs=1e12
    ).protocol
    run = Run.begin(atoms, 1200.0, 0, {})  # half of it goes into the springs
    times, totals = [], []

    def watch(state: Run) -> None:
        copy = atoms.copy()
        copy.positions = state.positions
        times.append(state.step * 1e-3)
        totals.append(
            calculator.get_potential_energy(copy) + kinetic_energy(state.momenta, copy.get_masses())
        )

    until = round(1000.0 * time_ps / protocol.timestep_fs)
    advance(run, calculator, protocol, until=until, checkpoint=watch, checkpoint_every=20)
    return float(1e3 * np.polyfit(times, np.array(totals) / len(atoms), 1)[0])


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def examine(job: tuple[str, float, float]) -> dict[str, Any]:
    """Both runs of one crystal."""
    name, time_ps, drift_ps = job
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    calculator = load_calculator("mace:student")
    atoms = crystals()[name]
    atoms.calc = calculator
    FIRE(atoms, logfile=None).run(fmax=0.05, steps=100)
    row = {"crystal": name, "n_atoms": len(atoms), **hot(atoms, calculator, time_ps)}
    return row | {"drift, meV/atom/ps": drift(atoms, calculator, drift_ps)}


def main() -> None:
    """Examine the crystals that have not been with these weights, and write the table after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--time-ps", type=float, default=20.0)
    parser.add_argument("--drift-ps", type=float, default=4.0)
    parser.add_argument("--only", help="crystals whose name holds this")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    path = RESULTS / "student_stability.json"
    protocol = {
        "weights": checksum("mace:student"),
        "time_ps": arguments.time_ps,
        "drift_ps": arguments.drift_ps,
    }
    rows: list[dict[str, Any]] = []
    if path.exists():
        kept = json.loads(path.read_text())
        rows = kept["crystals"] if protocol.items() <= kept.items() else []
    names = list(crystals())
    missing = [
        (name, arguments.time_ps, arguments.drift_ps)
        for name in names
        if (arguments.only or "") in name and name not in {row["crystal"] for row in rows}
    ]
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for row in pool.imap_unordered(examine, missing):
            print(json.dumps(row, ensure_ascii=False), flush=True)
            rows = sorted([*rows, row], key=lambda row: names.index(row["crystal"]))
            write(protocol, rows, path)


def write(protocol: dict[str, Any], rows: list[dict[str, Any]], path: Path) -> None:
    """All numbers, and the table beside them."""
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread each, shared with other work",
        **protocol,
        "crystals": rows,
    }
    keep_json(path, result)
    lines = [
        f"{protocol['time_ps']:g} ps of mace:student at 1000 K and 2 fs, and the drift of its total energy at 600 K "
        f"and 1 fs over {protocol['drift_ps']:g} ps, {result['date']}, {result['machine']}.",
        "",
        "| crystal | atoms | 1000 K | mean T (K) | force error expected, and at most (meV/Å) | drift (meV/atom/ps) "
        "| CPU ms a step |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        mean, highest = (1e3 * row[f"expected force error, {what}, eV/Å"] for what in ("mean", "highest"))
        lines.append(
            f"| {row['crystal']} | {row['n_atoms']} | {row['failure'] or 'stable'} | {_whole(row['temperature, K'])} | "
            f"{mean:.0f}, {highest:.0f} | {row['drift, meV/atom/ps']:.2f} | {row['ms a step']:.1f} |"
        )
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
