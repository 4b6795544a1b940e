"""What the choice of fidelity is worth: regret at the target against cumulative cost, initial design included.

    python benchmarks/fidelity_choice.py sweep --seeds 10 --processes 2
    python benchmarks/fidelity_choice.py box --seeds 20 --processes 2
    ACTIVELEARNING_OBELIX=FOLDER python benchmarks/fidelity_choice.py materials --seeds 10 --processes 2

Suites:

    sweep      a pool of 1,024 points in six dimensions (`synthetic_task.py`): 4 costs of the cheap source x its
               relation to the target, which is a correlation from -1 to 1, or misleading in places
    box        Branin, Hartmann-6 and Borehole with the costs and biases of the literature (`problems.py`), and Branin
               with its cheap sources reversed
    materials  crystals with a conductivity that is computed exactly (`crystal_task.py`), and the measured
               conductivities of OBELiX with models of them as cheap sources (`obelix_task.py`)

Methods, with the same budget and paired seeds:

    joint            the sampler samples (candidate, fidelity) in proportion to MF-GIBBON / cost
    after            it samples candidates, and MF-GIBBON / cost picks the fidelity
    single_fidelity  the same at the target alone
    random_fidelity  candidates as by `single_fidelity`, the fidelity of each query drawn blindly; the best candidate
                     there by MF-GIBBON
    funnel           the cheapest fidelity for a fifth of the budget, the best of it at the next dearer one, and so on
    evolutionary     evolutionary search instead of the GFlowNet, otherwise as `joint`
    random           random candidates at the target
    botorch_mf_mes, botorch_mf_kg, botorch_log_ei    BoTorch's own loops (`botorch_loops.py`)

Campaigns may spend a fifth more than the budget of the task, at whose end the single-fidelity run is taken, so that it
shows by how much a method is dearer. The price of a method is what it had spent when it first had the regret that the
paired single-fidelity run had when the task's budget was spent, over that budget; the price of reaching it is the same
over what the single-fidelity run itself had spent when it first had that regret. Campaigns of the sweep end when they
have the best of the list.

BoTorch's loops end with the budget of the task and their recommendation, and are not made for reversed sources; their
single-fidelity loop is the same there as on the straight ones.

Every finished campaign is kept in `--work` with a digest of its config, so that an interrupted benchmark goes on where
it was and a changed one begins anew. Results are written to `benchmarks/results/fidelity_choice_<suite>.{json,md,png}`,
of all that is kept there and is of today's configs, whichever methods and tasks were run last; a method is compared on
the seeds that are finished with it and with the single-fidelity campaign.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from kept import keep_json
from scipy import stats
from tasks import Task
from top_k import top_k

from activelearning.candidate import digest

RESULTS = Path(__file__).parent / "results"
SMALLEST = 1e-6  # regrets are compared in logarithms, from this up
BEYOND = 1.2  # of the task's budget that a campaign may spend
K = 10
INITIAL_SHARE = {"sweep": 0.1, "box": 0.2, "materials": 0.1}  # of the task's budget
BATCH = 8
IN_BULK = 64  # of a funnel through materials, whose cheapest source is asked a thousand times
PER_ROUND = {"sweep": 2.0, "box": 1.5, "materials": 2.0}
SAMPLER = {"type": "gflownet", "steps": 150, "warm_steps": 60, "batch_size": 64, "hidden": [64, 64]}

COSTS = (0.01, 0.04, 0.2, 0.5)
RELATIONS: tuple[float | str, ...] = (-1.0, 0.0, 0.5, 0.95, 1.0, "places")
OURS = "joint"
BASE = "single_fidelity"
BOTORCH = ("botorch_mf_mes", "botorch_mf_kg", "botorch_log_ei")
ENGINE = (OURS, "after", BASE, "random_fidelity", "funnel", "evolutionary", "random")
METHODS: Mapping[str, tuple[str, ...]] = {
    "sweep": (OURS, BASE, "random_fidelity"),
    "box": (*ENGINE, *BOTORCH),
    "materials": ENGINE,
}


class Job(NamedTuple):
    """One campaign."""

    suite: str
    task: str
    method: str
    seed: int
    work: str

    @classmethod
    def of(cls, suite: str, task: str, method: str, seed: int, work: str) -> Job:
        """The campaign of a method on a task. What asks the target alone does not differ by the other sources."""
        if suite == "sweep" and method == BASE:
            task = task_names(suite)[0]
        elif suite == "box" and method in (BASE, "random", "botorch_log_ei"):
            task = task.split()[0]
        return cls(suite, task, method, seed, work)

    @property
    def path(self) -> Path:
        """Where its result is kept."""
        return Path(self.work) / f"{self.suite}-{self.task}-{self.method}-{self.seed}.json"

    def result(self, task: Task) -> dict[str, Any] | None:
        """What is kept of it; None where that is nothing, or of another config."""
        if not self.path.exists():
            return None
        kept: dict[str, Any] = json.loads(self.path.read_text())
        return kept if kept["config"] == digest_of(self, task) else None


def task_names(suite: str) -> list[str]:
    """Names of the suite's tasks."""
    if suite == "sweep":
        return [f"{cost:g} {relation}" for relation in RELATIONS for cost in COSTS]
    if suite == "box":
        return ["branin", "branin reversed", "hartmann6", "borehole"]
    return ["crystal", "obelix"]


