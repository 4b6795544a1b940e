"""A pool task of real measurements: the conductors of OBELiX, with models that have not seen them as cheap sources.

    ACTIVELEARNING_OBELIX=FOLDER python benchmarks/obelix_task.py --work runs/obelix

says what the task is and writes `benchmarks/results/obelix_task.{json,md}`. OBELiX: Therrien et al., arXiv 2502.14234.

The pool holds the materials of the training entries. Entries with the same composition (fractions of the elements to
three decimals) and the same space group are one material, measured several times: its answer is the lower median of the
values, with the lattice of the entry that gave it; bounds count only where nothing else is known, and then the least.
(A best of several would reward what was measured often, and a mean would be no entry's.) Fidelities, in target
evaluations:

    measured      1      log10 σ/(S cm⁻¹) near room temperature, upper bounds as bounds
    proxy         0.01   the ML proxy's forest on all descriptors, out of fold
    composition   0.002  ridge regression on the fractions of the elements alone, out of fold

Both models are fitted in ten folds by groups; a prediction comes from models that saw no entry of the same composition
or publication, nor any linked to it. So they know other materials of the pool, as a model trained on the literature
does, but nothing about the one they are asked of. There is no medium source: total beside bulk conductivities are
stated for 29 entries only, and atoms are known (with noise added by the publishers) for half of them.

Regret is the best measured value of the pool less the best found. Answers are measurements: two of one material differ
by 0.4 decades in the median, so that a smaller regret is none that a laboratory would see.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from tasks import Task

from activelearning.candidate import BoxCandidate
from activelearning.crystals.descriptors import DESCRIPTOR_NAMES, few_descriptors
from oracles.ml_proxy.data import CrystalTable, find_obelix, read_training
from oracles.ml_proxy.forest_training import N_TREES
from oracles.ml_proxy.measured_training import FITS, N_FOLDS, cross_validate, describe
from oracles.ml_proxy.splitting import grouped_folds, splits
from oracles.obelix import materials

Array = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results"
ORACLE = "table"
UNIT = "log10(S/cm)"
COSTS: Mapping[str, float] = {"composition": 0.002, "proxy": 0.01, "measured": 1.0}
TOTAL = 30.0
DECIMALS = 9  # of features
_VERSION = 2  # of the files; another number makes new ones
_RIDGE = 1e-2  # penalty on coefficients of fractions, which lie in [0, 1]


@dataclass(frozen=True)
class Pool:
    """The materials and what the sources say of them.

    Attributes:
        names: Of the features.
        features: `n x d`, as in the pool's file.
        ids: Entry of OBELiX that stands for each material.
        n_entries: Entries that are this material.
        answers: By fidelity, `n` each.
        is_bound: Whether the measured value is an upper bound, `n`.
        file: The pool's table, and
        table: that of the answers.
    """

    names: tuple[str, ...]
    features: Array
    ids: tuple[str, ...]
    n_entries: NDArray[np.int64]
    answers: Mapping[str, Array]
    is_bound: NDArray[np.bool_]
    file: Path
    table: Path

    @property
    def best(self) -> float:
        """The best measured value, bounds aside."""
        return float(self.answers["measured"][~self.is_bound].max())


def task(work: Path) -> Task:
    """The task; its files are made in `work` where they are not there yet.

    Raises:
        InputError: the data set is not found or can't be read.
    """
    pool = prepare(work)
    return Task(
        name="obelix",
        space={"type": "pool", "file": str(pool.file)},
        objective={"property": "log10_conductivity", "unit": UNIT, "direction": "maximize"},
        fidelities=[
            {
                "name": name,
                "oracle": ORACLE,
                "cost": cost,
                "params": {
                    "file": str(pool.table),
                    "column": name,
                    **({"bounds": "is_bound"} if name == "measured" else {}),
                },
                **({"target": True} if name == "measured" else {}),
            }
            for name, cost in COSTS.items()
        ],
        optimum=pool.best,
        total=TOTAL,
        # Every pair of material and fidelity is scored: 1,206 of them.
        sections={"acquisition": {"batch_size": 8, "pool_size": 2048}},
    )


def prepare(work: Path) -> Pool:
    """The pool, from its files in `work`; they are made first where they are missing or of other data.

    Raises:
        InputError: the data set is not found or can't be read.
    """
    path = find_obelix()
    source = path / "all.csv" if path.is_dir() else path
    mark = hashlib.sha256(
        source.read_bytes() + repr((_VERSION, COSTS, N_TREES, N_FOLDS)).encode()
    ).hexdigest()[:12]
    folder = work.resolve() / f"obelix-{mark}"
    pool, table = folder / "pool.csv", folder / "answers.csv"
    if not (pool.is_file() and table.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, pool, table)
    return _read(pool, table)


def out_of_fold(table: CrystalTable, x: Array) -> dict[str, Array]:
    """Predictions, `n` each, by models that have not seen the row's group."""
    folds = grouped_folds(table.groups(), N_FOLDS, seed=0)
    forest, _ = cross_validate(x, table, folds, FITS["forest"], seed=0)
    fractions = x[:, [_is_fraction(name) for name in DESCRIPTOR_NAMES]]
    ridge = np.zeros(len(table))
    for train, test in splits(folds):
        offset = table.values[train].mean()
        centre = fractions[train].mean(axis=0)
        known = fractions[train] - centre
        gram = known.T @ known + _RIDGE * np.eye(known.shape[1])
        weights = np.linalg.solve(gram, known.T @ (table.values[train] - offset))
        ridge[test] = offset + (fractions[test] - centre) @ weights
    return {"composition": ridge, "proxy": forest}


