"""The measurement of coverage itself: a model that is right by construction is found right, a wrong one wrong."""

from __future__ import annotations

import numpy as np
import pytest
import surrogate_coverage as coverage

from activelearning.candidate import BoxCandidate
from activelearning.fidelity import Fidelity
from activelearning.measurement import Censoring
from activelearning.spaces.box import BoxSpace

N = 400


@pytest.fixture
def universe():
    rng = np.random.default_rng(0)
    x = rng.random((N, 2))
    # Smooth over the box, with noise of one tenth at the target: what the surrogate's prior describes.
    smooth = np.sin(3.0 * x[:, 0]) + x[:, 1] ** 2
    answers = np.stack([smooth + 0.3, smooth + rng.normal(0.0, 0.1, N)], axis=1)
    is_bound = np.zeros((N, 2), dtype=bool)
    is_bound[::7, 1] = True
    answers[is_bound] += 0.2
    return coverage.Universe(
        BoxSpace(bounds=[(0.0, 1.0), (0.0, 1.0)]),
        (Fidelity("low", 0, "y", None, 0.1, False), Fidelity("high", 1, "y", None, 1.0, True)),
        [BoxCandidate(tuple(row)) for row in x.tolist()],
        answers,
        is_bound,
        0,
    )


def test_scores_of_gaussian_answers():
    rng = np.random.default_rng(1)
    mean, std = rng.normal(size=20_000), rng.uniform(0.5, 2.0, 20_000)
    truth = rng.normal(mean, std)
    found = coverage.score(truth, mean, std)
    assert found["coverage_50"] == pytest.approx(0.5, abs=0.015)
    assert found["coverage_90"] == pytest.approx(0.9, abs=0.01)
    assert found["width"] == pytest.approx(1.6449 * std.mean() / truth.std(), rel=1e-4)
    # Half the standard deviation: P(|z| < 1.645 / 2) = 0.589.
    assert coverage.score(truth, mean, std / 2)["coverage_90"] == pytest.approx(0.589, abs=0.015)


def test_draws_are_distinct_and_the_campaign_design_prefers_what_looks_good(universe):
    rows = {d: coverage.draw(universe, d, 100, np.random.default_rng(2)) for d in coverage.DESIGNS}
    assert all(len(set(r.tolist())) == 100 for r in rows.values())
    means = {d: universe.answers[r, universe.guide].mean() for d, r in rows.items()}
    assert means["campaign"] > means["random"] + 0.2 * universe.answers[:, 0].std()


def test_training_sets_are_nested_and_bounds_are_bounds(universe):
    rows = np.arange(50)
    observations = coverage.training_set(universe, rows, 50)
    by_fidelity = {i: [o for o in observations if o.fidelity == i] for i in (0, 1)}
    assert {i: len(found) for i, found in by_fidelity.items()} == {0: 40, 1: 10}
    assert {o.candidate for o in by_fidelity[1]} <= {o.candidate for o in by_fidelity[0]}
    assert [o.censoring for o in by_fidelity[1]][:2] == [Censoring.UPPER, Censoring.NONE]
    assert all(o.value == universe.answers[row, 1] for row, o in zip(rows, by_fidelity[1], strict=False))


def test_the_surrogate_covers_a_function_it_was_made_for(universe):
    runs = [coverage.measure(universe, "random", 200, seed)["fidelities"] for seed in range(4)]
    assert 0.8 <= np.mean([run["high"]["coverage_90"] for run in runs]) <= 0.97
    assert max(run["high"]["error"] for run in runs) < 0.3
    assert max(run["low"]["error"] for run in runs) < 0.1
    assert runs[0]["high"]["n"] < coverage.N_TEST  # bounds are not scored
    assert runs[0]["low"]["n"] == coverage.N_TEST


def test_rows_are_means_over_seeds(tmp_path):
    import json

    for design in coverage.DESIGNS:
        for n in coverage.SIZES:
            for seed, share in enumerate((0.8, 0.9)):
                figures = {
                    "coverage_50": 0.5,
                    "coverage_90": share,
                    "error": 1.0,
                    "width": 1.0,
                    "z": [1.0, -1.0, 2.0, 4.0],
                }
                found = {
                    "fidelities": {"high": figures},
                    "figures": {"loo_coverage_90": {"high": 0.95}, "inflation": {"high": 1.0 + 3.0 * seed}},
                }
                (tmp_path / f"t-{design}-{n}-{seed}.json").write_text(json.dumps(found))
    rows = coverage.summarise(tmp_path, 2, ["t"])
    assert len(rows) == len(coverage.DESIGNS) * len(coverage.SIZES)
    assert rows[0]["coverage_90"] == pytest.approx(0.85)
    assert rows[0]["coverage_90_interval"] == pytest.approx(
        12.706 * 0.05, rel=1e-3
    )  # t with one degree of freedom
    assert rows[0]["mean_square_z"] == pytest.approx(5.5)
    assert rows[0]["inflation"] == pytest.approx(2.5)
    assert "Outside of 80% to 97% are 0 of 6" in coverage.table(rows, 2, "m", "d")
