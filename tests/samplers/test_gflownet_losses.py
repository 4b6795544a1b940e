"""Objectives against plain loops, their zero at exact policies, and their gradients by finite differences."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from activelearning.spaces.box import BoxSpace
from samplers.gflownet.environments import BoxEnvironment, GridEnvironment
from samplers.gflownet.learner import Learner
from samplers.gflownet.losses import LOSSES, Balance, make_objective, positions
from samplers.gflownet.settings import LearnerSettings

LENGTHS = (3, 1, 4, 2)


def batch(seed=0, *, requires_grad=False):
    """Four trajectories of random numbers, their steps interleaved as `sample_forward` leaves them."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.tensor([i for k in range(max(LENGTHS)) for i, n in enumerate(LENGTHS) if n > k])
    n_steps, n = len(index), len(LENGTHS)

    def numbers(size):
        return torch.randn(size, dtype=torch.float64, generator=generator).requires_grad_(requires_grad)

    return index, numbers(n_steps), numbers(n_steps), numbers(n), numbers(1), numbers(n_steps)


def balance(index, log_pf, log_pb, log_reward, log_z, flows):
    log_z = log_z.expand(len(log_reward))
    is_source = positions(index, len(log_reward))[0] == 0
    return Balance(log_pf, log_pb, index, log_reward, log_z, torch.where(is_source, log_z[index], flows))


def by_hand(b, i):
    """log F along trajectory i, its end included, and log P_F - log P_B of its steps."""
    rows = [row for row, owner in enumerate(b.index.tolist()) if owner == i]
    flows = [b.log_flow[row].item() for row in rows] + [b.log_reward[i].item()]
    return flows, [(b.log_pf[row] - b.log_pb[row]).item() for row in rows]


def expected_sub_trajectory_balance(b, decay):
    losses = []
    for i in range(len(b.log_reward)):
        flows, steps = by_hand(b, i)
        total = weight = 0.0
        for j, k in itertools.combinations(range(len(flows)), 2):
            w = decay ** (k - j - 1)
            total += w * (flows[j] + sum(steps[j:k]) - flows[k]) ** 2
            weight += w
        losses.append(total / weight)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 1.0, 2.0])
@pytest.mark.parametrize("name", ["sub_trajectory_balance", "forward_looking"])
def test_sub_trajectories_are_all_weighed(name, decay):
    b = balance(*batch())
    loss = make_objective(name, decay=decay).loss(b).item()
    assert loss == pytest.approx(expected_sub_trajectory_balance(b, decay))


def test_detailed_balance_is_a_sum_over_transitions():
    b = balance(*batch())
    residuals = []
    for i in range(len(b.log_reward)):
        flows, steps = by_hand(b, i)
        residuals += [flows[k] + steps[k] - flows[k + 1] for k in range(len(steps))]
    assert len(residuals) == sum(LENGTHS)
    expected = sum(r**2 for r in residuals) / len(residuals)
    assert make_objective("detailed_balance", decay=0.9).loss(b).item() == pytest.approx(expected)


def test_whole_trajectories():
    b = balance(*batch())
    ratios = []
    for i in range(len(b.log_reward)):
        flows, steps = by_hand(b, i)
        ratios.append(sum(steps) - flows[-1])
    mean = sum(ratios) / len(ratios)
    log_z = b.log_z[0].item()
    trajectory = sum((log_z + r) ** 2 for r in ratios) / len(ratios)
    variance = sum((r - mean) ** 2 for r in ratios) / len(ratios)
    assert make_objective("trajectory_balance", decay=0.9).loss(b).item() == pytest.approx(trajectory)
    assert make_objective("log_partition_variance", decay=0.9).loss(b).item() == pytest.approx(variance)


