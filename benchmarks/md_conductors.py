"""Conductors against insulators by the shipped student, and its speed.

    python benchmarks/md_conductors.py --temperature 1000 --time-ps 20

measures argyrodites, γ-Li3PS4, Li2S and LiCl, built by hand, and writes `benchmarks/results/md_conductors.json` and a
table beside it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from pymatgen.io.ase import AseAtomsAdaptor

from activelearning.candidate import CrystalCandidate
from activelearning.contracts import OracleContext
from oracles.mace_md import MaceMDOracle
from oracles.potentials.student.structures import argyrodite, prototypes

RESULTS = Path(__file__).parent / "results"


def crystals() -> dict[str, Atoms]:
    known = prototypes()
    return {
        "Li6PS5Cl, ordered": argyrodite(),
        "Li6PS5Cl, two S/Cl pairs swapped": argyrodite(swapped=(0, 1)),
        "γ-Li3PS4": known["γ-Li3PS4"],
        "Li2S, no vacancies": known["Li2S antifluorite"],
        "LiCl, no vacancies": known["LiCl rocksalt"],
    }


def candidate(atoms: Atoms) -> CrystalCandidate:
    return CrystalCandidate(
        space_group=1,
        composition=dict(Counter(atoms.get_chemical_symbols())),
        lattice=tuple(atoms.cell.cellpar()),
        structure=AseAtomsAdaptor.get_structure(atoms),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--temperature", type=float, default=1000.0)
    parser.add_argument("--time-ps", type=float, default=20.0)
    parser.add_argument("--min-cell-edge", type=float, default=9.0)
    parser.add_argument("--potential", default="mace:student")
    parser.add_argument("--only", help="crystals whose name holds this")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    params = {
        "potential": arguments.potential,
        "temperature": arguments.temperature,
        "time_ps": arguments.time_ps,
        "equilibration_ps": 2.0,
        "min_cell_edge": arguments.min_cell_edge,
    }
    rows = []
    for name, atoms in crystals().items():
        if arguments.only and arguments.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            oracle = MaceMDOracle(**params)
            oracle.bind(OracleContext("benchmark", "md", "log10_conductivity", None, 1.0, "", Path(folder)))
            started = time.process_time()
            measurement = oracle.evaluate_one(candidate(atoms))
        row: dict[str, Any] = {
            "crystal": name,
            "cpu_seconds": time.process_time() - started,
            "reason": measurement.reason,
            **measurement.metadata,
        }
        for value in measurement.values.values():
            row |= {"log10_sigma": value.value, "std": value.std, "is_bound": value.censoring != "none"}
        rows.append(row)
        print(json.dumps(row, ensure_ascii=False), flush=True)
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread, shared with other work",
        "params": params,
        "crystals": rows,
    }
    (RESULTS / "md_conductors.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    lines = [
        f"Conductors and insulators at {arguments.temperature:g} K, {arguments.time_ps:g} ps of {arguments.potential}, "
        f"{result['date']}, {result['machine']}.",
        "",
        "| crystal | atoms | log10 σ (S/cm) | ± | D (cm²/s) | hops | framework moved (Å) | CPU ms a step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        answer = row["reason"] or f"{'< ' if row['is_bound'] else ''}{row['log10_sigma']:.2f}"
        std = f"{row['std']:.2f}" if row.get("std") else ""
        numbers = (
            f"{row['diffusion_cm2_per_s']:.1e} | {row['n_hops']:.0f} | {row['framework_displacement']:.1f} | "
            f"{1e3 * row['cpu_seconds'] / row['steps']:.1f}"
            if "steps" in row
            else " | | | "
        )
        lines.append(f"| {row['crystal']} | {row.get('n_atoms', '')} | {answer} | {std} | {numbers} |")
    (RESULTS / "md_conductors.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
