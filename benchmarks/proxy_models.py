"""Which model for the proxy of conductivity: errors on log10 σ in cross-validation by groups, and at random.

    python benchmarks/proxy_models.py --data OBELIX_FOLDER

writes `benchmarks/results/proxy_models.json` and a table beside it. A random split puts rows of one paper on both sides
and flatters; the choice rests on the split by groups. Bounds enter every model as values, but those that say otherwise.

What was tried on the way to the default (parts of its kernel, descriptors of the trees) was tried in folds of the seeds
0 to 3. The figures are those of other seeds, and the process chooses its settings within each training part. Seeds deal
the same rows anew, so that they are no new data: four groups hold half of the rows, whatever the seed. How sure a gain
is, resampling of whole groups tells.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from composition_network import fit_and_predict
from numpy.typing import NDArray

from activelearning.crystals.descriptors import DESCRIPTOR_NAMES
from oracles.ml_proxy.data import CrystalTable, find_obelix, read_training
from oracles.ml_proxy.measured_training import N_FOLDS, calibrated_std, describe
from oracles.ml_proxy.process_training import fit_process
from oracles.ml_proxy.properties import PROPERTIES
from oracles.ml_proxy.scoring import score
from oracles.ml_proxy.splitting import grouped_folds, splits

Array = NDArray[np.float64]
# Descriptors, values, bounds and groups to train on, descriptors to predict, seed -> means and variances (or None).
Model = Callable[[Array, Array, NDArray[np.bool_], NDArray[np.int64], Array, int], tuple[Array, Array | None]]

SEEDS = (10, 11, 12)
N_RESAMPLES = 2000
NAME = "log10_conductivity"
BASELINE, SHIPPED = "random forest of OBELiX", "Gaussian process (shipped)"
RESULTS = Path(__file__).parent / "results"
# What OBELiX's own forest sees: fractions of the elements, number of the space group, lattice.
PLAIN = [
    i
    for i, name in enumerate(DESCRIPTOR_NAMES)
    if (name.startswith("fraction_") and not name.startswith("fraction_norm"))
    or name in ("space_group", "a", "b", "c", "cos_alpha", "cos_beta", "cos_gamma")
]
EVERY = list(range(len(DESCRIPTOR_NAMES)))


def library(columns: list[int], make: Callable[[int], Any]) -> Model:
    """A model of scikit-learn on some of the descriptors."""

    def predict(x: Array, y: Array, _b: Any, _g: Any, new: Array, seed: int) -> tuple[Array, None]:
        return make(seed).fit(x[:, columns], y).predict(new[:, columns]), None

    return predict


def process(
    x: Array, y: Array, is_bound: NDArray[np.bool_], groups: NDArray[np.int64], new: Array, _seed: int
) -> tuple[Array, Array]:
    return fit_process(x, y, is_bound, groups).predict(new)


def network(
    x: Array, y: Array, is_bound: NDArray[np.bool_], _g: Any, new: Array, seed: int
) -> tuple[Array, None]:
    return fit_and_predict(x, y, is_bound, new, seed), None


def models() -> Mapping[str, Model]:
    """The models compared."""
    from sklearn.dummy import DummyRegressor
    from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor, RandomForestRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    def trees(seed: int) -> Any:
        return ExtraTreesRegressor(100, min_samples_leaf=1, max_features=0.5, random_state=seed)

    def boosting(seed: int) -> Any:
        return GradientBoostingRegressor(
            n_estimators=200,
            learning_rate=0.05,
            max_depth=4,
            subsample=0.5,
            max_features=0.2,
            loss="huber",
            random_state=seed,
        )

    def mlp(seed: int) -> Any:
        layers = MLPRegressor(hidden_layer_sizes=(64, 64), alpha=1.0, max_iter=400, random_state=seed)
        return make_pipeline(StandardScaler(), layers)

    return {
        "median": library(PLAIN, lambda _: DummyRegressor(strategy="median")),
        BASELINE: library(PLAIN, lambda seed: RandomForestRegressor(100, random_state=seed)),
        "random forest, all descriptors": library(
            EVERY, lambda seed: RandomForestRegressor(100, random_state=seed)
        ),
        "extra trees": library(PLAIN, trees),
        "extra trees, all descriptors": library(
            EVERY,
            lambda s: ExtraTreesRegressor(200, min_samples_leaf=2, max_features=0.5, random_state=s),
        ),
        "gradient boosting": library(PLAIN, boosting),
        "support vectors, all descriptors": library(
            EVERY, lambda _: make_pipeline(StandardScaler(), SVR(C=3.0, epsilon=0.2))
        ),
        "MLP": library(PLAIN, mlp),
        SHIPPED: process,
        "composition network, bounds as bounds": network,
    }


def held_out(
    model: Model, x: Array, table: CrystalTable, groups: NDArray[np.int64], seed: int
) -> tuple[Array, Array]:
    """Means and variances (NaN where the model states none), `n` each, of rows by models not shown their fold."""
    mean, variance = np.zeros(len(table)), np.full(len(table), np.nan)
    for train_rows, test_rows in splits(grouped_folds(groups, N_FOLDS, seed)):
        part = table.values[train_rows], table.is_bound[train_rows], groups[train_rows]
        mean[test_rows], found = model(x[train_rows], *part, x[test_rows], seed)
        if found is not None:
            variance[test_rows] = found
    return mean, variance


def errors(table: CrystalTable, mean: Array) -> Array:
    """Absolute errors, `n`; of a bound, how far the prediction is above."""
    above = mean - table.values
    return np.where(table.is_bound, np.maximum(above, 0.0), np.abs(above))


def coverage(table: CrystalTable, mean: Array, variance: Array, seed: int) -> float:
    """Share of the rows within the 90 % interval, which is calibrated without the fold it is judged on."""
    folds = grouped_folds(table.groups(), N_FOLDS, seed)
    std = calibrated_std(table, mean, variance, folds, PROPERTIES[NAME].repeatability)  # type: ignore[attr-defined]
    return float(score(NAME, table.values, table.is_bound, mean, std)["coverage_90"])


def gain(ours: Array, theirs: Array, groups: NDArray[np.int64]) -> list[float]:
    """2.5, 50 and 97.5 % of the relative gain in MAE over resamples of whole groups."""
    n = int(groups.max()) + 1
    sums = np.stack([np.bincount(groups, errors, n) for errors in (ours, theirs)])
    drawn = np.random.default_rng(0).integers(0, n, (N_RESAMPLES, n))
    a, b = sums[:, drawn].sum(axis=2)
    return [round(float(q), 3) for q in np.quantile(1.0 - a / b, (0.025, 0.5, 0.975))]


def compare(data: Path) -> dict[str, Any]:
    """Figures of every model, mean over the seeds by groups, and of one seed at random."""
    table = read_training(data)
    x = describe(table, data).astype(np.float32).astype(np.float64)
    groups, each_row = table.groups(), np.arange(len(table))
    found: dict[str, dict[str, Any]] = {}
    error: dict[str, Array] = {}
    for name, model in models().items():
        runs = [(seed, *held_out(model, x, table, groups, seed)) for seed in SEEDS]
        scores = [score(NAME, table.values, table.is_bound, mean, np.ones(len(table))) for _, mean, _ in runs]
        error[name] = np.mean([errors(table, mean) for _, mean, _ in runs], axis=0)
        random = held_out(model, x, table, each_row, SEEDS[0])[0]
        found[name] = {
            **{key: _mean([s[key] for s in scores]) for key in ("mae", "rmse", "r2", "spearman")},
            "mae_of_seeds": [round(s["mae"], 4) for s in scores],
            "mae_at_random": round(float(errors(table, random).mean()), 4),
        }
        if name == SHIPPED:
            found[name]["coverage_90_of_seeds"] = [
                round(coverage(table, mean, variance, seed), 4) for seed, mean, variance in runs
            ]
        print(name, found[name], flush=True)
    for name in found:
        found[name]["gain_of_shipped"] = gain(error[SHIPPED], error[name], groups)
    return found


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 4) if known else None


def table_of(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "# Models for the proxy of conductivity",
        "",
        f"log10 of the conductivity in S/cm, OBELiX's training entries, {N_FOLDS}-fold cross-validation by groups (no "
        f"composition and no publication on both sides), mean over {len(SEEDS)} seeds of folds that were not used in "
        "development. A bound contributes what the prediction is above it.",
        f"{result['machine']}, {result['date']}, {result['seconds']:.0f} s of CPU: "
        "`python benchmarks/proxy_models.py`.",
        "",
        "| model | MAE by groups | RMSE | R² | Spearman | MAE at random | MAE of the shipped model below it by |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, f in result["figures"].items():
        cells = [f["mae"], f["rmse"], f["r2"], f["spearman"], f["mae_at_random"]]
        low, middle, high = (f"{100 * q:.0f}" for q in f["gain_of_shipped"])
        less = "" if name == SHIPPED else f"{middle} % ({low} to {high})"
        lines.append(
            f"| {name} | " + " | ".join("–" if c is None else f"{c:.2f}" for c in cells) + f" | {less} |"
        )
    shipped = result["figures"][SHIPPED]
    covered = ", ".join(f"{c:.2f}" for c in shipped["coverage_90_of_seeds"])
    lines += [
        "",
        f"Coverage of the shipped model's 90 % interval, seed by seed: {covered}. The last column is the median over "
        f"{N_RESAMPLES} resamples of whole groups, with the 95 % interval in brackets.",
        "",
        "The random forest of OBELiX (Therrien et al., arXiv 2502.14234) is rebuilt here: fractions of the elements, "
        "number of the space group and lattice, 100 trees, the library's defaults. With all descriptors, of Magpie's "
        "kind (Ward et al., 2016), the same forest does worse where nothing leaks. Published with other folds: 0.96 "
        "for the forest, 1.24 for an MLP, 1.65 to 2.2 for graph networks on the structures; repeated measurements "
        "differ by 0.41.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="OBELiX's folder (default: $ACTIVELEARNING_OBELIX)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    figures = compare(find_obelix(options.data))
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "seconds": round(time.process_time() - started, 1),
        "seeds": list(SEEDS),
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "proxy_models.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "proxy_models.md").write_text(table_of(result))
    print(table_of(result))


if __name__ == "__main__":
    main()
