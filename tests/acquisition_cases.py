"""A small model over one feature and two fidelities, and queries on it, for tests of acquisitions."""

import math

import torch
from botorch.models.model import Model
from torch import Tensor

from activelearning.contracts import AcquisitionContext
from surrogates.coregionalised_gp import CoregionalisedGP, Hyperparameters, Units

NONE = torch.empty(0, 2, dtype=torch.float64)


def model(correlation: float = 0.9, noise: float = 1e-2, scale: float = 1.0) -> CoregionalisedGP:
    """One feature, target 0 and a source 1 in a unit of its own."""
    hyperparameters = Hyperparameters(
        torch.tensor([0.25], dtype=torch.float64),
        torch.ones(2, dtype=torch.float64),
        torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64),
        torch.full((2,), noise, dtype=torch.float64),
    )
    units = Units(torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, scale], dtype=torch.float64))
    X = torch.tensor([[0.1, 0], [0.45, 1], [0.9, 0], [0.7, 1]], dtype=torch.float64)
    Y = torch.tensor([0.3, -0.2, -1.0, 0.8], dtype=torch.float64)
    Y[X[:, 1] == 1] *= math.copysign(1.0, correlation)
    return CoregionalisedGP(hyperparameters, units, X, Y, torch.full((4,), noise, dtype=torch.float64))


def context(
    gp: Model, *, reference: Tensor, pending: Tensor = NONE, maximize: bool = True, seed: int = 0
) -> AcquisitionContext:
    return AcquisitionContext(gp, [], 0, maximize, None, reference, pending, seed)


def queries(n: int = 9) -> Tensor:
    x = torch.linspace(0.02, 0.98, n, dtype=torch.float64)
    return torch.cat([torch.stack([x, torch.full_like(x, m)], dim=-1) for m in (0.0, 1.0)])


GRID = torch.linspace(0, 1, 30, dtype=torch.float64).unsqueeze(-1)
