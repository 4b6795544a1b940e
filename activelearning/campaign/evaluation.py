"""Evaluation in process, and keeping what any oracle answers: values, charge, files."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from activelearning.campaign.answering import ask, checked
from activelearning.campaign.isolation import WorkerPool
from activelearning.campaign.parts import Parts, Source
from activelearning.candidate import candidate_from_dict
from activelearning.errors import DeviceError
from activelearning.measurement import Measurement
from activelearning.store.models import Evaluation, State
from activelearning.store.records import TAKEOVERS, Answer
from activelearning.store.repository import Repository

Observer = Callable[[str, Mapping[str, Any]], None]
KEEP_SECONDS = 1.0  # answers that come one by one are kept after this time at the latest
MAX_TAKEOVERS = 2  # processes lost while they evaluated; the next one evaluates in a process of its own
BATCH = 512  # candidates handed to an in-process oracle at once: bounds memory and what a kill repeats


class Evaluator:
    """Evaluates for one process.

    Args:
        parts: The campaign's parts.
        repository: Its rows.
        worker: Id under which this process claims evaluations.
        artifacts: The campaign's folder for files.
        observe: Told of every change of an evaluation's state.
    """

    def __init__(
        self, parts: Parts, repository: Repository, worker: str, artifacts: Path, observe: Observer
    ) -> None:
        self.parts = parts
        self.repository = repository
        self.artifacts = artifacts
        self._worker = worker
        self._observe = observe
        self._pools: dict[str, WorkerPool] = {}

    def close(self) -> None:
        """Let idle worker processes end."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def kill(self) -> None:
        """End all worker processes at once."""
        for pool in self._pools.values():
            pool.kill()

    def evaluate(self, fidelity: str, keys: Sequence[str]) -> None:
        """Evaluate in process, outside the lease; different fidelities may run in different threads.

        Evaluations in another live process's hands are left to it.
        """
        source = self.parts.source(fidelity)
        self._observe("step.evaluate", {"fidelity": fidelity, "n": len(keys)})
        if source.config.timeout is None:
            for begin in range(0, len(keys), BATCH):
                self._evaluate_batch(source, keys[begin : begin + BATCH])
        else:
            self._evaluate_isolated(source, keys)

    def _evaluate_batch(self, source: Source, keys: Sequence[str]) -> None:
        rows = self.repository.claim(keys, self._worker)
        self._observe("evaluation.running", {"keys": [row.key for row in rows], "fidelity": source.name})
        known = {row.key: self.known_answer(source, row) for row in rows}
        shared = [(row, answer) for row in rows if (answer := known[row.key]) is not None]
        self.finish(source, shared, worker=self._worker)
        asked = [row for row in rows if known[row.key] is None]
        # What took one process after another with it is asked once more where it can harm nobody.
        suspects = [row for row in asked if row.details.get(TAKEOVERS, 0) >= MAX_TAKEOVERS]
        self._evaluate_in_pool(source, suspects, lambda _row: True)
        asked = [row for row in asked if row.details.get(TAKEOVERS, 0) < MAX_TAKEOVERS]
        if source.oracle.is_batched:
            self.finish(source, self._ask(source, asked), worker=self._worker)
            return
        # One at a time, and kept now and then: a process that is lost loses little.
        waiting: list[tuple[Evaluation, Measurement]] = []
        kept = time.monotonic()
        try:
            for row in asked:
                waiting += self._ask(source, [row])
                if time.monotonic() - kept >= KEEP_SECONDS:
                    self.finish(source, waiting, worker=self._worker)
                    waiting, kept = [], time.monotonic()
        except BaseException:
            # A full disk may be the store's, too; the first error is the one to tell.
            with suppress(SQLAlchemyError):
                self.finish(source, waiting, worker=self._worker)
            raise
        self.finish(source, waiting, worker=self._worker)

    def _ask(self, source: Source, rows: Sequence[Evaluation]) -> list[tuple[Evaluation, Measurement]]:
        if not rows:
            return []
        try:
            answers = ask(
                source.oracle,
                source.config.oracle,
                source.fidelity.property,
                source.fidelity.unit,
                [candidate_from_dict(row.candidate) for row in rows],
                [row.key for row in rows],
            )
        except DeviceError:
            # This process is lost, as by a crash. Where it is always the same candidates that are at hand, they are
            # asked in a process of their own in the end.
            for row in rows:
                lost = row.details.get(TAKEOVERS, 0) + 1
                self.repository.advance([row.key], State.RUNNING, details={TAKEOVERS: lost})
            raise
        return list(zip(rows, answers, strict=True))

    def known_answer(self, source: Source, row: Evaluation) -> Measurement | None:
        """The answer that another campaign of the store has to the same question, in this campaign's unit.

        It is kept with `shared_from`, the key of the other evaluation, in its metadata. Where the charge is fixed it
        costs what an answer costs, so that a campaign is the same whatever else is in its store; where the charge is
        measured it is free.
        """
        found = self.repository.shared_answer(row.content_key)
        if found is None:
            return None
        key, measurement = found
        unit = source.fidelity.unit
        stated = measurement.values[source.fidelity.property].unit
        if unit is not None and stated is not None and stated != unit:
            return None  # the unit is no part of the question's key
        metadata = {**measurement.metadata, "shared_from": key}
        answer = replace(measurement, cost=0.0, metadata=metadata)
        return checked(answer, source.config.oracle, source.fidelity.property, unit)

    def _evaluate_isolated(self, source: Source, keys: Sequence[str]) -> None:
        wanted = set(keys)
        rows = self.repository.evaluations(states=[State.SUBMITTED, State.RUNNING], fidelities=[source.name])

        def claim(row: Evaluation) -> bool:
            if not self.repository.claim([row.key], self._worker):
                return False
            self._observe("evaluation.running", {"keys": [row.key], "fidelity": source.name})
            answer = self.known_answer(source, row)
            if answer is not None:
                self.finish(source, [(row, answer)], worker=self._worker)
            return answer is None

        self._evaluate_in_pool(source, [row for row in rows if row.key in wanted], claim)

    def _evaluate_in_pool(
        self, source: Source, rows: Sequence[Evaluation], claim: Callable[[Evaluation], bool]
    ) -> None:
        if not rows:
            return
        pool = self._pools.get(source.name)
        if pool is None:
            n = source.config.max_in_flight or 1
            pool = WorkerPool(source.spec, n, source.config.timeout, source.spec.context.workdir)
            self._pools[source.name] = pool
        by_key = {row.key: row for row in rows}
        pool.run(
            [(candidate_from_dict(row.candidate), row.key) for row in rows],
            lambda key: claim(by_key[key]),
            lambda key, measurement: self.finish(source, [(by_key[key], measurement)], worker=self._worker),
        )

    def finish(
        self, source: Source, results: Sequence[tuple[Evaluation, Measurement]], worker: str | None = None
    ) -> None:
        """Keep results; those of claims that another process took over are dropped."""
        answers = []
        for row, measurement in results:
            whole, files = self.keep_files(row.fidelity, row.key, measurement)
            answers.append(Answer(row.key, whole, self._charge(source, row, measurement), files))
        kept = set(self.repository.finish(answers, worker=worker)) if answers else set()
        for row, measurement in results:
            if row.key in kept:
                measured = measurement.values.get(source.fidelity.property)
                facts = {
                    "key": row.key,
                    "fidelity": source.name,
                    "value": None if measured is None else measured.value,
                    "censoring": None if measured is None else measured.censoring,
                    "reason": measurement.reason,
                    "seconds": measurement.seconds,
                }
                self._observe(
                    "evaluation.succeeded" if measurement.is_success else "evaluation.failed", facts
                )

    def amend(self, source: Source, row: Evaluation, now_true: Measurement) -> bool:
        """Let an answer that was taken in follow what its oracle says of it now; False where that is the same."""
        fidelity = source.fidelity
        measurement = checked(now_true, source.config.oracle, fidelity.property, fidelity.unit)
        if not measurement.is_success:
            return False  # a unit that the other campaign counts in, as in `known_answer`
        own = {k: v for k, v in row.details.items() if k in ("shared_from", "lost_artifacts")}
        if row.details == {**measurement.metadata, **own}:
            return False  # nothing was recorded since
        own.pop("lost_artifacts", None)
        measurement = replace(measurement, metadata={**measurement.metadata, **own})
        whole, files = self.keep_files(row.fidelity, row.key, measurement)
        if not self.repository.amend(row.key, whole, files, reason="corrected or replicated outside"):
            return False
        value = whole.values[fidelity.property].value
        self._observe("evaluation.amended", {"key": row.key, "fidelity": source.name, "value": value})
        return True

    @staticmethod
    def _charge(source: Source, row: Evaluation, measurement: Measurement) -> float:
        """What an answer costs: never more than was reserved."""
        stated = measurement.cost
        if measurement.is_success and source.config.charge == "fixed":
            return row.cost_reserved
        return row.cost_reserved if stated is None else min(stated, row.cost_reserved)

    def keep_files(
        self, fidelity: str, key: str, measurement: Measurement
    ) -> tuple[Measurement, list[tuple[str, str, int]]]:
        """Checksums of the files of an answer; files elsewhere are first copied into the campaign's folder.

        A file that can't be kept is named in the metadata, with the reason: it does not void the answer.
        """
        kept: dict[str, tuple[str, str, int]] = {}
        lost = {}
        root = self.artifacts.resolve()
        for text in dict.fromkeys(measurement.artifacts):
            try:
                path = Path(text).resolve()
                if not path.is_relative_to(root):
                    # Files of one name from different folders must not replace one another.
                    home = root / fidelity / key[:16] / hashlib.sha256(text.encode()).hexdigest()[:8]
                    home.mkdir(parents=True, exist_ok=True)
                    path = Path(shutil.copy2(path, home / path.name))
                with path.open("rb") as file:
                    checksum = hashlib.file_digest(file, "sha256").hexdigest()
                relative = path.relative_to(root).as_posix()
                kept[relative] = (relative, checksum, path.stat().st_size)
            except OSError as error:
                lost[text] = error.strerror or str(error)
        if lost:
            measurement = replace(measurement, metadata={**measurement.metadata, "lost_artifacts": lost})
        return measurement, list(kept.values())
