"""Features of crystals for Gaussian processes: about forty numbers in [0, 1].

The scales are those of the space (its elements' properties, its limits on lattices and counts), never of
data, so that a feature means the same in every round. Each row is computed by itself, element by element of
the space and never by a matrix product, so that it is the same bit for bit in whatever batch it comes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.descriptors import DESCRIPTOR_NAMES, cell_volumes, descriptor_table
from activelearning.crystals.elements import element_rows, properties
from activelearning.crystals.lattice import LatticeLimits
from activelearning.crystals.symmetry import CRYSTAL_SYSTEMS, PointSymmetry, SpaceGroup, space_groups

__all__ = ["DESCRIPTOR_NAMES", "CrystalFeatures", "descriptor_table"]

# Statistics of elemental properties over the atoms; d is the mean absolute deviation.
_STATISTICS = {
    "electronegativity": ("mean", "deviation", "range"),
    "ionization_energy": ("mean",),
    "covalent_radius": ("mean", "deviation"),
    "ionic_radius": ("mean", "deviation"),
    "mass": ("mean", "deviation"),
    "row": ("mean",),
    "group": ("mean",),
    "mendeleev_number": ("mean", "deviation"),
    "p_electrons": ("mean",),
    "d_electrons": ("mean",),
}
_COMPOSITION = ("n_atoms", "n_elements", "entropy", "ionicity")
_SYMMETRY = (
    "crystal_system",
    "is_hexagonal_lattice",
    "is_centrosymmetric",
    "is_polar",
    "is_enantiomorphic",
    "point_group_order",
    "multiplicity",
    "mean_wyckoff_multiplicity",
    "fixed_wyckoff_share",
)
_LATTICE = ("a", "b", "c", "anisotropy", "cos_alpha", "cos_beta", "cos_gamma", "volume_per_atom", "packing")

# With more elements than this, statistics must do: a fraction for each would drown the rest.
MAX_FRACTIONS = 12
_PACKING = (0.02, 2.0)  # volume of covalent spheres over that of the cell


class CrystalLike(Protocol):
    """What features are made of."""

    @property
    def space_group(self) -> int:
        """International number."""
        ...

    @property
    def composition(self) -> Mapping[str, int]:
        """Atoms of each element in the conventional cell."""
        ...

    @property
    def lattice(self) -> tuple[float, float, float, float, float, float] | None:
        """(a, b, c, α, β, γ) in Å and degrees, where there is one."""
        ...


def _log_scale(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = (np.log(values) - math.log(low)) / (math.log(high) - math.log(low))
    return scaled


def _symmetry_row(group: SpaceGroup) -> list[float]:
    multiplicities = [w.multiplicity for w in group.wyckoff]
    symmetry = group.point_symmetry
    return [
        CRYSTAL_SYSTEMS.index(group.crystal_system) / 6.0,
        float(group.crystal_system in ("trigonal", "hexagonal")),
        float(symmetry == PointSymmetry.CENTROSYMMETRIC),
        float(symmetry in (PointSymmetry.POLAR, PointSymmetry.ENANTIOMORPHIC_POLAR)),
        float(symmetry in (PointSymmetry.ENANTIOMORPHIC, PointSymmetry.ENANTIOMORPHIC_POLAR)),
        math.log(group.point_group_order) / math.log(48),
        math.log(group.multiplicity) / math.log(192),
        math.log(float(np.mean(multiplicities))) / math.log(192),
        float(np.mean([w.is_fixed for w in group.wyckoff])),
    ]


def _cells(crystals: Sequence[CrystalLike]) -> NDArray[np.float64]:
    for crystal in crystals:
        if crystal.lattice is None:
            raise ValueError(f"{dict(crystal.composition)} in group {crystal.space_group} has no lattice")
    return np.array([crystal.lattice for crystal in crystals], dtype=np.float64)


class CrystalFeatures:
    """Features of crystals made of given elements.

    Args:
        elements: Symbols, in a fixed order.
        limits: Limits on lattices; None where crystals have none.
        max_atoms: Most atoms in a cell.
        max_elements: Most elements in a crystal.
    """

    def __init__(
        self, elements: Sequence[str], limits: LatticeLimits | None, max_atoms: int, max_elements: int
    ) -> None:
        self._column = {symbol: i for i, symbol in enumerate(elements)}
        self._limits, self._max_atoms, self._max_elements = limits, max_atoms, max_elements
        rows = [element_rows()[symbol] for symbol in elements]
        known = properties(tuple(_STATISTICS))[rows]
        low, high = known.min(axis=0), known.max(axis=0)
        # A property that all the elements share says nothing.
        varies = high > low
        self._statistics = {p: s for (p, s), v in zip(_STATISTICS.items(), varies, strict=True) if v}
        self._scaled = (known[:, varies] - low[varies]) / (high - low)[varies]
        chi = properties(["electronegativity"])[rows, 0]
        self._ionic = 1.0 - np.exp(-0.25 * (chi[:, None] - chi[None, :]) ** 2)
        self._spheres = 4.0 / 3.0 * math.pi * properties(["covalent_radius"])[rows, 0] ** 3
        self._symmetry = np.array([_symmetry_row(group) for group in space_groups()])
        self._has_fractions = len(elements) <= MAX_FRACTIONS
        self.names: tuple[str, ...] = (
            *(f"fraction_{symbol}" for symbol in elements if self._has_fractions),
            *(f"{p}_{s}" for p, statistics in self._statistics.items() for s in statistics),
            *_COMPOSITION,
            *_SYMMETRY,
            *(() if limits is None else _LATTICE),
        )

    def __call__(self, crystals: Sequence[CrystalLike]) -> NDArray[np.float64]:
        """Features in the order of `names`, `n x len(names)`, float64 in [0, 1].

        Raises:
            ValueError: a crystal holds an element that is not among the elements, or lacks a lattice.
        """
        n = len(crystals)
        if not n:
            return np.zeros((0, len(self.names)))
        counts = self._counts(crystals)
        n_atoms = counts.sum(axis=1)
        fractions = counts / n_atoms[:, None]
        columns = [
            *([fractions] if self._has_fractions else []),
            self._elemental(fractions),
            self._compositional(counts, fractions, n_atoms),
            self._symmetry[np.array([crystal.space_group for crystal in crystals]) - 1],
        ]
        if self._limits is not None:
            columns.append(self._geometric(counts, n_atoms, _cells(crystals), self._limits))
        return np.clip(np.concatenate(columns, axis=1), 0.0, 1.0)

    def _counts(self, crystals: Sequence[CrystalLike]) -> NDArray[np.float64]:
        counts = np.zeros((len(crystals), len(self._column)))
        for i, crystal in enumerate(crystals):
            for symbol, count in crystal.composition.items():
                if symbol not in self._column:
                    raise ValueError(f"features know {', '.join(self._column)}, not {symbol}")
                counts[i, self._column[symbol]] = count
        return counts

    def _elemental(self, fractions: NDArray[np.float64]) -> NDArray[np.float64]:
        n, scaled = len(fractions), self._scaled
        p = scaled.shape[1]
        mean, deviation = np.zeros((n, p)), np.zeros((n, p))
        least, most = np.full((n, p), np.inf), np.full((n, p), -np.inf)
        for e in range(fractions.shape[1]):
            mean += fractions[:, e, None] * scaled[e]
        for e in range(fractions.shape[1]):
            present = fractions[:, e, None] > 0
            # The largest mean absolute deviation of values in [0, 1] is one half.
            deviation += 2.0 * fractions[:, e, None] * np.abs(scaled[e] - mean)
            least = np.where(present, np.minimum(least, scaled[e]), least)
            most = np.where(present, np.maximum(most, scaled[e]), most)
        known = {"mean": mean, "deviation": deviation, "range": most - least}
        columns = [known[s][:, j] for j, names in enumerate(self._statistics.values()) for s in names]
        return np.stack(columns, axis=1) if columns else np.zeros((n, 0))

    def _compositional(
        self, counts: NDArray[np.float64], fractions: NDArray[np.float64], n_atoms: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        entropy, ionicity = np.zeros(len(counts)), np.zeros(len(counts))
        for e in range(counts.shape[1]):
            share = fractions[:, e]
            entropy -= share * np.log(np.where(share > 0, share, 1.0))
            for other in range(e):
                ionicity += 2.0 * share * fractions[:, other] * self._ionic[e, other]
        scale = max(math.log(self._max_elements), math.log(2.0))
        return np.stack(
            [
                np.log(n_atoms) / max(math.log(self._max_atoms), math.log(2.0)),
                (counts > 0).sum(axis=1) / self._max_elements,
                entropy / scale,
                ionicity,
            ],
            axis=1,
        )

    def _geometric(
        self,
        counts: NDArray[np.float64],
        n_atoms: NDArray[np.float64],
        cells: NDArray[np.float64],
        limits: LatticeLimits,
    ) -> NDArray[np.float64]:
        lengths = cells[:, :3]
        volumes = cell_volumes(cells)
        if not np.all(volumes > 0):
            raise ValueError(f"lattice {cells[~(volumes > 0)][0].tolist()} closes no cell")
        low, high = limits.lengths
        spheres = np.zeros(len(cells))
        for e in range(counts.shape[1]):
            spheres += counts[:, e] * self._spheres[e]
        reach = max(abs(math.cos(math.radians(angle))) for angle in (*limits.angles, 120.0))
        return np.column_stack(
            [
                _log_scale(lengths, low, high),
                _log_scale(lengths.max(axis=1) / lengths.min(axis=1), 1.0, high / low),
                0.5 + 0.5 * np.cos(np.radians(cells[:, 3:])) / reach,
                _log_scale(volumes / n_atoms, *limits.volume_per_atom),
                _log_scale(spheres / volumes, *_PACKING),
            ]
        )
