"""The outbox: handing committed evaluations over, and taking in what outside oracles have finished."""

from __future__ import annotations

from activelearning.campaign.answering import checked
from activelearning.campaign.evaluation import Evaluator, Observer
from activelearning.campaign.parts import Parts, Source
from activelearning.candidate import candidate_from_dict
from activelearning.contracts.oracle import JobState
from activelearning.store.models import OPEN_STATES, Evaluation, State
from activelearning.store.repository import Repository


class Queues:
    """Traffic with the oracles whose answers come later."""

    def __init__(self, parts: Parts, repository: Repository, evaluator: Evaluator, observe: Observer) -> None:
        self.parts = parts
        self.repository = repository
        self._evaluator = evaluator
        self._observe = observe

    def submit(self) -> int:
        """Hand over what is committed and not yet handed over; returns the number of evaluations."""
        rows = self.repository.evaluations(states=[State.INTENT])
        by_fidelity: dict[str, list[Evaluation]] = {}
        for row in rows:
            by_fidelity.setdefault(row.fidelity, []).append(row)
        for name, waiting in by_fidelity.items():
            source = self.parts.source(name)
            if not source.is_queued:
                # In process there is nothing outside to look up: the store itself is the queue.
                self.repository.advance([row.key for row in waiting], State.SUBMITTED)
                continue
            for row in waiting:
                # A process lost between submission and this record leaves the job outside under its key.
                external_id = source.queue.find(row.key)
                if external_id is None:
                    external_id = source.queue.submit(candidate_from_dict(row.candidate), row.key)
                self._observe("evaluation.handed_over", {"key": row.key, "fidelity": name})
                self.repository.advance([row.key], State.SUBMITTED, external_ids={row.key: external_id})
        return len(rows)

    def ingest(self) -> int:
        """Take in finished outside work; returns the number of results."""
        return sum(self._ingest(source) for source in self.parts.sources if source.is_queued)

    def _ingest(self, source: Source) -> int:
        rows = self.repository.evaluations(states=[State.SUBMITTED, State.RUNNING], fidelities=[source.name])
        by_id = {row.external_id: row for row in rows if row.external_id is not None}
        if not by_id:
            return 0
        found = source.queue.poll(list(by_id))
        results, running, cancelled, lost = [], [], [], []
        for external_id, row in by_id.items():
            # An outside that does not answer for a job has not said that it is lost.
            what = found.get(external_id, JobState.SUBMITTED)
            if not isinstance(what, JobState):
                results.append(
                    (row, checked(what, source.config.oracle, source.fidelity.property, source.fidelity.unit))
                )
            elif what is JobState.RUNNING:
                running.append(row.key)
            elif what is JobState.CANCELLED:
                cancelled.append(row.key)
            elif what is JobState.LOST:
                lost.append(row.key)
        self.repository.advance(running, State.RUNNING)
        self.repository.cancel(cancelled, "cancelled outside")
        self.repository.abandon(lost, "the outside no longer knows the job")
        self._evaluator.finish(source, results)
        return len(results)

    def cancel(self, reason: str) -> None:
        """Cancel everything open, outside first."""
        rows = self.repository.evaluations(states=OPEN_STATES)
        for source in self.parts.sources:
            if source.is_queued:
                mine = [row for row in rows if row.fidelity == source.name]
                source.queue.cancel([row.external_id for row in mine if row.external_id is not None])
        self.repository.cancel([row.key for row in rows], reason)
