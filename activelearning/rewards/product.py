"""The reward of several properties together: the product of the rewards of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from activelearning.candidate import Candidate
from activelearning.errors import ActiveLearningError, ConfigError
from activelearning.rewards.properties import PropertySource, PropertyValues
from activelearning.rewards.shapings import LogLinear, Shaping


@dataclass(frozen=True)
class Term:
    """One factor of a reward.

    Attributes:
        source: Tells the property.
        shaping: Turns it into log rewards.
    """

    source: PropertySource
    shaping: Shaping


@dataclass(frozen=True)
class Evaluated:
    """What a reward makes of n candidates.

    Attributes:
        properties: Each term's property, in the order of the terms.
        log_rewards: log R, `n`, float64.
    """

    properties: tuple[PropertyValues, ...]
    log_rewards: Tensor


@dataclass(frozen=True)
class ProductReward:
    """log R = Σ log R_p over one or more properties; a `LogReward`.

    Attributes:
        terms: The factors.
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("a reward needs at least one term")

    def __call__(self, candidates: Sequence[Candidate], fidelities: Sequence[int] | None = None) -> Tensor:
        """Log rewards, `n`, float64; fidelities mean nothing to it."""
        return self.evaluate(candidates).log_rewards

    def evaluate(self, candidates: Sequence[Candidate]) -> Evaluated:
        """The properties of candidates, and their log rewards.

        Raises:
            ActiveLearningError: a property or its shaping fails, with the property's name.
        """
        properties = tuple(term.source(candidates) for term in self.terms)
        log_rewards = torch.zeros(len(candidates), dtype=torch.float64)
        for term, found in zip(self.terms, properties, strict=True):
            try:
                log_rewards = log_rewards + term.shaping(found.values, found.stds)
            except ActiveLearningError as error:
                raise type(error)(f"The reward of {term.source.name!r}: {error}") from error
        return Evaluated(properties, log_rewards)

    def fitted(self, candidates: Sequence[Candidate]) -> ProductReward:
        """The same reward with every `beta: auto` made a number.

        Args:
            candidates: Untrained samples, of which some must have each property.

        Raises:
            ConfigError: none of them has a property, or it does not vary where `beta` is 'auto'.
        """
        terms = []
        for term in self.terms:
            found = term.source(candidates)
            if found.n_failed == len(candidates):
                raise ConfigError(
                    f"None of {len(candidates)} candidates of the space has the property {term.source.name!r}: "
                    f"{found.reason}."
                )
            shaping = term.shaping
            if isinstance(shaping, LogLinear):
                try:
                    shaping = shaping.fitted(found.values, found.stds)
                except ActiveLearningError as error:
                    raise type(error)(f"The reward of {term.source.name!r}: {error}") from error
            terms.append(Term(term.source, shaping))
        return ProductReward(tuple(terms))
