"""What keeps a crystal out of a space, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.charge import is_neutral
from activelearning.crystals.sites import wyckoff_violations
from activelearning.crystals.symmetry import LATTICE_SYSTEMS, SpaceGroup, space_group
from activelearning.crystals.wyckoff import is_compatible

if TYPE_CHECKING:
    from activelearning.spaces.crystal.space import CrystalSpace


# Å and degrees by which the cell of a candidate's structure may differ from its lattice: rounding's.
SAME_CELL = 2e-3


def violations(space: CrystalSpace, crystal: CrystalCandidate) -> list[str]:
    """Every constraint of a space that a crystal breaks; empty where it belongs to the space."""
    foreign = [symbol for symbol in crystal.composition if symbol not in space.elements]
    if foreign:
        return [f"{', '.join(foreign)} not among the elements {', '.join(space.elements)}"]
    group = space_group(crystal.space_group)
    broken = composition_violations(space, crystal.composition)
    if not is_compatible(group, list(crystal.composition.values())):
        broken.append(f"the counts do not fit on the Wyckoff positions of {group.symbol}")
    broken += _cell_violations(space, crystal, group)
    if not broken and group.number not in space.allowed_groups:
        broken.append("the space group is not among those of the space")
    elif not broken:
        low, high = space.constraints.atoms[group.lattice_system] or (1, 0)
        if not low <= crystal.n_atoms <= high:
            broken.append(f"{crystal.n_atoms} atoms, not {low} to {high}, for which lattices are sampled")
    return broken


def composition_violations(space: CrystalSpace, counts: Mapping[str, int]) -> list[str]:
    """What is wrong with a composition of the space's elements, whatever the space group."""
    limits, broken = space.constraints, []
    n_atoms, most = sum(counts.values()), max(counts.values())
    if not limits.n_elements[0] <= len(counts) <= limits.n_elements[1]:
        broken.append(f"{len(counts)} elements, not {limits.n_elements[0]} to {limits.n_elements[1]}")
    if n_atoms > limits.max_atoms:
        broken.append(f"{n_atoms} atoms, more than max_atoms = {limits.max_atoms}")
    if most > limits.max_atoms_per_element:
        broken.append(f"{most} atoms of one element, more than {limits.max_atoms_per_element}")
    lacking = [symbol for symbol in space.required_elements if symbol not in counts]
    if lacking:
        broken.append(f"required elements are missing: {', '.join(lacking)}")
    for symbol, n in counts.items():
        allowed = np.flatnonzero(limits.counts[space.elements.index(symbol)])
        if n <= limits.max_atoms_per_element and n not in allowed:
            broken.append(f"{n} atoms of {symbol}, not {_ranges(allowed.tolist())}")
    if space.oxidation_states is not None and not is_neutral(
        counts, space.oxidation_states, space.mixed_valence
    ):
        of_which = " (or atom, of mixed valence)" if space.mixed_valence else ""
        broken.append(f"no choice of one oxidation state for each element{of_which} makes it neutral")
    return broken


def _ranges(numbers: list[int]) -> str:
    """Ascending numbers as text: 0, 4 to 8."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in runs)


def _cell_violations(space: CrystalSpace, crystal: CrystalCandidate, group: SpaceGroup) -> list[str]:
    broken = []
    if space.has_lattice and crystal.lattice is None:
        broken.append("it has no lattice")
    elif not space.has_lattice and crystal.lattice is not None:
        broken.append(f"it has a lattice, which is no part of this space (order {list(space.order)})")
    elif crystal.lattice is not None:
        system = np.array([LATTICE_SYSTEMS.index(group.lattice_system)])
        counts = np.array([[crystal.composition.get(symbol, 0) for symbol in space.elements]])
        volumes = space.log_volumes(system, counts)[0]
        broken += space.limits.violations(group.lattice_system, volumes, crystal.lattice)
    if space.wyckoff and crystal.wyckoff is None:
        broken.append("it has no Wyckoff positions")
    elif space.wyckoff and crystal.wyckoff is not None:
        broken += wyckoff_violations(group.number, crystal.composition, crystal.wyckoff)
    # One whose cell has no room for its atoms stays without a structure.
    if crystal.structure is not None:
        held = {symbol: int(n) for symbol, n in crystal.structure.composition.as_dict().items()}
        if held != dict(crystal.composition):
            broken.append(f"its structure holds {held}")
        cell = crystal.structure.lattice.parameters
        if crystal.lattice is not None and not np.allclose(cell, crystal.lattice, rtol=0.0, atol=SAME_CELL):
            broken.append(f"its structure has another cell, {[round(float(x), 4) for x in cell]}")
    return broken
