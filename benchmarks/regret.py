"""Simple regret at the target fidelity against cumulative cost, initial design included, over paired seeds.

    python benchmarks/regret.py --seeds 10 --processes 2

Problems: Branin, Hartmann-6 and Borehole with cheap biased fidelities (`problems.py`), and Branin with its cheap source
reversed (correlation -1). Methods, all with the same budget and the same seeds:

    multi_fidelity    GFlowNet over (candidate, fidelity), MF-GIBBON / cost
    single_fidelity   the same at the target fidelity alone
    random_fidelity   GFlowNet candidates, fidelities drawn blindly
    evolutionary      as multi_fidelity, with an evolutionary search in place of the GFlowNet
    funnel            the cheap fidelity first, for a fifth of the budget, then the target of its best
    random            random candidates at the target fidelity

Every finished campaign is kept in `--work`, so that an interrupted benchmark goes on where it was. Results are written
to `benchmarks/results/regret.{json,md,png}`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from problems import campaign, problem
from scipy import stats

RESULTS = Path(__file__).parent / "results"
SMALLEST = 1e-6  # regrets are compared in logarithms, from this up

PROBLEMS: Mapping[str, tuple[dict[str, Any], float]] = {
    "branin": (problem("branin", levels=["low", "high"]), 15.0),
    "branin reversed": (problem("branin", levels=["low", "high"], reversed_levels=["low"]), 15.0),
    "hartmann6": (problem("hartmann6", levels=["low", "high"]), 30.0),
    "borehole": (problem("borehole"), 15.0),
}
METHODS = ("multi_fidelity", "single_fidelity", "random_fidelity", "evolutionary", "funnel", "random")
SAMPLER = {"type": "gflownet", "steps": 150, "warm_steps": 60, "batch_size": 64, "hidden": [64, 64]}
EVOLUTIONARY = {"type": "evolutionary", "steps": 60, "warm_steps": 30, "population": 64}
FUNNEL = {"mode": "funnel", "shares": {"low": 0.2}}


def config_of(name: str, method: str, seed: int) -> dict[str, Any]:
    """Config of one campaign."""
    of, total = PROBLEMS[name]
    if method in ("single_fidelity", "random"):
        of = {**of, "fidelities": [f for f in of["fidelities"] if f["name"] == "high"]}
    acquisition: dict[str, Any] = {
        "type": "mf_gibbon",
        "mode": "random" if method == "random_fidelity" else "joint",
        "batch_size": 4,
        "reward_exponent": 2,
    }
    sampler: dict[str, Any] = SAMPLER
    if method == "evolutionary":
        sampler = EVOLUTIONARY
    if method == "funnel":
        acquisition |= FUNNEL
    if method == "random":
        acquisition, sampler = {"type": "random", "batch_size": 4}, {"type": "random"}
    return campaign(
        of,
        total=total,
        seed=seed,
        sampler=sampler,
        acquisition=acquisition,
        budget={"total": total, "per_round": 1.5},
        initial_design={"share": 0.2},
    )


def run_one(job: tuple[str, str, int, str]) -> None:
    """Run one campaign and keep its trace."""
    name, method, seed, work = job
    path = Path(work) / f"{name.replace(' ', '_')}-{method}-{seed}.json"
    if path.exists():
        return
    from activelearning.campaign.config import parse_config
    from activelearning.campaign.engine import Engine
    from activelearning.campaign.tick import run
    from activelearning.report import trace

    config = parse_config(config_of(name, method, seed))
    store = path.with_suffix(".db")
    begin = time.process_time()
    with Engine.open(config, folder=Path.cwd(), store=f"sqlite:///{store.resolve()}") as engine:
        run(engine)
        points = [(p.spent, p.best, p.fidelity) for p in trace(engine.database, config.name)]
    for leftover in path.parent.glob(f"{store.name}*"):
        leftover.unlink()
    seconds = time.process_time() - begin
    path.write_text(json.dumps({"points": points, "cpu_seconds": seconds}))
    print(f"{name} / {method} / seed {seed}: best {points[-1][1]:.4g} in {seconds:.0f} CPU-s", flush=True)


def regret_at(points: Sequence[Sequence[Any]], cost: float, optimum: float) -> float:
    """Simple regret of the best target answer paid for by `cost`; before any, that of the first."""
    known = [best for _, best, _ in points if best is not None]
    paid = [best for spent, best, _ in points if best is not None and spent <= cost * (1 + 1e-9)]
    return abs((paid[-1] if paid else known[0]) - optimum)


def interval(differences: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % t-interval of paired differences."""
    mean = float(differences.mean())
    half = float(stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences))
    return mean, mean - half, mean + half


