"""Training and testing of the student on the teacher's labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from oracles.potentials.mace_model import (
    Architecture,
    Graph,
    build,
    graph,
    join,
    load_with_architecture,
)

LABELS = ("energy", "forces", "stress", "weight")
STEEP = 2.0  # eV/Å: forces beyond it count by their relative errors
HUBER = 0.1  # eV per atom and eV/Å: beyond it errors count linearly, so that wild crystals don't rule the fit
WEIGHTS = {"forces": 10.0, "stress": 1000.0}  # eV/Å, eV/Å³; that of the energy grows as forces become good
# Of a frame in the loss, by its source: what a campaign meets last counts least.
SOURCE_WEIGHTS = {"neighbour": 0.5, "transmuted": 0.7, "random": 0.5, "random lithium": 0.3}
AVERAGE_DECAY = 0.998  # of the exponential average of the weights, a step
WARM_STEPS = 300  # over which the learning rate rises at first; in a short course over a twentieth of it
_MEAN_ROOT_SIZE = 4.0  # of a frame of 16 atoms, which thus weighs one
CHECKPOINT = "activelearning-student-checkpoint-1"


@dataclass(frozen=True)
class Course:
    """How long and how fast a student learns.

    Attributes:
        epochs: Passes over the frames.
        rates: Learning rate at the beginning and at the end; in between its logarithm follows half a cosine.
        energy_weights: Weight of the energy per atom in the loss, at the beginning and at the end, likewise.
        batch_size: Structures a step.
    """

    epochs: int
    rates: tuple[float, float] = (1e-2, 1e-4)
    energy_weights: tuple[float, float] = (10.0, 100.0)
    batch_size: int = 8

    def at(self, fraction: float) -> tuple[float, float]:
        """Learning rate and energy weight after a fraction of the course."""
        done = 0.5 - 0.5 * math.cos(math.pi * fraction)
        rate, weight = (first * (last / first) ** done for first, last in (self.rates, self.energy_weights))
        return rate, weight


def read_frames(paths: Sequence[Path]) -> list[Atoms]:
    """Frames of label files."""
    from ase.io import read

    return [frame for path in paths for frame in read(path, index=":")]


def labelled_graph(frame: Atoms, model: torch.nn.Module) -> Graph:
    """A frame's graph with its labels: energy (`1`), forces (`n x 3`), stress (`1 x 3 x 3`), `weight`."""
    data = graph(frame, model, torch.float32)
    data["energy"] = torch.tensor([frame.get_potential_energy()], dtype=torch.float32)
    data["forces"] = torch.as_tensor(frame.get_forces(), dtype=torch.float32)
    data["stress"] = torch.as_tensor(frame.get_stress(voigt=False), dtype=torch.float32)[None]
    source = str(frame.info.get("source", ""))
    data["weight"] = torch.tensor([SOURCE_WEIGHTS.get(source, 1.0)], dtype=torch.float32)
    return data


def collate(graphs: Sequence[Graph]) -> Graph:
    """Several labelled graphs as one of unconnected parts, labels and all."""
    joined = join(graphs)
    for name in LABELS:
        joined[name] = torch.cat([g[name] for g in graphs])
    joined["head"] = torch.zeros(len(graphs), dtype=torch.int64)
    return joined


def element_energies(frames: Sequence[Atoms], atomic_numbers: Sequence[int]) -> np.ndarray:
    """Energy of each element, eV, by which the sum over atoms explains the labels best (ridge, 1e-3)."""
    counts = np.array([[(f.numbers == z).sum() for z in atomic_numbers] for f in frames], dtype=float)
    energies = np.array([f.get_potential_energy() for f in frames])
    per_atom = 1.0 / counts.sum(axis=1)
    a, b = counts * per_atom[:, None], energies * per_atom
    return np.asarray(np.linalg.solve(a.T @ a + 1e-3 * np.eye(len(atomic_numbers)), a.T @ b))


