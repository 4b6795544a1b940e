"""What becomes of crystals straight from the sampler in the oracles: a value, a bound, or a stated reason.

    python benchmarks/sampled_crystals.py --n 1000 --processes 2        # less than an hour of two threads

draws crystals of the space of `configs/li_conductors.yaml` by an untrained Crystal-GFN, as wild as they can be, and
asks each of its oracles of each of them: the proxy, the bond-valence barrier, and molecular dynamics, the last two of
one realisation, with at most 20 steps of relaxation, and 100 of dynamics in small cells. Told are the outcomes, the
longest time that one took beside the fidelity's limit, and the processes' memory as they go. A stopped run goes on from
what is in `--work`.
Writes `benchmarks/results/sampled_crystals.json` and a table beside it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import re
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from shipped_source import answer_of, identity_of, oracle_of, shipped

from activelearning.campaign.sections import construct
from activelearning.candidate import CrystalCandidate, digest
from activelearning.measurement import Measurement
from samplers.gflownet import GFlowNetSampler

RESULTS = Path(__file__).parent / "results"
CONFIG = "li_conductors"
RELAXATION = 20
ONE = {"n_realisations": 1, "relax_steps": RELAXATION}
SHORT = {
    "ml_proxy": {},
    "bvse": ONE,
    # 100 steps of 2 fs in all.
    "mace_md": ONE
    | {"n_relaxed": 1, "equilibration_ps": 0.05, "time_ps": 0.15, "max_time_ps": 0.15, "min_cell_edge": 6},
}


def crystals(n: int, seed: int) -> list[CrystalCandidate]:
    """What an untrained sampler proposes."""
    section = dict(shipped(CONFIG)["space"])
    space = construct("spaces", section.pop("type"), section, key="space", folder=None)
    proposals = GFlowNetSampler(space, None).sample_untrained(n, seed=seed)
    return [p.candidate for p in proposals if isinstance(p.candidate, CrystalCandidate)]


def fidelities() -> list[dict[str, Any]]:
    """Those of the config whose oracles compute, with few steps."""
    return [
        f | {"params": f.get("params", {}) | SHORT[f["oracle"]]}
        for f in shipped(CONFIG)["fidelities"]
        if f["oracle"] in SHORT
    ]


def outcome(measurement: Measurement, prop: str) -> dict[str, Any]:
    """Of one question: `value`, `bound` or `failed` with the reason.

    Raises:
        ValueError: it is none of them.
    """
    if not measurement.is_success:
        if not measurement.reason:
            raise ValueError("failed without a reason")
        return {"outcome": "failed", "reason": measurement.reason}
    value = measurement.values[prop]
    if not np.isfinite(value.value):
        raise ValueError(f"a value that is {value.value}")
    return {"outcome": "value" if value.censoring == "none" else "bound", "value": value.value}


def run_name(n: int, seed: int) -> str:
    """Of the files of a run: by what its crystals and its answers depend on, so that nothing of another is taken."""
    identity = {
        "space": shipped(CONFIG)["space"],
        "fidelities": fidelities(),
        "oracles": [identity_of(oracle_of(f, Path())) for f in fidelities()],
    }
    return f"n{n}-seed{seed}-{digest(identity)[:16]}"


def examine(share: tuple[int, int, int, int, Path]) -> None:
    """Ask all oracles of every `step`-th crystal, and append what becomes of each to a file."""
    first, step, n, seed, work = share
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    path = work / f"{run_name(n, seed)}-{first}-of-{step}.jsonl"
    done = {json.loads(line)["index"] for line in path.read_text().splitlines()} if path.exists() else set()
    with tempfile.TemporaryDirectory() as folder, path.open("a") as file:
        oracles = [(f, oracle_of(f, Path(folder))) for f in fidelities()]
        for index, candidate in list(enumerate(crystals(n, seed)))[first::step]:
            if index in done:
                continue
            row: dict[str, Any] = {
                "index": index,
                "crystal": f"{candidate.formula}, {candidate.space_group}",
                "answers": {},
            }
            for fidelity, oracle in oracles:
                started = time.perf_counter()
                found = answer_of(oracle, fidelity, candidate)
                row["answers"][fidelity["name"]] = outcome(found, fidelity["property"]) | {
                    "seconds": time.perf_counter() - started
                }
            row["memory"] = resident_memory()
            print(json.dumps(row), file=file, flush=True)


def resident_memory() -> float:
    """GiB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def main() -> None:
    """Ask, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/sampled_crystals"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    n, seed, processes = arguments.n, arguments.seed, arguments.processes
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(examine, [(k, processes, n, seed, arguments.work) for k in range(processes)], chunksize=1)
    rows = [
        json.loads(line)
        for path in sorted(arguments.work.glob(f"{run_name(n, seed)}-*-of-{processes}.jsonl"))
        for line in path.read_text().splitlines()
    ]
    report(rows, seed)


def report(rows: list[dict[str, Any]], seed: int) -> None:
    """Write results and table."""
    rows = sorted(rows, key=lambda row: row["index"])
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread each",
        "seed": seed,
        "crystals": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "sampled_crystals.json"
    path.write_text(json.dumps(result, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text("\n".join(table(result)) + "\n")


def table(result: dict[str, Any]) -> list[str]:
    """Lines of the table: outcomes by oracle, then reasons."""
    rows = result["crystals"]
    limits = {f["name"]: f.get("timeout", "none") for f in fidelities()}
    memory = [row["memory"] for row in rows]
    tenth = max(1, len(rows) // 10)
    lines = [
        f"{len(rows)} crystals straight from an untrained Crystal-GFN in the oracles of `configs/{CONFIG}.yaml`, "
        f"relaxed by at most {RELAXATION} steps and moved for 100; {result['date']}, {result['machine']}.",
        "",
        f"Memory of a process: {np.mean(memory[:tenth]):.1f} GiB in the first tenth, {np.mean(memory[-tenth:]):.1f} in "
        f"the last, {max(memory):.1f} at most.",
        "",
        "| oracle | values | bounds | failed, with a reason | seconds, median | longest | limit |",
        "|---|---|---|---|---|---|---|",
    ]
    reasons = []
    for name, limit in limits.items():
        answers = [row["answers"][name] for row in rows]
        counts = Counter(answer["outcome"] for answer in answers)
        seconds = [answer["seconds"] for answer in answers]
        lines.append(
            f"| {name} | {counts['value']} | {counts['bound']} | {counts['failed']} | {np.median(seconds):.2g} | "
            f"{max(seconds):.2g} | {limit} |"
        )
        said = Counter(_kind(answer["reason"]) for answer in answers if "reason" in answer)
        reasons += [f"| {name} | {reason} | {count} |" for reason, count in said.most_common()]
    return [*lines, "", "| oracle | reason | crystals |", "|---|---|---|", *reasons]


def _kind(reason: str) -> str:
    """A reason without its crystal, numbers, elements' pairs and lists."""
    reason = re.sub(r"^.* in space group \d+ has no realisation in .*?: ", "no realisation, ", reason)
    text = re.sub(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "#", reason)
    return re.split(r"[;:(]", text)[0].strip()[:110]


if __name__ == "__main__":
    main()
