"""A Gaussian process over features and a level of fidelity between 0 and 1.

The latent g of `surrogates.priors` at levels s and s' has the linear truncated covariance

    cov(g_s(x), g_s'(x')) = a² (k(x, x') + (1 − s)(1 − s')(1 + s s')^p k'(x, x')),

with two Matérn-5/2 kernels, of which the second is the bias that goes as the level rises to 1 (Poloczek, Wang &
Frazier, *Multi-information source optimization*, NeurIPS 2017; Wu, Toscano-Palmerin, Frazier & Wilson, *Practical
multi-fidelity Bayesian optimization for hyperparameter tuning*, UAI 2019). It is the covariance of BoTorch's
`SingleTaskMultiFidelityGP`. Fidelities are approximations of one quantity here: none can be a reversed one, and none
measures anything else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from activelearning.contracts import Space
from activelearning.errors import ConfigError
from activelearning.fidelity import Fidelity
from surrogates.autoregressive_gp import fidelity_order
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
from surrogates.priors import Units, constants, fidelity_column, scaled_matern52

POWER_SIGMA = 1.0  # of log p, about 0: the mean of BoTorch's prior of p is 1, too
_POWER_LIMITS = (-4.0, 3.0)


@dataclass(frozen=True)
class ContinuousHyperparameters:
    """Hyper-parameters, in standardised units.

    Attributes:
        levels: s of each fidelity, by index, `M`, in (0, 1].
        unbiased: Lengthscales of k, `d`, positive.
        biased: Lengthscales of k', `d`, positive.
        amplitude: a, positive, a scalar.
        power: p, positive, a scalar.
        noise: Variance of each fidelity's noise, `M`, positive.
    """

    levels: Tensor
    unbiased: Tensor
    biased: Tensor
    amplitude: Tensor
    power: Tensor
    noise: Tensor

    @property
    def lengthscales(self) -> Tensor:
        """All lengthscales, `2 d`."""
        return torch.cat([self.unbiased, self.biased])

    @property
    def bias(self) -> Tensor:
        """(1 − s)(1 − s')(1 + s s')^p between fidelities, `M x M`."""
        s, t = self.levels.unsqueeze(-1), self.levels
        return (1.0 - s) * (1.0 - t) * (1.0 + s * t).pow(self.power)

    @property
    def between(self) -> Tensor:
        """Covariance of g at one place between fidelities, `M x M`."""
        return self.amplitude.square() * (1.0 + self.bias)

    def covariance(self, X: Tensor, Z: Tensor) -> Tensor:
        """Prior covariance, `... x n x m`; see `surrogates.priors.Prior`."""
        rows, columns = fidelity_column(X).unsqueeze(-1), fidelity_column(Z).unsqueeze(-2)
        x, z = X[..., :-1], Z[..., :-1]
        kernel = scaled_matern52(x, z, self.unbiased)
        kernel = kernel + self.bias[rows, columns] * scaled_matern52(x, z, self.biased)
        return self.amplitude.square() * kernel + constants(rows, columns)


@dataclass(frozen=True)
class ContinuousCoordinates(Groups):
    """θ = (log lengthscales of k, those of k', log a, log p, log noise variances).

    Attributes:
        n_features: d.
        levels: s of each fidelity, by index.
    """

    n_features: int
    levels: tuple[float, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of coordinates in each group."""
        return (self.n_features, self.n_features, 1, 1, len(self.levels))

    def start(self, seed: int) -> Tensor:
        """θ at the prior's mode, whatever the seed."""
        theta = torch.zeros(self.size, dtype=torch.float64)
        theta[: 2 * self.n_features] = lengthscale_centre(self.n_features)
        theta[self.parts[-1]] = NOISE_LOCATION
        return theta

    def limits(self) -> list[tuple[float, float]]:
        """Box of θ that keeps the model's linear algebra sound."""
        return [
            *[LENGTHSCALE_LIMITS] * (2 * self.n_features),
            AMPLITUDE_LIMITS,
            _POWER_LIMITS,
            *[NOISE_LIMITS] * len(self.levels),
        ]

    def scans(self) -> list[tuple[slice, tuple[float, ...]]]:
        """Noises, see `surrogates.evidence.Parametrisation`."""
        return [(self.parts[-1], SCANNED_NOISE)]

    def decode(self, theta: Tensor) -> ContinuousHyperparameters:
        """Hyper-parameters at θ; differentiable."""
        unbiased, biased, amplitude, power, noise = self.parts
        return ContinuousHyperparameters(
            torch.tensor(self.levels, dtype=theta.dtype),
            theta[unbiased].exp(),
            theta[biased].exp(),
            theta[amplitude].exp().squeeze(0),
            theta[power].exp().squeeze(0),
            theta[noise].exp(),
        )

    def negative_log_prior(self, theta: Tensor) -> Tensor:
        """−log prior density at θ, up to a constant."""
        unbiased, biased, amplitude, power, noise = self.parts
        centre = lengthscale_centre(self.n_features)
        return (
            half_square(theta[unbiased] - centre, LENGTHSCALE_SIGMA)
            + half_square(theta[biased] - centre, LENGTHSCALE_SIGMA)
            + half_square(theta[amplitude], AMPLITUDE_SIGMA)
            + half_square(theta[power], POWER_SIGMA)
            + half_square(theta[noise] - NOISE_LOCATION, NOISE_SIGMA)
        )


class ContinuousFidelityGP(GaussianProcessSurrogate):
    """Gaussian process over features and a level of fidelity.

    Args:
        space: Gives the features, `n x d`.
        fidelities: The campaign's fidelities, by index; all measure one property in one unit.
        levels: Level of each fidelity by name, in (0, 1], the target's the highest; by default equal steps up to 1,
            from the cheapest to the dearest with the target last.
        **settings: As `GaussianProcessSurrogate`.

    Raises:
        ConfigError: fidelities measure several properties or units, levels do not name every fidelity, lie outside
            (0, 1] or are highest elsewhere than at the target; or as `GaussianProcessSurrogate`.
    """

    def __init__(
        self,
        space: Space,
        fidelities: Sequence[Fidelity],
        *,
        levels: Mapping[str, float] | None = None,
        max_iterations: int = 60,
        cold_every: int = 10,
        size_limit: int = 1500,
        n_inducing: int | None = None,
    ) -> None:
        self.levels = _levels(fidelities, levels)
        super().__init__(
            space,
            fidelities,
            max_iterations=max_iterations,
            cold_every=cold_every,
            size_limit=size_limit,
            n_inducing=n_inducing,
        )

    def _parametrise(self) -> Parametrisation:
        return ContinuousCoordinates(self.space.n_features, self.levels)

    def _signature(self) -> dict[str, Any]:
        return {
            "type": "continuous_fidelity",
            "n_features": self.space.n_features,
            "levels": list(self.levels),
        }

    def _units(self, index: Tensor, values: Tensor) -> Units:
        """One scale for all fidelities: they approximate one quantity, and its differences count the same."""
        units = super()._units(index, values)
        n = torch.bincount(index, minlength=len(self.fidelities)).to(units.scale)
        weight = n / n.sum() if len(index) else torch.full_like(n, 1.0 / len(n))
        scale = (weight @ units.scale.square()).sqrt()
        return Units(units.offset, scale.expand_as(units.scale).clone())


def _levels(fidelities: Sequence[Fidelity], levels: Mapping[str, float] | None) -> tuple[float, ...]:
    quantities = sorted({f"{f.property} ({f.unit})" if f.unit else f.property for f in fidelities})
    if len(quantities) > 1:
        raise ConfigError(
            f"surrogate.type: continuous_fidelity_gp takes its fidelities for approximations of one quantity, and "
            f"these measure {', '.join(quantities)}. Take multi_fidelity_gp or autoregressive_gp, which learn how "
            f"different properties are related."
        )
    if levels is None:
        order = fidelity_order(fidelities, None)
        return tuple((order.index(f.index) + 1) / len(order) for f in fidelities)
    names = [f.name for f in fidelities]
    if not isinstance(levels, Mapping) or sorted(levels) != sorted(names):
        raise ConfigError(
            f"surrogate.levels must give each of the fidelities {', '.join(names)} its level; it is {levels!r}."
        )
    for name, level in levels.items():
        is_number = isinstance(level, int | float) and not isinstance(level, bool) and math.isfinite(level)
        if not is_number or not 0.0 < level <= 1.0:
            raise ConfigError(
                f"surrogate.levels.{name} must be a number above 0 and at most 1, not {level!r}; 1 is the truth."
            )
    highest = max(levels.values())
    for f in fidelities:
        if f.is_target != (levels[f.name] == highest):
            raise ConfigError(
                f"surrogate.levels: the target, and no other fidelity, must have the highest level; {f.name!r} has "
                f"{levels[f.name]}, and the highest is {highest}."
            )
    return tuple(float(levels[name]) for name in names)
