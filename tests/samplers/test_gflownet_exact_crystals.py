"""What the GFlowNet learns of crystals, against exact computation: all compositions and groups of a small space by
dynamic programming, cells with one and two free parameters by quadrature, Jacobians included.
"""

import math

import numpy as np
import pytest
import torch
from enumeration import enumerate_states, row_key, terminal_distribution, total_variation

from activelearning.candidate import CrystalCandidate
from activelearning.contracts import Proposal
from activelearning.spaces.crystal import CrystalSpace
from samplers.gflownet import GFlowNetSampler
from samplers.gflownet.environments import make_environment
from samplers.gflownet.learner import Learner
from samplers.gflownet.losses import LOSSES
from samplers.gflownet.settings import LearnerSettings


class Table:
    """A reward of compositions and groups that favours lithium and groups of low number, looked up by state."""

    def __init__(self, env, graph):
        crystals = [proposal.candidate for proposal in env.proposals(graph.terminal)]
        values = [4.0 * c.composition.get("Li", 0) / c.n_atoms - c.space_group / 100 for c in crystals]
        self.log_reward = torch.tensor(values, dtype=torch.float64)
        self._of = {row_key(row): value for row, value in zip(graph.terminal, values, strict=True)}

    def __call__(self, states):
        return torch.tensor([self._of[row_key(row)] for row in states], dtype=torch.float64)

    def partial(self, states):
        """Anything will do that depends on the state alone; the flows make up for it."""
        return 0.1 * states[:, 1:].sum(dim=1)


def check(order, settings, steps):
    space = CrystalSpace(["Li", "O"], max_atoms=12, space_groups=[2, 166, 221, 225], order=order)
    env = make_environment(space, None)
    graph = enumerate_states(env)
    reward = Table(env, graph)
    assert len({proposal.candidate.key for proposal in env.proposals(graph.terminal)}) == len(graph.terminal)
    learner = Learner(env, settings)
    figures = learner.fit(reward, steps=steps, generator=torch.Generator().manual_seed(0))
    learned = terminal_distribution(env, graph, learner.forward_policy)
    assert learned.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert total_variation(learned, reward.log_reward.exp()) < 0.03
    assert figures["log_z"] == pytest.approx(reward.log_reward.logsumexp(0).item(), abs=0.05)


@pytest.mark.parametrize(
    ("order", "loss"),
    [
        (["space_group", "composition"], "trajectory_balance"),
        (["composition", "space_group"], "log_partition_variance"),
    ],
)
def test_compositions_and_groups_are_learned_in_either_order(order, loss):
    check(order, LearnerSettings(hidden=(64, 64), loss=loss, learning_rate=1e-2), steps=300)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("order", [["space_group", "composition"], ["composition", "space_group"]])
def test_compositions_and_groups_are_learned_by_every_loss(order, loss):
    settings = LearnerSettings(hidden=(256, 256), loss=loss, learning_rate=3e-3, batch_size=128)
    # Detailed balance hands what the ends are worth back one step at a time.
    check(order, settings, steps=4000 if loss == "detailed_balance" else 1500)


LENGTHS = (2.0, 20.0)  # Å


@pytest.mark.parametrize(("group", "n_free", "steps"), [(225, 1, 150), (123, 2, 400)])
def test_densities_of_cells_are_the_rewards(group, n_free, steps):
    composition = {"Li": 8, "O": 4}
    space = CrystalSpace(
        ["Li", "O"], counts={"Li": (8, 8), "O": (4, 4)}, space_groups=[group], lengths=LENGTHS
    )
    sampler = GFlowNetSampler(space, None, steps=steps, hidden=(64, 64), n_components=32)

    def log_reward(candidates, fidelities):
        cells = torch.tensor([c.lattice for c in candidates], dtype=torch.float64)
        return -((cells[:, 0] - 5.0) ** 2) / 2.0 - (cells[:, 2] - 7.0) ** 2 / 8.0

    figures = sampler.fit(log_reward, seed=0)
    # A grid over the free lengths, scaled by their range: the measure that densities are told against.
    n_li, n_o = (composition[symbol] for symbol in space.elements)
    low, high = np.exp(space.log_volumes(space.systems[[0]], np.array([[n_li, n_o]])))[0]
    width = LENGTHS[1] - LENGTHS[0]
    if n_free == 1:
        edges = np.linspace(low ** (1 / 3), high ** (1 / 3), 1001)
        a = c = (edges[1:] + edges[:-1]) / 2
        cell = (edges[1] - edges[0]) / width
    else:
        axis = LENGTHS[0] + width * (np.arange(200) + 0.5) / 200
        a, c = (lengths.ravel() for lengths in np.meshgrid(axis, axis, indexing="ij"))
        inside = (a * a * c > low) & (a * a * c < high)
        a, c, cell = a[inside], c[inside], 1.0 / 200**2
    crystals = [
        CrystalCandidate(group, composition, (x, x, z, 90.0, 90.0, 90.0))
        for x, z in zip(a.tolist(), c.tolist(), strict=True)
    ]
    learned = sampler.log_probability([Proposal(crystal) for crystal in crystals]).exp()
    target = log_reward(crystals, None)
    assert learned.sum().item() * cell == pytest.approx(1.0, abs=2e-3)
    assert total_variation(learned, target.exp()) < 0.03
    assert figures["log_z"] == pytest.approx(target.logsumexp(0).item() + math.log(cell), abs=0.05)
