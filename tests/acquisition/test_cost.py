import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from activelearning.acquisition.cost import log_per_cost, per_cost

ONE = torch.ones(1, dtype=torch.float64)
utilities = st.floats(-1e6, 1e6, allow_subnormal=False)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_utility_per_cost() -> None:
    found = per_cost(tensor(1.0, 2.0, 0.0), tensor(0.1, 10.0, 5.0))
    torch.testing.assert_close(found, tensor(10.0, 0.2, 0.0))
    torch.testing.assert_close(per_cost(tensor(4.0), tensor(4.0), 0.5), tensor(2.0))
    torch.testing.assert_close(per_cost(tensor(4.0), tensor(4.0), 0.0), tensor(4.0))


@given(utilities, st.floats(1e-3, 1e3), st.floats(1.0, 1e3), st.floats(0.0, 2.0))
def test_of_equal_utilities_the_dearer_never_wins(
    u: float, cost: float, factor: float, exponent: float
) -> None:
    cheap, dear = per_cost(tensor(u, u), tensor(cost, cost * factor), exponent).tolist()
    assert dear <= cheap * (1 + 1e-12) if u >= 0 else dear <= cheap * (1 - 1e-12)


@given(utilities, utilities)
def test_log_reward_is_finite_and_increasing(a: float, b: float) -> None:
    low, high = sorted((a, b))
    values = log_per_cost(tensor(low, high), tensor(2.0, 2.0), reference_utility=0.7)
    assert values.isfinite().all()
    assert float(values[0]) <= float(values[1])


def test_log_reward_is_the_logarithm_where_it_matters() -> None:
    u, c = tensor(0.7, 0.01, 3.0), tensor(0.1, 1.0, 50.0)
    found = log_per_cost(u, c, reference_utility=0.7)
    torch.testing.assert_close(found, (u / c).log())


def test_log_reward_keeps_a_slope_where_there_is_no_utility() -> None:
    u = tensor(1e-30, 1e-8, 0.0, -0.5, -1.0).requires_grad_(True)
    values = log_per_cost(u, ONE, reference_utility=1.0)
    values.sum().backward()
    assert u.grad is not None
    assert (u.grad > 0).all()
    assert float(values.detach().min()) > -60.0


@pytest.mark.parametrize("at", [1e-13, math.exp(-8.0)])
def test_log_reward_has_no_kinks(at: float) -> None:
    def slope(value: float) -> float:
        u = tensor(value).requires_grad_(True)
        log_per_cost(u, ONE, reference_utility=1.0).backward()
        assert u.grad is not None
        return float(u.grad)

    assert slope(at * (1 - 1e-6)) == pytest.approx(slope(at * (1 + 1e-6)), rel=1e-3)


def test_nothing_is_worth_anything_yet() -> None:
    values = log_per_cost(tensor(0.0, -1.0), tensor(1.0, 1.0), reference_utility=-1.0)
    assert values.isfinite().all()
