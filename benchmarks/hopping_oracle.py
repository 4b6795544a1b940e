"""Ionic conductivity of lithium thiophosphate halides by a stated hopping model, which can be optimised exactly.

A plug-in as a user writes one, named in a config by `path/to/hopping_oracle.py:HoppingOracle`. The model is no
substitute for physics: it is a closed formula with the trends of the field in it, so that a campaign on real crystals
has a landscape worth searching and a known optimum. For a crystal of Li, P, S and Cl with N anions in the volume V it
is the random-walk conductivity (Nernst-Einstein, uncorrelated hops)

    σ = n q² a² ν (1 − c + δ) / (6 k T) · exp(−E / k T),        E = E₀ + S (1 − exp(−ΣEᵢ / S)),

with n the number of Li ions per volume, c their share of the sites (two tetrahedra an anion, less those of P), δ the
vacancies that are always there, a = d / √2 the distance of neighbouring tetrahedra and d = (√2 V / N)^⅓ the distance of
close-packed anions. The barrier's parts Eᵢ are

    window     W (1 − exp(−(w − w₀)² / 2 s²))   w = d / √3 − r: what the anions of a triangular face leave open
    hardness   H x²                             x = Cl / (S + Cl): chlorine is less polarisable than sulfur
    disorder   M (1 − h(x))                     h: entropy of S/Cl over log 2; mixed anions flatten the landscape
    symmetry   G (1 − log g / log 48)           g: order of the point group; sites that are alike are level
    shape      A log²(longest / shortest edge)  a long detour in one direction

Known good conductors have what the formula wants: about 40 Å³ an anion (Li6PS5Cl, Li10GeP2S12), half of the sites
filled, some sulfur replaced by chlorine (Li5.5PS4.5Cl1.5; Adeli et al., Angew. Chem. 58, 8681, 2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.descriptors import cell_volumes
from activelearning.crystals.symmetry import space_group
from activelearning.errors import ConfigError
from activelearning.measurement import Measurement
from oracles import Oracle

Array = NDArray[np.float64]

UNIT = "log10(S/cm)"
ELEMENTS = ("Li", "P", "S", "Cl")
LEVELS = ("hopping", "frozen", "free_volume")
RADIUS = {"S": 1.84, "Cl": 1.81}  # Å, six-fold (Shannon, Acta Cryst. A32, 751, 1976)

_CHARGE = 1.602176634e-19  # C
_BOLTZMANN = 1.380649e-23  # J/K
_KT = _BOLTZMANN * 300.0 / _CHARGE  # eV
_ATTEMPTS = 1e13  # 1/s
_VACANCIES = 1e-4  # δ, share of the sites
_LEAST_BARRIER, _SATURATION = 0.22, 0.50  # E₀ and S, eV
_WINDOW, _WINDOW_CENTRE, _WINDOW_WIDTH = 0.40, 0.42, 0.12  # W in eV, w₀ and s in Å
_HARDNESS, _DISORDER, _SYMMETRY, _SHAPE = 0.30, 0.10, 0.15, 0.08  # eV
_FROZEN_WINDOW = 0.06  # Å by which a frozen lattice needs a wider window


@dataclass(frozen=True)
class Crystals:
    """What the model knows of n crystals; every attribute has n entries.

    Attributes:
        li, p, s, cl: Atoms in the conventional cell.
        order: Order of the point group.
        volume: Of the conventional cell in Å³.
        log_ratio: Logarithm of the longest over the shortest edge.
    """

    li: Array
    p: Array
    s: Array
    cl: Array
    order: Array
    volume: Array
    log_ratio: Array

    @classmethod
    def of(cls, candidates: Sequence[CrystalCandidate]) -> Crystals:
        """Those of candidates with a lattice."""
        counts = np.array([[c.composition.get(e, 0) for e in ELEMENTS] for c in candidates], dtype=np.float64)
        cells = np.array([c.cell for c in candidates], dtype=np.float64).reshape(-1, 6)
        li, p, s, cl = counts.reshape(-1, len(ELEMENTS)).T
        return cls(
            li,
            p,
            s,
            cl,
            np.array([space_group(c.space_group).point_group_order for c in candidates], dtype=np.float64),
            cell_volumes(cells),
            np.log(cells[:, :3].max(axis=1) / cells[:, :3].min(axis=1)),
        )

    @property
    def anions(self) -> Array:
        """N."""
        return self.s + self.cl


def log10_conductivity(crystals: Crystals, level: str = "hopping") -> Array:
    """log10 σ/(S cm⁻¹) at 300 K, `n`.

    Args:
        crystals: Crystals with at least one anion each.
        level: `hopping`, the model above. `frozen`: a lattice that does not breathe wants a window wider by 0.06 Å,
            and sees neither disorder nor the detour of long cells. `free_volume`: the rule of thumb that more room
            between anions is more conductivity, which holds for dense crystals alone.
    """
    if level == "free_volume":
        return -15.0 + 2.5 * np.log(crystals.volume / crystals.anions)
    is_frozen = level == "frozen"
    x = crystals.cl / crystals.anions
    distance = np.cbrt(math.sqrt(2.0) * crystals.volume / crystals.anions)
    radius = (1.0 - x) * RADIUS["S"] + x * RADIUS["Cl"]
    opening = distance / math.sqrt(3.0) - radius - _WINDOW_CENTRE - is_frozen * _FROZEN_WINDOW
    parts = _WINDOW * -np.expm1(-0.5 * (opening / _WINDOW_WIDTH) ** 2) + _HARDNESS * x**2
    parts += _SYMMETRY * (1.0 - np.log(crystals.order) / math.log(48.0))
    if not is_frozen:
        parts += _DISORDER * (1.0 - _entropy(x) / math.log(2.0)) + _SHAPE * crystals.log_ratio**2
    barrier = _LEAST_BARRIER - _SATURATION * np.expm1(-parts / _SATURATION)
    vacant = 1.0 - crystals.li / (2.0 * crystals.anions - crystals.p) + _VACANCIES
    density = crystals.li / crystals.volume * 1e30  # 1/m³
    hop = distance * 1e-10 / math.sqrt(2.0)  # m
    mobile = density * _CHARGE * hop**2 * _ATTEMPTS * vacant / (6.0 * _KT)  # S/m, one charge over kT in V
    return np.log10(mobile / 100.0) - barrier / (_KT * math.log(10.0))


def _entropy(x: Array) -> Array:
    """−x log x − (1 − x) log(1 − x), with 0 log 0 = 0."""
    total = np.zeros_like(x)
    for share in (x, 1.0 - x):
        total -= share * np.log(np.where(share > 0.0, share, 1.0))
    return total


class HoppingOracle(Oracle):
    """log10 σ/(S cm⁻¹) at 300 K by the hopping model of this module.

    Args:
        level: `hopping`, `frozen` or `free_volume`; see `log10_conductivity`.
    """

    def __init__(self, level: Literal["hopping", "frozen", "free_volume"] = "hopping") -> None:
        self.level = level

    def check(self) -> None:
        """Refuse a campaign that wants another unit.

        Raises:
            ConfigError: the fidelity's unit is not log10(S/cm).
        """
        if self.context.unit not in (None, UNIT):
            raise ConfigError(
                f"The hopping oracle of the fidelity {self.context.fidelity!r} answers in {UNIT}, but the unit of "
                f"{self.context.property!r} is given as {self.context.unit!r}: write unit: {UNIT}."
            )

    def content(self) -> Mapping[str, object]:
        """The level, stated or not."""
        return {"level": self.level}

    def evaluate(self, candidates: Sequence[CrystalCandidate]) -> Sequence[Measurement]:
        """Answer for every candidate; a crystal the model does not describe fails with the reason."""
        reasons = [_why_not(candidate) for candidate in candidates]
        described = [c for c, reason in zip(candidates, reasons, strict=True) if reason is None]
        values = iter(log10_conductivity(Crystals.of(described), self.level).tolist() if described else ())
        return [
            Measurement.of(self.context.property, next(values))
            if reason is None
            else Measurement.failed(reason)
            for reason in reasons
        ]


def _why_not(candidate: object) -> str | None:
    """Why the model does not describe a candidate; None where it does."""
    if not isinstance(candidate, CrystalCandidate):
        return f"the hopping model describes crystals, not a {type(candidate).__name__}"
    if candidate.lattice is None:
        return "the hopping model needs a lattice; let space.order hold it"
    foreign = sorted(set(candidate.composition) - set(ELEMENTS))
    if foreign:
        return f"the hopping model knows {', '.join(ELEMENTS)}, not {', '.join(foreign)}"
    li, p, s, cl = (candidate.composition.get(element, 0) for element in ELEMENTS)
    if not li or not s + cl:
        return "the hopping model needs lithium and an anion, S or Cl"
    if li > 2 * (s + cl) - p:
        return f"the hopping model has {2 * (s + cl) - p} sites for {li} Li in {candidate.formula}"
    return None
