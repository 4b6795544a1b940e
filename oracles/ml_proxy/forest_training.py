"""Growing a forest on measurements."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from oracles.ml_proxy.forest import Forest
from oracles.ml_proxy.splitting import splits

N_TREES = 200
Array = npt.NDArray[np.float64]


def fit_forest(x: Array, y: Array, *, n_trees: int | None = None, seed: int) -> Forest:
    """Fit extremely randomised trees (Geurts, Ernst & Wehenkel, Mach. Learn. 63, 2006) to `n x d` and `n`.

    A bound enters with the bound as its value: what is below the limit of detection is learned to lie at it. Lowering
    bounds to a model's own prediction changes no figure of cross-validation.
    """
    from sklearn.ensemble import ExtraTreesRegressor

    model = ExtraTreesRegressor(n_trees or N_TREES, min_samples_leaf=2, max_features=0.5, random_state=seed)
    return Forest.from_sklearn(model.fit(x.astype(np.float32), y).estimators_)


def cross_validate(
    x: Array, y: Array, folds: npt.NDArray[np.int64], *, n_trees: int, seed: int
) -> tuple[Array, Array]:
    """Mean and variance between trees, each `n`, of each row by the forest that was not shown its fold."""
    mean, variance = np.zeros(len(y)), np.zeros(len(y))
    for train_rows, test_rows in splits(folds):
        forest = fit_forest(x[train_rows], y[train_rows], n_trees=n_trees, seed=seed)
        mean[test_rows], variance[test_rows] = forest.predict(x[test_rows])
    return mean, variance
