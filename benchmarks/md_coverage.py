"""Whether the error of a diffusion coefficient holds: synthetic ions of known diffusion, 400 runs of each kind.

    python benchmarks/md_coverage.py

walks ions by Brownian motion, by hops with vibration, with returns, in cages, in and out of traps, and in pairs, for
several numbers of ions and lengths, and counts how often the 90 % interval holds the truth; then ions that never or
seldom leave their cages, of which there should be bounds alone. It writes `benchmarks/results/md_coverage.json` and two
tables beside it.
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
from ion_walks import KINDS, cages, walk

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


# Time between jumps within a cage (ps) where there is no way out, or squared distance from cage to cage (Å²).
CAGED = [("jump_ps", 1.0), ("jump_ps", 5.0), ("jump_ps", 15.0), ("distance_A2", 4.0), ("distance_A2", 10.0)]
CAGED_IONS = 24


def measure_caged(what: str, size: float, fit_start: float, n_repeats: int) -> dict[str, Any]:
    """How often ions in cages were given a value, and how far that was from the truth where there is one."""
    n_values, errors = 0, []
    for repeat in range(n_repeats):
        rng = np.random.default_rng([repeat, CAGED_IONS])
        if what == "jump_ps":
            positions, d = cages(rng, 1000, CAGED_IONS, FRAME_PS, jump_ps=size), 0.0
        else:
            d = size / (6.0 * 300 * FRAME_PS)
            positions = walk("caged", rng, 300, CAGED_IONS, d, FRAME_PS)
        found, _ = self_diffusion(positions, FRAME_PS, FitSettings(start=fit_start))
        if not found.is_bound:
            n_values += 1
            errors += [math.log10(found.value / d)] if d else []
    bias = float(np.mean(errors)) if errors else None
    return {what: size, "fit_start": fit_start, "values": n_values, "bias_log10": bias}


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
    caged = [
        measure_caged(what, size, start, arguments.repeats) for what, size in CAGED for start in (0.5, 1.0)
    ]
    report(rows, caged, arguments.repeats)


def report(rows: list[dict[str, Any]], caged: list[dict[str, Any]], n_repeats: int) -> None:
    """Write what has been measured."""
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        "repeats": n_repeats,
        "runs": rows,
        "caged": caged,
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
    lines += [
        "",
        f"{CAGED_IONS} ions in cages of 2.2 Å radius, {n_repeats} runs each: without a way out over 50 ps, jumping "
        "every so many ps, or with one, over 15 ps, by so much mean-squared displacement from cage to cage. A value is "
        "wrong.",
        "",
        "| cages | values, `fit_start` 0.5 | their error, decades | values, `fit_start` 1 | their error, decades |",
        "|---|---|---|---|---|",
    ]
    for usual, later in zip(caged[::2], caged[1::2], strict=True):
        way = f"left by {usual['distance_A2']:g} Å²" if "distance_A2" in usual else f"{usual['jump_ps']:g} ps"
        cells = " | ".join(f"{c['values']} | {_signed(c['bias_log10'])}" for c in (usual, later))
        lines.append(f"| {way} | {cells} |")
    (RESULTS / "md_coverage.md").write_text("\n".join(lines) + "\n")


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}"


if __name__ == "__main__":
    main()