def test_the_variance_moves_log_z_towards_what_the_batch_implies_and_nothing_else():
    parts = batch(requires_grad=True)
    b = balance(*parts)
    make_objective("log_partition_variance", decay=0.9).loss(b).backward()
    implied = -b.log_ratio.mean().item()
    log_z = parts[4]
    assert math.copysign(1.0, log_z.grad.item()) == math.copysign(1.0, log_z.item() - implied)
    # The policies' gradient is that of the variance alone.
    log_pf = parts[1]
    alone = torch.autograd.grad(balance(*parts).log_ratio.var(correction=0), log_pf)[0]
    assert torch.allclose(log_pf.grad, alone)


@pytest.mark.parametrize("name", LOSSES)
def test_exact_policies_and_flows_have_no_loss(name):
    index, log_pf, log_pb, log_reward, log_z, flows = batch()
    position, lengths = positions(index, len(log_reward))
    b = balance(index, log_pf, log_pb, log_reward, log_z, flows)
    # Choose log P_F so that every transition balances.
    after = torch.empty_like(flows)
    for row in range(len(index)):
        i, k = index[row], position[row]
        is_last = k == lengths[i] - 1
        after[row] = log_reward[i] if is_last else b.log_flow[(index == i) & (position == k + 1)]
    exact = balance(index, after - b.log_flow + log_pb, log_pb, log_reward, log_z, flows)
    assert make_objective(name, decay=0.9).loss(exact).item() == pytest.approx(0.0, abs=1e-20)
    assert make_objective(name, decay=0.9).loss(b).item() > 0.1


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "log_partition_variance"])
def test_gradients(name):
    index, *inputs = batch(requires_grad=True)
    objective = make_objective(name, decay=0.7)
    assert torch.autograd.gradcheck(lambda *x: objective.loss(balance(index, *x)), inputs)


def test_gradients_of_the_variance():
    # Its value says nothing of log Z, whose gradient is of a term of value zero: the policies' alone are compared.
    index, log_pf, log_pb, log_reward, log_z, flows = batch(requires_grad=True)
    objective = make_objective("log_partition_variance", decay=0.7)
    fixed = (log_reward.detach(), log_z.detach(), flows.detach())
    assert torch.autograd.gradcheck(lambda *x: objective.loss(balance(index, *x, *fixed)), [log_pf, log_pb])


def test_positions_count_steps_of_each_trajectory():
    index = torch.tensor([0, 1, 2, 0, 2, 2, 3])
    position, lengths = positions(index, 4)
    assert position.tolist() == [0, 0, 0, 1, 1, 2, 0]
    assert lengths.tolist() == [2, 1, 3, 1]


class Ramp:
    """A reward that grows along every coordinate, told of unfinished states too."""

    def __init__(self, env):
        self.width = env.n_dimensions

    def __call__(self, states):
        return states[:, : self.width].sum(dim=1)

    partial = __call__


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "log_partition_variance"])
@pytest.mark.parametrize("kind", ["grid", "box"])
def test_gradients_reach_every_parameter(name, kind):
    env = GridEnvironment(2, 3) if kind == "grid" else BoxEnvironment(BoxSpace([(0.0, 1.0)] * 2), 2)
    settings = LearnerSettings(hidden=(5,), n_components=2, loss=name, batch_size=8, learning_rate=0.02)
    learner = Learner(env, settings)
    learner.fit(Ramp(env), steps=3, generator=torch.Generator().manual_seed(0))  # away from the zeroed heads
    for network in (learner.forward_policy, learner.backward_policy, learner.flow):
        if network is not None:
            network.double()
    t = learner.sample(6, torch.Generator().manual_seed(1))
    t = replace(t, inputs=t.inputs.double())
    log_reward, beta = Ramp(env)(t.terminal), torch.ones(t.n, dtype=torch.float64)
    log_partial = Ramp(env).partial(t.states) if name == "forward_looking" else None

    def loss(*_):
        return learner.loss(t, log_reward, beta, log_partial=log_partial)

    parameters = [p for group in learner.optimizer.param_groups for p in group["params"]]
    loss().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in parameters)
    # The check nudges the parameters in place.
    assert torch.autograd.gradcheck(loss, parameters)
