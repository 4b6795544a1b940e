"""The model card that goes beside the weights of an ensemble of networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oracles.ml_proxy.ensemble import EnsembleModel
from oracles.ml_proxy.fitting import BATCH, LEARNING_RATE, WEIGHT_DECAY
from oracles.ml_proxy.model import checksum
from oracles.ml_proxy.network import DEPTH, WIDTH
from oracles.ml_proxy.properties import ComputedProperty

TEMPLATE = """\
# Model card: `{name}`

Written by `activelearning proxy train --property {name} --data PATH`, with the weights `{file}`
(SHA-256 `{checksum}`). The same data, seed, machine and library versions give the same file.

| | |
|---|---|
| Predicts | `{name}` in {unit}, with a predictive standard deviation |
| From | composition, space group and lattice of the conventional cell; no atomic positions |
| Model | {n_members} residual perceptrons, {depth} hidden layers of {width} after the first; the mean of them |
| Training | {epochs} epochs, batches of {batch}, AdamW {rate:g}, weight decay {decay:g}; seed {seed} |
| Rows | {n_rows} of {n_formulas} compositions, and {n_generated} generated crystals |
| Elements | {elements} |

## Data

{data}

## How good it is

Cross-validation in {n_folds} folds by reduced composition, one network a fold. The calibration of the error bars, too,
is fitted without the fold it is judged on. The mean of all networks, which the oracle answers with, is better than one.

| figure | table of materials |{own_head}
|---|---|{own_rule}
| Rows | {n} |{own_n}
| Mean absolute error, {unit} | {mae:.4f} |{own_mae}
| Root mean square error, {unit} | {rmse:.4f} |{own_rmse}
| R² | {r2:.3f} |{own_r2}
| Spearman's rank correlation | {spearman:.3f} |{own_spearman}
| Coverage of the 50 % interval | {coverage_50:.3f} |{own_coverage_50}
| Coverage of the 90 % interval | {coverage_90:.3f} |{own_coverage}

By distance from the training rows (Mahalanobis' in the network's last layer, in fifths):

{by_distance}
{own_by_distance}
The standard deviation of one network is sqrt((f² + (s e)²) (1 + (r d)²)): e is the error the network states, d the
distance, f = {floor:.2g} {unit}, s = {slope:.2g}, r = {reach:.2g} (means over the networks). The variance of the answer
is that of the mixture: to the mean variance comes the variance between the networks. 90 % of errors are within 1.645
standard deviations, half of them within {half:.2f}: the tails are heavier than a Gaussian's.

`activelearning proxy evaluate` judges a row whose composition was trained on by the one network that has not seen it.

## Limits

- It sees no atomic positions: it answers for the best arrangement that composition, space group and lattice allow.
{limits}
"""

LIMITS = {
    "formation_energy": """\
- Generated crystals cover 22 elements in small cells. Elsewhere, and for magnetic order, f electrons and molecular
  crystals, look at the standard deviation.
- Their labels are CHGNet's, which is softer than DFT far from equilibrium; and since a few draws rarely find the ground
  state, a generated crystal's label is an upper bound of its energy by CHGNet.""",
    "band_gap": """\
- Half of the known gaps are zero. Predictions below zero are set to zero.
- Generated crystals have no gap to learn from; their formation energies only keep the shared layers in order.""",
    "energy_above_hull": """\
- Distance from the hull is a small difference of large energies that depends on all competing phases, which the model
  knows only through its rows: half of them lie on the hull. It tells what is far above from what is near, and ranks
  little within 0.05 eV/atom.
- Generated crystals are measured from the hull of the table's own materials, which lies above the true one where phases
  are missing: their distances are lower bounds in that respect.""",
}


def write_network_card(model: EnsembleModel, weights: Path, known: ComputedProperty) -> Path:
    """Write the card of a model beside its weights file, as Markdown, and return its path."""
    info, figures, own = model.info, model.info["figures"], model.info["generated"]
    card = weights.with_suffix(".md")

    def of_own(key: str, form: str) -> str:
        return "" if own is None else f" {own[key]:{form}} |"

    own_distances = info["generated_by_distance"]
    card.write_text(
        TEMPLATE.format(
            name=model.name,
            file=weights.name,
            checksum=checksum(weights),
            unit=model.unit,
            n_members=len(model.members),
            depth=DEPTH,
            width=WIDTH,
            batch=BATCH,
            rate=LEARNING_RATE,
            decay=WEIGHT_DECAY,
            elements=", ".join(model.elements),
            data=known.data,
            coverage_50=info["coverage_50"],
            by_distance=_distances(info["by_distance"], model.unit),
            own_by_distance=""
            if own_distances is None
            else f"\nGenerated crystals likewise:\n\n{_distances(own_distances, model.unit)}\n",
            limits=LIMITS[model.name],
            own_head="" if own is None else " generated crystals |",
            own_rule="" if own is None else "---|",
            own_n=of_own("n", "d"),
            own_mae=of_own("mae", ".4f"),
            own_rmse=of_own("rmse", ".4f"),
            own_r2=of_own("r2", ".3f"),
            own_spearman=of_own("spearman", ".3f"),
            own_coverage_50="" if own is None else f" {info['generated_coverage_50']:.3f} |",
            own_coverage=of_own("coverage_90", ".3f"),
            **{
                key: float(np.mean([getattr(member.spread, key) for member in model.members]))
                for key in ("floor", "slope", "reach", "half")
            },
            **{key: figures[key] for key in ("n", "mae", "rmse", "r2", "spearman", "coverage_90")},
            **{
                key: info[key] for key in ("seed", "n_rows", "n_formulas", "n_generated", "n_folds", "epochs")
            },
        ),
        encoding="utf-8",
    )
    return card


def _distances(parts: Sequence[dict[str, Any]], unit: str) -> str:
    lines = [
        f"| mean distance | MAE, {unit} | mean standard deviation | within 50 % | within 90 % |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {p['distance']:.2f} | {p['mae']:.4f} | {p['std']:.4f} | {p['coverage_50']:.2f} | {p['coverage_90']:.2f} |"
        for p in parts
    ]
    return "\n".join(lines)
