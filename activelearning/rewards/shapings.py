"""Shapings: from the values of one property to log rewards.

Each is R = max(exp(offset - β g(x)), floor) with a penalty g of its own. So are the rewards of Crystal-GFN (arXiv
2310.04925): exp(-8 E) for a formation energy E in eV/atom and exp(-8 (x - 1.34)²) for a band gap x in eV, with a floor
of 1e-8.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from activelearning.errors import ConfigError

Direction = Literal["maximize", "minimize"]

# β = 8 on a penalty in eV/atom or eV² is what Crystal-GFN takes; over random crystals both penalties have an
# interquartile range of about 1 in these units, so `auto` is that β for a property on any scale.
SHARPNESS = 8.0


@runtime_checkable
class Shaping(Protocol):
    """Log rewards of a property's values; made with the objective's direction, then the section's keys."""

    def __call__(self, values: Tensor, stds: Tensor | None) -> Tensor:
        """Log rewards, `n`, float64, finite.

        Args:
            values: The property, `n`, float64; NaN where it could not be told.
            stds: Its predictive standard deviations, `n`; None where the source states none.
        """
        ...


@dataclass(frozen=True)
class LogLinear(ABC):
    """R = max(exp(offset - β g), floor), with a penalty g of the property that a subclass defines.

    Args:
        direction: Whether high or low values are wanted.
        beta: Inverse temperature β, per unit of the penalty; `auto` is 8 over the penalty's interquartile range among
            untrained samples, with an offset that gives their median the reward 1.
        floor: Least reward; also that of a candidate whose property can't be told.
        offset: Added to the log reward. It says where the floor lies, and nothing else: a sampler samples the same
            with all rewards multiplied by one number.
        caution: Standard deviations of the prediction that a value is worsened by before it is rewarded, so that a
            sampler does not live off the errors of a model.

    Raises:
        ConfigError: a value is out of range.
    """

    direction: Direction
    _: KW_ONLY
    beta: float | Literal["auto"] = "auto"
    floor: float = 1e-8
    caution: float = 0.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if self.beta != "auto" and not (math.isfinite(self.beta) and self.beta > 0.0):
            raise ConfigError(f"beta is {self.beta}; it must be above 0, or 'auto'.")
        if not (math.isfinite(self.floor) and self.floor > 0.0):
            raise ConfigError(f"floor is {self.floor}; it must be above 0, as a log reward must be finite.")
        if not (math.isfinite(self.caution) and self.caution >= 0.0):
            raise ConfigError(f"caution is {self.caution}; it must be 0 or more standard deviations.")
        if not math.isfinite(self.offset):
            raise ConfigError(f"offset is {self.offset}; it must be a finite number.")
        if self.beta == "auto" and self.offset:
            raise ConfigError(
                f"offset is {self.offset:g} and beta 'auto', which sets it; state beta as a number."
            )

    @abstractmethod
    def penalty(self, values: Tensor, stds: Tensor | None) -> Tensor:
        """Penalties g, `n`, of values, `n`, and their standard deviations, `n`; low is good."""

    def __call__(self, values: Tensor, stds: Tensor | None) -> Tensor:
        """Log rewards, `n`, float64, finite; log floor where a value is NaN.

        Raises:
            ConfigError: `beta` is 'auto' and was not fitted, or `caution` has no standard deviations to work with.
        """
        if self.beta == "auto":
            raise ConfigError("beta is 'auto'; fit it to values first, by fitted().")
        return _floored(self.offset - self.beta * self.penalty(values, stds), self.floor)

    @property
    def formula(self) -> str:
        """The reward of a value x (and its standard deviation s) as a line of text."""
        sign = "+" if self.offset > 0.0 else "−"
        factor = f"exp({sign}{abs(self.offset):.4g}) " if self.offset else ""
        return f"max({factor.replace('+', '')}{self._formula()}, {self.floor:g})"

    @abstractmethod
    def _formula(self) -> str:
        """The formula above the floor."""

    def _cautious_formula(self) -> str:
        sign = "+" if self.direction == "minimize" else "−"
        return f"(x {sign} {self.caution:g} s)" if self.caution else "x"

    def fitted(self, values: Tensor, stds: Tensor | None) -> Self:
        """The same shaping with `beta: auto` made a number, and the offset with it.

        Args:
            values: The property of untrained samples, `n`; NaN where it could not be told.
            stds: Their standard deviations, `n`, or None.

        Raises:
            ConfigError: the penalty does not vary over them.
        """
        if self.beta != "auto":
            return self
        penalties = self.penalty(values, stds)
        penalties = penalties[torch.isfinite(penalties)].double()
        points = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
        low, median, high = torch.quantile(penalties, points).tolist() if len(penalties) else (0.0, 0.0, 0.0)
        if not high > low:
            raise ConfigError(
                "beta is 'auto', but the property does not vary over untrained samples; state beta as a number."
            )
        beta = SHARPNESS / (high - low)
        return replace(self, beta=beta, offset=beta * median)

    def _cautious(self, values: Tensor, stds: Tensor | None) -> Tensor:
        """Values moved by `caution` standard deviations in the direction that is not wanted."""
        if self.caution == 0.0:
            return values
        sign = 1.0 if self.direction == "minimize" else -1.0
        return values + sign * self.caution * _stated(stds, self.caution)


