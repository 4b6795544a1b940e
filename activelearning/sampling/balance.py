"""Space groups that count alike, however many compositions and cells each can have.

P1 holds every composition, a cubic group a few; so of two groups whose crystals are equally good the sampler draws the
first vastly more often. Dividing the reward by the measure of a group's crystals in the space takes that away: each
group then weighs as much as its crystals are good.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from activelearning.candidate import Candidate, CrystalCandidate
from activelearning.contracts.sampler import Proposal
from activelearning.errors import ConfigError, InputError

N_DRAWS = 50_000  # untrained, some tens of the rarest of 230 groups


@runtime_checkable
class TellsUntrained(Protocol):
    """A sampler that knows how likely its untrained draws are."""

    def untrained(self, n: int, *, seed: int) -> tuple[list[Proposal], Tensor]:
        """Untrained draws, with the log-densities, `n`, with which they were drawn."""
        ...


class SpaceGroupBalance:
    """Log weight of a crystal: minus the logarithm of the measure of its space group, the mean over groups aside.

    The measure of a group is estimated as the mean of 1 / q over untrained draws, with q their density and 0 for draws
    of other groups.

    Args:
        sampler: Draws untrained crystals of the space.

    Raises:
        ConfigError: the sampler can't tell how likely its untrained draws are.
    """

    def __init__(self, sampler: object) -> None:
        if not isinstance(sampler, TellsUntrained):
            raise ConfigError(
                f"balance: the sampler {type(sampler).__name__} can't tell how likely its untrained draws are (a "
                f"method untrained(n, seed)); take the gflownet, or leave `balance` out."
            )
        self._sampler = sampler

    @cached_property
    def log_measures(self) -> dict[int, float]:
        """Logarithm of the measure of each group's crystals, by international number."""
        proposals, log_q = self._sampler.untrained(N_DRAWS, seed=0)
        groups = torch.tensor([_group(proposal.candidate) for proposal in proposals])
        numbers, index = groups.unique(return_inverse=True)
        sums = torch.full((len(numbers),), -torch.inf, dtype=torch.float64)
        for i in range(len(numbers)):
            sums[i] = (-log_q[index == i]).logsumexp(0)
        logs = sums - torch.tensor(float(len(proposals))).log()
        return dict(zip(numbers.tolist(), logs.tolist(), strict=True))

    def __call__(self, candidates: Sequence[Candidate]) -> Tensor:
        """Log weights, `n`, float64.

        Raises:
            InputError: the measure of a crystal's group is not known.
        """
        known = self.log_measures
        groups = [_group(candidate) for candidate in candidates]
        missing = sorted(set(groups) - set(known))
        if missing:
            raise InputError(
                f"balance: space group {missing[0]} did not come up in {N_DRAWS} untrained draws, so that its share of "
                f"the space is not known. Leave it out of space.space_groups, or `balance` out."
            )
        middle = sum(known.values()) / len(known)
        return torch.tensor([middle - known[group] for group in groups], dtype=torch.float64)


def _group(candidate: Candidate) -> int:
    assert isinstance(candidate, CrystalCandidate)
    return candidate.space_group
