"""What a network sees of a crystal: numbers from composition, space group and lattice, fast and in bulk.

Composition statistics follow Ward et al., npj Comput. Mater. 2, 16028 (2016). Lengths enter as logarithms, in units of
the mean distance of atoms and of the elements' covalent radii, so that size and shape of a cell are told apart.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from activelearning.crystals.descriptors import cell_volumes
from activelearning.crystals.elements import properties
from activelearning.crystals.symmetry import CRYSTAL_SYSTEMS, PointSymmetry, space_groups

Array = npt.NDArray[np.float64]

PROPERTIES = (
    "row",
    "group",
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
CENTERINGS = {"P": 1, "A": 2, "C": 2, "F": 4, "I": 2, "R": 3}  # with lattice points of the conventional cell
DALTON_PER_CUBIC_ANGSTROM = 1.66053906660  # in g/cm³
SPREAD = 4.0  # standard deviations at which a scaled input begins to level off


@cache
def _elements() -> tuple[Array, Array, Array, Array]:
    """Elemental properties scaled to mean 0 and deviation 1, `103 x p`; electronegativity; sphere volume; mass."""
    values = properties(PROPERTIES)
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    chi, radius, mass = properties(("electronegativity", "covalent_radius", "mass")).T
    return scaled, chi, 4.0 / 3.0 * np.pi * radius**3, mass


@cache
def _symmetry() -> Array:
    """Descriptors of space groups, `230 x s`; the first two columns are points of the lattice and multiplicity."""
    return np.array(
        [
            [
                float(CENTERINGS[group.centering]),
                float(group.multiplicity),
                np.log(group.point_group_order),
                np.log(np.mean([w.multiplicity for w in group.wyckoff])),
                float(np.mean([w.is_fixed for w in group.wyckoff])),
                *(float(group.point_symmetry == s) for s in PointSymmetry),
                *(float(group.crystal_system == s) for s in CRYSTAL_SYSTEMS),
                *(float(group.centering == c) for c in CENTERINGS),
            ]
            for group in space_groups()
        ]
    )


def network_inputs(amounts: Array, groups: npt.NDArray[np.int64], lattices: Array) -> Array:
    """Inputs of the networks, `n x d`, not scaled.

    Args:
        amounts: Atoms of each element (H to Lr) in the conventional cell, `n x 103`, no row all zero.
        groups: International numbers, `n`.
        lattices: (a, b, c, α, β, γ) of the conventional cell in Å and degrees, `n x 6`, each closing a cell.
    """
    values, chi, sphere, mass = _elements()
    n_atoms = amounts.sum(axis=1)
    fractions = amounts / n_atoms[:, None]
    is_in = fractions > 0.0
    mean = fractions @ values
    # n x elements x properties; small, for rows come in chunks
    deviation = np.einsum("ne,nep->np", fractions, np.abs(values[None] - mean[:, None]))
    low = np.where(is_in[:, :, None], values[None], np.inf).min(axis=1)
    high = np.where(is_in[:, :, None], values[None], -np.inf).max(axis=1)
    ionic = 1.0 - np.exp(-0.25 * (chi[:, None] - chi[None, :]) ** 2)
    symmetry = _symmetry()[groups - 1]
    volume = cell_volumes(lattices)
    lengths = np.log(lattices[:, :3])
    scale = np.log(volume / n_atoms) / 3.0
    spheres = amounts @ sphere
    others = np.column_stack(
        [
            is_in.sum(axis=1),
            -(fractions * np.log(np.where(is_in, fractions, 1.0))).sum(axis=1),
            np.sqrt((fractions**2).sum(axis=1)),
            ((fractions @ ionic) * fractions).sum(axis=1),
            np.log(n_atoms),
            np.log(n_atoms / symmetry[:, 0]),
            np.log(n_atoms / symmetry[:, 1]),
            3.0 * scale,
            np.log(spheres / volume),
            np.log(DALTON_PER_CUBIC_ANGSTROM * (amounts @ mass) / volume),
            lengths,
            lengths - scale[:, None],
            lengths - np.log(spheres / n_atoms)[:, None] / 3.0,
            np.cos(np.radians(lattices[:, 3:])),
            np.log(symmetry[:, :2]),
            symmetry[:, 2:],
        ]
    )
    return np.concatenate([fractions, mean, deviation, low, high, high - low, others], axis=1)
