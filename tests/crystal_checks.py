"""An independent check of sampled crystals: pymatgen and PyXtal, none of the code that makes the masks."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

from pymatgen.core import Composition, Element, Lattice
from pymatgen.symmetry.groups import SpaceGroup
from pyxtal.symmetry import Group

from activelearning.candidate import CrystalCandidate


@lru_cache(maxsize=230)
def _groups(number: int) -> tuple[Group, SpaceGroup]:
    return Group(number), SpaceGroup.from_int_number(number)


@lru_cache(maxsize=100_000)
def fits_wyckoff(number: int, counts: tuple[int, ...]) -> bool:
    """PyXtal's word on whether the counts fit on the Wyckoff positions."""
    return bool(_groups(number)[0].check_compatible(list(counts))[0])


def can_be_neutral(composition: dict[str, int], states: dict[str, list[int]] | None = None) -> bool:
    """Brute force over one oxidation state an element; pymatgen's without zero by default."""
    counts = list(composition.values())
    choices = [
        (states or {}).get(symbol) or [q for q in Element(symbol).oxidation_states if q != 0]
        for symbol in composition
    ]
    return any(
        sum(n * q for n, q in zip(counts, chosen, strict=True)) == 0 for chosen in itertools.product(*choices)
    )


def volumes(
    crystal: CrystalCandidate, lengths: tuple[float, float], per_atom: tuple[float, float] | None
) -> tuple[float, float]:
    """Least and most volume in Å³: by a range per atom, or by pymatgen's van der Waals radii within 4 to 80 Å³.

    With angles of 90° in the range, where they are free.
    """
    low, high = (crystal.n_atoms * limit for limit in per_atom or (4.0, 80.0))
    if per_atom is not None:
        return low, high
    radii = {symbol: float(Element(symbol).van_der_waals_radius) for symbol in crystal.composition}
    spheres = sum(n * 4 / 3 * math.pi * radii[symbol] ** 3 for symbol, n in crystal.composition.items())
    is_hexagonal = 143 <= crystal.space_group <= 194
    smallest, largest = (length**3 * (math.sqrt(0.75) if is_hexagonal else 1.0) for length in lengths)
    # Within the radii's range, or as near to it as lengths allow.
    most = max(1.380 * spheres, 1.05 * max(low, smallest) * 1.01)
    least = min(0.294 * spheres, min(high, largest) / 1.05 / 1.01)
    return max(low, least), min(high, most)


def check_crystal(
    crystal: CrystalCandidate,
    *,
    lengths: tuple[float, float] = (2.5, 30.0),
    angles: tuple[float, float] = (55.0, 135.0),
    volume_per_atom: tuple[float, float] | None = None,
    max_atoms: int = 80,
    is_neutral: bool = True,
) -> None:
    """Raise AssertionError, naming the crystal, where it breaks a constraint of its space; without a lattice, what
    there is of it.
    """
    what = f"{crystal.formula} in {crystal.space_group}, {crystal.lattice}"
    n_atoms = int(Composition(dict(crystal.composition)).num_atoms)
    assert 1 <= n_atoms <= max_atoms, f"atoms: {what}"
    counts = tuple(sorted(crystal.composition.values()))
    assert fits_wyckoff(crystal.space_group, counts), f"Wyckoff positions: {what}"
    if is_neutral:
        assert can_be_neutral(dict(crystal.composition)), f"charge: {what}"
    if crystal.lattice is None:
        return
    lattice = Lattice.from_parameters(*crystal.lattice)
    _, group = _groups(crystal.space_group)
    assert group.is_compatible(lattice, tol=1e-9, angle_tol=1e-9), f"lattice system: {what}"
    assert all(lengths[0] <= x <= lengths[1] for x in crystal.lattice[:3]), f"lengths: {what}"
    assert all(angles[0] <= x <= angles[1] for x in crystal.lattice[3:]), f"angles: {what}"
    # A cell that is not real has NaN or no volume.
    least, most = volumes(crystal, lengths, volume_per_atom)
    assert least <= lattice.volume <= most, f"volume: {what}"
