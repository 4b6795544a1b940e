"""Molecular dynamics by the shipped student and its teacher: conductors, insulators, and diffusion in seven crystals.

    python benchmarks/md_conductors.py                                # some three hours of one thread, most CHGNet's
    python benchmarks/md_conductors.py --potential mace:student       # the student alone

Crystals from published coordinates, relaxed by the potential that then moves them for 20 ps. At 800 K two argyrodites,
Li10GeP2S12 and β-Li3PS4, which conduct; at 1000 K three more whose lithium moves within picoseconds; LiF, LiCl and Li2O
without vacancies, which do not conduct, by the student at 600 K, LiCl and LiBr by both at 800 K (a step of LiF takes
CHGNet ten times as long, for all its neighbours within 3 Å). Results are written after each run; what
`benchmarks/results/md_conductors.json` holds of the same weights and protocol is not run again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import tempfile
import time
import warnings
from collections import Counter
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import student_stability
import torch
from ase import Atoms
from ase.build import bulk
from kept import keep_json
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from student_speed import beta_li3ps4

from activelearning.candidate import CrystalCandidate
from activelearning.contracts import OracleContext
from activelearning.crystals.ordering import order
from oracles.mace_md import MaceMDOracle
from oracles.potentials import checksum
from oracles.potentials.student.structures import argyrodite

RESULTS = Path(__file__).parent / "results"
STUDENT, TEACHER = "mace:student", "chgnet"
CONDUCTORS = ("Li6PS5Cl", "Li6PS5Br", "Li10GeP2S12", "β-Li3PS4")
FASTER = ("γ-Li3PS4", "Li3InCl6", "Li3N")
# Å, of the supercell. In the single cell of β-Li3PS4, 6.1 Å along c, rows of PS4 slide as a whole.
EDGE, EDGES = 6.0, {"β-Li3PS4": 8.0}
RUNS = (
    *((name, potential, 800.0) for name in CONDUCTORS for potential in (STUDENT, TEACHER)),
    *((name, potential, 1000.0) for name in FASTER for potential in (STUDENT, TEACHER)),
    *((name, STUDENT, 600.0) for name in ("LiF", "LiCl", "Li2O")),
    *((name, potential, 800.0) for name in ("LiCl", "LiBr") for potential in (STUDENT, TEACHER)),
)


def crystals() -> dict[str, Atoms]:
    """Cells as published."""
    known = student_stability.crystals()
    return {
        "Li6PS5Cl": argyrodite(),
        "Li6PS5Br": bromide(),
        "Li10GeP2S12": li10gep2s12(),
        "β-Li3PS4": beta_li3ps4(1),
        **{name: known[name] for name in FASTER},
        "LiF": bulk("LiF", "rocksalt", a=4.03, cubic=True),
        "LiCl": bulk("LiCl", "rocksalt", a=5.13, cubic=True),
        "LiBr": bulk("LiBr", "rocksalt", a=5.50, cubic=True),
        "Li2O": bulk("OLi2", "fluorite", a=4.62, cubic=True),
    }


def bromide() -> Atoms:
    """Li6PS5Br with the lattice parameter of doi:10.1039/c7ta08581h."""
    atoms = argyrodite(a=9.977)
    atoms.symbols[atoms.symbols == "Cl"] = "Br"
    return atoms


def li10gep2s12() -> Atoms:
    """The crystal with partial occupancies that comes with pymatgen, ordered: 50 atoms."""
    with as_file(files("pymatgen.util") / "structures" / "Li10GeP2S12.json") as path:
        return AseAtomsAdaptor.get_atoms(order(Structure.from_file(path)).structure, msonable=False)


def candidate(atoms: Atoms) -> CrystalCandidate:
    """Atoms as a crystal that an oracle can be asked of."""
    return CrystalCandidate(
        space_group=1,
        composition=dict(Counter(atoms.get_chemical_symbols())),
        lattice=tuple(atoms.cell.cellpar()),
        structure=AseAtomsAdaptor.get_structure(atoms),
    )


def measure(asked: dict[str, Any]) -> dict[str, Any]:
    """What was asked, what the oracle says of the crystal, and the processor time it took."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    atoms, params = crystals()[asked["crystal"]], asked["params"]
    prop = f"log10_conductivity_{params['temperature']:g}K"
    with tempfile.TemporaryDirectory() as folder:
        oracle = MaceMDOracle(**params)
        oracle.bind(OracleContext("benchmark", "md", prop, None, 1.0, "", Path(folder)))
        started = time.process_time()
        measurement = oracle.evaluate_one(candidate(atoms))
    row = asked | {
        "cpu_seconds": time.process_time() - started,
        "reason": measurement.reason,
        **measurement.metadata,
    }
    for value in measurement.values.values():
        row |= {"log10_sigma": value.value, "std": value.std, "is_bound": value.censoring != "none"}
    return row


