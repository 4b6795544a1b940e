"""The box: real parameters between bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from activelearning.candidate import VALUE_DECIMALS, BoxCandidate, Candidate, candidate_from_dict
from activelearning.errors import ConfigError

# A candidate's values are rounded, so that a point on the boundary may lie this far outside it.
_ROUNDING = 10.0**-VALUE_DECIMALS


class BoxSpace:
    """All points between bounds; the features are the parameters, scaled to [0, 1].

    Args:
        bounds: Lower and upper bound of each of the d parameters, in the parameters' own units.

    Raises:
        ConfigError: there are no bounds, or one is not finite, or a lower bound is not below its upper bound.
    """

    kind: ClassVar[str] = "box"
    default_sampler: ClassVar[str] = "gflownet"

    def __init__(self, bounds: list[tuple[float, float]]) -> None:
        if not bounds:
            raise ConfigError("space.bounds is empty; a box needs a [lower, upper] pair for each parameter.")
        for i, pair in enumerate(bounds):
            is_finite = len(pair) == 2 and all(map(math.isfinite, pair))
            if not (is_finite and pair[0] < pair[1]):
                raise ConfigError(
                    f"space.bounds[{i}] is {list(pair)}; it must be two finite numbers, the lower first."
                )
        self.bounds = tuple((float(lower), float(upper)) for lower, upper in bounds)
        self._lower = torch.tensor([lower for lower, _ in self.bounds], dtype=torch.float64)
        self._width = torch.tensor([upper - lower for lower, upper in self.bounds], dtype=torch.float64)

    @property
    def n_features(self) -> int:
        """Number of parameters d."""
        return len(self.bounds)

    def features(self, candidates: Sequence[Candidate]) -> Tensor:
        """Parameters scaled to [0, 1], `n x d`, float64.

        Raises:
            ValueError: a candidate is of another kind or width.
        """
        rows = [self._values(candidate) for candidate in candidates]
        values = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), self.n_features)
        return ((values - self._lower) / self._width).clamp(0.0, 1.0)

    def from_features(self, features: Tensor) -> list[BoxCandidate]:
        """Candidates at features `n x d` in [0, 1]."""
        values = self._lower + features.detach().to(torch.float64).clamp(0.0, 1.0) * self._width
        return [BoxCandidate(tuple(row)) for row in values.tolist()]

    def to_json(self, candidate: Candidate) -> dict[str, Any]:
        """Canonical JSON value of a candidate."""
        return candidate.to_dict()

    def from_json(self, value: Mapping[str, Any]) -> Candidate:
        """Read a candidate back.

        Raises:
            ValueError: it is no candidate, or not one of this box.
        """
        candidate = candidate_from_dict(value)
        self.validate(candidate)
        return candidate

    def validate(self, candidate: Candidate) -> None:
        """Check that a candidate lies in the box.

        Raises:
            ValueError: with the parameter that is out of bounds.
        """
        for i, (value, (lower, upper)) in enumerate(zip(self._values(candidate), self.bounds, strict=True)):
            if not lower - _ROUNDING <= value <= upper + _ROUNDING:
                raise ValueError(f"parameter {i} is {value}, outside its bounds [{lower}, {upper}]")

    def _values(self, candidate: Candidate) -> tuple[float, ...]:
        if not isinstance(candidate, BoxCandidate):
            raise ValueError(f"a box holds box candidates, not {type(candidate).__name__}")
        if len(candidate.values) != self.n_features:
            raise ValueError(
                f"a candidate has {len(candidate.values)} values, the box {self.n_features} parameters"
            )
        return candidate.values
