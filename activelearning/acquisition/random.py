"""Random utilities: the baseline that every acquisition must beat."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import torch
from torch import Tensor

from activelearning.contracts import AcquisitionContext, Scorer


class RandomAcquisition:
    """Utilities that know nothing."""

    supports_many_targets: ClassVar[bool] = True

    def build(self, context: AcquisitionContext) -> Scorer:
        """A scorer seeded by the context."""
        return RandomScorer(context.seed)


class RandomScorer:
    """Utilities uniform in (0, 1), a fixed function of the seed and the query, whatever is scored beside it."""

    def __init__(self, seed: int) -> None:
        self._seed = str(seed).encode()

    def add_pending(self, X: Tensor) -> None:
        """Nothing depends on queries in flight."""

    def __call__(self, X: Tensor) -> Tensor:
        """Utilities, `n`, of queries `n x (d + 1)`; their gradient is zero."""
        values = []
        for row in X.detach().to(torch.float64).contiguous().numpy():
            first = hashlib.sha256(self._seed + b":" + (row + 0.0).tobytes()).digest()[:8]
            values.append((int.from_bytes(first, "big") + 0.5) / 2.0**64)
        return torch.tensor(values, dtype=X.dtype)
