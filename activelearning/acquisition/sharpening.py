"""Sharpening a reward, so that sampling in proportion to it gains by it.

Of a flat reward, samples in proportion are hardly better than samples by chance: E[R] under p ∝ R exceeds E[R] under
chance by a factor of one plus the squared coefficient of variation. An exponent above 1 sharpens the reward. It is
applied among the candidates of one fidelity, about that fidelity's best known reward; between fidelities proportions
stay as the acquisition has them, or a dear fidelity would hardly be sampled at all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_EXPONENT = 32.0
N_EXPONENTS = 101


def sharpen(logs: Tensor, anchors: Tensor, exponent: float) -> Tensor:
    """log of (R / R_best)^exponent · R_best, elementwise, for log R and the log of each row's R_best."""
    return anchors + exponent * (logs - anchors)


def expected_gain(logs: Tensor, anchors: Tensor, exponent: float) -> float:
    """Mean reward under probabilities ∝ the sharpened reward, over the plain mean.

    Args:
        logs: log R of points drawn by chance, `n`.
        anchors: Log of the best reward at each point's fidelity, `n`.
        exponent: Exponent of the reward.
    """
    weights = sharpen(logs, anchors, exponent)
    sampled = (weights + logs).logsumexp(0) - weights.logsumexp(0)
    return math.exp(float(sampled - logs.logsumexp(0)) + math.log(len(logs)))


def least_exponent(logs: Tensor, anchors: Tensor, gain: float) -> float:
    """The least exponent from 1 to `MAX_EXPONENT` whose expected gain reaches `gain`; the greatest where none does."""
    exponents = torch.logspace(0.0, math.log10(MAX_EXPONENT), N_EXPONENTS, dtype=torch.float64).tolist()
    return next((e for e in exponents if expected_gain(logs, anchors, e) >= gain), MAX_EXPONENT)
