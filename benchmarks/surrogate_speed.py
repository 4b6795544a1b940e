"""Speed of the surrogates: CPU time of a cold fit, a warm refit and the scoring of a pool, by number of observations.

    python benchmarks/surrogate_speed.py [--out FILE] [--sizes 50 200 500 ...] [--types multi_fidelity_gp ...]

One thread, 10 features, 4 fidelities, of which the cheapest has half of the answers and the target one in eleven. A
refit has ten observations more than the fit before it. Scored by `mf_gibbon` are 1,000 candidates at 4 fidelities with
8 queries pending, the draws of the greatest value included; then the same once more with one more pending, as when a
batch is chosen; and 64 other queries, as when a sampler is trained. The error is that of the target's prediction at
500 candidates, against the standard deviation of its answers.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import torch
from torch import Tensor

from activelearning.acquisition.gibbon import MultiFidelityGibbon
from activelearning.contracts import AcquisitionContext
from activelearning.contracts.registry import load_plugin
from activelearning.fidelity import Fidelity
from activelearning.observation import Observation
from activelearning.spaces.box import BoxSpace

D, M, TARGET = 10, 4, 3
SPACE = BoxSpace([(0.0, 1.0)] * D)
FIDELITIES = [Fidelity(f"f{i}", i, "y", None, 10.0 ** (i - 3), i == TARGET) for i in range(M)]
MIX = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
N_WAVES = 40
ALL_TYPES = ("sparse_variational_gp", "autoregressive_gp", "continuous_fidelity_gp", "deep_kernel_gp")
T = TypeVar("T")


def rand(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def truth(features: Tensor, fidelity: Tensor) -> Tensor:
    """Sums of random waves, `n`, that the fidelities share for the most part."""
    amplitude = randn(1, N_WAVES, seed=1) + 0.3 * randn(M, N_WAVES, seed=2)
    waves = torch.cos(features @ (1.5 * randn(D, N_WAVES, seed=3)) + 2.0 * math.pi * rand(N_WAVES, seed=4))
    return (waves * amplitude[fidelity]).sum(-1) / math.sqrt(N_WAVES / 2)


def observations(n: int) -> list[Observation]:
    features, fidelity = rand(n, D, seed=5), MIX[torch.arange(n) % len(MIX)]
    values = truth(features, fidelity) + 0.05 * randn(n, seed=6)
    candidates = SPACE.from_features(features)
    return [
        Observation(c, index, value)
        for c, index, value in zip(candidates, fidelity.tolist(), values.tolist(), strict=True)
    ]


def seconds(work: Callable[[], T]) -> tuple[float, T]:
    start = time.process_time()
    result = work()
    return round(time.process_time() - start, 4), result


def at_all_fidelities(features: Tensor) -> Tensor:
    columns = [torch.full((len(features), 1), float(m), dtype=torch.float64) for m in range(M)]
    return torch.cat([torch.cat([features, column], dim=-1) for column in columns])


def speed(name: str, n: int) -> dict[str, Any]:
    """Figures of one surrogate at one number of observations."""
    surrogate = load_plugin("surrogates", name)(SPACE, FIDELITIES)
    known = observations(n + 10)
    cold, _ = seconds(lambda: surrogate.fit(known[:n], seed=0))
    warm, figures = seconds(lambda: surrogate.fit(known, seed=1))
    pending = torch.cat([rand(9, D, seed=7), (torch.arange(9) % M).double().unsqueeze(-1)], dim=-1)
    context = AcquisitionContext(
        surrogate.model, FIDELITIES, TARGET, True, None, rand(1024, D, seed=8), pending[:8], 0
    )
    pool = at_all_fidelities(rand(1000, D, seed=9))
    with torch.no_grad():
        build, scorer = seconds(lambda: MultiFidelityGibbon().build(context))
        first, _ = seconds(lambda: scorer(pool))
        scorer.add_pending(pending[8:])
        again, _ = seconds(lambda: scorer(pool))
        batches = at_all_fidelities(rand(320, D, seed=10)).split(64)
        small, _ = seconds(lambda: [scorer(batch) for batch in batches])
    held_out = rand(500, D, seed=11)
    predicted = surrogate.predict(SPACE.from_features(held_out), TARGET)
    wanted = truth(held_out, torch.full((500,), TARGET))
    return {
        "type": name,
        "n": n,
        "n_inducing": figures["n_inducing"],
        "cold_fit": cold,
        "warm_fit": warm,
        "score_4000": round(build + first, 4),
        "score_4000_again": again,
        "score_64": round(small / len(batches), 5),
        "relative_rmse": round(float((predicted.mean - wanted).square().mean().sqrt() / wanted.std()), 3),
    }


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown page."""
    lines = [
        "# Speed of the surrogates",
        "",
        f"`python benchmarks/surrogate_speed.py --out benchmarks/results/surrogate_speed.json`, {result['date']}, "
        f"{result['machine']}. CPU seconds; {D} features, {M} fidelities.",
        "",
        "| surrogate | observations | inducing points | cold fit | warm refit | 4,000 pairs, 8 pending | once more, "
        "9 pending | 64 pairs (ms) | error / sd |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["speed"]:
        cells = [row["type"], f"{row['n']:,}", str(row["n_inducing"] or "–")]
        cells += [f"{row[key]:.2f}" for key in ("cold_fit", "warm_fit", "score_4000")]
        cells += [
            f"{row['score_4000_again']:.3f}",
            f"{1e3 * row['score_64']:.2f}",
            f"{row['relative_rmse']:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the JSON here, and a table beside it")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[20, 50, 200, 500, 1000, 1500, 5000, 10000, 20000]
    )
    parser.add_argument("--type-sizes", type=int, nargs="+", default=[50, 200, 500], help="for --types")
    parser.add_argument("--types", nargs="+", default=list(ALL_TYPES), help="beside multi_fidelity_gp")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    speed("multi_fidelity_gp", 20)  # what is made on first use is not timed
    rows = []
    for name, n in [
        *[("multi_fidelity_gp", n) for n in arguments.sizes],
        *[(name, n) for name in arguments.types for n in arguments.type_sizes],
    ]:
        rows.append(speed(name, n))
        print(json.dumps(rows[-1]), flush=True)
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, 1 thread",
        "speed": rows,
    }
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
        arguments.out.with_suffix(".md").write_text(table(result))


if __name__ == "__main__":
    main()
