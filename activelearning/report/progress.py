"""How a campaign went: round by round, and the best value against what had been paid for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from activelearning.measurement import Censoring
from activelearning.report.front import Archive, TargetResult, reference_of, target_answers
from activelearning.report.reading import Header, header
from activelearning.store.database import Database
from activelearning.store.models import Evaluation, MeasurementRow, Round, State


@dataclass(frozen=True)
class TracePoint:
    """The campaign after one of its evaluations.

    Attributes:
        round: Round of the evaluation; 0 is the initial design.
        fidelity: Its fidelity.
        spent: Paid so far, the initial design included, in the campaign's cost unit.
        best: Best objective value measured at the target so far, or None; with constraints, of candidates measured
            to keep them. With several objectives the hypervolume of the measured front.
    """

    round: int
    fidelity: str
    spent: float
    best: float | None


def trace(database: Database, name: str) -> list[TracePoint]:
    """Best objective value at the target fidelity against cumulative cost; of several objectives the hypervolume.

    Evaluations enter in the order of commitment (round, then position), which is the same for every run of a
    campaign; those still open are left out. Bounds in the optimistic direction are no achievement.

    Raises:
        InputError: the store holds no such campaign.
    """
    with database.read() as session:
        return _trace(session, header(session, name))


def _trace(session: Session, campaign: Header) -> list[TracePoint]:
    on = and_(MeasurementRow.evaluation_key == Evaluation.key, MeasurementRow.property == Evaluation.property)
    query = (
        select(Evaluation, MeasurementRow)
        .join(MeasurementRow, on, isouter=True)
        .where(Evaluation.campaign == campaign.name, Evaluation.cost_paid.is_not(None))
        .order_by(Evaluation.round, Evaluation.position)
    )
    archive = Archive(campaign, reference_of(campaign, target_answers(session, campaign)))
    points: list[TracePoint] = []
    spent, best = 0.0, None
    for evaluation, measured in session.execute(query):
        spent += evaluation.cost_paid or 0.0
        is_answer = measured is not None and evaluation.state == State.SUCCEEDED
        if (
            is_answer
            and evaluation.fidelity in campaign.targets
            and archive.take(TargetResult(evaluation, measured))
        ):
            best = _achieved(archive, measured, best)
        points.append(TracePoint(evaluation.round, evaluation.fidelity, spent, best))
    return points


def _achieved(archive: Archive, measured: MeasurementRow, best: float | None) -> float | None:
    """The best so far, after an answer of a candidate of use."""
    campaign = archive.campaign
    if campaign.has_one_goal:
        is_result = Censoring(measured.censoring) != campaign.optimistic
        return measured.value if is_result and campaign.is_better(measured.value, best) else best
    if len(campaign.objectives) > 1:
        return archive.hypervolume() if archive.candidates() else None
    ranked = archive.ranked()
    return ranked[0].values[0] if ranked else None


def rounds(database: Database, name: str) -> list[dict[str, Any]]:
    """The committed rounds in order.

    Returns:
        For each `{round, committed_at, evaluations: {<fidelity>: {<state>: n}}, cost_reserved, cost_paid,
        spent, best, summary}`: `cost_reserved` and `cost_paid` are the round's own, `spent` and `best` those
        of the campaign up to and with it, `summary` the figures of fit and sampler that the engine recorded.

    Raises:
        InputError: the store holds no such campaign.
    """
    with database.read() as session:
        campaign = header(session, name)
        committed = session.scalars(select(Round).where(Round.campaign == name).order_by(Round.index)).all()
        evaluations = session.execute(
            select(
                Evaluation.round,
                Evaluation.fidelity,
                Evaluation.state,
                Evaluation.cost_reserved,
                Evaluation.cost_paid,
            ).where(Evaluation.campaign == name)
        ).all()
        points = {point.round: point for point in _trace(session, campaign)}  # the last of each round stays
    rows: dict[int, dict[str, Any]] = {
        row.index: {
            "round": row.index,
            "committed_at": row.committed_at,
            "evaluations": {},
            "cost_reserved": 0.0,
            "cost_paid": 0.0,
            "spent": 0.0,
            "best": None,
            "summary": row.summary,
        }
        for row in committed
    }
    for round_, fidelity, state, reserved, paid in evaluations:
        row = rows[round_]
        states = row["evaluations"].setdefault(fidelity, {})
        states[str(state)] = states.get(str(state), 0) + 1
        row["cost_reserved"] += reserved
        row["cost_paid"] += paid or 0.0
    spent, best = 0.0, None
    for index, row in rows.items():
        if index in points:
            spent, best = points[index].spent, points[index].best
        row["spent"], row["best"] = spent, best
    return list(rows.values())


def batch(database: Database, name: str, index: int) -> list[dict[str, Any]]:
    """One round's evaluations in order, with prediction, acquisition and answer.

    Returns:
        For each `{key, candidate, fidelity, state, value, std, censoring, predicted_mean, predicted_std,
        acquisition, cost_reserved, cost_paid, reason}`; what is not known is None.

    Raises:
        InputError: the store holds no such campaign.
    """
    on = and_(MeasurementRow.evaluation_key == Evaluation.key, MeasurementRow.property == Evaluation.property)
    query = (
        select(Evaluation, MeasurementRow)
        .join(MeasurementRow, on, isouter=True)
        .where(Evaluation.campaign == name, Evaluation.round == index)
        .order_by(Evaluation.position)
    )
    with database.read() as session:
        header(session, name)
        return [
            {
                "key": evaluation.key,
                "candidate": evaluation.candidate,
                "fidelity": evaluation.fidelity,
                "state": str(evaluation.state),
                "value": None if measured is None else measured.value,
                "std": None if measured is None else measured.std,
                "censoring": None if measured is None else measured.censoring,
                "predicted_mean": evaluation.predicted_mean,
                "predicted_std": evaluation.predicted_std,
                "acquisition": evaluation.acquisition,
                "cost_reserved": evaluation.cost_reserved,
                "cost_paid": evaluation.cost_paid,
                "reason": evaluation.reason,
            }
            for evaluation, measured in session.execute(query)
        ]
