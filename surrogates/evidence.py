"""How well hyper-parameters explain answers, as a function that an optimiser can follow."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from surrogates.data import GaussianData
from surrogates.priors import Prior

Vector = np.ndarray[tuple[int], np.dtype[np.float64]]

# L-BFGS ends when an iteration gains less than this share of the value: a few hundredths of a nat.
_TOLERANCE = 1e-6


class Parametrisation(Protocol):
    """How the hyper-parameters of a prior lie in one unconstrained vector θ."""

    @property
    def size(self) -> int:
        """Length of θ."""
        ...

    def start(self, seed: int) -> Tensor:
        """θ where a cold fit begins."""
        ...

    def limits(self) -> list[tuple[float, float]]:
        """Box of θ that keeps the model's linear algebra sound."""
        ...

    def scans(self) -> list[tuple[slice, tuple[float, ...]]]:
        """Groups of coordinates of which a cold fit tries a few values, one coordinate after another."""
        ...

    def decode(self, theta: Tensor) -> Prior:
        """The prior at θ; differentiable."""
        ...

    def negative_log_prior(self, theta: Tensor) -> Tensor:
        """−log prior density at θ, up to a constant."""
        ...

    def evidence(self, data: GaussianData) -> Evidence:
        """−log(evidence × prior) as a function of θ."""
        ...


class Groups(ABC):
    """A vector θ whose groups of coordinates lie one after another, with the evidence by automatic differentiation."""

    @property
    @abstractmethod
    def widths(self) -> tuple[int, ...]:
        """Number of coordinates in each group."""

    @property
    def parts(self) -> list[slice]:
        """Where the groups lie in θ."""
        ends = np.cumsum([0, *self.widths]).tolist()
        return [slice(start, end) for start, end in itertools.pairwise(ends)]

    @property
    def size(self) -> int:
        """Length of θ."""
        return sum(self.widths)

    @abstractmethod
    def start(self, seed: int) -> Tensor:
        """See `Parametrisation`."""

    @abstractmethod
    def limits(self) -> list[tuple[float, float]]:
        """See `Parametrisation`."""

    @abstractmethod
    def scans(self) -> list[tuple[slice, tuple[float, ...]]]:
        """See `Parametrisation`."""

    @abstractmethod
    def decode(self, theta: Tensor) -> Prior:
        """See `Parametrisation`."""

    @abstractmethod
    def negative_log_prior(self, theta: Tensor) -> Tensor:
        """See `Parametrisation`."""

    def evidence(self, data: GaussianData) -> Evidence:
        """−log(evidence × prior) as a function of θ."""
        return AutogradEvidence(self, data)


class Evidence(Protocol):
    """−log(evidence × prior) as a function of θ."""

    def value(self, theta: Vector) -> float:
        """At θ."""
        ...

    def __call__(self, theta: Vector) -> tuple[float, Vector]:
        """Value and gradient at θ."""
        ...


class AutogradEvidence:
    """The evidence of an exact Gaussian process, by automatic differentiation of its covariance.

    Args:
        parametrisation: What θ means.
        data: Answers and sites, `n`.
    """

    def __init__(self, parametrisation: Parametrisation, data: GaussianData) -> None:
        self._parametrisation = parametrisation
        self._data = data

    def value(self, theta: Vector) -> float:
        """At θ."""
        with torch.no_grad():
            value, _, _ = self._terms(torch.from_numpy(theta))
            return value + float(self._parametrisation.negative_log_prior(torch.from_numpy(theta)))

    def __call__(self, theta: Vector) -> tuple[float, Vector]:
        """Value and gradient at θ."""
        leaf = torch.from_numpy(theta).clone().requires_grad_(True)
        value, slope, covariance = self._terms(leaf)
        prior = self._parametrisation.negative_log_prior(leaf)
        (gradient,) = torch.autograd.grad((slope * covariance).sum() + prior, leaf)
        return value + float(prior.detach()), gradient.numpy()

    def _terms(self, theta: Tensor) -> tuple[float, Tensor, Tensor]:
        """−log evidence, its slope along the covariance, and the covariance, differentiable."""
        data = self._data
        prior = self._parametrisation.decode(theta)
        covariance = prior.covariance(data.X, data.X) + torch.diag_embed(data.noise(prior.noise))
        with torch.no_grad():
            factor = torch.linalg.cholesky(covariance)
            weights = torch.cholesky_solve(data.Y.unsqueeze(-1), factor)
            value = 0.5 * (data.Y @ weights.squeeze(-1)) + factor.diagonal().log().sum()
            value = value + 0.5 * data.Y.shape[0] * math.log(2.0 * math.pi)
            # d value = tr(G dK) with G = ½ (K⁻¹ − α αᵀ): cheaper than the backward pass of a Cholesky factor.
            slope = 0.5 * (torch.cholesky_inverse(factor) - weights @ weights.T)
        return float(value), slope, covariance


def maximise_posterior(
    start: Tensor,
    parametrisation: Parametrisation,
    evidence: Callable[[Vector], tuple[float, Vector]],
    *,
    max_iterations: int,
) -> tuple[Tensor, float]:
    """L-BFGS from `start`, bounded by iterations: θ and −log(evidence × prior) there."""
    limits = parametrisation.limits()
    lower, upper = (torch.tensor(side, dtype=torch.float64) for side in zip(*limits, strict=True))
    result = minimize(
        evidence,
        torch.maximum(torch.minimum(start, upper), lower).numpy(),
        jac=True,
        method="L-BFGS-B",
        bounds=limits,
        options={"maxiter": max_iterations, "maxfun": 2 * max_iterations, "ftol": _TOLERANCE},
    )
    return torch.tensor(result.x, dtype=torch.float64), float(result.fun)
