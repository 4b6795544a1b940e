"""Whether a campaign goes on, waits or ends."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from activelearning.campaign.config import CampaignConfig
from activelearning.campaign.parts import Parts
from activelearning.report.front import Archive, read_archive
from activelearning.report.reading import header
from activelearning.store.models import OPEN_STATES, CampaignState, State
from activelearning.store.records import COST_TOLERANCE
from activelearning.store.repository import Repository


class Action(StrEnum):
    """What a campaign does next."""

    CONTINUE = "continue"
    WAITING = "waiting"
    FINISHED = "finished"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Decision:
    """What a campaign does next, and why."""

    action: Action
    reason: str


class Stopping:
    """Reads the store to decide."""

    def __init__(self, config: CampaignConfig, parts: Parts, repository: Repository) -> None:
        self.config = config
        self.parts = parts
        self.repository = repository

    def decide(self) -> Decision:
        """Whether another round is due."""
        state, reason = self.repository.state()
        if state is CampaignState.CANCELLED:
            return Decision(Action.CANCELLED, reason or "cancelled")
        last = self.repository.last_round()
        if last is None:
            return Decision(Action.CONTINUE, "the initial design is due")
        waiting = len(self.repository.evaluations(states=OPEN_STATES))
        end = self._reason_to_end(last, waiting)
        if end is not None:
            if waiting:
                return Decision(Action.WAITING, f"{end}; {waiting} evaluations are still out")
            return Decision(Action.FINISHED, end)
        if waiting and self.repository.round_summary(last).get("n_answers") == self.n_answers():
            return Decision(
                Action.WAITING,
                f"{waiting} evaluations are out and nothing new was learned since the last round",
            )
        return Decision(Action.CONTINUE, "")

    def n_answers(self) -> int:
        """Number of evaluations that have ended, one way or another, and of corrections since."""
        counts = self.repository.count_by_round()
        ended = sum(
            n for states in counts.values() for state, n in states.items() if state not in OPEN_STATES
        )
        return ended + self.repository.n_amendments()

    def _reason_to_end(self, last: int, waiting: int) -> str | None:
        stopping = self.config.stopping
        wanted = stopping.target_value
        best = self.best_at_target()
        if wanted is not None and best is not None and self._sign * (best - wanted) >= 0:
            return f"the target fidelity reached {best:g} (wanted: {wanted:g})"
        if stopping.max_rounds is not None and last >= stopping.max_rounds:
            return f"all {stopping.max_rounds} rounds are done"
        total = self.config.budget.total
        remaining = self.repository.balance(total).remaining
        # With several targets the cheapest counts: its answer may be the last that a candidate lacks.
        target = min(self.parts.targets, key=lambda fidelity: fidelity.cost)
        if remaining + COST_TOLERANCE * total < target.cost:
            return f"the budget is spent: what remains does not pay for the target fidelity {target.name!r}"
        # Cheap answers alone can't end a dead campaign's agony, so any success counts.
        counts = self.repository.count_by_round()
        recent = [
            counts.get(index, {}) for index in range(max(last - stopping.max_failed_rounds + 1, 0), last + 1)
        ]
        hopeless = len(recent) >= stopping.max_failed_rounds and not waiting
        if hopeless and not any(states.get(State.SUCCEEDED, 0) for states in recent):
            return f"{stopping.max_failed_rounds} rounds in a row brought not a single success"
        return None

    @property
    def _sign(self) -> float:
        return 1.0 if self.config.sought[0].direction == "maximize" else -1.0

    def best_at_target(self) -> float | None:
        """Best objective measured at the target fidelity; a bound counts where the truth is at least as good.

        With constraints, of candidates measured to keep them; None with several objectives.
        """
        if self.config.has_one_goal:
            return self.repository.best_value(self.parts.target.name, maximize=self._sign > 0.0)
        ranked = self.archive().ranked()
        return ranked[0].values[0] if ranked and len(self.config.sought) == 1 else None

    def archive(self) -> Archive:
        """What has been measured at the targets."""
        with self.repository.database.read() as session:
            return read_archive(session, header(session, self.config.name))
