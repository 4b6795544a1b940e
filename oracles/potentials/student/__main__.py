"""`python -m oracles.potentials.student`: make the student again, from nothing but CHGNet's weights."""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

from ase.data import atomic_numbers

from oracles.potentials.loading import STUDENT
from oracles.potentials.mace_model import Architecture, MaceCalculator, load, save
from oracles.potentials.student.explore import explored_structures
from oracles.potentials.student.labels import label
from oracles.potentials.student.structures import ELEMENTS, first_structures
from oracles.potentials.student.train import read_frames, test, train

ARCHITECTURE = Architecture(
    atomic_numbers=tuple(sorted(atomic_numbers[symbol] for symbol in ELEMENTS)), r_max=4.5
)


def main() -> None:
    """Run one step of the making, or all of them."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(prog="python -m oracles.potentials.student", description=__doc__)
    parser.add_argument(
        "step",
        choices=["label", "train", "explore", "refine", "test", "all"],
        help="label: first structures by CHGNet; train: a first student on them; explore: label frames of its own "
        "dynamics; refine: train on everything, slowly; test: errors on held-out frames; all: these in turn",
    )
    parser.add_argument("--out", type=Path, default=Path("student"), help="folder of label files and weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", type=int, default=16, help="distortions of each prototype")
    parser.add_argument("--random", type=int, default=500, help="random crystals labelled first")
    parser.add_argument("--explored", type=int, default=30, help="random crystals explored")
    parser.add_argument("--frames", type=int, default=6, help="frames of dynamics of each explored crystal")
    parser.add_argument(
        "--epochs", type=int, nargs=2, default=[15, 40], help="of the first and of the final training"
    )
    parser.add_argument(
        "--weights", type=Path, help="student to test (default: the shipped one, or the one just made)"
    )
    arguments = parser.parse_args()
    one_thread()
    arguments.out.mkdir(parents=True, exist_ok=True)
    steps = ["label", "train", "explore", "refine", "test"] if arguments.step == "all" else [arguments.step]
    for step in steps:
        started = time.process_time()
        _STEPS[step](arguments)
        print(f"{step}: {time.process_time() - started:.0f} CPU seconds", flush=True)


def one_thread() -> None:
    """Small cells are computed faster on one thread than on two."""
    import torch

    torch.set_num_threads(1)


def _label(arguments: argparse.Namespace) -> None:
    path = arguments.out / "first.xyz"
    path.unlink(missing_ok=True)
    label(first_structures(arguments.variants, arguments.random, arguments.seed), path)


def _train(arguments: argparse.Namespace) -> None:
    frames, _ = read_frames([arguments.out / "first.xyz"])
    model, architecture = train(frames, ARCHITECTURE, epochs=arguments.epochs[0], seed=arguments.seed)
    save(arguments.out / "first.pt", model, architecture)


def _explore(arguments: argparse.Namespace) -> None:
    import torch

    student = MaceCalculator(load(arguments.out / "first.pt", torch.float32), dtype=torch.float32)
    path = arguments.out / "explored.xyz"
    path.unlink(missing_ok=True)
    label(explored_structures(student, arguments.explored, arguments.frames, arguments.seed), path)


def _refine(arguments: argparse.Namespace) -> None:
    frames, _ = read_frames([arguments.out / "first.xyz", arguments.out / "explored.xyz"])
    model, architecture = train(
        frames,
        ARCHITECTURE,
        epochs=arguments.epochs[1],
        seed=arguments.seed,
        energy_weight=100.0,
        start=arguments.out / "first.pt",
    )
    save(arguments.out / STUDENT.name, model, architecture)


def _test(arguments: argparse.Namespace) -> None:
    import torch

    made = arguments.out / STUDENT.name
    path = arguments.weights or (made if made.exists() else STUDENT)
    model = load(path, torch.float32)
    results: dict[str, object] = {"weights": str(path)}
    for name in ("first", "explored"):
        source = arguments.out / f"{name}.xyz"
        if not source.exists():
            continue
        _, held_out = read_frames([source])
        for kind, chosen in (
            ("known crystals", [f for f in held_out if not f.info["group"].startswith("random")]),
            ("random crystals", [f for f in held_out if f.info["group"].startswith("random")]),
        ):
            if chosen:
                results[f"{name}, {kind}"] = test(model, chosen)
    print(json.dumps(results, indent=2))


_STEPS = {"label": _label, "train": _train, "explore": _explore, "refine": _refine, "test": _test}

if __name__ == "__main__":
    main()
