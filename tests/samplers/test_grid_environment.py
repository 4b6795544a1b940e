"""The grid environment: every path forward is a path backward."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from activelearning.candidate import BoxCandidate
from activelearning.contracts import Proposal
from samplers.gflownet.environments import GridEnvironment, InvertibleEnvironment
from samplers.gflownet.trajectories import sample_forward


def test_is_an_invertible_environment():
    assert isinstance(GridEnvironment(2, 3), InvertibleEnvironment)


@given(st.integers(1, 3), st.integers(2, 5), st.sampled_from([None, 1, 3]), st.integers(0, 1000))
def test_step_back_undoes_step_and_masks_agree(n_dimensions, side, n_fidelities, seed):
    env = GridEnvironment(n_dimensions, side, n_fidelities)
    t = sample_forward(env, None, 8, generator=torch.Generator().manual_seed(seed))
    rows = torch.arange(len(t.index))
    assert env.forward_mask(t.states)[rows, t.actions].all()
    assert env.backward_mask(t.children)[rows, t.actions].all()
    parents, _ = env.step_back(t.children, t.actions)
    assert torch.equal(parents, t.states)
    assert env.is_terminal(t.terminal).all()
    assert not env.forward_mask(t.terminal).any()
    assert not env.backward_mask(env.initial(1)).any()


def test_every_point_and_fidelity_is_reached_and_read_back():
    env = GridEnvironment(2, 3, 2)
    expected = {(a, b, m) for a, b in itertools.product(range(3), repeat=2) for m in range(2)}
    terminal = sample_forward(env, None, 3000, generator=torch.Generator().manual_seed(0)).terminal
    proposals = env.proposals(terminal)
    assert {(*p.candidate.values, p.fidelity) for p in proposals} == expected
    assert torch.equal(env.states(proposals), terminal)


def test_a_point_off_the_grid_is_refused():
    env = GridEnvironment(2, 3)
    with pytest.raises(ValueError, match="no point of the grid"):
        env.states([Proposal(BoxCandidate((0.5, 1.0)))])


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="two points"):
        GridEnvironment(2, 1)
