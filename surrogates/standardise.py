"""Standardising answers, each fidelity by its own mean and scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from activelearning.fidelity import Fidelity
from surrogates.priors import Units

# Weight, in answers, of the scale that other fidelities of the same quantity show.
_PRIOR_WEIGHT = 2.0


def units_of(fidelities: Sequence[Fidelity], index: Tensor, values: Tensor) -> Units:
    """Offset and scale of each fidelity's answers.

    The scale of a fidelity with few answers leans on those of fidelities that measure the same property in
    the same unit; without any, on the magnitude of its answers. A fidelity without answers takes the offset
    and scale of that family, or 0 and 1.

    Args:
        fidelities: The campaign's fidelities, `M`.
        index: Fidelity of each answer, `n`.
        values: Answers (a bound counts as its value), `n`.
    """
    offsets, scales = [], []
    for fidelity in fidelities:
        family = [
            other.index
            for other in fidelities
            if (other.property, other.unit) == (fidelity.property, fidelity.unit)
        ]
        pooled = [values[index == i] for i in family]
        own = values[index == fidelity.index]
        # Pool deviations within fidelities: the offset between two sources is not part of their scale.
        squares = sum(float((v - v.mean()).square().sum()) for v in pooled if len(v) > 1)
        freedom = sum(len(v) - 1 for v in pooled if len(v) > 1)
        everything = torch.cat(pooled)
        magnitude = float(everything.abs().max()) if len(everything) else 1.0
        # A quantity whose answers do not differ (yet) shows no scale but its magnitude.
        smallest = max(1e-8 * magnitude, 1e-300)
        family_variance = squares / freedom if freedom else 0.0
        if family_variance <= smallest**2:
            family_variance = magnitude**2 if magnitude > 0.0 else 1.0

        own_squares = float((own - own.mean()).square().sum()) if len(own) > 1 else 0.0
        weight = max(len(own) - 1, 0) + _PRIOR_WEIGHT
        scales.append(((own_squares + _PRIOR_WEIGHT * family_variance) / weight) ** 0.5)
        centre = own if len(own) else everything
        offsets.append(float(centre.mean()) if len(centre) else 0.0)
    return Units(
        torch.tensor(offsets, dtype=torch.float64).reshape(-1),
        torch.tensor(scales, dtype=torch.float64).reshape(-1),
    )