def methods_of(suite: str, task: str) -> list[str]:
    """Methods that are compared on a task."""
    without = BOTORCH[:2] if task.endswith("reversed") else ()
    return [method for method in METHODS[suite] if method not in without]


@lru_cache(maxsize=64)
def make_task(suite: str, name: str, seed: int, work: Path) -> Task:
    """A task by its name."""
    if suite == "sweep":
        from synthetic_task import task as synthetic

        cost, relation = name.split()
        return synthetic(relation if relation == "places" else float(relation), float(cost), seed, work)
    if name == "crystal":
        import crystal_task

        return crystal_task.task()
    if name == "obelix":
        import obelix_task

        return obelix_task.task(work)
    of = _box_problem(name)
    return Task(
        name=name.replace(" ", "-"),
        space={"type": "box", "bounds": of["bounds"]},
        objective={"property": of["name"], "direction": of["direction"]},
        fidelities=of["fidelities"],
        optimum=of["optimum"],
        total=30.0 if of["name"] == "hartmann6" else 15.0,
        sections={"sampler": SAMPLER, "acquisition": {"reward_exponent": 2}},
    )


def _box_problem(name: str) -> dict[str, Any]:
    from problems import problem

    function = name.split()[0]
    reversed_levels = ["low", "medium"] if name.endswith("reversed") else []
    return problem(function, reversed_levels=reversed_levels)


def config_of(job: Job, task: Task) -> dict[str, Any]:
    """Config of one campaign."""
    suite, method, seed = job.suite, job.method, job.seed
    total = BEYOND * task.total
    acquisition = {"type": "mf_gibbon", "batch_size": BATCH, **task.sections.get("acquisition", {})}
    sections: dict[str, Any] = {"sampler": task.sections.get("sampler"), "safety": {}}
    if suite == "sweep":
        acquisition["pool_size"] = 4096
    if method in (BASE, "random"):
        task = task.with_fidelities()
    if method == "after":
        acquisition["mode"] = "after"
    elif method == "random_fidelity":
        acquisition["mode"] = "random"
    elif method == "funnel":
        acquisition["mode"] = "funnel"
        others = [f["name"] for f in task.fidelities if not f.get("target")]
        acquisition["shares"] = dict.fromkeys(others, 0.2 / BEYOND)
        if suite == "materials":
            acquisition["batch_size"] = IN_BULK
    elif method == "evolutionary":
        sections["sampler"] = {"type": "evolutionary"}
    elif method == "random":
        acquisition = {"type": "random", "batch_size": BATCH}
        sections["sampler"] = {"type": "random"}
    if task.space["type"] == "pool" and method not in ("evolutionary", "random"):
        sections["sampler"] = None
    value = task.campaign(
        seed=seed,
        total=total,
        **sections,
        acquisition=acquisition,
        initial_design={"share": INITIAL_SHARE[suite] / BEYOND},
    )
    value["budget"]["per_round"] = PER_ROUND[suite]
    if suite == "sweep":  # nothing is left to be found
        value["stopping"] = {"target_value": task.optimum - 1e-9}
    return value