def train(
    frames: Sequence[Atoms],
    architecture: Architecture,
    course: Course,
    *,
    seed: int,
    start: Path | None = None,
    checkpoint: Path | None = None,
    report: Callable[[str], None] = print,
) -> tuple[torch.nn.Module, Architecture]:
    """Fit a student with Adam and an exponential average of the weights.

    Args:
        frames: Labelled structures.
        architecture: What to build; neighbours and energy scale are replaced by those of the frames.
        course: How long and how fast.
        seed: Seed of the weights and of the order of the frames.
        start: A student to start from, whose architecture is then taken.
        checkpoint: Written after each epoch; one that is there is gone on from.
        report: Told the mean loss of each epoch.

    Returns:
        The averaged model and its architecture.

    Raises:
        ValueError: the checkpoint is of another course or other frames.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if start is None:
            architecture = _measured(architecture, frames)
            model: Any = build(architecture)
            energies = torch.as_tensor(
                element_energies(frames, architecture.atomic_numbers), dtype=torch.float32
            )
            model.atomic_energies_fn.atomic_energies.copy_(energies[None])
        else:
            model, architecture = load_with_architecture(start, torch.float32)
    graphs = [labelled_graph(frame, model) for frame in frames]
    optimiser = torch.optim.Adam(model.parameters(), amsgrad=True)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE_DECAY)
    )
    parts = {"model": model, "average": average, "optimiser": optimiser}
    identity = {"format": CHECKPOINT, "course": repr(course), "seed": seed, "frames": len(frames)}
    epoch = 0
    if checkpoint is not None and checkpoint.exists():
        content = torch.load(checkpoint, weights_only=True)
        if content["identity"] != identity:
            raise ValueError(f"{checkpoint} is of another training ({content['identity']}); delete it.")
        for name, part in parts.items():
            part.load_state_dict(content[name])
        epoch = content["epoch"]
    n_batches = -(-len(graphs) // course.batch_size)
    n_warm = min(WARM_STEPS, 1 + course.epochs * n_batches // 20)
    while epoch < course.epochs:
        losses = []
        # The order depends on the epoch alone, so that a resumed training is the one that was stopped.
        batches = _batches(graphs, course.batch_size, np.random.default_rng([seed, epoch]))
        for k, batch in enumerate(batches):
            rate, energy_weight = course.at((epoch + k / n_batches) / course.epochs)
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1.0, (epoch * n_batches + k + 1) / n_warm)
            optimiser.zero_grad()
            loss = _loss(model(batch, training=True, compute_stress=True), batch, energy_weight)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimiser.step()
            average.update_parameters(model)
            losses.append(loss.item())
        epoch += 1
        report(f"epoch {epoch} of {course.epochs}: loss {np.mean(losses):.4f}")
        if checkpoint is not None:
            states = {name: part.state_dict() for name, part in parts.items()}
            partial = checkpoint.with_suffix(".partial")
            torch.save({"identity": identity, "epoch": epoch, **states}, partial)
            partial.replace(checkpoint)
    return average.module, architecture


def _measured(architecture: Architecture, frames: Sequence[Atoms]) -> Architecture:
    from matscipy.neighbours import neighbour_list

    n_edges = sum(len(neighbour_list("i", atoms=frame, cutoff=architecture.r_max)) for frame in frames)
    forces = np.concatenate([frame.get_forces() for frame in frames])
    return replace(
        architecture,
        average_neighbors=n_edges / sum(len(frame) for frame in frames),
        energy_scale=float(np.sqrt((forces**2).mean())),
    )


def _batches(graphs: Sequence[Graph], size: int, rng: np.random.Generator) -> Iterator[Graph]:
    order = rng.permutation(len(graphs))
    for first in range(0, len(order), size):
        yield collate([graphs[k] for k in order[first : first + size]])


def _loss(out: dict[str, Any], batch: Graph, energy_weight: float) -> Tensor:
    """Weighted mean over the frames, each frame's forces weighing as the root of its size."""
    sizes = torch.diff(batch["ptr"])
    weights = batch["weight"] / len(sizes)

    def huber(found: Tensor, wanted: Tensor) -> Tensor:
        return torch.nn.functional.huber_loss(found, wanted, delta=HUBER, reduction="none")

    energy = huber(out["energy"] / sizes, batch["energy"] / sizes)
    # Each component of a force weighs less where that on its atom is large: a steep wall needs relative accuracy.
    size = batch["forces"].norm(dim=-1, keepdim=True)
    by_atom = (huber(out["forces"], batch["forces"]) / (1.0 + size / STEEP)).mean(dim=-1)
    stress = huber(out["stress"], batch["stress"]).mean(dim=(1, 2))
    by_frame = energy_weight * energy + WEIGHTS["stress"] * stress
    # Larger cells tell more, but not in proportion: their atoms are alike.
    forces = by_atom * (weights / sizes.sqrt())[batch["batch"]]
    return (weights * by_frame).sum() + WEIGHTS["forces"] * forces.sum() / _MEAN_ROOT_SIZE


def test(model: torch.nn.Module, frames: Sequence[Atoms]) -> dict[str, float]:
    """Mean absolute errors on labelled frames (energy meV/atom, forces meV/Å, stress GPa) and the labels' RMS force."""
    from ase.units import GPa

    energies, forces, stresses, sizes = [], [], [], []
    for frame in frames:
        batch = collate([labelled_graph(frame, model)])
        out = model(batch, compute_stress=True)
        energies.append(abs(float((out["energy"] - batch["energy"]).detach()) / len(frame)))
        forces.append((out["forces"] - batch["forces"]).detach().abs().flatten())
        stresses.append((out["stress"] - batch["stress"]).detach().abs().flatten())
        sizes.append(batch["forces"].flatten())
    return {
        "n_structures": len(frames),
        "energy_mae_meV_per_atom": 1e3 * float(np.mean(energies)),
        "force_mae_meV_per_A": 1e3 * float(torch.cat(forces).mean()),
        "force_rms_of_labels_meV_per_A": 1e3 * float(torch.cat(sizes).pow(2).mean().sqrt()),
        "stress_mae_GPa": float(torch.cat(stresses).mean()) / GPa,
    }
