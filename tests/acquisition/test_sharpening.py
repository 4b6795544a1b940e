"""The exponent of the reward, against integrals over a power law."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from activelearning.acquisition.sharpening import MAX_EXPONENT, expected_gain, least_exponent, sharpen


def _uniform(n: int = 20_000) -> torch.Tensor:
    return torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("exponent", [1.0, 2.0, 5.0])
def test_gain_of_a_power_law(exponent: float) -> None:
    # R(x) = x on (0, 1): E[R] under p ∝ x^e is (e + 1) / (e + 2), by chance 1/2.
    logs = _uniform().log()
    gain = expected_gain(logs, torch.zeros_like(logs), exponent)
    assert gain == pytest.approx(2 * (exponent + 1) / (exponent + 2), rel=0.02)


def test_least_sufficient_exponent() -> None:
    logs = _uniform().log()
    anchors = torch.zeros_like(logs)
    assert least_exponent(logs, anchors, 1.6) == pytest.approx(3.0, rel=0.1)  # 2 (e + 1) / (e + 2) = 1.6 at 3
    assert least_exponent(logs, anchors, 1.0) == 1.0
    assert least_exponent(logs, anchors, 2.5) == MAX_EXPONENT  # no exponent reaches more than 2


@given(st.floats(1.0, 32.0), st.floats(-20.0, 20.0), st.floats(-20.0, 20.0))
def test_the_best_of_each_fidelity_keeps_its_reward(exponent: float, first: float, second: float) -> None:
    anchors = torch.tensor([first, second], dtype=torch.float64)
    assert torch.equal(sharpen(anchors, anchors, exponent), anchors)


def test_many_decades_do_not_overflow() -> None:
    logs = torch.linspace(-3000.0, 600.0, 100, dtype=torch.float64)
    assert 1.0 <= expected_gain(logs, logs.max().expand_as(logs), MAX_EXPONENT) <= 100.0 + 1e-9
