"""Intervals that restrict coordinates in (0, 1), and Beta distributions inside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy import special
from torch import Tensor

from activelearning.errors import SamplerError

MARGIN = 1e-12

Bounds = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""(coordinate j, u of `n x c` with the coordinates before j drawn) -> (low, high), `n` each, within [0, 1]."""


@dataclass(frozen=True)
class Interval:
    """Open intervals of one coordinate, `m` of them; ends are `m`, float64."""

    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, bounds: Bounds, coordinate: int, u: Tensor, rows: Tensor) -> Interval:
        """The intervals of some rows.

        Raises:
            SamplerError: one of them is empty.
        """
        low, high = (end.double()[rows].clamp(MARGIN, 1.0 - MARGIN) for end in bounds(coordinate, u))
        is_empty = ~(low < high)
        if is_empty.any():
            at = int(is_empty.nonzero()[0])
            raise SamplerError(
                f"A restriction leaves coordinate {coordinate} of a draw no interval: from {low[at].item():g} "
                f"to {high[at].item():g}. An environment's bounds must leave an interval wherever its masks "
                f"let an action be taken; a range of zero width can't be drawn from."
            )
        return cls(low, high)

    @property
    def width(self) -> Tensor:
        """`m`."""
        return self.high - self.low

    def contains(self, u: Tensor) -> Tensor:
        """`m`, bool."""
        return (self.low <= u) & (u <= self.high)

    def mass(self, alpha: Tensor, beta: Tensor) -> Tensor:
        """Mass of Beta distributions inside, `m x k`, of shape parameters `m x k`."""
        is_above = _is_above(self.low[:, None], alpha, beta)
        ends = [_lower(end[:, None], alpha, beta, is_above) for end in (self.low, self.high)]
        return (ends[1] - ends[0]).abs()

    def value(self, level: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        """The value, `m`, below which a share `level` of a Beta distribution's mass inside lies; all `m`."""
        is_above = _is_above(self.low, alpha, beta)
        first, last = (_lower(end, alpha, beta, is_above) for end in (self.low, self.high))
        target = torch.lerp(first, last, level).numpy()
        a, b = alpha.numpy(), beta.numpy()
        below = special.betaincinv(a, b, target)
        above = special.betainccinv(a, b, target)
        values = torch.where(is_above, torch.from_numpy(above), torch.from_numpy(below))
        return torch.minimum(torch.maximum(values, self.low), self.high)


def uniform_within(
    bounds: Bounds, drawn: Tensor, generator: torch.Generator, *, order: Sequence[int] | None = None
) -> Tensor:
    """Draws, `n x c`, uniform in the interval of each coordinate `drawn`; 0.5 for the others.

    Raises:
        SamplerError: an interval is empty.
    """
    u = torch.full(drawn.shape, 0.5, dtype=torch.float64)
    for j in range(drawn.shape[1]) if order is None else order:
        rows = drawn[:, j].nonzero().squeeze(1)
        if len(rows):
            interval = Interval.of(bounds, j, u, rows)
            level = torch.rand(len(rows), dtype=torch.float64, generator=generator)
            u[rows, j] = interval.low + level * interval.width
    return u


def log_uniform_within(
    u: Tensor, bounds: Bounds, drawn: Tensor, *, order: Sequence[int] | None = None
) -> Tensor:
    """Log density, `n`, with which `uniform_within` draws u (`n x c`); -inf outside the intervals."""
    log_prob = torch.zeros(len(u), dtype=torch.float64)
    seen = torch.full(drawn.shape, 0.5, dtype=torch.float64)
    for j in range(drawn.shape[1]) if order is None else order:
        rows = drawn[:, j].nonzero().squeeze(1)
        if len(rows):
            interval = Interval.of(bounds, j, seen, rows)
            is_inside = interval.contains(u[rows, j])
            log_prob[rows] += torch.where(is_inside, -interval.width.log(), -torch.inf)
            seen[rows, j] = u[rows, j]
    return log_prob


def _is_above(low: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Whether an interval lies in the upper tail, where only the complement tells small masses apart."""
    return low > alpha / (alpha + beta)


def _lower(u: Tensor, alpha: Tensor, beta: Tensor, is_above: Tensor) -> Tensor:
    """Mass below u, or above it where `is_above`."""
    at, a, b = (x.numpy() for x in torch.broadcast_tensors(u, alpha, beta))
    return torch.where(
        is_above, torch.from_numpy(special.betaincc(a, b, at)), torch.from_numpy(special.betainc(a, b, at))
    )
