"""Standardised observations, with their bounds as bounds or as Gaussian sites."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from surrogates.priors import fidelity_column


@dataclass(frozen=True)
class Data:
    """Standardised observations.

    Attributes:
        X: Features and fidelity index, `n x (d + 1)`.
        Y: Standardised answers; for a bound, the bound, `n`.
        variance: Squares of the known standard errors, standardised, `n`.
        sign: +1 for an upper bound, −1 for a lower bound, 0 for an answer, `n`.
    """

    X: Tensor
    Y: Tensor
    variance: Tensor
    sign: Tensor

    @property
    def fidelity(self) -> Tensor:
        """Fidelity of each observation, `n` (long)."""
        return fidelity_column(self.X)

    @property
    def is_bound(self) -> Tensor:
        """`n`, bool."""
        return self.sign != 0

    def rows(self, index: Tensor) -> Data:
        """Some of the observations."""
        return Data(self.X[index], self.Y[index], self.variance[index], self.sign[index])


@dataclass(frozen=True)
class GaussianData:
    """Data of which every bound is replaced by its Gaussian site.

    Attributes:
        X: Features and fidelity index, `n x (d + 1)`.
        Y: Standardised answers and pseudo-answers, `n`.
        fixed_variance: Known part of each row's noise variance, `n`.
        learned: 1 where the fidelity's learned noise is added, 0 for a site, `n`.
        log_scale: What the sites add to the Gaussian log evidence.
    """

    X: Tensor
    Y: Tensor
    fixed_variance: Tensor
    learned: Tensor
    log_scale: float

    def noise(self, by_fidelity: Tensor) -> Tensor:
        """Noise variance of each row, `n`, from the learned one of each fidelity, `M`."""
        return self.learned * by_fidelity[fidelity_column(self.X)] + self.fixed_variance
