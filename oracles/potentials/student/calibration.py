"""Errors of a student on held-out frames by family, and the estimate of its errors that goes with its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from oracles.potentials.mace_model import read
from oracles.potentials.reliability import Reliability
from oracles.potentials.student.chemistry import ELECTROLYTE_ELEMENTS, family, split_key
from oracles.potentials.student.sampling import KNOWN
from oracles.potentials.student.train import collate, labelled_graph, test

# Dynamics are not to be trusted where the expected error is above this many times that of held-out materials at 600 K.
THRESHOLD_RATIO = 2.0
TRAINED_ON = ("flagship", "familiar")  # sources of test frames whose materials were trained on
ATOMS_PER_ELEMENT = 1500  # of training, at least where there are as many, by which an element is described


def held_out_errors(weights: Path, frames: Sequence[Atoms]) -> dict[str, Any]:
    """Errors by source and family, and how well the estimate that was saved with the weights foresees them.

    Args:
        weights: File of a student.
        frames: Labelled, of `test_samples` and `familiar_samples`.
    """
    saved = read(weights)
    model = saved.model(torch.float32)
    known = [frame for frame in frames if frame.info["source"] in KNOWN]
    results: dict[str, Any] = {"weights": weights.name}
    groups = {
        "held-out materials, 600 K": known,
        "held-out materials of electrolytes' elements, 600 K": [
            f for f in known if set(f.get_chemical_symbols()) <= ELECTROLYTE_ELEMENTS
        ],
        "held-out relatives, 600 K": [f for f in frames if f.info["source"] == "substituted"],
        "other materials, 600 K": [f for f in frames if f.info["source"] == "familiar"],
        "known conductors, 600 K": [f for f in frames if f.info["source"] == "flagship"],
        "random crystals of Li-P-S-Cl": [f for f in frames if f.info["source"] == "random"],
        "random crystals with lithium": [f for f in frames if f.info["source"] == "random lithium"],
    }
    for frame in known:
        groups.setdefault(f"held out, {family(frame.get_chemical_symbols())}", []).append(frame)
    for name, chosen in groups.items():
        if chosen:
            materials = {split_key(frame) for frame in chosen}
            results[name] = {"n_materials": len(materials), **test(model, chosen)}
    if saved.reliability is not None:
        later = [f for f in frames if not is_for_calibration(f) and f.info["source"] not in TRAINED_ON]
        results["estimate of errors"] = foresight(model, saved.reliability, later)
    return results


def error_table(results: dict[str, Any]) -> list[str]:
    """Lines of a table of `held_out_errors`, and of what its estimate of errors is worth."""
    lines = [
        "| frames | materials | n | energy (meV/atom) | forces (meV/Å) | of RMS | stress (GPa) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in results.items():
        if isinstance(row, dict) and "n_structures" in row:
            lines.append(
                f"| {name} | {row['n_materials']} | {row['n_structures']} | {row['energy_mae_meV_per_atom']:.0f} | "
                f"{row['force_mae_meV_per_A']:.0f} | {row['force_rms_of_labels_meV_per_A']:.0f} | "
                f"{row['stress_mae_GPa']:.2f} |"
            )
    estimate = results.get("estimate of errors", {})
    return [*lines, "", *(f"{name}: {value:.2f}" for name, value in estimate.items())]


def is_of_held_out_material(frame: Atoms) -> bool:
    """Whether a frame of the test set is of a material, or a relative of one, of which the student knows nothing."""
    source = frame.info["source"]
    return not source.startswith("random") and source not in TRAINED_ON


def is_for_calibration(frame: Atoms) -> bool:
    """Whether a held-out frame calibrates the estimate of errors; the others, of other materials, test it."""
    return hashlib.sha256(split_key(frame).encode()).digest()[1] % 2 == 0


def reliability_of(
    model: torch.nn.Module, training: Sequence[Atoms], held_out: Sequence[Atoms]
) -> Reliability:
    """The estimate of a student's errors: learned on its training set, rescaled on half of the held-out materials.

    Args:
        model: The student.
        training: Frames it was trained on.
        held_out: Frames it was not; the known materials of `is_for_calibration` are used.
    """
    network: Any = model
    n_kinds = len(network.atomic_numbers)
    counts = torch.zeros(n_kinds, dtype=torch.int64)
    order = np.random.default_rng(0).permutation(len(training))
    parts: list[tuple[Tensor, ...]] = []
    for k in order:
        kinds = torch.bucketize(torch.as_tensor(training[k].numbers), network.atomic_numbers)
        if (counts[kinds] < ATOMS_PER_ELEMENT).any():
            counts += torch.bincount(kinds, minlength=n_kinds)
            parts += _by_frame(model, [training[k]])
    features, kinds, forces, errors = (torch.cat(column) for column in zip(*parts, strict=True))
    # Those of the last layer foresee as much as all, at a fourth of the room.
    width = features.shape[1] // int(network.num_interactions)
    reliability = Reliability.fit(features[:, -width:], kinds, forces, errors, n_kinds)
    expected, true = [], []
    for features, kinds, forces, errors in _by_frame(
        model, [f for f in held_out if is_for_calibration(f) and is_of_held_out_material(f)]
    ):
        expected.append(float(reliability.force_errors(features, kinds, forces).mean()))
        true.append(float(errors.mean()))
    typical = float(np.mean(true))
    return reliability.rescaled(typical / float(np.mean(expected)), THRESHOLD_RATIO * typical)


def foresight(model: torch.nn.Module, reliability: Reliability, frames: Sequence[Atoms]) -> dict[str, float]:
    """How expected errors of frames compare with true ones: rank correlation, ratio, and what the threshold finds.

    Args:
        model: The student.
        reliability: The estimate.
        frames: Labelled, neither trained on nor used in calibration.
    """
    from scipy.stats import spearmanr

    expected, true = [], []
    for features, kinds, forces, errors in _by_frame(model, frames):
        expected.append(float(reliability.force_errors(features, kinds, forces).mean()))
        true.append(float(errors.mean()))
    e, t = np.array(expected), np.array(true)
    flagged, bad = e > reliability.threshold, t > reliability.threshold
    return {
        "n_frames": len(e),
        "spearman": float(spearmanr(e, t).statistic),
        "mean_expected_over_mean_true": float(e.mean() / t.mean()),
        "fraction_above_threshold": float(bad.mean()),
        "recall_above_threshold": float(flagged[bad].mean()) if bad.any() else float("nan"),
        "precision_above_threshold": float(bad[flagged].mean()) if flagged.any() else float("nan"),
    }


def _by_frame(
    model: torch.nn.Module, frames: Sequence[Atoms]
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Of each frame, `n` rows each: node features, elements, the model's forces and their mean absolute errors."""
    network: Any = model
    for frame in frames:
        batch = collate([labelled_graph(frame, model)])
        out = network(batch)
        forces = out["forces"].detach()
        errors = (forces - batch["forces"]).abs().mean(dim=1)
        yield out["node_feats"].detach(), batch["node_attrs"].argmax(dim=1), forces, errors
