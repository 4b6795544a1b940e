"""Restricted crystal spaces: the same layout, and exactly the crystals of the base that keep the restrictions."""

from __future__ import annotations

import copy
import itertools
import time
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyxtal.symmetry import Group

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.charge import default_oxidation_states
from activelearning.crystals.wyckoff import DEAD
from activelearning.errors import ConfigError
from activelearning.spaces.crystal import CrystalSpace

ELEMENTS = ["Li", "P", "S", "Cl"]
GROUPS = [1, 2, 14, 62, 123, 166, 194, 216, 221, 225]
ORDERS = [["space_group", "composition", "lattice"], ["composition", "space_group"]]


def compositions(space, root):
    """All counts that masks let through from a root, as tuples."""
    masks, finished = space.masks, set()
    if root == DEAD:
        return finished
    pending = [(0,) * len(space.elements)]
    while pending:
        counts = np.array(pending)
        allowed = masks.masks(np.full(len(counts), root), counts)
        assert allowed.any(axis=1).all(), "stuck"
        children = []
        for row, action in np.argwhere(allowed):
            if action == masks.n_actions - 1:
                finished.add(pending[row])
                continue
            element, n = divmod(int(action), masks.per_element)
            child = list(pending[row])
            child[element] = n + 1
            children.append(tuple(child))
        pending = children
    return finished


def contents(space):
    """All (group, counts) of a space, by its own order of stages."""
    numbers = [group.number for group in space.space_groups]
    if space.order[0] == "space_group":
        assert (space.is_group_allowed == (space.roots != DEAD)).all()
        return {
            (number, counts)
            for number, root in zip(numbers, space.roots.tolist(), strict=True)
            for counts in compositions(space, root)
        }
    counts = np.array(sorted(compositions(space, space.any_root)))
    allowed = space.group_mask(counts)
    assert allowed.any(axis=1).all(), "stuck"
    return {(numbers[g], tuple(counts[row].tolist())) for row, g in np.argwhere(allowed)}


def base_space(order, **params):
    return CrystalSpace(
        ELEMENTS, space_groups=GROUPS, max_atoms=12, max_atoms_per_element=8, order=order, **params
    )


@pytest.fixture(scope="module", params=ORDERS, ids="-".join)
def base(request):
    space = base_space(request.param)
    return space, contents(space)


@cache
def fits(number, counts):
    return bool(Group(number).check_compatible(list(counts))[0])


def test_each_order_holds_exactly_the_crystals_found_by_brute_force(base):
    _, everything = base
    states = [default_oxidation_states(symbol) for symbol in ELEMENTS]
    expected = set()
    for counts in itertools.product(range(9), repeat=4):
        present = tuple(sorted(n for n in counts if n))
        choices = [q for q, n in zip(states, counts, strict=True) if n]
        if not 1 <= sum(present) <= 12 or not any(
            sum(n * q for n, q in zip((n for n in counts if n), chosen, strict=True)) == 0
            for chosen in itertools.product(*choices)
        ):
            continue
        expected |= {(number, counts) for number in GROUPS if fits(number, present)}
    assert everything == expected


RANGE = st.tuples(st.integers(0, 8), st.integers(1, 8)).map(lambda p: (min(p), max(p)))
RESTRICTIONS = st.fixed_dictionaries(
    {},
    optional={
        "elements": st.lists(st.sampled_from(ELEMENTS), min_size=2, unique=True),
        "required_elements": st.lists(st.sampled_from(ELEMENTS), max_size=2, unique=True),
        "counts": st.dictionaries(st.sampled_from(ELEMENTS), RANGE, max_size=3),
        "n_elements": st.tuples(st.integers(1, 2), st.integers(2, 4)),
        "max_atoms": st.integers(3, 12),
        "max_atoms_per_element": st.integers(2, 8),
        "space_groups": st.lists(st.sampled_from(GROUPS), min_size=1, unique=True),
        "crystal_systems": st.lists(
            st.sampled_from(["triclinic", "monoclinic", "tetragonal", "hexagonal", "cubic"]),
            min_size=1,
            max_size=4,
            unique=True,
        ),
        "space_group": st.sampled_from(GROUPS),
    },
)
SYSTEMS = {1: "triclinic", 2: "triclinic", 14: "monoclinic", 62: "orthorhombic", 123: "tetragonal"}
SYSTEMS |= {166: "trigonal", 194: "hexagonal", 216: "cubic", 221: "cubic", 225: "cubic"}