def digest_of(job: Job, task: Task) -> str:
    """Digest of all that a config says of one campaign, wherever the files are that it names."""
    plain = _botorch_config(job, task) if job.method in BOTORCH else config_of(job, task)
    text = json.dumps({key: value for key, value in plain.items() if key != "name"})
    for folder, name in ((Path(__file__).parent, "benchmarks"), (Path(job.work).resolve(), "work")):
        text = text.replace(str(folder), name)
    return digest(json.loads(text))


def run_one(job: Job) -> None:
    """Run one campaign and keep its trace, where that has not been done."""
    task = make_task(job.suite, job.task, job.seed, Path(job.work))
    if job.result(task) is not None:
        return
    begin = time.process_time()
    found = _botorch(job, task) if job.method in BOTORCH else _campaign(job, task)
    found["config"] = digest_of(job, task)
    found["cpu_seconds"] = time.process_time() - begin
    found["optimum"], found["total"] = task.optimum, task.total
    keep_json(job.path, found)
    points = [p for p in found["points"] if p[1] is not None]
    print(
        f"{job.task} / {job.method} / seed {job.seed}: regret {task.regret(points[-1][1]):.3g} at "
        f"{points[-1][0]:.1f}, {found['cpu_seconds']:.0f} CPU-s",
        flush=True,
    )


def _campaign(job: Job, task: Task) -> dict[str, Any]:
    from activelearning.campaign.config import parse_config
    from activelearning.campaign.engine import Engine
    from activelearning.campaign.tick import run
    from activelearning.report import trace

    config = parse_config(config_of(job, task))
    store = job.path.with_suffix(".db")
    for leftover in store.parent.glob(f"{store.name}*"):  # of a run that was interrupted
        leftover.unlink()
    with Engine.open(config, folder=Path.cwd(), store=f"sqlite:///{store.resolve()}") as engine:
        run(engine)
        points = [(p.spent, p.best, p.fidelity) for p in trace(engine.database, config.name)]
        at_target = [(c, m.value) for c, name, m in engine.repository.answers() if name == task.target]
        features = engine.parts.space.features([candidate for candidate, _ in at_target])
        best = top_k(
            [value for _, value in at_target],
            features.numpy(),
            K,
            maximize=task.objective["direction"] == "maximize",
        )
    for leftover in store.parent.glob(f"{store.name}*"):
        leftover.unlink()
    return {"points": points, "top": [best.mean, best.diversity]}


def _botorch_config(job: Job, task: Task) -> dict[str, Any]:
    import botorch_loops

    method = job.method.removeprefix("botorch_")
    asked = task.with_fidelities() if method == "log_ei" else task
    return {
        "fidelities": list(asked.fidelities),
        "total": task.total,
        "effort": asdict(botorch_loops.EFFORT[method]),
    }


def _botorch(job: Job, task: Task) -> dict[str, Any]:
    import botorch_loops

    of = _box_problem(job.task)
    method = job.method.removeprefix("botorch_")
    points = botorch_loops.run(of, method, job.seed, task.total)
    at_target = [p for p in points if p[2] == task.target]
    values = sorted((p[3] for p in at_target), reverse=task.objective["direction"] == "maximize")[:K]
    return {"points": [p[:3] for p in points], "top": [float(np.mean(values)), None]}


# -- results ----------------------------------------------------------------------------------------------------------


def regrets(run: Mapping[str, Any], maximize: bool) -> list[tuple[float, float]]:
    """(spent, regret) after each answer, from the target's first on."""
    sign = 1.0 if maximize else -1.0
    return [
        (spent, max(sign * (run["optimum"] - best), 0.0))
        for spent, best, _ in run["points"]
        if best is not None
    ]


def regret_at(curve: Sequence[tuple[float, float]], cost: float) -> float:
    """Regret when `cost` is spent; before the target's first answer, that of the first."""
    paid = [regret for spent, regret in curve if spent <= cost * (1 + 1e-9)]
    return paid[-1] if paid else curve[0][1]


def price(curve: Sequence[tuple[float, float]], regret: float, total: float) -> float:
    """Share of `total` spent when a regret was first reached; infinite where it never was."""
    return next((spent / total for spent, found in curve if found <= regret + 1e-9), math.inf)


