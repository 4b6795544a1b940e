from __future__ import annotations

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from activelearning.candidate import BoxCandidate, CrystalCandidate
from activelearning.contracts import Space
from activelearning.crystals.charge import default_oxidation_states
from activelearning.errors import ConfigError
from activelearning.spaces.crystal import CrystalSpace

ROCK_SALT = CrystalCandidate(225, {"Li": 4, "Cl": 4}, (5.13, 5.13, 5.13, 90, 90, 90))


@pytest.fixture(scope="module")
def space():
    return CrystalSpace(["Li", "P", "S", "Cl"], max_atoms=24)


def test_it_keeps_the_contract(space):
    assert isinstance(space, Space)
    assert (space.kind, space.default_sampler) == ("crystal", "gflownet")
    features = space.features([ROCK_SALT])
    assert features.shape == (1, space.n_features)
    assert features.dtype == torch.float64
    assert space.features([]).shape == (0, space.n_features)


def test_json_round_trip(space):
    value = space.to_json(ROCK_SALT)
    assert space.from_json(value) == ROCK_SALT
    with pytest.raises(ValueError, match="lengths"):
        space.from_json({**value, "lattice": [50, 50, 50, 90, 90, 90]})


def test_elements_are_in_order_of_atomic_number():
    assert CrystalSpace(["S", "Li", "Cl", "P"], max_atoms=4).elements == ("Li", "P", "S", "Cl")


@pytest.mark.parametrize(
    ("group", "composition", "lattice", "message"),
    [
        (225, {"Na": 4, "Cl": 4}, (5.6, 5.6, 5.6, 90, 90, 90), "Na not among the elements"),
        (1, {"Li": 13, "Cl": 13}, (7, 7, 7, 90, 90, 90), "26 atoms, more than max_atoms = 24"),
        (
            225,
            {"Li": 4, "Cl": 4, "S": 4},
            (6, 6, 6, 90, 90, 90),
            "do not fit on the Wyckoff positions of Fm-3m",
        ),
        (1, {"Li": 3, "S": 2}, (5, 5, 5, 90, 90, 90), "neutral"),
        (194, {"Li": 2, "Cl": 2}, (4, 4, 6, 90, 90, 90), "gamma = 90 must be 120"),
        (225, {"Li": 4, "Cl": 4}, (15, 15, 15, 90, 90, 90), "volume 3375"),
    ],
)
def test_validation_names_the_broken_constraint(space, group, composition, lattice, message):
    with pytest.raises(ValueError, match=message):
        space.validate(CrystalCandidate(group, composition, lattice))


def test_validation_of_set_limits():
    space = CrystalSpace(
        ["Li", "P", "S", "Cl"],
        space_groups=[225, 216, 1],
        n_elements=(2, 3),
        max_atoms=24,
        max_atoms_per_element=8,
        required_elements=["Li"],
    )
    with pytest.raises(ValueError, match="required elements are missing: Li"):
        space.validate(CrystalCandidate(1, {"P": 2, "S": 5}, (6, 6, 6, 90, 90, 90)))
    with pytest.raises(ValueError, match="4 elements, not 2 to 3"):
        space.validate(CrystalCandidate(1, {"Li": 2, "P": 1, "S": 2, "Cl": 3}, (6, 6, 6, 90, 90, 90)))
    with pytest.raises(ValueError, match="12 atoms of one element, more than 8"):
        space.validate(CrystalCandidate(1, {"Li": 12, "Cl": 12}, (8, 8, 8, 90, 90, 90)))
    with pytest.raises(ValueError, match="not among those of the space"):
        space.validate(CrystalCandidate(221, {"Li": 1, "Cl": 1}, (3.3, 3.3, 3.3, 90, 90, 90)))
    with pytest.raises(ValueError, match="not a BoxCandidate"):
        space.validate(BoxCandidate((1.0,)))
    space.validate(ROCK_SALT)


