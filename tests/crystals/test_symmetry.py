"""The shipped symmetry table against PyXtal and pymatgen."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files

import numpy as np
import pytest
from pymatgen.symmetry.groups import PointGroup
from pymatgen.symmetry.groups import SpaceGroup as PymatgenGroup

from activelearning.crystals.symmetry import (
    POINT_GROUP_ORDER,
    LatticeSystem,
    PointSymmetry,
    space_group,
    space_groups,
)
from activelearning.crystals.tables import element_table, symmetry_table


def test_shipped_tables_are_those_of_the_installed_libraries():
    folder = files("activelearning.crystals")
    assert json.loads(folder.joinpath("symmetry.json").read_text()) == symmetry_table()
    assert json.loads(folder.joinpath("elements.json").read_text()) == element_table()


@pytest.mark.parametrize("number", range(1, 231))
def test_group_agrees_with_pymatgen(number):
    ours, theirs = space_group(number), PymatgenGroup.from_int_number(number)
    assert ours.number == number
    assert ours.crystal_system == theirs.crystal_system
    # pymatgen uses hexagonal axes for R groups too; the general position is the order of the group.
    assert ours.multiplicity == theirs.order
    assert ours.centering == theirs.symbol[0]
    assert ours.point_group_order == len(PointGroup(ours.point_group).symmetry_ops)


def test_point_symmetry_follows_from_the_operations():
    # Definitions instead of lists: an inversion; a vector that every rotation keeps; no improper rotation.
    for group in {group.point_group: group for group in space_groups()}.values():
        rotations = [op.rotation_matrix for op in PointGroup(group.point_group).symmetry_ops]
        has_inversion = any(np.allclose(r, -np.eye(3)) for r in rotations)
        is_polar = np.linalg.matrix_rank(sum(rotations)) > 0
        is_chiral = all(np.linalg.det(r) > 0 for r in rotations)
        expected = {
            (True, False, False): PointSymmetry.CENTROSYMMETRIC,
            (False, True, False): PointSymmetry.POLAR,
            (False, False, True): PointSymmetry.ENANTIOMORPHIC,
            (False, True, True): PointSymmetry.ENANTIOMORPHIC_POLAR,
            (False, False, False): PointSymmetry.NONE,
        }[has_inversion, is_polar, is_chiral]
        assert group.point_symmetry == expected, group.point_group


def test_classes_have_their_known_sizes():
    systems = Counter(group.lattice_system for group in space_groups())
    assert systems == {
        LatticeSystem.TRICLINIC: 2,
        LatticeSystem.MONOCLINIC: 13,
        LatticeSystem.ORTHORHOMBIC: 59,
        LatticeSystem.TETRAGONAL: 68,
        LatticeSystem.TRIGONAL_RHOMBOHEDRAL: 7,
        LatticeSystem.TRIGONAL_HEXAGONAL: 18,
        LatticeSystem.HEXAGONAL: 27,
        LatticeSystem.CUBIC: 36,
    }
    assert len({group.point_group for group in space_groups()}) == len(POINT_GROUP_ORDER) == 32
    assert space_group(194).lattice_system == LatticeSystem.HEXAGONAL


def test_wyckoff_positions_of_a_known_group():
    # Pm-3m in International Tables A.
    positions = [(w.letter, w.multiplicity, w.freedom) for w in space_group(221).wyckoff]
    assert positions[0] == ("n", 48, 3)
    assert positions[-4:] == [("d", 3, 0), ("c", 3, 0), ("b", 1, 0), ("a", 1, 0)]
    assert space_group(221).fixed_multiplicities == ((1, 2), (3, 2))
    assert space_group(221).free_multiplicities == (6, 8, 12, 24, 48)


@pytest.mark.parametrize("number", [0, 231, -1])
def test_number_out_of_range(number):
    with pytest.raises(ValueError, match="1 to 230"):
        space_group(number)
