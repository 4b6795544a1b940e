"""Whether the default surrogate's intervals hold what they promise, on the crystal and the OBELiX task.

    ACTIVELEARNING_OBELIX=FOLDER python benchmarks/surrogate_coverage.py --seeds 10 --processes 2

A training set has n observations, a fifth of them at the target and the rest shared by the cheap fidelities, of nested
candidates (those of the target are among those of the others), as a campaign has them. Two designs:

    random      candidates at random
    campaign    half of them at random, half drawn in proportion to exp(2 z), z being the standardised answer of the
                task's better cheap source: concentrated on what looks good

Candidates to be predicted are drawn likewise, and never trained on. A draw depends on a cheap answer at most, never on
the target's: of points chosen for their own value an interval holds less, however honest it is, and so the cheap source
that guides the campaign design is judged there a little too hard. Coverage is the share of held-out answers inside the
central predictive interval of their fidelity, its learned noise included; bounds are learned from, and not scored.
Beside it stand the error, and the half-width of the 90 % interval, both over the standard deviation of the answers held
out, and the share of training answers that the surrogate's own leave-one-out intervals hold. Intervals behind ± are
those of the mean over seeds (95 %, t).

Finished fits are kept in `--work`. Results are written to `benchmarks/results/surrogate_coverage.{json,md}`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import keep_json
from numpy.typing import NDArray
from scipy import stats

from activelearning.candidate import Candidate
from activelearning.contracts import Space, Surrogate
from activelearning.fidelity import Fidelity
from activelearning.measurement import Censoring
from activelearning.observation import Observation

Array = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results"
SIZES = (50, 100, 200)
DESIGNS = ("random", "campaign")
LEVELS = (0.5, 0.9)
TARGET_SHARE = 0.2
N_TEST = 150
TILT = 2.0
RANGE_90 = (0.80, 0.97)  # what coverage of the 90 % interval is held to


@dataclass(frozen=True)
class Universe:
    """Candidates with their answers at every fidelity.

    Attributes:
        space: Gives the features.
        fidelities: By index, M in all.
        candidates: n of them.
        answers: `n x M`.
        is_bound: Where an answer is an upper bound, `n x M`.
        guide: Index of the better cheap source.
    """

    space: Space
    fidelities: tuple[Fidelity, ...]
    candidates: Sequence[Candidate]
    answers: Array
    is_bound: NDArray[np.bool_]
    guide: int

    @property
    def target(self) -> int:
        """Index of the target fidelity."""
        return next(f.index for f in self.fidelities if f.is_target)


def crystal_universe(seed: int, work: Path) -> Universe:
    """3,000 random crystals of the crystal task, others for each seed."""
    import crystal_task

    crystals = crystal_task.random_crystals(3000, seed=1000 + seed)
    known = crystal_task.Crystals.of(crystals)
    answers = np.stack([crystal_task.log10_conductivity(known, name) for name in crystal_task.COSTS], axis=1)
    names = [*crystal_task.COSTS]
    return Universe(
        crystal_task.space(),
        _fidelities(crystal_task.COSTS, "hopping"),
        crystals,
        answers,
        np.zeros(answers.shape, dtype=bool),
        names.index("frozen"),
    )


def obelix_universe(seed: int, work: Path) -> Universe:
    """The OBELiX task's pool, the same for every seed."""
    import obelix_task

    from activelearning.spaces.pool import PoolSpace

    pool = obelix_task.prepare(work)
    space = PoolSpace(pool.file)
    names = [*obelix_task.COSTS]
    is_bound = np.zeros((len(pool.ids), len(names)), dtype=bool)
    is_bound[:, names.index("measured")] = pool.is_bound
    return Universe(
        space,
        _fidelities(obelix_task.COSTS, "measured"),
        space.candidates,
        np.stack([pool.answers[name] for name in names], axis=1),
        is_bound,
        names.index("proxy"),
    )


UNIVERSES: Mapping[str, Callable[[int, Path], Universe]] = {
    "crystal": crystal_universe,
    "obelix": obelix_universe,
}


def _fidelities(costs: Mapping[str, float], target: str) -> tuple[Fidelity, ...]:
    return tuple(
        Fidelity(name, i, "log10_conductivity", "log10(S/cm)", cost, name == target)
        for i, (name, cost) in enumerate(costs.items())
    )


