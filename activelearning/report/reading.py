"""What every report starts from: the campaign's row and what its config says of objective and target.

Reports read the config as plain JSON and never construct it, so that `activelearning status` needs neither
torch nor the campaign's plug-ins.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from activelearning.errors import InputError
from activelearning.measurement import Censoring
from activelearning.store.models import Campaign, Evaluation, MeasurementRow, State


@dataclass(frozen=True)
class Header:
    """A campaign as reports see it.

    Attributes:
        name: Name of the campaign.
        state: State as the store keeps it.
        reason: Why it is in that state, where one was given.
        objective: The property that is looked for.
        unit: Its unit, or None.
        maximize: Direction of the objective.
        target: Name of the target fidelity.
        fidelities: Names of all fidelities, in the config's order.
        total: Total budget, in the campaign's cost unit.
        artifacts: Folder (or URL) of the campaign's files.
    """

    name: str
    state: str
    reason: str | None
    objective: str
    unit: str | None
    maximize: bool
    target: str
    fidelities: tuple[str, ...]
    total: float
    artifacts: str

    @property
    def optimistic(self) -> Censoring:
        """The bound that proves no achievement: an upper one when maximising, a lower one when minimising."""
        return Censoring.UPPER if self.maximize else Censoring.LOWER

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether a value beats another one (any value beats None)."""
        return than is None or (value > than if self.maximize else value < than)


def campaign_names(session: Session) -> list[str]:
    """Names of all campaigns in the store, sorted."""
    return list(session.scalars(select(Campaign.name).order_by(Campaign.name)))


def header(session: Session, name: str) -> Header:
    """Read a campaign's header.

    Raises:
        InputError: the store holds no campaign of that name; the message names the nearest one.
    """
    row = session.get(Campaign, name)
    if row is None:
        raise InputError(_unknown(name, campaign_names(session)))
    config = row.config
    objective, fidelities = config["objective"], config["fidelities"]
    # A single fidelity is the target without saying so.
    target = next((f for f in fidelities if f.get("target")), fidelities[0])
    return Header(
        name=row.name,
        state=row.state,
        reason=row.reason,
        objective=objective["property"],
        unit=objective.get("unit"),
        maximize=objective.get("direction", "maximize") == "maximize",
        target=target["name"],
        fidelities=tuple(f["name"] for f in fidelities),
        total=float(config["budget"]["total"]),
        artifacts=row.artifacts,
    )


def _unknown(name: str, known: Sequence[str]) -> str:
    if not known:
        return f"There is no campaign {name!r}: the store holds none; `activelearning run CONFIG` starts one."
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"There is no campaign {name!r} in the store.{hint} Known: {', '.join(known)}."


def target_results(campaign: Header) -> ColumnElement[bool]:
    """Condition on `Evaluation` joined with `MeasurementRow`: results that may be called achievements.

    The objective was measured at the target fidelity, and a bound counts only where the truth is at least as
    good.
    """
    return and_(
        Evaluation.campaign == campaign.name,
        Evaluation.fidelity == campaign.target,
        Evaluation.state == State.SUCCEEDED,
        MeasurementRow.property == campaign.objective,
        or_(MeasurementRow.censoring != campaign.optimistic, MeasurementRow.censoring.is_(None)),
    )
