"""The campaign's results: its best candidates, and every evaluation as a flat row."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from activelearning.report.front import MeasuredCandidate, TargetResult, read_archive
from activelearning.report.reading import Header, at_target, header, target_results
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
    """The n best results, best first: at the target fidelity or, with several goals, at every one of theirs.

    With several objectives these are the candidates that no other one beats in all of them, with constraints those
    that were measured to keep them; the first objective says which is first. `fidelity`, `value` and the like are
    then those of the first objective, and `objectives` and `constraints` have those of each.

    A bound in the optimistic direction (an upper bound when maximising) is no achievement and is left out; a
    bound in the other direction counts with its value. `predicted_mean` and `predicted_std` are what the
    surrogate said when the candidate was chosen, None for the initial design.

    Returns:
        Mappings with `candidate, key, fidelity, property, value, std, predicted_mean, predicted_std`; `key`
        is the evaluation's. With several goals also `objectives` and `constraints`: for each property
        `{value, std, censoring, unit, fidelity, key}`.

    Raises:
        InputError: the store holds no such campaign.
    """
    with database.read() as session:
        return best_rows(session, header(session, name), n)


def best_rows(session: Session, campaign: Header, n: int) -> list[dict[str, Any]]:
    """As `best`, within a session."""
    if not campaign.has_one_goal:
        return [_complete(candidate) for candidate in read_archive(session, campaign).ranked()[:n]]
    order = MeasurementRow.value.desc() if campaign.maximize else MeasurementRow.value.asc()
    query = (
        _with_measurement(campaign.objective)
        .where(target_results(campaign))
        .order_by(order, Evaluation.round, Evaluation.position)
        .limit(n)
    )
    return [_result(evaluation, measured) for evaluation, measured in session.execute(query)]


def why_no_best(database: Database, name: str) -> str:
    """What to say of a campaign for which `best` has nothing.

    Raises:
        InputError: the store holds no such campaign.
    """
    with database.read() as session:
        campaign = header(session, name)
        if not campaign.has_one_goal:
            n = read_archive(session, campaign).n_answered()
            if not n:
                return "no candidate is measured at every target fidelity yet"
            wanted = "a value of each objective" + (
                " and to keep the constraints" if campaign.constraints else ""
            )
            return f"of {n} measured at every target fidelity none is known to have {wanted}"
        # Answers that only say what a candidate does not reach.
        query = select(func.count()).where(
            MeasurementRow.evaluation_key == Evaluation.key,
            at_target(campaign),
            MeasurementRow.censoring == campaign.optimistic,
        )
        n = session.scalar(query) or 0
    known = f", {n} {'bound' if n == 1 else 'bounds'}" if n else ""
    return f"no value at the target fidelity yet{known}"


def _result(evaluation: Evaluation, measured: MeasurementRow) -> dict[str, Any]:
    return {
        "candidate": evaluation.candidate,
        "key": evaluation.key,
        "fidelity": evaluation.fidelity,
        "property": measured.property,
        "value": measured.value,
        "std": measured.std,
        "predicted_mean": evaluation.predicted_mean,
        "predicted_std": evaluation.predicted_std,
    }


def _complete(candidate: MeasuredCandidate) -> dict[str, Any]:
    """A candidate whose targets are all measured: its first objective, and each goal."""
    first = candidate.objectives[0]
    parts = {"objectives": candidate.objectives, "constraints": candidate.constraints}
    return {
        **_result(first.evaluation, first.measured),
        **{key: {r.measured.property: _goal(r) for r in results} for key, results in parts.items()},
    }


def _goal(result: TargetResult) -> dict[str, Any]:
    return {
        "value": result.measured.value,
        "std": result.measured.std,
        "censoring": result.measured.censoring,
        "unit": result.measured.unit,
        "fidelity": result.evaluation.fidelity,
        "key": result.evaluation.key,
    }


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
