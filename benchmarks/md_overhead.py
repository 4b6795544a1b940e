"""What our dynamics cost over the bare potential: steps of a run with samples and checkpoints against force calls.

    python benchmarks/md_overhead.py

runs blocks of steps of an argyrodite with the shipped student, and in turn evaluates the potential alone on the same
atoms, in CPU time. It writes `benchmarks/results/md_overhead.json`.
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
from pathlib import Path

import numpy as np
import torch

from oracles.dynamics.motion import Run, RunFolder
from oracles.mace_md import MaceMDOracle
from oracles.mace_md.dynamics import advance
from oracles.mace_md.reading import Progress
from oracles.potentials import load_calculator
from oracles.potentials.student.structures import argyrodite

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--steps", type=int, default=50, help="in a block")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    calculator = load_calculator("mace:student")
    atoms = argyrodite()
    protocol = MaceMDOracle(time_ps=100.0, equilibration_ps=0.1).protocol
    run = Run.begin(atoms, protocol.temperature, 0, {})
    mobile = np.array([symbol == "Li" for symbol in atoms.symbols])
    ratios, bare_ms, ours_ms = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        files = RunFolder(Path(folder), "benchmark")
        progress = Progress("argyrodite", protocol, mobile, arguments.blocks * arguments.steps)
        advance(run, calculator, protocol, until=50)
        for _ in range(arguments.blocks):
            begun = time.process_time()
            advance(
                run,
                calculator,
                protocol,
                until=run.step + arguments.steps,
                checkpoint=files.save,
                checkpoint_every=arguments.steps,
                progress=progress,
            )
            # A block asks for the forces where it starts, too.
            ours = (time.process_time() - begun) / (arguments.steps + 1)
            copy = atoms.copy()
            copy.positions = run.positions
            begun = time.process_time()
            for _ in range(arguments.steps):
                calculator.evaluate([copy])
            bare = (time.process_time() - begun) / arguments.steps
            ours_ms.append(1e3 * ours)
            bare_ms.append(1e3 * bare)
            ratios.append(ours / bare)
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread, shared with other work",
        "atoms": len(atoms),
        "blocks": arguments.blocks,
        "steps_in_block": arguments.steps,
        "bare_ms_per_step": float(np.median(bare_ms)),
        "ours_ms_per_step": float(np.median(ours_ms)),
        "overhead": float(np.median(ratios)) - 1.0,
        "overhead_of_blocks": [ratio - 1.0 for ratio in ratios],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "md_overhead.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
