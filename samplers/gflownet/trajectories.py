"""Batches of trajectories, drawn forward from the source or backward from terminal states; their probabilities.

A batch is stored flat, one row a step, with the index of its trajectory: lengths differ between trajectories,
and the networks see all steps of all trajectories at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from samplers.gflownet.environments.base import Environment
from samplers.gflownet.mixture import U_MARGIN, draw
from samplers.gflownet.policy import BackwardPolicy, ForwardPolicy

BLOCK = 4096


@dataclass(frozen=True)
class Trajectories:
    """n finished trajectories of N steps together.

    Attributes:
        index: Trajectory of each step, `N`, long; the steps of one trajectory stand in their order.
        states: Where each step starts, `N x n_state`.
        inputs: Those states encoded, `N x n_inputs`.
        mask: Actions allowed there, `N x n_actions`, bool.
        actions: Actions taken, `N`, long.
        u: Continuous coordinates of the actions, `N x c`; of meaning only where drawn.
        drawn: Coordinates that belong to the actions, `N x c`, bool.
        log_jacobian: Of the coordinates, `N`.
        children: Where each step ends, `N x n_state`.
        terminal: Where each trajectory ends, `n x n_state`.
        log_pf: log P_F of each step, `N`, under the policy that drew it (not the exploring mixture), Jacobian
            included; zero in trajectories drawn backward.
    """

    index: Tensor
    states: Tensor
    inputs: Tensor
    mask: Tensor
    actions: Tensor
    u: Tensor
    drawn: Tensor
    log_jacobian: Tensor
    children: Tensor
    terminal: Tensor
    log_pf: Tensor

    @property
    def n(self) -> int:
        """Number of trajectories."""
        return len(self.terminal)

    @property
    def lengths(self) -> Tensor:
        """Steps of each trajectory, `n`, long."""
        return torch.bincount(self.index, minlength=self.n)

    def total(self, per_step: Tensor) -> Tensor:
        """Sums over each trajectory, `n`, of a quantity per step, `N`."""
        return torch.zeros(self.n, dtype=per_step.dtype).index_add(0, self.index, per_step)

    @staticmethod
    def cat(batches: Sequence[Trajectories]) -> Trajectories:
        """One batch of several."""
        if len(batches) == 1:
            return batches[0]
        joined = {
            field.name: torch.cat([getattr(batch, field.name) for batch in batches])
            for field in fields(Trajectories)
        }
        offsets = torch.tensor([0, *(batch.n for batch in batches[:-1])]).cumsum(0)
        joined["index"] = torch.cat(
            [batch.index + offset for batch, offset in zip(batches, offsets, strict=True)]
        )
        return Trajectories(**joined)


@torch.no_grad()
def sample_forward(
    environment: Environment,
    policy: ForwardPolicy | None,
    n: int,
    *,
    generator: torch.Generator,
    exploration: float | Tensor = 0.0,
    temperature: float = 1.0,
) -> Trajectories:
    """Draw n trajectories from the source.

    Args:
        environment: Where to walk.
        policy: The forward policy; None draws uniformly over allowed actions and coordinates.
        n: Number of trajectories.
        generator: All randomness comes from it.
        exploration: Probability with which an action, and independently its coordinates, is drawn
            uniformly; one number, or one for each trajectory, `n`.
        temperature: Divides the log-probabilities of actions; above 1 flattens them.
    """
    epsilon = torch.as_tensor(exploration, dtype=torch.float64).expand(n)[:, None]
    walking = torch.arange(n)
    states = environment.initial(n)
    terminal = states.clone()
    steps: list[tuple[Tensor, ...]] = []
    for _ in range(environment.max_steps):
        if len(walking) == 0:
            break
        inputs, mask = environment.encode(states), environment.forward_mask(states)
        probabilities = mask / mask.sum(dim=1, keepdim=True, dtype=torch.float64)
        features, log_actions = None, probabilities.log()
        if policy is not None:
            features = policy(inputs)
            log_actions = policy.log_actions(features, mask)
            tempered = log_actions if temperature == 1.0 else (log_actions / temperature).log_softmax(dim=1)
            probabilities = torch.lerp(tempered.exp(), probabilities, epsilon[walking])
        actions = draw(probabilities, generator)
        drawn = environment.continuous_mask(states, actions)
        log_pf = log_actions.gather(1, actions[:, None]).squeeze(1)
        u = torch.full(drawn.shape, 0.5, dtype=torch.float64)
        rows = drawn.any(dim=1).nonzero().squeeze(1)
        if len(rows):
            values = torch.rand(len(rows), drawn.shape[1], dtype=torch.float64, generator=generator)
            values = values.clamp(U_MARGIN, 1.0 - U_MARGIN)
            if policy is not None and features is not None:
                mixture = policy.mixture(features[rows])
                is_uniform = torch.rand(len(rows), 1, generator=generator) < epsilon[walking[rows]]
                values = torch.where(is_uniform, values, mixture.sample(generator))
                log_pf[rows] += mixture.log_prob(values, drawn[rows])
            u[rows] = torch.where(drawn[rows], values, 0.5)
        children = environment.step(states, actions, u)
        steps.append((walking, states, inputs, mask, actions, u, drawn, children, log_pf))
        is_done = environment.is_terminal(children)
        terminal[walking[is_done]] = children[is_done]
        walking, states = walking[~is_done], children[~is_done]
    if len(walking):
        raise RuntimeError(
            f"{len(walking)} of {n} trajectories did not end within {environment.max_steps} steps"
        )
    index, states, inputs, mask, actions, u, drawn, children, log_pf = (
        torch.cat(column) for column in zip(*steps, strict=True)
    )
    log_jacobian = environment.log_jacobian(states, actions, u)
    return Trajectories(
        index=index,
        states=states,
        inputs=inputs,
        mask=mask,
        actions=actions,
        u=u,
        drawn=drawn,
        log_jacobian=log_jacobian,
        children=children,
        terminal=terminal,
        log_pf=log_pf + log_jacobian,
    )


def sample_terminal(
    environment: Environment, policy: ForwardPolicy | None, n: int, *, generator: torch.Generator
) -> Tensor:
    """Terminal states alone, `n x n_state`, of trajectories drawn from the source without exploration.

    They are drawn in blocks, so that memory grows with the states and not with every step's inputs and masks.
    """
    sizes = [min(BLOCK, n - start) for start in range(0, n, BLOCK)]
    blocks = [sample_forward(environment, policy, size, generator=generator).terminal for size in sizes]
    return torch.cat(blocks) if blocks else environment.initial(0)


@torch.no_grad()
def sample_backward(
    environment: Environment, policy: BackwardPolicy | None, terminal: Tensor, *, generator: torch.Generator
) -> Trajectories:
    """Draw a trajectory that ends in each terminal state, `n x n_state`.

    Args:
        environment: Where to walk.
        policy: The backward policy; None draws uniformly over possible last actions, of which there is but
            one where paths are unique.
        terminal: Where the trajectories end.
        generator: All randomness comes from it.
    """
    walking = torch.arange(len(terminal))
    states = terminal
    steps: list[tuple[Tensor, ...]] = []
    for _ in range(environment.max_steps):
        if len(walking) == 0:
            break
        mask = environment.backward_mask(states)
        if environment.has_unique_paths:
            actions = mask.long().argmax(dim=1)
        else:
            probabilities = (
                mask.double() if policy is None else policy(environment.encode(states), mask).exp()
            )
            actions = draw(probabilities, generator)
        parents, u = environment.step_back(states, actions)
        steps.append((walking, parents, actions, u, states))
        is_walking = environment.backward_mask(parents).any(dim=1)
        walking, states = walking[is_walking], parents[is_walking]
    if len(walking):
        raise RuntimeError(f"{len(walking)} trajectories did not reach the source going back")
    index, states, actions, u, children = (torch.cat(column[::-1]) for column in zip(*steps, strict=True))
    return Trajectories(
        index=index,
        states=states,
        inputs=environment.encode(states),
        mask=environment.forward_mask(states),
        actions=actions,
        u=u,
        drawn=environment.continuous_mask(states, actions),
        log_jacobian=environment.log_jacobian(states, actions, u),
        children=children,
        terminal=terminal,
        log_pf=torch.zeros(len(index), dtype=torch.float64),
    )


def log_forward(policy: ForwardPolicy, trajectories: Trajectories) -> Tensor:
    """log P_F of each step, `N`, float64, Jacobians included."""
    t = trajectories
    return policy.log_prob(t.inputs, t.mask, t.actions, t.u, t.drawn) + t.log_jacobian


def log_backward(
    environment: Environment, policy: BackwardPolicy | None, trajectories: Trajectories
) -> Tensor:
    """log P_B of each step, `N`, float64: zero where paths are unique; without a policy uniform over parents."""
    t = trajectories
    if environment.has_unique_paths:
        return torch.zeros(len(t.index), dtype=torch.float64)
    mask = environment.backward_mask(t.children)
    if policy is None:
        return -mask.sum(dim=1, dtype=torch.float64).log()
    return policy(environment.encode(t.children), mask).gather(1, t.actions[:, None]).squeeze(1)