@dataclass(frozen=True)
class Exponential(LogLinear):
    """R = exp(-β (x + k s)) to minimise x with standard deviation s, exp(β (x - k s)) to maximise it.

    k is the caution. Crystal-GFN's formation energy has β = 8 per eV/atom.
    """

    def _formula(self) -> str:
        sign = "−" if self.direction == "minimize" else ""
        return f"exp({sign}{_short(self.beta)} {self._cautious_formula()})"

    def penalty(self, values: Tensor, stds: Tensor | None) -> Tensor:
        """The cautious value to minimise, its negative to maximise."""
        cautious = self._cautious(values, stds)
        return cautious if self.direction == "minimize" else -cautious


@dataclass(frozen=True)
class Power(LogLinear):
    """R = (x - k s)^β to maximise x with standard deviation s, (x + k s)^-β to minimise it.

    Maximised values at or below 0 have the floor; minimised ones must be positive.
    """

    def _formula(self) -> str:
        sign = "−" if self.direction == "minimize" else ""
        return f"{self._cautious_formula()}^{sign}{_short(self.beta)}"

    def penalty(self, values: Tensor, stds: Tensor | None) -> Tensor:
        """The logarithm of the cautious value to minimise, its negative to maximise.

        Raises:
            ConfigError: a value to be minimised is not positive, where x^-β is no reward.
        """
        cautious = self._cautious(values, stds)
        if self.direction == "maximize":
            return -cautious.clamp(min=0.0).log()
        if (cautious <= 0.0).any():
            least = cautious[~cautious.isnan()].min()
            raise ConfigError(
                f"the reward 'power' minimises positive values only, and one is {least:g}; choose 'exponential'."
            )
        return cautious.log()


@dataclass(frozen=True)
class TargetDistance(LogLinear):
    """R = exp(-β ((x - t)² + (k s)²)): the nearer to a target t, the better.

    With a caution k of 1 the penalty is the expected squared distance under a prediction of mean x and standard
    deviation s. The direction means nothing here. Crystal-GFN's band gap has t = 1.34 eV and β = 8 per eV².

    Args:
        direction: Of no meaning.
        target: t, in the property's unit.
        beta: As in `LogLinear`, per squared unit of the property.
        floor: As in `LogLinear`.
        caution: k.
        offset: As in `LogLinear`.
    """

    _: KW_ONLY
    target: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.target):
            raise ConfigError(f"target is {self.target}; it must be a finite number.")

    def _formula(self) -> str:
        distance = f"(x − {self.target:g})²"
        if self.caution:
            distance = f"({distance} + ({self.caution:g} s)²)"
        return f"exp(−{_short(self.beta)} {distance})"

    def penalty(self, values: Tensor, stds: Tensor | None) -> Tensor:
        """Squared distances from the target, with the caution's share."""
        squared = (values - self.target).square()
        if self.caution == 0.0:
            return squared
        return squared + (self.caution * _stated(stds, self.caution)).square()


def _short(beta: float | str) -> str:
    return "β" if isinstance(beta, str) else f"{beta:.4g}"


def _floored(log_rewards: Tensor, floor: float) -> Tensor:
    least = math.log(floor)
    return log_rewards.double().nan_to_num(nan=least, neginf=least).clamp(min=least)


def _stated(stds: Tensor | None, caution: float) -> Tensor:
    if stds is None:
        raise ConfigError(
            f"caution is {caution:g}, but the property's source states no standard deviation; leave caution out, or "
            f"name an oracle that states one."
        )
    return stds
