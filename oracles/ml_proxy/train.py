"""Training and evaluation of the proxy: the library behind `activelearning proxy train` and `proxy evaluate`.

Figures are always of predictions for rows whose group was left out of training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from activelearning.errors import ConfigError, InputError
from oracles.ml_proxy.measured_training import DEFAULT, evaluate_measured, train_measured
from oracles.ml_proxy.properties import GENERATED, ComputedProperty, MeasuredProperty, proxy_property
from oracles.ml_proxy.saving import check_place

Progress = Callable[[str], None]


def train(
    property: str,
    data: Path,
    out: Path,
    seed: int = 0,
    progress: Progress | None = None,
    model: str | None = None,
) -> dict[str, Any]:
    """Train on a data set, write weights and a model card beside them, and say how good they are.

    Args:
        property: What to learn.
        data: The data set in the property's format: a table of materials, or OBELiX's folder or CSV file.
        out: Where the weights go (`.npz`); the card goes beside them (`.md`).
        seed: Of the folds and the models; the same seed and data give the same bytes.
        progress: Told, in words, how far the work is.
        model: Kind of the model of a measured property, `process` or `forest`; the best in cross-validation by default.

    Returns:
        `property, n, mae, rmse, r2, spearman, coverage_90`, all by cross-validation by groups.

    Raises:
        ConfigError: the proxy does not know the property, or has no such model of it.
        InputError: the data can't be read or are too few, or `out` is no `.npz` path or can't be written.
    """
    known = proxy_property(property)
    if out.suffix != ".npz":
        raise InputError(f"The weights go to a file that ends in .npz, not {out}.")
    check_place(out)
    if isinstance(known, MeasuredProperty):
        return train_measured(known, data, out, seed, model or DEFAULT)
    if model is not None:
        raise ConfigError(
            f"--model: {known.name} is learned by networks alone; a model can be chosen for a measured property."
        )
    from oracles.ml_proxy.network_training import train_network

    assert isinstance(known, ComputedProperty)
    generated = GENERATED if known.uses_generated else None
    return train_network(known, data, out, seed, generated=generated, progress=progress)


def evaluate(property: str, data: Path, weights: Path | None = None) -> dict[str, Any]:
    """Say how good weights are on a data set.

    A row whose composition was trained on (of a measured property: or its publication) is scored by a model that has
    not seen it; any other row by the model itself. So the figures are never those of a fit to its own data, and on the
    training data they are the ones `train` returned.

    Args:
        property: What is predicted.
        data: The data set in the property's format: a table of materials, or OBELiX's folder (the entries of
            `test.csv`, or all where it lists none) or CSV file.
        weights: Weights made by `train`; the shipped ones by default.

    Returns:
        `property, n, mae, rmse, r2, spearman, coverage_90`.

    Raises:
        ConfigError: the proxy does not know the property.
        InputError: the data or weights can't be read, or the weights are of another property.
    """
    known = proxy_property(property)
    path = weights or known.weights
    if isinstance(known, MeasuredProperty):
        return evaluate_measured(known, data, path)
    from oracles.ml_proxy.network_training import evaluate_network

    assert isinstance(known, ComputedProperty)
    return evaluate_network(known, data, path)
