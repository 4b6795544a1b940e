"""Shapings against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from activelearning.errors import ConfigError
from activelearning.rewards import Exponential, Power, Shaping, TargetDistance

values = st.floats(-5.0, 5.0)
positive = st.floats(0.01, 5.0)
betas = st.floats(0.1, 20.0)
stds = st.floats(0.0, 2.0)
cautions = st.floats(0.0, 3.0)
TINY = 1e-300  # a floor that nothing here reaches


def one(shaping: Shaping, value: float, std: float | None = None) -> float:
    given_std = None if std is None else torch.tensor([std], dtype=torch.float64)
    (log_reward,) = shaping(torch.tensor([value], dtype=torch.float64), given_std).tolist()
    return float(log_reward)


@given(values, betas, stds, cautions)
def test_exponential_is_its_formula(x: float, beta: float, s: float, k: float) -> None:
    low = Exponential("minimize", beta=beta, floor=TINY, caution=k)
    high = Exponential("maximize", beta=beta, floor=TINY, caution=k)
    assert one(low, x, s) == pytest.approx(-beta * (x + k * s), rel=1e-12, abs=1e-12)
    assert one(high, x, s) == pytest.approx(beta * (x - k * s), rel=1e-12, abs=1e-12)


@given(positive, st.floats(0.1, 4.0))
def test_power_is_its_formula(x: float, beta: float) -> None:
    assert math.exp(one(Power("maximize", beta=beta, floor=TINY), x)) == pytest.approx(x**beta)
    assert math.exp(one(Power("minimize", beta=beta, floor=TINY), x)) == pytest.approx(x**-beta)


@given(values, values, betas, stds, cautions)
def test_target_distance_is_its_formula(x: float, t: float, beta: float, s: float, k: float) -> None:
    shaping = TargetDistance("maximize", target=t, beta=beta, floor=1e-320, caution=k)
    expected = max(-beta * ((x - t) ** 2 + (k * s) ** 2), math.log(1e-320))
    assert one(shaping, x, s) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(values, betas, st.floats(-20.0, 20.0))
def test_an_offset_is_added_to_the_log_reward(x: float, beta: float, offset: float) -> None:
    shaping = Exponential("minimize", beta=beta, floor=TINY)
    moved = Exponential("minimize", beta=beta, floor=TINY, offset=offset)
    assert one(moved, x) == pytest.approx(one(shaping, x) + offset, abs=1e-9)


@given(values, betas)
def test_target_direction_means_nothing(x: float, beta: float) -> None:
    up, down = (TargetDistance(d, target=1.34, beta=beta) for d in ("maximize", "minimize"))
    assert one(up, x) == one(down, x)


def test_a_caution_of_one_is_the_expected_squared_distance() -> None:
    normal = torch.distributions.Normal(2.0, 0.5)
    x = torch.linspace(-6.0, 10.0, 20001, dtype=torch.float64)
    expected = torch.trapezoid((x - 1.34).square() * normal.log_prob(x).exp(), x).item()
    shaping = TargetDistance("maximize", target=1.34, beta=1.0, floor=TINY, caution=1.0)
    assert -one(shaping, 2.0, 0.5) == pytest.approx(expected, rel=1e-6)


def test_published_rewards() -> None:
    energy = Exponential("minimize", beta=8.0)
    assert math.exp(one(energy, -0.5)) == pytest.approx(math.exp(4.0))
    assert math.exp(one(energy, 5.0)) == pytest.approx(1e-8)  # exp(-40) lies below the floor
    gap = TargetDistance("maximize", target=1.34, beta=8.0)
    assert one(gap, 1.34) == 0.0
    assert math.exp(one(gap, 0.34)) == pytest.approx(math.exp(-8.0))


@given(st.lists(values | st.just(math.nan), min_size=1, max_size=20), st.floats(1e-12, 1.0))
def test_log_rewards_are_finite_and_keep_the_floor(xs: list[float], floor: float) -> None:
    x = torch.tensor(xs, dtype=torch.float64)
    shapings = (
        Exponential("minimize", beta=8.0, floor=floor),
        Power("maximize", beta=2.0, floor=floor),
        TargetDistance("maximize", target=1.0, beta=8.0, floor=floor),
    )
    for shaping in shapings:
        log_rewards = shaping(x, None)
        assert log_rewards.dtype == torch.float64
        assert torch.isfinite(log_rewards).all()
        assert (log_rewards >= math.log(floor)).all()
        assert (log_rewards[x.isnan()] == math.log(floor)).all()


@given(st.floats(0.01, 100.0), st.floats(-50.0, 50.0))
def test_a_fitted_reward_does_not_depend_on_the_unit(scale: float, shift: float) -> None:
    x = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    low, median, high = torch.quantile(x, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    shaping = Exponential("minimize").fitted(x, None)
    assert shaping.beta == pytest.approx(8.0 / (high - low))
    assert one(shaping, median) == pytest.approx(0.0, abs=1e-9)
    scaled = Exponential("minimize").fitted(scale * x + shift, None)
    assert scaled(scale * x + shift, None).tolist() == pytest.approx(shaping(x, None).tolist(), abs=1e-6)


def test_a_stated_beta_stays_as_it_is() -> None:
    shaping = Exponential("minimize", beta=3.0)
    assert shaping.fitted(torch.zeros(4), None) is shaping


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Exponential("minimize", beta=0.0), "beta is 0.0; it must be above 0"),
        (lambda: Exponential("minimize", beta=math.nan), "beta is nan"),
        (lambda: Exponential("minimize", floor=0.0), "floor is 0.0; it must be above 0"),
        (lambda: Exponential("minimize", caution=-1.0), "caution is -1.0"),
        (lambda: TargetDistance("minimize", target=math.inf), "target is inf"),
        (lambda: Exponential("minimize", beta=1.0, offset=math.nan), "offset is nan"),
        (lambda: Exponential("minimize", offset=1.0), "offset is 1 and beta 'auto', which sets it"),
        (
            lambda: Exponential("minimize", beta=1.0, caution=1.0)(torch.zeros(2), None),
            "no standard deviation",
        ),
        (lambda: Exponential("minimize")(torch.zeros(2), None), "beta is 'auto'"),
        (lambda: Exponential("minimize").fitted(torch.ones(9), None), "does not vary"),
        (lambda: Power("minimize", beta=1.0)(torch.tensor([1.0, -2.0]), None), "one is -2"),
    ],
)
def test_what_can_not_be_done_is_said(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("shaping", "formula"),
    [
        (Exponential("minimize", beta=8.0), "max(exp(−8 x), 1e-08)"),
        (Exponential("maximize", beta=2.0, caution=1.0, floor=1e-3), "max(exp(2 (x − 1 s)), 0.001)"),
        (Power("minimize", beta=2.0), "max(x^−2, 1e-08)"),
        (Exponential("maximize", beta=3.0, offset=18.0), "max(exp(18) exp(3 x), 1e-08)"),
        (Exponential("maximize", beta=3.0, offset=-2.0), "max(exp(−2) exp(3 x), 1e-08)"),
        (TargetDistance("maximize", target=1.34, beta=8.0), "max(exp(−8 (x − 1.34)²), 1e-08)"),
        (
            TargetDistance("maximize", target=1.34, caution=2.0),
            "max(exp(−β ((x − 1.34)² + (2 s)²)), 1e-08)",
        ),
    ],
)
def test_a_shaping_tells_its_formula(shaping: Exponential, formula: str) -> None:
    assert shaping.formula == formula
