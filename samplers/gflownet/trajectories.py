"""Batches of trajectories, drawn forward from the source or backward from terminal states; their probabilities.

A batch is stored flat, one row a step, with the index of its trajectory: lengths differ between trajectories,
and the networks see all steps of all trajectories at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, TypeGuard

import numpy as np
import torch
from torch import Tensor

from activelearning.errors import SamplerError
from samplers.gflownet.environments.base import BoundedEnvironment, Environment
from samplers.gflownet.intervals import Bounds, log_uniform_within, uniform_within
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
        condition: What the policies see beside the state, `n x k`; k is 0 without any.
        log_pf: log P_F of each step, `N`, under the policy that drew it (not the exploring mixture), Jacobian
            included; zero where it was not asked for and in trajectories drawn backward.
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
    condition: Tensor
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


class _Step(NamedTuple):
    """One step of all trajectories that still walk; `m` of them."""

    walking: Tensor  # their indices, m
    states: Tensor
    inputs: Tensor
    mask: Tensor
    actions: Tensor
    u: Tensor
    drawn: Tensor
    children: Tensor
    done: Tensor  # which of the m are at their ends now, long
    log_pf: Tensor  # without the Jacobian, m; zeros where it is not asked for


def _bounds(environment: Environment, states: Tensor, actions: Tensor) -> Bounds | None:
    """Where the coordinates of actions may lie, in an environment that restricts them."""
    if not is_bounded(environment):
        return None
    return lambda j, u: environment.bounds(states, actions, j, u)


def _walk(
    environment: Environment,
    policy: ForwardPolicy | None,
    n: int,
    *,
    generator: torch.Generator,
    exploration: float | Tensor,
    temperature: float,
    condition: Tensor | None,
    is_told: bool,
) -> Iterator[_Step]:
    """Steps of n trajectories from the source to their ends; `is_told` asks for their log P_F."""
    explores = isinstance(exploration, Tensor) or exploration > 0.0
    epsilon = torch.as_tensor(exploration, dtype=torch.float64).expand(n)[:, None] if explores else None
    # What steps share that have nothing to tell or to draw.
    untold = torch.zeros(n, dtype=torch.float64)
    middle = torch.full((n, environment.n_continuous), 0.5, dtype=torch.float64)
    walking = torch.arange(n)
    states = environment.initial(n)
    for _ in range(environment.max_steps):
        if walking.numel() == 0:
            return
        here = None if condition is None else condition[walking]
        inputs, mask = encode(environment, states, here), environment.forward_mask(states)
        if policy is None:
            features = None
            told = probabilities = _uniform(mask, torch.float64)
        else:
            features = policy(inputs)
            told = probabilities = policy.probabilities(features, mask)
            if temperature != 1.0:
                probabilities = (told.log() / temperature).softmax(dim=1)
            if epsilon is not None:
                share = epsilon[walking].to(told.dtype)
                probabilities = torch.lerp(probabilities, _uniform(mask, told.dtype), share)
        actions = draw(probabilities, generator)
        drawn = environment.continuous_mask(states, actions)
        log_pf = untold
        if is_told:
            log_pf = told.gather(1, actions[:, None]).squeeze(1).log().double()
        u = middle
        rows = torch.from_numpy(np.logical_or.reduce(drawn.numpy(), axis=1).nonzero()[0])
        if rows.numel():
            u = u.clone()
            u[rows], log_density = _coordinates(
                policy,
                None if features is None else features[rows.to(features.device)],
                drawn[rows],
                _bounds(environment, states[rows], actions[rows]),
                generator=generator,
                epsilon=None if epsilon is None else epsilon[walking[rows]],
                is_told=is_told,
            )
            if log_density is not None:
                log_pf = log_pf.index_add(0, rows, log_density)
        children = environment.step(states, actions, u)
        is_done = environment.is_terminal(children)
        done = is_done.nonzero().squeeze(1)
        yield _Step(walking, states, inputs, mask, actions, u, drawn, children, done, log_pf)
        states = children
        if done.numel():
            going = is_done.logical_not().nonzero().squeeze(1)
            walking, states = walking[going], states[going]
            untold, middle = untold[: going.numel()], middle[: going.numel()]
    if len(walking):
        raise SamplerError(
            f"{len(walking)} of {n} trajectories did not end within the {environment.max_steps} steps that "
            f"{type(environment).__name__}.max_steps allows; the environment's masks or its bound are wrong."
        )


def _arrive(terminal: Tensor, step: _Step) -> None:
    """Write where trajectories end in this step, if any, to their rows of `n x n_state`."""
    if step.done.numel():
        terminal.index_copy_(0, step.walking[step.done], step.children[step.done])


def _coordinates(
    policy: ForwardPolicy | None,
    features: Tensor | None,
    drawn: Tensor,
    bounds: Bounds | None,
    *,
    generator: torch.Generator,
    epsilon: Tensor | None,
    is_told: bool,
) -> tuple[Tensor, Tensor | None]:
    """Coordinates, `m x c`, 0.5 where not drawn, and where told their log density under the policy, `m`."""

    def uniform() -> Tensor:
        if bounds is not None:
            return uniform_within(bounds, drawn, generator)
        values = torch.rand(drawn.shape, dtype=torch.float64, generator=generator)
        return values.clamp(U_MARGIN, 1.0 - U_MARGIN)

    if policy is None or features is None:
        values = uniform()
        log_density = log_uniform_within(values, bounds, drawn) if bounds and is_told else None
        return torch.where(drawn, values, 0.5), log_density
    mixture = policy.mixture(features)
    values = mixture.sample(generator) if bounds is None else mixture.sample_within(bounds, drawn, generator)
    if epsilon is not None:
        is_uniform = torch.rand(len(drawn), 1, generator=generator) < epsilon
        values = torch.where(is_uniform, uniform(), values)
    log_density = None
    if is_told:
        log_density = (
            mixture.log_prob(values, drawn)
            if bounds is None
            else mixture.log_prob_within(values, bounds, drawn)
        )
    return torch.where(drawn, values, 0.5), log_density


@torch.no_grad()
def sample_forward(
    environment: Environment,
    policy: ForwardPolicy | None,
    n: int,
    *,
    generator: torch.Generator,
    exploration: float | Tensor = 0.0,
    temperature: float = 1.0,
    condition: Tensor | None = None,
    is_told: bool = True,
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
        condition: What the policy sees beside the state, `n x k`, float32; None where it sees no more.
        is_told: Whether to tell the log P_F of the steps; without it they are zero.
    """
    terminal = environment.initial(n)
    steps: list[_Step] = []
    walk = _walk(
        environment,
        policy,
        n,
        generator=generator,
        exploration=exploration,
        temperature=temperature,
        condition=condition,
        is_told=is_told,
    )
    for step in walk:
        steps.append(step)
        _arrive(terminal, step)
    index, states, inputs, mask, actions, u, drawn, children, _, log_pf = (
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
        condition=_condition(condition, n),
        log_pf=log_pf + log_jacobian if is_told else log_pf,
    )


