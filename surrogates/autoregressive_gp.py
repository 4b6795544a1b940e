"""An autoregressive Gaussian process: each fidelity is a multiple of the one below it and something of its own.

With the fidelities in order, the latent g of `surrogates.priors` is

    g_1 = s_1 δ_1,        g_t = ρ_t g_{t−1} + s_t δ_t,

with independent δ_t of unit Matérn-5/2 covariance and lengthscales of their own (Kennedy & O'Hagan, *Predicting the
output from a complex computer code when fast approximations are available*, Biometrika 87 (2000)). All are fitted
together, so that the sets of candidates need not be nested. A ρ_t may be negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from activelearning.contracts import Space
from activelearning.errors import ConfigError
from activelearning.fidelity import Fidelity
from surrogates.base import GaussianProcessSurrogate
from surrogates.evidence import Groups, Parametrisation
from surrogates.hyperparameters import (
    AMPLITUDE_LIMITS,
    AMPLITUDE_SIGMA,
    LENGTHSCALE_LIMITS,
    LENGTHSCALE_SIGMA,
    NOISE_LIMITS,
    NOISE_LOCATION,
    NOISE_SIGMA,
    SCANNED_NOISE,
    half_square,
    lengthscale_centre,
)
from surrogates.priors import constants, fidelity_column, scaled_matern52

REGRESSION_SIGMA = 1.0  # of ρ, whose answers are standardised: no sign is favoured
_REGRESSION_LIMITS = (-20.0, 20.0)
_SCANNED_REGRESSION = (-0.8, 0.0, 0.8)


@dataclass(frozen=True)
class AutoregressiveHyperparameters:
    """Hyper-parameters, in standardised units.

    Attributes:
        scales: Lengthscales of each δ, in the order of fidelities, `M x d`, positive.
        loadings: How much of each δ (columns) each fidelity (rows, by its index) has, `M x M`.
        noise: Variance of each fidelity's noise, by index, `M`, positive.
    """

    scales: Tensor
    loadings: Tensor
    noise: Tensor

    @property
    def lengthscales(self) -> Tensor:
        """All lengthscales, `M d`."""
        return self.scales.flatten()

    @property
    def between(self) -> Tensor:
        """Covariance of g at one place between fidelities, `M x M`."""
        return self.loadings @ self.loadings.T

    def covariance(self, X: Tensor, Z: Tensor) -> Tensor:
        """Prior covariance, `... x n x m`; see `surrogates.priors.Prior`."""
        fidelity_x, fidelity_z = fidelity_column(X), fidelity_column(Z)
        total = constants(fidelity_x.unsqueeze(-1), fidelity_z.unsqueeze(-2)).to(X)
        for lengthscales, loading in zip(self.scales, self.loadings.T, strict=True):
            kernel = scaled_matern52(X[..., :-1], Z[..., :-1], lengthscales)
            total = total + loading[fidelity_x].unsqueeze(-1) * kernel * loading[fidelity_z].unsqueeze(-2)
        return total


@dataclass(frozen=True)
class AutoregressiveCoordinates(Groups):
    """θ = (log lengthscales by fidelity, log s, ρ, log noise variances), each in the order of fidelities.

    Attributes:
        n_features: d.
        order: Indices of the fidelities, from the first to the one that builds on all others.
    """

    n_features: int
    order: tuple[int, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of coordinates in each group."""
        return (len(self.order) * self.n_features, len(self.order), len(self.order) - 1, len(self.order))

    def start(self, seed: int) -> Tensor:
        """θ at the prior's mode, whatever the seed."""
        theta = torch.zeros(self.size, dtype=torch.float64)
        lengthscales, _, _, noise = self.parts
        theta[lengthscales] = lengthscale_centre(self.n_features)
        theta[noise] = NOISE_LOCATION
        return theta

    def limits(self) -> list[tuple[float, float]]:
        """Box of θ that keeps the model's linear algebra sound."""
        _, scales, regression, noise = self.parts
        limits = [LENGTHSCALE_LIMITS] * self.size
        limits[scales] = [AMPLITUDE_LIMITS] * len(self.order)
        limits[regression] = [_REGRESSION_LIMITS] * (len(self.order) - 1)
        limits[noise] = [NOISE_LIMITS] * len(self.order)
        return limits

    def scans(self) -> list[tuple[slice, tuple[float, ...]]]:
        """Noises and regressions, see `surrogates.evidence.Parametrisation`."""
        _, _, regression, noise = self.parts
        return [(noise, SCANNED_NOISE), (regression, _SCANNED_REGRESSION)]

    def decode(self, theta: Tensor) -> AutoregressiveHyperparameters:
        """Hyper-parameters at θ; differentiable."""
        lengthscales, scales, regression, noise = self.parts
        s, rho = theta[scales].exp(), theta[regression]
        rows = [s[:1]]
        for t in range(1, len(self.order)):
            rows.append(torch.cat([rows[-1] * rho[t - 1], s[t : t + 1]]))
        m = len(self.order)
        loadings = torch.stack([torch.cat([row, row.new_zeros(m - len(row))]) for row in rows])
        position = torch.tensor(np.argsort(self.order))
        return AutoregressiveHyperparameters(
            theta[lengthscales].exp().reshape(m, self.n_features),
            loadings[position],
            theta[noise].exp()[position],
        )

    def negative_log_prior(self, theta: Tensor) -> Tensor:
        """−log prior density at θ, up to a constant."""
        lengthscales, scales, regression, noise = self.parts
        return (
            half_square(theta[lengthscales] - lengthscale_centre(self.n_features), LENGTHSCALE_SIGMA)
            + half_square(theta[scales], AMPLITUDE_SIGMA)
            + half_square(theta[regression], REGRESSION_SIGMA)
            + half_square(theta[noise] - NOISE_LOCATION, NOISE_SIGMA)
        )


