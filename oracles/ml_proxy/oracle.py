"""The ML proxy as an oracle: a property of crystals in milliseconds, with a calibrated error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from activelearning.candidate import Candidate, CrystalCandidate
from activelearning.crystals.descriptors import cell_volumes
from activelearning.crystals.elements import element_rows
from activelearning.errors import ConfigError
from activelearning.measurement import Measurement
from oracles.base import Oracle
from oracles.ml_proxy.loading import Predictor, load_model
from oracles.ml_proxy.model import checksum
from oracles.ml_proxy.properties import proxy_property

Array = npt.NDArray[np.float64]


class MLProxyOracle(Oracle):
    """A property predicted from composition, space group and lattice by a model trained on data.

    The default predicts log10 of the ionic conductivity at room temperature, in S/cm, from OBELiX's training entries;
    `formation_energy` and `energy_above_hull` (eV/atom) and `band_gap` (eV) come from the Materials Project. See the
    model cards beside the weights.

    Args:
        property: What the proxy predicts; the fidelity must measure it.
        weights: Path of weights made by `activelearning proxy train`; the shipped ones by default.
        report_std: Whether an answer carries the predictive error as its standard error. A surrogate takes a standard
            error for noise of the source; but the proxy repeats exactly, and how far it is from the truth is what a
            multi-fidelity surrogate learns. So it is off by default, and the predictive error is in the metadata
            (`predictive_std`) in either case.

    Raises:
        ConfigError: the proxy does not know the property.
    """

    takes_average: ClassVar[bool] = True

    def __init__(
        self, property: str = "log10_conductivity", weights: Path | None = None, report_std: bool = False
    ) -> None:
        self.property = proxy_property(property)
        self.weights = Path(weights).expanduser() if weights is not None else self.property.weights
        self.report_std = report_std

    @cached_property
    def model(self) -> Predictor:
        """The model, read on first use.

        Raises:
            InputError: the weights can't be read.
            ConfigError: they predict another property.
        """
        model = load_model(self.weights)
        if model.name != self.property.name:
            raise ConfigError(
                f"params.weights of the oracle 'ml_proxy', {self.weights}, predict {model.name!r}, not "
                f"{self.property.name!r}."
            )
        return model

    def check(self) -> None:
        """Read the weights, and refuse a campaign that wants another property or unit.

        Raises:
            ConfigError: the fidelity measures another property or in another unit, or the weights are of another.
            InputError: the weights can't be read.
        """
        name = self.property.name
        if self.context.property != name:
            raise ConfigError(
                f"The fidelity {self.context.fidelity!r} measures {self.context.property!r}, but its oracle 'ml_proxy' "
                f"predicts {name!r}: set the fidelity's property to {name}, or choose another oracle."
            )
        self.check_unit(self.property.unit, *self.property.spellings)
        _ = self.model

    def content(self) -> Mapping[str, object]:
        """The property, the checksum of the weights, and whether answers carry an error."""
        return {
            "property": self.property.name,
            "weights": checksum(self.weights),
            "report_std": self.report_std,
        }

    def evaluate(self, candidates: Sequence[Candidate]) -> Sequence[Measurement]:
        """Answer for every candidate; one that the proxy can't judge fails with its reason."""
        reasons = self._reasons(candidates)
        mean, std = self._predict(candidates, reasons)
        return [
            self._measurement(candidate, m, s)
            if reason is None and isinstance(candidate, CrystalCandidate)
            else Measurement.failed(reason or "")
            for candidate, reason, m, s in zip(candidates, reasons, mean.tolist(), std.tolist(), strict=True)
        ]

    def predict(self, candidates: Sequence[Candidate]) -> tuple[Array, Array]:
        """Means and predictive standard deviations, each `n`, in the property's unit: `evaluate` for rewards, in bulk.

        Both are NaN for a candidate that the proxy can't judge.
        """
        return self._predict(candidates, self._reasons(candidates))

    def _predict(self, candidates: Sequence[Candidate], reasons: Sequence[str | None]) -> tuple[Array, Array]:
        rows = [i for i, reason in enumerate(reasons) if reason is None]
        crystals: list[Any] = [candidates[i] for i in rows]
        mean, std = np.full(len(candidates), np.nan), np.full(len(candidates), np.nan)
        if rows:
            mean[rows], std[rows] = self.model.predict(
                [crystal.composition for crystal in crystals],
                [crystal.space_group for crystal in crystals],
                np.array([crystal.lattice for crystal in crystals], dtype=np.float64),
            )
        return mean, std

    def _reasons(self, candidates: Sequence[Candidate]) -> list[str | None]:
        """Why the proxy can't judge a candidate, or None, for each."""
        reasons = [self._reason(candidate) for candidate in candidates]
        rows = [i for i, reason in enumerate(reasons) if reason is None]
        crystals: list[Any] = [candidates[i] for i in rows]
        volumes = cell_volumes(np.array([crystal.lattice for crystal in crystals]).reshape(-1, 6))
        for i in np.flatnonzero(~(np.isfinite(volumes) & (volumes > 0.0))).tolist():
            reasons[rows[i]] = f"the lattice {crystals[i].lattice} closes no cell"
        return reasons

    def _reason(self, candidate: Candidate) -> str | None:
        """Why the proxy can't judge a candidate by itself, or None."""
        if not isinstance(candidate, CrystalCandidate):
            return (
                f"the oracle 'ml_proxy' needs crystals (a space of type crystal, or a pool of them), not a "
                f"{type(candidate).__name__}"
            )
        if unknown := [symbol for symbol in candidate.composition if symbol not in element_rows()]:
            return f"the oracle 'ml_proxy' has no descriptors of {', '.join(unknown)}"
        if missing := [s for s in self.property.required_elements if s not in candidate.composition]:
            return (
                f"{candidate.formula} holds no {', '.join(missing)}, and {self.property.name} is learned from crystals "
                f"that do: add it to space.required_elements"
            )
        if candidate.lattice is None:
            return f"{candidate.formula} states no lattice, and the oracle 'ml_proxy' predicts from it"
        return None

    def _measurement(self, crystal: CrystalCandidate, mean: float, std: float) -> Measurement:
        metadata: dict[str, Any] = {"predictive_std": std}
        if unseen := [symbol for symbol in crystal.composition if symbol not in self.model.elements]:
            metadata["unseen_elements"] = unseen
        return Measurement.of(
            self.property.name, mean, std=std if self.report_std else None, metadata=metadata
        )
