"""Agreement of policy and reward, and reweighting, against closed forms and brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from activelearning.errors import SamplerError
from activelearning.spaces.box import BoxSpace
from samplers.gflownet import GFlowNetSampler
from samplers.gflownet.evaluation import Reweighted, agreement


def uniform_draws(n=40_000):
    return torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_an_exact_sampler_agrees_fully():
    log_reward = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    told = agreement(2.0 * log_reward - 3.7, log_reward)
    assert told.pearson == pytest.approx(1.0)
    assert told.spearman == pytest.approx(1.0)
    assert told.slope == pytest.approx(2.0)
    assert told.n == 50
    exact = Reweighted.of(2.0 * log_reward - 3.7, log_reward, beta=2.0)
    assert exact.log_z == pytest.approx(3.7)
    assert exact.effective_sample_size == pytest.approx(50.0)


def test_correlations_are_those_of_numpy_and_ranks():
    generator = torch.Generator().manual_seed(1)
    r = torch.randn(200, dtype=torch.float64, generator=generator)
    p = r.exp() + torch.randn(200, dtype=torch.float64, generator=generator)
    told = agreement(p, r)
    assert told.pearson == pytest.approx(np.corrcoef(p, r)[0, 1])
    ranks = [x.argsort().argsort().double().numpy() for x in (p, r)]
    assert told.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_a_constant_reward_has_no_correlation():
    told = agreement(torch.arange(5.0), torch.zeros(5))
    assert math.isnan(told.pearson)
    assert math.isnan(told.spearman)


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_the_rewards_own_distribution_is_told_from_samples_of_another(beta):
    # R(x) = x on (0, 1), samples uniform: p ∝ x^β has mean (β + 1) / (β + 2), median 2^(-1 / (β + 1)), Z = 1 / (β + 1).
    x = uniform_draws()
    found = Reweighted.of(torch.zeros_like(x), x.log(), beta=beta)
    mean, error = found.mean(x)
    assert mean == pytest.approx((beta + 1.0) / (beta + 2.0), abs=4.0 * error)
    assert error < 0.01
    assert found.quantiles(x, [0.5])[0] == pytest.approx(2.0 ** (-1.0 / (beta + 1.0)), abs=0.01)
    assert found.log_z == pytest.approx(-math.log(beta + 1.0), abs=0.02)
    # E[w]² / E[w²] of w = x^β.
    assert found.effective_sample_size / len(x) == pytest.approx((2 * beta + 1) / (beta + 1) ** 2, rel=0.03)


def test_the_standard_error_is_that_of_repeated_samples():
    means, errors = [], []
    for seed in range(300):
        x = torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        mean, error = Reweighted.of(torch.zeros_like(x), x.log(), beta=2.0).mean(x)
        means.append(mean)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.12)


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(1, 4)), min_size=3, max_size=12), st.floats(0.01, 1.0)
)
def test_quantiles_are_those_of_repeated_values(pairs, level):
    values = torch.tensor([value for value, _ in pairs], dtype=torch.float64)
    counts = torch.tensor([count for _, count in pairs], dtype=torch.float64)
    repeated = sorted(value for value, count in pairs for _ in range(count))
    expected = repeated[max(0, math.ceil(level * len(repeated) - 1e-9) - 1)]
    assert Reweighted.of(torch.zeros_like(values), counts.log()).quantiles(values, [level]) == [expected]


def test_a_trained_samplers_own_samples_follow_it():
    space = BoxSpace([(0.0, 1.0)])
    sampler = GFlowNetSampler(space, None, steps=60, hidden=[32, 32])

    def log_reward(candidates, fidelities):
        return -((space.features(candidates)[:, 0] - 0.4) ** 2) / (2 * 0.1**2)

    sampler.fit(log_reward, seed=0)
    proposals = sampler.sample(2000, seed=1)
    x = space.features([p.candidate for p in proposals])[:, 0]
    log_p = sampler.log_probability(proposals)
    log_r = log_reward([p.candidate for p in proposals], None)
    assert agreement(log_p, log_r).spearman > 0.95  # however far from converged
    found = Reweighted.of(log_p, log_r)
    assert found.log_z == pytest.approx(math.log(0.1 * math.sqrt(2 * math.pi)), abs=0.01)
    mean, error = found.mean(x)
    assert mean == pytest.approx(0.4, abs=5 * error)


def test_bad_input_is_refused():
    with pytest.raises(SamplerError, match="three or more"):
        agreement(torch.zeros(2), torch.zeros(2))
    with pytest.raises(SamplerError, match="finite"):
        Reweighted.of(torch.full((4,), -math.inf), torch.zeros(4))
    with pytest.raises(SamplerError, match="as many values"):
        Reweighted.of(torch.zeros(4), torch.zeros(4)).mean(torch.zeros(3))
