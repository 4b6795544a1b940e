"""The published evaluation of Crystal-GFN (arXiv 2310.04925), on the shipped configs and property models.

    python benchmarks/crystal_gfn.py --work DIR [--parts short,long,known_only,band_gap,restricted] [--n 10000]

trains on formation energy with the published elements, space groups and limits (`short`), again with four times the
steps (`long`), with a model of known materials alone, as the published one is (`known_only`; it is made first), on the
band gap (`band_gap`), and samples the first under the restrictions A to D (`restricted`), each in a folder of its own
in DIR; interrupted parts go on from their checkpoints. Whatever parts are there, it writes
`benchmarks/results/crystal_gfn.json`, a table and a figure. Crystals of the Materials Project's table (environment
variable ACTIVELEARNING_MP) in the space are the validation set.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from kept import keep_json

from activelearning.campaign.shipped import find_config
from activelearning.candidate import CrystalCandidate
from activelearning.contracts import Proposal
from activelearning.sampling.config import SampleConfig, load_sample_config
from activelearning.sampling.parts import make_sampling_parts
from activelearning.sampling.run import Request, sample
from oracles.ml_proxy.materials import find_materials
from oracles.ml_proxy.network_training import train_network
from oracles.ml_proxy.properties import PROPERTIES, ComputedProperty
from samplers.gflownet import GFlowNetSampler

RESULTS = Path(__file__).parent / "results"
LATTICE = ("a", "b", "c", "alpha", "beta", "gamma")
RESTRICTED = ("a", "b", "c", "d")
LONGER = 4
# What the paper states: 10,000 samples after 12 hours of training, and the best 100 of them.
PUBLISHED = {"space_groups": 73, "elements": 22, "lattice_systems": 8, "point_symmetries": 5}
PUBLISHED_TOP = {"space_groups": 19, "elements": 15, "lattice_systems": 4, "point_symmetries": 4}
PUBLISHED_MEDIANS = {
    "short": -3.2,
    "known_only": -3.2,
    "band_gap": 1.45,
    "restricted_a": -0.67,
    "restricted_b": -1.06,
    "restricted_c": -3.0,
    "restricted_d": -3.06,
}


def config_of(part: str) -> str:
    """The shipped config of a part."""
    if part.startswith("restricted"):
        return f"formation-energy-{part[-1]}"
    return "band-gap" if part == "band_gap" else "formation-energy"


def of_known_materials(work: Path) -> Path:
    """Weights of a model of formation energies that has seen no crystals of a sampler's own making."""
    weights = work / "known_only.npz"
    if not weights.is_file():
        work.mkdir(parents=True, exist_ok=True)
        known = PROPERTIES["formation_energy"]
        assert isinstance(known, ComputedProperty)
        train_network(known, find_materials(), weights)
    return weights


def load(part: str, work: Path, overrides: dict[str, str] | None = None) -> SampleConfig:
    """The config of a part."""
    told = dict(overrides or {})
    if part == "known_only":
        oracle = {"property": "formation_energy", "weights": str(of_known_materials(work).resolve())}
        told["fidelities"] = json.dumps([{"oracle": "ml_proxy", "params": oracle}])
    return load_sample_config(find_config(config_of(part)), told)


