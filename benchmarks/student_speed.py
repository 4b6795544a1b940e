"""Time of one evaluation of the shipped student against its teacher's, on one thread, in one run.

    python benchmarks/student_speed.py

Energies, forces and stress of rattled cells; the atoms move before each call, so that nothing is remembered. The two
take turns, so that other work on the machine slows both alike. Writes `benchmarks/results/student_speed.json` and a
table beside it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import time
import warnings
from pathlib import Path

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.spacegroup import crystal

from oracles.potentials import expected_force_errors, load_calculator
from oracles.potentials.student.structures import argyrodite

RESULTS = Path(__file__).parent / "results"


def beta_li3ps4(n_cells: int = 3) -> Atoms:
    """β-Li3PS4, Pnma, 32 atoms a cell, cells in a row along c, with lithium on the sites 8d and 4b.

    Sites of Homma et al., Solid State Ionics 2011, 182, 53; Li2's 4b is taken as full and Li3's 4c as empty, which
    keeps three lithium atoms for each phosphorus.
    """
    cell = crystal(
        ["Li", "Li", "P", "S", "S", "S"],
        basis=[
            (0.332, 0.031, 0.383),
            (0.0, 0.0, 0.5),
            (0.089, 0.25, 0.316),
            (0.156, 0.030, 0.263),
            (0.102, 0.25, 0.651),
            (0.940, 0.25, 0.274),
        ],
        spacegroup=62,
        cellpar=[12.82, 8.22, 6.12, 90, 90, 90],
    )
    atoms = Atoms(cell.numbers, positions=cell.positions, cell=cell.cell, pbc=True)
    return atoms.repeat((1, 1, n_cells))


def seconds(calculator: Calculator, atoms: Atoms, *, with_estimate: bool = False) -> float:
    """CPU seconds of one call on atoms that have moved."""
    started = time.process_time()
    calculator.get_forces(atoms)
    if with_estimate:
        expected_force_errors(calculator, atoms)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    student, teacher = load_calculator("mace:student"), load_calculator("chgnet")
    rows = []
    for name, atoms in (("β-Li3PS4", beta_li3ps4()), ("Li6PS5Cl", argyrodite())):
        times: dict[str, list[float]] = {"student": [], "student with estimate": [], "chgnet": []}
        for k in range(arguments.repeats + 5):
            atoms.rattle(0.01, seed=k)
            once = {
                "student": seconds(student, atoms),
                "chgnet": seconds(teacher, atoms),
            }
            atoms.rattle(0.01, seed=1000 + k)
            once["student with estimate"] = seconds(student, atoms, with_estimate=True)
            if k >= 5:  # the first calls compile
                for what, value in once.items():
                    times[what].append(value)
        row = {"crystal": name, "n_atoms": len(atoms)}
        row |= {f"{what}, ms": 1e3 * statistics.median(values) for what, values in times.items()}
        row["times faster"] = row["chgnet, ms"] / row["student, ms"]
        rows.append(row)
        print(json.dumps(row, ensure_ascii=False), flush=True)
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread, shared with other work",
        "calls": rows,
    }
    (RESULTS / "student_speed.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    lines = [
        f"Energy, forces and stress once, median of {arguments.repeats} calls, CPU milliseconds, {result['date']}, "
        f"{result['machine']}.",
        "",
        "| crystal | atoms | student | with its estimate of errors | CHGNet | times faster |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['crystal']} | {row['n_atoms']} | {row['student, ms']:.0f} | {row['student with estimate, ms']:.0f} | "
        f"{row['chgnet, ms']:.0f} | {row['times faster']:.1f} |"
        for row in rows
    ]
    (RESULTS / "student_speed.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
