"""What an answer costs: what is reserved for it, and what it is expected to be charged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from activelearning.acquisition.learned_cost import LearnedCost
from activelearning.campaign.parts import Parts
from activelearning.candidate import Candidate
from activelearning.errors import OracleError


@dataclass(frozen=True)
class Charge:
    """What one answer was charged, and what had been reserved for it."""

    candidate: Candidate
    fidelity: int
    reserved: float
    charged: float


class Costs:
    """Costs of one campaign.

    Where the charge is fixed, both are the configured cost. Where it is measured, what the oracle foresees is reserved
    and limits the charge; what is expected is learned from earlier charges, and until there are some is the same.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._learned: dict[int, LearnedCost] = {}

    @property
    def measured(self) -> list[str]:
        """Names of the fidelities whose charge is measured."""
        return [source.name for source in self._parts.sources if source.config.charge == "measured"]

    def reserved(self, fidelity: int, candidate: Candidate) -> float:
        """What one answer reserves: the configured cost where the charge is fixed, else the oracle's own word.

        Raises:
            OracleError: the oracle's word is no positive number; nothing could be reserved by it.
        """
        source = self._parts.sources[fidelity]
        if source.config.charge == "fixed":
            return source.fidelity.cost
        try:
            cost = float(source.oracle.cost(candidate))
        except Exception as error:
            raise OracleError(
                f"fidelities.{source.name}: cost() of the oracle {source.config.oracle!r} raised "
                f"{type(error).__name__}: {error}."
            ) from error
        if not (math.isfinite(cost) and cost > 0.0):
            raise OracleError(
                f"fidelities.{source.name}: cost() of the oracle {source.config.oracle!r} returned {cost}; "
                f"it must be a positive number."
            )
        return cost

    def learn(self, charges: Sequence[Charge]) -> dict[str, Any]:
        """Learn what answers cost, by fidelity; replaces what was learned before.

        Returns:
            By fidelity `n` charges, `bias` (median charge over what was foreseen, at average features), `scatter` (of
            the logarithm of that ratio) and `slope_variance` (0: the ratio does not depend on the candidate).
        """
        self._learned, figures = {}, {}
        for index in sorted({charge.fidelity for charge in charges}):
            mine = [charge for charge in charges if charge.fidelity == index]
            learned = LearnedCost.fit(
                self._parts.space.features([charge.candidate for charge in mine]),
                torch.tensor([charge.reserved for charge in mine], dtype=torch.float64),
                torch.tensor([charge.charged for charge in mine], dtype=torch.float64),
            )
            self._learned[index] = learned
            figures[self._parts.sources[index].name] = {
                "n": learned.n,
                "bias": math.exp(float(learned.weights[0])),
                "scatter": learned.scatter,
                "slope_variance": learned.slope_variance,
            }
        return figures

    def expected(self, pairs: Sequence[tuple[Candidate, int]]) -> Tensor:
        """What answers of (candidate, fidelity) are expected to be charged (the median), `n`.

        Raises:
            OracleError: as `reserved`.
        """
        costs = torch.tensor(
            [self.reserved(index, candidate) for candidate, index in pairs], dtype=torch.float64
        )
        for index, learned in self._learned.items():
            rows = [i for i, (_, fidelity) in enumerate(pairs) if fidelity == index]
            if rows:
                features = self._parts.space.features([pairs[i][0] for i in rows])
                costs[rows] = learned.predict(features, costs[rows])
        return costs
