"""A set of crystals with what the reward says of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import torch

from activelearning.candidate import BoxCandidate, Candidate, CrystalCandidate
from activelearning.contracts.space import Space
from activelearning.errors import ConfigError
from activelearning.rewards import ProductReward
from activelearning.sampling.statistics import Array

BLOCK = 1000  # crystals handed to an oracle at once


@dataclass(frozen=True)
class Crystals:
    """n crystals, their properties and log rewards.

    Attributes:
        crystals: The crystals.
        properties: Each property, `n`; NaN where it could not be told.
        log_rewards: log R, `n`.
        reason: Why the first property that could not be told could not; None where all could.
    """

    crystals: tuple[CrystalCandidate, ...]
    properties: Mapping[str, Array]
    log_rewards: Array
    reason: str | None

    def __len__(self) -> int:
        return len(self.crystals)

    @property
    def n_failed(self) -> int:
        """Crystals of which a property could not be told."""
        unknown = np.zeros(len(self), dtype=bool)
        for values in self.properties.values():
            unknown |= np.isnan(values)
        return int(unknown.sum())

    def lists(self) -> dict[str, list[float]]:
        """The properties as plain numbers."""
        return {name: values.tolist() for name, values in self.properties.items()}

    def ranking(self) -> list[int]:
        """Rows of the distinct crystals, the highest reward first."""
        rows, seen = [], set()
        for row in np.argsort(-self.log_rewards, kind="stable").tolist():
            if self.crystals[row].key not in seen:
                seen.add(self.crystals[row].key)
                rows.append(row)
        return rows


def as_crystals(candidates: Sequence[Candidate]) -> tuple[CrystalCandidate, ...]:
    """The candidates, which must be crystals.

    Raises:
        ConfigError: one is none.
    """
    crystals = tuple(crystal for crystal in candidates if isinstance(crystal, CrystalCandidate))
    if len(crystals) < len(candidates):
        raise _no_crystals({c.kind for c in candidates if not isinstance(c, CrystalCandidate)})
    return crystals


def check_holds_crystals(space: Space) -> None:
    """Refuse a space that is known to hold none, before anything is asked about it.

    Raises:
        ConfigError: it holds points.
    """
    if space.kind == BoxCandidate.kind or getattr(space, "is_crystal", True) is False:
        raise _no_crystals({BoxCandidate.kind})


def _no_crystals(kinds: Set[str]) -> ConfigError:
    return ConfigError(
        f"space.type: sampling on its own writes crystals, and this space holds candidates of kind "
        f"{', '.join(sorted(kinds))}; choose the space 'crystal', or a 'pool' of crystals."
    )


def evaluate(reward: ProductReward, candidates: Sequence[Candidate]) -> Crystals:
    """Ask a reward about crystals.

    Raises:
        ConfigError: a candidate is no crystal.
        ActiveLearningError: a property can't be asked for.
    """
    crystals = as_crystals(candidates)
    names = [term.source.name for term in reward.terms]
    columns: dict[str, list[Array]] = {name: [] for name in names}
    log_rewards: list[Array] = []
    reason = None
    for begin in range(0, len(crystals), BLOCK):
        found = reward.evaluate(crystals[begin : begin + BLOCK])
        for name, values in zip(names, found.properties, strict=True):
            columns[name].append(values.values.numpy())
            reason = reason or values.reason
        log_rewards.append(found.log_rewards.numpy())
    none = [np.zeros(0)]
    return Crystals(
        crystals=crystals,
        properties={name: np.concatenate(blocks or none) for name, blocks in columns.items()},
        log_rewards=np.concatenate(log_rewards or none),
        reason=reason,
    )


def one_thread() -> None:
    """Hold torch to one thread, so that equal seeds give equal bits on every machine of a kind."""
    torch.set_num_threads(1)
