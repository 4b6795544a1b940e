"""Peak memory of a training step of the GFlowNet, by the number of trajectories in a batch.

    python benchmarks/gflownet_memory.py

Each batch size runs in a process of its own on the published space (22 elements, 113 space groups), three updates
with networks of 3 x 256. What is stated is the peak of the resident set, and how much of it came after imports,
tables and networks were in place. Writes `benchmarks/results/gflownet_memory.json` and a table beside it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
BATCHES = (100, 1000, 10_000)


def peak_mb() -> float:
    """Highest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(batch: int) -> dict[str, Any]:
    """Peak memory of updates with `batch` trajectories, in this process."""
    import torch
    from environment_speed import PUBLISHED_ELEMENTS, PUBLISHED_GROUPS

    from activelearning.spaces.crystal import CrystalSpace
    from samplers.gflownet.environments import make_environment
    from samplers.gflownet.learner import Learner, LearnerSettings

    torch.set_num_threads(1)
    space = CrystalSpace(
        PUBLISHED_ELEMENTS, space_groups=PUBLISHED_GROUPS, max_atoms=80, max_atoms_per_element=16
    )
    learner = Learner(make_environment(space, None), LearnerSettings(replay_share=0.0, replay_capacity=0))
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):  # builds the tables of the masks, which are there whatever the batch
        learner.sample(100, generator)
    before = peak_mb()
    settings = LearnerSettings(batch_size=batch, replay_share=0.0, replay_capacity=0)
    learner = Learner(learner.environment, settings)
    learner.fit(lambda states: states.sum(dim=1).sin(), steps=3, generator=generator)
    return {"batch": batch, "peak_mb": round(peak_mb()), "of_the_batch_mb": round(peak_mb() - before)}


def main() -> None:
    """Measure each batch size in a process of its own, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, help="measure this batch size only, in this process")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    if arguments.batch:
        print(json.dumps(measure(arguments.batch)))
        return
    rows = [
        json.loads(subprocess.check_output([sys.executable, __file__, "--batch", str(batch)], text=True))
        for batch in BATCHES
    ]
    result = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "rows": rows,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "gflownet_memory.json").write_text(json.dumps(result, indent=2) + "\n")
    lines = ["| trajectories in a batch | peak, MB | of the batch, MB |", "|---|---|---|"]
    lines += [f"| {row['batch']:,} | {row['peak_mb']:,} | {row['of_the_batch_mb']:,} |" for row in rows]
    head = f"Peak memory of a training step, published space, {result['date']}.\n\n"
    (arguments.out / "gflownet_memory.md").write_text(head + "\n".join(lines) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