def summarise(work: Path, seeds: int) -> dict[str, Any]:
    """Tables of regrets and paired comparisons against random search."""
    summary: dict[str, Any] = {}
    for name, (of, total) in PROBLEMS.items():
        runs = {
            method: [
                json.loads((work / f"{name.replace(' ', '_')}-{method}-{seed}.json").read_text())
                for seed in range(seeds)
            ]
            for method in METHODS
        }
        grid = np.linspace(0.2 * total, total, 33)
        curves = {
            method: np.array([[regret_at(r["points"], c, of["optimum"]) for c in grid] for r in found])
            for method, found in runs.items()
        }
        logs = {method: np.log10(np.maximum(values, SMALLEST)) for method, values in curves.items()}
        methods = {}
        for method in METHODS:
            against = logs[method][:, -1] - logs["random"][:, -1]
            whole = logs[method].mean(axis=1) - logs["random"].mean(axis=1)
            methods[method] = {
                "final_regret": [float(v) for v in curves[method][:, -1]],
                "median_final_regret": float(np.median(curves[method][:, -1])),
                "target_evaluations": [sum(1 for p in r["points"] if p[2] == "high") for r in runs[method]],
                "cpu_seconds": float(np.mean([r["cpu_seconds"] for r in runs[method]])),
                "log10_regret_against_random": interval(against) if method != "random" else None,
                "mean_log10_regret_against_random": interval(whole) if method != "random" else None,
                "median_curve": [float(v) for v in np.median(curves[method], axis=0)],
                "quartiles": np.quantile(curves[method], [0.25, 0.75], axis=0).tolist(),
            }
        summary[name] = {"total": total, "cost": grid.tolist(), "methods": methods}
    return summary


def table(summary: Mapping[str, Any], seeds: int, machine: str) -> str:
    """The results as Markdown."""
    lines = [
        "# Simple regret at equal cost",
        "",
        f"{seeds} paired seeds; {machine}. Regret of the best answer at the target fidelity when the budget is spent, "
        "initial design included. The comparison is the mean difference of log10 regret from random search with its "
        "paired 95 % interval: at the end, and averaged over the spend from 20 % to 100 % of the budget. Made by "
        "`python benchmarks/regret.py`.",
        "",
        "| problem | budget | method | median regret | at the end | over the spend | target answers | CPU-s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in summary.items():
        for method, figures in found["methods"].items():

            def shown(triple: Sequence[float] | None) -> str:
                if triple is None:
                    return "–"
                return f"{triple[0]:+.2f} [{triple[1]:+.2f}, {triple[2]:+.2f}]"

            lines.append(
                f"| {name} | {found['total']:g} | {method} | {figures['median_final_regret']:.3g} "
                f"| {shown(figures['log10_regret_against_random'])} "
                f"| {shown(figures['mean_log10_regret_against_random'])} "
                f"| {np.mean(figures['target_evaluations']):.1f} | {figures['cpu_seconds']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def figure(summary: Mapping[str, Any], path: Path) -> None:
    """Median regret against cost with quartiles."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, len(summary), figsize=(4 * len(summary), 3.4), constrained_layout=True)
    for axis, (name, found) in zip(axes, summary.items(), strict=True):
        for method, figures in found["methods"].items():
            (line,) = axis.plot(
                found["cost"], np.maximum(figures["median_curve"], SMALLEST), label=method.replace("_", " ")
            )
            low, high = np.maximum(figures["quartiles"], SMALLEST)
            axis.fill_between(found["cost"], low, high, alpha=0.15, color=line.get_color(), linewidth=0)
        axis.set(title=name, xlabel="cost (target evaluations)", yscale="log")
    axes[0].set_ylabel("simple regret, median and quartiles")
    axes[0].legend(frameon=False, fontsize=8)
    fig.savefig(path, dpi=130)


def main() -> None:
    """Run what is missing, then write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/regret"), help="finished campaigns are kept here"
    )
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    # Seed by seed, so that an interrupted benchmark has all methods for the seeds it has.
    jobs = [
        (name, method, seed, str(arguments.work))
        for seed in range(arguments.seeds)
        for name in PROBLEMS
        for method in METHODS
    ]
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for _ in pool.imap_unordered(run_one, jobs):
            pass
    summary = summarise(arguments.work, arguments.seeds)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    written = {
        "made_by": f"python benchmarks/regret.py --seeds {arguments.seeds}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "seeds": arguments.seeds,
        "problems": summary,
    }
    (RESULTS / "regret.json").write_text(json.dumps(written, indent=1) + "\n")
    text = table(summary, arguments.seeds, machine)
    (RESULTS / "regret.md").write_text(text)
    figure(summary, RESULTS / "regret.png")
    print(text)


if __name__ == "__main__":
    main()
