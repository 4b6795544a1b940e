"""Mass density of a crystal, exact from its composition and lattice: an answer without physics to doubt.

It makes a campaign on crystals testable end to end, and with `scale`, `bias` or `noise_std` it stands for a
cheap source of a known error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import ClassVar

import numpy as np
from pymatgen.core import Element

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.descriptors import DALTON_PER_CUBIC_ANGSTROM, cell_volumes
from activelearning.errors import ConfigError
from activelearning.measurement import Measurement
from oracles.base import Oracle

UNIT = "g/cm3"
SPELLINGS = ("g/cm^3", "g/cm³", "g cm-3", "g cm^-3", "g cm⁻³")


@cache
def _mass(symbol: str) -> float:
    return float(Element(symbol).atomic_mass)


def _why_not(candidate: object) -> str | None:
    """Why a candidate has no density; None where it has one."""
    if not isinstance(candidate, CrystalCandidate):
        return (
            f"the oracle 'density' needs crystals (a space of type crystal, or a pool of them), not a "
            f"{type(candidate).__name__}"
        )
    if candidate.lattice is None:
        return "a crystal without a lattice has no density; let space.order hold the lattice"
    return None


class DensityOracle(Oracle):
    """Mass density in g/cm³, of crystal candidates: scale · ρ + bias + noise.

    Args:
        scale: Factor on the exact density; a negative one is a misleading source.
        bias: Added to it, in g/cm³.
        noise_std: Standard deviation of Gaussian noise, in g/cm³, seeded from the evaluation.

    Raises:
        ConfigError: `scale` is 0 or not finite, `bias` is not finite, or `noise_std` is negative.
    """

    takes_average: ClassVar[bool] = True

    def __init__(self, scale: float = 1.0, bias: float = 0.0, noise_std: float = 0.0) -> None:
        if not math.isfinite(scale) or scale == 0.0:
            raise ConfigError(
                f"params.scale of the oracle 'density' must be a number other than 0, not {scale}."
            )
        if not math.isfinite(bias):
            raise ConfigError(f"params.bias of the oracle 'density' must be a finite number, not {bias}.")
        if not (math.isfinite(noise_std) and noise_std >= 0.0):
            raise ConfigError(
                f"params.noise_std of the oracle 'density' must be at least 0, not {noise_std}."
            )
        self.scale = float(scale)
        self.bias = float(bias)
        self.noise_std = float(noise_std)

    def check(self) -> None:
        """Refuse a campaign that wants the density in another unit.

        Raises:
            ConfigError: the fidelity's unit is not g/cm³.
        """
        self.check_unit(UNIT, *SPELLINGS)

    def content(self) -> Mapping[str, object]:
        """The parameters, defaults filled in: equal sources share answers however they are written."""
        return {"scale": self.scale, "bias": self.bias, "noise_std": self.noise_std}

    def evaluate(self, candidates: Sequence[CrystalCandidate]) -> Sequence[Measurement]:
        """Answer for every candidate; one that is no crystal, or has no lattice that closes a cell, fails."""
        reasons = [_why_not(candidate) for candidate in candidates]
        crystals = [c for c, reason in zip(candidates, reasons, strict=True) if reason is None]
        masses = np.array(
            [math.fsum(n * _mass(symbol) for symbol, n in c.composition.items()) for c in crystals]
        )
        volumes = cell_volumes(np.array([c.lattice for c in crystals], dtype=np.float64).reshape(-1, 6))
        densities = iter((DALTON_PER_CUBIC_ANGSTROM * masses / volumes).tolist())
        return [
            self._measurement(candidate, next(densities)) if reason is None else Measurement.failed(reason)
            for candidate, reason in zip(candidates, reasons, strict=True)
        ]

    def _measurement(self, candidate: CrystalCandidate, density: float) -> Measurement:
        if not math.isfinite(density):
            return Measurement.failed(f"the lattice {candidate.lattice} closes no cell")
        value = self.scale * density + self.bias
        if self.noise_std == 0.0:
            return Measurement.of(self.context.property, value)
        noise = np.random.default_rng(self.seed(candidate)).normal(0.0, self.noise_std)
        return Measurement.of(self.context.property, value + float(noise), std=self.noise_std)
