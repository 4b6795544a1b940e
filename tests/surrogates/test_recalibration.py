"""Intervals that are too narrow are widened by what cross-validation says, and models stay coherent under it."""

from __future__ import annotations

import math

import pytest
import torch

from activelearning.candidate import BoxCandidate
from activelearning.fidelity import Fidelity
from activelearning.measurement import Censoring
from activelearning.observation import Observation
from activelearning.spaces.box import BoxSpace
from surrogates.coregionalised_gp import CoregionalisedGP, Hyperparameters, Units
from surrogates.data import Data
from surrogates.multi_fidelity_gp import MultiFidelityGP
from surrogates.recalibration import MOST, PRIOR_WEIGHT, inflation

HYPERPARAMETERS = Hyperparameters(
    torch.tensor([0.4, 0.7], dtype=torch.float64),
    torch.tensor([1.2, 0.7], dtype=torch.float64),
    torch.tensor([[1.0, -0.8], [-0.8, 1.0]], dtype=torch.float64),
    torch.tensor([1e-2, 5e-2], dtype=torch.float64),
)
UNITS = Units(
    torch.tensor([-4.0, 100.0], dtype=torch.float64), torch.tensor([2.0, 30.0], dtype=torch.float64)
)
INFLATION = torch.tensor([4.0, 0.5], dtype=torch.float64)


def inputs(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return torch.cat([features, torch.randint(0, 2, (n, 1), generator=generator).double()], dim=-1)


def gp(factors: torch.Tensor | None = INFLATION) -> CoregionalisedGP:
    X = inputs(12, 0)
    Y = torch.randn(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return CoregionalisedGP(HYPERPARAMETERS, UNITS, X, Y, HYPERPARAMETERS.noise[X[:, -1].long()], factors)


def test_means_stay_and_variances_grow() -> None:
    X = inputs(7, 2)
    plain, inflated = gp(None).posterior(X, observation_noise=True), gp().posterior(X, observation_noise=True)
    torch.testing.assert_close(inflated.mean, plain.mean)
    factor = INFLATION[X[:, -1].long()]
    torch.testing.assert_close(
        inflated.distribution.covariance_matrix,
        factor.sqrt()[:, None] * plain.distribution.covariance_matrix * factor.sqrt(),
    )
    mean, projected = gp().project(X)
    torch.testing.assert_close(mean, plain.mean.squeeze(-1))
    covariance = gp().prior_covariance(X, X) - projected.T @ projected
    torch.testing.assert_close(covariance, gp().posterior(X).distribution.covariance_matrix)


@pytest.mark.parametrize("steps", [1, 2])
def test_further_answers_move_it_as_they_move_the_gaussian_that_it_is(steps: int) -> None:
    known, X = inputs(4, 3), inputs(5, 4)
    Y = torch.tensor([-3.0, 120.0, 80.0, -6.0], dtype=torch.float64)
    rows = torch.cat([known, X])
    before = gp().posterior(rows)
    covariance, mean = before.distribution.covariance_matrix, before.mean.squeeze(-1)
    noisy = covariance[:4, :4] + torch.diag(gp().noise_variance(known))
    gain = torch.linalg.solve(noisy, covariance[:4, 4:]).T
    model = gp()
    for part in torch.arange(4).tensor_split(steps):
        model = model.condition_on_observations(known[part], Y[part].unsqueeze(-1))
    after = model.posterior(X)
    torch.testing.assert_close(after.mean.squeeze(-1), mean[4:] + gain @ (Y - mean[:4]))
    torch.testing.assert_close(
        after.distribution.covariance_matrix, covariance[4:, 4:] - gain @ covariance[:4, 4:]
    )


def test_the_factor_is_the_shrunk_mean_square_of_errors_left_out() -> None:
    X = torch.cat([inputs(9, 5)[:, :-1], torch.zeros(9, 1, dtype=torch.float64)], dim=-1)
    Y = torch.linspace(-1.0, 1.0, 9, dtype=torch.float64)
    zero = torch.zeros(9, dtype=torch.float64)
    _, place = torch.unique(X[:, :-1], dim=0, return_inverse=True)
    squares = []
    for i in range(9):
        rest = place % 3 != place[i] % 3
        model = CoregionalisedGP(
            HYPERPARAMETERS,
            Units(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)),
            X[rest],
            Y[rest],
            torch.full((int(rest.sum()),), 1e-2, dtype=torch.float64),
        )
        prediction = model.posterior(X[i : i + 1], observation_noise=True)
        squares.append(float((Y[i] - prediction.mean).square() / prediction.variance))
    assert max(squares) > MOST  # one answer is taken for five standard deviations at most
    squares = [min(square, MOST) for square in squares]
    found = inflation(Data(X, Y, zero, zero), 2, lambda _: HYPERPARAMETERS)
    expected = (PRIOR_WEIGHT + sum(squares)) / (PRIOR_WEIGHT + 9)
    assert found.tolist() == pytest.approx([expected, 1.0])
    # Predictions that are better than they say stay as they are.
    assert inflation(Data(X, 0.01 * Y, zero, zero), 2, lambda _: HYPERPARAMETERS).tolist() == [1.0, 1.0]


def observations(n: int, d: int, seed: int) -> tuple[list[Observation], list[Observation]]:
    x = torch.rand(n + 100, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = torch.sin(9.0 * x[:, 0]) + torch.cos(7.0 * x[:, 1]) * x[:, 2]
    all_of_them = [
        Observation(BoxCandidate(tuple(row)), 0, float(value))
        for row, value in zip(x.tolist(), y.tolist(), strict=True)
    ]
    return all_of_them[:n], all_of_them[n:]


def test_overfitted_lengthscales_are_found_out() -> None:
    space = BoxSpace([[0, 1]] * 12)
    inside: dict[bool, list[bool]] = {False: [], True: []}
    for seed in range(4):
        known, held_out = observations(20, 12, seed)
        surrogate = MultiFidelityGP(space, [Fidelity("y", 0, "y", None, 1.0, True)])
        figures = surrogate.fit(known, seed=seed)
        prediction = surrogate.predict([o.candidate for o in held_out], 0)
        truth = torch.tensor([o.value for o in held_out], dtype=torch.float64)
        for is_inflated in (False, True):
            std = prediction.std if is_inflated else prediction.std / math.sqrt(figures["inflation"]["y"])
            inside[is_inflated] += ((truth - prediction.mean).abs() <= 1.645 * std).tolist()
    plain, inflated = (sum(found) / len(found) for found in (inside[False], inside[True]))
    assert plain < 0.8
    assert 0.82 <= inflated <= 0.98


def test_bounds_alone_and_single_candidates_leave_the_factor_at_one() -> None:
    surrogate = MultiFidelityGP(BoxSpace([[0, 1]]), [Fidelity("y", 0, "y", None, 1.0, True)])
    candidates = [BoxCandidate((0.1 * i,)) for i in range(5)]
    bounds = [Observation(c, 0, 1.0, None, Censoring.UPPER) for c in candidates]
    assert surrogate.fit(bounds, seed=0)["inflation"]["y"] == 1.0
    one = [Observation(candidates[0], 0, 1.0), Observation(candidates[0], 0, 1.1)]
    assert surrogate.fit(one, seed=0)["inflation"]["y"] == 1.0
