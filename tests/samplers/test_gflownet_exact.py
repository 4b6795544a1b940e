"""What the GFlowNet learns, against exact computation: dynamic programming on the grid, quadrature on the
box.
"""

import itertools
import math

import pytest
import torch

from activelearning.spaces.box import BoxSpace
from samplers.gflownet import GFlowNetSampler
from samplers.gflownet.environments import GridEnvironment
from samplers.gflownet.learner import Learner, LearnerSettings


def reward_on_grid(env, states):
    """Peaks near the corners of the grid over a plateau (Bengio et al. 2021), and a factor for the fidelity."""
    x = (states[:, :-1] / (env.side - 1) - 0.5).abs()
    reward = 0.1 + 0.5 * (x > 0.25).all(dim=1) + 2.0 * ((x > 0.25) & (x < 0.4)).all(dim=1)
    return (reward * states[:, -1]).log()


@torch.no_grad()
def terminal_distribution(env, policy):
    """Probability of each (point, stop), by propagating the policy's flow through the whole graph."""
    points = sorted(itertools.product(range(env.side), repeat=env.n_dimensions), key=sum)
    states = torch.tensor([[*point, 0] for point in points], dtype=torch.float64)
    allowed = env.forward_mask(states)
    actions = policy.log_actions(policy(env.encode(states)), allowed).exp()
    reach = dict.fromkeys(points, 0.0)
    reach[points[0]] = 1.0
    ends = []
    for point, row, mask in zip(points, actions.tolist(), allowed.tolist(), strict=True):
        for i in range(env.n_dimensions):
            if mask[i]:
                child = (*point[:i], point[i] + 1, *point[i + 1 :])
                reach[child] += reach[point] * row[i]
            else:
                assert row[i] == 0.0
        for m, share in enumerate(row[env.n_dimensions :]):
            ends.append(([*point, 1 + m], reach[point] * share))
    return torch.tensor([end for end, _ in ends], dtype=torch.float64), torch.tensor([p for _, p in ends])


@pytest.mark.parametrize("loss", ["trajectory_balance", "log_partition_variance"])
def test_on_the_grid_the_learned_distribution_is_the_rewards(loss):
    env = GridEnvironment(2, 6, 2)
    settings = LearnerSettings(hidden=(64, 64), loss=loss, learning_rate=3e-3)
    learner = Learner(env, settings)
    figures = learner.fit(
        lambda states: reward_on_grid(env, states), steps=300, generator=torch.Generator().manual_seed(0)
    )
    states, learned = terminal_distribution(env, learner.forward_policy)
    log_reward = reward_on_grid(env, states)
    log_z = log_reward.logsumexp(0).item()
    assert learned.sum().item() == pytest.approx(1.0, abs=1e-6)
    total_variation = 0.5 * (learned - (log_reward - log_z).exp()).abs().sum().item()
    assert total_variation < 0.03
    assert figures["log_z"] == pytest.approx(log_z, abs=0.05)


def grid_of_unit_square(m, d):
    axis = (torch.arange(m, dtype=torch.float64) + 0.5) / m
    return torch.cartesian_prod(*[axis] * d).reshape(-1, d)


def two_peaks(x):
    """Log of two Gaussians of different height on the unit cube, `n x d` to `n`."""
    near = -((x - 0.25) ** 2).sum(dim=1) / (2 * 0.08**2)
    far = math.log(0.5) - ((x - 0.7) ** 2).sum(dim=1) / (2 * 0.15**2)
    return torch.logaddexp(near, far)


@pytest.mark.parametrize("d", [1, 2])
def test_on_a_box_the_learned_density_is_the_rewards(d):
    space = BoxSpace([(-5.0, 10.0)] * d)
    sampler = GFlowNetSampler(space, 2, steps=300, hidden=(128, 128))
    costs = torch.tensor([0.25, 0.75], dtype=torch.float64).log()

    def log_reward(candidates, fidelities):
        return two_peaks(space.features(candidates)) - costs[torch.tensor(fidelities)]

    figures = sampler.fit(log_reward, seed=0)
    x = grid_of_unit_square(400 if d == 1 else 60, d)
    cell = 1.0 / len(x)
    states = torch.cat([x, torch.full((len(x), 1), d), torch.ones(len(x), 1)], dim=1)
    pairs = torch.cat([states, states + torch.eye(d + 2, dtype=torch.float64)[-1]])
    target = torch.cat([two_peaks(x) - costs[0], two_peaks(x) - costs[1]])
    log_z = target.logsumexp(0).item() + math.log(cell)
    learned = sampler.learner.log_probability(pairs)
    assert learned.exp().sum().item() * cell == pytest.approx(
        1.0, abs=0.02
    )  # normalised, as a density must be
    total_variation = 0.5 * (learned.exp() - (target - log_z).exp()).abs().sum().item() * cell
    assert total_variation < 0.05
    assert figures["log_z"] == pytest.approx(log_z, abs=0.05)


def test_the_reward_may_be_sharpened():
    env = GridEnvironment(1, 4)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    learner = Learner(env, LearnerSettings(hidden=(64,), beta=2.0, learning_rate=1e-2))
    learner.fit(
        lambda s: weights[s[:, 0].long()].log(), steps=200, generator=torch.Generator().manual_seed(0)
    )
    states, learned = terminal_distribution(env, learner.forward_policy)
    target = weights[states[:, 0].long()] ** 2
    assert 0.5 * (learned - target / target.sum()).abs().sum() < 0.05
