"""Does a trained sampler live off the errors of its property model? Its best crystals, judged by a second potential.

    python benchmarks/second_potential.py --crystals samples.csv --data materials.csv.gz --python /path/to/other/python

takes the crystals of a table (as `activelearning sample` writes it) with the lowest predicted formation energy, gives
them atoms on their own lattice and space group, relaxes these with CHGNet at fixed cell, and compares three formation
energies: the model's, CHGNet's, and that of 7net-0 (Park et al., J. Chem. Theory Comput. 20, 2024) at the same atoms.
7net-0 runs in an environment of its own, for it wants another e3nn than MACE: `pip install sevenn` there, and name its
Python with `--python`. Both potentials get reference energies fitted to the same materials of the table. For a scale,
known materials of like size lose their atoms and get them back by the same procedure: by so much a crystal's energy is
overestimated since a few draws rarely find its best arrangement. Writes
`benchmarks/results/second_potential.json` and a table beside it; `--work` keeps what was computed, and a second call
goes on from it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from kept import keep_json

from oracles.ml_proxy.ensemble import EnsembleModel
from oracles.ml_proxy.label import Crystal, check, label, read_crystals, read_lines
from oracles.ml_proxy.materials import find_materials
from oracles.ml_proxy.properties import PROPERTIES
from oracles.ml_proxy.references import Material, References, fit_references, read_structures
from oracles.ml_proxy.relaxation import Cell, CHGNetPotential

RESULTS = Path(__file__).parent / "results"
SECOND = "7net-0"
N_REFERENCES = 800
N_KNOWN = 30
# Runs in the other environment: reads cells as JSON, writes energies in eV/atom.
EVALUATE = """
import json, sys
import torch
torch.set_num_threads(1)
from ase import Atoms
from sevenn.calculator import SevenNetCalculator
calculator = SevenNetCalculator("7net-0", device="cpu")
for line in sys.stdin:
    numbers, matrix, fractional = json.loads(line)
    atoms = Atoms(numbers=numbers, scaled_positions=fractional, cell=matrix, pbc=True)
    atoms.calc = calculator
    print("energy", atoms.get_potential_energy() / len(atoms), flush=True)
