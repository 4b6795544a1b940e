"""`python -m oracles.potentials.student`: make the student again, from CHGNet's weights and two tables of crystals."""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from ase.data import atomic_numbers

from activelearning.errors import ActiveLearningError
from oracles.ml_proxy.data import find_obelix
from oracles.ml_proxy.materials import find_materials
from oracles.potentials.loading import STUDENT, load_calculator
from oracles.potentials.mace_model import Architecture, MaceCalculator, load, load_with_architecture, save
from oracles.potentials.student.calibration import error_table, held_out_errors, reliability_of
from oracles.potentials.student.chemistry import ELEMENTS
from oracles.potentials.student.labels import label
from oracles.potentials.student.materials import Material, known_materials
from oracles.potentials.student.sampling import (
    Sample,
    explored_samples,
    familiar_samples,
    first_samples,
    test_samples,
)
from oracles.potentials.student.train import Course, read_frames, train

ARCHITECTURE = Architecture(
    atomic_numbers=tuple(sorted(atomic_numbers[symbol] for symbol in ELEMENTS)),
    channels=128,
    correlation=3,
    r_max=5.0,
)


@dataclass(frozen=True)
class Round:
    """One round of making: what is labelled, and how all labels so far are learned.

    Attributes:
        n_random: Random crystals with lithium.
        n_flagship: Random crystals of Li, P, S and Cl.
        course: How long and how fast the student learns.
    """

    n_random: int
    n_flagship: int
    course: Course


ROUNDS = (
    Round(450, 150, Course(epochs=8, rates=(1e-2, 3e-3), energy_weights=(3.0, 3.0))),
    Round(60, 60, Course(epochs=16, rates=(4e-3, 2e-5), energy_weights=(3.0, 10.0))),
)
N_TEST_MATERIALS, N_TEST_RANDOM = 36, 30


def main() -> None:
    """Run one step of the making, or all of them; the exit code is 2 where the data are not there."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(prog="python -m oracles.potentials.student", description=__doc__)
    parser.add_argument(
        "step",
        choices=["label", "train", "testset", "finish", "test", "all"],
        help="label: CHGNet's labels on distorted and random crystals (round 0) or on frames of the dynamics of "
        "the last round's student; train: a student on all labels so far, gone on with where it was stopped; testset: "
        "held-out and other materials in CHGNet's own dynamics; finish: the last student with its estimate of errors; "
        "test: errors by family, as a table and as errors.json; all: all, in this order",
    )
    parser.add_argument("--out", type=Path, default=Path("student"), help="folder of label files and weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--round", type=int, choices=range(len(ROUNDS)), default=0, help="of label and train")
    parser.add_argument(
        "--weights", type=Path, default=STUDENT, help="student to test (default: the shipped one)"
    )
    parser.add_argument(
        "--materials", type=Path, help="table of materials with structures (default: $ACTIVELEARNING_MP)"
    )
    parser.add_argument("--conductors", type=Path, help="folder of CIFs (default: $ACTIVELEARNING_OBELIX)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small cells are computed faster on one thread than on two
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        run(arguments)
    except ActiveLearningError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def run(arguments: argparse.Namespace) -> None:
    """Run the steps that were asked for.

    Raises:
        InputError: the data are not there.
    """
    step, folder, seed = arguments.step, arguments.out, arguments.seed
    materials: list[Material] = []
    if step in ("label", "testset", "all"):
        table, conductors = find_materials(arguments.materials), find_obelix(arguments.conductors)
        materials = known_materials(table, conductors if conductors.is_dir() else conductors.parent, seed)
    for k in range(len(ROUNDS)) if step == "all" else [arguments.round]:
        started = time.process_time()
        if step in ("label", "all"):
            label_round(k, materials, folder, seed)
        if step in ("train", "all"):
            train_round(k, folder, seed)
        if step in ("label", "train", "all"):
            print(f"round {k}: {time.process_time() - started:.0f} CPU seconds", flush=True)
    if step in ("testset", "all"):
        label_anew(
            test_samples(load_calculator("chgnet"), materials, N_TEST_MATERIALS, N_TEST_RANDOM, seed),
            folder / "labels-test.xyz",
        )
        label_anew(
            familiar_samples(load_calculator("chgnet"), materials, N_TEST_MATERIALS, seed),
            folder / "labels-familiar.xyz",
        )
    if step in ("finish", "all"):
        finish(folder)
    if step in ("test", "all"):
        weights = folder / "student.pt" if step == "all" else arguments.weights
        frames = read_frames([folder / "labels-test.xyz", folder / "labels-familiar.xyz"])
        results = held_out_errors(weights, frames)
        (folder / "errors.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        print("\n".join(error_table(results)))


def label_anew(samples: Iterable[Sample], path: Path) -> None:
    """Label samples into a new file."""
    path.unlink(missing_ok=True)
    label(samples, path)


def label_round(k: int, materials: list[Material], folder: Path, seed: int) -> None:
    """Write `labels-k.xyz`."""
    n_random, n_flagship = ROUNDS[k].n_random, ROUNDS[k].n_flagship
    if k == 0:
        samples = first_samples(materials, n_random, n_flagship, seed)
    else:
        student = MaceCalculator(load(folder / f"student-{k - 1}.pt", torch.float32), dtype=torch.float32)
        samples = explored_samples(student, materials, n_random, n_flagship, seed + k)
    label_anew(samples, folder / f"labels-{k}.xyz")


def train_round(k: int, folder: Path, seed: int) -> None:
    """Write `student-k.pt`, from the student before where there is one."""
    frames = read_frames([folder / f"labels-{j}.xyz" for j in range(k + 1)])
    model, architecture = train(
        frames,
        ARCHITECTURE,
        ROUNDS[k].course,
        seed=seed,
        start=folder / f"student-{k - 1}.pt" if k else None,
        checkpoint=folder / f"checkpoint-{k}.pt",
        report=lambda line: print(line, flush=True),
    )
    save(folder / f"student-{k}.pt", model, architecture)


def finish(folder: Path) -> None:
    """Write `student.pt`: the last round's student with the estimate of its errors."""
    model, architecture = load_with_architecture(folder / f"student-{len(ROUNDS) - 1}.pt", torch.float32)
    training = read_frames([folder / f"labels-{k}.xyz" for k in range(len(ROUNDS))])
    held_out = read_frames([folder / "labels-test.xyz"])
    save(folder / "student.pt", model, architecture, reliability_of(model, training, held_out))


if __name__ == "__main__":
    main()
