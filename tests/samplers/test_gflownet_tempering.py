"""The exponent chosen by importance sampling, against integrals."""

import math

import pytest
import torch

from samplers.gflownet.tempering import MAX_BETA, choose_beta, expected_gain


def uniform_draws(n=20_000):
    return torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("beta", [1.0, 2.0, 5.0])
def test_gain_of_a_power_law(beta):
    # R(x) = x on (0, 1): E[R] under p ∝ x^β is (β + 1) / (β + 2), by chance 1/2.
    log_reward = uniform_draws().log()
    gain = expected_gain(log_reward, torch.zeros_like(log_reward), beta)
    assert gain == pytest.approx(2.0 * (beta + 1.0) / (beta + 2.0), rel=0.02)


def test_the_density_of_the_draws_is_divided_out():
    # x = sqrt(v) has density 2x; chance then gives E[R] = 2/3, while p ∝ x^β is as before.
    x = uniform_draws().sqrt()
    gain = expected_gain(x.log(), (2.0 * x).log(), 2.0)
    assert gain == pytest.approx((3.0 / 4.0) / (2.0 / 3.0), rel=0.02)


def test_the_least_sufficient_exponent_is_chosen():
    log_reward = uniform_draws().log()
    flat = torch.zeros_like(log_reward)
    beta = choose_beta(log_reward, flat, 1.6)  # 2 (β + 1) / (β + 2) = 1.6 at β = 3
    assert beta == pytest.approx(3.0, rel=0.1)
    assert choose_beta(log_reward, flat, 1.0) == 1.0
    assert choose_beta(log_reward, flat, 2.5) == MAX_BETA  # no exponent reaches more than 2


def test_many_decades_do_not_overflow():
    log_reward = torch.linspace(-3000.0, 700.0, 100, dtype=torch.float64)
    assert math.isfinite(expected_gain(log_reward, torch.zeros_like(log_reward), MAX_BETA))
