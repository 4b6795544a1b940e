"""Everything the engine reads from and writes to the store, each method one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from activelearning.candidate import Candidate, candidate_from_dict
from activelearning.errors import StoreError
from activelearning.measurement import Censoring, MeasuredValue, Measurement
from activelearning.store.database import Database, now
from activelearning.store.models import (
    FOLLOWS,
    OPEN_STATES,
    Artifact,
    Campaign,
    CampaignState,
    Checkpoint,
    EarlierMeasurement,
    Entry,
    Evaluation,
    LedgerEntry,
    MeasurementRow,
    Round,
    State,
    Transition,
    Worker,
)
from activelearning.store.records import COST_TOLERANCE, TAKEOVERS, Answer, Balance, NewEvaluation, NewRound
from activelearning.store.rows import begin_logs, locked_rows, next_in
from activelearning.store.workers import WorkerRegistration, is_alive


class Repository:
    """One campaign's rows."""

    def __init__(self, database: Database, campaign: str) -> None:
        self.database = database
        self.campaign = campaign

    # -- the campaign itself ------------------------------------------------------------------------------------------

    def stored_config(self) -> dict[str, Any] | None:
        """The config the campaign was created or last continued with, or None where there is no such campaign."""
        with self.database.read() as session:
            row = session.get(Campaign, self.campaign)
            return None if row is None else dict(row.config)

    def save(self, config: Mapping[str, Any], folder: str, artifacts: str) -> None:
        """Create the campaign, or keep its config where that is new, and where its files now lie."""
        try:
            self._save(config, folder, artifacts)
        except IntegrityError:  # another process created it at the same moment
            self._save(config, folder, artifacts)

    def _save(self, config: Mapping[str, Any], folder: str, artifacts: str) -> None:
        with self.database.write() as session:
            row = session.get(Campaign, self.campaign)
            if row is None:
                at = now()
                session.add(
                    Campaign(
                        name=self.campaign,
                        config=dict(config),
                        folder=folder,
                        artifacts=artifacts,
                        state=CampaignState.RUNNING,
                        reason=None,
                        created_at=at,
                        updated_at=at,
                    )
                )
            elif (row.config, row.folder, row.artifacts) != (config, folder, artifacts):
                row.config, row.folder, row.artifacts = dict(config), folder, artifacts
                row.updated_at = now()

    def state(self) -> tuple[CampaignState, str | None]:
        """The campaign's state and its reason."""
        with self.database.read() as session:
            row = session.get_one(Campaign, self.campaign)
            return CampaignState(row.state), row.reason

    def set_state(self, state: CampaignState, reason: str | None) -> None:
        """Record the campaign's state; nothing is written where it is the same, or the campaign was cancelled."""
        with self.database.write() as session:
            row = session.get_one(Campaign, self.campaign, with_for_update=True)
            if row.state != CampaignState.CANCELLED and (row.state, row.reason) != (state, reason):
                row.state, row.reason, row.updated_at = state, reason, now()

    # -- money --------------------------------------------------------------------------------------------------------

    def balance(self, total: float) -> Balance:
        """What is reserved and spent of a total."""
        with self.database.read() as session:
            return self._balance(session, total)

    def _balance(self, session: Session, total: float) -> Balance:
        reserved, spent = session.execute(
            select(
                func.coalesce(func.sum(LedgerEntry.reserved), 0.0),
                func.coalesce(func.sum(LedgerEntry.spent), 0.0),
            ).where(LedgerEntry.campaign == self.campaign)
        ).one()
        # What was reserved and settled in other orders may leave rounding behind, never a debt.
        return Balance(total=total, reserved=max(float(reserved), 0.0), spent=float(spent))

    def charged(self, *, from_round: int = 0) -> dict[str, float]:
        """What is spent and reserved of each fidelity, by name, by evaluations of a round and those after it."""
        amount = func.sum(LedgerEntry.reserved + LedgerEntry.spent)
        query = (
            select(Evaluation.fidelity, amount)
            .join(LedgerEntry, LedgerEntry.evaluation_key == Evaluation.key)
            .where(Evaluation.campaign == self.campaign, Evaluation.round >= from_round)
            .group_by(Evaluation.fidelity)
        )
        with self.database.read() as session:
            return {name: max(float(value), 0.0) for name, value in session.execute(query)}

    @staticmethod
    def _book(session: Session, row: Evaluation, kind: Entry, reserved: float, spent: float) -> None:
        session.add(
            LedgerEntry(
                evaluation_key=row.key,
                sequence=next_in(session, LedgerEntry, row.key),
                campaign=row.campaign,
                kind=kind,
                reserved=reserved,
                spent=spent,
                at=now(),
            )
        )

    # -- rounds -------------------------------------------------------------------------------------------------------

    def last_round(self) -> int | None:
        """Index of the last committed round."""
        with self.database.read() as session:
            return session.scalar(select(func.max(Round.index)).where(Round.campaign == self.campaign))

    def round_summary(self, index: int) -> dict[str, Any]:
        """Figures recorded with a round."""
        with self.database.read() as session:
            return dict(session.get_one(Round, (self.campaign, index)).summary)

    def round_summaries(self) -> list[dict[str, Any]]:
        """Figures recorded with every round, in order."""
        query = select(Round.summary).where(Round.campaign == self.campaign).order_by(Round.index)
        with self.database.read() as session:
            return [dict(summary) for summary in session.scalars(query)]

    def commit_round(self, new: NewRound, *, total: float, worker: WorkerRegistration) -> None:
        """Write a round, its evaluations with their reservations, and the warm states: all or nothing.

        Raises:
            LeaseHeldError: the lease was lost meanwhile.
            StoreError: the reservations would exceed the budget.
        """
        with self.database.write() as session:
            worker.check_lease(session, self.campaign)
            balance = self._balance(session, total)
            wanted = sum(e.cost for e in new.evaluations if e.measurement is None)
            if wanted > balance.remaining + COST_TOLERANCE * total:
                raise StoreError(
                    f"Round {new.index} of {self.campaign!r} would reserve {wanted:g}, but "
                    f"{balance.remaining:g} of the budget of {total:g} remains; nothing was committed."
                )
            at = now()
            session.add(
                Round(
                    campaign=self.campaign,
                    index=new.index,
                    model_fingerprint=new.fingerprint,
                    summary=dict(new.summary),
                    timings=dict(new.timings),
                    committed_at=at,
                )
            )
            session.flush()
            rows = [self._row(e, new.index, position, at) for position, e in enumerate(new.evaluations)]
            session.add_all(rows)
            session.flush()
            begin_logs(session, [row.key for row in rows])
            for row, e in zip(rows, new.evaluations, strict=True):
                state = State.INTENT if e.measurement is None else State.SUCCEEDED
                sequence = next_in(session, Transition, row.key)
                session.add(
                    Transition(evaluation_key=row.key, sequence=sequence, state=state, reason=None, at=at)
                )
                if e.measurement is None:
                    self._book(session, row, Entry.RESERVE, e.cost, 0.0)
                else:
                    self._keep_values(session, row, e.measurement)
            for component, state_bytes in new.checkpoints.items():
                kept = session.get(Checkpoint, (self.campaign, component))
                if kept is None:
                    session.add(
                        Checkpoint(
                            campaign=self.campaign, component=component, round=new.index, state=state_bytes
                        )
                    )
                else:
                    kept.round, kept.state = new.index, state_bytes

    def _row(self, e: NewEvaluation, round_index: int, position: int, at: str) -> Evaluation:
        known = e.measurement is not None
        return Evaluation(
            key=e.key,
            campaign=self.campaign,
            round=round_index,
            position=position,
            content_key=e.content_key,
            replicate=e.replicate,
            candidate_key=e.candidate.key,
            candidate=e.candidate.to_dict(),
            fidelity=e.fidelity,
            oracle=e.oracle,
            oracle_version=e.oracle_version,
            property=e.property,
            state=State.SUCCEEDED if known else State.INTENT,
            acquisition=e.acquisition,
            predicted_mean=e.predicted_mean,
            predicted_std=e.predicted_std,
            predicted_noise=e.predicted_noise,
            cost_reserved=0.0 if known else e.cost,
            cost_paid=0.0 if known else None,
            external_id=e.external_id,
            details=dict(e.measurement.metadata) if e.measurement is not None else {},
            created_at=at,
            finished_at=at if known else None,
        )

    def add_unasked(self, known: Sequence[NewEvaluation], *, worker: WorkerRegistration) -> int:
        """Write answers that nobody asked for, free of charge, at the end of the last committed round.

        Each bears an external id; one that is there already is left alone.

        Returns:
            The number of answers written; none where no round is committed yet.

        Raises:
            LeaseHeldError: the lease was lost meanwhile.
        """
        with self.database.write() as session:
            worker.check_lease(session, self.campaign)
            index = session.scalar(select(func.max(Round.index)).where(Round.campaign == self.campaign))
            if index is None:
                return 0
            mine = (Evaluation.campaign == self.campaign, Evaluation.external_id.is_not(None))
            there = set(session.scalars(select(Evaluation.external_id).where(*mine)))
            new = [e for e in known if e.external_id not in there]
            in_round = (Evaluation.campaign == self.campaign, Evaluation.round == index)
            last = session.scalar(select(func.max(Evaluation.position)).where(*in_round))
            at = now()
            first = 0 if last is None else last + 1
            rows = [self._row(e, index, position, at) for position, e in enumerate(new, start=first)]
            session.add_all(rows)
            session.flush()
            begin_logs(session, [row.key for row in rows])
            for row, e in zip(rows, new, strict=True):
                assert e.measurement is not None
                sequence = next_in(session, Transition, row.key)
                session.add(
                    Transition(
                        evaluation_key=row.key,
                        sequence=sequence,
                        state=State.SUCCEEDED,
                        reason="recorded unasked",
                        at=at,
                    )
                )
                self._keep_values(session, row, e.measurement)
                for path, checksum, size in e.artifacts:
                    session.add(Artifact(evaluation_key=row.key, path=path, sha256=checksum, size=size))
            return len(rows)

    def checkpoint(self, component: str) -> bytes | None:
        """Warm state of a component as of the last committed round."""
        with self.database.read() as session:
            row = session.get(Checkpoint, (self.campaign, component))
            return None if row is None else row.state

    # -- evaluations --------------------------------------------------------------------------------------------------

    def evaluations(
        self, *, states: Iterable[State] | None = None, fidelities: Iterable[str] | None = None
    ) -> list[Evaluation]:
        """Rows in the stated order: by round, then by position in it."""
        query = select(Evaluation).where(Evaluation.campaign == self.campaign)
        if states is not None:
            query = query.where(Evaluation.state.in_(list(states)))
        if fidelities is not None:
            query = query.where(Evaluation.fidelity.in_(list(fidelities)))
        with self.database.read() as session:
            return list(session.scalars(query.order_by(Evaluation.round, Evaluation.position)))

    def answers(self) -> list[tuple[Candidate, str, MeasuredValue]]:
        """Every measured (candidate, fidelity name, value) of each evaluation's own property, in the stated order."""
        query = (
            select(Evaluation.candidate, Evaluation.fidelity, MeasurementRow)
            .join(MeasurementRow, MeasurementRow.evaluation_key == Evaluation.key)
            .where(Evaluation.campaign == self.campaign, MeasurementRow.property == Evaluation.property)
            .order_by(Evaluation.round, Evaluation.position)
        )
        with self.database.read() as session:
            return [
                (
                    candidate_from_dict(candidate),
                    fidelity,
                    MeasuredValue(row.value, row.unit, row.std, Censoring(row.censoring)),
                )
                for candidate, fidelity, row in session.execute(query)
            ]

    def answers_by_round(self, fidelity: str) -> dict[tuple[int, str], MeasuredValue]:
        """Measured values of one fidelity's own property, by round and the candidate's key."""
        query = (
            select(Evaluation.round, Evaluation.candidate_key, MeasurementRow)
            .join(MeasurementRow, MeasurementRow.evaluation_key == Evaluation.key)
            .where(
                Evaluation.campaign == self.campaign,
                Evaluation.fidelity == fidelity,
                MeasurementRow.property == Evaluation.property,
            )
        )
        with self.database.read() as session:
            return {
                (round_, key): MeasuredValue(row.value, row.unit, row.std, Censoring(row.censoring))
                for round_, key, row in session.execute(query)
            }

    def outcomes(self) -> list[tuple[Candidate, str, bool]]:
        """Every (candidate, fidelity name) that was asked, and whether it answered; what has not ended is left out."""
        query = (
            select(Evaluation.candidate, Evaluation.fidelity, Evaluation.state)
            .where(
                Evaluation.campaign == self.campaign, Evaluation.state.in_([State.SUCCEEDED, State.FAILED])
            )
            .order_by(Evaluation.round, Evaluation.position)
        )
        with self.database.read() as session:
            return [
                (candidate_from_dict(candidate), fidelity, state == State.SUCCEEDED)
                for candidate, fidelity, state in session.execute(query)
            ]

    def charges(self, fidelities: Iterable[str]) -> list[tuple[Candidate, str, float, float]]:
        """(candidate, fidelity name, reserved, charged) of each answer that was paid for, in the stated order."""
        query = (
            select(Evaluation.candidate, Evaluation.fidelity, Evaluation.cost_reserved, Evaluation.cost_paid)
            .where(
                Evaluation.campaign == self.campaign,
                Evaluation.fidelity.in_(list(fidelities)),
                Evaluation.state == State.SUCCEEDED,
                Evaluation.cost_paid > 0.0,
                Evaluation.cost_reserved > 0.0,
            )
            .order_by(Evaluation.round, Evaluation.position)
        )
        with self.database.read() as session:
            return [
                (candidate_from_dict(candidate), fidelity, reserved, paid)
                for candidate, fidelity, reserved, paid in session.execute(query)
            ]

    def cost_of_round(self, index: int) -> float:
        """What a round's evaluations were charged; what is open counts as reserved."""
        cost = func.coalesce(Evaluation.cost_paid, Evaluation.cost_reserved)
        query = select(func.coalesce(func.sum(cost), 0.0)).where(
            Evaluation.campaign == self.campaign, Evaluation.round == index
        )
        with self.database.read() as session:
            return float(session.scalar(query) or 0.0)

    def best_value(self, fidelity: str, *, maximize: bool) -> float | None:
        """Best value of a fidelity's own property; a bound counts where the truth is at least as good."""
        best = func.max(MeasurementRow.value) if maximize else func.min(MeasurementRow.value)
        optimistic = Censoring.UPPER if maximize else Censoring.LOWER
        query = (
            select(best)
            .join(Evaluation, MeasurementRow.evaluation_key == Evaluation.key)
            .where(
                Evaluation.campaign == self.campaign,
                Evaluation.fidelity == fidelity,
                MeasurementRow.property == Evaluation.property,
                MeasurementRow.censoring != optimistic,
            )
        )
        with self.database.read() as session:
            return session.scalar(query)

    def count_by_round(self) -> dict[int, dict[State, int]]:
        """Number of evaluations by round and state."""
        query = (
            select(Evaluation.round, Evaluation.state, func.count())
            .where(Evaluation.campaign == self.campaign)
            .group_by(Evaluation.round, Evaluation.state)
        )
        counts: dict[int, dict[State, int]] = {}
        with self.database.read() as session:
            for index, state, n in session.execute(query):
                counts.setdefault(index, {})[State(state)] = n
        return counts

    def times_asked(self, *, cancelled: bool = True) -> Counter[tuple[str, str]]:
        """How often each (candidate key, fidelity) was asked so far, with or without what was cancelled."""
        query = (
            select(Evaluation.candidate_key, Evaluation.fidelity, func.count())
            .where(Evaluation.campaign == self.campaign)
            .group_by(Evaluation.candidate_key, Evaluation.fidelity)
        )
        if not cancelled:
            query = query.where(Evaluation.state != State.CANCELLED)
        with self.database.read() as session:
            return Counter({(key, fidelity): n for key, fidelity, n in session.execute(query)})

    def shared_answer(self, content_key: str) -> tuple[str, Measurement] | None:
        """An answer to the same question in another campaign of this store, with its evaluation's key.

        Each is taken once and never a copy of another, so that replicates are answers of their own.
        """
        query = (
            select(Evaluation)
            .where(Evaluation.content_key == content_key, Evaluation.state == State.SUCCEEDED)
            .order_by(Evaluation.key)
        )
        with self.database.read() as session:
            rows = session.scalars(query).all()
            taken = {row.details.get("shared_from") for row in rows if row.campaign == self.campaign}
            row = next(
                (
                    row
                    for row in rows
                    if row.campaign != self.campaign
                    and "shared_from" not in row.details
                    and row.key not in taken
                ),
                None,
            )
            if row is None:
                return None
            values = session.scalars(
                select(MeasurementRow).where(MeasurementRow.evaluation_key == row.key)
            ).all()
            measured = {
                v.property: MeasuredValue(v.value, v.unit, v.std, Censoring(v.censoring)) for v in values
            }
            details = {k: v for k, v in row.details.items() if k != "shared_from"}
            return row.key, Measurement(values=measured, metadata=details)

    def claim(self, keys: Sequence[str], worker: str) -> list[Evaluation]:
        """Take evaluations for this process: those of `keys` that are open and in no live process's hands.

        An evaluation whose worker died is taken over without a new entry in its log: its state does not change.
        """
        taken = []
        with self.database.write() as session:
            alive: dict[str, bool] = {}
            for row in locked_rows(session, keys).values():
                if row.state not in (State.SUBMITTED, State.RUNNING):
                    continue
                holder = row.claimed_by
                if holder is not None and holder != worker:
                    if holder not in alive:
                        alive[holder] = is_alive(session.get(Worker, holder))
                    if alive[holder]:
                        continue
                    row.details = {**row.details, TAKEOVERS: row.details.get(TAKEOVERS, 0) + 1}
                row.claimed_by = worker
                if row.state != State.RUNNING:
                    self._move(session, row, State.RUNNING)
                taken.append(row)
        return taken

    def release_claims(self, worker: str) -> None:
        """Give back what this process took and did not finish."""
        with self.database.write() as session:
            query = select(Evaluation).where(
                Evaluation.campaign == self.campaign, Evaluation.claimed_by == worker
            )
            for row in session.scalars(query):
                row.claimed_by = None

    def advance(
        self,
        keys: Sequence[str],
        state: State,
        *,
        external_ids: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Move evaluations to a state that is not terminal; those already there or further are left alone.

        Args:
            keys: Which.
            state: Where to.
            external_ids: Names of their work outside, by key.
            details: Facts to keep with each of them until its answer brings its own.
        """
        with self.database.write() as session:
            for key, row in locked_rows(session, keys).items():
                if external_ids and key in external_ids:
                    row.external_id = external_ids[key]
                if details:
                    row.details = {**row.details, **details}
                if state in FOLLOWS.get(State(row.state), ()):
                    self._move(session, row, state)

    def finish(self, answers: Sequence[Answer], *, worker: str | None = None) -> list[str]:
        """Keep answers: values, state, charge and files, in one transaction.

        Args:
            answers: What came back.
            worker: Where the work was claimed, the claimant; answers to claims lost to another process are dropped.

        Returns:
            Keys of the answers that were kept.
        """
        kept = []
        with self.database.write() as session:
            rows = locked_rows(session, [answer.key for answer in answers])
            for answer in answers:
                row = rows[answer.key]
                if row.state not in OPEN_STATES or (worker is not None and row.claimed_by != worker):
                    continue
                measurement = answer.measurement
                if row.state == State.INTENT:  # failed, or known beforehand, while it was being handed over
                    self._move(session, row, State.SUBMITTED)
                row.details = dict(measurement.metadata)
                row.seconds = measurement.seconds
                row.cost_paid = answer.charge
                row.claimed_by = None
                if measurement.is_success:
                    self._keep_values(session, row, measurement)
                self._move(
                    session,
                    row,
                    State.SUCCEEDED if measurement.is_success else State.FAILED,
                    measurement.reason,
                )
                self._book(session, row, Entry.SETTLE, -row.cost_reserved, answer.charge)
                for path, checksum, size in answer.artifacts:
                    session.add(Artifact(evaluation_key=row.key, path=path, sha256=checksum, size=size))
                kept.append(row.key)
        return kept

    def amend(
        self, key: str, measurement: Measurement, files: Sequence[tuple[str, str, int]] = (), *, reason: str
    ) -> bool:
        """Let an answer that was taken in follow what its oracle says now; False where its values are the same.

        The values that held until now go to the history, and the log tells of the correction. Facts beside them and new
        files are kept in any case. The ledger stays as it is: what was charged was charged.
        """
        with self.database.write() as session:
            row = locked_rows(session, [key])[key]
            if row.state != State.SUCCEEDED or not measurement.is_success:
                return False
            kept = session.scalars(select(MeasurementRow).where(MeasurementRow.evaluation_key == key)).all()
            before = {m.property: MeasuredValue(m.value, m.unit, m.std, Censoring(m.censoring)) for m in kept}
            row.details = dict(measurement.metadata)
            for path, checksum, size in files:
                if session.get(Artifact, (key, path)) is None:
                    session.add(Artifact(evaluation_key=key, path=path, sha256=checksum, size=size))
            if before == dict(measurement.values):
                return False
            sequence = next_in(session, Transition, key)
            for old in kept:
                session.add(
                    EarlierMeasurement(
                        evaluation_key=key,
                        sequence=sequence,
                        property=old.property,
                        value=old.value,
                        std=old.std,
                        censoring=old.censoring,
                        unit=old.unit,
                    )
                )
                session.delete(old)
            session.flush()
            self._keep_values(session, row, measurement)
            session.add(
                Transition(
                    evaluation_key=key, sequence=sequence, state=State.SUCCEEDED, reason=reason, at=now()
                )
            )
            return True

    def n_amendments(self) -> int:
        """How often an answer was corrected after it had been taken in."""
        corrections = (
            select(EarlierMeasurement.evaluation_key, EarlierMeasurement.sequence)
            .join(Evaluation, Evaluation.key == EarlierMeasurement.evaluation_key)
            .where(Evaluation.campaign == self.campaign)
            .distinct()
        )
        with self.database.read() as session:
            return session.scalar(select(func.count()).select_from(corrections.subquery())) or 0

    def cancel(self, keys: Sequence[str], reason: str) -> None:
        """Cancel open evaluations and release what was reserved for them."""
        with self.database.write() as session:
            for row in locked_rows(session, keys).values():
                if row.state in OPEN_STATES:
                    row.claimed_by = None
                    row.cost_paid = 0.0
                    self._move(session, row, State.CANCELLED, reason)
                    self._book(session, row, Entry.RELEASE, -row.cost_reserved, 0.0)

    def abandon(self, keys: Sequence[str], reason: str) -> None:
        """Give up work lost from sight; it may still be alive outside, so its reservation stays charged."""
        with self.database.write() as session:
            for row in locked_rows(session, keys).values():
                if State.ABANDONED in FOLLOWS.get(State(row.state), ()):
                    self._move(session, row, State.ABANDONED, reason)

    @staticmethod
    def _move(session: Session, row: Evaluation, state: State, reason: str | None = None) -> None:
        if state not in FOLLOWS.get(State(row.state), ()):
            raise StoreError(f"The evaluation {row.key} can't go from {row.state} to {state}.")
        sequence = next_in(session, Transition, row.key)
        at = now()
        row.state = state
        row.reason = reason
        if state not in OPEN_STATES:
            row.finished_at = at
        session.add(Transition(evaluation_key=row.key, sequence=sequence, state=state, reason=reason, at=at))

    @staticmethod
    def _keep_values(session: Session, row: Evaluation, measurement: Measurement) -> None:
        for prop, measured in measurement.values.items():
            session.add(
                MeasurementRow(
                    evaluation_key=row.key,
                    property=prop,
                    value=measured.value,
                    std=measured.std,
                    censoring=measured.censoring,
                    unit=measured.unit,
                )
            )
