"""How much too narrow a surrogate's predictions are, by cross-validation with hyper-parameters fitted anew.

Tens of lengthscales fitted to as many answers explain them too well. Answers left out under the fitted hyper-parameters
do not show that, since these have seen them; answers left out of the fit do. The factor c on the variances v of the
noise-free answers of a fidelity is the one under which the squares of the errors e left out are what they should be in
the mean, the noise s beside them as it is,

    Σ e²/(c v + s) + W/c = n + W,

with a weight of W answers on c = 1 (a recalibration, as of Kuleshov, Fenner & Ermon, ICML 2018, by one number).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from surrogates.data import Data
from surrogates.map_fit import condition, with_sites
from surrogates.priors import Prior, Units

N_FOLDS = 3
PRIOR_WEIGHT = 4.0  # of the factor 1, in answers
MOST = 25.0  # that one answer may count for under a factor of 1: five standard deviations
LARGEST = 1e4  # factor, where noise-free answers are foretold all but exactly, and wrongly
_HALVINGS = 60


def inflation(data: Data, n_fidelities: int, fit: Callable[[Data], Prior]) -> Tensor:
    """Factor on each fidelity's predictive variances, `M`, at least 1: predictions are no better than they say.

    A fold holds the answers of a third of the candidates at all fidelities, so that no other fidelity gives an answer
    away. Bounds are learned from, and not scored.

    Args:
        data: Standardised observations.
        n_fidelities: M.
        fit: Hyper-parameters for some of the observations.
    """
    _, group = torch.unique(data.X[:, :-1], dim=0, return_inverse=True)
    factors = torch.ones(n_fidelities, dtype=torch.float64)
    if int(group.max()) + 1 < N_FOLDS:
        return factors
    parts = []
    for fold in range(N_FOLDS):
        is_out = group % N_FOLDS == fold
        known, left_out = data.rows(~is_out), data.rows(is_out & ~data.is_bound)
        if len(left_out.Y):
            parts.append(_errors(known, left_out, fit(known)))
    if not parts:
        return factors
    errors = torch.cat(parts, dim=1)
    for index in range(n_fidelities):
        square, variance, noise, _ = errors[:, errors[3] == index]
        factors[index] = _factor(square, variance, noise)
    return factors


def _errors(known: Data, left_out: Data, prior: Prior) -> Tensor:
    """Squared error, variance of the noise-free answer, noise and fidelity of every answer left out, `4 x n`."""
    m = len(prior.noise)
    standard = Units(torch.zeros(m, dtype=torch.float64), torch.ones(m, dtype=torch.float64))
    gaussian = with_sites(known, prior)
    model = condition(prior, standard, gaussian.X, gaussian.Y, gaussian.noise(prior.noise), None)
    with torch.no_grad():
        posterior = model.forward(left_out.X.unsqueeze(-2))
    variance, noise = posterior.variance.squeeze(-1), prior.noise[left_out.fidelity] + left_out.variance
    square = (left_out.Y - posterior.mean.squeeze(-1)).square()
    square = torch.minimum(square, MOST * (variance + noise))
    return torch.stack([square, variance, noise, left_out.fidelity.to(square)])


def _factor(square: Tensor, variance: Tensor, noise: Tensor) -> float:
    """The factor that solves the equation above, by halving the interval of its logarithm; at least 1."""

    def lacks(log_factor: float) -> bool:
        factor = math.exp(log_factor)
        sum_of_squares = float((square / (factor * variance + noise)).sum())
        return sum_of_squares + PRIOR_WEIGHT / factor > len(square) + PRIOR_WEIGHT

    low, high = 0.0, math.log(LARGEST)
    if not len(square) or not lacks(low):
        return 1.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if lacks(middle) else (low, middle)
    return math.exp(high)
