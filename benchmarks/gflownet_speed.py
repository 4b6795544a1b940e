"""Speed of the GFlowNet: trajectories a CPU-second, sampled and trained, and the share outside the networks.

    python benchmarks/gflownet_speed.py [--out FILE] [--batch-size 100] [--repeats 30]

One thread. Sampling draws terminal states. Training draws a batch, scores it with a reward that costs nothing, and
makes one update; half of it is replayed in the last column. The share outside the networks is all CPU time but that
of the policy's layers and its densities, forward and backward, and of the optimiser.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

import torch
from environment_speed import SPACES
from torch import Tensor

from activelearning.spaces.box import BoxSpace
from activelearning.spaces.crystal import CrystalSpace
from samplers.gflownet.environments import Environment, make_environment
from samplers.gflownet.learner import Learner
from samplers.gflownet.mixture import BetaMixture
from samplers.gflownet.policy import ForwardPolicy
from samplers.gflownet.settings import LearnerSettings

WARM_UP = 20  # updates before any is timed


class Clock:
    """CPU time inside the functions that it is put around."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed; calls within a timed call are not counted twice."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.process_time() - start

        return timed

    @contextmanager
    def on_networks(self) -> Iterator[None]:
        """Count what the policy's layers and densities, the gradient and the optimiser take."""
        parts: list[tuple[Any, str]] = [
            (ForwardPolicy, "forward"),
            (ForwardPolicy, "probabilities"),
            (ForwardPolicy, "mixture"),
            (ForwardPolicy, "log_prob"),
            (BetaMixture, "log_prob"),
            (Tensor, "backward"),
            (torch.nn.utils, "clip_grad_norm_"),
            (torch.optim.Adam, "zero_grad"),
            (torch.optim.Adam, "step"),
        ]
        kept = [(owner, name, getattr(owner, name)) for owner, name in parts]
        for owner, name, function in kept:
            setattr(owner, name, self.around(function))
        try:
            yield
        finally:
            for owner, name, function in kept:
                setattr(owner, name, function)


def measure(work: Callable[[], object], n: int, repeats: int) -> dict[str, float]:
    """Trajectories a CPU-second of `work`, which handles n, and the share of its time outside the networks."""
    for _ in range(3):
        work()
    start = time.process_time()
    for _ in range(repeats):
        work()
    plain = time.process_time() - start
    clock = Clock()
    with clock.on_networks():
        start = time.process_time()
        for _ in range(repeats):
            work()
        timed = time.process_time() - start
    return {
        "trajectories_per_cpu_second": round(n * repeats / plain, 1),
        "share_outside_networks": round(1.0 - clock.seconds / timed, 3),
    }


def free_reward(states: Tensor) -> Tensor:
    return states.sum(dim=1).sin()


def speed(environment: Environment, batch_size: int, repeats: int) -> dict[str, Any]:
    """Figures of one environment, with the default networks."""
    generator = torch.Generator().manual_seed(0)
    figures: dict[str, Any] = {}
    for name, replay_share in (("trained", 0.0), ("trained_half_replayed", 0.5)):
        settings = LearnerSettings(batch_size=batch_size, replay_share=replay_share)
        learner = Learner(environment, settings)
        if not figures:
            lengths = learner.sample(1000, generator).lengths
            figures["mean_length"] = round(lengths.double().mean().item(), 2)
            figures["sampled"] = measure(
                partial(learner.sample_terminal, batch_size, generator), batch_size, repeats
            )
        fit = learner.start(free_reward, steps=10**6, generator=generator)
        fit.run(WARM_UP)  # fills the buffer
        figures[name] = measure(partial(fit.run, 1), batch_size, repeats)
    return figures


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown page."""
    lines = [
        "# Speed of the GFlowNet",
        "",
        f"`python benchmarks/gflownet_speed.py --out benchmarks/results/gflownet_speed.json`, "
        f"{result['date']}, {result['machine']}, networks of {' x '.join(map(str, result['hidden']))}.",
        "",
        "| space | batch | steps | sampled / CPU-s | outside networks | trained / CPU-s | outside networks "
        "| trained, half replayed / CPU-s | outside networks |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["speed"]:
        cells = [row["space"], f"{row['batch_size']:,}", f"{row['mean_length']:.1f}"]
        for part in ("sampled", "trained", "trained_half_replayed"):
            cells.append(f"{row[part]['trajectories_per_cpu_second']:,.0f}")
            cells.append(f"{row[part]['share_outside_networks']:.0%}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the JSON here, and a table beside it")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spaces = {"box, 4 dimensions": BoxSpace([(0.0, 1.0)] * 4)}
    spaces |= {name: CrystalSpace(**params) for name, params in SPACES.items()}
    rows = [
        {
            "space": name,
            "batch_size": size,
            **speed(make_environment(space, None), size, max(5, arguments.repeats * 100 // size)),
        }
        for name, space in spaces.items()
        for size in arguments.batch_sizes
    ]
    settings = LearnerSettings()
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, 1 thread",
        "hidden": list(settings.hidden),
        "n_components": settings.n_components,
        "speed": rows,
    }
    text = json.dumps(result, indent=2) + "\n"
    if arguments.out is None:
        print(text, end="")
    else:
        arguments.out.write_text(text)
        arguments.out.with_suffix(".md").write_text(table(result))


if __name__ == "__main__":
    main()