class AutoregressiveGP(GaussianProcessSurrogate):
    """Autoregressive Gaussian process over ordered fidelities.

    Args:
        space: Gives the features, `n x d`.
        fidelities: The campaign's fidelities, by index.
        order: Names of all fidelities, the target last; by default from the cheapest to the dearest, then the target.
        **settings: As `GaussianProcessSurrogate`.

    Raises:
        ConfigError: order does not name every fidelity once, or does not end with the target; or as
            `GaussianProcessSurrogate`.
    """

    def __init__(
        self,
        space: Space,
        fidelities: Sequence[Fidelity],
        *,
        order: Sequence[str] | None = None,
        max_iterations: int = 60,
        cold_every: int = 10,
        size_limit: int = 1500,
        n_inducing: int | None = None,
    ) -> None:
        self.order = fidelity_order(fidelities, order)
        super().__init__(
            space,
            fidelities,
            max_iterations=max_iterations,
            cold_every=cold_every,
            size_limit=size_limit,
            n_inducing=n_inducing,
        )

    def _parametrise(self) -> Parametrisation:
        return AutoregressiveCoordinates(self.space.n_features, self.order)

    def _signature(self) -> dict[str, Any]:
        return {"type": "autoregressive", "n_features": self.space.n_features, "order": list(self.order)}


def fidelity_order(fidelities: Sequence[Fidelity], order: Sequence[str] | None) -> tuple[int, ...]:
    """Indices of the fidelities in the stated order, or by cost with the target last.

    Raises:
        ConfigError: order does not name every fidelity once, or does not end with the target.
    """
    if order is None:
        return tuple(f.index for f in sorted(fidelities, key=lambda f: (f.is_target, f.cost, f.index)))
    by_name = {f.name: f for f in fidelities}
    if isinstance(order, str) or sorted(order) != sorted(by_name):
        raise ConfigError(
            f"surrogate.order must name every fidelity once, {', '.join(by_name)} in some order; it is {order!r}."
        )
    if not by_name[order[-1]].is_target:
        target = next((f.name for f in fidelities if f.is_target), "the target")
        raise ConfigError(
            f"surrogate.order must end with the target, {target!r}: the fidelities before it are what it builds on. "
            f"It ends with {order[-1]!r}."
        )
    return tuple(by_name[name].index for name in order)
