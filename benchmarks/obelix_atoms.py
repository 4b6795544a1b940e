"""The crystals of OBELiX as atoms: how many can be ordered, at what error and cost, and what their barriers rank.

    ACTIVELEARNING_OBELIX=<folder> python benchmarks/obelix_atoms.py

writes `benchmarks/results/obelix_atoms.json`, a row for each CIF, and a table beside it; seconds are of CPU. Barriers
are those of the oracle `bvse`; bounds on the conductivity count as their values, and barriers beyond the search as its
end.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import math
import multiprocessing
import os
import platform
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from pymatgen.core import Composition
from scipy.stats import spearmanr

from activelearning.crystals.ordered import crystal_of, ordered, read_structure
from activelearning.crystals.ordering import OrderingError
from activelearning.crystals.oxidation import guess_oxidation_states
from oracles.bvse.barrier import Settings, barriers
from oracles.bvse.landscape import LandscapeError

RESULTS = Path(__file__).parent / "results"
SETTINGS = Settings()
N_BOOTSTRAP = 2000


def measure(file: Path, row: pd.Series) -> dict[str, Any]:
    """One crystal: its ordering and its barriers, with CPU seconds and reasons of failure."""
    text = str(row["Ionic conductivity (S cm-1)"])
    result: dict[str, Any] = {
        "id": file.stem,
        "log10_conductivity": round(math.log10(float(text.lstrip("<"))), 3),
        "is_bound": text.startswith("<"),
    }
    structure = read_structure(file)
    result["was_ordered"] = bool(structure.is_ordered)
    start = time.process_time()
    try:
        if structure.is_ordered:
            crystal = crystal_of(structure)
        else:
            crystal, record = ordered(
                crystal_of(structure, composition=Composition(row["True Composition"]).get_el_amt_dict())
            )
            result["composition_error"] = record["composition_error"]
            result["has_kept_orbits"] = record["has_kept_orbits"]
    except (OrderingError, ValueError) as error:  # the latter where there is no candidate to be ordered
        return result | {"ordering_failure": str(error)}
    result |= {"ordering_cpu_s": round(time.process_time() - start, 3), "n_atoms": crystal.n_atoms}
    start = time.process_time()
    charges = guess_oxidation_states(crystal.composition, states={"Li": [1]})
    try:
        if "Li" not in crystal.composition or charges is None:
            raise LandscapeError("no Li, or no oxidation states")
        found = barriers(crystal.structure, "Li", charges, SETTINGS)
    except LandscapeError as error:
        return result | {"bvse_failure": str(error)}
    result["barriers"] = [round(min(energy, SETTINGS.max_barrier), 4) for energy in found.by_dimension]
    return result | {"bvse_cpu_s": round(time.process_time() - start, 3)}


def _measure(given: tuple[Path, pd.Series]) -> dict[str, Any]:
    return measure(*given)


def correlation(rows: list[dict[str, Any]], dimension: int) -> list[float]:
    """Spearman's rank correlation of barrier and log σ, with its 95 % interval by bootstrap over crystals."""
    barrier = np.array([row["barriers"][dimension - 1] for row in rows])
    sigma = np.array([row["log10_conductivity"] for row in rows])
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(rows), len(rows)) for _ in range(N_BOOTSTRAP)]
    low, high = np.quantile([spearmanr(barrier[i], sigma[i])[0] for i in draws], [0.025, 0.975])
    return [round(float(x), 3) for x in (spearmanr(barrier, sigma)[0], low, high)]


def table(result: dict[str, Any]) -> list[str]:
    """The result in words."""
    rows = result["rows"]
    partial = [row for row in rows if not row["was_ordered"]]
    done = [row for row in partial if "composition_error" in row]
    errors = [row["composition_error"] for row in done]
    seconds = [row["ordering_cpu_s"] for row in done]
    reasons = collections.Counter(
        "elements differ" if "composition is said" in row["ordering_failure"] else "atoms overlap"
        if "overlap" in row["ordering_failure"] else "other"
        for row in partial if "ordering_failure" in row
    )  # fmt: skip
    scored = [row for row in rows if "barriers" in row]
    bvse = [row["bvse_cpu_s"] for row in scored]
    lines = [
        "# Crystals of OBELiX as atoms",
        "",
        f"{result['machine']}, one thread, {result['date']}: `{result['command']}`.",
        "",
        f"{len(rows)} CIFs, {len(partial)} with partial occupancies, of which {len(done)} were ordered by their true "
        f"compositions: error of an element's fraction {np.mean(errors):.4f} on average and {max(errors):.4f} at most; "
        f"{np.mean(seconds):.2f} CPU seconds on average and {max(seconds):.2f} at most. Not ordered: "
        + ", ".join(f"{n} where {reason}" for reason, n in sorted(reasons.items()))
        + ".",
        "",
        f"`bvse`: {len(scored)} crystals, {np.mean(bvse):.2f} CPU seconds on average and {max(bvse):.2f} at most.",
        "",
        "Spearman's correlation of the barrier with log10 σ (95 % interval by bootstrap):",
        "",
        "| crystals | n | 1-D | 2-D | 3-D |",
        "|---|---|---|---|---|",
    ]
    for name, some in {
        "ordered as published": [row for row in scored if row["was_ordered"]],
        "ordered by us": [row for row in scored if not row["was_ordered"]],
        "all": scored,
        "all but bounds": [row for row in scored if not row["is_bound"]],
    }.items():
        cells = ["{:.2f} ({:.2f} to {:.2f})".format(*correlation(some, d)) for d in (1, 2, 3)]
        lines.append(f"| {name} | {len(some)} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--n", type=int, help="only the first so many CIFs; their names are random, so they are a sample"
    )
    parser.add_argument("--processes", type=int, default=1, help="crystals worked on at once, a thread each")
    options = parser.parse_args()
    folder = Path(os.environ["ACTIVELEARNING_OBELIX"])
    data = pd.read_csv(folder / "all.csv").set_index("ID")
    files = sorted((folder / "all_randomized_cifs").glob("*.cif"))[: options.n]
    rows = []
    with multiprocessing.Pool(options.processes) as pool:
        for row in pool.imap(_measure, [(file, data.loc[file.stem]) for file in files]):
            rows.append(row)
            print(row, flush=True)
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "command": " ".join(
            ["python benchmarks/obelix_atoms.py", *([f"--n {options.n}"] if options.n else [])]
        ),
        "rows": rows,
    }
    write(result)


def write(result: dict[str, Any]) -> None:
    """Keep the rows, and the table."""
    RESULTS.mkdir(exist_ok=True)
    lines = table(result)
    (RESULTS / "obelix_atoms.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    (RESULTS / "obelix_atoms.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
