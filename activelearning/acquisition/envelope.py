"""The expected greatest of lines at a random place, exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from activelearning.acquisition.target_ei import standard_improvement

_LAST = 38.0  # beyond, a standard normal has no density in double precision


def expected_rise(intercepts: Tensor, slopes: Tensor) -> Tensor:
    """E max_i (a_i + b_i Z) - max_i a_i for a standard normal Z, without sampling.

    Frazier, Powell & Dayanik, *The knowledge-gradient policy for correlated normal beliefs*, INFORMS J. Comput. 21
    (2009): only lines of the upper envelope count. With c_k the places where the envelope passes from a line to the
    next one, of slopes b_k and b_{k+1}, the rise is Σ (b_{k+1} - b_k) (φ(c_k) - |c_k| Φ(-|c_k|)), a sum without
    cancellation. The envelope is walked from its line at 0 to the right and to the left, all batches at once: O(n) a
    step, and as many steps as the longest envelope has lines.

    Args:
        intercepts: a, `... x n`, n ≥ 1.
        slopes: b, `... x n`; the two are broadcast.

    Returns:
        `...`, never negative; differentiable in both.
    """
    a, b = torch.broadcast_tensors(intercepts, slopes)
    shape = a.shape[:-1]
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    first = a.detach().argmax(dim=-1)
    return (_rise_to_the_right(a, b, first) + _rise_to_the_right(a, -b, first)).reshape(shape)


def _rise_to_the_right(a: Tensor, b: Tensor, first: Tensor) -> Tensor:
    """The part of the rise from places above 0, `m`, of `m x n` lines whose highest at 0 are `first`, `m`."""
    steps = _steps(a.detach(), b.detach(), first)
    if not steps:
        return a.new_zeros(len(a))
    row, line, following = (torch.cat(part) for part in zip(*steps, strict=True))
    # The places where lines cross are continuous in a and b, the lines themselves are not: only these are looked up.
    steeper = b[row, following] - b[row, line]
    lower = a[row, line] - a[row, following]
    rise = steeper * standard_improvement(-(lower / steeper).clamp_min(0.0))
    return a.new_zeros(len(a)).index_add(0, row, rise)


def _steps(a: Tensor, b: Tensor, first: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Passages along the envelope from 0 to the right: rows, lines, and the lines that follow them."""
    steps = []
    row, line = torch.arange(len(a)), first
    while len(row):
        steeper = b - b.gather(-1, line[:, None])
        lower = a.gather(-1, line[:, None]) - a
        # Rounding may leave a line that is passed already a little higher than it is.
        place = torch.where(steeper > 0.0, lower.clamp_min(0.0) / steeper, torch.inf)
        nearest, following = place.min(dim=-1)
        goes_on = nearest < _LAST
        row, line, following, a, b = (part[goes_on] for part in (row, line, following, a, b))
        if len(row):
            steps.append((row, line, following))
        line = following
    return steps
