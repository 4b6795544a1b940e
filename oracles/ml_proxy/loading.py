"""Weights of any family, read back by what their file says it holds."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from activelearning.errors import InputError
from oracles.ml_proxy.model import FAMILIES, ProxyModel

Array = npt.NDArray[np.float64]


class Predictor(Protocol):
    """A fitted model of one property."""

    @property
    def name(self) -> str:
        """Name of the property."""
        ...

    @property
    def elements(self) -> tuple[str, ...]:
        """Elements the training data held."""
        ...

    def predict(
        self,
        compositions: Sequence[Mapping[str, float]],
        space_groups: Sequence[int],
        lattices: npt.ArrayLike,
    ) -> tuple[Array, Array]:
        """Mean and predictive standard deviation, each `n`, in the property's unit."""
        ...


def load_model(path: Path) -> Predictor:
    """Read weights made by `activelearning proxy train`.

    Raises:
        InputError: the file is missing or holds no such model.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            family = json.loads(file["header"].tobytes())["family"]
    except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"The weights of the ML proxy can't be read from {path}: {error}. Weights are made by "
            f"'activelearning proxy train'."
        ) from error
    if family in FAMILIES:
        return ProxyModel.load(path)
    from oracles.ml_proxy.ensemble import EnsembleModel

    return EnsembleModel.load(path)
