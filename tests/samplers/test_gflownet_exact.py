"""What the GFlowNet learns, against exact computation: dynamic programming over the policy where a space can be
enumerated, quadrature where it is continuous.
"""

import math

import pytest
import torch
from enumeration import enumerate_states, terminal_distribution, total_variation

from activelearning.spaces.box import BoxSpace
from samplers.gflownet import GFlowNetSampler
from samplers.gflownet.environments import BoxEnvironment, GridEnvironment
from samplers.gflownet.learner import Learner
from samplers.gflownet.losses import LOSSES
from samplers.gflownet.settings import BetaRange, LearnerSettings


class GridReward:
    """Peaks near the corners of the grid over a plateau (Bengio et al. 2021), and a factor for the fidelity.

    An unfinished state is worth what stopping there would be, at the first fidelity.
    """

    def __init__(self, side):
        self.side = side

    def __call__(self, states):
        return self.partial(states) + states[:, -1].log()

    def partial(self, states):
        x = (states[:, :-1] / (self.side - 1) - 0.5).abs()
        return (0.1 + 0.5 * (x > 0.25).all(dim=1) + 2.0 * ((x > 0.25) & (x < 0.4)).all(dim=1)).log()


@pytest.mark.parametrize("loss", LOSSES)
def test_on_the_grid_the_learned_distribution_is_the_rewards(loss):
    env, reward = GridEnvironment(2, 6, 2), GridReward(6)
    learner = Learner(env, LearnerSettings(hidden=(64, 64), loss=loss, learning_rate=3e-3))
    figures = learner.fit(reward, steps=300, generator=torch.Generator().manual_seed(0))
    graph = enumerate_states(env)
    learned = terminal_distribution(env, graph, learner.forward_policy)
    assert learned.sum().item() == pytest.approx(1.0, abs=1e-6)
    log_reward = reward(graph.terminal)
    assert total_variation(learned, log_reward.exp()) < 0.03
    assert figures["log_z"] == pytest.approx(log_reward.logsumexp(0).item(), abs=0.05)


def test_one_network_learns_the_reward_to_many_powers():
    env, reward = GridEnvironment(2, 6, 2), GridReward(6)
    settings = LearnerSettings(hidden=(64, 64), learning_rate=6e-3, beta=BetaRange(low=1.0, high=4.0))
    learner = Learner(env, settings)
    learner.fit(reward, steps=700, generator=torch.Generator().manual_seed(0))
    graph = enumerate_states(env)
    log_reward = reward(graph.terminal)
    for beta in (1.0, 2.0, 4.0):
        condition = learner.condition(torch.tensor([beta], dtype=torch.float64))[0]
        learned = terminal_distribution(env, graph, learner.forward_policy, condition)
        assert total_variation(learned, (beta * log_reward).exp()) < 0.05
    # Where half of the draws are not yet at the ends of the range, log Z is best in its middle.
    assert learner.log_z(2.0) == pytest.approx((2.0 * log_reward).logsumexp(0).item(), abs=0.05)


def test_the_reward_may_be_sharpened():
    env = GridEnvironment(1, 4)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    learner = Learner(env, LearnerSettings(hidden=(64,), beta=2.0, learning_rate=1e-2))
    learner.fit(
        lambda s: weights[s[:, 0].long()].log(), steps=200, generator=torch.Generator().manual_seed(0)
    )
    graph = enumerate_states(env)
    learned = terminal_distribution(env, graph, learner.forward_policy)
    assert total_variation(learned, weights[graph.terminal[:, 0].long()] ** 2) < 0.05


