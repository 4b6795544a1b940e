"""Growing a forest on measurements."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from oracles.ml_proxy.forest import Forest

N_TREES = 200
Array = npt.NDArray[np.float64]


def fit_forest(x: Array, y: Array, *, seed: int) -> Forest:
    """Fit extremely randomised trees (Geurts, Ernst & Wehenkel, Mach. Learn. 63, 2006) to `n x d` and `n`.

    A bound enters with the bound as its value: what is below the limit of detection is learned to lie at it. Lowering
    bounds to a model's own prediction changes no figure of cross-validation.
    """
    from sklearn.ensemble import ExtraTreesRegressor

    model = ExtraTreesRegressor(N_TREES, min_samples_leaf=2, max_features=0.5, random_state=seed)
    return Forest.from_sklearn(model.fit(x.astype(np.float32), y).estimators_)