"""


def second_energies(python: Path, cells: Sequence[Cell]) -> np.ndarray:
    """Energies by the second potential, eV/atom, one a cell."""
    lines = [json.dumps([c.numbers.tolist(), c.matrix.tolist(), c.fractional.tolist()]) for c in cells]
    done = subprocess.run(
        [str(python), "-c", EVALUATE], input="\n".join(lines) + "\n", capture_output=True, text=True
    )
    found = [float(x.split()[1]) for x in done.stdout.splitlines() if x.startswith("energy ")]
    if done.returncode or len(found) != len(cells):
        raise SystemExit(f"{SECOND} by {python} failed:\n{done.stderr[-2000:]}")
    return np.array(found)


def fitted(name: str, materials: Sequence[Material], energies: np.ndarray) -> References:
    compositions = [m.composition for m in materials]
    return fit_references(name, compositions, energies, np.array([m.formation_energy for m in materials]))


def choose(path: Path, n: int) -> tuple[list[Crystal], np.ndarray, np.ndarray]:
    """The crystals of a table with the lowest prediction, lowest first, with predictions and their errors."""
    crystals = list({c.key: c for c in read_crystals(path)}.values())
    model = EnsembleModel.load(PROPERTIES["formation_energy"].weights)
    mean, std = model.predict(
        [c.composition for c in crystals],
        [c.space_group for c in crystals],
        np.array([c.lattice for c in crystals]),
    )
    order = np.argsort(mean, kind="stable")[:n]
    return [crystals[i] for i in order], mean[order], std[order]


def relaxed(crystals: Sequence[Crystal], work: Path, seed: int) -> dict[str, dict[str, Any]]:
    """Lowest energies by CHGNet and the atoms they belong to, by key of the crystal; kept in `work`."""
    kept = work / "relaxed.jsonl"
    done = {row["key"]: row for row in read_lines(kept)}
    todo = [c for c in crystals if c.key not in done]
    with kept.open("a", encoding="utf-8") as file:
        for n, row in enumerate(label(todo, CHGNetPotential(), seed, with_cells=True), start=1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            done[row["key"]] = row
            print(f"relaxed {n} of {len(todo)}", flush=True)
    return done


def known_materials(
    data: Path, cells: Sequence[Cell], elements: Sequence[str], work: Path, seed: int
) -> dict[str, Any]:
    """How far the procedure ends above known arrangements, on materials of sizes as the middle half of cells."""
    kept = work / "known.json"
    if not kept.is_file():
        low, high = np.percentile([len(cell) for cell in cells], (25, 75)).round().astype(int).tolist()
        found = check(data, N_KNOWN, seed, elements, (low, high))
        keep_json(kept, {"atoms": [low, high], **found})
    return dict(json.loads(kept.read_text()))


def agreement(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    from scipy.stats import spearmanr

    return {
        "mean_difference": round(float((a - b).mean()), 3),
        "mae": round(float(np.abs(a - b).mean()), 3),
        "median_absolute": round(float(np.median(np.abs(a - b))), 3),
        "spearman": round(float(spearmanr(a, b).statistic), 3),
    }


def distribution(values: np.ndarray) -> dict[str, float]:
    return {f"q{q}": round(float(np.percentile(values, q)), 3) for q in (5, 25, 50, 75, 95)}


def compare(options: argparse.Namespace) -> dict[str, Any]:
    data = find_materials(options.data)
    options.work.mkdir(parents=True, exist_ok=True)
    crystals, mean, std = choose(options.crystals, options.n)
    rows = relaxed(crystals, options.work, options.seed)
    has_atoms = np.array([rows[c.key]["energy"] is not None for c in crystals])
    chosen = [c for c, has in zip(crystals, has_atoms, strict=True) if has]
    compositions = [c.composition for c in chosen]
    cells = [
        Cell(*(np.array(rows[c.key]["cell"][part]) for part in ("numbers", "matrix", "fractional")))
        for c in chosen
    ]
    elements = sorted({symbol for c in compositions for symbol in c})
    materials = read_structures(data, N_REFERENCES, elements)
    first = fitted(
        "CHGNet", materials, CHGNetPotential().evaluate([m.cell for m in materials], forces=False)[0]
    )
    energies = {
        "model": mean[has_atoms],
        "CHGNet": first.formation_energies(compositions, np.array([rows[c.key]["energy"] for c in chosen])),
    }
    references = {"CHGNet": first}
    if options.python is not None:
        both = second_energies(options.python, [*(m.cell for m in materials), *cells])
        second = fitted(SECOND, materials, both[: len(materials)])
        references[SECOND] = second
        energies[SECOND] = second.formation_energies(compositions, both[len(materials) :])
    names = list(energies)
    return {
        "n": len(crystals),
        "n_without_room": int((~has_atoms).sum()),
        "atoms": [int(np.percentile([len(cell) for cell in cells], q)) for q in (5, 50, 95)],
        "known": known_materials(data, cells, elements, options.work, options.seed),
        "references": {name: {"n": r.n, "mae": r.mae, "median": r.median} for name, r in references.items()},
        "formation_energy": {name: distribution(values) for name, values in energies.items()},
        "agreement": {
            f"{a} - {b}": agreement(energies[a], energies[b])
            for i, a in enumerate(names)
            for b in names[i + 1 :]
        },
        "within_90": {
            name: round(float((np.abs(energies[name] - mean[has_atoms]) <= 1.645 * std[has_atoms]).mean()), 3)
            for name in names[1:]
        },
        "crystals": [
            {
                **crystal.to_dict(),
                **{name: round(float(values[i]), 3) for name, values in energies.items()},
                "std": round(float(std[has_atoms][i]), 3),
            }
            for i, crystal in enumerate(chosen)
        ],
    }


def table_of(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "# The sampler's best, by a second potential",
        "",
        f"{result['n']} crystals with the lowest predicted formation energy of those drawn, {result['n_without_room']} "
        f"of them without room for their atoms. {result['machine']}, {result['date']}, {result['seconds']:.0f} s.",
        "",
        "| formation energy, eV/atom | 5 % | 25 % | median | 75 % | 95 % |",
        "|---|---|---|---|---|---|",
    ]
    for name, d in result["formation_energy"].items():
        lines.append(f"| {name} | " + " | ".join(f"{d[f'q{q}']:.2f}" for q in (5, 25, 50, 75, 95)) + " |")
    lines += [
        "",
        "| compared | mean difference | MAE | median of absolute | Spearman |",
        "|---|---|---|---|---|",
    ]
    for name, a in result["agreement"].items():
        cells = (a["mean_difference"], a["mae"], a["median_absolute"], a["spearman"])
        lines.append(f"| {name} | " + " | ".join(f"{x:.2f}" for x in cells) + " |")
    lines.append("")
    for name, r in result["references"].items():
        lines.append(
            f"Reference energies of {name}: fitted to {r['n']} materials, which they leave with a mean residual "
            f"of {r['mae']:.3f} eV/atom, absolute (median {r['median']:.3f})."
        )
    known = result["known"]
    lines.append("")
    lines.append(
        f"The crystals have {result['atoms'][0]} to {result['atoms'][2]} atoms in their primitive cells. {known['n']} "
        f"known materials of {known['atoms'][0]} to {known['atoms'][1]}, given atoms by the same procedure, end "
        f"{known['median']:.2f} eV/atom above their known arrangement by CHGNet (median; mean {known['mean']:.2f}); "
        f"{known['found']:.0%} end in it."
    )
    lines.append("")
    for name, share in result["within_90"].items():
        lines.append(f"{share:.0%} of the energies by {name} are within the model's 90 % interval.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--crystals", type=Path, required=True, help="table as `activelearning sample` writes it"
    )
    parser.add_argument("--data", type=Path, help="table of materials (default: $ACTIVELEARNING_MP)")
    parser.add_argument("--python", type=Path, help=f"Python that has {SECOND}; without it, CHGNet alone")
    parser.add_argument("--n", type=int, default=200, help="crystals")
    parser.add_argument("--seed", type=int, default=0, help="of the placements of atoms")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is computed on the way")
    parser.add_argument("--out", default="second_potential", help="stem of the results' files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        **compare(options),
        "seconds": round(time.perf_counter() - started, 1),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{options.out}.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / f"{options.out}.md").write_text(table_of(result))
    print(table_of(result))


if __name__ == "__main__":
    main()
