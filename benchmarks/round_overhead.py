"""What a round costs beside its oracles and the sampler's training, by parts and by the number of observations.

    python benchmarks/round_overhead.py

writes `benchmarks/results/round_overhead.json` and a table beside it. Campaigns with the default surrogate and
acquisition (16 evaluations of two fidelities a round) on a box of six parameters (Hartmann-6) and on crystals of Li, P,
S and Cl (density) start from n observations; times are CPU seconds of one thread. `first` is the round after the
initial design, whose fit is a cold one; `later` the mean of those after it. What the store's full reads take is
measured apart, up to thousands of rows, and what Prefect adds by the same rounds with and without it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from problems import campaign, problem

from activelearning.campaign.config import parse_config
from activelearning.campaign.engine import Engine
from activelearning.campaign.tick import evaluate_outstanding, tick
from activelearning.report.prequential import forecasts
from activelearning.store.models import OPEN_STATES

RESULTS = Path(__file__).parent / "results"
PARTS = ("reconcile", "ingest", "decide", "fit", "scoring", "choice", "commit", "submit", "evaluate")
SAMPLER = {"type": "gflownet", "steps": 20, "warm_steps": 20, "batch_size": 64, "hidden": [64, 64]}
CRYSTALS: dict[str, Any] = {
    "space": {"type": "crystal", "elements": ["Li", "P", "S", "Cl"], "max_atoms": 24},
    "objective": {"property": "density", "unit": "g/cm3", "direction": "maximize"},
    "fidelities": [
        {"name": "low", "oracle": "density", "cost": 0.125, "params": {"noise_std": 0.2}},
        {"name": "high", "oracle": "density", "cost": 1.0, "target": True},
    ],
}


def config_of(space: str, n: int, **more: Any) -> dict[str, Any]:
    """A campaign that starts from n observations, four fifths of them cheap."""
    keys: dict[str, Any] = {
        "seed": 1,
        "sampler": SAMPLER,
        "acquisition": {"type": "mf_gibbon", "batch_size": 8},
        "budget": {"total": 1e6, "per_round": 9.0},
        "initial_design": {"per_fidelity": {"low": n - n // 5, "high": n // 5}},
        **more,
    }
    if space == "box":
        return campaign(problem("hartmann6", levels=["low", "high"]), total=1e6, **keys)
    return {"name": "crystal", **CRYSTALS, **keys}


class Clock:
    """CPU seconds by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, its time added to a part's."""

        def run(*arguments: Any, **keywords: Any) -> Any:
            begin = time.process_time()
            try:
                return work(*arguments, **keywords)
            finally:
                self.seconds[part] = self.seconds.get(part, 0.0) + time.process_time() - begin

        return run


def one_round(engine: Engine, clock: Clock) -> dict[str, float]:
    """The steps of `activelearning.campaign.tick.tick`, each timed.

    The sampler's training, with the rewards that it asks for, is taken out.
    """
    clock.seconds = {}
    with engine.lease():
        for step in ("reconcile", "ingest", "decide", "fit", "propose", "commit", "submit"):
            clock.timed(step, getattr(engine, step))()
    clock.timed("evaluate", evaluate_outstanding)(engine)
    found = dict(clock.seconds)
    # What is left of `propose`: the acquisition, reward and scores of samples; `choice` is the greedy choice itself.
    training = found.pop("training", 0.0)
    found["scoring"] = found.pop("propose") - training - found.get("choice", 0.0)
    return {part: found.get(part, 0.0) for part in PARTS} | {"training": training}


def measure(space: str, n: int, rounds: int, folder: Path, **more: Any) -> dict[str, Any]:
    """One row: CPU seconds of the parts of a round after n observations."""
    from activelearning.campaign.proposing import Proposer

    clock = Clock()
    config = parse_config(config_of(space, n, **more))
    choose = Proposer._choose
    with Engine.open(config, folder=folder, store=f"sqlite:///{folder}/{space}-{n}.db") as engine:
        tick(engine)  # the initial design
        sampler = engine.parts.sampler
        sampler.fit = clock.timed("training", sampler.fit)  # type: ignore[method-assign]
        Proposer._choose = clock.timed("choice", choose)  # type: ignore[method-assign]
        try:
            found = [one_round(engine, clock) for _ in range(rounds)]
        finally:
            Proposer._choose = choose  # type: ignore[method-assign]
        n_end = len(engine.repository.answers())
    later = {part: sum(r[part] for r in found[1:]) / (rounds - 1) for part in (*PARTS, "training")}
    return {"space": space, "n": n, "n_at_the_end": n_end, "first": found[0], "later": later}


def reads(folder: Path, sizes: list[int]) -> list[dict[str, Any]]:
    """CPU milliseconds of what is read in full each round, by the number of evaluations."""
    rows = []
    for space in ("box", "crystal"):
        for n in sizes:
            store = f"sqlite:///{folder}/reads-{space}-{n}.db"
            with Engine.open(parse_config(config_of(space, n)), folder=folder, store=store) as engine:
                tick(engine)
                found = {name: _milliseconds(read) for name, read in _full_reads(engine).items()}
            rows.append({"space": space, "n": n, **found})
    return rows


