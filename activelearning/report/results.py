"""The campaign's results: its best candidates, and every evaluation as a flat row."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from activelearning.report.reading import Header, header, target_results
from activelearning.store.database import Database
from activelearning.store.models import Evaluation, MeasurementRow

# A stable interface: exactly these, in this order.
EXPORT_COLUMNS = (
    "key",
    "content_key",
    "candidate",
    "round",
    "fidelity",
    "property",
    "state",
    "value",
    "std",
    "censoring",
    "cost_reserved",
    "cost_paid",
    "reason",
    "created_at",
    "finished_at",
)


def best(database: Database, name: str, n: int = 10) -> list[dict[str, Any]]:
    """The n best results at the target fidelity, best first.

    A bound in the optimistic direction (an upper bound when maximising) is no achievement and is left out; a
    bound in the other direction counts with its value. `predicted_mean` and `predicted_std` are what the
    surrogate said when the candidate was chosen, None for the initial design.

    Returns:
        Mappings with `candidate, key, fidelity, property, value, std, predicted_mean, predicted_std`; `key`
        is the evaluation's.

    Raises:
        InputError: the store holds no such campaign.
    """
    with database.read() as session:
        return best_rows(session, header(session, name), n)


def best_rows(session: Session, campaign: Header, n: int) -> list[dict[str, Any]]:
    """As `best`, within a session."""
    order = MeasurementRow.value.desc() if campaign.maximize else MeasurementRow.value.asc()
    query = (
        _with_measurement(campaign.objective)
        .where(target_results(campaign))
        .order_by(order, Evaluation.round, Evaluation.position)
        .limit(n)
    )
    return [
        {
            "candidate": evaluation.candidate,
            "key": evaluation.key,
            "fidelity": evaluation.fidelity,
            "property": measured.property,
            "value": measured.value,
            "std": measured.std,
            "predicted_mean": evaluation.predicted_mean,
            "predicted_std": evaluation.predicted_std,
        }
        for evaluation, measured in session.execute(query)
    ]


def export_rows(database: Database, name: str) -> list[dict[str, Any]]:
    """Every evaluation of a campaign as a row of `EXPORT_COLUMNS`, in the order of commitment.

    `candidate` is the candidate's JSON value; `value`, `std` and `censoring` are None where there is no
    answer.

    Raises:
        InputError: the store holds no such campaign.
    """
    with database.read() as session:
        header(session, name)
        query = (
            _with_measurement(None)
            .where(Evaluation.campaign == name)
            .order_by(Evaluation.round, Evaluation.position)
        )
        return [_flat(evaluation, measured) for evaluation, measured in session.execute(query)]


def _flat(evaluation: Evaluation, measured: MeasurementRow | None) -> dict[str, Any]:
    return {
        "key": evaluation.key,
        "content_key": evaluation.content_key,
        "candidate": evaluation.candidate,
        "round": evaluation.round,
        "fidelity": evaluation.fidelity,
        "property": evaluation.property,
        "state": evaluation.state,
        "value": None if measured is None else measured.value,
        "std": None if measured is None else measured.std,
        "censoring": None if measured is None else measured.censoring,
        "cost_reserved": evaluation.cost_reserved,
        "cost_paid": evaluation.cost_paid,
        "reason": evaluation.reason,
        "created_at": evaluation.created_at,
        "finished_at": evaluation.finished_at,
    }


def _with_measurement(prop: str | None) -> Any:
    """Evaluations with their measurement of a property; None: each one's own, where it has been answered."""
    wanted = MeasurementRow.property == (Evaluation.property if prop is None else prop)
    on = and_(MeasurementRow.evaluation_key == Evaluation.key, wanted)
    return select(Evaluation, MeasurementRow).join(MeasurementRow, on, isouter=prop is None)
