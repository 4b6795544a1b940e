"""Rewards: what a sampler is trained on, from properties of crystals to log rewards.

A reward is any callable on a batch of candidates to log rewards (`activelearning.contracts.LogReward`). The ones here
are products over properties, each property shaped by a formula of the field:

    log R(x) = Σ_p log R_p(value of p at x)

R is a density against counting measure on discrete choices times Lebesgue measure on the unit-scaled continuous
parameters of a candidate (see `samplers.gflownet`).
"""

from activelearning.rewards.prior import Prior
from activelearning.rewards.product import Evaluated, ProductReward, Term
from activelearning.rewards.properties import OracleProperty, PropertySource, PropertyValues
from activelearning.rewards.shapings import Exponential, LogLinear, Power, Shaping, TargetDistance

__all__ = [
    "Evaluated",
    "Exponential",
    "LogLinear",
    "OracleProperty",
    "Power",
    "Prior",
    "ProductReward",
    "PropertySource",
    "PropertyValues",
    "Shaping",
    "TargetDistance",
    "Term",
]
