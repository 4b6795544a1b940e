"""Training objectives of a GFlowNet: functions of log-probabilities, flows and log rewards to one number.

Each takes the same `Balance`, so that an objective is a choice by name and another is one more function here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

LossName = Literal[
    "trajectory_balance",
    "log_partition_variance",
    "detailed_balance",
    "sub_trajectory_balance",
    "forward_looking",
]
LOSSES: tuple[str, ...] = get_args(LossName)


@dataclass(frozen=True)
class Balance:
    """What objectives are made of, for N steps of n trajectories.

    Attributes:
        log_pf: log P_F of each step, `N`.
        log_pb: log P_B of each step, `N`.
        index: Trajectory of each step, `N`, long; the steps of one trajectory stand in their order.
        log_reward: log R of each terminal state, `n`.
        log_z: Learned log-partition of each trajectory, `n`; one number unless the reward is conditioned.
        log_flow: log F of the state where each step starts, `N`, log Z at the source; None where the
            objective has no flows.
    """

    log_pf: Tensor
    log_pb: Tensor
    index: Tensor
    log_reward: Tensor
    log_z: Tensor
    log_flow: Tensor | None = None

    @property
    def log_ratio(self) -> Tensor:
        """log P_F(τ) - log R(x) - log P_B(τ | x), `n`: -log Z on every trajectory where P_F is exact."""
        total = torch.zeros_like(self.log_reward)
        return total.index_add(0, self.index, self.log_pf - self.log_pb) - self.log_reward

    def potentials(self) -> tuple[Tensor, Tensor]:
        """log F(s_k) - Σ_{i<k} (log P_F - log P_B), `n x (L + 1)`, and which of them exist, bool.

        Where policies and flows are exact, they are equal along a trajectory: the residual of the
        sub-trajectory from s_j to s_k is the difference of the two. F is R at the end.
        """
        assert self.log_flow is not None
        n = len(self.log_reward)
        position, lengths = positions(self.index, n)
        ends = torch.arange(n)
        width = int(lengths.max()) + 1
        flows = self.log_flow.new_zeros(n, width)
        flows = flows.index_put((self.index, position), self.log_flow)
        flows = flows.index_put((ends, lengths), self.log_reward)
        steps = torch.zeros_like(flows)
        steps = steps.index_put((self.index, position + 1), self.log_pf - self.log_pb)
        return flows - steps.cumsum(dim=1), torch.arange(width) <= lengths[:, None]


def positions(index: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The number of each step within its trajectory, `N`, and the lengths of the n trajectories, `n`, both long."""
    lengths = torch.bincount(index, minlength=n)
    order = index.argsort(stable=True)
    starts = lengths.cumsum(0) - lengths
    position = torch.empty_like(index)
    position[order] = torch.arange(len(index)) - starts[index[order]]
    return position, lengths


Loss = Callable[[Balance], Tensor]


def trajectory_balance(balance: Balance) -> Tensor:
    """Mean squared trajectory-balance residual.

    Malkin et al., "Trajectory Balance: Improved Credit Assignment in GFlowNets" (NeurIPS 2022), eq. 14:
    (log Z + log P_F(τ) - log R(x) - log P_B(τ | x))².
    """
    return (balance.log_z + balance.log_ratio).square().mean()


def log_partition_variance(balance: Balance) -> Tensor:
    """Variance over the batch of the log-partition that each trajectory implies.

    VarGrad: Richter et al. (NeurIPS 2020); for GFlowNets Zhang et al., "Robust Scheduling with GFlowNets"
    (ICLR 2023). The policies see no log Z but its dependence on the condition, which would otherwise count as
    variance. log Z follows by a squared residual of its own, of value zero here, whose gradient reaches
    nothing else.
    """
    variance = (balance.log_ratio + balance.log_z.detach()).var(correction=0)
    regression = (balance.log_z + balance.log_ratio.detach()).square().mean()
    return variance + regression - regression.detach()


def detailed_balance(balance: Balance) -> Tensor:
    """Mean squared detailed-balance residual over all transitions.

    Bengio et al., "GFlowNet Foundations" (JMLR 2023): (log F(s) + log P_F(s' | s) - log F(s') - log P_B(s | s'))².
    """
    potentials, exists = balance.potentials()
    residuals = potentials[:, :-1] - potentials[:, 1:]
    return residuals[exists[:, 1:]].square().mean()


def sub_trajectory_balance(balance: Balance, *, decay: float) -> Tensor:
    """Squared residuals of all sub-trajectories, those of length l weighted by λ^(l - 1) within each trajectory.

    Madan et al., "Learning GFlowNets from Partial Episodes for Improved Convergence and Stability" (ICML
    2023), eq. 11. λ = 0 leaves single transitions, large λ whole trajectories. Time and memory grow with
    `n x L²`.

    Args:
        balance: The batch.
        decay: λ, at least 0.
    """
    potentials, exists = balance.potentials()
    residuals = potentials[:, :, None] - potentials[:, None, :]
    steps = torch.arange(potentials.shape[1])
    ahead = steps - steps[:, None]
    weight = torch.where(ahead > 0, decay ** (ahead - 1).clamp(min=0).to(potentials.dtype), 0.0)
    weights = weight * (exists[:, :, None] & exists[:, None, :])
    return ((weights * residuals.square()).sum(dim=(1, 2)) / weights.sum(dim=(1, 2))).mean()


@dataclass(frozen=True)
class Objective:
    """A loss and what it needs.

    Attributes:
        loss: The function.
        has_flows: Whether state flows are learned.
        is_forward_looking: Whether flows are learned relative to the partial reward of a state (Pan et al., "Better
            Training of GFlowNets with Local Credit and Incomplete Trajectories", ICML 2023): log F(s) = -E(s)
            + log F~(s), where F~ is what the network gives.
    """

    loss: Loss
    has_flows: bool = False
    is_forward_looking: bool = False


def make_objective(name: str, *, decay: float) -> Objective:
    """The objective of a name in `LOSSES`.

    Args:
        name: Its name.
        decay: λ of the sub-trajectory losses.
    """
    sub = partial(sub_trajectory_balance, decay=decay)
    objectives = {
        "trajectory_balance": Objective(trajectory_balance),
        "log_partition_variance": Objective(log_partition_variance),
        "detailed_balance": Objective(detailed_balance, has_flows=True),
        "sub_trajectory_balance": Objective(sub, has_flows=True),
        "forward_looking": Objective(sub, has_flows=True, is_forward_looking=True),
    }
    return objectives[name]
