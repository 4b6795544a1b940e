"""Folds of cross-validation that split no group of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from activelearning.errors import InputError


def grouped_folds(groups: npt.NDArray[np.int64], n_folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Fold of each row, `n`: no group is split, and folds are about equal in size.

    Groups are dealt, the largest first and equal ones in random order, to the fold with the fewest rows.

    Raises:
        InputError: there are fewer groups than folds.
    """
    sizes = np.bincount(groups)
    if len(sizes) < n_folds:
        raise InputError(
            f"The data fall into {len(sizes)} groups of rows that share a composition or a publication; "
            f"cross-validation needs at least {n_folds}."
        )
    order = np.random.default_rng(seed).permutation(len(sizes))
    load = np.zeros(n_folds, dtype=np.int64)
    fold_of_group = np.zeros(len(sizes), dtype=np.int64)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        fold_of_group[group] = np.argmin(load)
        load[fold_of_group[group]] += sizes[group]
    return fold_of_group[groups]


def splits(folds: npt.NDArray[np.int64]) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Rows to train and rows to test, fold by fold."""
    for fold in range(int(folds.max()) + 1):
        yield np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
