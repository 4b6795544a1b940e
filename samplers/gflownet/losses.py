"""Training objectives of a GFlowNet: functions of log-probabilities and log rewards to one number.

Each takes the same `Balance`, so that an objective is a choice by name and another is one more function here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Balance:
    """What objectives are made of, for n trajectories.

    Attributes:
        log_pf: log P_F of each trajectory, `n`.
        log_pb: log P_B of each trajectory, `n`.
        log_reward: log R of each terminal state, `n`.
        log_z: Learned log-partition, a scalar.
    """

    log_pf: Tensor
    log_pb: Tensor
    log_reward: Tensor
    log_z: Tensor

    @property
    def log_ratio(self) -> Tensor:
        """log P_F(τ) - log R(x) - log P_B(τ | x), `n`: -log Z on every trajectory where P_F is exact."""
        return self.log_pf - self.log_reward - self.log_pb


Loss = Callable[[Balance], Tensor]


def trajectory_balance(balance: Balance) -> Tensor:
    """Mean squared trajectory-balance residual.

    Malkin et al., "Trajectory Balance: Improved Credit Assignment in GFlowNets" (NeurIPS 2022), eq. 14:
    (log Z + log P_F(τ) - log R(x) - log P_B(τ | x))².
    """
    return (balance.log_z + balance.log_ratio).square().mean()


def log_partition_variance(balance: Balance) -> Tensor:
    """Variance over the batch of the log-partition that each trajectory implies; log Z is not learned.

    VarGrad: Richter et al. (NeurIPS 2020); for GFlowNets Zhang et al., "Robust Scheduling with GFlowNets"
    (ICLR 2023).
    """
    return balance.log_ratio.var(correction=0)


LOSSES: dict[str, Loss] = {
    "trajectory_balance": trajectory_balance,
    "log_partition_variance": log_partition_variance,
}
