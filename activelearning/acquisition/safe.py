"""Utilities of a campaign that does not trust its cheaper sources without reserve."""

from __future__ import annotations

import torch
from torch import Tensor

from activelearning.contracts import Scorer


class AloneScorer:
    """A scorer of a model that knows the target alone, asked with queries `n x (d + 1)` of the whole campaign.

    Args:
        scorer: On the model whose one fidelity, the target, has the index 0.
        target: The target's index in the campaign; no other queries may be asked.
    """

    def __init__(self, scorer: Scorer, target: int) -> None:
        self._scorer = scorer
        self._target = target

    def add_pending(self, X: Tensor) -> None:
        """Condition on further queries in flight, `q x (d + 1)`; those of other fidelities tell it nothing."""
        self._scorer.add_pending(only_fidelity(X[X[:, -1] == self._target]))

    def __call__(self, X: Tensor) -> Tensor:
        """Utilities, `n`."""
        return self._scorer(only_fidelity(X))


class SafeScorer:
    """Utilities where the other fidelities may be out of money, or refuted.

    Args:
        joint: By the model of all fidelities.
        alone: Takes the target's queries; None leaves them to `joint`.
        target: Index of the target.
        others_allowed: Whether any query of another fidelity may be made; if not, it is worth nothing.
    """

    def __init__(
        self, joint: Scorer, alone: AloneScorer | None, target: int, *, others_allowed: bool
    ) -> None:
        self._joint = joint
        self._alone = alone
        self._target = target
        self._others_allowed = others_allowed

    def add_pending(self, X: Tensor) -> None:
        """Condition on further queries in flight, `q x (d + 1)`."""
        self._joint.add_pending(X)
        if self._alone is not None:
            self._alone.add_pending(X)

    def __call__(self, X: Tensor) -> Tensor:
        """Utilities, `n`, of queries `n x (d + 1)`."""
        at_target = X[:, -1] == self._target
        utilities = X.new_zeros(len(X))
        for rows, scorer in (
            (at_target, self._joint if self._alone is None else self._alone),
            (~at_target & self._others_allowed, self._joint),
        ):
            if bool(rows.any()):
                utilities = utilities.index_put((rows.nonzero().flatten(),), scorer(X[rows]))
        return utilities


def only_fidelity(X: Tensor) -> Tensor:
    """The same features at the fidelity of index 0, `... x (d + 1)`."""
    return torch.cat([X[..., :-1], torch.zeros_like(X[..., -1:])], dim=-1)
