"""The outbox: handing committed evaluations over, and taking in what outside oracles have finished.

An outside that can't be reached stops nothing but its own fidelity: what it is in the way of stays as it is in the
store, and the next tick tries again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from activelearning.campaign.answering import ORDERING_KEY, checked, takes_average, with_whole_atoms
from activelearning.campaign.evaluation import Evaluator, Observer
from activelearning.campaign.parts import Parts, Source
from activelearning.candidate import candidate_from_dict
from activelearning.contracts.oracle import JobState, RecordingOracleLike, Unasked
from activelearning.errors import ActiveLearningError, OracleError
from activelearning.measurement import Measurement
from activelearning.store.models import OPEN_STATES, Evaluation, State
from activelearning.store.repository import Repository

MAX_ID_LENGTH = 256


class _OutsideError(Exception):
    """A plug-in's method raised: the outside can't be reached, or the plug-in is wrong."""

    def __init__(self, method: str, reason: str) -> None:
        super().__init__(reason)
        self.method = method


@contextmanager
def _outside(source: Source, method: str) -> Iterator[None]:
    """Tell what a plug-in raises from what the engine's own work does."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())
        reason = f"{method}() of the oracle {source.config.oracle!r} raised {type(error).__name__}: {text}"
        raise _OutsideError(method, reason) from error


def _ordering_of(row: Evaluation) -> Mapping[str, Any]:
    """How a crystal's partial occupancies were ordered when it was handed over; nothing where it has none.

    It is found again only where the process that handed over was lost before it could keep it.
    """
    if ORDERING_KEY in row.details:
        return {ORDERING_KEY: row.details[ORDERING_KEY]}
    return with_whole_atoms(candidate_from_dict(row.candidate))[1]


