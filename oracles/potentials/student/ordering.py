"""Ordered cells of crystals with partial occupancies: random choices that keep atoms apart, ranked by Ewald energy.

Enough for training structures. The Ewald sum is taken once, for unit charges on every site; the energy of a choice is
then a quadratic form of its charges, and hundreds of choices cost nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from oracles.potentials.student.chemistry import OXIDATION_STATES

MIN_ATOMS = 20  # a smaller cell is repeated, so that occupancies can be met in whole atoms
MAX_SITES = 260
CLOSEST = 0.6  # of the sum of covalent radii: nearer sites are alternatives of one another
N_CHOICES = 200


def ordered(structure: Any, rng: np.random.Generator, max_atoms: int) -> Atoms | None:
    """An ordered cell of a pymatgen structure, or None where none is found within the bounds.

    Args:
        structure: With partial occupancies or without; elements are those of `OXIDATION_STATES`.
        rng: Draws the choices.
        max_atoms: Larger cells are refused.
    """
    structure = structure.get_primitive_structure()
    structure.remove_oxidation_states()
    if structure.is_ordered:
        if len(structure) > max_atoms:
            return None
        return _atoms(structure, [str(site.specie) for site in structure], range(len(structure)))
    while structure.composition.num_atoms < MIN_ATOMS:
        shortest = int(np.argmin(structure.lattice.abc))
        structure = structure * [2 if axis == shortest else 1 for axis in range(3)]
    if structure.composition.num_atoms > max_atoms or len(structure) > MAX_SITES:
        return None
    matrix = _unit_ewald(structure)
    distances = structure.distance_matrix
    best: tuple[float, dict[int, str]] | None = None
    for _ in range(N_CHOICES):
        choice = _choice(structure, distances, rng)
        if choice is None:
            continue
        sites = list(choice)
        charges = np.array([OXIDATION_STATES[choice[k]] for k in sites], dtype=float)
        energy = float(charges @ matrix[np.ix_(sites, sites)] @ charges)
        if best is None or energy < best[0]:
            best = energy, choice
    if best is None:
        return None
    sites = sorted(best[1])
    return _atoms(structure, [best[1][k] for k in sites], sites)


def _unit_ewald(structure: Any) -> np.ndarray:
    from pymatgen.analysis.ewald import EwaldSummation
    from pymatgen.core import Species, Structure

    unit = Structure(structure.lattice, [Species("H", 1)] * len(structure), structure.frac_coords)
    return np.asarray(EwaldSummation(unit, acc_factor=6.0).total_energy_matrix)


def _choice(structure: Any, distances: np.ndarray, rng: np.random.Generator) -> dict[int, str] | None:
    """An element for each of some sites, with counts near the occupancies and no two atoms too close."""
    groups: dict[str, list[int]] = {}
    for k, site in enumerate(structure):
        groups.setdefault(site.species.formula, []).append(k)
    chosen: dict[int, str] = {}
    # Full sites first: split ones have to fit around them.
    for members in sorted(groups.values(), key=lambda m: -structure[m[0]].species.num_atoms):
        free = [members[k] for k in rng.permutation(len(members))]
        for element, occupancy in structure[members[0]].species.get_el_amt_dict().items():
            exact = occupancy * len(members)
            count = int(exact) + int(rng.random() < exact % 1.0)
            radius = covalent_radii[atomic_numbers[element]]
            for k in list(free):
                if count == 0:
                    break
                if all(
                    distances[k, j] > CLOSEST * (radius + covalent_radii[atomic_numbers[other]])
                    for j, other in chosen.items()
                ):
                    chosen[k] = element
                    free.remove(k)
                    count -= 1
            if count > max(1, 0.05 * exact):
                return None
    return chosen


def _atoms(structure: Any, symbols: list[str], sites: Any) -> Atoms:
    return Atoms(
        symbols, scaled_positions=structure.frac_coords[list(sites)], cell=structure.lattice.matrix, pbc=True
    )