def test_cubic_only_lets_no_hexagonal_group_through():
    space = CrystalSpace(["Li", "P", "S", "Cl"], crystal_systems=["cubic"], max_atoms=24)
    assert {group.crystal_system for group in space.space_groups} == {"cubic"}
    assert all(group.number >= 195 for group in space.space_groups)
    both = CrystalSpace(["Li", "Cl"], space_groups=[194, 216, 225], crystal_systems=["cubic"], max_atoms=24)
    assert [group.number for group in both.space_groups] == [216, 225]


def test_lattice_systems_choose_among_trigonal_groups():
    space = CrystalSpace(["Li", "S"], crystal_systems=["trigonal-rhombohedral"], max_atoms=24)
    assert {group.number for group in space.space_groups} <= {146, 148, 155, 160, 161, 166, 167}
    assert space.space_groups


def test_groups_without_a_composition_are_left_out():
    # The smallest sites of 227 hold eight atoms.
    space = CrystalSpace(["Li", "Cl"], space_groups=[1, 227], max_atoms=6)
    assert [group.number for group in space.space_groups] == [1]


def test_angle_range_excludes_lattice_systems():
    space = CrystalSpace(["Li", "Cl"], angles=(60.0, 110.0), max_atoms=12)
    assert not {"hexagonal", "trigonal"} & {group.crystal_system for group in space.space_groups}


def test_oxidation_states_default_to_pymatgen_and_can_be_stated():
    space = CrystalSpace(["Fe", "O"], oxidation_states={"Fe": [2, 3]}, max_atoms=12)
    assert space.oxidation_states == {"O": default_oxidation_states("O"), "Fe": (2, 3)}
    # Fe2O3 needs +3, FeO2 (with O at -2) needs +4.
    only_oxide = CrystalSpace(["Fe", "O"], oxidation_states={"Fe": [2, 3], "O": [-2]}, max_atoms=12)
    lattice = (5.0, 5.0, 5.0, 90, 90, 90)
    only_oxide.validate(CrystalCandidate(1, {"Fe": 4, "O": 6}, lattice))
    with pytest.raises(ValueError, match="neutral"):
        only_oxide.validate(CrystalCandidate(1, {"Fe": 3, "O": 6}, lattice))


def test_mixed_valence_is_an_option():
    lattice = (8.4, 8.4, 8.4, 90, 90, 90)
    magnetite = CrystalCandidate(227, {"Fe": 24, "O": 32}, lattice)
    states = {"Fe": [2, 3], "O": [-2]}
    with pytest.raises(ValueError, match="neutral"):
        CrystalSpace(["Fe", "O"], oxidation_states=states).validate(magnetite)
    for mixed in (True, ["Fe"]):
        space = CrystalSpace(["Fe", "O"], oxidation_states=states, mixed_valence=mixed)
        space.validate(magnetite)
        root = space.roots[[group.number for group in space.space_groups].index(227)]
        # Stop is the last action.
        assert space.masks.masks(np.array([root]), np.array([[32, 24]]))[0, -1]
    with pytest.raises(ValueError, match="of mixed valence"):
        space.validate(CrystalCandidate(1, {"Fe": 4, "O": 8}, (5.0, 5.0, 5.0, 90, 90, 90)))


