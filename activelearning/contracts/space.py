"""The contract of a search space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from activelearning.candidate import Candidate


@runtime_checkable
class Space(Protocol):
    """A set of candidates with features.

    A space is made from the config's `space:` mapping, less its `type`, as keywords. It names its usual
    sampler by `default_sampler` (a plug-in name).
    """

    kind: str
    default_sampler: str

    @property
    def n_features(self) -> int:
        """Width d of the feature vector."""
        ...

    def features(self, candidates: Sequence[Candidate]) -> Tensor:
        """Features, `n x d`, float64, each scaled to [0, 1]; equal keys give equal rows."""
        ...

    def to_json(self, candidate: Candidate) -> dict[str, Any]:
        """Canonical JSON value of a candidate."""
        ...

    def from_json(self, value: Mapping[str, Any]) -> Candidate:
        """Read a candidate back and validate it."""
        ...

    def validate(self, candidate: Candidate) -> None:
        """Check membership.

        Raises:
            ValueError: with the constraint that is broken.
        """
        ...