def test_log_probability_over_many_paths_is_that_of_dynamic_programming():
    env, reward = GridEnvironment(2, 5), GridReward(5)
    learner = Learner(env, LearnerSettings(hidden=(32, 32), learning_rate=3e-3))
    learner.fit(reward, steps=20, generator=torch.Generator().manual_seed(0))  # not converged: paths differ
    graph = enumerate_states(env)
    exact = terminal_distribution(env, graph, learner.forward_policy)
    told = learner.log_probability(graph.terminal, n_paths=400, generator=torch.Generator().manual_seed(1))
    assert total_variation(told.exp(), exact) < 0.01
    assert (told - exact.log()).abs().max() < 0.15
    # A single path gives each probability without bias, if not its logarithm.
    many = graph.terminal.repeat(400, 1)
    single = learner.log_probability(many, n_paths=1, generator=torch.Generator().manual_seed(2))
    assert total_variation(single.exp().reshape(400, -1).mean(dim=0), exact) < 0.02


def grid_of_unit_square(m, d):
    axis = (torch.arange(m, dtype=torch.float64) + 0.5) / m
    return torch.cartesian_prod(*[axis] * d).reshape(-1, d)


def two_peaks(x):
    """Log of two Gaussians of different height on the unit cube, `n x d` to `n`."""
    near = -((x - 0.25) ** 2).sum(dim=1) / (2 * 0.08**2)
    far = math.log(0.5) - ((x - 0.7) ** 2).sum(dim=1) / (2 * 0.15**2)
    return torch.logaddexp(near, far)


class BoxReward:
    """Two peaks; an unfinished point is worth what they are along the coordinates drawn."""

    def __init__(self, d):
        self.d = d

    def __call__(self, states):
        return two_peaks(states[:, : self.d])

    def partial(self, states):
        each = two_peaks(states[:, : self.d].reshape(-1, 1)).reshape(-1, self.d)
        return torch.where(torch.arange(self.d) < states[:, -2:-1], each, 0.0).sum(dim=1)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("d", [1, 2])
def test_on_a_box_the_learned_density_is_the_rewards(d, loss):
    env = BoxEnvironment(BoxSpace([(-5.0, 10.0)] * d))
    learner = Learner(env, LearnerSettings(hidden=(128, 128), loss=loss))
    steps = 200 if d == 1 else 500
    figures = learner.fit(BoxReward(d), steps=steps, generator=torch.Generator().manual_seed(0))
    x = grid_of_unit_square(400 if d == 1 else 60, d)
    cell = 1.0 / len(x)
    states = torch.cat([x, torch.full((len(x), 1), d), torch.zeros(len(x), 1)], dim=1)
    learned = learner.log_probability(states).exp() * cell
    log_z = two_peaks(x).logsumexp(0).item() + math.log(cell)
    assert learned.sum().item() == pytest.approx(1.0, abs=2e-3)  # normalised, as a density must be
    assert total_variation(learned, two_peaks(x).exp()) < 0.03
    assert figures["log_z"] == pytest.approx(log_z, abs=0.05)


def test_on_a_box_with_fidelities_candidates_and_fidelity_are_learned_together():
    space = BoxSpace([(-5.0, 10.0)])
    sampler = GFlowNetSampler(space, 2, steps=300, hidden=(128, 128))
    costs = torch.tensor([0.25, 0.75], dtype=torch.float64).log()

    def log_reward(candidates, fidelities):
        return two_peaks(space.features(candidates)) - costs[torch.tensor(fidelities)]

    figures = sampler.fit(log_reward, seed=0)
    x = grid_of_unit_square(400, 1)
    states = torch.cat([x, torch.ones(len(x), 2)], dim=1)
    pairs = torch.cat([states, states + torch.tensor([0.0, 0.0, 1.0])])
    target = torch.cat([two_peaks(x) - costs[0], two_peaks(x) - costs[1]])
    learned = sampler.learner.log_probability(pairs).exp()
    assert learned.sum().item() / len(x) == pytest.approx(1.0, abs=2e-3)
    assert total_variation(learned, target.exp()) < 0.03
    assert figures["log_z"] == pytest.approx(target.logsumexp(0).item() - math.log(len(x)), abs=0.05)