@pytest.mark.parametrize("off", ["off", False])
def test_neutrality_off_allows_alloys(off):
    space = CrystalSpace(["Al", "Cu"], oxidation_states=off, max_atoms=8)
    space.validate(CrystalCandidate(225, {"Cu": 4}, (3.61, 3.61, 3.61, 90, 90, 90)))
    space.validate(CrystalCandidate(221, {"Al": 1, "Cu": 3}, (3.7, 3.7, 3.7, 90, 90, 90)))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"elements": ["Lj", "Cl"]}, "space.elements names 'Lj'"),
        ({"elements": ["Li", "Li"]}, "each once"),
        ({"elements": []}, "space.elements"),
        ({"elements": [False]}, "Quote it"),
        ({"elements": ["Xe", "F"]}, "pymatgen knows no oxidation state"),
        ({"space_groups": [0]}, "1 to 230"),
        ({"space_groups": []}, "empty list"),
        ({"crystal_systems": ["qubic"]}, "Did you mean 'cubic'"),
        ({"space_groups": [194], "crystal_systems": ["cubic"]}, "None of space.space_groups"),
        ({"n_elements": (3, 2)}, "space.n_elements"),
        ({"n_elements": (5, 5)}, "space.n_elements"),
        ({"max_atoms": 0}, "space.max_atoms is 0"),
        ({"max_atoms_per_element": 0}, "space.max_atoms_per_element is 0"),
        ({"required_elements": ["Na"]}, "space.required_elements names 'Na'"),
        ({"required_elements": ["Li", "Cl"], "n_elements": (1, 1)}, "space.required_elements"),
        ({"lengths": (10.0, 5.0)}, "space.lengths"),
        ({"lengths": (0.0, 5.0)}, "space.lengths"),
        ({"lengths": (3.0,)}, "space.lengths is \\[3.0\\]; it must be \\[lowest, highest\\]"),
        ({"counts": {"Li": (1.5, 2)}}, "space.counts.Li is \\[1.5, 2\\]"),
        ({"counts": {"Li": (1,)}}, "space.counts.Li is \\[1\\]"),
        ({"angles": (60.0, 190.0)}, "space.angles"),
        ({"volume_per_atom": (-1.0, 80.0)}, "space.volume_per_atom"),
        ({"oxidation_states": {"Na": [1]}}, "space.oxidation_states names 'Na'"),
        ({"oxidation_states": {"Li": []}}, "space.oxidation_states.Li"),
        ({"oxidation_states": True}, "space.oxidation_states is True"),
        ({"mixed_valence": ["Na"]}, "space.mixed_valence names 'Na'"),
        ({"mixed_valence": True, "oxidation_states": "off"}, "space.oxidation_states is off"),
        ({"counts": {"Na": (1, 2)}}, "space.counts names 'Na'"),
        ({"counts": {"Li": (1, 13)}}, "space.counts.Li is \\[1, 13\\]; an element has 1 to 12 atoms"),
        ({"counts": {"Li": (0, 0)}}, "space.counts.Li"),
        ({"order": ["lattice", "space_group", "composition"]}, "space.order is \\[lattice, space_group"),
        ({"order": ["composition"]}, "space.order"),
        ({"coordinates": True}, "space.coordinates is true; that needs space.wyckoff"),
        (
            {"coordinates": True, "wyckoff": True, "order": ["composition", "space_group"]},
            "space.coordinates is true; that needs",
        ),
        ({"order": ["composition", "space_group"], "lengths": (3.0, 9.0)}, "space.lengths is stated, but"),
        ({"elements": ["Li", "Ca"]}, "space is empty"),
        ({"volume_per_atom": (4.0, 5.0), "lengths": (20.0, 30.0)}, "space is empty"),
    ],
)
def test_bad_values_are_refused_by_name(params, message):
    with pytest.raises(ConfigError, match=message):
        CrystalSpace(**{"elements": ["Li", "P", "S", "Cl"], "max_atoms": 12, **params})


def test_features_do_not_depend_on_the_batch(space):
    rng = np.random.default_rng(0)
    crystals = [
        CrystalCandidate(
            int(rng.integers(1, 231)),
            {"Li": int(rng.integers(1, 9)), "S": int(rng.integers(1, 9))},
            (*rng.uniform(4, 9, 3), *rng.uniform(80, 100, 3)),
        )
        for _ in range(40)
    ]
    together = space.features(crystals)
    assert torch.equal(together[7:8], space.features([crystals[7]]))
    assert ((together >= 0) & (together <= 1)).all()


WITHOUT_LATTICE = [["space_group", "composition"], ["composition", "space_group"]]


