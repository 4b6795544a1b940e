"""Training and evaluation of a model of measurements: few rows, and rows of one publication alike.

Figures are those of cross-validation by groups: no composition and no publication is on both sides of a split. A random
split flatters, because rows of one paper differ by a dopant's per cent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from activelearning.crystals.features import DESCRIPTOR_NAMES, descriptor_table
from activelearning.errors import ConfigError, InputError
from oracles.ml_proxy.card import write_card
from oracles.ml_proxy.data import CrystalTable, read_evaluation, read_training
from oracles.ml_proxy.forest import Forest
from oracles.ml_proxy.forest_training import fit_forest
from oracles.ml_proxy.model import Calibration, ProxyModel
from oracles.ml_proxy.process import Process
from oracles.ml_proxy.process_training import fit_process
from oracles.ml_proxy.properties import MeasuredProperty
from oracles.ml_proxy.saving import writing
from oracles.ml_proxy.scoring import coverage_by_prediction, score
from oracles.ml_proxy.splitting import grouped_folds, splits
from oracles.ml_proxy.training_rows import TrainingRows

N_FOLDS = 10
MIN_ROWS = 50
Array = npt.NDArray[np.float64]
# Descriptors, values, bounds and groups of the rows, seed.
Fit = Callable[[Array, Array, npt.NDArray[np.bool_], npt.NDArray[np.int64], int], Forest | Process]

FITS: Mapping[str, Fit] = {
    "process": lambda x, values, is_bound, groups, seed: fit_process(x, values, is_bound, groups),
    "forest": lambda x, values, is_bound, groups, seed: fit_forest(x, values, seed=seed),
}
DEFAULT = "process"  # the best of benchmarks/proxy_models.py


def train_measured(
    known: MeasuredProperty, data: Path, out: Path, seed: int = 0, family: str = DEFAULT
) -> dict[str, Any]:
    """Train on a data set, write weights and a model card beside them, and say how good they are.

    Args:
        known: What to learn.
        data: The data set in the property's format: OBELiX's folder (its training entries), or a CSV file (all rows).
        out: Where the weights go (`.npz`); the card goes beside them (`.md`).
        seed: Of the folds and the trees; the same seed and data give the same bytes.
        family: Kind of the model, a key of `FITS`.

    Returns:
        `property, n, mae, rmse, r2, spearman, coverage_90`, all by cross-validation by groups.

    Raises:
        ConfigError: there is no such kind of model.
        InputError: the data can't be read or are too few.
    """
    if family not in FITS:
        raise ConfigError(f"--model: {known.name} is learned by {' or '.join(FITS)}, not {family!r}.")
    fit = FITS[family]
    table = read_training(data)
    if len(table) < MIN_ROWS:
        raise InputError(f"{data} has {len(table)} rows to train on; the proxy needs at least {MIN_ROWS}.")
    x = describe(table, data)
    folds = grouped_folds(table.groups(), N_FOLDS, seed)
    mean, variance = cross_validate(x, table, folds, fit, seed)
    std = calibrated_std(table, mean, variance, folds, known.repeatability)
    figures = score(known.name, table.values, table.is_bound, mean, std)
    regressor = fit(x, table.values, table.is_bound, table.groups(), seed)
    model = ProxyModel(
        name=known.name,
        unit=known.unit,
        descriptors=DESCRIPTOR_NAMES,
        regressor=regressor,
        calibration=calibrate(table.values, table.is_bound, mean, variance, known.repeatability),
        elements=tuple(sorted({symbol for composition in table.compositions for symbol in composition})),
        rows=TrainingRows.of(x, table, folds, mean, variance),
        info={
            "seed": seed,
            "n_rows": len(table),
            "n_bounds": int(table.is_bound.sum()),
            "n_groups": int(table.groups().max()) + 1,
            "n_folds": N_FOLDS,
            "regressor": regressor.summary,
            "figures": figures,
            "coverage": coverage_by_prediction(table.values, table.is_bound, mean, std),
        },
    )
    with writing(out):
        model.save(out)
        write_card(model, out)
    return figures


def evaluate_measured(known: MeasuredProperty, data: Path, weights: Path) -> dict[str, Any]:
    """Say how good weights are on a data set.

    A row whose composition or publication the weights were trained on, whatever its space group and lattice, is scored
    by a model fitted without the folds that hold these; any other row by the model itself. So the figures are never
    those of a fit to its own data, and on the training data they are the ones `train_measured` returned.

    Args:
        known: What is predicted.
        data: The data set: OBELiX's folder (the entries of `test.csv`, or all where it lists none), or a CSV file
            (all rows).
        weights: Weights made by `train_measured`.

    Returns:
        `property, n, mae, rmse, r2, spearman, coverage_90`.

    Raises:
        InputError: the data or weights can't be read, the weights are of another property, or a row has compositions
            and publications in so many folds that too little is left to learn from.
    """
    model = ProxyModel.load(weights)
    if model.name != known.name:
        raise InputError(f"The weights {weights} predict {model.name!r}, not {known.name!r}.")
    table = read_evaluation(data)
    if len(table) < 2:
        raise InputError(f"{data} has {len(table)} rows; an evaluation needs at least two.")
    mean, std = predict_unseen(model, table, data)
    return score(known.name, table.values, table.is_bound, mean, std)


def predict_unseen(model: ProxyModel, table: CrystalTable, path: Path) -> tuple[Array, Array]:
    """Mean and standard deviation, `n` each, of every row by a model that has not seen its composition or publications.

    Args:
        model: What rows are predicted by, if they are new to it. For a row whose composition or publication is in some
            of its folds, a model of the same kind is fitted without these folds; their number is mostly one.
        table: The rows.
        path: Where they are from, for messages.

    Raises:
        InputError: a row can't be described, or has compositions and publications in so many folds that less than half
            of the training rows are left; the path and the row are named.
    """
    x, keys = describe(table, path)[:, model.columns], table.keys()
    folds = model.rows.folds_of(table)
    mean, std = np.zeros(len(table)), np.zeros(len(table))
    for without in sorted(set(folds), key=sorted):
        at = np.flatnonzero([own == without for own in folds])
        if 2 * len(model.rows.outside(without)) < len(model.rows.folds):
            raise InputError(
                f"{path}: the row with ID {table.ids[at[0]]!r} shares its composition or publications with "
                f"{len(without)} of the folds that {model.name} was learned in; too little is left to predict it from."
            )
        mean[at], std[at] = _predict_without(model, without, x[at], keys[at])
    return mean, std


def _predict_without(
    model: ProxyModel, without: frozenset[int], x: Array, keys: npt.NDArray[np.uint64]
) -> tuple[Array, Array]:
    """Mean and standard deviation, `n` each, by a model, and a calibration, that have not seen some folds.

    What cross-validation has predicted for the very crystal is taken from there: it is the same, with no fit.
    """
    if not without:
        mean, variance = model.regressor.predict(x)
        return mean, model.calibration.std(mean, variance)
    rows, left = model.rows, model.rows.outside(without)
    known = {} if len(without) > 1 else {key: i for i, key in enumerate(rows.keys.tolist())}
    at = np.array([known.get(key, -1) for key in keys.tolist()])
    mean, variance = rows.mean[at], rows.variance[at]
    new = np.flatnonzero(at < 0)
    if len(new):
        parts = rows.descriptors[left], rows.values[left], rows.is_bound[left], rows.groups[left]
        regressor = FITS[model.family](*parts, int(model.info["seed"]))
        mean[new], variance[new] = regressor.predict(x[new])
    part = calibrate(
        rows.values[left], rows.is_bound[left], rows.mean[left], rows.variance[left], model.calibration.floor
    )
    return mean, part.std(mean, variance)


def describe(table: CrystalTable, path: Path) -> Array:
    """Descriptors of a table, `n x d`.

    Raises:
        InputError: a row can't be described; the path and the row are named.
    """
    try:
        return descriptor_table(table.compositions, table.space_groups.tolist(), table.lattices)
    except ValueError:
        for i, row in enumerate(table.ids):
            try:
                descriptor_table(
                    [table.compositions[i]], [int(table.space_groups[i])], table.lattices[i : i + 1]
                )
            except ValueError as error:
                raise InputError(
                    f"{path}: the crystal with ID {row!r} can't be described: {error}."
                ) from error
        raise


def cross_validate(
    x: Array, table: CrystalTable, folds: npt.NDArray[np.int64], fit: Fit, seed: int
) -> tuple[Array, Array]:
    """Mean and variance, each `n`, of each row by the regressor that was not shown its fold."""
    mean, variance, groups = np.zeros(len(table)), np.zeros(len(table)), table.groups()
    for train_rows, test_rows in splits(folds):
        parts = x[train_rows], table.values[train_rows], table.is_bound[train_rows], groups[train_rows]
        mean[test_rows], variance[test_rows] = fit(*parts, seed).predict(x[test_rows])
    return mean, variance


def calibrated_std(
    table: CrystalTable, mean: Array, variance: Array, folds: npt.NDArray[np.int64], least: float
) -> Array:
    """Predictive errors of held-out rows, `n`, each calibrated without the fold that it is judged on."""
    std = np.zeros(len(table))
    for train, test in splits(folds):
        part = calibrate(table.values[train], table.is_bound[train], mean[train], variance[train], least)
        std[test] = part.std(mean[test], variance[test])
    return std


def calibrate(
    values: Array, is_bound: npt.NDArray[np.bool_], mean: Array, variance: Array, least: float
) -> Calibration:
    """Fit the predictive error, at least `least`, to held-out predictions of `n` rows.

    The likelihood is Gaussian, and that of a bound the probability of a value below it.
    """
    from scipy.optimize import minimize
    from scipy.special import log_ndtr

    bottom, top = float(mean.min()), float(mean.max())

    def calibration(parameters: Array) -> Calibration:
        return Calibration(least, float(np.exp(parameters[0])), float(parameters[1]), bottom, top)

    def loss(parameters: Array) -> float:
        std = calibration(parameters).std(mean, variance)
        z = (values - mean) / std
        return float(np.where(is_bound, -log_ndtr(z), np.log(std) + 0.5 * z**2).mean())

    found = minimize(loss, [0.0, 0.0], method="L-BFGS-B", bounds=[(-5.0, 5.0), (-1.0, 1.0)])
    return calibration(found.x)
