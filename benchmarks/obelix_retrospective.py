"""A campaign in retrospect: how much laboratory it takes to find the best conductors of OBELiX.

    activelearning proxy tables --data FOLDER --out TABLES
    python benchmarks/obelix_retrospective.py answers --tables TABLES --processes 2
    python benchmarks/obelix_retrospective.py sources --tables TABLES
    python benchmarks/obelix_retrospective.py campaigns --tables TABLES --seeds 10 --processes 2

The pool holds the materials of OBELiX's training entries with atoms (`oracles.obelix`). The laboratory reveals what was
measured; the other sources are those of `configs/obelix_retrospective.yaml`, at its costs: the proxy's predictions by
models that have seen neither a material nor its publication, the bond-valence barrier, and molecular dynamics of the
ordered crystal. `answers` asks the latter two of every material, once, in an order drawn at random; what fails keeps
its reason. All answers are kept in `benchmarks/results/obelix_answers.json`, and those that are there, of the same
protocol and weights, are not asked for again. `sources` tells how each source ranks the materials that have been asked
so far, which are a random sample, and what it costs, in `benchmarks/results/obelix_sources.{json,md}`. `campaigns`
looks answers up, and pays for them; each is kept in `--work`, from where an interrupted benchmark goes on.

Methods, with the same budget and paired seeds: `joint` (all sources), `information` (the same by the default
acquisition, `mf_gibbon`), `without_md`, `single_fidelity` (the laboratory alone), `proxy_order` (materials in the order
of the proxy's predictions), `random`. Told is when the first of the best twentieth of the materials is measured, how
many of them are by what was spent, the best that is, and the rank correlation of each source with the measurements, in
`benchmarks/results/obelix_retrospective.{json,md,png}`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import multiprocessing
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from kept import keep_json
from scipy import stats
from shipped_source import answer_of, oracle_of, shipped
from shipped_source import identity_of as oracle_identity

from activelearning.campaign.config import parse_config
from activelearning.campaign.engine import Engine
from activelearning.campaign.tick import run
from activelearning.candidate import Candidate, CrystalCandidate, digest
from activelearning.report import trace
from activelearning.spaces.pool import PoolSpace

CONFIG = "obelix_retrospective"
RESULTS = Path(__file__).parent / "results"
ANSWERS = RESULTS / "obelix_answers.json"
COMPUTED = ("bvse", "md")
LAB = "lab"
BEST_SHARE = 0.05
METHODS = ("joint", "information", "without_md", "single_fidelity", "proxy_order", "random")
KINDS = {"none": "0", "upper": "1", "lower": "-1"}


# -- answers ----------------------------------------------------------------------------------------------------------


def source(name: str) -> dict[str, Any]:
    """A computed source's section of the config."""
    found: dict[str, Any] = next(f for f in shipped(CONFIG)["fidelities"] if f["name"] == name)
    return found


def identity_of(name: str) -> str:
    """Of what a source's answers depend on: the oracle's version, its protocol and weights."""
    identity = oracle_identity(oracle_of(source(name), Path()))
    # How crystals without atoms become some does not matter here: all have them.
    content = {key: value for key, value in identity["content"].items() if key != "realisation"}
    return digest(identity | {"content": content})


def answer(job: tuple[str, int, str, str]) -> tuple[str, str, dict[str, Any]]:
    """Ask one source of one material: the source, the material's key, and what is said."""
    name, index, pool, work = job
    candidate, fidelity = _rows(pool)[index], source(name)
    found = answer_of(oracle_of(fidelity, Path(work) / "runs"), fidelity, candidate)
    value = found.values.get(fidelity["property"])
    told = found.reason if value is None else f"{value.value:.3g} ({value.censoring})"
    print(f"{name} {index}: {told}, {found.seconds or 0.0:.0f} s", flush=True)
    return (
        name,
        candidate.key,
        {
            "value": None if value is None else value.value,
            "std": None if value is None else value.std,
            "bound": None if value is None else KINDS[str(value.censoring)],
            "reason": found.reason,
            "seconds": found.seconds,
        },
    )


@cache
def _rows(pool: str) -> Sequence[Candidate]:
    return PoolSpace(Path(pool)).rows


