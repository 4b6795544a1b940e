"""Whether the error of a diffusion coefficient holds: synthetic ions of known diffusion, 400 runs of each kind.

    python benchmarks/md_coverage.py

walks ions by Brownian motion, by hops with vibration, with returns, in cages, in and out of traps, and in pairs, for
several numbers of ions and lengths, and counts how often the 90 % interval holds the truth. It writes
`benchmarks/results/md_coverage.json` and a table beside it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from oracles.dynamics.diffusion import FitSettings, self_diffusion

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from ion_walks import KINDS, walk

RESULTS = Path(__file__).parent / "results"
FRAME_PS = 0.05
# Ions, mean-squared displacement expected at the end of the run (Å²), frames.
RUNS = [(24, 60.0, 300), (8, 60.0, 300), (16, 30.0, 300), (48, 240.0, 800)]


def measure(kind: str, n_ions: int, distance: float, n_frames: int, n_repeats: int) -> dict[str, float]:
    """Coverage of the 90 % interval, bias and scatter of ln D, and how often there was only a bound."""
    d = distance / (6.0 * n_frames * FRAME_PS)
    errors, stated, he, wrong_bounds, n_bounds = [], [], [], 0, 0
    for repeat in range(n_repeats):
        rng = np.random.default_rng([repeat, n_ions, n_frames])
        positions = walk(kind, rng, n_frames, n_ions, d, FRAME_PS)
        found, _ = self_diffusion(positions, FRAME_PS, FitSettings())
        if found.relative_error is None or found.he_error is None:
            n_bounds += 1
            wrong_bounds += found.value < d
            continue
        errors.append(math.log(found.value / d))
        stated.append(found.relative_error)
        he.append(found.he_error)
    error, std = np.array(errors), np.array(stated)
    return {
        "coverage_90": float(np.mean(np.abs(error) < 1.645 * std)),
        "coverage_90_he": float(np.mean(np.abs(error) < 1.645 * np.array(he))),
        "bias_ln": float(error.mean()),
        "scatter_ln": float(error.std()),
        "stated_ln": float(std.mean()),
        "stated_ln_he": float(np.mean(he)),
        "bounds": n_bounds,
        "wrong_bounds": int(wrong_bounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=400)
    arguments = parser.parse_args()
    rows = []
    for n_ions, distance, n_frames in RUNS:
        for kind in KINDS:
            run = {"kind": kind, "ions": n_ions, "distance_A2": distance, "frames": n_frames}
            rows.append({**run, **measure(kind, n_ions, distance, n_frames, arguments.repeats)})
            print(json.dumps(rows[-1]), flush=True)
            report(rows, arguments.repeats)


def report(rows: list[dict[str, Any]], n_repeats: int) -> None:
    """Write what has been measured so far."""
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        "repeats": n_repeats,
        "runs": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "md_coverage.json").write_text(json.dumps(result, indent=1) + "\n")
    lines = [
        f"Share of {n_repeats} runs whose 90 % interval of the diffusion coefficient holds the truth, by our "
        f"error and by that of He et al. 2018, {result['date']}. A bound is wrong where the truth is above it.",
        "",
        "| ions move by | ions | end of run (Å²) | coverage | bias of ln D | scatter | stated | He: coverage | stated "
        "| bounds (wrong) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['kind']} | {r['ions']} | {r['distance_A2']:g} | {r['coverage_90']:.3f} | {r['bias_ln']:+.2f} | "
        f"{r['scatter_ln']:.2f} | {r['stated_ln']:.2f} | {r['coverage_90_he']:.3f} | {r['stated_ln_he']:.2f} | "
        f"{r['bounds']} ({r['wrong_bounds']}) |"
        for r in rows
    ]
    (RESULTS / "md_coverage.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