def sample_terminal(
    environment: Environment,
    policy: ForwardPolicy | None,
    n: int,
    *,
    generator: torch.Generator,
    condition: Tensor | None = None,
) -> Tensor:
    """Terminal states alone, `n x n_state`, of trajectories drawn from the source without exploration.

    They are drawn in blocks, and steps are forgotten once taken, so that memory grows with the states and
    not with every step's inputs and masks.
    """
    terminal = environment.initial(n)
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        walk = _walk(
            environment,
            policy,
            size,
            generator=generator,
            exploration=0.0,
            temperature=1.0,
            condition=None if condition is None else condition[start : start + size],
            is_told=False,
        )
        # Faster than without gradients alone. The states that are handed out are made outside it: they may be used
        # for anything.
        with torch.inference_mode():
            for step in walk:
                _arrive(terminal[start : start + size], step)
    return terminal


@torch.no_grad()
def is_reached(environment: Environment, states: Tensor) -> Tensor:
    """`n`, bool: whether trajectories lead to terminal states, `n x n_state`, under the forward masks.

    Masks may be narrower than what a space holds, where an environment leaves out what hardly ever works.
    """
    t = sample_backward(environment, None, states, generator=torch.Generator().manual_seed(0))
    forbidden = ~t.mask.gather(1, t.actions[:, None]).squeeze(1)
    return t.total(forbidden.double()) == 0.0


