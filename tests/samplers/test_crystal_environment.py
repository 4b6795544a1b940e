"""The crystal environment: every trajectory ends in a crystal that independent code finds right."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from activelearning.candidate import CrystalCandidate
from activelearning.contracts import Proposal
from activelearning.spaces.crystal import CrystalSpace
from samplers.gflownet.environments.crystal import CrystalEnvironment

PUBLISHED = "H Li B C N O F Na Mg Al Si P S Cl K V Mn Fe Co Ni Cu Se".split()


def roll(environment, n, seed):
    """Uniform over allowed actions and coordinates: all (states, actions, u), and the terminal states."""
    generator = torch.Generator().manual_seed(seed)
    states, steps, finished = environment.initial(n), [], []
    for _ in range(environment.max_steps):
        mask = environment.forward_mask(states)
        assert mask.any(dim=1).all(), "a trajectory is stuck"
        actions = torch.multinomial(mask.double(), 1, generator=generator).squeeze(1)
        u = torch.rand(len(states), 6, dtype=torch.float64, generator=generator)
        steps.append((states, actions, u))
        children = environment.step(states, actions, u)
        is_done = environment.is_terminal(children)
        finished.append(children[is_done])
        states = children[~is_done]
        if not len(states):
            return steps, torch.cat(finished)
    raise AssertionError(f"longer than {environment.max_steps} steps")


@pytest.fixture(scope="module")
def small_space():
    return CrystalEnvironment(CrystalSpace(["Li", "P", "S", "Cl"], max_atoms=24), 2)


@pytest.fixture(scope="module")
def published():
    return CrystalEnvironment(CrystalSpace(PUBLISHED, max_atoms=80, max_atoms_per_element=16), 3)


def test_crystals_of_a_small_space_pass_an_independent_check(small_space, check_crystal):
    _, terminal = roll(small_space, 2000, seed=0)
    crystals = [proposal.candidate for proposal in small_space.proposals(terminal)]
    for crystal in crystals:
        check_crystal(crystal, max_atoms=24)
    assert len({crystal.space_group for crystal in crystals}) > 200
    # One element alone is never neutral.
    assert {len(crystal.composition) for crystal in crystals} == {2, 3, 4}


def test_crystals_of_the_published_space_pass_an_independent_check(published, check_crystal):
    _, terminal = roll(published, 1000, seed=1)
    crystals = [proposal.candidate for proposal in published.proposals(terminal)]
    for crystal in crystals:
        check_crystal(crystal, max_atoms=80)
    assert {symbol for crystal in crystals for symbol in crystal.composition} == set(PUBLISHED)
    assert max(max(crystal.composition.values()) for crystal in crystals) <= 16


@pytest.mark.slow
def test_ten_thousand_crystals_pass_an_independent_check(small_space, published, check_crystal):
    for environment, max_atoms in ((small_space, 24), (published, 80)):
        _, terminal = roll(environment, 10_000, seed=2)
        for proposal in environment.proposals(terminal):
            check_crystal(proposal.candidate, max_atoms=max_atoms)
            environment.space.validate(proposal.candidate)


def test_restricted_spaces_pass_an_independent_check(check_crystal):
    # Narrow ranges of everything, where limits of the lattice decide on compositions.
    limits = {"lengths": (3.0, 6.0), "angles": (60.0, 125.0), "volume_per_atom": (9.0, 14.0)}
    space = CrystalSpace(
        ["Li", "O", "Mn"],
        n_elements=(2, 3),
        max_atoms=30,
        max_atoms_per_element=12,
        required_elements=["O"],
        lengths=limits["lengths"],
        angles=limits["angles"],
        volume_per_atom=limits["volume_per_atom"],
    )
    environment = CrystalEnvironment(space)
    _, terminal = roll(environment, 1000, seed=3)
    for proposal in environment.proposals(terminal):
        crystal = proposal.candidate
        check_crystal(crystal, max_atoms=30, **limits)
        space.validate(crystal)
        assert "O" in crystal.composition
        assert 2 <= len(crystal.composition) <= 3
        assert proposal.fidelity is None


def test_methods_return_new_tensors_and_leave_their_input(small_space):
    steps, terminal = roll(small_space, 50, seed=4)
    for states, actions, u in steps:
        before = states.clone(), actions.clone(), u.clone()
        first = small_space.forward_mask(states)
        small_space.encode(states)
        small_space.backward_mask(states)
        small_space.continuous_mask(states, actions)
        small_space.log_jacobian(states, actions, u)
        children = small_space.step(states, actions, u)
        small_space.step_back(children, actions)
        first.zero_()
        assert small_space.forward_mask(states).any(dim=1).all()
        assert torch.equal(states, before[0])
        assert torch.equal(actions, before[1])
        assert torch.equal(u, before[2])
    kept = terminal.clone()
    small_space.proposals(terminal)
    assert torch.equal(terminal, kept)


def test_a_step_back_undoes_a_step(small_space):
    steps, _ = roll(small_space, 200, seed=5)
    for states, actions, u in steps:
        children = small_space.step(states, actions, u)
        backward = small_space.backward_mask(children)
        # Each state has one parent.
        assert (backward.sum(dim=1) == 1).all()
        assert torch.equal(backward.long().argmax(dim=1), actions)
        parents, again = small_space.step_back(children, actions)
        assert torch.equal(parents, states)
        drawn = small_space.continuous_mask(states, actions)
        assert torch.equal(again[drawn], u[drawn])
        assert torch.equal(
            small_space.forward_mask(parents).gather(1, actions[:, None]).all(), torch.tensor(True)
        )
    assert not small_space.backward_mask(small_space.initial(3)).any()


def test_masks_and_encodings_of_a_row_do_not_depend_on_the_batch(published):
    steps, _ = roll(published, 300, seed=6)
    states = torch.cat([states for states, _, _ in steps])
    mask, inputs = published.forward_mask(states), published.encode(states)
    assert inputs.dtype == torch.float32
    assert inputs.shape == (len(states), published.n_inputs)
    order = torch.randperm(len(states), generator=torch.Generator().manual_seed(0))
    assert torch.equal(published.forward_mask(states[order]), mask[order])
    assert torch.equal(published.encode(states[order]), inputs[order])
    for row in range(0, len(states), 97):
        assert torch.equal(published.forward_mask(states[row : row + 1])[0], mask[row])
    assert torch.isfinite(inputs).all()
    assert inputs.abs().max() <= 1.5


def test_encodings_tell_states_apart(small_space):
    steps, _ = roll(small_space, 300, seed=7)
    states = torch.cat([states for states, _, _ in steps])
    distinct = torch.unique(states, dim=0)
    assert len(torch.unique(small_space.encode(distinct), dim=0)) == len(distinct)


def test_states_are_the_inverse_of_proposals(small_space):
    _, terminal = roll(small_space, 500, seed=8)
    proposals = small_space.proposals(terminal)
    again = small_space.states(proposals)
    # Lattices are rounded in a candidate, so that coordinates come back up to that.
    lattice = small_space.columns["lattice"]
    assert (again[:, lattice] - terminal[:, lattice]).abs().max() < 1e-2
    again[:, lattice] = terminal[:, lattice]
    assert torch.equal(again, terminal)
    assert [p.candidate.key for p in small_space.proposals(again)] == [p.candidate.key for p in proposals]
    assert [p.fidelity for p in small_space.proposals(again)] == [p.fidelity for p in proposals]


@pytest.mark.parametrize("fidelity", [None, 2, -1])
def test_states_of_a_wrong_fidelity_are_refused(small_space, fidelity):
    crystal = CrystalCandidate(225, {"Li": 4, "Cl": 4}, (5.13, 5.13, 5.13, 90, 90, 90))
    with pytest.raises(ValueError, match="fidelity"):
        small_space.states([Proposal(crystal, fidelity)])
    with pytest.raises(ValueError, match="not among the elements"):
        small_space.states([Proposal(CrystalCandidate(225, {"Na": 4, "Cl": 4}, crystal.lattice), 0)])


def test_probabilities_of_all_crystals_sum_to_one():
    # The discrete part by enumeration of every path; the lattice of a cubic cell by quadrature over u.
    space = CrystalSpace(["Li", "S"], space_groups=[216, 221, 225], max_atoms=12)
    environment = CrystalEnvironment(space)
    states, weights = environment.initial(1), torch.ones(1, dtype=torch.float64)
    total, seen = 0.0, set()
    while len(states):
        mask = environment.forward_mask(states)
        rows, actions = mask.nonzero(as_tuple=True)
        weights = weights[rows] / mask.sum(dim=1)[rows]
        states = environment.step(states[rows], actions, torch.full((len(rows), 6), 0.5, dtype=torch.float64))
        is_done = environment.is_terminal(states)
        total += float(weights[is_done].sum())
        keys = [proposal.candidate.key for proposal in environment.proposals(states[is_done])]
        assert not seen & set(keys)
        seen |= set(keys)
        states, weights = states[~is_done], weights[~is_done]
    assert total == pytest.approx(1.0)
    assert len(seen) >= 10


def test_uniform_coordinates_have_the_density_of_the_log_jacobian():
    # One cubic crystal: density over the scaled edge, integrated over the edges that are allowed, is one.
    space = CrystalSpace(
        ["Li", "Cl"], space_groups=[225], max_atoms=8, lengths=(4.0, 7.0), volume_per_atom=(12.0, 30.0)
    )
    environment = CrystalEnvironment(space)
    n = 20_001
    states, drawn = environment.initial(1), torch.zeros(6, dtype=torch.bool)
    while not drawn.any():
        # The last of the allowed actions: four atoms of each element, then the stop.
        lattice = environment.forward_mask(states).nonzero()[-1:, 1]
        parents, drawn = states, environment.continuous_mask(states, lattice)[0]
        states = environment.step(parents, lattice, torch.full((1, 6), 0.5, dtype=torch.float64))
    states, lattice = parents.expand(n, -1), lattice.expand(n)
    assert drawn.sum() == 1
    u = torch.full((n, 6), 0.5, dtype=torch.float64)
    u[:, drawn] = torch.linspace(1e-9, 1 - 1e-9, n, dtype=torch.float64)[:, None]
    density = environment.log_jacobian(states, lattice, u).exp()
    edges = [p.candidate.lattice[0] for p in environment.proposals(environment.step(states, lattice, u))]
    scaled = (torch.tensor(edges, dtype=torch.float64) - 4.0) / 3.0
    assert float(torch.trapezoid(density, scaled)) == pytest.approx(1.0, abs=1e-3)
    low, high = (12.0 * 8) ** (1 / 3), (30.0 * 8) ** (1 / 3)
    assert (edges[0], edges[-1]) == pytest.approx((low, high), rel=1e-3)
    assert math.isfinite(float(density.max()))


def test_untrained_volumes_are_plausible(small_space):
    # Within the range of the elements' radii, log-uniform.
    _, terminal = roll(small_space, 2000, seed=9)
    per_atom = [p.candidate.volume / p.candidate.n_atoms for p in small_space.proposals(terminal)]
    assert 12 < np.median(per_atom) < 20