def keeps(number, counts, r):
    of = dict(zip(ELEMENTS, counts, strict=True))
    present = [n for n in counts if n]
    return (
        all(of[e] == 0 for e in ELEMENTS if e not in r.get("elements", ELEMENTS))
        and all(of[e] for e in r.get("required_elements", []))
        and all(low <= of[e] <= high for e, (low, high) in r.get("counts", {}).items())
        and r.get("n_elements", (1, 4))[0] <= len(present) <= r.get("n_elements", (1, 4))[1]
        and sum(present) <= r.get("max_atoms", 12)
        and max(present) <= r.get("max_atoms_per_element", 8)
        and number in r.get("space_groups", GROUPS)
        and number in [r.get("space_group", number)]
        and SYSTEMS[number] in r.get("crystal_systems", SYSTEMS.values())
        and of == {e: r.get("composition", of).get(e, 0) for e in ELEMENTS}
    )


@settings(max_examples=120)
@given(restrictions=RESTRICTIONS)
def test_a_restricted_space_holds_exactly_what_keeps_the_restrictions(base, restrictions):
    space, everything = base
    expected = {(number, counts) for number, counts in everything if keeps(number, counts, restrictions)}
    if not expected:
        # Nothing is left, or a list names no group of the systems.
        with pytest.raises(ConfigError):
            space.restricted(**restrictions)
        return
    part = space.restricted(**restrictions)
    assert contents(part) == expected
    assert (part.base, part.elements, part.order) == (space, space.elements, space.order)
    assert part.space_groups is space.space_groups
    assert part.masks.n_actions == space.masks.n_actions


def test_restrictions_add_up(base):
    space, everything = base
    part = space.restricted(elements=["Li", "S", "Cl"], counts={"Li": (2, 6)})
    narrower = part.restricted(counts={"Li": (4, 8)}, crystal_systems=["cubic"])
    assert narrower.base is space
    expected = {
        (number, counts)
        for number, counts in everything
        if 4 <= counts[0] <= 6 and not counts[1] and number >= 195
    }
    assert expected
    assert contents(narrower) == expected
    assert contents(copy.deepcopy(narrower)) == expected
    # The space it came from is as it was.
    assert contents(space) == everything


def test_a_fixed_composition_or_group_is_completed(base):
    space, everything = base
    part = space.restricted(composition={"Li": 4, "Cl": 4})
    assert contents(part) == {(g, c) for g, c in everything if c == (4, 0, 0, 4)}
    assert {g for g, _ in contents(part)} >= {1, 216, 225}
    assert contents(space.restricted(space_group=225)) == {(g, c) for g, c in everything if g == 225}


def test_counts_in_the_constructor_are_those_of_a_restriction(base):
    space, everything = base
    ranges = {"Li": (1, 4), "P": (0, 2)}
    same = base_space(list(space.order), counts=ranges)
    expected = {(g, c) for g, c in everything if 1 <= c[0] <= 4 and c[1] <= 2}
    assert contents(same) == contents(space.restricted(counts=ranges)) == expected
    assert same.required_elements == ("Li",)


def test_validation_keeps_the_restrictions():
    space = base_space(ORDERS[0])
    part = space.restricted(
        required_elements=["Li"], counts={"S": (0, 2)}, crystal_systems=["cubic", "triclinic"], max_atoms=8
    )
    cell = (5.13, 5.13, 5.13, 90, 90, 90)
    part.validate(CrystalCandidate(225, {"Li": 4, "Cl": 4}, cell))
    for group, composition, message in (
        (1, {"P": 1, "Cl": 5}, "required elements are missing: Li"),
        (1, {"Li": 6, "S": 3}, "3 atoms of S, not 0 to 2"),
        (1, {"Li": 5, "Cl": 5}, "10 atoms, more than max_atoms = 8"),
        (123, {"Li": 4, "Cl": 4}, "not among those of the space"),
    ):
        crystal = CrystalCandidate(group, composition, cell)
        space.validate(crystal)
        with pytest.raises(ValueError, match=message):
            part.validate(crystal)
    with pytest.raises(ValueError, match="lengths"):
        space.restricted(lengths=(6.0, 9.0)).validate(CrystalCandidate(1, {"Li": 4, "Cl": 4}, cell))