def answered() -> dict[str, dict[str, dict[str, Any]]]:
    """What the computed sources, as they are now, have said so far, by source and key."""
    kept = json.loads(ANSWERS.read_text()) if ANSWERS.exists() else {}
    return {
        name: kept[name]["said"] if name in kept and kept[name]["identity"] == identity_of(name) else {}
        for name in COMPUTED
    }


def keep(said: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Write all answers so far."""
    keep_json(ANSWERS, {name: {"identity": identity_of(name), "said": found} for name, found in said.items()})


# -- campaigns --------------------------------------------------------------------------------------------------------


def lab_rows(tables: Path) -> list[dict[str, str]]:
    """Rows of the pool's table, as text."""
    with (tables / "pool.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_table(path: Path, tables: Path, pool: PoolSpace, said: Mapping[str, Mapping[str, Any]]) -> None:
    """All answers by key, as the oracle `table` reads them."""
    columns = ["key", "proxy", "lab", "lab_bound"]
    for name in COMPUTED:
        columns += [name, f"{name}_std", f"{name}_bound"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for candidate, row in zip(pool.rows, lab_rows(tables), strict=True):
            line: dict[str, Any] = {
                "key": candidate.key,
                "proxy": row["predicted"],
                "lab": row["measured"],
                "lab_bound": row["is_bound"],
            }
            for name in COMPUTED:
                told = said[name][candidate.key]
                line |= {
                    name: "" if told["value"] is None else repr(told["value"]),
                    f"{name}_std": "" if told["std"] is None else repr(told["std"]),
                    f"{name}_bound": told["bound"] or "0",
                }
            writer.writerow(line)


def config_of(method: str, seed: int, tables: Path, table: Path) -> dict[str, Any]:
    """Config of one campaign."""
    value = shipped(CONFIG)
    value |= {"name": f"retrospective-{method}-{seed}", "seed": seed}
    value["space"] = {"type": "pool", "file": str(tables / "pool.csv")}
    every = {"proxy", *COMPUTED, LAB}
    kept = {"without_md": every - {"md"}, "single_fidelity": {LAB}, "random": {LAB}}.get(method, every)
    design = value["initial_design"]["per_fidelity"]
    value["initial_design"] = {"per_fidelity": {name: n for name, n in design.items() if name in kept}}
    value["fidelities"] = [
        {
            **{k: v for k, v in f.items() if k not in ("timeout", "max_in_flight")},
            "oracle": "table",
            "params": {
                "file": str(table),
                "column": f["name"],
                **({} if f["name"] == "proxy" else {"bounds": f"{f['name']}_bound"}),
                **({"std": f"{f['name']}_std"} if f["name"] in COMPUTED else {}),
            },
        }
        for f in value["fidelities"]
        if f["name"] in kept
    ]
    if method == "information":
        value |= {"acquisition": {**value["acquisition"], "type": "mf_gibbon"}}
    if method == "random":
        value |= {"acquisition": {**value["acquisition"], "type": "random"}, "sampler": {"type": "random"}}
    return value


def campaign_file(method: str, seed: int, tables: Path, table: Path, work: Path) -> Path:
    """Where a campaign is kept: by its config and by what is in its tables, so that another's is not taken for it."""
    identity = digest(
        {
            # Wherever the tables lie.
            "config": config_of(method, seed, Path(), Path(table.name)),
            "tables": [
                hashlib.sha256(path.read_bytes()).hexdigest() for path in (tables / "pool.csv", table)
            ],
        }
    )
    return work / f"campaign-{method}-{seed}-{identity[:16]}.json"


def campaign(job: tuple[str, int, str, str, str]) -> None:
    """Run one campaign and keep when it measured what."""
    method, seed, tables, table, work = job
    path = campaign_file(method, seed, Path(tables), Path(table), Path(work))
    if path.exists():
        return
    store = path.with_suffix(".db")
    for leftover in store.parent.glob(f"{store.name}*"):  # of a run that was interrupted
        leftover.unlink()
    config = parse_config(config_of(method, seed, Path(tables), Path(table)))
    with Engine.open(config, folder=Path.cwd(), store=f"sqlite:///{store.resolve()}") as engine:
        run(engine)
        spent = [p.spent for p in trace(engine.database, config.name)]
        asked = [(candidate.key, name) for candidate, name, _ in engine.repository.outcomes()]
    keep_json(path, {"lab": [[c, key] for c, (key, name) in zip(spent, asked, strict=True) if name == LAB]})
    for leftover in store.parent.glob(f"{store.name}*"):
        leftover.unlink()
    print(f"{method} / seed {seed}: {len(asked)} answers, {spent[-1]:.1f} spent", flush=True)


# -- results ----------------------------------------------------------------------------------------------------------


def write_sources(
    pool: PoolSpace, rows: Sequence[Mapping[str, str]], said: Mapping[str, Mapping[str, Any]]
) -> None:
    """How each source ranks the materials that dynamics have been asked of, and what each said of each of them."""
    asked = {
        candidate.key: row
        for candidate, row in zip(pool.rows, rows, strict=True)
        if all(candidate.key in said[name] for name in COMPUTED)
    }
    answers: dict[str, dict[str, Any]] = {
        "proxy": {key: {"value": float(row["predicted"])} for key, row in asked.items()},
        **{name: {key: said[name][key] for key in asked} for name in COMPUTED},
    }
    measured = {key: float(row["measured"]) for key, row in asked.items()}
    formulas = {c.key: c.formula for c in pool.rows if isinstance(c, CrystalCandidate)}
    date, machine = _stamp()
    n, n_all = len(asked), len(pool.candidates)
    which = f"all {n} materials" if n == n_all else f"{n} materials of {n_all}, drawn at random"
    lines = [
        "# Sources of OBELiX's conductivities against the measurement",
        "",
        f"{date}; {machine}. Of {which}. A bound counts as its value. Measurements: OBELiX (arXiv 2502.14234), "
        "CC BY 4.0. Made by `python benchmarks/obelix_retrospective.py sources`.",
        "",
        "| source | answers | bounds among them | rank correlation with the measurement | seconds an answer, median |",
        "|---|---|---|---|---|",
    ]
    sources: dict[str, dict[str, Any]] = {}
    for name, found in answers.items():
        valued = {key: one for key, one in found.items() if one["value"] is not None}
        seconds = [one["seconds"] for one in valued.values() if one.get("seconds") is not None]
        rank = rank_correlation([(one["value"], measured[key]) for key, one in valued.items()])
        sources[name] = rank | {
            "bounds": sum(one.get("bound", "0") != "0" for one in valued.values()),
            "seconds": float(np.median(seconds)) if seconds else None,
        }
        cost = "below 0.1" if not seconds else f"{np.median(seconds):.0f}"
        lines.append(f"| {name} | {rank['n']} | {sources[name]['bounds']} | {_shown(rank)} | {cost} |")
    both = [key for key in asked if all(answers[name][key]["value"] is not None for name in answers)]
    lines += [
        "",
        f"On the {len(both)} materials of which all sources say something: "
        + ", ".join(
            f"{name} {_shown(rank_correlation([(answers[name][key]['value'], measured[key]) for key in both]))}"
            for name in answers
        )
        + ".",
        "",
        "| material | measured | proxy | bond-valence barrier (eV) | dynamics, 1000 K | why there is none |",
        "|---|---|---|---|---|---|",
    ]
    for key in sorted(asked, key=lambda key: -measured[key]):
        row = asked[key]
        reasons = "; ".join(sorted({answers[name][key]["reason"] for name in COMPUTED} - {None}))
        cells = " | ".join(_value(answers[name][key]) for name in answers)
        lines.append(f"| {formulas[key]} ({row['id']}) | {measured[key]:.2f} | {cells} | {reasons} |")
    value = {"date": date, "machine": machine, "sources": sources}
    (RESULTS / "obelix_sources.json").write_text(json.dumps(value, indent=1) + "\n")
    text = "\n".join(lines) + "\n"
    (RESULTS / "obelix_sources.md").write_text(text)
    print(text)


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Spearman's coefficient, with its 95 % interval."""
    rho = float(stats.spearmanr(*np.array(pairs).T).statistic)
    low, high = _interval(rho, len(pairs))
    return {"n": len(pairs), "spearman": rho, "low": low, "high": high}


def _shown(rank: Mapping[str, Any]) -> str:
    return f"{rank['spearman']:+.2f} [{rank['low']:+.2f}, {rank['high']:+.2f}]"


def _value(said: Mapping[str, Any]) -> str:
    if said["value"] is None:
        return "–"
    return {"0": "", "1": "< ", "-1": "> "}[said.get("bound") or "0"] + f"{said['value']:.2f}"


def _stamp() -> tuple[str, str]:
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    return datetime.now(UTC).date().isoformat(), machine


def best_of(pool: PoolSpace, measured: Mapping[str, float]) -> set[str]:
    """Keys of the best twentieth."""
    n = math.ceil(BEST_SHARE * len(pool.candidates))
    return set(sorted(measured, key=lambda key: measured[key], reverse=True)[:n])


def found_by(lab: Sequence[Sequence[Any]], best: set[str], costs: Sequence[float]) -> list[int]:
    """How many of the best had been measured when so much was spent."""
    return [len({key for spent, key in lab if spent <= cost * (1 + 1e-9)} & best) for cost in costs]


def main() -> None:
    """Ask the sources, or run the campaigns and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=["answers", "sources", "campaigns"])
    parser.add_argument("--tables", type=Path, required=True, help="made by `activelearning proxy tables`")
    parser.add_argument(
        "--sources", nargs="+", choices=COMPUTED, default=list(COMPUTED), help="of the answers"
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("runs/obelix_retrospective"))
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    tables = arguments.tables.resolve()
    pool = PoolSpace(tables / "pool.csv")
    if arguments.step == "sources":
        write_sources(pool, lab_rows(tables), answered())
        return
    workers = multiprocessing.get_context("spawn").Pool(arguments.processes, maxtasksperchild=20)
    with workers:
        said = answered()
        if arguments.step == "answers":
            asked = [
                (name, i, str(tables / "pool.csv"), str(work))
                for name in arguments.sources
                for i in np.random.default_rng(0).permutation(len(pool.rows)).tolist()
                if pool.rows[i].key not in said[name]
            ]
            for name, key, found in workers.imap_unordered(answer, asked):
                said[name][key] = found
                keep(said)
            return
        for name, told in said.items():
            if len(told) < len(pool.candidates):
                raise SystemExit(f"{name} has not been asked of all materials: run the step `answers` first.")
        table = work / "answers.csv"
        write_table(table, tables, pool, said)
        methods = [method for method in METHODS if method != "proxy_order"]
        jobs = [(m, s, str(tables), str(table), str(work)) for s in range(arguments.seeds) for m in methods]
        for _ in workers.imap_unordered(campaign, jobs):
            pass
    write_results(work, tables, table, pool, arguments.seeds)


def write_results(work: Path, tables: Path, table: Path, pool: PoolSpace, seeds: int) -> None:
    """Table, figure and all numbers."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    measured = {row["key"]: float(row["lab"]) for row in rows}
    best = best_of(pool, measured)
    total = float(shipped(CONFIG)["budget"]["total"])
    costs = np.linspace(0.0, total, 121)[1:].tolist()
    order = sorted(rows, key=lambda row: float(row["proxy"]), reverse=True)
    cost = {f["name"]: f["cost"] for f in shipped(CONFIG)["fidelities"]}
    # The whole pool is asked of the proxy first.
    ordered = [[len(rows) * cost["proxy"] + (k + 1) * cost[LAB], row["key"]] for k, row in enumerate(order)]
    # Of each campaign what the laboratory was asked, and when.
    asked = {
        method: [
            json.loads(campaign_file(method, s, tables, table, work).read_text())["lab"] for s in range(seeds)
        ]
        for method in METHODS
        if method != "proxy_order"
    } | {"proxy_order": [[[spent, key] for spent, key in ordered if spent <= total]]}
    curves = {
        method: np.array([found_by(lab, best, costs) for lab in campaigns])
        for method, campaigns in asked.items()
    }
    sources = {
        name: rank_correlation([(float(row[name]), measured[row["key"]]) for row in rows if row[name]])
        for name in ("proxy", *COMPUTED)
    }
    figures = {
        method: {
            "found": curve.mean(axis=0).tolist(),
            "first": [_first(costs, one, 1) for one in curve],
            "half": [_first(costs, one, len(best) / 2) for one in curve],
            "end": curve[:, -1].tolist(),
            "best": [max(measured[key] for _, key in lab) for lab in asked[method]],
        }
        for method, curve in curves.items()
    }
    date, machine = _stamp()
    lines = [
        "# A campaign in retrospect: the best conductors of OBELiX",
        "",
        f"{date}; {machine}. {len(pool.candidates)} materials, {len(best)} of them the best twentieth; a budget of "
        f"{total:g} laboratory measurements; {seeds} seeds. Made by `python benchmarks/obelix_retrospective.py`, which "
        "says what the methods are. Spent: median, in measurements, and quartiles.",
        "",
        "| method | spent when the first of the best is measured | when half of them are | "
        "found by half the budget, mean | by all of it | best measured, median |",
        "|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        one = figures[method]
        lines.append(
            f"| {method} | {_spent(one['first'])} | {_spent(one['half'])} | {one['found'][len(costs) // 2 - 1]:.1f} | "
            f"{one['found'][-1]:.1f} | {np.median(one['best']):.2f} |"
        )
    names = {row.key: f"{row.formula} ({measured[row.key]:.2f})" for row in pool.rows}
    lines += [
        "",
        f"The best, log10 σ in brackets: {'; '.join(names[k] for k in sorted(best, key=lambda k: -measured[k]))}.",
        "",
        "| source | materials with an answer | rank correlation with the measurement |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {rank['n']} | {_shown(rank)} |" for name, rank in sources.items()]
    text = "\n".join(lines) + "\n"
    value = {
        "date": date,
        "machine": machine,
        "seeds": seeds,
        "cost": costs,
        "methods": figures,
        "sources": sources,
    }
    (RESULTS / "obelix_retrospective.json").write_text(json.dumps(value, indent=1) + "\n")
    (RESULTS / "obelix_retrospective.md").write_text(text)
    _draw(curves, costs, len(best), RESULTS / "obelix_retrospective.png")
    print(text)


def _first(costs: Sequence[float], found: Sequence[int], wanted: float) -> float | None:
    return next((cost for cost, n in zip(costs, found, strict=True) if n >= wanted), None)


def _spent(costs: Sequence[float | None]) -> str:
    """Median and quartiles, of runs that may not have come so far."""
    known = sorted(math.inf if cost is None else cost for cost in costs)
    middle, low, high = (_quantile(known, share) for share in (0.5, 0.25, 0.75))
    shown = [f"{cost:.1f}" if math.isfinite(cost) else "never" for cost in (middle, low, high)]
    return shown[0] if len(set(shown)) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Between neighbours along a line, as NumPy's default, of numbers that may be infinite."""
    below, rest = divmod(share * (len(ordered) - 1), 1.0)
    low = ordered[int(below)]
    return low if rest == 0.0 or math.isinf(low) else low + rest * (ordered[int(below) + 1] - low)


def _interval(rho: float, n: int) -> tuple[float, float]:
    """95 % interval of a rank correlation, by Fisher's transformation with the variance of Bonett & Wright (2000)."""
    if n < 4:
        return -1.0, 1.0  # nothing is known
    rho = float(np.clip(rho, -1.0 + 1e-12, 1.0 - 1e-12))
    half = 1.96 * math.sqrt((1.0 + rho**2 / 2.0) / (n - 3))
    return math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)


def _draw(curves: Mapping[str, np.ndarray], costs: Sequence[float], n_best: int, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axis = plt.subplots(figsize=(5.6, 3.8), constrained_layout=True)
    for method, curve in curves.items():
        mean, error = curve.mean(axis=0), stats.sem(curve, axis=0) if len(curve) > 1 else 0.0
        (line,) = axis.plot(costs, mean, label=method.replace("_", " "))
        axis.fill_between(costs, mean - error, mean + error, alpha=0.15, color=line.get_color(), linewidth=0)
    axis.axhline(n_best, color="0.7", linewidth=0.8)
    axis.set(xlabel="spent (laboratory measurements)", ylabel=f"found of the {n_best} best")
    axis.legend(frameon=False, fontsize=8)
    fig.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
