"""What has been measured of several objectives and constraints: candidates of use, their front, its hypervolume.

Plain Python on purpose: reports are read without torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from activelearning.measurement import Censoring
from activelearning.report.reading import Header, Limit, Sought
from activelearning.store.models import Evaluation, MeasurementRow, State

# The worst answer of a first round is moved out by this share of their range, so that it counts for something.
_MARGIN = 0.1


@dataclass(frozen=True)
class TargetResult:
    """One answer of a target fidelity, with its evaluation."""

    evaluation: Evaluation
    measured: MeasurementRow


@dataclass(frozen=True)
class MeasuredCandidate:
    """A candidate whose targets have all been measured: its results, in the order of objectives and constraints."""

    objectives: tuple[TargetResult, ...]
    constraints: tuple[TargetResult, ...]

    @property
    def values(self) -> tuple[float, ...]:
        """The objectives, each in its unit."""
        return tuple(result.measured.value for result in self.objectives)


@dataclass
class Archive:
    """Candidates by what has been measured of them at the targets; of several answers of one target the last counts.

    A bound counts as an objective's value where the truth is at least as good, and satisfies a constraint where it
    proves it.
    """

    campaign: Header
    reference: tuple[float | None, ...] = ()
    _results: dict[str, dict[str, TargetResult]] = field(default_factory=dict)

    def take(self, result: TargetResult) -> bool:
        """Take an answer in; whether its candidate is one of use now, or was."""
        key = result.evaluation.candidate_key
        mine = self._results.setdefault(key, {})
        before = self._candidate(mine)
        mine[result.evaluation.fidelity] = result
        return before is not None or self._candidate(mine) is not None

    def candidates(self) -> list[MeasuredCandidate]:
        """Those that keep every constraint, in the order of their first answers."""
        found = (self._candidate(mine) for mine in self._results.values())
        return [candidate for candidate in found if candidate is not None]

    def n_answered(self) -> int:
        """Candidates of which every target has answered, be it with a bound or against a constraint."""
        return sum(len(mine) == len(self.campaign.targets) for mine in self._results.values())

    def ranked(self) -> list[MeasuredCandidate]:
        """The results by their first objective, best first; of several objectives only what no other one beats."""
        candidates = self.candidates()
        if len(self.campaign.objectives) > 1:
            kept = non_dominated([self._gains(candidate) for candidate in candidates])
            candidates = [candidates[i] for i in kept]
        first = self.campaign.objectives[0]
        # Sorting is stable: equal values stay in the order of commitment.
        return sorted(candidates, key=lambda c: -c.values[0] if first.maximize else c.values[0])

    def hypervolume(self) -> float:
        """Of the front over the reference point, in the product of the objectives' units; 0 where either is missing."""
        known = [value for value in self.reference if value is not None]
        if len(known) < len(self.campaign.objectives):
            return 0.0
        floor = [o.sign * value for o, value in zip(self.campaign.objectives, known, strict=True)]
        return hypervolume([self._gains(candidate) for candidate in self.candidates()], floor)

    def summary(self) -> dict[str, Any] | None:
        """`{hypervolume, size, reference: {<property>: value}}` of the front; None before there is one."""
        size = len(self.ranked())
        if not size:
            return None
        properties = [o.prop for o in self.campaign.objectives]
        return {
            "hypervolume": self.hypervolume(),
            "size": size,
            "reference": dict(zip(properties, self.reference, strict=True)),
        }

    def _gains(self, candidate: MeasuredCandidate) -> tuple[float, ...]:
        return tuple(o.sign * v for o, v in zip(self.campaign.objectives, candidate.values, strict=True))

    def _candidate(self, results: dict[str, TargetResult]) -> MeasuredCandidate | None:
        objectives = [results.get(o.target) for o in self.campaign.objectives]
        constraints = [results.get(c.target) for c in self.campaign.constraints]
        told = [
            r
            for o, r in zip(self.campaign.objectives, objectives, strict=True)
            if r and _is_result(o, r.measured)
        ]
        kept = [
            r
            for c, r in zip(self.campaign.constraints, constraints, strict=True)
            if r and _is_kept(c, r.measured)
        ]
        if len(told) < len(objectives) or len(kept) < len(constraints):
            return None
        return MeasuredCandidate(tuple(told), tuple(kept))