def main() -> None:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--time-ps", type=float, default=20.0)
    parser.add_argument("--potential", choices=[STUDENT, TEACHER], help="this one alone")
    parser.add_argument("--only", help="crystals whose name holds this")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    path = RESULTS / "md_conductors.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []
    missing = []
    for name, potential, temperature in RUNS:
        if arguments.potential not in (None, potential) or (arguments.only or "") not in name:
            continue
        params = {
            "potential": potential,
            "temperature": temperature,
            "time_ps": arguments.time_ps,
            "equilibration_ps": 2.0,
            "min_cell_edge": EDGES.get(name, EDGE),
        }
        asked = {
            "crystal": name,
            "weights": checksum(potential),
            "version": MaceMDOracle.version,
            "params": params,
        }
        if not any(asked.items() <= row.items() for row in rows):
            missing.append(asked)
    with multiprocessing.get_context("spawn").Pool(arguments.processes, maxtasksperchild=1) as pool:
        for row in pool.imap_unordered(measure, missing):
            print(json.dumps(row, ensure_ascii=False), flush=True)
            # One of older weights or of another protocol is replaced.
            rows = sorted([*(old for old in rows if _order(old) != _order(row)), row], key=_order)
            result = {
                "date": datetime.date.today().isoformat(),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread each, shared with other work",
                "runs": rows,
            }
            keep_json(path, result)
            path.with_suffix(".md").write_text("\n".join(table(result)) + "\n")


def _order(row: dict[str, Any]) -> int:
    return RUNS.index((row["crystal"], row["params"]["potential"], row["params"]["temperature"]))


def table(result: dict[str, Any]) -> list[str]:
    """Lines of the table."""
    lines = [
        f"Conductors and insulators in molecular dynamics, {result['date']}, {result['machine']}.",
        "",
        "| crystal | potential | K | ps | atoms | log10 σ (S/cm) | ± | D (cm²/s) | hops | framework moved (Å) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["runs"]:
        params = row["params"]
        answer, std, numbers = row["reason"], "", " | | "
        if row["reason"] is None:
            answer = f"{'< ' if row['is_bound'] else ''}{row['log10_sigma']:.2f}"
            std = f"{row['std']:.2f}" if row["std"] else ""
        if "steps" in row:
            numbers = f"{row['diffusion_cm2_per_s']:.1e} | {row['n_hops']:.0f} | {row['framework_displacement']:.1f}"
        lines.append(
            f"| {row['crystal']} | {params['potential']} | {params['temperature']:g} | {params['time_ps']:g} | "
            f"{row.get('n_atoms', '')} | {answer} | {std} | {numbers} |"
        )
    return [*lines, *diffusion_table(result["runs"])]


def diffusion_table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines that compare the two potentials where lithium moves; none before both have been run on a crystal."""
    pairs = [
        (student, teacher)
        for student in rows
        for teacher in rows
        if (student["params"]["potential"], teacher["params"]["potential"]) == (STUDENT, TEACHER)
        and {**student["params"], "potential": TEACHER} == teacher["params"]
        and student["crystal"] == teacher["crystal"]
        and student["crystal"] in CONDUCTORS + FASTER
    ]
    if not pairs:
        return []
    lines = [
        "",
        "Self-diffusion of lithium by the student over that by its teacher, and whose framework "
        "did not stand it: what lithium does can be compared there, too.",
        "",
        "| crystal | K | log10 of the ratio | ± | framework lost by |",
        "|---|---|---|---|---|",
    ]
    for pair in pairs:
        student, teacher = pair
        ratio, error = "", ""
        if all(row.get("log10_sigma_error") for row in pair):
            ratio = f"{np.log10(student['diffusion_cm2_per_s'] / teacher['diffusion_cm2_per_s']):+.2f}"
            error = f"{np.hypot(student['log10_sigma_error'], teacher['log10_sigma_error']):.2f}"
        lost = ", ".join(row["params"]["potential"] for row in pair if row["reason"] is not None)
        lines.append(
            f"| {student['crystal']} | {student['params']['temperature']:g} | {ratio} | {error} | {lost} |"
        )
    return lines


if __name__ == "__main__":
    main()
