"""Trajectories: drawn forward and backward, and their probabilities told again."""

from dataclasses import replace

import pytest
import torch

from activelearning.spaces.box import BoxSpace
from activelearning.spaces.crystal import CrystalSpace
from samplers.gflownet.environments import BoxEnvironment, GridEnvironment, make_environment
from samplers.gflownet.learner import Learner
from samplers.gflownet.settings import LearnerSettings
from samplers.gflownet.trajectories import (
    Trajectories,
    log_backward,
    log_forward,
    sample_backward,
    sample_forward,
    sample_terminal,
)


def environments():
    crystals = CrystalSpace(elements=["Li", "O", "S"], max_atoms=8, space_groups=[1, 14, 62, 166, 225])
    return {
        "grid": GridEnvironment(2, 4, 2),
        "box": BoxEnvironment(BoxSpace([(0.0, 1.0), (-2.0, 2.0)]), 2),
        "box without fidelity": BoxEnvironment(BoxSpace([(0.0, 1.0)] * 3)),
        "crystal": make_environment(crystals, 2),
    }


@pytest.fixture(scope="module", params=["grid", "box", "box without fidelity", "crystal"])
def learner(request):
    """A GFlowNet away from its initialisation."""
    env = environments()[request.param]
    learner = Learner(env, LearnerSettings(hidden=(32, 32), n_components=4, learning_rate=1e-2))
    learner.fit(lambda states: states.sum(dim=1).sin(), steps=5, generator=torch.Generator().manual_seed(0))
    return learner


def recomputed(env, t):
    """The trajectories with everything but states and actions taken from the environment anew."""
    return replace(
        t,
        inputs=env.encode(t.states),
        mask=env.forward_mask(t.states),
        drawn=env.continuous_mask(t.states, t.actions),
        log_jacobian=env.log_jacobian(t.states, t.actions, t.u),
        children=env.step(t.states, t.actions, t.u),
    )


@pytest.mark.parametrize(("exploration", "temperature"), [(0.0, 1.0), (0.3, 1.0), (0.0, 2.0), (1.0, 1.0)])
def test_log_pf_recomputed_equals_the_sampled_one(learner, exploration, temperature):
    env = learner.environment
    t = sample_forward(
        env,
        learner.forward_policy,
        64,
        generator=torch.Generator().manual_seed(1),
        exploration=exploration,
        temperature=temperature,
    )
    assert torch.equal(recomputed(env, t).children, t.children)
    again = log_forward(learner.forward_policy, recomputed(env, t))
    assert torch.allclose(again, t.log_pf, rtol=1e-5, atol=1e-4)
    assert torch.isfinite(t.log_pf).all()


def test_steps_of_a_trajectory_follow_one_another(learner):
    t = learner.sample(16, torch.Generator().manual_seed(2))
    for i in range(t.n):
        rows = (t.index == i).nonzero().squeeze(1)
        assert torch.equal(t.states[rows[0]], learner.environment.initial(1)[0])
        assert torch.equal(t.states[rows[1:]], t.children[rows[:-1]])
        assert torch.equal(t.children[rows[-1]], t.terminal[i])
        assert len(rows) == t.lengths[i]


def test_backward_trajectories_lead_to_their_ends(learner):
    env = learner.environment
    terminal = learner.sample(16, torch.Generator().manual_seed(3)).terminal
    kept = terminal.clone()
    t = sample_backward(env, learner.backward_policy, terminal, generator=torch.Generator().manual_seed(4))
    assert torch.equal(terminal, kept)
    assert torch.equal(t.terminal, terminal)
    assert torch.allclose(recomputed(env, t).children, t.children)
    for i in range(t.n):
        rows = (t.index == i).nonzero().squeeze(1)
        assert torch.equal(t.states[rows[0]], env.initial(1)[0])
        assert torch.equal(t.states[rows[1:]], t.children[rows[:-1]])
        assert torch.equal(t.children[rows[-1]], terminal[i])
    assert torch.isfinite(log_forward(learner.forward_policy, t)).all()


def test_where_paths_are_unique_both_ways_agree(learner):
    env = learner.environment
    t = learner.sample(32, torch.Generator().manual_seed(5))
    if not env.has_unique_paths:
        assert (log_backward(env, learner.backward_policy, t) <= 0).all()
        return
    assert (log_backward(env, None, t) == 0).all()
    told = learner.log_probability(t.terminal)
    assert torch.allclose(told, t.total(t.log_pf), rtol=1e-5, atol=1e-4)


