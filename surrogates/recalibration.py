"""How much too narrow a surrogate's predictions are, by cross-validation with hyper-parameters fitted anew.

Tens of lengthscales fitted to as many answers explain them too well. Answers left out under the fitted hyper-parameters
do not show that, since these have seen them; answers left out of the fit do. The mean square of their standardised
errors is the factor by which predictive variances of their fidelity are to be multiplied (the scalar recalibration of
Kuleshov, Fenner & Ermon, ICML 2018, taken to one number), shrunk towards 1 where there are few.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from surrogates.data import Data
from surrogates.map_fit import condition, with_sites
from surrogates.priors import Prior, Units

N_FOLDS = 3
PRIOR_WEIGHT = 4.0  # of the factor 1, in answers
MOST = 25.0  # that one answer may count for, five standard deviations


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
    weight = torch.full((n_fidelities,), PRIOR_WEIGHT, dtype=torch.float64)
    total = weight.clone()
    if int(group.max()) + 1 < N_FOLDS:
        return torch.ones_like(total)
    for fold in range(N_FOLDS):
        is_out = group % N_FOLDS == fold
        known, left_out = data.rows(~is_out), data.rows(is_out & ~data.is_bound)
        if not len(left_out.Y):
            continue
        squares = _standardised_errors(known, left_out, fit(known)).square().clamp_max(MOST)
        total.index_add_(0, left_out.fidelity, squares)
        weight.index_add_(0, left_out.fidelity, torch.ones_like(squares))
    return (total / weight).clamp_min(1.0)


def _standardised_errors(known: Data, left_out: Data, prior: Prior) -> Tensor:
    """Errors of predictions over their standard deviations, noise included, `n`."""
    m = len(prior.noise)
    standard = Units(torch.zeros(m, dtype=torch.float64), torch.ones(m, dtype=torch.float64))
    gaussian = with_sites(known, prior)
    model = condition(prior, standard, gaussian.X, gaussian.Y, gaussian.noise(prior.noise), None)
    with torch.no_grad():
        posterior = model.forward(left_out.X.unsqueeze(-2))
    noise = prior.noise[left_out.fidelity] + left_out.variance
    return (left_out.Y - posterior.mean.squeeze(-1)) / (posterior.variance.squeeze(-1) + noise).sqrt()
