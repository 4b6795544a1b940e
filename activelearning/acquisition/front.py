"""The region above a front, as boxes: how much hypervolume a further point adds, for many points at once.

The boxes are those of Lacour, Klamroth & Fonseca (Computers & Operations Research 79, 2017), by BoTorch; that
improvements are sums over boxes is in Yang, Emmerich, Deutz & Bäck (Journal of Global Optimization 75, 2019).
"""

from __future__ import annotations

import math

import torch
from botorch.utils.multi_objective.box_decompositions.non_dominated import FastNondominatedPartitioning
from botorch.utils.multi_objective.hypervolume import infer_reference_point
from torch import Tensor

# Numbers held at once while improvements are added up, 32 MB.
_MOST_NUMBERS = 4_000_000


class Front:
    """A front in k dimensions, all of them maximised.

    Args:
        points: Points of which the non-dominated ones are the front, `n x k`; n may be 0.
        reference: Values from which improvements count, `k`; what does not exceed all of them is left out.
    """

    def __init__(self, points: Tensor, reference: Tensor) -> None:
        k = len(reference)
        if k == 1:  # the boxes above the best value: there is one
            best = torch.cat([points.flatten(), reference]).amax()
            self._lower, self._upper = best.reshape(1, 1), torch.full_like(best.reshape(1, 1), math.inf)
            return
        cells = FastNondominatedPartitioning(reference, points.reshape(-1, k)).get_hypercell_bounds()
        self._lower, self._upper = cells[0], cells[1]

    def improvement(self, points: Tensor) -> Tensor:
        """Hypervolume that each of the points alone would add to the front, `...`, of points `... x k`.

        Differentiable almost everywhere.
        """
        return self._summed(points, torch.zeros_like(points))

    def expected_improvement(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """Mean of the hypervolume that a random point would add, `...`; its coordinates are independent normals.

        Args:
            mean: Their means, `... x k`.
            deviation: Their standard deviations, `... x k`; 0 where a coordinate is known.
        """
        return self._summed(mean, deviation)

    def _summed(self, mean: Tensor, deviation: Tensor) -> Tensor:
        k = mean.shape[-1]
        flat, spread = mean.reshape(-1, 1, k), deviation.reshape(-1, 1, k)
        size = max(1, _MOST_NUMBERS // max(1, len(flat) * k))
        total = flat.new_zeros(len(flat))
        for lower, upper in zip(self._lower.split(size), self._upper.split(size), strict=True):
            # E (min(t, u) - l)⁺ is E (t - l)⁺ - E (t - u)⁺; where nothing is random it is what it says.
            sides = (torch.minimum(flat, upper) - lower).clamp_min(0.0)
            if bool((spread > 0.0).any()):
                random = (_excess(flat, spread, lower) - _excess(flat, spread, upper)).clamp_min(0.0)
                sides = torch.where(spread > 0.0, random, sides)
            total = total + sides.prod(-1).sum(-1)
        return total.reshape(mean.shape[:-1])


def _excess(mean: Tensor, deviation: Tensor, over: Tensor) -> Tensor:
    """E (t - a)⁺ of a normal t, elementwise; 0 over an infinite a. The deviation may be 0, for values not used."""
    finite = over.isfinite()
    safe = deviation.clamp_min(1e-150)
    z = (mean - torch.where(finite, over, torch.zeros_like(over))) / safe
    density = (-0.5 * z.square()).exp() / math.sqrt(2.0 * math.pi)
    return torch.where(finite, safe * (density + z * torch.special.ndtr(z)), torch.zeros_like(z))


def inferred_reference(points: Tensor) -> Tensor:
    """A reference point: a tenth of the range of all points below the worst of them, `k`.

    The rule is BoTorch's (Ishibuchi, Akedo & Nojima 2011), of all points and not of the front alone: what is still
    unknown is expected to be of middling worth, and must not lie below the reference, where nothing counts. Where
    points show no range it is 1 below them, so that they should be in units of what is usual.

    Args:
        points: Points, all dimensions maximised, `n x k` with n at least 1.
    """
    alike = points.amin(0) - 1.0
    if len(points) == 1:  # BoTorch would take the distance from 0, which may lie anywhere
        return alike
    return torch.where(points.amax(0) > points.amin(0), infer_reference_point(points), alike)
