"""The box environment: coordinates one at a time, then the fidelity."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from activelearning.candidate import BoxCandidate
from activelearning.contracts import Proposal
from activelearning.spaces.box import BoxSpace
from samplers.gflownet.environments import BoxEnvironment, InvertibleEnvironment
from samplers.gflownet.trajectories import sample_forward

bounds = st.lists(
    st.tuples(st.floats(-1e3, 1e3), st.floats(0.1, 1e3)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    min_size=1,
    max_size=5,
)


def walk(env, n=8, seed=0):
    return sample_forward(env, None, n, generator=torch.Generator().manual_seed(seed))


def test_is_an_invertible_environment():
    assert isinstance(BoxEnvironment(BoxSpace([(0.0, 1.0)])), InvertibleEnvironment)


@given(bounds, st.sampled_from([None, 1, 3]), st.integers(0, 1000))
def test_step_back_undoes_step_and_masks_agree(bounds, n_fidelities, seed):
    env = BoxEnvironment(BoxSpace(bounds), n_fidelities)
    t = walk(env, seed=seed)
    rows = torch.arange(len(t.index))
    assert env.forward_mask(t.states)[rows, t.actions].all()
    backward = env.backward_mask(t.children)
    assert backward[rows, t.actions].all()
    assert (backward.sum(dim=1) == 1).all()
    parents, u = env.step_back(t.children, t.actions)
    assert torch.equal(parents, t.states)
    assert torch.equal(u, t.u)
    assert torch.equal(t.lengths, torch.full((8,), env.max_steps))
    assert not env.forward_mask(t.terminal).any()
    assert not env.backward_mask(env.initial(1)).any()


@given(bounds, st.sampled_from([None, 2]), st.integers(0, 1000))
def test_proposals_lie_in_the_box_and_are_read_back(bounds, n_fidelities, seed):
    space = BoxSpace(bounds)
    env = BoxEnvironment(space, n_fidelities)
    terminal = walk(env, seed=seed).terminal
    proposals = env.proposals(terminal)
    for proposal in proposals:
        space.validate(proposal.candidate)
        assert (proposal.fidelity is None) == (n_fidelities is None)
    assert torch.allclose(env.states(proposals), terminal, atol=1e-9)
    unit = terminal[:, : len(bounds)]
    features = space.features([proposal.candidate for proposal in proposals])
    assert torch.allclose(features, unit, atol=1e-9)


def test_a_step_changes_only_what_it_draws():
    env = BoxEnvironment(BoxSpace([(0.0, 1.0)] * 3), 2)
    states = torch.tensor([[0.3, 0.0, 0.0, 1.0, 0.0], [0.3, 0.6, 0.9, 3.0, 0.0]], dtype=torch.float64)
    children = env.step(states, torch.tensor([0, 2]), torch.tensor([[0.7], [0.1]], dtype=torch.float64))
    expected = [[0.3, 0.7, 0.0, 2.0, 0.0], [0.3, 0.6, 0.9, 3.0, 2.0]]
    assert torch.equal(children, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("proposal", "match"),
    [
        (Proposal(BoxCandidate((0.5,)), 0), "no point of a box"),
        (Proposal(BoxCandidate((0.5, 1.5)), 0), "outside the box"),
        (Proposal(BoxCandidate((0.5, 0.5)), None), "fidelity None"),
        (Proposal(BoxCandidate((0.5, 0.5)), 2), "fidelity 2"),
    ],
)
def test_what_is_not_of_the_space_is_refused(proposal, match):
    env = BoxEnvironment(BoxSpace([(0.0, 1.0)] * 2), 2)
    with pytest.raises(ValueError, match=match):
        env.states([proposal])
