"""Training and evaluation of an ensemble of networks on a table of computed materials.

One network is trained for each fold, on the rows of the others. Folds go by reduced composition: polymorphs of one
composition differ by little, and a random split would flatter. The networks of the folds are the ensemble that ships,
so that figures of cross-validation cost nothing more and any row can later be judged by the one that has not seen it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from activelearning.crystals.elements import element_rows
from activelearning.errors import InputError
from oracles.ml_proxy.ensemble import EnsembleModel, Member, Spread, fold_of, marks_seen, member_outputs
from oracles.ml_proxy.fitting import EPOCHS, Rows, fit_error, fit_network
from oracles.ml_proxy.inputs import Array, network_inputs
from oracles.ml_proxy.materials import MaterialsTable, find_materials, read_materials
from oracles.ml_proxy.network_card import write_network_card
from oracles.ml_proxy.properties import ComputedProperty
from oracles.ml_proxy.saving import writing
from oracles.ml_proxy.scoring import Z_90, score

N_FOLDS = 5
MIN_ROWS = 200
BLOCK = 512  # rows of the table described at a time, to bound memory
TAIL = (
    4.0  # degrees of freedom of Student's distribution, by whose likelihood the form of the error is fitted
)
UNKNOWN = Spread(1.0, 0.0, 0.0, 1.0)  # of a member not yet calibrated
N_DISTANCES = 5  # groups of equal size, by distance from the training rows, that the card reports


def train_network(
    known: ComputedProperty,
    data: Path,
    out: Path,
    seed: int = 0,
    *,
    generated: Path | None = None,
    epochs: int = EPOCHS,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train on a table of materials, write weights and a model card beside them, and say how good they are.

    Args:
        known: What to learn.
        data: The table, or its folder.
        out: Where the weights go (`.npz`); the card goes beside them (`.md`).
        seed: Of folds and networks; the same seed and data give the same bytes.
        generated: Table of crystals of a sampler's own making, added to the rows; figures are of `data` alone.
        epochs: Passes over the rows.
        progress: Told, in words, how far the work is.

    Returns:
        `property, n, mae, rmse, r2, spearman, coverage_90`, all by cross-validation by composition.

    Raises:
        InputError: the data can't be read or are too few.
    """
    tell = progress or (lambda _: None)
    prepared = prepare(known, data, generated, seed)
    members = []
    for fold in range(N_FOLDS):
        rows = np.flatnonzero((prepared.folds != fold) & np.isfinite(prepared.targets).any(axis=1))
        tell(f"{known.name}: network {fold + 1} of {N_FOLDS}, {len(rows)} rows")
        fitted = fit_network(prepared.rows(rows), seed=seed * N_FOLDS + fold, epochs=epochs)
        members.append(Member(*fitted, UNKNOWN))
    tell(f"{known.name}: calibration")
    model = assemble(known, members, prepared, seed, epochs)
    with writing(out):
        model.save(out)
        write_network_card(model, out, known)
    figures: dict[str, Any] = model.info["figures"]
    return figures


@dataclass(frozen=True)
class Prepared:
    """Rows as the networks see them.

    Attributes:
        table: The table, then generated crystals.
        n_data: Rows of the table alone.
        inputs: `n x d`.
        targets: The property and then the auxiliary ones, `n x t`; NaN where a row has none.
        folds: Fold of each row, `n`.
    """

    table: MaterialsTable
    n_data: int
    inputs: Array
    targets: Array
    folds: npt.NDArray[np.int64]

    def rows(self, index: npt.NDArray[np.int64]) -> Rows:
        """Some of the rows, to train on."""
        return Rows(self.inputs[index], self.table.space_groups[index], self.targets[index])


def prepare(known: ComputedProperty, data: Path, generated: Path | None, seed: int) -> Prepared:
    """Read and describe the rows.

    Raises:
        InputError: the data can't be read or are too few.
    """
    table = read_materials(find_materials(data), [known.column], known.auxiliary)
    n_labelled = int(np.isfinite(table.values[known.column]).sum())
    if n_labelled < MIN_ROWS:
        raise InputError(
            f"{data} has {n_labelled} rows with a {known.column}; the proxy needs at least {MIN_ROWS}."
        )
    n_data = len(table)
    if generated is not None:
        table = table.joined(read_materials(generated, [], (known.column, *known.auxiliary)))
    blocks = [slice(i, i + BLOCK) for i in range(0, len(table), BLOCK)]
    return Prepared(
        table,
        n_data,
        np.concatenate(
            [network_inputs(table.amounts[b], table.space_groups[b], table.lattices[b]) for b in blocks]
        ),
        np.column_stack([table.values[name] for name in (known.column, *known.auxiliary)]),
        fold_of(table.formulas, N_FOLDS, seed),
    )


