"""The funnel: search with the cheapest fidelity, ask the next dearer one of the best of it, and so on to the target.

A baseline, as high-throughput screening is done. What each level found decides alone what the next is asked: every
level is taken to order candidates as the target does, in the objective's direction.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from activelearning.campaign.parts import Parts
from activelearning.campaign.proposing import Pair, Plan, PlannedEvaluation, Proposer
from activelearning.candidate import Candidate
from activelearning.contracts.acquisition import Goals, Scorer
from activelearning.contracts.sampler import Proposal
from activelearning.fidelity import Fidelity
from activelearning.measurement import MeasuredValue
from activelearning.store.records import COST_TOLERANCE


@dataclass
class FunnelProposer(Proposer):
    """The work of one `propose` step of mode `funnel`.

    Attributes:
        answers: Every measured (candidate, fidelity name, value), in the stated order.
        charged: What is spent and reserved of each fidelity, by name.
    """

    answers: Sequence[tuple[Candidate, str, MeasuredValue]]
    charged: Mapping[str, float]

    def plan(self) -> Plan:
        """The next questions of the first level that has money left and something to ask."""
        levels = self.config.funnel
        for position, name in enumerate(levels):
            fidelity = self.parts.source(name).fidelity
            money = min(self.budget, self._left(name))
            if money * (1 + COST_TOLERANCE) < fidelity.cost:
                continue
            if position == 0:
                plan = self._searched(fidelity, money)
            elif self._is_pending(levels[:position]):
                break  # the best of a level are known when all of it has answered
            else:
                plan = self._promoted(fidelity, levels[position - 1], money)
            if plan.evaluations or self._is_pending([name]):
                return plan
        return Plan([])

    def _left(self, name: str) -> float:
        """What a level may still cost; the target takes what the others leave."""
        share = (self.config.acquisition.shares or {}).get(name)
        return (
            self.budget if share is None else share * self.config.budget.total - self.charged.get(name, 0.0)
        )

    def _is_pending(self, levels: Sequence[str]) -> bool:
        indices = {self.parts.source(name).fidelity.index for name in levels}
        return any(index in indices for _, index in self.pending)

    def _searched(self, fidelity: Fidelity, money: float) -> Plan:
        """A round of a campaign of which this fidelity is the target and the only one."""
        values = [value.value for _, name, value in self.answers if name == fidelity.name]
        is_maximised = self.parts.goals.objectives[0].maximize
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(Proposer)}
        own["parts"] = _with_target(self.parts, fidelity)
        own["budget"] = money
        own["slots"] = {index: n if index == fidelity.index else 0 for index, n in self.slots.items()}
        own["best"] = (max if is_maximised else min)(values, default=None)
        alone = _Alone(**own)
        plan = alone.plan()
        return dataclasses.replace(plan, summary={**plan.summary, "funnel": fidelity.name})

    def _promoted(self, fidelity: Fidelity, below: str, money: float) -> Plan:
        """The best of the level below that were not asked here, the best first."""
        begin = time.perf_counter()
        found: dict[Candidate, list[float]] = {}
        for candidate, name, value in self.answers:
            if name == below:
                found.setdefault(candidate, []).append(value.value)
        sign = -1.0 if self.parts.goals.objectives[0].maximize else 1.0
        ranked = sorted(found, key=lambda c: sign * sum(found[c]) / len(found[c]))
        fresh = [c for c in ranked if (c.key, fidelity.name) not in self.known]
        chosen: list[tuple[Candidate, float]] = []
        for candidate in fresh:
            cost = self.costs.reserved(fidelity.index, candidate)
            if len(chosen) < self.slots[fidelity.index] and cost <= money * (1 + COST_TOLERANCE):
                chosen.append((candidate, cost))
                money -= cost
        planned = []
        if chosen:
            prediction = self.parts.surrogate.predict([candidate for candidate, _ in chosen], fidelity.index)
            planned = [
                PlannedEvaluation(candidate, fidelity.index, cost, predicted_mean=mean, predicted_std=std)
                for (candidate, cost), mean, std in zip(
                    chosen, prediction.mean.tolist(), prediction.std.tolist(), strict=True
                )
            ]
        summary = {"funnel": fidelity.name, "pool": len(fresh), "chosen": len(planned)}
        return Plan(planned, summary, {"choice": time.perf_counter() - begin})


class _Alone(Proposer):
    """A proposer that asks the target alone."""

    def _with_fidelity(self, scorer: Scorer, proposals: Sequence[Proposal]) -> list[Pair]:
        target = self.parts.target.fidelity.index
        return [(proposal.candidate, target) for proposal in proposals]


def _with_target(parts: Parts, target: Fidelity) -> Parts:
    """Parts of which another fidelity is the target; candidates are sought for it alone, as in mode `random`."""
    sources = tuple(
        dataclasses.replace(
            source,
            fidelity=dataclasses.replace(source.fidelity, is_target=source.fidelity.index == target.index),
        )
        for source in parts.sources
    )
    goals = Goals((dataclasses.replace(parts.goals.objectives[0], fidelity=target.index),))
    return dataclasses.replace(parts, sources=sources, goals=goals, mode="random")