@torch.no_grad()
def sample_backward(
    environment: Environment,
    policy: BackwardPolicy | None,
    terminal: Tensor,
    *,
    generator: torch.Generator,
    condition: Tensor | None = None,
) -> Trajectories:
    """Draw a trajectory that ends in each terminal state, `n x n_state`.

    Args:
        environment: Where to walk.
        policy: The backward policy; None draws uniformly over possible last actions, of which there is but
            one where paths are unique.
        terminal: Where the trajectories end.
        generator: All randomness comes from it.
        condition: What the policies see beside the state, `n x k`, float32.
    """
    walking = torch.arange(len(terminal))
    states = terminal
    steps: list[tuple[Tensor, ...]] = []
    mask = environment.backward_mask(states)
    for _ in range(environment.max_steps):
        if len(walking) == 0:
            break
        if environment.has_unique_paths:
            actions = mask.long().argmax(dim=1)
        elif policy is None:
            actions = draw(mask.double(), generator)
        else:
            here = None if condition is None else condition[walking]
            actions = draw(policy(encode(environment, states, here), mask).exp(), generator)
        parents, u = environment.step_back(states, actions)
        steps.append((walking, parents, actions, u, states))
        mask = environment.backward_mask(parents)
        going = mask.any(dim=1).nonzero().squeeze(1)
        walking, states, mask = walking[going], parents[going], mask[going]
    if len(walking):
        raise SamplerError(
            f"{len(walking)} trajectories did not reach the source going back within "
            f"{type(environment).__name__}.max_steps; its backward masks or step_back are wrong."
        )
    index, states, actions, u, children = (torch.cat(column[::-1]) for column in zip(*steps, strict=True))
    return Trajectories(
        index=index,
        states=states,
        inputs=encode(environment, states, None if condition is None else condition[index]),
        mask=environment.forward_mask(states),
        actions=actions,
        u=u,
        drawn=environment.continuous_mask(states, actions),
        log_jacobian=environment.log_jacobian(states, actions, u),
        children=children,
        terminal=terminal,
        condition=_condition(condition, len(terminal)),
        log_pf=torch.zeros(len(index), dtype=torch.float64),
    )


def log_forward(
    policy: ForwardPolicy, trajectories: Trajectories, environment: Environment | None = None
) -> Tensor:
    """log P_F of each step, `N`, float64, Jacobians included.

    In an environment with bounds they are those of restricted draws, and have no gradient.
    """
    t = trajectories
    if environment is None or not is_bounded(environment):
        return policy.log_prob(t.inputs, t.mask, t.actions, t.u, t.drawn) + t.log_jacobian
    with torch.no_grad():
        nothing = torch.zeros_like(t.drawn)
        log_pf = policy.log_prob(t.inputs, t.mask, t.actions, t.u, nothing) + t.log_jacobian
        rows = t.drawn.any(dim=1).nonzero().squeeze(1)
        if len(rows):
            bounds = _bounds(environment, t.states[rows], t.actions[rows])
            assert bounds is not None
            mixture = policy.mixture(policy(t.inputs[rows]))
            log_pf[rows] += mixture.log_prob_within(t.u[rows], bounds, t.drawn[rows])
        return log_pf


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
    inputs = encode(environment, t.children, t.condition[t.index])
    return policy.log_prob(inputs, mask, t.actions)


def encode(environment: Environment, states: Tensor, condition: Tensor | None) -> Tensor:
    """The policies' inputs, `n x (n_inputs + k)`, float32: states encoded, and the condition, `n x k`."""
    inputs = environment.encode(states)
    if condition is None or condition.shape[1] == 0:
        return inputs
    return torch.cat([inputs, condition], dim=1)


def is_bounded(environment: Environment) -> TypeGuard[BoundedEnvironment]:
    """Whether an environment restricts continuous coordinates to intervals."""
    return bool(getattr(environment, "is_bounded", False))


def _uniform(mask: Tensor, dtype: torch.dtype) -> Tensor:
    weights = mask.to(dtype)
    return weights / weights.sum(dim=1, keepdim=True)


def _condition(condition: Tensor | None, n: int) -> Tensor:
    return torch.zeros(n, 0) if condition is None else condition