def assemble(
    known: ComputedProperty, networks: Sequence[Member], prepared: Prepared, seed: int, epochs: int
) -> EnsembleModel:
    """Let the networks of the folds state their errors, calibrate these, and judge the whole by held-out rows."""
    table, folds, values = prepared.table, prepared.folds, prepared.targets[:, 0]
    is_known = np.isfinite(values)
    residuals = np.abs(_held_out(networks, table, folds)[0] - values)
    members = []
    for fold, member in enumerate(networks):
        rows = np.flatnonzero((folds != fold) & is_known)
        relative = residuals[rows] / member.scale
        network = fit_error(member.network, prepared.inputs[rows], table.space_groups[rows], relative)
        members.append(replace(member, network=network))
    mean, error, distance = _held_out(members, table, folds)
    if known.lower is not None:
        mean = np.maximum(mean, known.lower)
    # The error bars that are judged are calibrated without the fold they are judged on.
    members = [
        replace(m, spread=calibrate(mean - values, error, distance, is_known & (folds != k)))
        for k, m in enumerate(members)
    ]
    std = np.choose(folds, [m.spread.std(error, distance) for m in members])
    half = np.choose(folds, [m.spread.half for m in members])
    is_data = np.arange(len(table)) < prepared.n_data
    rows, own = np.flatnonzero(is_data & is_known), np.flatnonzero(~is_data & is_known)
    ratio = np.abs(mean - values) / std

    def distances(index: npt.NDArray[np.int64]) -> list[dict[str, float]]:
        return _by_distance(distance[index], (mean - values)[index], std[index], half[index])

    return EnsembleModel(
        name=known.name,
        unit=known.unit,
        members=tuple(members),
        lower=known.lower,
        elements=tuple(s for s, row in element_rows().items() if (table.amounts[is_known, row] > 0).any()),
        seed=seed,
        seen=marks_seen(table.formulas),
        info={
            "seed": seed,
            "n_rows": len(rows),
            "n_formulas": len(np.unique(table.formulas[rows])),
            "n_generated": int((~is_data).sum()),
            "n_folds": N_FOLDS,
            "epochs": epochs,
            "figures": _figures(known.name, values[rows], mean[rows], std[rows]),
            "coverage_50": float((ratio[rows] <= half[rows]).mean()),
            "generated": _figures(known.name, values[own], mean[own], std[own]) if len(own) > 1 else None,
            "generated_coverage_50": float((ratio[own] <= half[own]).mean()) if len(own) > 1 else None,
            "by_distance": distances(rows),
            "generated_by_distance": distances(own) if len(own) >= MIN_ROWS else None,
        },
    )


def evaluate_network(known: ComputedProperty, data: Path, weights: Path) -> dict[str, Any]:
    """Say how good weights are on a table of materials, every row by networks that have not seen its composition.

    Args:
        known: What is predicted.
        data: The table, or its folder.
        weights: Weights made by `train_network`.

    Returns:
        `property, n, mae, rmse, r2, spearman, coverage_90`.

    Raises:
        InputError: the data or weights can't be read, or the weights are of another property.
    """
    model = EnsembleModel.load(weights)
    if model.name != known.name:
        raise InputError(f"The weights {weights} predict {model.name!r}, not {known.name!r}.")
    table = read_materials(find_materials(data), [known.column])
    values = table.values[known.column]
    rows = np.flatnonzero(np.isfinite(values))
    if len(rows) < 2:
        raise InputError(
            f"{data} has {len(rows)} rows with a {known.column}; an evaluation needs at least two."
        )
    mean, std = model.held_out(table)
    return _figures(known.name, values[rows], mean[rows], std[rows])


def _figures(name: str, values: Array, mean: Array, std: Array) -> dict[str, Any]:
    return score(name, values, np.zeros(len(values), dtype=np.bool_), mean, std)


def _held_out(members: Sequence[Member], table: MaterialsTable, folds: npt.NDArray[np.int64]) -> Array:
    """Mean, error stated and distance of each row by the network that has not seen its fold, `3 x n`."""
    found = np.zeros((3, len(table)))
    for k, member in enumerate(members):
        rows = np.flatnonzero(folds == k)
        found[:, rows] = member_outputs(
            [member], table.amounts[rows], table.space_groups[rows], table.lattices[rows]
        )[0]
    return found


def calibrate(residual: Array, error: Array, distance: Array, is_used: npt.NDArray[np.bool_]) -> Spread:
    """Fit the predictive error to held-out residuals, each `n`.

    Its form, how it depends on the error a network states and on distance, maximises the likelihood of Student's
    distribution, which far-off rows do not rule. Its size is then set so that exactly 90 % of the residuals are within
    1.645 standard deviations (split conformal prediction: Lei et al., J. Am. Stat. Assoc. 113, 2018).
    """
    from scipy.optimize import minimize

    r, e, d = np.abs(residual[is_used]), error[is_used], distance[is_used]

    def loss(logs: Array) -> float:
        floor, slope, reach = np.exp(logs)
        std = Spread(floor, slope, reach, 0.0).std(e, d)
        return float((np.log(std) + 0.5 * (TAIL + 1.0) * np.log1p((r / std) ** 2 / TAIL)).mean())

    start = np.log([0.2 * np.median(r) + 1e-4, 1.0, 0.3])
    bounds = [(np.log(1e-4), None), (np.log(1e-3), np.log(1e3)), (np.log(1e-3), np.log(1e2))]
    floor, slope, reach = np.exp(minimize(loss, start, method="L-BFGS-B", bounds=bounds).x)
    ratio = r / Spread(floor, slope, reach, 0.0).std(e, d)
    size = float(np.quantile(ratio, 0.9)) / Z_90
    return Spread(
        float(floor) * size, float(slope) * size, float(reach), float(np.quantile(ratio, 0.5)) / size
    )


def _by_distance(distance: Array, residual: Array, std: Array, half: Array) -> list[dict[str, float]]:
    """Error and coverage of rows, from the nearest to the farthest part of them."""
    parts = np.array_split(np.argsort(distance, kind="stable"), N_DISTANCES)
    error = np.abs(residual)
    return [
        {
            "distance": float(distance[rows].mean()),
            "mae": float(error[rows].mean()),
            "std": float(std[rows].mean()),
            "coverage_50": float((error[rows] <= half[rows] * std[rows]).mean()),
            "coverage_90": float((error[rows] <= Z_90 * std[rows]).mean()),
        }
        for rows in parts
    ]
