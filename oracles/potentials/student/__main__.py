"""`python -m oracles.potentials.student`: make the student again, from nothing but CHGNet's weights."""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
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


@dataclass(frozen=True)
class Round:
    """One round of making: what is labelled, and how long all labels so far are learned.

    Attributes:
        n_random: Random crystals.
        n_variants: Of each known crystal: distortions in the first round, frames of dynamics in the others.
        epochs: Passes over the labels of this round and all before.
        energy_weight: Of the energy per atom in the loss; it grows once forces are good.
    """

    n_random: int
    n_variants: int
    epochs: int
    energy_weight: float


ROUNDS = (Round(500, 16, 15, 10.0), Round(30, 6, 40, 100.0), Round(30, 18, 40, 100.0))
RANDOM_FRAMES = 6  # of dynamics of each random crystal


def main() -> None:
    """Run one step of the making, or all of them."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(prog="python -m oracles.potentials.student", description=__doc__)
    parser.add_argument(
        "step",
        choices=["label", "train", "test", "all"],
        help="label: CHGNet's labels on distorted and random crystals (round 0) or on frames of the dynamics of "
        "the last round's student; train: a student on all labels so far; test: errors on held-out frames; all: all",
    )
    parser.add_argument("--out", type=Path, default=Path("student"), help="folder of label files and weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--round", type=int, choices=range(len(ROUNDS)), default=0, help="of label and train")
    parser.add_argument(
        "--weights", type=Path, default=STUDENT, help="student to test (default: the shipped one)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small cells are computed faster on one thread than on two
    arguments.out.mkdir(parents=True, exist_ok=True)
    for k in range(len(ROUNDS)) if arguments.step == "all" else [arguments.round]:
        if arguments.step in ("label", "all"):
            started = time.process_time()
            label_round(k, arguments.out, arguments.seed)
            print(f"label round {k}: {time.process_time() - started:.0f} CPU seconds", flush=True)
        if arguments.step in ("train", "all"):
            started = time.process_time()
            train_round(k, arguments.out, arguments.seed)
            print(f"train round {k}: {time.process_time() - started:.0f} CPU seconds", flush=True)
    if arguments.step in ("test", "all"):
        made = arguments.out / f"student-{len(ROUNDS) - 1}.pt"
        weights = made if arguments.step == "all" else arguments.weights
        print(json.dumps(held_out_errors(weights, arguments.out), indent=2))


def label_round(k: int, folder: Path, seed: int) -> None:
    """Write `labels-k.xyz`."""
    path = folder / f"labels-{k}.xyz"
    path.unlink(missing_ok=True)
    settings = ROUNDS[k]
    if k == 0:
        structures = first_structures(settings.n_variants, settings.n_random, seed)
    else:
        student = MaceCalculator(load(folder / f"student-{k - 1}.pt", torch.float32), dtype=torch.float32)
        structures = explored_structures(
            student,
            n_random=settings.n_random,
            n_random_frames=RANDOM_FRAMES,
            n_known_frames=settings.n_variants,
            seed=seed + k - 1,
        )
    label(structures, path)


def train_round(k: int, folder: Path, seed: int) -> None:
    """Write `student-k.pt`, from the student before where there is one."""
    frames, _ = read_frames([folder / f"labels-{j}.xyz" for j in range(k + 1)])
    model, architecture = train(
        frames,
        ARCHITECTURE,
        epochs=ROUNDS[k].epochs,
        seed=seed,
        energy_weight=ROUNDS[k].energy_weight,
        start=folder / f"student-{k - 1}.pt" if k else None,
    )
    save(folder / f"student-{k}.pt", model, architecture)


def held_out_errors(weights: Path, folder: Path) -> dict[str, object]:
    """Errors of a student on the held-out frames of every label file in a folder, known and random crystals apart."""
    model = load(weights, torch.float32)
    results: dict[str, object] = {"weights": str(weights)}
    for source in sorted(folder.glob("labels-*.xyz")):
        _, held_out = read_frames([source])
        for kind in (False, True):
            chosen = [f for f in held_out if f.info["group"].startswith("random") == kind]
            if chosen:
                results[f"{source.stem}, {'random' if kind else 'known'} crystals"] = test(model, chosen)
    return results


if __name__ == "__main__":
    main()
