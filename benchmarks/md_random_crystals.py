"""What becomes of random crystals in molecular dynamics: how many give a value, a bound, or a stated failure.

    python benchmarks/md_random_crystals.py --n 20

draws crystals by uniform choices from the quickstart's space and measures each with the quickstart's `md` fidelity;
`--set KEY=VALUE` changes a parameter of it. Writes `benchmarks/results/md_random_crystals.json` and a table beside it.
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

import numpy as np
import torch
import yaml

from activelearning.contracts import OracleContext
from activelearning.spaces.crystal import CrystalSpace
from oracles.mace_md import MaceMDOracle
from samplers.random import RandomSampler

RESULTS = Path(__file__).parent / "results"
QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the oracle's params (YAML)")
    parser.add_argument("--out", default="md_random_crystals", help="stem of the results' files")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    config = yaml.safe_load(QUICKSTART.read_text())
    (fidelity,) = [f for f in config["fidelities"] if f["oracle"] == "mace_md"]
    params = {
        **fidelity["params"],
        **{k: yaml.safe_load(v) for k, v in (s.split("=", 1) for s in arguments.set)},
    }
    space = CrystalSpace(**{key: value for key, value in config["space"].items() if key != "type"})
    proposals = RandomSampler(space, None).sample(arguments.n, seed=arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        oracle = MaceMDOracle(**params)
        oracle.bind(OracleContext("benchmark", "md", "log10_conductivity", None, 1.0, "", Path(folder)))
        rows: list[dict[str, Any]] = []
        for proposal in proposals:
            rows.append(measure(oracle, proposal.candidate))
            report(rows, params, arguments.out)


def measure(oracle: MaceMDOracle, candidate: Any) -> dict[str, Any]:
    started = time.process_time()
    measurement = oracle.evaluate_one(candidate)
    row = {
        "formula": candidate.formula,
        "space_group": candidate.space_group,
        "volume_per_atom": candidate.volume / candidate.n_atoms,
        "cpu_seconds": time.process_time() - started,
        **{
            key: measurement.metadata.get(key)
            for key in (
                "n_atoms",
                "steps",
                "relaxed_volume_ratio",
                "relaxation_converged",
                "mean_temperature",
                "framework_displacement",
                "n_hops",
            )
        },
    }
    if measurement.is_success:
        (value,) = measurement.values.values()
        row |= {
            "outcome": "value" if value.censoring == "none" else "bound",
            "value": value.value,
            "std": value.std,
        }
    else:
        row |= {"outcome": "failed", "reason": measurement.reason}
    said = row.get("reason") or f"{row['outcome']} {row['value']:.2f}"
    print(f"{row['formula']} ({row['space_group']}), {row['cpu_seconds']:.0f} s: {said}", flush=True)
    return row


def report(rows: list[dict[str, Any]], params: dict[str, Any], stem: str) -> None:
    counts = Counter(row["outcome"] for row in rows)
    seconds = [row["cpu_seconds"] for row in rows if row["steps"]]
    steps = [1e3 * row["cpu_seconds"] / row["steps"] for row in rows if row["steps"]]
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread, shared with other work",
        "params": params,
        "outcomes": dict(counts),
        "cpu_seconds_median": float(np.median(seconds)) if seconds else None,
        "cpu_seconds_max": max(seconds, default=None),
        "cpu_ms_per_step_median": float(np.median(steps)) if steps else None,
        "crystals": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{stem}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    lines = [
        f"Random crystals of the quickstart's space in dynamics, {result['date']}, {result['machine']}.",
        "",
        f"Of {len(rows)}: {', '.join(f'{n} {outcome}' for outcome, n in sorted(counts.items()))}; CPU seconds each: "
        f"median {np.median(seconds or [0]):.0f}, at most {max(seconds, default=0):.0f}.",
        "",
        "| crystal | space group | atoms | CPU s | outcome | log10 σ | reason |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        value = f"{row['value']:.2f}" if "value" in row else ""
        lines.append(
            f"| {row['formula']} | {row['space_group']} | {row['n_atoms'] or ''} | {row['cpu_seconds']:.0f} "
            f"| {row['outcome']} | {value} | {row.get('reason', '')} |"
        )
    (RESULTS / f"{stem}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
