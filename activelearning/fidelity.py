"""Fidelities: an oracle as a campaign uses it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fidelity:
    """One source of information in a campaign.

    Attributes:
        name: Unique in the campaign.
        index: Position in the config; the value of the surrogate's fidelity column.
        property: What it measures; the surrogate learns how that relates to the target's property.
        unit: Unit of that property, as the config states it, or None.
        cost: Configured cost of one answer, in the campaign's cost unit.
        is_target: Whether this fidelity's answer is an objective, or what a constraint is about.
    """

    name: str
    index: int
    property: str
    unit: str | None
    cost: float
    is_target: bool
