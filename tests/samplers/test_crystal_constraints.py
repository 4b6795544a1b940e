"""Crystals of every order of stages, and of restricted spaces, keep all constraints by independent code."""

from __future__ import annotations

import math
from functools import lru_cache

import pytest
import torch
from pymatgen.core import Element
from smact import neutral_ratios

from activelearning.spaces.crystal import CrystalSpace
from samplers.gflownet.environments.crystal import CrystalEnvironment
from samplers.gflownet.trajectories import sample_terminal

PUBLISHED = "H Li B C N O F Na Mg Al Si P S Cl K V Mn Fe Co Ni Cu Se".split()
ORDERS = [
    ("space_group", "composition", "lattice"),
    ("composition", "space_group", "lattice"),
    ("composition", "space_group"),
    ("space_group", "composition"),
]
# The published restrictions: elements and atoms (A, B), crystal system (C), lattice (D).
RESTRICTIONS = {
    "A": {"elements": ["Fe", "O"], "max_atoms_per_element": 10},
    "B": {"elements": ["Li", "Mn", "O"], "max_atoms": 16},
    "C": {"crystal_systems": ["cubic"]},
    "D": {"lengths": (10.0, 20.0), "angles": (75.0, 135.0)},
}
BLOCK = 10_000


@lru_cache(maxsize=100_000)
def smact_finds_neutral(composition: tuple[tuple[str, int], ...]) -> bool:
    """SMACT's word on whether one oxidation state an element makes the composition neutral."""
    divisor = math.gcd(*(n for _, n in composition))  # it tells ratios without common divisor only
    ratios = [(n // divisor,) for _, n in composition]

    def search(chosen: tuple[int, ...]) -> bool:
        if len(chosen) == len(composition):
            return bool(neutral_ratios(list(chosen), stoichs=ratios, threshold=None))
        symbol = composition[len(chosen)][0]
        return any(search((*chosen, q)) for q in Element(symbol).oxidation_states if q)

    return search(())


@lru_cache
def published(order):
    return CrystalSpace(PUBLISHED, max_atoms=80, max_atoms_per_element=16, order=list(order))


def check(space, n, check_crystal, **limits):
    environment = CrystalEnvironment(space)
    generator = torch.Generator().manual_seed(len(space.order))
    n_seen = 0
    for first in range(0, n, BLOCK):
        terminal = sample_terminal(environment, None, min(BLOCK, n - first), generator=generator)
        for proposal in environment.proposals(terminal):
            crystal = proposal.candidate
            check_crystal(crystal, **limits)
            assert smact_finds_neutral(tuple(crystal.composition.items())), crystal.formula
            assert max(crystal.composition.values()) <= 16
            n_seen += 1
            yield crystal
    assert n_seen == n


def check_order(order, n, check_crystal):
    space = published(order)
    for crystal in check(space, n, check_crystal):
        assert (crystal.lattice is None) == ("lattice" not in order)


def check_restriction(name, n, check_crystal):
    restriction = RESTRICTIONS[name]
    space = published(ORDERS[0]).restricted(**restriction)
    limits = {key: restriction[key] for key in ("lengths", "angles") if key in restriction}
    for crystal in check(space, n, check_crystal, **limits):
        assert set(crystal.composition) <= set(restriction.get("elements", PUBLISHED))
        assert max(crystal.composition.values()) <= restriction.get("max_atoms_per_element", 16)
        assert crystal.n_atoms <= restriction.get("max_atoms", 80)
        assert crystal.space_group >= 195 or "crystal_systems" not in restriction


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_crystals_of_every_order_keep_all_constraints(order, check_crystal):
    check_order(order, 300, check_crystal)


@pytest.mark.parametrize("name", RESTRICTIONS)
def test_crystals_of_restricted_spaces_keep_all_constraints(name, check_crystal):
    check_restriction(name, 300, check_crystal)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_a_hundred_thousand_crystals_of_every_order_keep_all_constraints(order, check_crystal):
    check_order(order, 100_000, check_crystal)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", RESTRICTIONS)
def test_a_hundred_thousand_crystals_of_restricted_spaces_keep_all_constraints(name, check_crystal):
    check_restriction(name, 100_000, check_crystal)