def read_archive(session: Session, campaign: Header) -> Archive:
    """Everything that a campaign's targets have answered."""
    results = target_answers(session, campaign)
    archive = Archive(campaign, reference_of(campaign, results))
    for result in results:
        archive.take(result)
    return archive


def target_answers(session: Session, campaign: Header) -> list[TargetResult]:
    """Answers of the target fidelities, each of its own property, in the order of commitment."""
    on = and_(MeasurementRow.evaluation_key == Evaluation.key, MeasurementRow.property == Evaluation.property)
    query = (
        select(Evaluation, MeasurementRow)
        .join(MeasurementRow, on)
        .where(
            Evaluation.campaign == campaign.name,
            Evaluation.fidelity.in_(campaign.targets),
            Evaluation.state == State.SUCCEEDED,
        )
        .order_by(Evaluation.round, Evaluation.position)
    )
    return [TargetResult(evaluation, measured) for evaluation, measured in session.execute(query)]


def reference_of(campaign: Header, results: Sequence[TargetResult]) -> tuple[float | None, ...]:
    """From where hypervolumes are measured, in each objective's unit: as the config states it, else by first answers.

    Those of an objective's target in the first round that has any (the initial design) show a range; the reference is
    a tenth of it beyond the worst of them. So it stays as it is while the campaign goes on. None before an answer.
    """
    found: list[float | None] = []
    for objective in campaign.objectives:
        counted = [
            result
            for result in results
            if result.evaluation.fidelity == objective.target and _is_result(objective, result.measured)
        ]
        first = min((result.evaluation.round for result in counted), default=None)
        gains = [objective.sign * r.measured.value for r in counted if r.evaluation.round == first]
        if objective.reference is not None or not gains:
            found.append(objective.reference)
        else:
            found.append(objective.sign * (min(gains) - _MARGIN * (max(gains) - min(gains))))
    return tuple(found)


def _is_result(objective: Sought, measured: MeasurementRow) -> bool:
    return Censoring(measured.censoring or Censoring.NONE) != objective.optimistic


def _is_kept(limit: Limit, measured: MeasurementRow) -> bool:
    censoring = Censoring(measured.censoring or Censoring.NONE)
    above = limit.at_least is None or (censoring is not Censoring.UPPER and measured.value >= limit.at_least)
    below = limit.at_most is None or (censoring is not Censoring.LOWER and measured.value <= limit.at_most)
    return above and below


def non_dominated(points: Sequence[Sequence[float]]) -> list[int]:
    """Positions of the points that no other one beats, all coordinates maximised; of equal points the first."""
    kept = []
    for i, point in enumerate(points):
        beaten = any(
            all(a >= b for a, b in zip(other, point, strict=True)) and (tuple(other) != tuple(point) or j < i)
            for j, other in enumerate(points)
            if j != i
        )
        if not beaten:
            kept.append(i)
    return kept


def hypervolume(points: Iterable[Sequence[float]], reference: Sequence[float]) -> float:
    """Volume between a reference and the points, all coordinates maximised.

    By slices of the last coordinate, which is exact (While, Hingston, Barone & Huband, IEEE Transactions on
    Evolutionary Computation 10, 2006). Points that do not exceed the reference in every coordinate have none.
    """
    above = [tuple(p) for p in points if all(v > r for v, r in zip(p, reference, strict=True))]
    if not above:
        return 0.0
    if len(reference) == 1:
        return float(max(p[0] for p in above)) - reference[0]
    above = sorted((above[i] for i in non_dominated(above)), key=lambda p: -p[-1])
    ends = [*(p[-1] for p in above[1:]), reference[-1]]
    total = 0.0
    for n, (point, end) in enumerate(zip(above, ends, strict=True), start=1):
        if point[-1] > end:
            total += (point[-1] - end) * hypervolume([p[:-1] for p in above[:n]], reference[:-1])
    return total
