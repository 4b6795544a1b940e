"""A Gaussian process over (features, fidelity) with intrinsic coregionalisation.

The latent g_m of `surrogates.priors` has

    cov(g_m(x), g_n(x')) = a_m a_n R_mn k(x, x'),

with R a correlation matrix between fidelities and k a Matérn-5/2 kernel with one lengthscale a feature
(intrinsic coregionalisation: Bonilla, Chai & Williams, NeurIPS 2007). Entries of R may be negative: a reversed
source tells as much as a straight one.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from surrogates.fidelity_gp import ExactGP
from surrogates.priors import Units, constants, fidelity_column, scaled_matern52

__all__ = ["CoregionalisedGP", "Hyperparameters", "Units"]


@dataclass(frozen=True)
class Hyperparameters:
    """Hyper-parameters, in standardised units.

    Attributes:
        lengthscales: `d`, positive.
        amplitudes: a, `M`, positive.
        correlation: R, `M x M`, symmetric, positive definite, unit diagonal.
        noise: Variance of each fidelity's noise, `M`, positive.
    """

    lengthscales: Tensor
    amplitudes: Tensor
    correlation: Tensor
    noise: Tensor

    @property
    def between(self) -> Tensor:
        """Covariance of g at one place between fidelities, `M x M`."""
        return self.amplitudes.unsqueeze(-1) * self.correlation * self.amplitudes

    def covariance(self, X: Tensor, Z: Tensor) -> Tensor:
        """Prior covariance, `... x n x m`; see `surrogates.priors.Prior`."""
        rows, columns = fidelity_column(X).unsqueeze(-1), fidelity_column(Z).unsqueeze(-2)
        kernel = scaled_matern52(X[..., :-1], Z[..., :-1], self.lengthscales)
        return self.between[rows, columns] * kernel + constants(rows, columns)


class CoregionalisedGP(ExactGP):
    """An exact Gaussian process under the coregionalised prior, `Hyperparameters`."""
