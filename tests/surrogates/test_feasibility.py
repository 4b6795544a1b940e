"""Probabilities of an answer, against importance sampling from the prior."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from surrogates import feasibility as module
from surrogates.feasibility import MEAN, MEAN_VARIANCE, Feasibility


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_nothing_has_failed_yet() -> None:
    model = Feasibility()
    x, at = torch.rand(5, 3, dtype=torch.float64), torch.zeros(5, dtype=torch.long)
    assert (model.probability(x, at) == 1.0).all()
    model.fit(x, at, torch.ones(5, dtype=torch.bool))
    assert (model.probability(x, at) == 1.0).all()
    assert model.log_evidence is None


@pytest.mark.parametrize("amplitude", [0.5, 2.0])
def test_probabilities_and_evidence_are_those_of_the_model(monkeypatch, amplitude: float) -> None:
    monkeypatch.setattr(module, "AMPLITUDES", (amplitude,))
    monkeypatch.setattr(module, "LENGTHSCALES", (0.3,))
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.random((6, 2)))
    fidelity = torch.tensor([0, 0, 1, 1, 0, 1])
    answered = torch.tensor([True, False, False, True])
    model = Feasibility()
    model.fit(x[:4], fidelity[:4], answered)
    covariance = module._covariance(x, fidelity, x, fidelity, amplitude, 0.3).numpy()
    draws = MEAN + random.standard_normal((400_000, 6)) @ np.linalg.cholesky(covariance).T
    sign = np.where(answered.numpy(), 1.0, -1.0)
    weights = norm.cdf(sign * draws[:, :4]).prod(axis=1)
    expected = (weights[:, None] * norm.cdf(draws[:, 4:])).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(model.probability(x[4:], fidelity[4:]), expected, atol=0.01)
    assert model.log_evidence == pytest.approx(math.log(weights.mean()), abs=0.02)


def test_it_finds_where_evaluations_fail() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(150, 4, generator=generator, dtype=torch.float64)
    at = torch.randint(0, 2, (150,), generator=generator)
    # Beyond a plane, and in the second fidelity alone.
    fails = (x[:, 0] + x[:, 1] > 1.1) & (at == 1)
    model = Feasibility()
    model.fit(x[:100], at[:100], ~fails[:100])
    found = model.probability(x[100:], at[100:])
    truth = ~fails[100:]
    assert float(found[truth].mean()) > 0.85
    assert float(found[~truth].mean()) < 0.35
    ranks = (found[truth][:, None] > found[~truth][None, :]).double().mean()
    assert float(ranks) > 0.95


def test_far_from_all_failures_the_prior_remains() -> None:
    model = Feasibility()
    model.fit(tensor(0.0).reshape(1, 1), torch.tensor([0]), torch.tensor([False]))
    near, far = model.probability(tensor(0.0, 1e3).reshape(2, 1), torch.tensor([0, 1])).tolist()
    assert near < far < norm.cdf(MEAN / math.sqrt(1.0 + MEAN_VARIANCE)) + 1e-9


def test_gradients_and_many_rows() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(module.MAX_ROWS + 200, 3, generator=generator, dtype=torch.float64)
    at = torch.zeros(len(x), dtype=torch.long)
    model = Feasibility()
    model.fit(x, at, x[:, 2] < 0.8)
    low, high = model.probability(tensor(0.5, 0.5, 0.2, 0.5, 0.5, 0.95).reshape(2, 3), at[:2]).tolist()
    assert low > 0.9
    assert high < 0.2
    query = torch.rand(3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q: model.probability(q, at[:3]), (query,))
