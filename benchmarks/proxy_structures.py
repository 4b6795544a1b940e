"""Whether atomic positions, where they are known, help the proxy of conductivity.

    python benchmarks/proxy_structures.py --data OBELIX_FOLDER

writes `benchmarks/results/proxy_structures.json` and a table beside it. About half of OBELiX's entries have a CIF,
most of them with partial occupancies. Their lithium sites are described by occupancies, distances to other lithium
sites, to anions and to other cations, and disorder of the framework. The process gets a second kernel on these, which
acts between rows that both have a structure; trees get them as further columns, trained on such rows alone. Errors are
of rows with a structure, in the folds of `proxy_models.py`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from proxy_models import PLAIN, RESULTS, SEEDS, errors, gain
from scipy.spatial.distance import cdist

from oracles.ml_proxy.data import find_obelix, read_training
from oracles.ml_proxy.kernel import Space, distances
from oracles.ml_proxy.measured_training import N_FOLDS, describe
from oracles.ml_proxy.process import Settings
from oracles.ml_proxy.splitting import grouped_folds, splits

Array = NDArray[np.float64]

ANIONS = frozenset({"N", "O", "F", "S", "Cl", "Se", "Br", "I", "H"})
SETTINGS = Settings(1.7, 1.4, 0.2, (0.25, 0.25, 0.25, 0.25, 0.0))  # what the shipped model has chosen
AMPLITUDES = (0.0, 0.5, 1.0, 1.7)  # of the structure's kernel, decades
LEAST, MOST = 0.6, 6.0  # Å: split positions of one ion are nearer; further neighbours say nothing


def lithium_sites(path: Path) -> list[float] | None:
    """Numbers on the lithium sites of a CIF, or None where it holds none."""
    from pymatgen.core import Structure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = Structure.from_file(path)
    amounts = [site.species.get_el_amt_dict() for site in structure]
    occupancy = np.array([found.get("Li", 0.0) for found in amounts])
    is_li = occupancy > 0.0
    if not is_li.any():
        return None
    is_anion = np.array(
        [not li and bool(ANIONS & set(found)) for li, found in zip(is_li, amounts, strict=True)]
    )
    is_other = ~is_li & ~is_anion
    between = structure.distance_matrix[is_li]
    weights = occupancy[is_li]

    def nearest(columns: NDArray[np.bool_], rank: int) -> Array:
        reach = np.where(between[:, columns] > LEAST, between[:, columns], MOST)
        padded = np.column_stack([reach, np.full((len(reach), rank), MOST)])
        return np.minimum(np.sort(padded, axis=1)[:, rank - 1], MOST)

    distances_of = [
        nearest(is_li, 1),
        nearest(is_li, 2),
        nearest(is_anion, 1),
        nearest(is_anion, 4),
        nearest(is_other, 1),
    ]
    mixed = [len(found) > 1 or sum(found.values()) < 0.999 for found in amounts]
    framework = np.array(mixed)[~is_li]
    return [
        *(float(np.average(d, weights=weights)) for d in distances_of),
        *(float(d.min()) for d in distances_of),
        float(np.average(weights, weights=weights)),
        float(weights.min()),
        float(framework.mean()) if len(framework) else 0.0,
        float(is_li.sum() / structure.volume),
    ]


def compare(data: Path) -> dict[str, Any]:
    """Errors on rows with a structure, with and without it."""
    from sklearn.ensemble import ExtraTreesRegressor

    table = read_training(data)
    x, groups = describe(table, data), table.groups()
    sites = [
        lithium_sites(path) if (path := data / "all_randomized_cifs" / f"{row}.cif").is_file() else None
        for row in table.ids
    ]
    has = np.array([found is not None for found in sites])
    known = np.array([found for found in sites if found is not None])
    scaled = np.zeros((len(table), known.shape[1]))
    scaled[has] = (known - known.mean(axis=0)) / np.maximum(known.std(axis=0), 1e-9)
    apart = cdist(scaled, scaled)
    apart /= np.median(apart[np.ix_(has, has)])
    both = has[:, None] & has[None, :]
    columns = {"trees without it": x[:, PLAIN], "trees with it": np.hstack([x[:, PLAIN], scaled])}
    names = [*(f"process, amplitude {a:g}" for a in AMPLITUDES), *columns]
    found = {name: np.zeros((len(SEEDS), len(table))) for name in names}
    for k, seed in enumerate(SEEDS):
        for train, test in splits(grouped_folds(groups, N_FOLDS, seed)):
            space = Space.of(x[train])
            at, middle = space.place(x), float(np.median(table.values[train]))
            near = tuple(part[train] for part in at)
            smooth = SETTINGS.covariance(distances(at, near))
            for amplitude, name in zip(AMPLITUDES, names, strict=False):
                cross = smooth + amplitude**2 * np.where(both, np.exp(-apart), 0.0)[:, train]
                noisy = cross[train] + SETTINGS.noise**2 * np.eye(len(train))
                found[name][k, test] = middle + cross[test] @ np.linalg.solve(
                    noisy, table.values[train] - middle
                )
            rows = train[has[train]]
            for name, inputs in columns.items():
                trees = ExtraTreesRegressor(100, max_features=0.5, random_state=seed)
                found[name][k, test] = trees.fit(inputs[rows], table.values[rows]).predict(inputs[test])
    error = {name: np.mean([errors(table, run) for run in runs], axis=0)[has] for name, runs in found.items()}
    pairs = dict.fromkeys(names[1 : len(AMPLITUDES)], names[0]) | {names[-1]: names[-2]}
    _, of_row = np.unique(groups[has], return_inverse=True)
    return {
        "n": int(has.sum()),
        "mae": {name: round(float(e.mean()), 4) for name, e in error.items()},
        "gain": {name: gain(error[name], error[without], of_row) for name, without in pairs.items()},
    }


def table_of(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "# Structures as inputs of the proxy",
        "",
        f"MAE on log10 of the conductivity over the {result['n']} training entries of OBELiX with a structure that "
        f"holds lithium; {N_FOLDS}-fold cross-validation by groups, mean over {len(SEEDS)} seeds. Gain: median and "
        "95 % interval over resamples of whole groups, against the same model without the structure.",
        f"{result['machine']}, {result['date']}, {result['seconds']:.0f} s: `python benchmarks/proxy_structures.py`.",
        "",
        "| model | MAE | gain by the structure |",
        "|---|---|---|",
    ]
    for name, mae in result["mae"].items():
        shown = ""
        if name in result["gain"]:
            low, middle, high = (f"{100 * q:.0f}" for q in result["gain"][name])
            shown = f"{middle} % ({low} to {high})"
        lines.append(f"| {name} | {mae:.2f} | {shown} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="OBELiX's folder (default: $ACTIVELEARNING_OBELIX)")
    started = time.perf_counter()
    found = compare(find_obelix(parser.parse_args().data))
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "seconds": round(time.perf_counter() - started, 1),
        "seeds": list(SEEDS),
        **found,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "proxy_structures.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "proxy_structures.md").write_text(table_of(result))
    print(table_of(result))


if __name__ == "__main__":
    main()
