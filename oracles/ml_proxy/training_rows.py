"""What a model of measurements was trained on, kept with its weights: so that no row is judged by what has seen it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from activelearning.candidate import digest
from oracles.ml_proxy.data import CrystalTable, Mark

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrainingRows:
    """The rows a model was trained on, their folds, and what cross-validation predicted for them.

    Attributes:
        descriptors: `n x d`.
        values: Measured values, `n`, for a bound the bound.
        is_bound: True where the truth is at most the value, `n`.
        groups: Numbers of groups, `n`; see `CrystalTable.groups`.
        folds: Fold of each row, `n`; no group is split.
        keys: Numbers of the crystals, `n`; see `CrystalTable.keys`.
        mean: Predicted for each row when its fold was left out, `n`.
        variance: Stated with it, before calibration, `n`.
        marks: Compositions and publications of the rows as numbers, `m`, ascending.
        mark_folds: The fold that each of them is in, `m`.
    """

    descriptors: Array
    values: Array
    is_bound: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.int64]
    folds: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint64]
    mean: Array
    variance: Array
    marks: npt.NDArray[np.uint64]
    mark_folds: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls,
        descriptors: Array,
        table: CrystalTable,
        folds: npt.NDArray[np.int64],
        mean: Array,
        variance: Array,
    ) -> TrainingRows:
        """Take the rows of a table.

        Args:
            descriptors: `n x d`.
            table: The rows, `n`.
            folds: Fold of each, `n`.
            mean: Predicted for each when its fold was left out, `n`.
            variance: Stated with it, `n`.
        """
        fold_of = {
            _number(mark): fold
            for marks, fold in zip(table.marks(), folds.tolist(), strict=True)
            for mark in marks
        }
        marks = sorted(fold_of)
        return cls(
            descriptors=descriptors,
            values=table.values,
            is_bound=table.is_bound,
            groups=table.groups(),
            folds=folds,
            keys=table.keys(),
            mean=mean,
            variance=variance,
            marks=np.array(marks, dtype=np.uint64),
            mark_folds=np.array([fold_of[mark] for mark in marks], dtype=np.int64),
        )

    def folds_of(self, table: CrystalTable) -> list[frozenset[int]]:
        """For each row of any table, the folds that hold its composition or a publication of its; often none."""
        fold_of = dict(zip(self.marks.tolist(), self.mark_folds.tolist(), strict=True))
        return [
            frozenset(fold_of[number] for mark in marks if (number := _number(mark)) in fold_of)
            for marks in table.marks()
        ]

    def outside(self, folds: frozenset[int]) -> npt.NDArray[np.int64]:
        """Numbers of the rows in none of some folds."""
        return np.flatnonzero(~np.isin(self.folds, sorted(folds)))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name; a regressor that keeps the descriptors, too, keeps them under the same one."""
        return {
            "descriptors": self.descriptors,
            "values": self.values,
            "is_bound": self.is_bound.astype(np.uint8),
            "groups": self.groups,
            "folds": self.folds,
            "keys": self.keys,
            "held_out_mean": self.mean,
            "held_out_variance": self.variance,
            "marks": self.marks,
            "mark_folds": self.mark_folds,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> TrainingRows:
        """Read the rows back from `arrays()`."""
        names = ("descriptors", "values", "groups", "folds", "keys", "marks", "mark_folds")
        return cls(
            is_bound=arrays["is_bound"].astype(np.bool_),
            mean=arrays["held_out_mean"],
            variance=arrays["held_out_variance"],
            **{name: arrays[name] for name in names},
        )


def _number(mark: Mark) -> int:
    """64 bits that stand for a composition or a publication."""
    return int(digest(mark)[:16], 16)