def _full_reads(engine: Engine) -> dict[str, Callable[[], Any]]:
    repository = engine.repository
    return {
        "answers": repository.answers,
        "outcomes": repository.outcomes,
        "times_asked": repository.times_asked,
        "forecasts": lambda: forecasts(engine.database, engine.name),
        "open evaluations": lambda: repository.evaluations(states=OPEN_STATES),
        "count_by_round": repository.count_by_round,
        "answers, features": lambda: engine.parts.space.features(
            [answer[0] for answer in repository.answers()]
        ),
    }


def _milliseconds(work: Callable[[], Any], repeats: int = 3) -> float:
    work()
    begin = time.process_time()
    for _ in range(repeats):
        work()
    return 1000.0 * (time.process_time() - begin) / repeats


def prefect(folder: Path, rounds: int) -> dict[str, float]:
    """Seconds a round with and without Prefect, wall time and CPU of this process, and wall seconds of its start."""
    from prefect.testing.utilities import prefect_test_harness

    from flows.launch import run_campaign

    config = parse_config(
        config_of(
            "box",
            20,
            sampler={"type": "random"},
            surrogate={"type": "multi_fidelity_gp", "max_iterations": 1},
        )
    )
    found = {}
    with Engine.open(config, folder=folder, store=f"sqlite:///{folder}/alone.db") as engine:
        tick(engine)
        begin, cpu = time.perf_counter(), time.process_time()
        for _ in range(rounds):
            tick(engine)
        found["alone"] = (time.perf_counter() - begin) / rounds
        found["alone, CPU"] = (time.process_time() - cpu) / rounds
    begin = time.perf_counter()
    with prefect_test_harness(server_startup_timeout=120):
        found["server"] = time.perf_counter() - begin
        with Engine.open(config, folder=folder, store=f"sqlite:///{folder}/prefect.db") as engine:
            run_campaign(engine, None, rounds=1)  # imports, and the initial design
            begin, cpu = time.perf_counter(), time.process_time()
            run_campaign(engine, None, rounds=rounds)
            found["with Prefect"] = (time.perf_counter() - begin) / rounds
            found["with Prefect, CPU"] = (time.process_time() - cpu) / rounds
    return found


def table(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# What a round costs beside its oracles",
        "",
        f"CPU seconds of one thread, {result['date']}, {result['machine']}; the sampler's training, with the rewards "
        "that it asks for, left out. The campaign starts from n observations and asks 16 questions a round. `first` is "
        "the first round (cold fit), `later` the mean of those after it; `scoring` is the rest of the proposal beside "
        "the greedy choice. Made by `python benchmarks/round_overhead.py`.",
        "",
        f"| space | n | round | {' | '.join(PARTS)} | all |",
        "|---|---:|---|" + "---:|" * (len(PARTS) + 1),
    ]
    for row in result["rounds"]:
        for which in ("first", "later"):
            parts = row[which]
            total = sum(parts[part] for part in PARTS)
            shown = " | ".join(f"{parts[part]:.3f}" for part in PARTS)
            lines.append(f"| {row['space']} | {row['n']} | {which} | {shown} | {total:.2f} |")
    names = [name for name in result["reads"][0] if name not in ("space", "n")]
    lines += [
        "",
        "CPU milliseconds of one full read of the store:",
        "",
        f"| space | n | {' | '.join(names)} |",
        "|---|---:|" + "---:|" * len(names),
    ]
    for row in result["reads"]:
        lines.append(f"| {row['space']} | {row['n']} | {' | '.join(f'{row[name]:.1f}' for name in names)} |")
    if result["prefect"]:
        found = result["prefect"]
        lines += [
            "",
            f"With Prefect a round takes {found['with Prefect, CPU']:.2f} CPU-s of the campaign's process and "
            f"{found['with Prefect']:.2f} s of wall time, without it {found['alone, CPU']:.2f} CPU-s and "
            f"{found['alone']:.2f} s (a box, the random sampler, a fit of one iteration; wall times are of a machine "
            f"that may be busy with other work). Prefect's server takes {found['server']:.0f} s to start, once.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[50, 200, 500], help="observations to start from")
    parser.add_argument("--reads", type=int, nargs="+", default=[500, 5000], help="rows for the full reads")
    parser.add_argument("--rounds", type=int, default=3, help="rounds measured, at least 2")
    parser.add_argument("--no-prefect", action="store_true", help="leave out what Prefect adds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured = []
        for space in ("box", "crystal"):
            for n in arguments.n:
                measured.append(measure(space, n, arguments.rounds, folder))
                print(json.dumps(measured[-1]), flush=True)
        result = {
            "made_by": "python benchmarks/round_overhead.py",
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "rounds": measured,
            "reads": reads(folder, arguments.reads),
            "prefect": None if arguments.no_prefect else prefect(folder, 5),
        }
    text = table(result)
    (arguments.out / "round_overhead.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.out / "round_overhead.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
