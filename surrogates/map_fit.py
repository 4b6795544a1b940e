"""Maximum-a-posteriori fit of a surrogate's hyper-parameters, bounds included."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from surrogates.bounds import bound_sites
from surrogates.data import Data, GaussianData
from surrogates.evidence import Evidence, Parametrisation, maximise_posterior
from surrogates.fidelity_gp import ExactGP, FidelityGP
from surrogates.priors import Prior, Units
from surrogates.sparse_gp import CollapsedBound, SparseGP, choose_inducing

# Bounds move hyper-parameters and hyper-parameters move the bounds' sites: so many times in turn.
_SITE_ROUNDS = 3


def condition(
    prior: Prior, units: Units, X: Tensor, Y: Tensor, noise: Tensor, n_inducing: int | None
) -> FidelityGP:
    """The model that knows standardised answers: exact, or sparse where there are more than `n_inducing`.

    Args:
        prior: Hyper-parameters.
        units: Each fidelity's standardisation.
        X: Features and fidelity index, `n x (d + 1)`.
        Y: Standardised answers, `n`.
        noise: Noise variances, `n`, positive.
        n_inducing: Most inducing points; None for the exact model.
    """
    if n_inducing is None or len(Y) <= n_inducing:
        return ExactGP(prior, units, X, Y, noise)
    return SparseGP(prior, units, X, Y, noise, choose_inducing(prior, X, noise, n_inducing))


def with_sites(data: Data, hyperparameters: Prior, n_inducing: int | None = None) -> GaussianData:
    """Replace bounds by their expectation-propagation sites under the given hyper-parameters.

    What the answers that are no bounds say about the bounded ones is the sites' prior; it is that of a sparse
    process where n_inducing is given. The sites cost the cube of the number of bounds.
    """
    bound = data.is_bound
    learned = (~bound).to(data.Y)
    if not bool(bound.any()):
        return GaussianData(data.X, data.Y, data.variance, learned, 0.0)
    noise = hyperparameters.noise[data.fidelity] + data.variance
    m = len(hyperparameters.noise)
    standard = Units(torch.zeros(m, dtype=torch.float64), torch.ones(m, dtype=torch.float64))
    exact = condition(hyperparameters, standard, data.X[~bound], data.Y[~bound], noise[~bound], n_inducing)
    mean, projected = exact.project(data.X[bound])
    prior = hyperparameters.covariance(data.X[bound], data.X[bound])
    target, variance, log_scale = bound_sites(
        mean, prior - projected.T @ projected, data.Y[bound], data.sign[bound], noise[bound]
    )
    Y, fixed = data.Y.clone(), data.variance.clone()
    Y[bound], fixed[bound] = target, variance
    return GaussianData(data.X, Y, fixed, learned, log_scale)


def fit_map(
    start: Tensor,
    data: Data,
    parametrisation: Parametrisation,
    max_iterations: int,
    *,
    scan: bool,
    n_inducing: int | None = None,
) -> tuple[Tensor, float]:
    """Coordinates of the hyper-parameters with the greatest posterior density, found from a start.

    Args:
        start: θ to begin with.
        data: The observations.
        parametrisation: What θ means.
        max_iterations: Most L-BFGS iterations, for each round of sites.
        scan: Look for better noises and correlations around the start first; what a cold start needs.
        n_inducing: Where given, the evidence is its lower bound by so many inducing points, chosen at the start.

    Returns:
        θ, and −log(evidence × prior) there.
    """
    theta, value = start, math.inf
    for round_ in range(_SITE_ROUNDS if bool(data.is_bound.any()) else 1):
        with torch.no_grad():
            prior = parametrisation.decode(theta)
            gaussian = with_sites(data, prior, n_inducing)
        evidence: Evidence
        if n_inducing is None or len(data.Y) <= n_inducing:
            evidence = parametrisation.evidence(gaussian)
        else:
            chosen = choose_inducing(prior, gaussian.X, gaussian.noise(prior.noise), n_inducing)
            evidence = CollapsedBound(parametrisation, gaussian, chosen)
        if scan and round_ == 0:
            theta = _scan(theta, evidence, parametrisation)
        theta, value = maximise_posterior(theta, parametrisation, evidence, max_iterations=max_iterations)
        value -= gaussian.log_scale
    return theta, value


def _scan(theta: Tensor, evidence: Evidence, parametrisation: Parametrisation) -> Tensor:
    """Try a few values of some coordinates, one after another.

    The posterior density may have a mode for either sign of a correlation, and for answers that vary by
    noise or by short lengthscales; gradients don't lead from one to the other.
    """
    best, value = theta, evidence.value(theta.numpy())
    for part, trials in parametrisation.scans():
        for i in range(part.start, part.stop):
            for coordinate in trials:
                trial = best.clone()
                trial[i] = coordinate
                trial_value = evidence.value(trial.numpy())
                if trial_value < value:
                    best, value = trial, trial_value
    return best
