"""Crystals a CPU-second that the property models judge, inputs included, on one thread.

    python benchmarks/proxy_speed.py

writes `benchmarks/results/proxy_speed.json` and a table beside it. A reward asks for some thousand crystals at a time
and again and again; `arrays` is the way without candidate objects.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.descriptors import amounts_of
from oracles.ml_proxy import MLProxyOracle
from oracles.ml_proxy.ensemble import EnsembleModel
from oracles.ml_proxy.properties import PROPERTIES

RESULTS = Path(__file__).parent / "results"
ELEMENTS = ["Li", "O", "Mg", "Si", "P", "S", "Cl", "Fe", "Ni", "F"]


def crystals(n: int) -> list[CrystalCandidate]:
    """Random crystals of one to five elements."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n):
        chosen = ["Li", *rng.choice(ELEMENTS[1:], rng.integers(0, 5), replace=False)]
        composition = {str(symbol): int(rng.integers(1, 17)) for symbol in chosen}
        edge = float((sum(composition.values()) * rng.uniform(8, 30)) ** (1 / 3))
        found.append(
            CrystalCandidate(int(rng.integers(1, 231)), composition, (edge, edge, edge, 90.0, 90.0, 90.0))
        )
    return found


def rate(call: Any, total: int) -> int:
    """Crystals a CPU-second of a call that judges `total` of them; the best of three, after one to warm up."""
    call()
    seconds = []
    for _ in range(3):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return round(total / min(seconds))


def measure(name: str, batch: int, pool: list[CrystalCandidate]) -> dict[str, Any]:
    """One row of the table."""
    oracle = MLProxyOracle(property=name)
    parts = [pool[i : i + batch] for i in range(0, len(pool), batch)]
    row: dict[str, Any] = {
        "property": name,
        "batch": batch,
        "predict": rate(lambda: [oracle.predict(part) for part in parts], len(pool)),
        "evaluate": rate(lambda: [oracle.evaluate(part) for part in parts], len(pool)),
    }
    model = oracle.model
    if isinstance(model, EnsembleModel):
        arrays = [
            (
                amounts_of([c.composition for c in part]),
                np.array([c.space_group for c in part]),
                np.array([c.lattice for c in part]),
            )
            for part in parts
        ]
        row["arrays"] = rate(lambda: [model.predict_arrays(*a) for a in arrays], len(pool))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=4000, help="crystals timed per row")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pool = crystals(options.n)
    rows = [measure(name, batch, pool) for name in PROPERTIES for batch in (100, 1000)]
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "rows": rows,
    }
    lines = [
        "# Crystals a CPU-second",
        "",
        f"{result['machine']}, one thread, {result['date']}: `python benchmarks/proxy_speed.py`.",
        "",
        "| property | batch | predict | evaluate | arrays |",
        "|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['property']} | {r['batch']} | {r['predict']} | {r['evaluate']} | {r.get('arrays', '–')} |"
        )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "proxy_speed.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "proxy_speed.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