def run(part: str, work: Path, n: int) -> None:
    """Train and sample one part, or take up where it was interrupted."""
    path = find_config(config_of(part))
    table = os.environ.get("ACTIVELEARNING_MP")
    # Of iron oxides in these groups the table has none.
    is_compared = table and not part.startswith("restricted")
    overrides = {"validation": str(Path(str(table)) / "materials.csv.gz")} if is_compared else {}
    config = load(part, work, overrides)
    steps = None
    if part == "long":
        assert config.sampler is not None
        steps = LONGER * int(config.sampler.params["steps"])
    trained = work / "short" if part.startswith("restricted") else None
    start = time.process_time()
    request = Request(n=n, out=work / part, steps=steps, trained=trained, structures=0)
    sample(config, request, folder=path.parent)
    used = {
        "cpu_seconds": round(time.process_time() - start),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    timing = work / part / "timing.json"
    if not timing.is_file():  # a run that only draws again says nothing of the training
        keep_json(timing, used)


def expected_distinct(part: str, work: Path) -> dict[str, Any]:
    """Space groups that as many draws from the reward itself would have, in all and among the best hundredth.

    Samples are weighed by reward over probability. A group that no sample has is not counted, so that the numbers are
    a little low.
    """
    folder = find_config(config_of(part)).parent
    sampler = make_sampling_parts(load(part, work), folder=folder, workdir=work).sampler
    state = torch.load(work / part / "checkpoint.pt", weights_only=False)
    assert isinstance(sampler, GFlowNetSampler)
    sampler.load_state_dict(state["sampler"])
    frame = pd.read_csv(work / part / "samples.csv")
    rows: list[Any] = frame.to_dict("records")
    crystals = [
        Proposal(
            CrystalCandidate(
                row["space_group"], json.loads(row["composition"]), tuple(row[x] for x in LATTICE)
            )
        )
        for row in rows
    ]
    log_weights = frame["log_reward"].to_numpy() - sampler.log_probability(crystals).numpy()
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    n, groups = len(frame), frame["space_group"].to_numpy()
    order = np.argsort(-frame["log_reward"].to_numpy(), kind="stable")
    best = order[np.cumsum(weights[order]) <= 0.01]

    def distinct(rows: Any, draws: int) -> float:
        shares = pd.Series(weights[rows]).groupby(groups[rows]).sum()
        return round(float((1.0 - (1.0 - shares / shares.sum()) ** draws).sum()), 1)

    return {
        "space_groups": distinct(np.arange(n), n),
        "space_groups_top": distinct(best, n // 100),
        "effective_samples": round(float(1.0 / (weights**2).sum()), 1),
    }


def figures(part: str, work: Path) -> dict[str, Any] | None:
    """What a part's run has found; None where it has not run."""
    if not (work / part / "summary.json").is_file():
        return None
    summary = json.loads((work / part / "summary.json").read_text())
    saved = torch.load(work / part / "checkpoint.pt", weights_only=False) if part in TRAINED else {}
    timing = json.loads((work / part / "timing.json").read_text())
    return {
        "config": config_of(part),
        **{key: summary[key] for key in ("steps", "n", "unique", "failed", "distinct", "distinct_top")},
        **{key: summary[key] for key in ("properties", "correlation", "effective_sample_size", "log_z")},
        "training_seconds": round(saved["seconds"]) if "seconds" in saved else None,
        "reward_itself": expected_distinct(part, work) if part in TRAINED else None,
        **timing,
    }


TRAINED = ("short", "long", "known_only", "band_gap")


def shares(found: dict[str, Any]) -> dict[str, Any]:
    """Quantiles of the one property by set."""
    (only,) = found["properties"].values()
    return dict(only)


def table(parts: dict[str, dict[str, Any]]) -> str:
    """The results as a Markdown page."""
    head = ["", *parts]
    lines = ["| " + " | ".join(head) + " | published |", "|" + "---|" * (len(head) + 1)]

    def row(name: str, values: list[Any], published: Any = "") -> None:
        lines.append(
            "| " + " | ".join([name, *("" if v is None else str(v) for v in values)]) + f" | {published} |"
        )

    found = list(parts.values())
    row(
        "training steps",
        [f["steps"] if f["training_seconds"] is not None else "as short" for f in found],
        "100,000",
    )
    row("training, minutes", [_minutes(f["training_seconds"]) for f in found], "720")
    row("samples", [f["n"] for f in found], "10,000")
    row("unique", [f["unique"] for f in found], "10,000")
    for key, name in (
        ("space_groups", "space groups of 113"),
        ("elements", "elements of 22"),
        ("lattice_systems", "crystal-lattice systems of 8"),
        ("point_symmetries", "point symmetries of 5"),
    ):
        row(name, [f["distinct"][key] for f in found], PUBLISHED[key])
        row(f"{name}, best 100", [f["distinct_top"][key] for f in found], PUBLISHED_TOP[key])
    for key, name in (
        ("space_groups", "space groups, the reward itself"),
        ("space_groups_top", "space groups, best 100, the reward itself"),
    ):
        row(name, [f["reward_itself"] and f"{f['reward_itself'][key]:.0f}" for f in found])
    for key, name in (
        ("samples", "property, samples"),
        ("reward", "property, the reward itself"),
        ("untrained", "property, untrained"),
        ("unrestricted", "property, unrestricted"),
        ("validation", "property, validation"),
    ):
        row(name, [_quartiles(shares(f).get(key)) for f in found])
    row("median, published", [PUBLISHED_MEDIANS.get(part) for part in parts])
    row(
        "correlation of log-probability and log reward",
        [_rounded(f["correlation"]["pearson"]) for f in found],
    )
    row("effective samples of 2,000", [_rounded(f["effective_sample_size"], 0) for f in found])
    return "\n".join(lines)


def _minutes(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds / 60:.1f}"


def _rounded(value: float | None, digits: int = 3) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def _quartiles(found: dict[str, float] | None) -> str | None:
    return None if found is None else f"{found['median']:.2f} ({found['q25']:.2f} to {found['q75']:.2f})"


def draw(parts: dict[str, dict[str, Any]], work: Path, path: Path) -> None:
    """Distributions of the properties: untrained, trained, and under the restrictions."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.4), constrained_layout=True)
    energies = [part for part in parts if part != "band_gap"]
    names = {
        "short": "unrestricted",
        "long": "four times longer",
        "known_only": "model of known materials alone",
    }
    for part in energies:
        label = names.get(part, f"restricted, {part[-1].upper()}")
        _curve(axes[0], work / part, label)
    if "short" in parts:
        _untrained(axes[0], "short", work)
    if "band_gap" in parts:
        _curve(axes[1], work / "band_gap", "samples")
        _untrained(axes[1], "band_gap", work)
        axes[1].axvline(1.34, color="0.5", linewidth=0.8, linestyle="--", label="target")
    axes[0].set_xlabel("predicted formation energy (eV/atom)")
    axes[1].set_xlabel("predicted band gap (eV)")
    for axis in axes:
        axis.set_ylabel("density")
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _untrained(axis: Any, part: str, work: Path) -> None:
    """Random valid crystals."""
    path = find_config(config_of(part))
    made = make_sampling_parts(load_sample_config(path), folder=path.parent, workdir=work)
    crystals = [proposal.candidate for proposal in made.sampler.sample_untrained(5000, seed=0)]
    values = made.reward.terms[0].source(crystals).values.numpy()
    density, edges = np.histogram(values, bins=80, density=True)
    axis.stairs(density, edges, label="untrained", color="0.6", fill=True, alpha=0.5)


def _curve(axis: Any, folder: Path, label: str) -> None:
    values = pd.read_csv(folder / "samples.csv")["property"].dropna()
    density, edges = np.histogram(values, bins=80, density=True)
    axis.stairs(density, edges, label=label)


def main() -> None:
    """Run the parts asked for, then write what all parts have found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument(
        "--parts", default="short,long,known_only,band_gap,restricted", help="parts to run, by comma"
    )
    parser.add_argument("--n", type=int, default=10_000, help="samples of each part")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    order = ("short", "long", "known_only", "band_gap", *(f"restricted_{name}" for name in RESTRICTED))
    wanted = [name for name in arguments.parts.split(",") if name]
    for part in order:
        if part.split("_")[0] in wanted or part in wanted:
            run(part, arguments.work, arguments.n)
    parts = {part: found for part in order if (found := figures(part, arguments.work)) is not None}
    result = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "threads": 1},
        "torch": torch.__version__,
        "parts": parts,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "crystal_gfn.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    head = (
        f"# The evaluation of Crystal-GFN\n\n`python benchmarks/crystal_gfn.py`, {result['date']}, "
        f"{platform.machine()}, one thread. Medians with quartiles; formation energies in eV/atom, band gaps in eV, as "
        f"predicted.\n\n"
    )
    (arguments.out / "crystal_gfn.md").write_text(head + table(parts) + "\n")
    draw(parts, arguments.work, arguments.out / "crystal_gfn.png")
    print(table(parts))


if __name__ == "__main__":
    main()
