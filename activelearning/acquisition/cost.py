"""Utility per cost."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Below this share of the reference utility a logarithm is continued by its tangent, so that 0 and negative
# utilities have one, and a slope.
_TANGENT = 1e-13
# Log rewards more than this below that of the reference utility are compressed logarithmically.
_FLOOR = 8.0


def per_cost(utilities: Tensor, costs: Tensor, exponent: float = 1.0) -> Tensor:
    """Utility / cost^exponent, elementwise.

    A negative utility is multiplied instead, so that, of two queries that harm alike, the dearer never ranks
    first.

    Args:
        utilities: Of any sign, `n`.
        costs: Positive, `n`.
        exponent: 1 is utility per cost; less cools the role of cost (Lee, Perrone, Archambeau & Seeger 2020).
    """
    weight = costs.to(utilities) ** exponent
    return torch.where(utilities > 0.0, utilities / weight, utilities * weight)


def log_per_cost(
    utilities: Tensor,
    costs: Tensor,
    *,
    reference_utility: float,
    exponent: float = 1.0,
    floor: float = _FLOOR,
) -> Tensor:
    """A finite log reward for samplers: log(utility / cost^exponent), with a floor that keeps a slope.

    With u the utility relative to `reference_utility` (the greatest one known before sampling), log u is
    continued by its tangent below 1e-13, so that u may be 0 or negative, and l = log u below −floor becomes
    −floor − log(1 − floor − l). The map is increasing with a continuous derivative, so that a sampler is led
    out of regions of no utility and never sees rewards of exp(−1000).

    Args:
        utilities: Of any sign, `n`.
        costs: Positive, `n`.
        reference_utility: Positive; 1 is taken where it is not (nothing is worth anything yet).
        exponent: As in `per_cost`.
        floor: Logarithm, relative to the reference, below which rewards are compressed.

    Returns:
        `n`, float64.
    """
    reference = reference_utility if reference_utility > 0.0 else 1.0
    relative = utilities.to(torch.float64) / reference
    is_small = relative < _TANGENT
    tangent = math.log(_TANGENT) + (relative - _TANGENT) / _TANGENT
    logarithm = torch.where(is_small, tangent, relative.clamp_min(_TANGENT).log())
    below = (-floor - logarithm).clamp_min(0.0)
    compressed = logarithm.clamp_min(-floor) - torch.log1p(below)
    return compressed + math.log(reference) - exponent * costs.to(compressed).log()
