"""The exponent of the reward, chosen so that sampling gains by it.

A flat reward sampled in proportion is sampled almost as by chance: E[R] under p ∝ R exceeds E[R] under chance
by one plus the squared coefficient of variation. An exponent β > 1 sharpens it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_BETA = 16.0
N_BETAS = 49


def expected_gain(log_reward: Tensor, log_density: Tensor, beta: float) -> float:
    """E[R] under p(x) ∝ R(x)^β over E[R] under the density that x was drawn from.

    Self-normalised importance sampling, with weights R^β / q.

    Args:
        log_reward: log R, `n`.
        log_density: log q, `n`, of the density of the draws, against the measure of the reward.
        beta: Exponent β.
    """
    log_weight = beta * log_reward - log_density
    trained = (log_weight + log_reward).logsumexp(0) - log_weight.logsumexp(0)
    untrained = log_reward.logsumexp(0) - math.log(len(log_reward))
    return math.exp((trained - untrained).item())


def choose_beta(log_reward: Tensor, log_density: Tensor, gain: float) -> float:
    """The least β from 1 to `MAX_BETA` whose expected gain reaches `gain`; `MAX_BETA` where none does."""
    betas = torch.logspace(0.0, math.log10(MAX_BETA), N_BETAS, dtype=torch.float64).tolist()
    return next((beta for beta in betas if expected_gain(log_reward, log_density, beta) >= gain), MAX_BETA)
