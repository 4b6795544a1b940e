"""Regression trees as plain arrays, so that a fitted forest is a small file without code in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CHUNK = 2048  # rows a pass, to bound the memory of n x n_trees node indices


@dataclass(frozen=True)
class Forest:
    """Binary regression trees, stored one after another with each tree in depth-first order.

    A node's left child is the next node; its right child is `jump` nodes on. A jump of 0 marks a leaf. Rows go left
    where their feature is at most the threshold.

    Attributes:
        roots: First node of each tree, `n_trees`, int64.
        features: Column a node looks at, `n_nodes`, int16.
        jumps: Distance to the right child, `n_nodes`, int32.
        numbers: Threshold of a node, or value of a leaf, `n_nodes`, float32.
    """

    roots: npt.NDArray[np.int64]
    features: npt.NDArray[np.int16]
    jumps: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.float32]

    @classmethod
    def from_sklearn(cls, estimators: Sequence[Any]) -> Forest:
        """Take the trees of a fitted scikit-learn forest over.

        Raises:
            ValueError: a tree is not in depth-first order (grown with `max_leaf_nodes`).
        """
        roots, features, jumps, numbers = [], [], [], []
        offset = 0
        for estimator in estimators:
            tree = estimator.tree_
            is_leaf = tree.children_left < 0
            nodes = np.arange(tree.node_count)
            if not (tree.children_left[~is_leaf] == nodes[~is_leaf] + 1).all():
                raise ValueError("trees must be stored depth-first: grow them without max_leaf_nodes")
            # The library compares float32 features with float64 thresholds; the largest float32 that is not above
            # the threshold splits them in the same way.
            thresholds = tree.threshold.astype(np.float32)
            thresholds = np.where(
                thresholds > tree.threshold, np.nextafter(thresholds, np.float32(-np.inf)), thresholds
            )
            roots.append(offset)
            features.append(np.where(is_leaf, 0, tree.feature))
            jumps.append(np.where(is_leaf, 0, tree.children_right - nodes))
            numbers.append(np.where(is_leaf, tree.value[:, 0, 0], thresholds))
            offset += tree.node_count
        return cls(
            roots=np.array(roots, dtype=np.int64),
            features=np.concatenate(features).astype(np.int16),
            jumps=np.concatenate(jumps).astype(np.int32),
            numbers=np.concatenate(numbers).astype(np.float32),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Forest:
        """Read a forest back from `arrays()`."""
        return cls(**{name: arrays[name] for name in ("roots", "features", "jumps", "numbers")})

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name."""
        return {"roots": self.roots, "features": self.features, "jumps": self.jumps, "numbers": self.numbers}

    @property
    def summary(self) -> str:
        """What it is, in words."""
        return (
            f"{len(self.roots)} extremely randomised trees, at least two rows a leaf, half of the descriptors tried "
            f"at a split"
        )

    def predict(self, x: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean over the trees and variance between them, each `n`, of rows `n x d`.

        A row's answer does not depend on the rows beside it, to the last bit.
        """
        x32 = np.ascontiguousarray(x, dtype=np.float32)
        parts = [self._leaf_values(x32[start : start + CHUNK]) for start in range(0, len(x32), CHUNK)]
        leaves = np.concatenate(parts) if parts else np.zeros((0, len(self.roots)))
        return leaves.mean(axis=1), leaves.var(axis=1)

    def _leaf_values(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        rows = np.arange(len(x))[:, None]
        nodes = np.repeat(self.roots[None, :], len(x), axis=0)
        while (jumps := self.jumps[nodes]).any():
            goes_left = (x[rows, self.features[nodes]] <= self.numbers[nodes]) & (jumps > 0)
            nodes += np.where(goes_left, 1, jumps)
        return self.numbers[nodes].astype(np.float64)
