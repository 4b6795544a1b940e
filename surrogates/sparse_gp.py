"""Sparse variational Gaussian processes: the collapsed bound, its inducing points and the posterior.

The answers are explained through the latent values at m inducing points u (Titsias, AISTATS 2009). With Q = K_fu K_uu⁻¹
K_uf, Λ the diagonal of noises, known errors and sites included, the log evidence is at least

    log N(y; 0, Q + Λ) − ½ Σ_i (K_ii − Q_ii)/Λ_ii,

and the optimal distribution of u is Gaussian, so that nothing but hyper-parameters is left to optimise. Inducing points
are rows of the data, fidelity included, picked one after another where K_ii − Q_ii is greatest against the noise: a
pivoted Cholesky decomposition, which makes the last term, and with it the distance to the exact process, small fast
(Burt, Rasmussen & van der Wilk, *Convergence of sparse variational inference in Gaussian processes regression*, JMLR
21 (2020)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from surrogates.data import GaussianData
from surrogates.evidence import Parametrisation
from surrogates.fidelity_gp import FidelityGP
from surrogates.priors import MEAN_VARIANCE, Prior, Units, fidelity_column

Vector = np.ndarray[tuple[int], np.dtype[np.float64]]

_JITTER = 1e-6  # of the inducing values' variance, which is about 2; the bound stays a bound
_EXPLAINED = (
    1e-8  # an inducing point that takes less than this share of the variance off any row is not added
)
_NEGLIGIBLE = 1e-12  # of the greatest eigenvalue


def prior_variance(prior: Prior, X: Tensor) -> Tensor:
    """Prior variance of the noise-free answers at X `n x (d + 1)`, `n`."""
    return prior.between.diagonal()[fidelity_column(X)] + MEAN_VARIANCE


def choose_inducing(prior: Prior, X: Tensor, noise: Tensor, n_inducing: int) -> Tensor:
    """Rows of X, `m <= n_inducing`, in the order in which they are chosen.

    Args:
        prior: Hyper-parameters.
        X: Features and fidelity index, `n x (d + 1)`.
        noise: Variance of each answer's noise, `n`.
        n_inducing: Most inducing points.
    """
    with torch.no_grad():
        rest = prior_variance(prior, X)
        total = rest.clone()
        factor = X.new_empty(min(n_inducing, len(X)), len(X))
        chosen: list[int] = []
        for i in range(len(factor)):
            row = int((rest / noise).argmax())
            if float(rest[row]) <= _EXPLAINED * float(total[row]):
                break
            column = prior.covariance(X[row : row + 1], X).squeeze(0) - factor[:i, row] @ factor[:i]
            factor[i] = column / rest[row].sqrt()
            rest = (rest - factor[i].square()).clamp_min(0.0)
            rest[row] = 0.0
            chosen.append(row)
    return torch.tensor(chosen, dtype=torch.long)


@dataclass(frozen=True)
class _Factors:
    """Decompositions that bound and posterior share; A = L⁻¹ K_uf Λ^{-½}, B = 1 + A Aᵀ, c = A Λ^{-½} y."""

    inducing: Tensor  # L, Cholesky factor of K_uu with its jitter
    scaled: Tensor  # A, `m x n`
    inner: Tensor  # Cholesky factor of B
    answers: Tensor  # c, `m`
    root_noise: Tensor  # Λ^½, `n`

    @classmethod
    def of(cls, K_uu: Tensor, K_uf: Tensor, Y: Tensor, noise: Tensor) -> _Factors:
        identity = torch.eye(len(K_uu), dtype=K_uu.dtype)
        inducing = torch.linalg.cholesky(K_uu + _JITTER * identity)
        root_noise = noise.sqrt()
        scaled = torch.linalg.solve_triangular(inducing, K_uf / root_noise, upper=False)
        inner = torch.linalg.cholesky(identity + scaled @ scaled.T)
        return cls(inducing, scaled, inner, scaled @ (Y / root_noise), root_noise)


class CollapsedBound:
    """−log(lower bound of the evidence × prior) as a function of θ, at inducing points that stay where they are.

    Args:
        parametrisation: What θ means.
        data: Answers and sites, `n`.
        inducing: Inducing points, rows of the data, `m`, long.
    """

    def __init__(self, parametrisation: Parametrisation, data: GaussianData, inducing: Tensor) -> None:
        self._parametrisation = parametrisation
        self._data = data
        self._U = data.X[inducing]

    def value(self, theta: Vector) -> float:
        """At θ."""
        with torch.no_grad():
            at = torch.from_numpy(theta)
            prior = self._parametrisation.decode(at)
            K_uu, K_uf, variance, noise = self._covariances(prior)
            factors = _Factors.of(K_uu, K_uf, self._data.Y, noise)
            return self._bound(factors, variance) + float(self._parametrisation.negative_log_prior(at))

    def __call__(self, theta: Vector) -> tuple[float, Vector]:
        """Value and gradient at θ."""
        leaf = torch.from_numpy(theta).clone().requires_grad_(True)
        prior = self._parametrisation.decode(leaf)
        K_uu, K_uf, variance, noise = self._covariances(prior)
        with torch.no_grad():
            f = _Factors.of(K_uu, K_uf, self._data.Y, noise)
            value = self._bound(f, variance)
            # Slopes along the four covariances, with Σ = K_uu + K_uf Λ⁻¹ K_fu and β = Σ⁻¹ K_uf Λ⁻¹ y:
            #   K_uf: (Σ⁻¹ − K_uu⁻¹ + β βᵀ) K_uf Λ⁻¹ − β yᵀ Λ⁻¹,
            #   K_uu: ½ (Σ⁻¹ − K_uu⁻¹ + β βᵀ + K_uu⁻¹ K_uf Λ⁻¹ K_fu K_uu⁻¹),
            #   K_ii: ½ / Λ_i,
            #   Λ_i:  ½ / Λ_i − ½ (k_iᵀ Σ⁻¹ k_i + (y_i − k_iᵀ β)² + K_ii − Q_ii) / Λ_i².
            # All but the last are written in the basis of L, in which K_uu is the identity.
            identity = torch.eye(len(K_uu), dtype=K_uu.dtype)
            inverse = torch.cholesky_inverse(f.inner)
            beta = inverse @ f.answers
            middle = inverse - identity + torch.outer(beta, beta)
            answers = self._data.Y / f.root_noise
            s_uf = middle @ f.scaled - torch.outer(beta, answers)
            s_uu = 0.5 * (middle + f.scaled @ f.scaled.T)
            s_uf = torch.linalg.solve_triangular(f.inducing.T, s_uf, upper=True) / f.root_noise
            s_uu = torch.linalg.solve_triangular(f.inducing.T, s_uu, upper=True)
            s_uu = torch.linalg.solve_triangular(f.inducing, s_uu, upper=False, left=False)
            leverage = torch.linalg.solve_triangular(f.inner, f.scaled, upper=False).square().sum(0)
            left = variance / noise - f.scaled.square().sum(0)
            explained = leverage + (answers - f.scaled.T @ beta).square() + left
            s_noise = 0.5 * (1.0 - explained) / noise
        total = (s_uf * K_uf).sum() + (s_uu * K_uu).sum() + (0.5 * variance / noise.detach()).sum()
        total = total + (s_noise * noise).sum()
        log_prior = self._parametrisation.negative_log_prior(leaf)
        (gradient,) = torch.autograd.grad(total + log_prior, leaf)
        return value + float(log_prior.detach()), gradient.numpy()

    def _covariances(self, prior: Prior) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        data = self._data
        return (
            prior.covariance(self._U, self._U),
            prior.covariance(self._U, data.X),
            prior_variance(prior, data.X),
            data.noise(prior.noise),
        )

    def _bound(self, f: _Factors, variance: Tensor) -> float:
        """−log bound, without the prior of the hyper-parameters."""
        answers = self._data.Y / f.root_noise
        explained = torch.linalg.solve_triangular(f.inner, f.answers.unsqueeze(-1), upper=False)
        value = 0.5 * (answers.square().sum() - explained.square().sum())
        value = value + f.inner.diagonal().log().sum() + f.root_noise.log().sum()
        left = variance / f.root_noise.square() - f.scaled.square().sum(0)
        return float(value + 0.5 * left.sum() + 0.5 * len(answers) * math.log(2.0 * math.pi))


class SparseGP(FidelityGP):
    """Posterior of a sparse variational Gaussian process.

    Args:
        hyperparameters: The prior.
        units: Each fidelity's standardisation.
        train_X: Features and fidelity index, `n x (d + 1)`.
        train_Y: Standardised answers, `n`.
        train_noise: Noise variances of the standardised answers, `n`, positive.
        inducing: Inducing points, rows of train_X, `m`, long.
    """

    def __init__(
        self,
        hyperparameters: Prior,
        units: Units,
        train_X: Tensor,
        train_Y: Tensor,
        train_noise: Tensor,
        inducing: Tensor,
    ) -> None:
        super().__init__(hyperparameters, units, train_X, train_Y, train_noise)
        self.inducing = inducing
        self._U = train_X[inducing]
        f = _Factors.of(
            hyperparameters.covariance(self._U, self._U),
            hyperparameters.covariance(self._U, train_X),
            train_Y,
            train_noise,
        )
        # cov = K − K_xu (K_uu⁻¹ − Σ⁻¹) K_ux = K − K_xu L⁻ᵀ (1 − B⁻¹) L⁻¹ K_ux, and 1 − B⁻¹ is V λ/(1 + λ) Vᵀ where
        # A Aᵀ = V λ Vᵀ; directions in which the data say nothing are dropped.
        values, vectors = torch.linalg.eigh(f.scaled @ f.scaled.T)
        told = values > _NEGLIGIBLE * values.max()
        values, vectors = values[told], vectors[:, told]
        root = vectors * (values / (1.0 + values)).sqrt()
        self._root = torch.linalg.solve_triangular(f.inducing.T, root, upper=True)
        self._whitened = ((vectors.T @ f.answers) / (values * (1.0 + values)).sqrt()).unsqueeze(-1)
        lost = prior_variance(hyperparameters, train_X) - f.scaled.square().sum(0) * train_noise
        self._lost = lost.clamp_min(0.0)
        self._left_out = self._leave_one_out(f)

    @property
    def _weights(self) -> Tensor:
        return self._whitened

    def left_out(self) -> tuple[Tensor, Tensor]:
        """Under the covariance Q + Λ that the mean is of, its variance with what inducing points leave out."""
        return self._left_out

    def unexplained(self) -> Tensor:
        """What inducing points leave out."""
        return self._lost

    def _project(self, X: Tensor) -> Tensor:
        return self._root.T @ self.hyperparameters.covariance(self._U, X)

    def _leave_one_out(self, f: _Factors) -> tuple[Tensor, Tensor]:
        # (Q + Λ)⁻¹ = Λ⁻¹ − Λ^{-½} Aᵀ B⁻¹ A Λ^{-½}, of which the diagonal and the product with y are needed.
        solved = torch.linalg.solve_triangular(f.inner, f.scaled, upper=False)
        beta = torch.linalg.solve_triangular(f.inner, f.answers.unsqueeze(-1), upper=False)
        kept = (1.0 - solved.square().sum(0)).clamp_min(_NEGLIGIBLE)
        error = (self.train_targets - f.root_noise * (solved.T @ beta).squeeze(-1)) / kept
        return error, self.train_noise / kept + self._lost
