"""Training and testing of the student on the teacher's labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from oracles.potentials.mace_model import Architecture, build, graph, load_with_architecture

Graph = dict[str, Tensor]

HUBER = 0.1  # eV per atom and eV/Å: beyond it errors count linearly, so that wild crystals don't rule the fit
WEIGHTS = {"forces": 10.0, "stress": 100.0}  # eV/Å, eV/Å³; that of the energy grows as forces become good


def is_held_out(group: str, index: int) -> bool:
    """Whether a frame is kept for testing: one in ten; a random crystal goes with all its relatives."""
    name = group if group.startswith("random") else f"{group} {index}"
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10 == 0


def read_frames(paths: Sequence[Path]) -> tuple[list[Atoms], list[Atoms]]:
    """Training and held-out frames of label files."""
    from ase.io import read

    training: list[Atoms] = []
    held_out: list[Atoms] = []
    for path in paths:
        for index, frame in enumerate(read(path, index=":")):
            (held_out if is_held_out(frame.info["group"], index) else training).append(frame)
    return training, held_out


def labelled_graph(frame: Atoms, model: torch.nn.Module) -> Graph:
    """A frame's graph with its labels: energy (`1`), forces (`n x 3`), stress (`1 x 3 x 3`)."""
    data = graph(frame, model, torch.float32)
    data["energy"] = torch.tensor([frame.get_potential_energy()], dtype=torch.float32)
    data["forces"] = torch.as_tensor(frame.get_forces(), dtype=torch.float32)
    data["stress"] = torch.as_tensor(frame.get_stress(voigt=False), dtype=torch.float32)[None]
    return data


def collate(graphs: Sequence[Graph]) -> Graph:
    """Several graphs as one with several components."""
    sizes = [len(g["positions"]) for g in graphs]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    joined = {
        name: torch.cat([g[name] for g in graphs])
        for name in ("positions", "cell", "unit_shifts", "shifts", "node_attrs", "energy", "forces", "stress")
    }
    joined["edge_index"] = torch.cat(
        [g["edge_index"] + int(start) for g, start in zip(graphs, starts[:-1], strict=True)], dim=1
    )
    joined["batch"] = torch.repeat_interleave(torch.arange(len(graphs)), torch.tensor(sizes))
    joined["ptr"] = torch.as_tensor(starts, dtype=torch.int64)
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
    *,
    epochs: int,
    seed: int,
    batch_size: int = 8,
    learning_rate: float = 1e-2,
    energy_weight: float = 10.0,
    start: Path | None = None,
    report_every: int = 5,
) -> tuple[torch.nn.Module, Architecture]:
    """Fit a student with Adam, a cosine schedule and an exponential average of the weights.

    Args:
        frames: Labelled structures.
        architecture: What to build; neighbours and energy scale are replaced by those of the frames.
        epochs: Passes over the frames.
        seed: Seed of the weights and of the order of the frames.
        batch_size: Structures a step.
        learning_rate: At the start of the schedule.
        energy_weight: Of the energy per atom in the loss, beside `WEIGHTS`.
        start: A student to start from, of the same architecture.
        report_every: Print the loss after so many epochs.

    Returns:
        The averaged model and its architecture.
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
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate, amsgrad=True)
    n_steps = epochs * -(-len(graphs) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps, eta_min=learning_rate / 100)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    rng = np.random.default_rng(seed)
    for epoch in range(1, epochs + 1):
        losses = []
        for batch in _batches(graphs, batch_size, rng):
            optimiser.zero_grad()
            loss = _loss(model(batch, training=True, compute_stress=True), batch, energy_weight)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimiser.step()
            schedule.step()
            average.update_parameters(model)
            losses.append(loss.item())
        if epoch % report_every == 0 or epoch == epochs:
            print(f"epoch {epoch}: loss {np.mean(losses):.4f}", flush=True)
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
    sizes = torch.diff(batch["ptr"])
    huber = torch.nn.functional.huber_loss
    energy = huber(out["energy"] / sizes, batch["energy"] / sizes, delta=HUBER)
    # Each component of a force weighs less the larger the force on its atom is: a steep wall needs relative accuracy.
    size = batch["forces"].norm(dim=-1, keepdim=True)
    forces = (huber(out["forces"], batch["forces"], delta=HUBER, reduction="none") / (1.0 + size)).mean()
    stress = huber(out["stress"], batch["stress"], delta=HUBER)
    return energy_weight * energy + WEIGHTS["forces"] * forces + WEIGHTS["stress"] * stress


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
