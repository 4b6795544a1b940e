"""What a benchmark of methods needs of a task: the config of a campaign, and the best there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Task:
    """A search with a known end.

    Attributes:
        name: Names the campaigns.
        space: Section of the config.
        objective: Section of the config.
        fidelities: Section of the config; the one with `target: true` is what regret is measured by.
        optimum: The best value of the objective at the target that the space holds, in its unit.
        total: A budget that makes sense, in target evaluations.
        sections: Further sections that suit the task (sampler, acquisition and others).
    """

    name: str
    space: Mapping[str, Any]
    objective: Mapping[str, Any]
    fidelities: Sequence[Mapping[str, Any]]
    optimum: float
    total: float
    sections: Mapping[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """Name of the target fidelity."""
        return str(next(f["name"] for f in self.fidelities if f.get("target")))

    def with_fidelities(self, *names: str) -> Task:
        """The task with the target and the fidelities named, in the task's order.

        Raises:
            ValueError: the task has no fidelity of a name.
        """
        known = [str(f["name"]) for f in self.fidelities]
        unknown = set(names) - set(known)
        if unknown:
            raise ValueError(f"{self.name} has the fidelities {', '.join(known)}, not {', '.join(unknown)}")
        kept = [f for f in self.fidelities if f["name"] in {self.target, *names}]
        return replace(self, fidelities=kept)

    def campaign(self, *, seed: int, total: float | None = None, **sections: Any) -> dict[str, Any]:
        """Plain config of a campaign, as `parse_config` takes.

        Args:
            seed: Of the campaign.
            total: Budget, in target evaluations; the task's by default.
            **sections: Sections of the config that replace the task's.
        """
        return {
            "name": f"{self.name}-{seed}",
            "seed": seed,
            "space": dict(self.space),
            "objective": dict(self.objective),
            "fidelities": [dict(f) for f in self.fidelities],
            "budget": {"total": self.total if total is None else total},
            **self.sections,
            **sections,
        }

    def regret(self, best: float) -> float:
        """What a best value found lacks, in the objective's unit; never negative but by rounding."""
        sign = -1.0 if self.objective.get("direction") == "minimize" else 1.0
        return sign * (self.optimum - best)
