"""The value that an improvement is counted from."""

from __future__ import annotations

import torch

from activelearning.acquisition.posterior import at_fidelity, joint_posterior
from activelearning.contracts import AcquisitionContext


def best_expected(context: AcquisitionContext) -> float:
    """Best value that the model expects of the target over the reference points, in the target's unit."""
    points = torch.cat([context.reference, torch.zeros_like(context.reference[:, :1])], dim=-1)
    with torch.no_grad():
        mean, _ = joint_posterior(context.model, at_fidelity(points, context.target).unsqueeze(-2))
    return float(mean.max() if context.maximize else mean.min())