def _is_fraction(name: str) -> bool:
    """Whether a descriptor is the fraction of an element."""
    return name.startswith("fraction_") and name.removeprefix("fraction_").isalpha()


def _write(path: Path, pool: Path, answers: Path) -> None:
    """Make the files; each appears whole or not at all, the pool's last."""
    table = read_training(path)
    x = describe(table, path)
    predicted = out_of_fold(table, x)
    found = materials(table)
    first = np.array([rows[0] for rows in found])
    names = few_descriptors(x[first])
    features = np.round(x[first][:, [DESCRIPTOR_NAMES.index(name) for name in names]], DECIMALS)
    keys = [BoxCandidate(tuple(row)).key for row in features.tolist()]
    if len(set(keys)) < len(keys):
        raise ValueError("two materials of OBELiX have the same features; a candidate would have two answers")
    columns = ["key", "id", "n_entries", "is_bound", *COSTS]
    rows = [
        [key, table.ids[i], len(same), int(table.is_bound[i])]
        + [repr(float({**predicted, "measured": table.values}[name][i])) for name in COSTS]
        for key, i, same in zip(keys, first.tolist(), found, strict=True)
    ]
    _write_csv(answers, columns, rows)
    _write_csv(pool, names, [[repr(value) for value in row] for row in features.tolist()])


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}")  # several processes may make the same file
    with part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    part.replace(path)


def _read(pool: Path, answers: Path) -> Pool:
    with pool.open(newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file)
    with answers.open(newline="", encoding="utf-8") as file:
        known = list(csv.DictReader(file))
    return Pool(
        names=tuple(names),
        features=np.array(rows, dtype=np.float64),
        ids=tuple(row["id"] for row in known),
        n_entries=np.array([int(row["n_entries"]) for row in known]),
        answers={name: np.array([float(row[name]) for row in known]) for name in COSTS},
        is_bound=np.array([row["is_bound"] == "1" for row in known]),
        file=pool,
        table=answers,
    )


def summarise(pool: Pool) -> dict[str, Any]:
    """Figures of the task; correlations are those of materials whose answer is no bound."""
    exact = ~pool.is_bound
    measured = pool.answers["measured"]
    values = measured[exact]
    sources = {}
    for name in COSTS:
        if name != "measured":
            said = pool.answers[name][exact]
            top = values >= np.quantile(values, 0.9)
            sources[name] = {
                "cost": COSTS[name],
                "pearson": float(np.corrcoef(said, values)[0, 1]),
                "spearman": float(stats.spearmanr(said, values)[0]),
                "spearman_best_tenth": float(stats.spearmanr(said[top], values[top])[0]),
                "bias": float((said - values).mean()),
                "rank_of_the_best": int((pool.answers[name] > said[values.argmax()]).sum()) + 1,
            }
    return {
        "n_materials": len(pool.ids),
        "n_entries": int(pool.n_entries.sum()),
        "n_measured_repeatedly": int((pool.n_entries > 1).sum()),
        "n_bounds": int(pool.is_bound.sum()),
        "n_features": len(pool.names),
        "best": {"id": pool.ids[int(np.flatnonzero(exact)[values.argmax()])], "value": pool.best},
        "best_ten": np.sort(values)[::-1][:10].tolist(),
        "quantiles": {str(q): float(np.quantile(values, q)) for q in (0.01, 0.1, 0.5, 0.9, 0.99)},
        "sources": sources,
    }


def repeat_difference(table: CrystalTable) -> float:
    """Median difference of two values of one material, bounds aside, in decades."""
    exact = [[i for i in rows if not table.is_bound[i]] for rows in materials(table)]
    pairs = [pair for rows in exact for pair in itertools.combinations(rows, 2)]
    return float(np.median([abs(table.values[i] - table.values[j]) for i, j in pairs]))


def main() -> None:
    """Make the task and write down what it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/obelix"), help="the files are kept here")
    summary = {
        "made_by": "python benchmarks/obelix_task.py",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        **summarise(prepare(parser.parse_args().work)),
        "repeat_difference": repeat_difference(read_training(find_obelix())),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "obelix_task.json").write_text(json.dumps(summary, indent=1) + "\n")
    text = _table(summary)
    (RESULTS / "obelix_task.md").write_text(text)
    print(text)


def _table(of: Mapping[str, Any]) -> str:
    lines = [
        "# The OBELiX task",
        "",
        f"{of['date']}; {of['machine']}. Made by `{of['made_by']}`.",
        "",
        f"{of['n_materials']} materials from {of['n_entries']} entries, {of['n_measured_repeatedly']} of them measured "
        f"several times (two values differ by {of['repeat_difference']:.2f} decades in the median); "
        f"{of['n_bounds']} answers are upper bounds. {of['n_features']} features. Best: entry "
        f"{of['best']['id']}, {of['best']['value']:.2f} ({UNIT}); mean of the best ten: {np.mean(of['best_ten']):.2f}; "
        f"median of all that are no bounds: {of['quantiles']['0.5']:.2f}.",
        "",
        "| fidelity | cost | Pearson | Spearman | Spearman, best tenth | bias | its rank of the best |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {s['cost']:g} | {s['pearson']:.2f} | {s['spearman']:.2f} | {s['spearman_best_tenth']:.2f} "
        f"| {s['bias']:+.2f} | {s['rank_of_the_best']} |"
        for name, s in of["sources"].items()
    ]
    lines += ["", "Correlations with the measured values of the materials whose answer is no bound."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