def test_features_are_those_of_the_base():
    space = base_space(ORDERS[0])
    part = space.restricted(elements=["Li", "Cl"], lengths=(3.0, 9.0), angles=(80.0, 125.0))
    crystal = CrystalCandidate(225, {"Li": 4, "Cl": 4}, (5.13, 5.13, 5.13, 90, 90, 90))
    assert torch.equal(space.features([crystal]), part.features([crystal]))


def test_narrower_cells_hold_no_composition_that_wider_ones_do_not():
    space = base_space(ORDERS[0])
    everything = contents(space)
    # No hexagonal cell has angles below 110°; cubes of 6 Å are too large for a few atoms.
    part = space.restricted(lengths=(6.0, 9.0), angles=(60.0, 110.0))
    found = contents(part)
    assert found < everything
    assert {g for g, _ in found} <= {g for g in GROUPS if g not in (166, 194)}
    assert min(sum(c) for _, c in found) == 3
    # Smaller angles make smaller cells, which the wider space leaves out.
    acute = space.restricted(lengths=(6.0, 9.0)).restricted(angles=(55.0, 70.0))
    assert contents(acute) <= contents(space.restricted(lengths=(6.0, 9.0)))


@pytest.mark.parametrize(
    ("restrictions", "message"),
    [
        ({"elements": ["Na"]}, "restriction elements names 'Na'"),
        ({"required_elements": ["Na"]}, "restriction required_elements names 'Na'"),
        ({"counts": {"Na": (1, 2)}}, "restriction counts names 'Na'"),
        ({"counts": {"Li": (1, 9)}}, "restriction counts.Li is \\[1, 9\\]"),
        ({"counts": {"Li": (3, 2)}}, "restriction counts.Li"),
        ({"n_elements": (1, 5)}, "restriction n_elements is \\[1, 5\\]"),
        ({"max_atoms": 13}, "restriction max_atoms is 13, more than the 12"),
        ({"max_atoms": 0}, "restriction max_atoms is 0"),
        ({"max_atoms_per_element": 9}, "restriction max_atoms_per_element is 9"),
        ({"space_groups": [227]}, "restriction space_groups names 227"),
        ({"space_group": 227}, "restriction space_group names 227"),
        ({"crystal_systems": ["qubic"]}, "Did you mean 'cubic'"),
        ({"lengths": (2.0, 9.0)}, "restriction lengths is .* within 2.5 to 30"),
        ({"angles": (60.0, 140.0)}, "restriction angles"),
        ({"volume_per_atom": (3.0, 10.0)}, "restriction volume_per_atom"),
        ({"composition": {"Na": 1}}, "restriction composition names 'Na'"),
        ({"composition": {"Li": 9}}, "restriction composition.Li is 9"),
        ({"composition": {"Li": 3, "Cl": 4}}, "no choice of one oxidation state"),
        ({"elements": ["Li"]}, r"No crystal of the space keeps the restrictions elements \['Li'\]; loosen"),
    ],
)
def test_restrictions_are_refused_by_name(restrictions, message):
    with pytest.raises(ConfigError, match=message):
        base_space(ORDERS[0]).restricted(**restrictions)


def test_cells_can_be_restricted_only_where_there_are_cells():
    with pytest.raises(ConfigError, match="restriction lengths is stated, but"):
        base_space(ORDERS[1]).restricted(lengths=(3.0, 9.0))


def test_restricting_is_quick():
    space = CrystalSpace("H Li B C N O F Na Mg Al Si P S Cl K V Mn Fe Co Ni Cu Se".split(), max_atoms=40)
    start = time.process_time()
    space.restricted(elements=["Fe", "O"], max_atoms_per_element=10)
    assert time.process_time() - start < 1.0
