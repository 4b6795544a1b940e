"""The function oracle against BoTorch's functions, published optima and its own contract."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from botorch.test_functions import BraninCurrin
from botorch.test_functions.multi_fidelity import AugmentedBranin, AugmentedHartmann, BoreholeMultiFidelity
from botorch.test_functions.synthetic import Branin, Hartmann
from hypothesis import given, settings
from hypothesis import strategies as st

from activelearning.candidate import BoxCandidate, CrystalCandidate
from activelearning.contracts import OracleContext, OracleLike
from activelearning.errors import ConfigError
from oracles.function import FUNCTIONS, FunctionOracle

SOURCES = [(name, level) for name, function in FUNCTIONS.items() for level in function.levels]


def make(**params) -> FunctionOracle:
    oracle = FunctionOracle(**params)
    oracle.bind(OracleContext("c", "low", "y", None, 1.0, "sqlite://", Path("unused")))
    return oracle


def points(name: str, n: int, seed: int = 0) -> np.ndarray:
    low, high = np.array(FUNCTIONS[name].bounds).T
    return low + (high - low) * np.random.default_rng(seed).random((n, len(low)))


def values(oracle: FunctionOracle, x: np.ndarray) -> np.ndarray:
    answers = oracle.evaluate([BoxCandidate(tuple(row)) for row in x])
    return np.array([answer.values["y"].value for answer in answers])


def augmented(function, x: np.ndarray, s: float) -> np.ndarray:
    column = np.full((len(x), 1), s)
    # The formula itself: BoTorch's usual domain of Borehole is another one.
    return function._evaluate_true(torch.from_numpy(np.hstack([x, column]))).numpy()


@pytest.mark.parametrize(("level", "s"), [("target", 1.0), ("high", 1.0), ("medium", 0.75), ("low", 0.5)])
@pytest.mark.parametrize(
    ("name", "reference"), [("branin", AugmentedBranin()), ("hartmann6", AugmentedHartmann())]
)
def test_levels_agree_with_botorch(name, reference, level, s):
    x = points(name, 200)
    found = values(make(function=name, fidelity=level), x)
    np.testing.assert_allclose(found, augmented(reference, x, s), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "reference"), [("branin", Branin()), ("hartmann6", Hartmann(dim=6))])
def test_target_agrees_with_the_single_fidelity_function(name, reference):
    x = points(name, 200, seed=1)
    expected = reference.evaluate_true(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(values(make(function=name), x), expected, rtol=1e-6, atol=1e-7)


def test_borehole_agrees_with_botorch():
    x = points("borehole", 200)
    # BoTorch orders r_w, r, T_u, T_l, H_u, H_l, L, K_w and calls its highest fidelity 0.
    permuted = x[:, [0, 1, 2, 4, 3, 5, 6, 7]]
    expected = augmented(BoreholeMultiFidelity(), permuted, 0.0)
    np.testing.assert_allclose(values(make(function="borehole"), x), expected, rtol=1e-10)


def test_low_borehole_follows_the_published_formula():
    x = points("borehole", 50, seed=2)
    for row, found in zip(x, values(make(function="borehole", fidelity="low"), x), strict=True):
        r_w, r, t_u, h_u, t_l, h_l, length, k_w = row
        log_ratio = math.log(r / r_w)
        bracket = 1.5 + 2 * length * t_u / (log_ratio * r_w**2 * k_w) + t_u / t_l
        assert found == pytest.approx(5 * t_u * (h_u - h_l) / (log_ratio * bracket), rel=1e-9)


def test_branin_and_currin_on_the_unit_square_are_botorch_s_pair():
    x = points("currin", 200, seed=5)
    pair = BraninCurrin()(torch.from_numpy(x)).numpy()
    on_the_cube = values(make(function="branin", unit_cube=True), x)
    np.testing.assert_allclose(on_the_cube, pair[:, 0], rtol=1e-6)
    np.testing.assert_allclose(values(make(function="currin"), x), pair[:, 1], rtol=1e-6)
    assert make(function="branin", unit_cube=True).content() != make(function="branin").content()
    assert "unit_cube" not in make(function="branin").content()  # answers kept from before it stay valid


def test_low_currin_is_the_mean_of_four_neighbours_and_finite_at_the_edge():
    x = np.array([[0.3, 0.4], [0.7, 0.02], [0.2, 0.0]])
    for (x1, x2), found in zip(x, values(make(function="currin", fidelity="low"), x), strict=True):
        near = [(x1 + a, max(x2 + b, 0.0)) for a in (0.05, -0.05) for b in (0.05, -0.05)]
        assert found == pytest.approx(values(make(function="currin"), np.array(near)).mean())


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=list(FUNCTIONS))
def test_optimum_is_attained_and_not_beaten(function):
    oracle = make(function=function.name)
    sign = 1.0 if function.direction == "minimize" else -1.0
    attained = values(oracle, np.array(function.optimizers))
    np.testing.assert_allclose(attained, function.optimum, rtol=1e-6)
    x = points(function.name, 5000, seed=3)
    if function.name == "borehole":
        x = np.vstack([x, list(itertools.product(*function.bounds))])
    assert (sign * values(oracle, x) >= sign * function.optimum - 1e-9).all()


def test_published_optima():
    assert FUNCTIONS["branin"].optimum == pytest.approx(0.397887, abs=1e-6)
    assert FUNCTIONS["hartmann6"].optimum == pytest.approx(-3.32237, abs=1e-5)
    assert FUNCTIONS["borehole"].optimum == pytest.approx(309.5756, abs=1e-3)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_cheap_levels_are_biased_yet_informative(name):
    x = points(name, 2000, seed=4)
    high = values(make(function=name), x)
    low = values(make(function=name, fidelity="low"), x)
    assert np.abs(high - low).max() > 0.01
    assert np.corrcoef(high, low)[0, 1] > 0.5


@pytest.mark.parametrize(("name", "level"), SOURCES)
def test_reversed_is_the_negative(name, level):
    x = points(name, 20)
    straight = values(make(function=name, fidelity=level), x)
    assert (values(make(function=name, fidelity=level, reversed=True), x) == -straight).all()


@given(seed=st.integers(0, 2**32 - 1), source=st.sampled_from(SOURCES), n=st.integers(1, 9))
@settings(max_examples=40)
def test_an_answer_does_not_depend_on_its_batch(seed, source, n):
    name, level = source
    oracle = make(function=name, fidelity=level, noise_std=0.1)
    x = points(name, n, seed=seed)
    alone = [values(oracle, row[None, :])[0] for row in x]
    assert values(oracle, x).tolist() == alone


def test_noise_has_its_std_and_is_seeded_by_the_evaluation():
    x = points("branin", 4000)
    quiet, noisy = make(function="branin"), make(function="branin", noise_std=2.0)
    noise = values(noisy, x) - values(quiet, x)
    assert noise.std() == pytest.approx(2.0, rel=0.05)
    assert abs(noise.mean()) < 0.15
    assert (values(noisy, x) == values(make(function="branin", noise_std=2.0), x)).all()
    candidate = BoxCandidate(tuple(x[0]))
    assert noisy.evaluate([candidate])[0].values["y"].std == 2.0
    noisy.expect({candidate.key: "f" * 64})
    replicate = noisy.evaluate([candidate])[0].values["y"].value
    assert replicate != values(make(function="branin", noise_std=2.0), x[:1])[0]


def test_bad_candidates_fail_alone():
    good = BoxCandidate((1.0, 2.0))
    crystal = CrystalCandidate(225, {"Li": 4, "F": 4}, (4.0, 4.0, 4.0, 90.0, 90.0, 90.0))
    answers = make(function="branin").evaluate([BoxCandidate((1.0,)), good, crystal])
    assert [answer.is_success for answer in answers] == [False, True, False]
    assert "space.bounds has 1" in answers[0].reason
    assert "space of type box" in answers[2].reason
    dry = make(function="borehole").evaluate([BoxCandidate((0.0,) * 8)])[0]
    assert "no finite value" in dry.reason
    assert make(function="branin").evaluate([]) == []


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"function": "brannin"}, "params.function must be one of branin"),
        ({"function": "borehole", "fidelity": "medium"}, "params.fidelity must be one of target, high, low"),
        ({"function": "branin", "noise_std": -1.0}, "noise_std"),
        ({"function": "branin", "noise_std": math.nan}, "noise_std"),
    ],
)
def test_wrong_parameters_are_refused(params, match):
    with pytest.raises(ConfigError, match=match):
        FunctionOracle(**params)


def test_content_is_the_same_for_the_same_source():
    assert (
        make(function="branin").content() == make(function="branin", fidelity="high", noise_std=0).content()
    )
    assert make(function="branin").content() != make(function="branin", reversed=True).content()
    assert isinstance(make(function="branin"), OracleLike)
