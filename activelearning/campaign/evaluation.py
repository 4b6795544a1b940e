"""Evaluation in process, and keeping what any oracle answers: values, charge, files."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from activelearning.campaign.answering import ask
from activelearning.campaign.isolation import WorkerPool
from activelearning.campaign.parts import Parts, Source
from activelearning.candidate import candidate_from_dict
from activelearning.measurement import Measurement
from activelearning.store.models import Evaluation, State
from activelearning.store.repository import Answer, Repository

Observer = Callable[[str, Mapping[str, Any]], None]
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
            self._evaluate_isolated(source, keys, source.config.timeout)

    def _evaluate_batch(self, source: Source, keys: Sequence[str]) -> None:
        rows = self.repository.claim(keys, self._worker)
        self._observe("evaluation.running", {"keys": [row.key for row in rows], "fidelity": source.name})
        shared = {row.key: self.repository.shared_answer(row.content_key) for row in rows}
        asked = [row for row in rows if shared[row.key] is None]
        answers = ask(
            source.oracle,
            source.config.oracle,
            source.fidelity.property,
            source.fidelity.unit,
            [candidate_from_dict(row.candidate) for row in asked],
            [row.key for row in asked],
        )
        fresh = {row.key: answer for row, answer in zip(asked, answers, strict=True)}
        results = [(row, fresh[row.key] if row.key in fresh else _shared(shared[row.key])) for row in rows]
        self.finish(source, results, worker=self._worker)

    def _evaluate_isolated(self, source: Source, keys: Sequence[str], timeout: float) -> None:
        pool = self._pools.get(source.name)
        if pool is None:
            n = source.config.max_in_flight or 1
            pool = WorkerPool(source.spec, n, timeout, source.spec.context.workdir)
            self._pools[source.name] = pool
        wanted = set(keys)
        rows = {
            row.key: row
            for row in self.repository.evaluations(
                states=[State.SUBMITTED, State.RUNNING], fidelities=[source.name]
            )
            if row.key in wanted
        }

        def claim(key: str) -> bool:
            claimed = self.repository.claim([key], self._worker)
            if not claimed:
                return False
            self._observe("evaluation.running", {"keys": [key], "fidelity": source.name})
            shared = self.repository.shared_answer(rows[key].content_key)
            if shared is not None:
                self.finish(source, [(rows[key], _shared(shared))], worker=self._worker)
            return shared is None

        def done(key: str, measurement: Measurement) -> None:
            self.finish(source, [(rows[key], measurement)], worker=self._worker)

        pool.run(
            [(candidate_from_dict(rows[key].candidate), key) for key in keys if key in rows], claim, done
        )

    def finish(
        self, source: Source, results: Sequence[tuple[Evaluation, Measurement]], worker: str | None = None
    ) -> None:
        """Keep results; those of claims that another process took over are dropped."""
        answers = [
            Answer(
                row.key,
                measurement,
                self._charge(source, row, measurement),
                self._keep_files(row, measurement),
            )
            for row, measurement in results
        ]
        kept = set(self.repository.finish(answers, worker=worker)) if answers else set()
        for row, measurement in results:
            if row.key in kept:
                values = {prop: measured.value for prop, measured in measurement.values.items()}
                facts = {
                    "key": row.key,
                    "fidelity": source.name,
                    "value": values.get(source.fidelity.property),
                    "reason": measurement.reason,
                    "seconds": measurement.seconds,
                }
                self._observe(
                    "evaluation.succeeded" if measurement.is_success else "evaluation.failed", facts
                )

    @staticmethod
    def _charge(source: Source, row: Evaluation, measurement: Measurement) -> float:
        """What an answer costs: never more than was reserved."""
        stated = measurement.cost
        if measurement.is_success and source.config.charge == "fixed":
            return row.cost_reserved
        return row.cost_reserved if stated is None else min(stated, row.cost_reserved)

    def _keep_files(self, row: Evaluation, measurement: Measurement) -> list[tuple[str, str, int]]:
        """Checksums of the files of an answer; files elsewhere are first copied into the campaign's folder."""
        kept = []
        for text in measurement.artifacts:
            path = Path(text)
            if not path.is_file():
                continue
            if not path.resolve().is_relative_to(self.artifacts.resolve()):
                home = self.artifacts / row.fidelity / row.key[:16]
                home.mkdir(parents=True, exist_ok=True)
                path = Path(shutil.copy2(path, home / path.name))
            relative = path.resolve().relative_to(self.artifacts.resolve()).as_posix()
            kept.append((relative, hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size))
        return kept


def _shared(found: tuple[str, Measurement] | None) -> Measurement:
    assert found is not None
    key, measurement = found
    return replace(measurement, cost=0.0, metadata={**measurement.metadata, "shared_from": key})
