"""Diffusion of lithium by the shipped student against its teacher, same cells, protocol and seeds.

    python benchmarks/student_diffusion.py --time-ps 20            # hours: the teacher takes 10 to 30 minutes a crystal
    python benchmarks/student_diffusion.py --only γ-Li3PS4 --time-ps 5

Each crystal is relaxed by its own potential, then run at 1000 K. Results are written after each crystal, and what
`benchmarks/results/student_diffusion.json` holds already is not run again, so the command can be stopped and gone on
with; `--anew` forgets it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from md_conductors import candidate
from student_speed import beta_li3ps4
from student_stability import crystals

from activelearning.contracts import OracleContext
from oracles.mace_md import MaceMDOracle
from oracles.potentials import checksum
from oracles.potentials.student.structures import prototypes

RESULTS = Path(__file__).parent / "results"
POTENTIALS = ("mace:student", "chgnet")


def conductors() -> dict[str, Atoms]:
    """Six crystals whose lithium moves at 1000 K within picoseconds."""
    known = crystals()
    return {
        "Li6PS5Cl, ordered": known["Li6PS5Cl"],
        "Li6PS5Cl, S and Cl swapped": prototypes()["Li6PS5Cl, all swapped"],
        "γ-Li3PS4": known["γ-Li3PS4"],
        "β-Li3PS4": beta_li3ps4(1),
        "Li3InCl6": known["Li3InCl6"],
        "Li3N": known["Li3N"],
    }


def diffusion(atoms: Atoms, potential: str, time_ps: float, temperature: float) -> dict[str, Any]:
    """Metadata and value of one run of the oracle."""
    with tempfile.TemporaryDirectory() as folder:
        oracle = MaceMDOracle(
            potential=potential,
            temperature=temperature,
            time_ps=time_ps,
            equilibration_ps=1.0,
            min_cell_edge=6.0,
        )
        oracle.bind(OracleContext("benchmark", "md", "log10_conductivity", None, 1.0, "", Path(folder)))
        measurement = oracle.evaluate_one(candidate(atoms))
    row: dict[str, Any] = {"reason": measurement.reason, "seconds": measurement.seconds}
    for value in measurement.values.values():
        row |= {"log10_sigma": value.value, "std": value.std, "is_bound": value.censoring != "none"}
    for name in ("diffusion_cm2_per_s", "n_atoms", "n_hops"):
        row[name] = measurement.metadata.get(name)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--temperature", type=float, default=1000.0)
    parser.add_argument("--time-ps", type=float, default=20.0)
    parser.add_argument("--only", help="crystals whose name holds this")
    parser.add_argument("--anew", action="store_true", help="forget the results that are there")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    path = RESULTS / "student_diffusion.json"
    runs: list[dict[str, Any]] = []
    if path.exists() and not arguments.anew:
        runs = json.loads(path.read_text())["runs"]
    for name, atoms in conductors().items():
        if arguments.only and arguments.only not in name:
            continue
        for potential in POTENTIALS:
            asked = {
                "crystal": name,
                "potential": potential,
                "weights": checksum(potential),
                "temperature": arguments.temperature,
                "time_ps": arguments.time_ps,
            }
            if any(asked.items() <= run.items() for run in runs):
                continue
            runs.append(asked | diffusion(atoms, potential, arguments.time_ps, arguments.temperature))
            print(json.dumps(runs[-1], ensure_ascii=False), flush=True)
            result = {
                "date": datetime.date.today().isoformat(),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread, shared with other work",
                "runs": runs,
            }
            path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
            (RESULTS / "student_diffusion.md").write_text("\n".join(table(result)) + "\n")


def table(result: dict[str, Any]) -> list[str]:
    """Lines of the table: crystals that both potentials were run on, under one protocol."""
    lines = [
        f"Self-diffusion of lithium, cm²/s, {result['date']}, {result['machine']}.",
        "",
        "| crystal | K | ps | D of the student | D of CHGNet | log10 of the ratio | ± |",
        "|---|---|---|---|---|---|---|",
    ]
    students = [run for run in result["runs"] if run["potential"] == POTENTIALS[0]]
    for student in students:
        for teacher in result["runs"]:
            if teacher["potential"] == POTENTIALS[0] or any(
                student[key] != teacher[key] for key in ("crystal", "temperature", "time_ps")
            ):
                continue
            ratio, error = "", ""
            if all(run["reason"] is None and not run["is_bound"] for run in (student, teacher)):
                quotient = student["diffusion_cm2_per_s"] / teacher["diffusion_cm2_per_s"]
                ratio, error = f"{np.log10(quotient):+.2f}", f"{np.hypot(student['std'], teacher['std']):.2f}"
            lines.append(
                f"| {student['crystal']} | {student['temperature']:g} | {student['time_ps']:g} | {_shown(student)} | "
                f"{_shown(teacher)} | {ratio} | {error} |"
            )
    return lines


def _shown(run: dict[str, Any]) -> str:
    if run["reason"] is not None:
        return str(run["reason"])
    return f"{'< ' if run['is_bound'] else ''}{run['diffusion_cm2_per_s']:.1e}"


if __name__ == "__main__":
    main()
