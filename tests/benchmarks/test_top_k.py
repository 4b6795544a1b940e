"""Mean and diversity of the best K."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from top_k import top_k


def test_against_pairs_one_by_one():
    rng = np.random.default_rng(0)
    values, x = rng.normal(size=30), rng.random((30, 4))
    found = top_k(values, x, 6)
    best = sorted(range(30), key=lambda i: -values[i])[:6]
    assert found.rows.tolist() == best
    assert found.mean == pytest.approx(sum(values[i] for i in best) / 6)
    distances = [math.dist(x[i], x[j]) for i, j in itertools.combinations(best, 2)]
    assert found.diversity == pytest.approx(sum(distances) / len(distances) / 2.0)


def test_corners_of_the_cube_are_one_apart():
    assert top_k([1.0, 2.0], [[0, 0, 0], [1, 1, 1]], 2).diversity == pytest.approx(1.0)


def test_a_candidate_counts_once_by_its_best_value():
    found = top_k([3.0, 5.0, 4.0, 1.0], [[0.1], [0.1], [0.9], [0.5]], 3)
    assert found.rows.tolist() == [1, 2, 3]
    assert found.mean == pytest.approx((5.0 + 4.0 + 1.0) / 3)


def test_minimisation_takes_the_least():
    assert top_k([3.0, 1.0, 2.0], [[0.0], [0.5], [1.0]], 2, maximize=False).rows.tolist() == [1, 2]


def test_fewer_than_k_and_rows_without_a_value():
    found = top_k([math.nan, 2.0], [[0.0], [1.0]], 5)
    assert (found.k, found.mean, found.rows.tolist()) == (1, 2.0, [1])
    assert math.isnan(found.diversity)
    nothing = top_k([], np.zeros((0, 2)), 3)
    assert nothing.k == 0
    assert math.isnan(nothing.mean)


@pytest.mark.parametrize(
    ("values", "x", "k", "message"),
    [
        ([1.0], [[0.0]], 0, "at least 1"),
        ([1.0, 2.0], [[0.0]], 1, "not n and n x d"),
        ([1.0], [[math.inf]], 1, "finite"),
    ],
)
def test_bad_input_is_refused(values, x, k, message):
    with pytest.raises(ValueError, match=message):
        top_k(values, x, k)
