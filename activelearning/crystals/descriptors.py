"""Raw descriptors of a crystal by composition, space group and lattice, for models over arbitrary elements.

Composition statistics follow Ward et al., npj Comput. Mater. 2, 16028 (2016): weighted mean, mean absolute
deviation, minimum, maximum and range of elemental properties. Nothing is scaled here; units are stated in
`tables.element_table`, lattice quantities are in Å, Å³, g/cm³ and atoms per Å³.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from activelearning.crystals.elements import element_rows, properties
from activelearning.crystals.symmetry import CRYSTAL_SYSTEMS, PointSymmetry, SpaceGroup, space_groups

PROPERTIES = (
    "atomic_number",
    "row",
    "group",
    "mass",
    "electronegativity",
    "covalent_radius",
    "ionic_radius",
    "mendeleev_number",
    "ionization_energy",
    "electron_affinity",
    "s_electrons",
    "p_electrons",
    "d_electrons",
    "f_electrons",
)
STATISTICS = ("mean", "deviation", "min", "max", "range")
CENTERINGS = ("P", "A", "C", "F", "I", "R")
DALTON_PER_CUBIC_ANGSTROM = 1.66053906660  # in g/cm³

_COMPOSITION_NAMES = ("n_atoms", "n_elements", "entropy", "fraction_norm_2", "fraction_norm_3", "ionicity")
_SYMMETRY_NAMES = (
    "space_group",
    "point_group_order",
    "multiplicity",
    "mean_wyckoff_multiplicity",
    "fixed_wyckoff_share",
    *(f"is_{s.value.replace('-', '_')}" for s in PointSymmetry),
    *(f"is_{s}" for s in CRYSTAL_SYSTEMS),
    *(f"centering_{c}" for c in CENTERINGS),
)
_LATTICE_NAMES = (
    *(
        "a",
        "b",
        "c",
        "cos_alpha",
        "cos_beta",
        "cos_gamma",
        "shortest_length",
        "longest_length",
        "length_ratio",
    ),
    *("volume", "volume_per_atom", "density", "packing_fraction", "atoms_per_multiplicity", "li_per_volume"),
)


def _element_names() -> tuple[str, ...]:
    return tuple(f"fraction_{symbol}" for symbol in element_rows())


DESCRIPTOR_NAMES: tuple[str, ...] = (
    *_COMPOSITION_NAMES,
    *(f"{p}_{s}" for p in PROPERTIES for s in STATISTICS),
    *_SYMMETRY_NAMES,
    *_LATTICE_NAMES,
    *_element_names(),
)


def amounts_of(compositions: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
    """Atoms of each element in the cell, `n x 103`.

    Raises:
        ValueError: a composition is empty, names no element of H to Lr, or has an amount that is not
            positive.
    """
    rows = element_rows()
    amounts = np.zeros((len(compositions), len(rows)))
    for i, composition in enumerate(compositions):
        for symbol, amount in composition.items():
            if symbol not in rows:
                raise ValueError(f"a composition names {symbol!r}; descriptors know H to Lr")
            if not 0.0 < amount < np.inf:
                raise ValueError(f"a composition needs positive amounts, not {symbol}: {amount}")
            amounts[i, rows[symbol]] = amount
        if not composition:
            raise ValueError("a composition is empty")
    return amounts


def composition_statistics(
    amounts: NDArray[np.float64], columns: Sequence[str], statistics: Sequence[str]
) -> NDArray[np.float64]:
    """Statistics of elemental properties, `n x (len(columns) * len(statistics))`, statistics running fastest.

    Args:
        amounts: Atoms of each element, `n x 103`; no row is all zero.
        columns: Names of elemental properties.
        statistics: Names out of `STATISTICS`.
    """
    n = len(amounts)
    # Only the elements that occur: the arrays below are n x elements x properties.
    present = np.flatnonzero(amounts.any(axis=0))
    weights = amounts[:, present] / amounts.sum(axis=1, keepdims=True)
    values = properties(columns)[present]
    mean = weights @ values
    is_in = (weights > 0)[:, :, None]
    known = {"mean": mean}
    if "deviation" in statistics:
        known["deviation"] = np.einsum("ne,nep->np", weights, np.abs(values[None] - mean[:, None]))
    if {"min", "max", "range"} & set(statistics):
        known["min"] = np.where(is_in, values[None], np.inf).min(axis=1, initial=np.inf)
        known["max"] = np.where(is_in, values[None], -np.inf).max(axis=1, initial=-np.inf)
        known["range"] = known["max"] - known["min"]
    return np.stack([known[s] for s in statistics], axis=2).reshape(n, len(columns) * len(statistics))


def ionicity(amounts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pauling's ionic character 1 − exp(−Δχ²/4), averaged over all pairs of atoms, `n`."""
    present = np.flatnonzero(amounts.any(axis=0))
    weights = amounts[:, present] / amounts.sum(axis=1, keepdims=True)
    chi = properties(["electronegativity"])[present, 0]
    character = 1.0 - np.exp(-0.25 * (chi[:, None] - chi[None, :]) ** 2)
    return np.einsum("ni,ij,nj->n", weights, character, weights)


