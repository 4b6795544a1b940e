"""What every report starts from: the campaign's row and what its config says of objective and target.

Reports read the config as plain JSON and never construct it, so that `activelearning status` needs neither
torch nor the campaign's plug-ins.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from activelearning.errors import InputError
from activelearning.measurement import Censoring
from activelearning.store.models import Campaign, Evaluation, MeasurementRow, State


@dataclass(frozen=True)
class Sought:
    """An objective as reports see it.

    Attributes:
        prop: The property that is looked for.
        unit: Its unit, or None.
        maximize: Its direction.
        reference: Value from which hypervolumes are measured, or None.
        target: Name of its target fidelity.
    """

    prop: str
    unit: str | None
    maximize: bool
    reference: float | None
    target: str

    @property
    def optimistic(self) -> Censoring:
        """The bound that proves no achievement: an upper one when maximising, a lower one when minimising."""
        return Censoring.UPPER if self.maximize else Censoring.LOWER

    @property
    def sign(self) -> float:
        """What makes more of it better."""
        return 1.0 if self.maximize else -1.0


@dataclass(frozen=True)
class Limit:
    """A constraint as reports see it: a property's range, either end of which may be None, and its target."""

    prop: str
    unit: str | None
    at_least: float | None
    at_most: float | None
    target: str


@dataclass(frozen=True)
class Header:
    """A campaign as reports see it.

    Attributes:
        name: Name of the campaign.
        state: State as the store keeps it.
        reason: Why it is in that state, where one was given.
        objectives: All that is looked for, one or more.
        constraints: What a candidate of use must keep.
        fidelities: Names of all fidelities, in the config's order.
        total: Total budget, in the campaign's cost unit.
        artifacts: Folder (or URL) of the campaign's files.
    """

    name: str
    state: str
    reason: str | None
    objectives: tuple[Sought, ...]
    constraints: tuple[Limit, ...]
    fidelities: tuple[str, ...]
    total: float
    artifacts: str

    @property
    def objective(self) -> str:
        """The property that is looked for; the first of several."""
        return self.objectives[0].prop

    @property
    def maximize(self) -> bool:
        """Direction of the (first) objective."""
        return self.objectives[0].maximize

    @property
    def target(self) -> str:
        """Name of the (first) objective's target fidelity."""
        return self.objectives[0].target

    @property
    def optimistic(self) -> Censoring:
        """The bound on the (first) objective that proves no achievement."""
        return self.objectives[0].optimistic

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the target fidelities: of the objectives, then of the constraints."""
        return (*(o.target for o in self.objectives), *(c.target for c in self.constraints))

    @property
    def has_one_goal(self) -> bool:
        """Whether there is one objective and no constraint."""
        return len(self.objectives) == 1 and not self.constraints

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
    fidelities = config["fidelities"]
    sought = config.get("objectives") or [config["objective"]]
    constraints = config.get("constraints") or []
    return Header(
        name=row.name,
        state=row.state,
        reason=row.reason,
        objectives=tuple(
            Sought(
                o["property"],
                o.get("unit"),
                o.get("direction", "maximize") == "maximize",
                o.get("reference"),
                _target(config, o["property"]),
            )
            for o in sought
        ),
        constraints=tuple(
            Limit(
                c["property"],
                c.get("unit"),
                c.get("at_least"),
                c.get("at_most"),
                _target(config, c["property"]),
            )
            for c in constraints
        ),
        fidelities=tuple(f["name"] for f in fidelities),
        total=float(config["budget"]["total"]),
        artifacts=row.artifacts,
    )


def _target(config: Mapping[str, Any], prop: str) -> str:
    """Name of the target fidelity of a property; a lone fidelity is it without saying so."""
    default = None if config.get("objectives") else config["objective"]["property"]
    of_it = [f for f in config["fidelities"] if (f.get("property") or default) == prop]
    name: str = next((f for f in of_it if f.get("target")), of_it[0])["name"]
    return name


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
        at_target(campaign),
        or_(MeasurementRow.censoring != campaign.optimistic, MeasurementRow.censoring.is_(None)),
    )


def at_target(campaign: Header) -> ColumnElement[bool]:
    """Condition on `Evaluation` joined with `MeasurementRow`: answers about the objective at the target fidelity."""
    return and_(
        Evaluation.campaign == campaign.name,
        Evaluation.fidelity == campaign.target,
        Evaluation.state == State.SUCCEEDED,
        MeasurementRow.property == campaign.objective,
    )
