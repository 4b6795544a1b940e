"""Predictions that are too narrow are widened by what cross-validation says."""

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


def inputs(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return torch.cat([features, torch.randint(0, 2, (n, 1), generator=generator).double()], dim=-1)


def test_the_factor_makes_errors_left_out_what_they_should_be() -> None:
    X = torch.cat([inputs(9, 5)[:, :-1], torch.zeros(9, 1, dtype=torch.float64)], dim=-1)
    Y = torch.linspace(-1.0, 1.0, 9, dtype=torch.float64)
    zero = torch.zeros(9, dtype=torch.float64)
    _, place = torch.unique(X[:, :-1], dim=0, return_inverse=True)
    found = inflation(Data(X, Y, zero, zero), 2, lambda _: HYPERPARAMETERS)
    total = PRIOR_WEIGHT / float(found[0])
    for i in range(9):
        rest = place % 3 != place[i] % 3
        model = CoregionalisedGP(
            HYPERPARAMETERS,
            Units(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)),
            X[rest],
            Y[rest],
            torch.full((int(rest.sum()),), 1e-2, dtype=torch.float64),
        )
        prediction = model.posterior(X[i : i + 1])
        variance = float(prediction.variance)
        square = min(float((Y[i] - prediction.mean).square()), MOST * (variance + 1e-2))
        total += square / (float(found[0]) * variance + 1e-2)
    assert total == pytest.approx(9 + PRIOR_WEIGHT)
    assert found[0] > 1.5
    assert found[1] == 1.0  # nothing is known of it
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