def cell_volumes(lattices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Volumes in Å³, `n`, of lattices (a, b, c, α, β, γ) in Å and degrees, `n x 6`.

    NaN where three such angles close no cell.
    """
    cosines = np.cos(np.radians(lattices[:, 3:]))
    gram = 1.0 - (cosines**2).sum(axis=1) + 2.0 * cosines.prod(axis=1)
    return lattices[:, :3].prod(axis=1) * np.sqrt(np.where(gram > 0, gram, np.nan))


def _symmetry_row(group: SpaceGroup) -> list[float]:
    multiplicities = [w.multiplicity for w in group.wyckoff]
    return [
        float(group.number),
        float(group.point_group_order),
        float(group.multiplicity),
        float(np.mean(multiplicities)),
        float(np.mean([w.is_fixed for w in group.wyckoff])),
        *(float(group.point_symmetry == s) for s in PointSymmetry),
        *(float(group.crystal_system == s) for s in CRYSTAL_SYSTEMS),
        *(float(group.centering == c) for c in CENTERINGS),
    ]


def symmetry_descriptors(numbers: Sequence[int]) -> NDArray[np.float64]:
    """Descriptors of space groups, `n x len(_SYMMETRY_NAMES)`."""
    table = np.array([_symmetry_row(group) for group in space_groups()])
    return table[np.asarray(numbers, dtype=np.int64) - 1]


def descriptor_table(
    compositions: Sequence[Mapping[str, float]], space_groups: Sequence[int], lattices: ArrayLike
) -> NDArray[np.float64]:
    """Descriptors in the order of `DESCRIPTOR_NAMES`, `n x len(DESCRIPTOR_NAMES)`, finite, not scaled.

    Args:
        compositions: Atoms of each element in the conventional cell; amounts may be fractional.
        space_groups: International numbers.
        lattices: (a, b, c, α, β, γ) of the conventional cell in Å and degrees, `n x 6`.

    Raises:
        ValueError: lengths differ, an element is unknown, or a lattice closes no cell.
    """
    cells = np.asarray(lattices, dtype=np.float64).reshape(-1, 6)
    n = len(compositions)
    if not n == len(space_groups) == len(cells):
        raise ValueError(
            f"descriptors need as many compositions ({n}) as space groups ({len(space_groups)}) "
            f"and lattices ({len(cells)})"
        )
    amounts = amounts_of(compositions)
    volumes = cell_volumes(cells)
    if not (np.isfinite(volumes).all() and (volumes > 0).all()):
        raise ValueError(f"lattice {cells[np.argmin(np.nan_to_num(volumes))].tolist()} closes no cell")
    n_atoms = amounts.sum(axis=1)
    fractions = amounts / n_atoms[:, None]
    logs = np.log(np.where(fractions > 0, fractions, 1.0))
    composition = np.column_stack(
        [
            n_atoms,
            (amounts > 0).sum(axis=1),
            -(fractions * logs).sum(axis=1),
            np.linalg.norm(fractions, axis=1),
            np.linalg.norm(fractions, ord=3, axis=1),
            ionicity(amounts) if n else np.zeros(0),
        ]
    )
    symmetry = symmetry_descriptors(space_groups)
    mass, radius = properties(["mass", "covalent_radius"]).T
    lengths = cells[:, :3]
    lattice = np.column_stack(
        [
            lengths,
            np.cos(np.radians(cells[:, 3:])),
            lengths.min(axis=1, initial=np.inf),
            lengths.max(axis=1, initial=-np.inf),
            lengths.max(axis=1, initial=-np.inf) / lengths.min(axis=1, initial=np.inf),
            volumes,
            volumes / n_atoms,
            DALTON_PER_CUBIC_ANGSTROM * (amounts @ mass) / volumes,
            (amounts @ (4.0 / 3.0 * np.pi * radius**3)) / volumes,
            n_atoms / symmetry[:, _SYMMETRY_NAMES.index("multiplicity")],
            amounts[:, element_rows()["Li"]] / volumes,
        ]
    )
    statistics = composition_statistics(amounts, PROPERTIES, STATISTICS)
    return np.concatenate([composition, statistics, symmetry, lattice, fractions], axis=1)
