"""Trajectories per CPU-second of the crystal environment alone: masks, encodings, steps and Jacobians,
uniform policy.

    python benchmarks/environment_speed.py

writes `benchmarks/results/environment_speed.json` and a table beside it. What a sampler adds are its
networks. The published Crystal-GFN space has 22 elements, 113 space groups, at most 5 elements, 80 atoms, and
16 atoms of one element.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from activelearning.spaces.crystal import CrystalSpace
from samplers.gflownet.environments.crystal import CrystalEnvironment
from samplers.gflownet.trajectories import sample_forward

RESULTS = Path(__file__).parent / "results"


def numbers(text: str) -> list[int]:
    """Numbers of a text such as "1-3, 7"."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


PUBLISHED_GROUPS = numbers(
    "1-16, 18-21, 25, 26, 29-31, 33, 36, 38, 40, 41, 43, 44, 46, 47, 51-53, 55-67, 69-72, 74, 82, 84-88, 92, 99, 102, "
    "107, 113, 114, 121-123, 126, 129, 131, 136-141, 146-148, 150, 155, 156, 160-164, 166, 167, 176, 181, 185-187, "
    "189, 192, 194, 198, 199, 205, 206, 216, 217, 220, 221, 224, 225, 227, 229, 230"
)
PUBLISHED_ELEMENTS = "H Li B C N O F Na Mg Al Si P S Cl K V Mn Fe Co Ni Cu Se".split()
SPACES: dict[str, dict[str, Any]] = {
    "Li-P-S-Cl (24 atoms, 230 groups)": {"elements": ["Li", "P", "S", "Cl"], "max_atoms": 24},
    "published (22 elements, 80 atoms, 113 groups)": {
        "elements": PUBLISHED_ELEMENTS,
        "space_groups": PUBLISHED_GROUPS,
        "max_atoms": 80,
        "max_atoms_per_element": 16,
    },
}


def measure(name: str, params: dict[str, Any], batch: int, n: int) -> dict[str, Any]:
    """One row: CPU time of a cold first batch, and per trajectory when warm."""
    start = time.process_time()
    space = CrystalSpace(**params)
    environment = CrystalEnvironment(space, 2)
    construction = time.process_time() - start
    generator = torch.Generator().manual_seed(0)
    start = time.process_time()
    sample_forward(environment, None, batch, generator=generator)
    cold = time.process_time() - start
    for _ in range(5000 // batch):
        sample_forward(environment, None, batch, generator=generator)
    repeats = max(1, n // batch)
    start = time.process_time()
    batches = [sample_forward(environment, None, batch, generator=generator) for _ in range(repeats)]
    sampling = (time.process_time() - start) / (repeats * batch)
    steps = sum(len(b.index) for b in batches) / (repeats * batch)
    start = time.process_time()
    proposals = [p for b in batches for p in environment.proposals(b.terminal)]
    objects = (time.process_time() - start) / len(proposals)
    start = time.process_time()
    space.features([p.candidate for p in proposals])
    features = (time.process_time() - start) / len(proposals)
    return {
        "space": name,
        "batch": batch,
        "n_actions": environment.n_actions,
        "n_inputs": environment.n_inputs,
        "steps_per_trajectory": round(steps, 2),
        "trajectories_per_cpu_second": round(1.0 / sampling),
        "candidates_us": round(1e6 * objects, 1),
        "features_us": round(1e6 * features, 1),
        "construction_s": round(construction, 3),
        "first_batch_s": round(cold, 3),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=5000, help="trajectories timed per row")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        measure(name, params, batch, arguments.n) for name, params in SPACES.items() for batch in (100, 1000)
    ]
    result = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        "torch": torch.__version__,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "rows": rows,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "environment_speed.json").write_text(
        json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    )
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row[c]) for c in columns) + " |" for row in rows]
    head = f"Crystal environment, uniform policy, one thread, {result['date']}, {os.cpu_count()} cores.\n\n"
    (arguments.out / "environment_speed.md").write_text(head + "\n".join(lines) + "\n")
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
