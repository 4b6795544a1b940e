"""The ML proxy as an oracle: a property of crystals in milliseconds, with a calibrated error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from activelearning.candidate import Candidate, CrystalCandidate
from activelearning.crystals.descriptors import cell_volumes
from activelearning.crystals.elements import element_rows
from activelearning.errors import ConfigError
from activelearning.measurement import Measurement
from oracles.base import Oracle
from oracles.ml_proxy.model import ProxyModel, checksum
from oracles.ml_proxy.properties import proxy_property


class MLProxyOracle(Oracle):
    """A property predicted from composition, space group and lattice by a model trained on data.

    The default predicts log10 of the ionic conductivity at room temperature, in S/cm, from OBELiX's training entries;
    see the model card beside the weights.

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

    def __init__(
        self, property: str = "log10_conductivity", weights: Path | None = None, report_std: bool = False
    ) -> None:
        self.property = proxy_property(property)
        self.weights = Path(weights).expanduser() if weights is not None else self.property.weights
        self.report_std = report_std

    @cached_property
    def model(self) -> ProxyModel:
        """The model, read on first use.

        Raises:
            InputError: the weights can't be read.
            ConfigError: they predict another property.
        """
        model = ProxyModel.load(self.weights)
        if model.property != self.property.name:
            raise ConfigError(
                f"params.weights of the oracle 'ml_proxy', {self.weights}, predict {model.property!r}, not "
                f"{self.property.name!r}."
            )
        return model

    def check(self) -> None:
        """Read the weights, and refuse a campaign that wants another property or unit.

        Raises:
            ConfigError: the fidelity measures another property or in another unit, or the weights are of another.
            InputError: the weights can't be read.
        """
        name, unit = self.property.name, self.property.unit
        if self.context.property != name:
            raise ConfigError(
                f"The fidelity {self.context.fidelity!r} measures {self.context.property!r}, but its oracle 'ml_proxy' "
                f"predicts {name!r}: set the fidelity's property to {name}, or choose another oracle."
            )
        if self.context.unit is not None and self.context.unit not in self.property.spellings:
            raise ConfigError(
                f"The oracle 'ml_proxy' of the fidelity {self.context.fidelity!r} answers in {unit}, but the unit of "
                f"{name!r} is given as {self.context.unit!r}: write unit: {unit}."
            )
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
        reasons = [self._reason(candidate) for candidate in candidates]
        crystals = [
            candidate
            for candidate, reason in zip(candidates, reasons, strict=True)
            if reason is None and isinstance(candidate, CrystalCandidate)
        ]
        mean, std = self.model.predict(
            [crystal.composition for crystal in crystals],
            [crystal.space_group for crystal in crystals],
            np.array([crystal.lattice for crystal in crystals], dtype=np.float64).reshape(-1, 6),
        )
        answers = iter(
            [
                self._measurement(crystal, m, s)
                for crystal, m, s in zip(crystals, mean.tolist(), std.tolist(), strict=True)
            ]
        )
        return [next(answers) if reason is None else Measurement.failed(reason) for reason in reasons]

    def _reason(self, candidate: Candidate) -> str | None:
        """Why the proxy can't judge a candidate, or None."""
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
        volume = cell_volumes(np.array([candidate.lattice]))[0]
        if not (np.isfinite(volume) and volume > 0.0):
            return f"the lattice {candidate.lattice} closes no cell"
        return None

    def _measurement(self, crystal: CrystalCandidate, mean: float, std: float) -> Measurement:
        metadata: dict[str, Any] = {"predictive_std": std}
        if unseen := [symbol for symbol in crystal.composition if symbol not in self.model.elements]:
            metadata["unseen_elements"] = unseen
        return Measurement.of(
            self.property.name, mean, std=std if self.report_std else None, metadata=metadata
        )