class Queues:
    """Traffic with the oracles whose answers come later.

    Attributes:
        faults: What is wrong with outsides that could not be reached since the last `submit`, by fidelity.
    """

    def __init__(self, parts: Parts, repository: Repository, evaluator: Evaluator, observe: Observer) -> None:
        self.parts = parts
        self.repository = repository
        self.faults: dict[str, str] = {}
        self._evaluator = evaluator
        self._observe = observe

    def _note(self, source: Source, fault: _OutsideError) -> None:
        """Take notice of trouble with an outside, which must not end the tick for all fidelities."""
        self.faults[source.name] = str(fault)
        self._observe("oracle.unreachable", {"fidelity": source.name, "reason": str(fault)})

    def submit(self) -> int:
        """Hand over what is committed and not yet handed over; returns the number of evaluations handed over.

        What an outside has no room for (`max_in_flight`) stays as it is, in the order of commitment.
        """
        self.faults.clear()
        n = 0
        for source, waiting in self._waiting():
            if source.is_queued:
                n += self._hand_over_all(source, waiting)
            else:
                # In process there is nothing outside to look up: the store itself is the queue.
                self.repository.advance([row.key for row in waiting], State.SUBMITTED)
                n += len(waiting)
        return n

    def refill(self) -> int:
        """Hand over what waited for room outside; returns the number of evaluations handed over."""
        return sum(
            self._hand_over_all(source, waiting)
            for source, waiting in self._waiting()
            if source.is_queued and source.config.max_in_flight is not None and source.name not in self.faults
        )

    def _waiting(self) -> list[tuple[Source, list[Evaluation]]]:
        by_fidelity: dict[str, list[Evaluation]] = {}
        for row in self.repository.evaluations(states=[State.INTENT]):
            by_fidelity.setdefault(row.fidelity, []).append(row)
        return [(self.parts.source(name), rows) for name, rows in by_fidelity.items()]

    def _hand_over_all(self, source: Source, rows: Sequence[Evaluation]) -> int:
        n, room = 0, math.inf
        if source.config.max_in_flight is not None:
            out = self.repository.evaluations(
                states=[State.SUBMITTED, State.RUNNING], fidelities=[source.name]
            )
            room = source.config.max_in_flight - len(out)
        for row in rows:
            if room <= 0:
                break
            try:
                room -= self._hand_over(source, row)
                n += 1
            except _OutsideError as fault:
                self._note(source, fault)
                if fault.method == "find":
                    break  # nobody answers out there; a single submission that fails is not in the others' way
        try:
            with _outside(source, "flush"):
                source.queue.flush()
        except _OutsideError as fault:
            self._note(source, fault)
        return n

    def _hand_over(self, source: Source, row: Evaluation) -> bool:
        """Hand one evaluation over; False where it has ended at once and takes no room outside."""
        # A process lost between submission and the record of it leaves the job outside under its key.
        with _outside(source, "find"):
            external_id = source.queue.find(row.key)
        record: Mapping[str, Any] = {}
        if external_id is None:
            answer = self._evaluator.known_answer(source, row)
            if answer is not None:
                self._evaluator.finish(source, [(row, answer)])
                return False
            candidate = candidate_from_dict(row.candidate)
            refused = None
            try:
                if not takes_average(source.queue):
                    candidate, record = with_whole_atoms(candidate)
            except ActiveLearningError as error:
                answer = Measurement.failed(f"can't be ordered: {error}", cost=0.0)
                self._evaluator.finish(source, [(row, answer)])
                return False
            with _outside(source, "submit"):
                try:
                    external_id = source.queue.submit(candidate, row.key)
                except OracleError as error:
                    refused = f"the oracle {source.config.oracle!r} refuses it: {error}"
            if refused is not None:
                self._evaluator.finish(source, [(row, Measurement.failed(refused, cost=0.0))])
                return False
        if not (isinstance(external_id, str) and 0 < len(external_id) <= MAX_ID_LENGTH):
            raise _OutsideError(
                "submit",
                f"the oracle {source.config.oracle!r} gave {external_id!r} as an external id; it must be a text of "
                f"1 to {MAX_ID_LENGTH} characters",
            )
        self._observe("evaluation.handed_over", {"key": row.key, "fidelity": source.name})
        self.repository.advance(
            [row.key], State.SUBMITTED, external_ids={row.key: external_id}, details=record
        )
        return True

    def ingest(self) -> int:
        """Take in finished outside work; returns the number of results."""
        return sum(self._ingest(source) for source in self.parts.sources if source.is_queued)

    def _ingest(self, source: Source) -> int:
        rows = self.repository.evaluations(states=[State.SUBMITTED, State.RUNNING], fidelities=[source.name])
        by_id = {row.external_id: row for row in rows if row.external_id is not None}
        if not by_id:
            return 0
        try:
            with _outside(source, "poll"):
                found = dict(source.queue.poll(list(by_id)))
        except _OutsideError as fault:
            self._note(source, fault)
            return 0
        results, running, cancelled, lost = [], [], [], []
        for external_id, row in by_id.items():
            # An outside that does not answer for a job has not said that it is lost.
            what = found.get(external_id, JobState.SUBMITTED)
            if not isinstance(what, JobState):
                fidelity = source.fidelity
                answer = checked(what, source.config.oracle, fidelity.property, fidelity.unit)
                if not takes_average(source.queue):
                    answer = replace(answer, metadata={**answer.metadata, **_ordering_of(row)})
                results.append((row, answer))
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

    def follow_corrections(self) -> int:
        """Let answers that people recorded follow their corrections and replicates; returns how many changed.

        What was taken over from another campaign of the store follows, too.
        """
        n = 0
        for source in self.parts.sources:
            oracle = source.oracle
            if not isinstance(oracle, RecordingOracleLike):
                continue
            rows = self.repository.evaluations(states=[State.SUCCEEDED], fidelities=[source.name])
            ids = {row.key: row.external_id or row.details.get("shared_from") for row in rows}
            wanted = sorted({external_id for external_id in ids.values() if external_id is not None})
            if not wanted:
                continue
            try:
                with _outside(source, "recorded"):
                    found = dict(oracle.recorded(wanted))
            except _OutsideError as fault:
                self._note(source, fault)
                continue
            for row in rows:
                answer = found.get(ids[row.key] or "")
                if answer is not None:
                    n += self._evaluator.amend(source, row, answer)
        return n

    def unasked(self) -> list[tuple[Source, Unasked]]:
        """Answers that people recorded without being asked, whether or not they were taken in before."""
        found = []
        for source in self.parts.sources:
            oracle = source.oracle
            if isinstance(oracle, RecordingOracleLike):
                try:
                    with _outside(source, "unasked"):
                        found += [(source, answer) for answer in oracle.unasked()]
                except _OutsideError as fault:
                    self._note(source, fault)
        return found

    def cancel(self, reason: str) -> None:
        """Cancel everything open, outside first; what is finished outside already is taken in.

        Work of an outside that can't be reached stays open, since it may be alive there; the next tick tries again.
        """
        self.faults.clear()
        self.ingest()
        rows = self.repository.evaluations(states=OPEN_STATES)
        for source in self.parts.sources:
            mine = [row for row in rows if row.fidelity == source.name]
            if not source.is_queued:
                self.repository.cancel([row.key for row in mine], reason)
                continue
            try:
                with _outside(source, "cancel"):
                    # Submitted by a process that was lost before it could record so, work is alive all the same.
                    ids = [row.external_id or source.queue.find(row.key) for row in mine]
                    source.queue.cancel([external_id for external_id in ids if external_id is not None])
            except _OutsideError as fault:
                self._note(source, fault)
                continue
            self.repository.cancel([row.key for row in mine], reason)
