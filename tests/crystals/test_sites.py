"""Maps of Wyckoff positions against PyXtal, pymatgen's symmetry operations and spglib."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import spglib
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from pymatgen.symmetry.groups import SpaceGroup
from pyxtal.lattice import Lattice as PyXtalLattice
from pyxtal.symmetry import Group

from activelearning.crystals.sites import canonical_order, wyckoff_maps, wyckoff_violations
from activelearning.crystals.symmetry import space_group, space_groups


def cell(number: int) -> PyXtalLattice:
    kind = Group(number).lattice_type
    return PyXtalLattice.from_para(*CELLS[kind], ltype=kind)


CELLS = {
    "triclinic": (5.1, 6.3, 7.7, 77, 83, 98),
    "monoclinic": (5.1, 6.3, 7.7, 90, 103, 90),
    "orthorhombic": (5.1, 6.3, 7.7, 90, 90, 90),
    "tetragonal": (5.1, 5.1, 7.7, 90, 90, 90),
    "trigonal": (5.1, 5.1, 7.7, 90, 90, 120),
    "hexagonal": (5.1, 5.1, 7.7, 90, 90, 120),
    "cubic": (6.3, 6.3, 6.3, 90, 90, 90),
}


def same_places(first: np.ndarray, second: np.ndarray, tolerance: float = 1e-8) -> bool:
    """Whether two lists of fractional coordinates are the same set of places, lattice translations aside."""
    gaps = first[:, None] - second[None]
    gaps -= np.round(gaps)
    near = (np.abs(gaps) < tolerance).all(axis=-1)
    return bool(near.any(axis=1).all() and near.any(axis=0).all())


def test_all_positions_agree_with_pyxtal():
    rng = np.random.default_rng(0)
    for group in space_groups():
        maps = wyckoff_maps(group.number)
        for ours, theirs in zip(maps, Group(group.number), strict=True):
            assert ours.position.letter == theirs.letter
            assert len(ours.rotations) == theirs.multiplicity
            assert len(ours.free) == theirs.get_dof() == ours.position.freedom
            xyz = rng.random(3)
            expected = np.array([operation.operate(xyz) for operation in theirs.ops])
            gaps = ours.atoms(xyz) - expected
            np.testing.assert_allclose(gaps - np.round(gaps), 0.0, atol=1e-9)


@cache
def hall_numbers() -> dict[int, int]:
    """spglib's entry of each group in the standard setting: the first, but origin choice 2 where there is one."""
    found: dict[int, int] = {}
    for hall in range(1, 531):
        kind = spglib.get_spacegroup_type(hall)
        if kind.number not in found or kind.choice == "2":
            found[kind.number] = hall
    return found


def test_atoms_of_all_positions_are_orbits_of_spglibs_operations():
    """Every operation of the group maps one atom of an orbit onto one of its atoms, and reaches all of them."""
    rng = np.random.default_rng(1)
    for group in space_groups():
        operations = spglib.get_symmetry_from_database(hall_numbers()[group.number])
        for maps in wyckoff_maps(group.number):
            atoms = maps.atoms(rng.random(3))
            assert ((atoms >= 0) & (atoms < 1)).all()
            orbit = operations["rotations"] @ atoms[0] + operations["translations"]
            assert same_places(orbit, atoms), (group.number, maps.position.letter)
            gaps = atoms[:, None] - atoms[None]
            gaps -= np.round(gaps)
            assert (np.abs(gaps).max(axis=-1) < 1e-6).sum() == len(atoms), "atoms coincide"


@settings(max_examples=60)
@given(number=st.integers(1, 230), seed=st.integers(0, 2**32 - 1))
def test_spglib_finds_at_least_the_groups_symmetry(number, seed):
    """A structure of one or two random orbits has all operations of its group, by spglib's own analysis."""
    rng = np.random.default_rng(seed)
    maps = wyckoff_maps(number)
    chosen = [maps[int(rng.integers(len(maps)))], maps[0]]
    atoms = [m.atoms(rng.random(3)) for m in chosen]
    species = [symbol for symbol, a in zip(("Li", "S"), atoms, strict=True) for _ in a]
    structure = Structure(cell(number).matrix, species, np.concatenate(atoms))
    found = SpacegroupAnalyzer(structure, symprec=1e-5).get_space_group_operations()
    # Operations in the conventional cell, centring included.
    assert len(found) >= len(SpaceGroup.from_int_number(number).symmetry_ops)


def test_the_general_position_fixes_the_group():
    """With two general orbits spglib finds the very group, or its enantiomorph by the lattice's handedness."""
    rng = np.random.default_rng(2)
    for number in (1, 2, 14, 19, 33, 62, 76, 92, 146, 148, 155, 166, 176, 194, 198, 205, 216, 225, 227, 230):
        general = wyckoff_maps(number)[0]
        atoms = [general.atoms(rng.random(3)) for _ in range(2)]
        species = ["Li"] * len(atoms[0]) + ["S"] * len(atoms[1])
        structure = Structure(cell(number).matrix, species, np.concatenate(atoms))
        assert SpacegroupAnalyzer(structure, symprec=1e-5).get_space_group_number() == number


def test_fixed_positions_come_first_in_canonical_order():
    for group in space_groups():
        positions = [group.wyckoff[i] for i in canonical_order(group)]
        assert sorted(p.letter for p in positions) == sorted(p.letter for p in group.wyckoff)
        fixed = [p.is_fixed for p in positions]
        assert fixed == sorted(fixed, reverse=True)
    assert [space_group(47).wyckoff[i].letter for i in canonical_order(space_group(47))][-1] == "A"


@pytest.mark.parametrize(
    ("wyckoff", "reason"),
    [
        ({"Li": ("c",), "S": ("a",)}, None),
        ({"Li": ("c",)}, "given for Li, not Li, S"),
        ({"Li": ("c",), "S": ("y",)}, "no Wyckoff position y"),
        ({"Li": ("a", "b"), "S": ("a",)}, "a has no free coordinate and is occupied more than once"),
        ({"Li": ("a",), "S": ("b",)}, "of Li hold 4 atoms, not the 8"),
    ],
)
def test_violations_are_named(wyckoff, reason):
    found = wyckoff_violations(225, {"Li": 8, "S": 4}, wyckoff)
    if reason is None:
        assert found == []
    else:
        assert any(reason in message for message in found), found


def test_a_number_out_of_range_is_refused():
    with pytest.raises(ValueError, match="1 to 230"):
        wyckoff_maps(231)
