"""Hyper-parameters of the coregionalised GP: coordinates, priors and the maximum a posteriori.

Correlation matrices are written in canonical partial correlations (Joe 2006; Lewandowski, Kurowicka & Joe
2009), each the tanh of an unconstrained number, so that every point of the coordinates is a correlation
matrix, negative entries included. Lengthscales have the dimension-scaled log-normal prior of Hvarfner,
Hellsten & Nardi (ICML 2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from surrogates.coregionalised_gp import Hyperparameters
from surrogates.data import GaussianData
from surrogates.evidence import Evidence, Groups

LENGTHSCALE_LOCATION, LENGTHSCALE_SIGMA = math.sqrt(2.0), math.sqrt(3.0)
AMPLITUDE_SIGMA = 1.0
NOISE_LOCATION, NOISE_SIGMA = -9.0, 2.5
NOISE_FLOOR = 1e-6  # variance, in units of the fidelity's scale squared; keeps Cholesky factors sound
LKJ_SHAPE = 1.5  # weakly against |R| = 1, which a handful of answers would otherwise suggest: worth one datum
COORDINATE_SIGMA = 1.5
SCANNED_PARTIAL = (-0.8, 0.0, 0.8)  # coordinates of partial correlations of −0.66, 0 and 0.66
SCANNED_NOISE = (-7.0, -3.0, -0.5)  # logarithms of variances, where a fidelity's answers vary by about 1
LENGTHSCALE_LIMITS = (-4.0, 7.0)  # of logarithms
AMPLITUDE_LIMITS = (-4.0, 4.0)
NOISE_LIMITS = (math.log(NOISE_FLOOR), 3.0)
_LIMIT = 4.0  # of the coordinate of a partial correlation: |tanh| ≤ 0.9993


@dataclass(frozen=True)
class Coordinates(Groups):
    """How hyper-parameters of d features and M fidelities lie in one unconstrained vector θ.

    θ = (log lengthscales, log amplitudes, coordinates of partial correlations, log noise variances).

    Attributes:
        n_features: d.
        order: The fidelities, target first; row i of the factor of R belongs to `order[i]`.
    """

    n_features: int
    order: tuple[int, ...]

    @classmethod
    def of(cls, n_features: int, n_fidelities: int, target: int) -> Coordinates:
        """Coordinates with the target's correlations first."""
        return cls(n_features, (target, *(i for i in range(n_fidelities) if i != target)))

    @property
    def n_fidelities(self) -> int:
        """M."""
        return len(self.order)

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of coordinates in each group."""
        return (
            self.n_features,
            self.n_fidelities,
            self.n_fidelities * (self.n_fidelities - 1) // 2,
            self.n_fidelities,
        )

    def prior_mode(self) -> Tensor:
        """θ at the prior's mode."""
        theta = torch.zeros(self.size, dtype=torch.float64)
        lengthscales, _, _, noise = self.parts
        theta[lengthscales] = lengthscale_centre(self.n_features)
        theta[noise] = NOISE_LOCATION
        return theta

    def start(self, seed: int) -> Tensor:
        """θ where a cold fit begins: the prior's mode, whatever the seed."""
        return self.prior_mode()

    def scans(self) -> list[tuple[slice, tuple[float, ...]]]:
        """Noises and correlations, see `surrogates.evidence.Parametrisation`."""
        _, _, partial, noise = self.parts
        return [(noise, SCANNED_NOISE), (partial, SCANNED_PARTIAL)]

    def evidence(self, data: GaussianData) -> Evidence:
        """−log(evidence × prior) as a function of θ."""
        from surrogates.coregionalised_evidence import CoregionalisedEvidence  # which needs this module

        return CoregionalisedEvidence(self, data)

    def limits(self) -> list[tuple[float, float]]:
        """Box of θ that keeps the model's linear algebra sound."""
        _, amplitudes, partial, noise = self.parts
        limits = [LENGTHSCALE_LIMITS] * self.size
        limits[amplitudes] = [AMPLITUDE_LIMITS] * self.n_fidelities
        limits[partial] = [(-_LIMIT, _LIMIT)] * (partial.stop - partial.start)
        limits[noise] = [NOISE_LIMITS] * self.n_fidelities
        return limits

    def decode(self, theta: Tensor) -> Hyperparameters:
        """Hyper-parameters at θ; differentiable."""
        lengthscales, amplitudes, partial, noise = self.parts
        return Hyperparameters(
            theta[lengthscales].exp(),
            theta[amplitudes].exp(),
            self._correlation(theta[partial].tanh()),
            theta[noise].exp(),
        )

    def negative_log_prior(self, theta: Tensor) -> Tensor:
        """−log prior density at θ, up to a constant."""
        lengthscales, amplitudes, partial, noise = self.parts
        # log det R is the sum of log(1 − p²) over partial correlations p.
        log_determinant = torch.log1p(-theta[partial].tanh().square())
        return (
            half_square(theta[lengthscales] - lengthscale_centre(self.n_features), LENGTHSCALE_SIGMA)
            + half_square(theta[amplitudes], AMPLITUDE_SIGMA)
            + half_square(theta[noise] - NOISE_LOCATION, NOISE_SIGMA)
            + half_square(theta[partial], COORDINATE_SIGMA)
            - (LKJ_SHAPE - 1.0) * log_determinant.sum()
        )

    def _correlation(self, partial: Tensor) -> Tensor:
        m = self.n_fidelities
        rows = [torch.ones(1, dtype=partial.dtype)]
        start = 0
        for i in range(1, m):
            p = partial[start : start + i]
            start += i
            left = torch.cumprod((1.0 - p.square()).sqrt(), dim=0)
            entries = torch.cat([p[:1], p[1:] * left[:-1], left[-1:]])
            rows.append(entries)
        factor = torch.stack([torch.cat([row, row.new_zeros(m - row.shape[0])]) for row in rows])
        ordered = factor @ factor.T
        position = torch.tensor(np.argsort(self.order))
        return ordered[position][:, position]


def lengthscale_centre(n_features: int) -> float:
    """Mode of the log-normal density over lengthscales; their logarithms are Gaussian about it here."""
    return LENGTHSCALE_LOCATION + 0.5 * math.log(n_features) - LENGTHSCALE_SIGMA**2


def half_square(deviation: Tensor, sigma: float) -> Tensor:
    """−log density, up to a constant, of independent Gaussian deviations."""
    return 0.5 * (deviation / sigma).square().sum()
