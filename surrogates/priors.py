"""What every surrogate's prior over (features, fidelity) has in common.

The prior of the answer at features x and fidelity m, in the fidelity's own unit, is

    y_m(x) = offset_m + scale_m · (c_m + g_m(x)) + noise_m,        c_m ~ N(0, MEAN_VARIANCE),

and surrogates differ in the covariance of g. The constants c_m are integrated out, so that a fidelity with few
answers has an uncertain mean. All covariances here are stationary: at one place, cov(g_m(x), g_n(x)) = between_mn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

MEAN_VARIANCE = 1.0  # of each fidelity's constant, in units of its scale


@dataclass(frozen=True)
class Units:
    """Each fidelity's standardisation, answer = offset + scale · standardised answer; `M` each, scale > 0."""

    offset: Tensor
    scale: Tensor


class Prior(Protocol):
    """Hyper-parameters, in standardised units, and the covariance that they stand for."""

    @property
    def noise(self) -> Tensor:
        """Variance of each fidelity's noise, `M`, positive."""
        ...

    @property
    def lengthscales(self) -> Tensor:
        """All lengthscales, in one row."""
        ...

    @property
    def between(self) -> Tensor:
        """Covariance of g at one place between fidelities, `M x M`, without the constants."""
        ...

    def covariance(self, X: Tensor, Z: Tensor) -> Tensor:
        """Prior covariance `... x n x m` of noise-free answers at X `... x n x (d + 1)`, Z `... x m x (d + 1)`."""
        ...


def matern52(squared_distance: Tensor) -> Tensor:
    """Matérn-5/2 kernel of squared scaled distances, elementwise."""
    # Below the clamp the kernel is 1 to machine precision and its gradient in x is 0, which the square root
    # can't say.
    r = (5.0 * squared_distance).clamp_min(5e-20).sqrt()
    return torch.addcmul(r + 1.0, r, r, value=1.0 / 3.0) * (-r).exp()


def scaled_matern52(x: Tensor, z: Tensor, lengthscales: Tensor) -> Tensor:
    """Matérn-5/2 kernel, `... x n x m`, of features x `... x n x d` and z `... x m x d` in the unit cube."""
    # About the cube's centre, so that the difference of squares cancels less.
    x, z = (x - 0.5) / lengthscales, (z - 0.5) / lengthscales
    squared = x.square().sum(-1).unsqueeze(-1) + z.square().sum(-1).unsqueeze(-2)
    return matern52(squared - (2.0 * x) @ z.transpose(-1, -2))


def fidelity_column(X: Tensor) -> Tensor:
    """Fidelity indices, `... x n` (long), of inputs `... x n x (d + 1)`."""
    return X[..., -1].detach().round().long()


def constants(rows: Tensor, columns: Tensor) -> Tensor:
    """Prior covariance of the fidelities' constants, of fidelity indices that broadcast."""
    return MEAN_VARIANCE * (rows == columns)


def amplitudes(prior: Prior) -> Tensor:
    """Prior standard deviation of g at each fidelity, `M`."""
    return prior.between.diagonal().sqrt()


def correlation(prior: Prior) -> Tensor:
    """Prior correlation of g at one place between fidelities, `M x M`."""
    a = amplitudes(prior)
    return prior.between / (a.unsqueeze(-1) * a)
