"""Learned costs against the dense form of the same model, and what they do with little and much to learn from."""

import math

import pytest
import torch
from scipy import stats

from activelearning.acquisition import learned_cost
from activelearning.acquisition.learned_cost import LearnedCost


def charges(
    n: int, slope: float = 0.0, scatter: float = 0.1, bias: float = 0.5, seed: int = 0
) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    foreseen = 1.0 + 4.0 * torch.rand(n, generator=generator, dtype=torch.float64)
    noise = scatter * torch.randn(n, generator=generator, dtype=torch.float64)
    ratio = math.log(bias) + slope * (x[:, 0] - 0.5) + noise
    return x, foreseen, foreseen * ratio.exp()


def test_evidence_and_prediction_are_those_of_the_dense_model() -> None:
    x, foreseen, charged = charges(12, slope=1.0)
    model = LearnedCost.fit(x, foreseen, charged)
    rows = torch.cat([x, foreseen.log().unsqueeze(-1)], dim=-1)
    z = (rows - rows.mean(0)) / rows.std(0, correction=0)
    ratio = (charged / foreseen).log()
    a, b, kappa = 2.0, 0.1, 10.0
    evidences = []
    for tau in learned_cost._SLOPE_VARIANCES:
        kernel = kappa + tau * z @ z.T / 4
        shape = (torch.eye(12, dtype=torch.float64) + kernel) * b / a
        evidences.append(stats.multivariate_t.logpdf(ratio.numpy(), shape=shape.numpy(), df=2 * a))
        evidence, _, _ = learned_cost._posterior(z, ratio, tau)
        assert evidence - learned_cost._posterior(z, ratio, 0.0)[0] == pytest.approx(
            evidences[-1] - evidences[0]
        )
    assert model.slope_variance == learned_cost._SLOPE_VARIANCES[evidences.index(max(evidences))] > 0.0
    new = torch.tensor([[0.2, 0.9, 0.4], [0.9, 0.1, 0.3]], dtype=torch.float64)
    word = torch.tensor([2.0, 3.0], dtype=torch.float64)
    z_new = (torch.cat([new, word.log().unsqueeze(-1)], dim=-1) - rows.mean(0)) / rows.std(0, correction=0)
    kernel = kappa + model.slope_variance * z @ z.T / 4
    cross = kappa + model.slope_variance * z_new @ z.T / 4
    expected = word * (cross @ torch.linalg.solve(torch.eye(12, dtype=torch.float64) + kernel, ratio)).exp()
    torch.testing.assert_close(model.predict(new, word), expected)


def test_without_charges_the_oracle_s_word_stands() -> None:
    x, foreseen, _ = charges(5)
    nothing = LearnedCost.fit(x[:0], foreseen[:0], foreseen[:0])
    assert torch.equal(nothing.predict(x, foreseen), foreseen)


def test_a_few_charges_correct_the_scale_and_many_the_candidates() -> None:
    x, foreseen, charged = charges(3)
    few = LearnedCost.fit(x, foreseen, charged)
    assert float((few.predict(x, foreseen) / foreseen).mean()) == pytest.approx(0.5, rel=0.15)
    x, foreseen, charged = charges(60, slope=1.5, scatter=0.05, bias=0.3)
    many = LearnedCost.fit(x, foreseen, charged)
    test_x, word, truth = charges(200, slope=1.5, scatter=0.0, bias=0.3, seed=1)
    error = (many.predict(test_x, word) / truth).log()
    assert float(error.square().mean().sqrt()) < 0.05
    assert many.scatter == pytest.approx(0.05, abs=0.05)


def test_candidates_are_told_apart_only_where_charges_say_so() -> None:
    x, foreseen, charged = charges(40, scatter=0.3)
    assert LearnedCost.fit(x, foreseen, charged).slope_variance == 0.0


def test_no_more_is_expected_than_can_be_charged() -> None:
    x, foreseen, _ = charges(10)
    model = LearnedCost.fit(x, foreseen, foreseen)
    assert bool((model.predict(x, foreseen) <= foreseen).all())


def test_a_few_noisy_charges_promise_nothing_cheap_far_from_them() -> None:
    """The ratio is the same everywhere; slopes that noise makes within a cluster reach ten times as far as it."""
    lowest, median = [], []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        x = 0.5 + 0.05 * (torch.rand(8, 6, generator=generator, dtype=torch.float64) - 0.5)
        word = torch.full((8,), 10.0, dtype=torch.float64)
        noise = 0.6 * torch.randn(8, generator=generator, dtype=torch.float64)
        model = LearnedCost.fit(x, word, word * (math.log(0.61) + noise).clamp_max(0.0).exp())
        far = torch.rand(256, 6, generator=generator, dtype=torch.float64)
        found = model.predict(far, torch.full((256,), 10.0, dtype=torch.float64))
        lowest.append(float(found.min()))
        median.append(float(found.median()))
    # Of 160 normal deviates none is beyond four.
    assert min(lowest) > 6.1 * math.exp(-4 * 0.6)
    assert sum(median) / 20 == pytest.approx(6.1, rel=0.25)


def test_what_lies_between_the_charges_is_predicted_as_if_there_were_no_bound() -> None:
    x, foreseen, charged = charges(40, slope=2.0, scatter=0.2, bias=0.3)
    model = LearnedCost.fit(x, foreseen, charged)
    assert model.slope_variance > 0.0
    shares = torch.rand(200, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 8
    rows = shares / shares.sum(1, keepdim=True) @ torch.cat([x, foreseen.log().unsqueeze(-1)], dim=-1)
    line = model.weights[0] + (rows - model.centre) / model.scale @ model.weights[1:]
    word = rows[:, -1].exp()
    torch.testing.assert_close(model.predict(rows[:, :-1], word), word * line.exp())
    # Beyond the charges the least of the line holds, in proportion to the oracle's word.
    beyond = torch.full((1, 3), -5.0, dtype=torch.float64)
    assert float(model.predict(beyond, word[:1]) / word[0]) == pytest.approx(math.exp(model.least))


def test_constant_features_and_costs_are_no_trouble() -> None:
    one = torch.ones(6, dtype=torch.float64)
    model = LearnedCost.fit(torch.full((6, 2), 0.1, dtype=torch.float64), one, 0.25 * one)
    moved = model.predict(torch.full((1, 2), 0.9, dtype=torch.float64), one[:1])
    assert float(moved) == pytest.approx(0.25, rel=0.05)