def test_backward_probabilities_of_the_grid_sum_to_one():
    env = GridEnvironment(2, 3)
    learner = Learner(env, LearnerSettings(hidden=(16,), learning_rate=0.05))
    learner.fit(lambda s: s[:, 0] - s[:, 1], steps=10, generator=torch.Generator().manual_seed(0))
    end = torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64).expand(400, 3)
    t = sample_backward(env, learner.backward_policy, end, generator=torch.Generator().manual_seed(0))
    log_pb = t.total(log_backward(env, learner.backward_policy, t)).detach()
    # Two paths lead to (1, 1); their probabilities are all there are.
    distinct = torch.unique(log_pb.exp().round(decimals=6))
    assert len(distinct) == 2
    assert distinct.sum().item() == pytest.approx(1.0, abs=1e-5)


def test_environments_never_change_their_input(learner):
    env = learner.environment
    t = learner.sample(16, torch.Generator().manual_seed(6))
    kept = [x.clone() for x in (t.states, t.actions, t.u, t.children)]
    env.encode(t.states)
    env.is_terminal(t.states)
    env.forward_mask(t.states)
    env.backward_mask(t.children)
    env.continuous_mask(t.states, t.actions)
    env.step(t.states, t.actions, t.u)
    env.step_back(t.children, t.actions)
    env.log_jacobian(t.states, t.actions, t.u)
    env.proposals(t.terminal)
    for before, after in zip(kept, (t.states, t.actions, t.u, t.children), strict=True):
        assert torch.equal(before, after)


def test_batches_join(learner):
    one = learner.sample(5, torch.Generator().manual_seed(7))
    two = learner.sample(3, torch.Generator().manual_seed(8))
    both = Trajectories.cat([one, two])
    assert torch.equal(both.lengths, torch.cat([one.lengths, two.lengths]))
    assert torch.allclose(both.total(both.log_pf), torch.cat([one.total(one.log_pf), two.total(two.log_pf)]))


def test_equal_seeds_give_equal_trajectories(learner):
    draws = [learner.sample(16, torch.Generator().manual_seed(9)) for _ in range(2)]
    assert torch.equal(draws[0].terminal, draws[1].terminal)
    other = learner.sample(16, torch.Generator().manual_seed(10))
    assert not torch.equal(draws[0].terminal, other.terminal)


def test_the_untrained_walk_is_uniform_on_a_box():
    env = BoxEnvironment(BoxSpace([(0.0, 1.0)] * 2), 4)
    terminal = sample_forward(env, None, 4000, generator=torch.Generator().manual_seed(0)).terminal
    assert terminal[:, :2].mean(dim=0).numpy() == pytest.approx([0.5, 0.5], abs=0.02)
    assert terminal[:, :2].var(dim=0).numpy() == pytest.approx([1 / 12, 1 / 12], abs=0.005)
    counts = torch.bincount(terminal[:, 3].long() - 1, minlength=4)
    assert (counts - 1000).abs().max() < 120


def test_exploration_may_differ_between_trajectories():
    env = BoxEnvironment(BoxSpace([(0.0, 1.0)]))
    learner = Learner(env, LearnerSettings(hidden=(16,), learning_rate=0.03, exploration=0.0))
    learner.fit(
        lambda s: -((s[:, 0] - 0.9) ** 2) / 0.002, steps=60, generator=torch.Generator().manual_seed(0)
    )
    exploration = torch.cat([torch.zeros(500), torch.ones(500)])
    x = sample_forward(
        env,
        learner.forward_policy,
        1000,
        generator=torch.Generator().manual_seed(1),
        exploration=exploration,
    ).terminal[:, 0]
    assert x[:500].std() < 0.15
    assert x[500:].std().item() == pytest.approx(12**-0.5, abs=0.03)


def test_terminal_states_are_drawn_in_blocks(monkeypatch):
    env = BoxEnvironment(BoxSpace([(0.0, 1.0)]), 2)
    whole = sample_terminal(env, None, 10, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("samplers.gflownet.trajectories.BLOCK", 4)
    blocks = sample_terminal(env, None, 10, generator=torch.Generator().manual_seed(0))
    assert whole.shape == blocks.shape == (10, env.n_state)
    assert env.is_terminal(blocks).all()
    assert sample_terminal(env, None, 0, generator=torch.Generator()).shape == (0, env.n_state)