def interval_of_median(values: Sequence[float]) -> tuple[float, float, float]:
    """Median with its 95 % interval by order statistics (binomial), which infinities don't disturb."""
    ordered = sorted(values)
    n = len(ordered)
    low = int(stats.binom.ppf(0.025, n, 0.5))
    middle = 0.5 * (ordered[(n - 1) // 2] + ordered[n // 2])
    return middle, ordered[max(low - 1, 0)], ordered[min(n - low, n - 1)]


def summarise(suite: str, seeds: int, work: str) -> dict[str, Any]:
    """Figures of each task and method."""
    summary: dict[str, Any] = {}
    for name in task_names(suite):
        done = {m: _kept(suite, name, m, seeds, work) for m in methods_of(suite, name)}
        base, ours = done[BASE], done[OURS]
        if not base:
            continue
        total = next(iter(base.values()))["total"]
        target = next(iter(base.values()))["points"][0][2]  # the one fidelity that these campaigns ask
        # All tasks but two of the boxes are maximised.
        maximize = not (suite == "box" and name.split()[0] in ("branin", "hartmann6"))
        grid = np.linspace(0.0, BEYOND * total, 61)[1:]
        figures: dict[str, Any] = {}
        for m, found in done.items():
            paired = sorted(set(found) & set(base))
            if paired:
                runs = [found[s] for s in paired]
                figures[m] = _figures(runs, [base[s] for s in paired], total, grid, target, maximize)
                both = sorted(set(found) & set(ours))
                if both and m != OURS:
                    pairs = [(_log_regret(ours[s], maximize), _log_regret(found[s], maximize)) for s in both]
                    figures[m]["log10_regret_of_joint_against_it"] = list(
                        interval_of_median([mine - its for mine, its in pairs])
                    )
        summary[name] = {"total": total, "seeds": len(base), "cost": grid.tolist(), "methods": figures}
    return summary


def _kept(suite: str, task: str, method: str, seeds: int, work: str) -> dict[int, dict[str, Any]]:
    """Finished campaigns of a method on a task, by seed."""
    found = {}
    for seed in range(seeds):
        job = Job.of(suite, task, method, seed, work)
        if not job.path.exists():  # a task may take a while to make
            continue
        result = job.result(make_task(suite, job.task, seed, Path(work)))
        if result is None:
            print(f"{job.path} is of another config, and left out")
        else:
            found[seed] = result
    return found


def _log_regret(run: Mapping[str, Any], maximize: bool) -> float:
    """log10 of the regret when the task's budget is spent."""
    return math.log10(max(regret_at(regrets(run, maximize), run["total"]), SMALLEST))


def _figures(
    runs: Sequence[Mapping[str, Any]],
    base: Sequence[Mapping[str, Any]],
    total: float,
    grid: np.ndarray,
    target: str,
    maximize: bool,
) -> dict[str, Any]:
    """Figures of a method's campaigns beside the single-fidelity ones of the same seeds."""
    curves = [regrets(run, maximize) for run in runs]
    single = [regrets(run, maximize) for run in base]
    ends = [regret_at(curve, total) for curve in single]
    reached = [price(curve, end, total) for curve, end in zip(single, ends, strict=True)]
    values = np.array([[regret_at(curve, c) for c in grid] for curve in curves])
    final = [regret_at(curve, total) for curve in curves]
    logs = np.log10(np.maximum(final, SMALLEST)) - np.log10(np.maximum(ends, SMALLEST))
    prices = [price(curve, end, total) for curve, end in zip(curves, ends, strict=True)]
    return {
        "seeds": len(runs),
        "final_regret": final,
        "median_final_regret": float(np.median(final)),
        "prices": [p if math.isfinite(p) else None for p in prices],
        "price": _finite(interval_of_median(prices)),
        "price_of_reaching": _finite(
            interval_of_median([p / r for p, r in zip(prices, reached, strict=True)])
        ),
        "log10_regret_against_single": list(interval_of_median(logs.tolist())),
        "top_k_mean": float(np.mean([run["top"][0] for run in runs])),
        "top_k_diversity": _mean([run["top"][1] for run in runs]),
        "target_answers": float(
            np.mean(
                [sum(p[2] == target and p[0] <= total * (1 + 1e-9) for p in run["points"]) for run in runs]
            )
        ),
        "cpu_seconds": float(np.mean([run["cpu_seconds"] for run in runs])),
        "median_curve": [float(v) for v in np.median(values, axis=0)],
        "quartiles": np.quantile(values, [0.25, 0.75], axis=0).tolist(),
    }


def _finite(triple: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in triple]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(known)) if known else None


def _shown(triple: Sequence[float | None]) -> str:
    middle, low, high = ("never" if value is None else f"{value:.2f}" for value in triple)
    return f"{middle} [{low}, {high}]"


def table(suite: str, summary: Mapping[str, Any], machine: str, date: str) -> str:
    """The results as Markdown."""
    lines = [
        f"# What the choice of fidelity is worth: {suite}",
        "",
        f"{date}; {machine}. The price of a method is the cost at which it first had the regret that the paired "
        "single-fidelity run had when the task's budget was spent, over that budget (initial design included): median "
        f"over seeds with its 95 % interval by order statistics; `never` is beyond {BEYOND:g}. Made by "
        f"`python benchmarks/fidelity_choice.py {suite}`, which says what the tasks and methods are.",
        "",
    ]
    if suite == "sweep":
        seeds = sorted({f["seeds"] for found in summary.values() for f in found["methods"].values()})
        lines += [f"Seeds in a cell: {', '.join(map(str, seeds))}.", ""]
        reached = next(iter(summary.values()))["methods"][BASE]["price"]
        lines += [
            f"The single-fidelity run itself first had its final regret at {_shown(reached)} of the budget; the price "
            "of reaching it counts from there.",
            "",
        ]
        others = [m for m in METHODS[suite] if m != BASE]
        for method, (key, title) in itertools.product(
            others, (("price", "Price"), ("price_of_reaching", "Price of reaching it"))
        ):
            lines += [
                f"{title}, `{method}`, by the correlation of the cheap source with the target:",
                "",
                "| cost of a cheap answer | " + " | ".join(map(_relation, RELATIONS)) + " |",
                "|---" * (len(RELATIONS) + 1) + "|",
            ]
            for cost in COSTS:
                cells = [
                    _shown(summary[f"{cost:g} {r}"]["methods"][method][key])
                    if method in summary.get(f"{cost:g} {r}", {"methods": ()})["methods"]
                    else "–"
                    for r in RELATIONS
                ]
                lines.append(f"| {cost:g} | " + " | ".join(cells) + " |")
            lines.append("")
        return "\n".join(lines)
    lines += [
        "Beside it: the price of reaching that regret, over the cost at which the single-fidelity run itself did; the "
        "paired difference of log10 regret from the single-fidelity run's when the budget is spent, median and "
        f"interval (regrets below {SMALLEST:g} count as that), and that of `joint` from the method's; the target's "
        "answers for the budget; mean and diversity (mean distance over the square root of the number of features) of "
        f"the best {K} at the target, of BoTorch's loops for the budget, of campaigns for {BEYOND:g} times that.",
        "",
        *_of_botorch(suite),
        "| task (budget) | method | seeds | median regret | price | price of reaching it | log10 regret "
        "| `joint` against it | target answers | top-K mean | top-K diversity | CPU-s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in summary.items():
        for method, f in found["methods"].items():
            diversity = "–" if f["top_k_diversity"] is None else f"{f['top_k_diversity']:.2f}"
            lines.append(
                f"| {name} ({found['total']:g}) | {method} | {f['seeds']} | {f['median_final_regret']:.3g} "
                f"| {_shown(f['price'])} | {_shown(f['price_of_reaching'])} "
                f"| {_signed(*f['log10_regret_against_single'])} "
                f"| {_signed(*against) if (against := f.get('log10_regret_of_joint_against_it')) else '–'} "
                f"| {f['target_answers']:.1f} | {f['top_k_mean']:.4g} | {diversity} | {f['cpu_seconds']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def _of_botorch(suite: str) -> list[str]:
    """What is to be known of BoTorch's loops, where they are methods."""
    if not set(BOTORCH) & set(METHODS[suite]):
        return []
    import botorch_loops

    efforts = "; ".join(
        f"`botorch_{method}` {', '.join(f'{n} {name}' for name, n in asdict(effort).items() if n)}"
        for method, effort in botorch_loops.EFFORT.items()
    )
    return [
        "BoTorch's multi-fidelity loops keep the price of one target answer back for a recommendation at their end, so "
        f"that their price is often 1. What they spend on a query: {efforts}.",
        "",
    ]


def _signed(mean: float, low: float, high: float) -> str:
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]" if math.isfinite(low) else f"{mean:+.2f}"


def _relation(relation: float | str) -> str:
    return "misleads in places" if relation == "places" else f"{relation:g}"


def figure(suite: str, summary: Mapping[str, Any], path: Path) -> None:
    """Median regret against cost with quartiles; for the sweep, one panel a cell."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name in task_names(suite) if name in summary]
    columns = len(COSTS) if suite == "sweep" else min(len(names), 2)
    rows = math.ceil(len(names) / columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 2.6 * rows), constrained_layout=True, squeeze=False
    )
    for axis, name in zip(axes.flat, names, strict=False):
        found = summary[name]
        floor = 1e-2 if suite == "sweep" else SMALLEST
        for method, f in found["methods"].items():
            color = f"C{METHODS[suite].index(method)}"  # the same in all panels, whichever methods they have
            axis.plot(
                found["cost"],
                np.maximum(f["median_curve"], floor),
                color=color,
                label=method.replace("_", " "),
            )
            low, high = np.maximum(f["quartiles"], floor)
            axis.fill_between(found["cost"], low, high, alpha=0.12, color=color, linewidth=0)
        cost, _, relation = name.partition(" ")
        title = (
            f"cost {cost}, {_relation(relation if relation == 'places' else float(relation))}"
            if suite == "sweep"
            else name
        )
        axis.axvline(found["total"], color="0.7", linewidth=0.8, zorder=0)
        axis.set(title=title, yscale="log")
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("cost (target evaluations)")
    for axis in axes[:, 0]:
        axis.set_ylabel("regret")
    fullest = max(names, key=lambda name: len(summary[name]["methods"]))
    drawn = axes.flat[names.index(fullest)].get_legend_handles_labels()
    fig.legend(*drawn, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    fig.savefig(path, dpi=110)


def main() -> None:
    """Run what is missing, then write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", choices=[*METHODS])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--methods", nargs="+", help="of the suite's methods; all by default")
    parser.add_argument("--tasks", nargs="+", help="of the suite's tasks; all by default")
    parser.add_argument(
        "--report-only", action="store_true", help="run nothing, write the results of what is there"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/fidelity_choice"))
    arguments = parser.parse_args()
    suite = arguments.suite
    methods, tasks = arguments.methods or METHODS[suite], arguments.tasks or task_names(suite)
    for name, given, known in (
        ("methods", methods, METHODS[suite]),
        ("tasks", tasks, task_names(suite)),
    ):
        if set(given) - set(known):
            parser.error(f"--{name} of {suite} are {', '.join(known)}")
    arguments.work.mkdir(parents=True, exist_ok=True)
    work = str(arguments.work)
    if not arguments.report_only:
        # Seed by seed, so that an interrupted benchmark has all methods for the seeds it has.
        jobs = [
            Job.of(suite, name, method, seed, work)
            for seed in range(arguments.seeds)
            for name in tasks
            for method in methods_of(suite, name)
            if method in methods
        ]
        unique = list(dict.fromkeys(jobs))
        os.environ["OMP_NUM_THREADS"] = "1"
        with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
            for _ in pool.imap_unordered(run_one, unique):
                pass
    summary = summarise(suite, arguments.seeds, work)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    date = datetime.now(UTC).date().isoformat()
    written = {
        "made_by": f"python benchmarks/fidelity_choice.py {suite} --seeds {arguments.seeds}",
        "date": date,
        "machine": machine,
        "tasks": summary,
    }
    (RESULTS / f"fidelity_choice_{suite}.json").write_text(json.dumps(written, indent=1) + "\n")
    text = table(suite, summary, machine, date)
    (RESULTS / f"fidelity_choice_{suite}.md").write_text(text)
    figure(suite, summary, RESULTS / f"fidelity_choice_{suite}.png")
    print(text)


if __name__ == "__main__":
    main()