@pytest.mark.parametrize("order", WITHOUT_LATTICE)
def test_crystals_without_lattice(order):
    space = CrystalSpace(["Li", "P", "S", "Cl"], max_atoms=24, order=order)
    bare = CrystalCandidate(225, {"Li": 4, "Cl": 4})
    assert space.from_json(space.to_json(bare)) == bare
    assert "lattice" not in space.to_json(bare)
    features = space.features([bare, CrystalCandidate(1, {"Li": 2, "S": 1})])
    assert features.shape == (2, space.n_features)
    with_lattice = CrystalSpace(["Li", "P", "S", "Cl"], max_atoms=24)
    assert torch.equal(features[0], with_lattice.features([ROCK_SALT])[0, : space.n_features])
    with pytest.raises(ValueError, match="has a lattice, which is no part"):
        space.validate(ROCK_SALT)
    with pytest.raises(ValueError, match="it has no lattice"):
        with_lattice.validate(bare)
    with pytest.raises(ValueError, match="has no lattice"):
        with_lattice.features([bare])


def test_limits_of_cells_need_a_lattice():
    # The largest cubic cell of this range holds 42 atoms, and hexagonal ones are out of the range of angles.
    cells = {"lengths": (2.5, 5.5), "angles": (80.0, 100.0)}
    narrow = CrystalSpace(["Li", "Cl"], max_atoms=80, **cells)
    free = CrystalSpace(["Li", "Cl"], max_atoms=80, order=["space_group", "composition"])
    assert not any(group.crystal_system == "hexagonal" for group in narrow.space_groups)
    assert len(free.space_groups) == 230
    free.validate(CrystalCandidate(1, {"Li": 40, "Cl": 40}))


def test_wyckoff_positions_are_validated():
    space = CrystalSpace(["Li", "Cl"], max_atoms=16, wyckoff=True)
    cell = (5.13, 5.13, 5.13, 90, 90, 90)

    def crystal(sites):
        return CrystalCandidate(225, {"Li": 4, "Cl": 4}, cell, wyckoff=sites)

    space.validate(crystal({"Li": ("a",), "Cl": ("b",)}))
    for sites, message in (
        (None, "no Wyckoff positions"),
        ({"Li": ("a",), "Cl": ("a",)}, "a has no free coordinate and is occupied more"),
        ({"Li": ("a",), "Cl": ("c",)}, "of Cl hold 8 atoms, not the 4"),
        ({"Li": ("a",)}, "given for Li, not Cl, Li"),
        ({"Li": ("a",), "Cl": ("z",)}, "has no Wyckoff position z"),
    ):
        with pytest.raises(ValueError, match=message):
            space.validate(crystal(sites))
    whole = CrystalSpace(["Li", "Cl"], max_atoms=16, wyckoff=True, coordinates=True)
    bare = crystal({"Li": ("a",), "Cl": ("b",)})
    # A cell without room for its atoms gives a crystal without them.
    whole.validate(bare)
    for n_lithium, message in ((1, None), (2, "its structure holds")):
        sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]][: n_lithium + 1]
        species = ["Li", "Cl", "Li"][: n_lithium + 1]
        structure = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.13), species, sites)
        with_atoms = CrystalCandidate(225, {"Li": 4, "Cl": 4}, cell, bare.wyckoff, structure)
        if message is None:
            whole.validate(with_atoms)
        else:
            with pytest.raises(ValueError, match=message):
                whole.validate(with_atoms)


def test_groups_of_whole_compositions_agree_with_pyxtal():
    from pyxtal.symmetry import Group

    space = CrystalSpace(
        ["Li", "P", "S"],
        space_groups=list(range(2, 231, 6)),
        max_atoms=24,
        order=["composition", "space_group"],
    )
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (15, 3)) * (rng.random((15, 3)) < 0.8)
    counts = counts[counts.any(axis=1)]
    found = space.group_mask(counts)
    assert found.shape == (len(counts), len(space.space_groups))
    for row, fits in zip(counts.tolist(), found.tolist(), strict=True):
        present = [n for n in row if n]
        expected = [Group(g.number).check_compatible(present)[0] for g in space.space_groups]
        assert fits == expected, row
