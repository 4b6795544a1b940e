"""The array forest against scikit-learn's own prediction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor

from oracles.ml_proxy.forest import CHUNK, Forest


def data(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    # Whole numbers and repeats, so that thresholds meet values.
    x = np.where(rng.random((n, 6)) < 0.5, rng.integers(0, 4, (n, 6)), rng.normal(size=(n, 6)))
    return x, x[:, 0] ** 2 + 3.0 * (x[:, 1] > 0.5) + rng.normal(size=n)


@pytest.mark.parametrize("kind", [ExtraTreesRegressor, RandomForestRegressor])
def test_predictions_are_those_of_the_library(kind):
    x, y = data(200)
    model = kind(20, min_samples_leaf=2, random_state=0).fit(x.astype(np.float32), y)
    new = np.vstack([x, data(3 * CHUNK, seed=1)[0]])
    mean, variance = Forest.from_sklearn(model.estimators_).predict(new)
    trees = np.array([tree.predict(new.astype(np.float32)) for tree in model.estimators_])
    np.testing.assert_allclose(mean, trees.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(variance, trees.var(axis=0), atol=1e-4)


def test_rows_on_a_threshold_go_the_same_way():
    x, y = data(100)
    model = ExtraTreesRegressor(5, random_state=0).fit(x.astype(np.float32), y)
    forest = Forest.from_sklearn(model.estimators_)
    rows = []
    for tree in (estimator.tree_ for estimator in model.estimators_):
        for feature, threshold in zip(tree.feature, tree.threshold, strict=True):
            if feature >= 0:
                nearest = np.float32(threshold)
                for value in (
                    nearest,
                    np.nextafter(nearest, np.float32(9)),
                    np.nextafter(nearest, np.float32(-9)),
                ):
                    row = x[0].astype(np.float32)
                    row[feature] = value
                    rows.append(row)
    rows = np.array(rows)
    np.testing.assert_allclose(forest.predict(rows)[0], model.predict(rows), atol=1e-5)


@given(seed=st.integers(0, 1000), n=st.integers(1, 9))
@settings(max_examples=30)
def test_an_answer_does_not_depend_on_its_batch(seed, n):
    x, y = data(80)
    forest = Forest.from_sklearn(
        ExtraTreesRegressor(13, random_state=0).fit(x.astype(np.float32), y).estimators_
    )
    new = data(n, seed)[0]
    mean, variance = forest.predict(new)
    for i in range(n):
        alone = forest.predict(new[i : i + 1])
        assert (alone[0][0], alone[1][0]) == (mean[i], variance[i])


def test_it_survives_a_round_trip_and_an_empty_batch():
    x, y = data(50)
    forest = Forest.from_sklearn(
        ExtraTreesRegressor(3, random_state=0).fit(x.astype(np.float32), y).estimators_
    )
    again = Forest.from_arrays(forest.arrays())
    assert (again.predict(x)[0] == forest.predict(x)[0]).all()
    assert forest.predict(np.zeros((0, 6)))[0].shape == (0,)


def test_trees_in_another_order_are_refused():
    x, y = data(50)
    model = ExtraTreesRegressor(3, max_leaf_nodes=8, random_state=0).fit(x.astype(np.float32), y)
    with pytest.raises(ValueError, match="max_leaf_nodes"):
        Forest.from_sklearn(model.estimators_)
