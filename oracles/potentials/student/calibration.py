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

from oracles.potentials.mace_model import load_reliability, load_with_architecture
from oracles.potentials.reliability import Reliability
from oracles.potentials.student.chemistry import family, split_key
from oracles.potentials.student.train import collate, labelled_graph, test

# Expected mean absolute error of a force component, eV/Å, above which an estimate is to be mistrusted: about twice
# that of a typical held-out material at 600 K.
THRESHOLD = 0.25
ATOMS_PER_ELEMENT = 4000  # of training, from which an element's features are described


def held_out_errors(weights: Path, frames: Sequence[Atoms]) -> dict[str, Any]:
    """Errors by source and family, and how well the estimate that was saved with the weights foresees them.

    Args:
        weights: File of a student.
        frames: Labelled and held out.
    """
    model, _ = load_with_architecture(weights, torch.float32)
    known = [frame for frame in frames if not frame.info["source"].startswith("random")]
    results: dict[str, Any] = {"weights": weights.name}
    groups = {
        "held-out materials, 600 K": [f for f in known if f.info["source"] != "flagship"],
        "held-out materials with lithium, 600 K": [
            f for f in known if f.info["source"] != "flagship" and "Li" in f.symbols
        ],
        "known conductors, 600 K": [f for f in known if f.info["source"] == "flagship"],
        "random crystals of Li-P-S-Cl": [f for f in frames if f.info["source"] == "random"],
        "random crystals with lithium": [f for f in frames if f.info["source"] == "random lithium"],
    }
    for frame in known:
        if frame.info["source"] != "flagship":
            groups.setdefault(f"600 K, {family(frame.get_chemical_symbols())}", []).append(frame)
    for name, chosen in groups.items():
        if chosen:
            materials = {split_key(frame) for frame in chosen}
            results[name] = {"n_materials": len(materials), **test(model, chosen)}
    reliability = load_reliability(weights)
    if reliability is not None:
        later = [f for f in frames if not is_for_calibration(f)]
        results["estimate of errors"] = foresight(model, reliability, later)
    return results


def is_for_calibration(frame: Atoms) -> bool:
    """Whether a held-out frame calibrates the estimate of errors; the others, of other materials, test it."""
    return hashlib.sha256(split_key(frame).encode()).digest()[1] % 2 == 0


def reliability_of(
    model: torch.nn.Module, training: Sequence[Atoms], held_out: Sequence[Atoms]
) -> Reliability:
    """The estimate of a student's errors: distances to its training set, calibrated on half of the held-out materials.

    Args:
        model: The student.
        training: Frames it was trained on.
        held_out: Frames it was not; those of `is_for_calibration` are used.
    """
    network: Any = model
    n_kinds = len(network.atomic_numbers)
    features, kinds = [], []
    counts = torch.zeros(n_kinds, dtype=torch.int64)
    order = np.random.default_rng(0).permutation(len(training))
    for found, mine, _ in _by_frame(model, [training[k] for k in order]):
        if (counts[mine] < ATOMS_PER_ELEMENT).any():
            features.append(found)
            kinds.append(mine)
            counts += torch.bincount(mine, minlength=n_kinds)
    reliability = Reliability.fit(torch.cat(features), torch.cat(kinds), n_kinds)
    distances, errors = [], []
    for found, mine, error in _by_frame(model, [f for f in held_out if is_for_calibration(f)], errors=True):
        distances.append(reliability.distances(found, mine))
        errors.append(error)
    return reliability.calibrated(torch.cat(distances), torch.cat(errors), THRESHOLD)


def foresight(model: torch.nn.Module, reliability: Reliability, frames: Sequence[Atoms]) -> dict[str, float]:
    """How expected errors of frames compare with true ones: rank correlation, ratio, and what the threshold finds.

    Args:
        model: The student.
        reliability: The estimate.
        frames: Labelled, neither trained on nor used in calibration.
    """
    from scipy.stats import spearmanr

    expected, true = [], []
    for found, mine, error in _by_frame(model, frames, errors=True):
        expected.append(float(reliability.force_errors(found, mine).mean()))
        true.append(float(error.mean()))
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
    model: torch.nn.Module, frames: Sequence[Atoms], *, errors: bool = False
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of each frame: node features (`n x d`), elements (`n`), mean absolute errors of force components (`n`, eV/Å)."""
    network: Any = model
    for frame in frames:
        batch = collate([labelled_graph(frame, model)])
        out = network(batch, compute_force=errors)
        wrong = (out["forces"] - batch["forces"]).detach().abs().mean(dim=1) if errors else torch.empty(0)
        yield out["node_feats"].detach(), batch["node_attrs"].argmax(dim=1), wrong
