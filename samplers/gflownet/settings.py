"""How a GFlowNet is built and trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from activelearning.errors import ConfigError
from samplers.gflownet.losses import LOSSES


class BetaRange(BaseModel):
    """A range of exponents that one GFlowNet is trained for, conditioned on the exponent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float
    high: float


@dataclass(frozen=True)
class LearnerSettings:
    """Settings of a learner; the meaning of each is told at `GFlowNetSampler`.

    `beta` is None where the exponent is chosen in each fit.

    Raises:
        ConfigError: a value is out of range.
    """

    hidden: Sequence[int] = (256, 256, 256)
    n_components: int = 16
    loss: str = "trajectory_balance"
    subtrajectory_decay: float = 0.9
    batch_size: int = 64
    replay_share: float = 0.5
    replay_capacity: int = 2000
    dataset_share: float = 0.25
    learning_rate: float = 2e-3
    log_z_learning_rate: float = 0.3
    final_learning_rate_share: float = 0.1
    max_gradient_norm: float = 10.0
    exploration: float = 0.1
    temperature: float = 1.0
    beta: float | BetaRange | None = 1.0
    gain: float = 4.0
    log_reward_range: float = 15.0
    device: str = "cpu"

    def __post_init__(self) -> None:
        demands = {
            "batch_size": (self.batch_size >= 2, "at least 2"),
            "replay_share": (0.0 <= self.replay_share < 1.0, "at least 0 and below 1"),
            "replay_capacity": (self.replay_capacity >= 0, "at least 0"),
            "dataset_share": (
                0.0 <= self.dataset_share < 1.0 - self.replay_share,
                f"at least 0 and below 1 - replay_share = {1.0 - self.replay_share:g}",
            ),
            "hidden": (all(width >= 1 for width in self.hidden), "positive widths"),
            "n_components": (self.n_components >= 1, "at least 1"),
            "loss": (self.loss in LOSSES, f"one of {', '.join(LOSSES)}"),
            "subtrajectory_decay": (0.0 <= self.subtrajectory_decay <= 10.0, "from 0 to 10"),
            "learning_rate": (self.learning_rate > 0.0, "above 0"),
            "log_z_learning_rate": (self.log_z_learning_rate > 0.0, "above 0"),
            "final_learning_rate_share": (
                0.0 < self.final_learning_rate_share <= 1.0,
                "above 0 and at most 1",
            ),
            "max_gradient_norm": (self.max_gradient_norm > 0.0, "above 0"),
            "exploration": (0.0 <= self.exploration <= 1.0, "between 0 and 1"),
            "temperature": (self.temperature > 0.0, "above 0"),
            "beta": (
                0.0 < self.beta.low < self.beta.high
                if isinstance(self.beta, BetaRange)
                else self.beta is None or self.beta > 0.0,
                "above 0, or 'auto', or a range with 0 < low < high",
            ),
            "gain": (self.gain >= 1.0, "at least 1"),
            "log_reward_range": (self.log_reward_range > 0.0, "above 0"),
        }
        for key, (is_met, demand) in demands.items():
            if not is_met:
                value: Any = getattr(self, key)
                raise ConfigError(
                    f"sampler.{key} is {list(value) if isinstance(value, tuple) else value}; it must be "
                    f"{demand}."
                )
        _check_device(self.device)

    @property
    def is_conditioned(self) -> bool:
        """Whether the policies see the reward's exponent."""
        return isinstance(self.beta, BetaRange)

    @property
    def beta_bounds(self) -> tuple[float, float] | None:
        """Least and largest exponent, where the policies see it."""
        return (self.beta.low, self.beta.high) if isinstance(self.beta, BetaRange) else None

    @property
    def torch_device(self) -> torch.device:
        """Where the networks live; `auto` is a CUDA device where there is one."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)


def _check_device(name: str) -> None:
    if name in ("auto", "cpu"):
        return
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdecimal()):
        raise ConfigError(f"sampler.device is {name!r}; it must be auto, cpu, cuda or cuda:N.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        raise ConfigError(
            f"sampler.device is {name!r}, but PyTorch sees {count or 'no'} CUDA device"
            f"{'' if count == 1 else 's'} here. Set it to auto, which takes one where there is one, or to cpu."
        )