def draw(universe: Universe, design: str, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """n distinct candidates in random order, by a design."""
    guide = universe.answers[:, universe.guide]
    weights = np.exp(TILT * (guide - guide.mean()) / guide.std())
    n_random = n if design == "random" else (n + 1) // 2
    rows = rng.permutation(len(guide))[:n_random]
    weights[rows] = 0.0
    tilted = rng.choice(len(guide), n - n_random, replace=False, p=weights / weights.sum())
    return rng.permutation(np.concatenate([rows, tilted]))


def training_set(universe: Universe, rows: NDArray[np.int64], n: int) -> list[Observation]:
    """n observations: of the first rows a fifth at the target, the rest in equal parts at the other fidelities."""
    n_target, others = round(TARGET_SHARE * n), [f for f in universe.fidelities if not f.is_target]
    counts = {f.index: (n - n_target) // len(others) for f in others} | {universe.target: n_target}
    return [
        Observation(
            universe.candidates[row],
            index,
            float(universe.answers[row, index]),
            None,
            Censoring.UPPER if universe.is_bound[row, index] else Censoring.NONE,
        )
        for index, count in counts.items()
        for row in rows[:count].tolist()
    ]


def split(universe: Universe, design: str, n: int, seed: int) -> tuple[list[Observation], NDArray[np.int64]]:
    """A training set of n observations, and rows of the universe that it has nothing of."""
    rng = np.random.default_rng([seed, n, DESIGNS.index(design)])
    most = (n - round(TARGET_SHARE * n)) // (len(universe.fidelities) - 1)
    rows = draw(universe, design, most + N_TEST, rng)
    return training_set(universe, rows[:most], n), rows[most:]


def measure(universe: Universe, design: str, n: int, seed: int) -> dict[str, Any]:
    """Fit the default surrogate to one training set and score it on held-out candidates.

    Returns:
        `seconds` (CPU, of the fit), `figures` of the fit, and under `fidelities` by name `n, coverage_50, coverage_90,
        error, width` and `z` (standardised errors).
    """
    from surrogates.multi_fidelity_gp import MultiFidelityGP

    observations, rows = split(universe, design, n, seed)
    model = MultiFidelityGP(universe.space, universe.fidelities)
    begin = time.process_time()
    figures = model.fit(observations, seed=seed)
    seconds = time.process_time() - begin
    found: dict[str, Any] = {}
    for fidelity in universe.fidelities:
        held_out = rows[~universe.is_bound[rows, fidelity.index]]
        truth = universe.answers[held_out, fidelity.index]
        mean, std = predict(model, universe, [universe.candidates[row] for row in held_out], fidelity.index)
        found[fidelity.name] = score(truth, mean, std)
    return {"seconds": seconds, "figures": figures, "fidelities": found}


def predict(
    model: Surrogate, universe: Universe, candidates: Sequence[Candidate], fidelity: int
) -> tuple[Array, Array]:
    """Mean and standard deviation of answers at one fidelity, noise included, each `n`."""
    prediction = model.predict(candidates, fidelity)
    query = torch.zeros(len(candidates), universe.space.n_features + 1, dtype=torch.float64)
    query[:, -1] = fidelity
    std = (prediction.std.square() + model.model.noise_variance(query)).sqrt()
    return prediction.mean.numpy(), std.numpy()


def score(truth: Array, mean: Array, std: Array) -> dict[str, Any]:
    """Coverage, error and width of Gaussian predictions, each `n`."""
    z = (truth - mean) / std
    spread = float(truth.std())
    return {
        "n": len(truth),
        **{
            f"coverage_{round(100 * level)}": float((np.abs(z) <= stats.norm.ppf(0.5 + level / 2)).mean())
            for level in LEVELS
        },
        "error": float(np.sqrt(((truth - mean) ** 2).mean())) / spread,
        "width": float(stats.norm.ppf(0.95) * std.mean()) / spread,
        "z": [round(float(value), 4) for value in z],
    }


def run_one(job: tuple[str, str, int, int, str]) -> None:
    """Measure one training set and keep what was found."""
    name, design, n, seed, work = job
    path = Path(work) / f"{name}-{design}-{n}-{seed}.json"
    if path.exists():
        return
    torch.set_num_threads(1)
    universe = _universe(name, seed, work)
    found = measure(universe, design, n, seed)
    keep_json(path, found)
    said = {k: (v["coverage_90"], round(v["error"], 2)) for k, v in found["fidelities"].items()}
    print(f"{name} / {design} / n = {n} / seed {seed}: {said}, {found['seconds']:.0f} CPU-s", flush=True)


@cache
def _universe(name: str, seed: int, work: str) -> Universe:
    return UNIVERSES[name](seed, Path(work))


def summarise(work: Path, seeds: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each task, design, size and fidelity: means over seeds with the half-width of their intervals."""
    rows = []
    for name, design, n in itertools.product(names, DESIGNS, SIZES):
        runs = [json.loads((work / f"{name}-{design}-{n}-{seed}.json").read_text()) for seed in range(seeds)]
        for fidelity in runs[0]["fidelities"]:
            row: dict[str, Any] = {"task": name, "design": design, "n": n, "fidelity": fidelity}
            for figure in ("coverage_50", "coverage_90", "error", "width"):
                values = np.array([run["fidelities"][fidelity][figure] for run in runs])
                row[figure] = float(values.mean())
                row[f"{figure}_interval"] = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
            errors = np.concatenate([run["fidelities"][fidelity]["z"] for run in runs])
            row["inflation"] = float(np.median([run["figures"]["inflation"][fidelity] for run in runs]))
            left_out = [run["figures"]["loo_coverage_90"][fidelity] for run in runs]
            row["loo_coverage_90"] = float(np.mean(left_out))
            row["mean_square_z"] = float((errors**2).mean())
            rows.append(row)
    return rows


def table(rows: Sequence[Mapping[str, Any]], seeds: int, machine: str, date: str) -> str:
    """The results as Markdown."""
    outside = [row for row in rows if not RANGE_90[0] <= row["coverage_90"] <= RANGE_90[1]]
    lines = [
        "# Coverage of the surrogate's intervals",
        "",
        f"{date}; {machine}; {seeds} seeds. Share of held-out answers in the central 50 % and 90 % predictive "
        "intervals of the default surrogate, noise included; error and half-width of the 90 % interval over the "
        "standard deviation of the answers; leave-one-out coverage of the training answers, hyper-parameters held, as "
        "the surrogate itself reports it. ± is the 95 % interval of the mean over seeds. Made by "
        "`python benchmarks/surrogate_coverage.py`.",
        "",
        f"Outside of {RANGE_90[0]:.0%} to {RANGE_90[1]:.0%} are {len(outside)} of {len(rows)} coverages of the 90 % "
        f"interval{' (bold)' if outside else ''}. The inflation is the factor on predicted variances that the "
        "surrogate found by cross-validation (median over seeds).",
        "",
        "| task | design | n | fidelity | 50 % | 90 % | leave-one-out, 90 % | error | width | mean z² | inflation |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ninety = f"{row['coverage_90']:.2f} ± {row['coverage_90_interval']:.2f}"
        lines.append(
            f"| {row['task']} | {row['design']} | {row['n']} | {row['fidelity']} "
            f"| {row['coverage_50']:.2f} ± {row['coverage_50_interval']:.2f} "
            f"| {f'**{ninety}**' if row in outside else ninety} "
            f"| {row['loo_coverage_90']:.2f} | {row['error']:.2f} | {row['width']:.2f} | {row['mean_square_z']:.2f} "
            f"| {row['inflation']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, then write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tasks", nargs="+", choices=[*UNIVERSES], default=[*UNIVERSES])
    parser.add_argument(
        "--work", type=Path, default=Path("runs/coverage"), help="finished fits are kept here"
    )
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    jobs = [
        (name, design, n, seed, str(arguments.work))
        for seed in range(arguments.seeds)
        for name in arguments.tasks
        for design in DESIGNS
        for n in SIZES
    ]
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for _ in pool.imap_unordered(run_one, jobs):
            pass
    rows = summarise(arguments.work, arguments.seeds, arguments.tasks)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    date = datetime.now(UTC).date().isoformat()
    written = {
        "made_by": f"python benchmarks/surrogate_coverage.py --seeds {arguments.seeds}",
        "date": date,
        "machine": machine,
        "seeds": arguments.seeds,
        "rows": rows,
    }
    (RESULTS / "surrogate_coverage.json").write_text(json.dumps(written, indent=1) + "\n")
    text = table(rows, arguments.seeds, machine, date)
    (RESULTS / "surrogate_coverage.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
