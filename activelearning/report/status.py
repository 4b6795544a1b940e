"""Where a campaign stands."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, or_, select, union
from sqlalchemy.orm import Session

from activelearning.report.front import read_archive
from activelearning.report.reading import Header, header
from activelearning.report.results import best_rows
from activelearning.store.database import Database
from activelearning.store.models import (
    OPEN_STATES,
    CampaignState,
    Evaluation,
    Lease,
    LedgerEntry,
    Round,
    Worker,
)
from activelearning.store.workers import is_alive


def status(database: Database, name: str) -> dict[str, Any]:
    """State, budget, evaluations and best result of a campaign.

    Returns:
        `{campaign, state, reason, rounds, budget: {total, reserved, spent, remaining}, evaluations:
        {<fidelity>: {<state>: n}}, best: {...} | null}`. `rounds` counts the rounds after the initial design.
        With several objectives `best` is `{hypervolume, size, reference: {<property>: value}}` of the measured front.
        A campaign that the store calls running is `interrupted` where no live process works on it.

    Raises:
        InputError: the store holds no such campaign.
    """
    with database.read() as session:
        campaign = header(session, name)
        state, reason = campaign.state, campaign.reason
        if state == CampaignState.RUNNING and not is_worked_on(session, name):
            state = CampaignState.INTERRUPTED
            reason = reason or "no live process works on it; `activelearning run` continues it"
        if len(campaign.objectives) > 1:
            best = read_archive(session, campaign).summary()
        else:
            best = next(iter(best_rows(session, campaign, 1)), None)
        return {
            "campaign": name,
            "state": str(state),
            "reason": reason,
            "rounds": session.scalar(
                select(func.count()).select_from(Round).where(Round.campaign == name, Round.index > 0)
            ),
            "budget": budget(session, campaign),
            "evaluations": evaluation_counts(session, campaign),
            "best": best,
        }


def budget(session: Session, campaign: Header) -> dict[str, float]:
    """`{total, reserved, spent, remaining}` in the campaign's cost unit."""
    reserved, spent = session.execute(
        select(
            func.coalesce(func.sum(LedgerEntry.reserved), 0.0),
            func.coalesce(func.sum(LedgerEntry.spent), 0.0),
        ).where(LedgerEntry.campaign == campaign.name)
    ).one()
    # Sums of reservations and their releases leave rounding behind: twelve digits are far below any cost.
    reserved, spent = max(0.0, round(float(reserved), 12)), round(float(spent), 12)
    remaining = round(campaign.total - reserved - spent, 12)
    return {"total": campaign.total, "reserved": reserved, "spent": spent, "remaining": remaining}


def evaluation_counts(session: Session, campaign: Header) -> dict[str, dict[str, int]]:
    """Number of evaluations by fidelity, each of the config's present, and state."""
    counts: dict[str, dict[str, int]] = {fidelity: {} for fidelity in campaign.fidelities}
    query = (
        select(Evaluation.fidelity, Evaluation.state, func.count())
        .where(Evaluation.campaign == campaign.name)
        .group_by(Evaluation.fidelity, Evaluation.state)
        .order_by(Evaluation.fidelity, Evaluation.state)
    )
    for fidelity, state, n in session.execute(query):
        counts.setdefault(fidelity, {})[str(state)] = n
    return counts


def is_worked_on(session: Session, name: str) -> bool:
    """Whether a live process has the campaign open, or holds its lease or one of its evaluations."""
    held = union(
        select(Lease.worker).where(Lease.campaign == name),
        select(Evaluation.claimed_by).where(
            Evaluation.campaign == name, Evaluation.state.in_(OPEN_STATES), Evaluation.claimed_by.is_not(None)
        ),
    ).subquery()
    workers = session.scalars(
        select(Worker).where(or_(Worker.campaign == name, Worker.id.in_(select(held.c[0]))))
    )
    return any(is_alive(worker) for worker in workers)
