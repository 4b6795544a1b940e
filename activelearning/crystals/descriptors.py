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
LATTICE_NAMES = (
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
    *LATTICE_NAMES,
    *_element_names(),
)


_WHOLE = frozenset(
    {
        *("n_atoms", "n_elements", "entropy", "ionicity"),
        *("point_group_order", "multiplicity", "is_centrosymmetric", "is_polar"),
        *("shortest_length", "longest_length", "length_ratio"),
        *("volume_per_atom", "density", "packing_fraction", "li_per_volume"),
    }
)
_COMMON_SHARE = 0.05  # of the crystals, that hold an element whose fraction is among the few


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


class _Atoms:
    """The elements of each crystal in slots, in order of atomic number; unused slots hold amounts of zero.

    Sums run over the slots one after the other, so that a row has the same bits in whatever batch it comes:
    what a wider batch adds are zeros.
    """

    def __init__(self, amounts: NDArray[np.float64]) -> None:
        n = len(amounts)
        is_in = amounts > 0
        slot = np.cumsum(is_in, axis=1) - 1
        rows, elements = np.nonzero(is_in)
        slots = slot[rows, elements]
        self.n_slots = int(slots.max(initial=-1)) + 1
        self.elements = np.zeros((self.n_slots, n), dtype=np.int64)
        self.amounts = np.zeros((self.n_slots, n))
        self.elements[slots, rows] = elements
        self.amounts[slots, rows] = amounts[rows, elements]
        self.n_atoms = self.total(np.ones((len(element_rows()), 1)))[:, 0]
        self.weights = self.amounts / self.n_atoms

    def total(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums over the atoms of elemental values (`103 x p`), `n x p`."""
        result = np.zeros((self.elements.shape[1], values.shape[1]))
        for elements, amounts in zip(self.elements, self.amounts, strict=True):
            result += amounts[:, None] * values[elements]
        return result

    def statistics(self, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """`STATISTICS` of elemental values (`103 x p`), `n x p` each."""
        shape = (self.elements.shape[1], values.shape[1])
        mean, deviation = np.zeros(shape), np.zeros(shape)
        least, most = np.full(shape, np.inf), np.full(shape, -np.inf)
        for elements, weights in zip(self.elements, self.weights, strict=True):
            mean += weights[:, None] * values[elements]
        for elements, weights in zip(self.elements, self.weights, strict=True):
            here, is_in = values[elements], weights[:, None] > 0
            deviation += weights[:, None] * np.abs(here - mean)
            least = np.where(is_in, np.minimum(least, here), least)
            most = np.where(is_in, np.maximum(most, here), most)
        return {"mean": mean, "deviation": deviation, "min": least, "max": most, "range": most - least}

    def summary(self) -> list[NDArray[np.float64]]:
        """Atoms, elements, entropy, norms of the fractions, and Pauling's ionic character, `n` each.

        The ionic character is 1 − exp(−Δχ²/4), averaged over all pairs of atoms.
        """
        n = self.elements.shape[1]
        n_elements, entropy, squares, cubes, ionicity = (np.zeros(n) for _ in range(5))
        chi = properties(["electronegativity"])[:, 0]
        for i, weights in enumerate(self.weights):
            n_elements += weights > 0
            entropy -= weights * np.log(np.where(weights > 0, weights, 1.0))
            squares += weights * weights
            cubes += weights * weights * weights
            for j in range(i):
                difference = chi[self.elements[i]] - chi[self.elements[j]]
                character = 1.0 - np.exp(-0.25 * difference * difference)
                ionicity += 2.0 * weights * self.weights[j] * character
        return [self.n_atoms, n_elements, entropy, np.sqrt(squares), np.cbrt(cubes), ionicity]


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
    compositions: Sequence[Mapping[str, float]], space_groups: Sequence[int], lattices: ArrayLike | None
) -> NDArray[np.float64]:
    """Descriptors in the order of `DESCRIPTOR_NAMES`, `n x d`, finite, not scaled.

    A row has the same bits in whatever batch it comes.

    Args:
        compositions: Atoms of each element in the conventional cell; amounts may be fractional.
        space_groups: International numbers.
        lattices: (a, b, c, α, β, γ) of the conventional cell in Å and degrees, `n x 6`; None leaves the
            columns of the lattice out.

    Raises:
        ValueError: lengths differ, an element is unknown, or a lattice closes no cell.
    """
    n = len(compositions)
    if n != len(space_groups):
        raise ValueError(f"descriptors need as many compositions ({n}) as space groups ({len(space_groups)})")
    amounts = amounts_of(compositions)
    atoms = _Atoms(amounts)
    statistics = atoms.statistics(properties(PROPERTIES))
    symmetry = symmetry_descriptors(space_groups)
    columns = [
        np.column_stack(atoms.summary()),
        np.stack([statistics[s] for s in STATISTICS], axis=2).reshape(n, len(PROPERTIES) * len(STATISTICS)),
        symmetry,
    ]
    if lattices is not None:
        columns.append(_lattice_descriptors(np.asarray(lattices, dtype=np.float64), atoms, amounts, symmetry))
    return np.concatenate([*columns, amounts / atoms.n_atoms[:, None]], axis=1)


def _lattice_descriptors(
    lattices: NDArray[np.float64],
    atoms: _Atoms,
    amounts: NDArray[np.float64],
    symmetry: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Descriptors of cells, `n x len(LATTICE_NAMES)`."""
    cells = lattices.reshape(-1, 6)
    if len(cells) != len(amounts):
        raise ValueError(f"descriptors need as many compositions ({len(amounts)}) as lattices ({len(cells)})")
    volumes = cell_volumes(cells)
    if not (np.isfinite(volumes).all() and (volumes > 0).all()):
        raise ValueError(f"lattice {cells[np.argmin(np.nan_to_num(volumes))].tolist()} closes no cell")
    mass, radius = properties(["mass", "covalent_radius"]).T
    masses, spheres = atoms.total(np.column_stack([mass, 4.0 / 3.0 * np.pi * radius**3])).T
    lengths = cells[:, :3]
    shortest, longest = lengths.min(axis=1, initial=np.inf), lengths.max(axis=1, initial=-np.inf)
    return np.column_stack(
        [
            lengths,
            np.cos(np.radians(cells[:, 3:])),
            shortest,
            longest,
            longest / shortest,
            volumes,
            volumes / atoms.n_atoms,
            DALTON_PER_CUBIC_ANGSTROM * masses / volumes,
            spheres / volumes,
            atoms.n_atoms / symmetry[:, _SYMMETRY_NAMES.index("multiplicity")],
            amounts[:, element_rows()["Li"]] / volumes,
        ]
    )


def few_descriptors(table: NDArray[np.float64]) -> list[str]:
    """Descriptors that are few enough for a Gaussian process on these crystals, chosen without looking at answers.

    Means and deviations of the elements' properties, the fraction of every element that 5 % of the crystals hold, and
    what describes the composition, the symmetry and the lattice as a whole; of these, what varies.

    Args:
        table: All descriptors of the crystals, `n x len(DESCRIPTOR_NAMES)`.
    """
    statistics = {f"{p}_{s}" for p in PROPERTIES for s in ("mean", "deviation")}
    fractions = set(_element_names())
    return [
        name
        for name, column in zip(DESCRIPTOR_NAMES, table.T, strict=True)
        if np.ptp(column) > 0.0
        and (
            name in statistics
            or name in _WHOLE
            or (name in fractions and np.mean(column > 0.0) >= _COMMON_SHARE)
        )
    ]
