"""Exact distributions of a policy on environments small enough to enumerate, by their masks and steps alone."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Graph:
    """All states of an environment that can be reached.

    Continuous coordinates are followed at u = 0.5 alone, so what comes after them must not depend on them.
    """

    states: Tensor  # S x n_state; the source first
    parents: Tensor  # of each edge, E, long
    actions: Tensor
    children: Tensor
    is_terminal: Tensor  # S, bool

    @property
    def terminal(self):
        return self.states[self.is_terminal]


def enumerate_states(env):
    """Breadth first from the source."""
    source = env.initial(1)
    known = {row_key(source[0]): 0}
    states, parents, actions, children = [source[0]], [], [], []
    frontier = [0]
    while frontier:
        batch = torch.stack([states[i] for i in frontier])
        rows, taken = (env.forward_mask(batch) & ~env.is_terminal(batch)[:, None]).nonzero(as_tuple=True)
        u = torch.full((len(rows), env.n_continuous), 0.5, dtype=torch.float64)
        found = env.step(batch[rows], taken, u)
        fresh = []
        for row, action, child in zip(rows.tolist(), taken.tolist(), found, strict=True):
            key = row_key(child)
            if key not in known:
                known[key] = len(states)
                fresh.append(len(states))
                states.append(child)
            parents.append(frontier[row])
            actions.append(action)
            children.append(known[key])
        frontier = fresh
    all_states = torch.stack(states)
    return Graph(
        all_states,
        torch.tensor(parents),
        torch.tensor(actions),
        torch.tensor(children),
        env.is_terminal(all_states),
    )


def row_key(row):
    return (row + 0.0).numpy().tobytes()


@torch.no_grad()
def terminal_distribution(env, graph, policy, condition=None):
    """Probability of each terminal state, by propagating the policy's flow through the whole graph.

    Args:
        env: The environment.
        graph: Its states.
        policy: The forward policy.
        condition: What the policy sees beside the state, `k`.
    """
    inputs = env.encode(graph.states)
    if condition is not None:
        inputs = torch.cat([inputs, condition.expand(len(inputs), -1)], dim=1)
    mask = env.forward_mask(graph.states)
    mask[graph.is_terminal] = True  # never used
    choice = policy.log_actions(policy(inputs), mask).double().exp()[graph.parents, graph.actions]
    start = torch.zeros(len(graph.states), dtype=torch.float64)
    start[0] = 1.0
    reach = start
    for _ in range(env.max_steps):
        reach = start.index_add(0, graph.children, reach[graph.parents] * choice)
    return reach[graph.is_terminal]


def total_variation(one, other):
    """Of two distributions given as weights, each normalised here."""
    return 0.5 * (one / one.sum() - other / other.sum()).abs().sum().item()
