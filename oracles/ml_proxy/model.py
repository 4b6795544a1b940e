"""The fitted proxy of a measured property: a regressor over crystal descriptors, a calibrated error, and their file."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from activelearning.crystals.features import DESCRIPTOR_NAMES, descriptor_table
from activelearning.errors import InputError
from oracles.ml_proxy.forest import Forest
from oracles.ml_proxy.process import Process
from oracles.ml_proxy.training_rows import TrainingRows

FORMAT = 4
FAMILIES: Mapping[str, type[Forest] | type[Process]] = {"process": Process, "forest": Forest}
# Crystals whose descriptors and predictions are kept with the weights: where they come out otherwise, this version
# computes other ones.
PROBES: tuple[tuple[Mapping[str, float], int, tuple[float, ...]], ...] = (
    ({"Li": 20, "Ge": 2, "P": 4, "S": 24}, 137, (8.69, 8.69, 12.6, 90.0, 90.0, 90.0)),
    ({"Li": 24, "P": 4, "S": 20, "Cl": 4}, 216, (9.86, 9.86, 9.86, 90.0, 90.0, 90.0)),
    ({"Li": 56, "La": 24, "Zr": 16, "O": 96}, 230, (12.97, 12.97, 12.97, 90.0, 90.0, 90.0)),
    ({"Li": 7.8, "Al": 1.8, "Ti": 10.2, "P": 18, "O": 72}, 167, (8.5, 8.5, 20.8, 90.0, 90.0, 120.0)),
    ({"Li": 3, "N": 1}, 191, (3.65, 3.65, 3.87, 90.0, 90.0, 120.0)),
    ({"Li": 2, "P": 2, "S": 6, "Cl": 1}, 2, (6.1, 6.6, 8.2, 83.0, 95.0, 101.0)),
)
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Predictive variance floor² + slope² · growth² · the regressor's variance, fitted to errors of cross-validation.

    The growth is exp(tilt · (top − m)), m being the prediction, kept between bottom and top. Small conductivities are
    scattered over more decades than large ones: one factor for all is too wide for these and too narrow for those.

    Attributes:
        floor: Error where the regressor states none, in the property's unit.
        slope: Factor on the standard deviation it states, at the top.
        tilt: Growth of that factor's logarithm per unit that the prediction is below the top.
        bottom: Least prediction that the tilt was fitted to; below it the factor grows no further.
        top: The largest.
    """

    floor: float
    slope: float
    tilt: float
    bottom: float
    top: float

    def std(self, mean: Array, variance: Array) -> Array:
        """Predictive standard deviations, `n`, from predictions and the variances the regressor states, `n` each."""
        growth = np.exp(self.tilt * (self.top - np.clip(mean, self.bottom, self.top)))
        return np.sqrt(self.floor**2 + (self.slope * growth) ** 2 * variance)


@dataclass(frozen=True)
class ProxyModel:
    """A model of one property of crystals.

    Attributes:
        name: Name of the property.
        unit: Its unit.
        descriptors: Names of the regressor's columns.
        regressor: Trees or a Gaussian process.
        calibration: Turns the variance that the regressor states into an error.
        elements: Elements the training data held.
        rows: What it was trained on, with descriptors in the order of `descriptors`.
        info: How it was made (JSON).
    """

    name: str
    unit: str
    descriptors: tuple[str, ...]
    regressor: Forest | Process
    calibration: Calibration
    elements: tuple[str, ...]
    rows: TrainingRows
    info: Mapping[str, Any]

    @property
    def family(self) -> str:
        """Name of the regressor's kind, a key of `FAMILIES`."""
        return next(name for name, kind in FAMILIES.items() if isinstance(self.regressor, kind))

    @property
    def columns(self) -> list[int]:
        """Columns of `descriptor_table` that the regressor takes."""
        return [DESCRIPTOR_NAMES.index(name) for name in self.descriptors]

    def predict(
        self,
        compositions: Sequence[Mapping[str, float]],
        space_groups: Sequence[int],
        lattices: npt.ArrayLike,
    ) -> tuple[Array, Array]:
        """Mean and predictive standard deviation, each `n`, in the property's unit.

        Args:
            compositions: Atoms of each element in the conventional cell.
            space_groups: International numbers.
            lattices: (a, b, c, α, β, γ) of the conventional cell in Å and degrees, `n x 6`.

        Raises:
            ValueError: a crystal can't be described.
        """
        mean, variance = self.regressor.predict(
            descriptor_table(compositions, space_groups, lattices)[:, self.columns]
        )
        return mean, self.calibration.std(mean, variance)

    def probe(self) -> list[float]:
        """Predictions for `PROBES`."""
        compositions, groups, lattices = zip(*PROBES, strict=True)
        return [float(value) for value in self.predict(compositions, groups, lattices)[0]]

    def probe_descriptors(self) -> Array:
        """Descriptors of `PROBES`, `6 x d`: far from the training crystals a prediction alone would not tell."""
        return descriptor_table(*zip(*PROBES, strict=True))[:, self.columns]

    def save(self, path: Path) -> None:
        """Write an npz file; equal models give equal bytes."""
        header = {
            "format": FORMAT,
            "family": self.family,
            "property": self.name,
            "unit": self.unit,
            "descriptors": list(self.descriptors),
            "calibration": asdict(self.calibration),
            "elements": list(self.elements),
            "info": dict(self.info),
            "probe": self.probe(),
        }
        text = np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8)
        arrays: dict[str, Any] = {
            "probe_descriptors": self.probe_descriptors(),
            **self.rows.arrays(),
            **self.regressor.arrays(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(file, header=text, **arrays)

    @classmethod
    def load(cls, path: Path) -> ProxyModel:
        """Read a model back.

        Raises:
            InputError: the file is missing, is no such model, or this version computes other descriptors than the one
                it was trained with.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(arrays["header"].tobytes())
            if header["format"] != FORMAT:
                raise ValueError(f"its format is {header['format']}, this version reads {FORMAT}")
            unknown = [name for name in header["descriptors"] if name not in DESCRIPTOR_NAMES]
            if unknown:
                raise ValueError(
                    f"it needs the descriptors {', '.join(unknown[:3])}, which this version lacks"
                )
            model = cls(
                name=header["property"],
                unit=header["unit"],
                descriptors=tuple(header["descriptors"]),
                regressor=FAMILIES[header["family"]].from_arrays(arrays),
                calibration=Calibration(**header["calibration"]),
                elements=tuple(header["elements"]),
                rows=TrainingRows.from_arrays(arrays),
                info=header["info"],
            )
            same = np.allclose(model.probe_descriptors(), arrays["probe_descriptors"], rtol=1e-9, atol=1e-9)
            if not (same and np.allclose(model.probe(), header["probe"], rtol=0.0, atol=1e-6)):
                raise ValueError("this version computes other descriptors than the one it was trained with")
            return model
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(
                f"The weights of the ML proxy can't be read from {path}: {error}. Weights are made by "
                f"'activelearning proxy train'."
            ) from error


def checksum(path: Path) -> str:
    """SHA-256 (hex) of a file.

    Raises:
        InputError: the file can't be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            f"The weights of the ML proxy can't be read from {path}: {error.strerror}."
        ) from error
