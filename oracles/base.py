"""The classes a user subclasses."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from activelearning.candidate import Candidate
from activelearning.contracts.oracle import ExternalId, JobState, OracleContext
from activelearning.errors import ConfigError, OracleError
from activelearning.measurement import Measurement


class Oracle(ABC):
    """A source of one property at one fidelity.

    The smallest oracle writes only `evaluate_one`. Parameters from the config's `params:` arrive in
    `__init__` as keywords; `self.context` says which campaign, fidelity, property and unit it works for. Give
    results another `version` when the code behind them changes: it is part of what makes an answer reusable.

    A crystal whose structure has partial occupancies comes ordered into whole atoms, the same for every oracle. One
    that looks at composition, space group and lattice only says `takes_average = True`, and gets it as it is.
    """

    version: str = "1"
    is_queued: ClassVar[bool] = False
    takes_average: ClassVar[bool] = False
    context: OracleContext
    params: Mapping[str, Any]
    _keys: Mapping[str, str] = {}

    def __new__(cls, *args: Any, **params: Any) -> Oracle:
        """Remember the parameters, so that a subclass need not, for the content key."""
        oracle = super().__new__(cls)
        oracle.params = params
        return oracle

    def bind(self, context: OracleContext) -> None:
        """Take notice of the campaign."""
        self.context = context

    def check(self) -> None:  # noqa: B027 (a hook; most oracles need no more than their constructor)
        """Raise an `ActiveLearningError` where the oracle can't work."""

    def check_unit(self, unit: str | None, *spellings: str) -> None:
        """Refuse another unit than the one this oracle answers in; for a subclass's `check`.

        Args:
            unit: What it answers in; None for a number without unit.
            spellings: Other spellings of it.

        Raises:
            ConfigError: the fidelity's unit is stated, and is none of these.
        """
        stated = self.context.unit
        if stated is None or stated in (unit, *spellings):
            return
        answers, correction = (
            ("a number without unit", "leave it out") if unit is None else (unit, f"write {unit}")
        )
        raise ConfigError(
            f"The oracle of the fidelity {self.context.fidelity!r} ({type(self).__name__}) answers in {answers}, but "
            f"the unit of {self.context.property!r} is given as {stated!r}; {correction}."
        )

    def content(self) -> Mapping[str, object]:
        """All that changes results besides the candidate; by default every parameter, files by their checksums.

        Override it where a parameter changes only where or how fast the work is done.
        """
        return {name: _content(value) for name, value in self.params.items()}

    def evaluate_one(self, candidate: Any) -> float | Measurement:
        """Answer for one candidate: a number in the campaign's unit, or a `Measurement`."""
        raise OracleError(f"{type(self).__name__} defines neither evaluate_one() nor evaluate()")

    def evaluate(self, candidates: Sequence[Any]) -> Sequence[Measurement]:
        """Answer for every candidate, in order; override it to work on batches."""
        answers = []
        for candidate in candidates:
            answer = self.evaluate_one(candidate)
            answers.append(
                answer if isinstance(answer, Measurement) else Measurement.of(self.context.property, answer)
            )
        return answers

    @property
    def is_batched(self) -> bool:
        """Whether `evaluate` is a subclass's own: only then are candidates handed over together."""
        return type(self).evaluate is not Oracle.evaluate

    def expect(self, keys: Mapping[str, str]) -> None:
        """Take notice of which evaluations the next `evaluate` works for."""
        self._keys = keys

    def key(self, candidate: Candidate) -> str:
        """Key of the evaluation at work on a candidate (the candidate's own key outside a campaign)."""
        return self._keys.get(candidate.key, candidate.key)

    def seed(self, candidate: Candidate) -> int:
        """Seed, 63 bits, for random work on a candidate; the same evaluation always gets the same seed."""
        return int(self.key(candidate)[:16], 16) >> 1

    def cost(self, candidate: Candidate) -> float:
        """Predicted cost of one answer; by default the configured constant."""
        return self.context.cost


def _content(value: Any) -> Any:
    if not isinstance(value, Path):
        return value
    return {"sha256": hashlib.sha256(value.read_bytes()).hexdigest()} if value.is_file() else str(value)


class QueuedOracle(Oracle):
    """An oracle whose results come later, from elsewhere: a scheduler, a laboratory."""

    is_queued: ClassVar[bool] = True

    @abstractmethod
    def submit(self, candidate: Any, key: str) -> ExternalId:
        """Start outside work under the name `key` and return its external id.

        Raise `OracleError` where the candidate itself can't be done: its evaluation then fails, free of charge. Any
        other exception is taken as trouble of the outside, and the submission is tried again on the next tick.
        """

    @abstractmethod
    def find(self, key: str) -> ExternalId | None:
        """Look outside work up by its key; None where there is none. This makes submission idempotent."""

    @abstractmethod
    def poll(self, ids: Sequence[ExternalId]) -> Mapping[ExternalId, JobState | Measurement]:
        """State or result of each id, in one outside call where possible."""

    @abstractmethod
    def cancel(self, ids: Sequence[ExternalId]) -> None:
        """Stop outside work; an unknown id is no error."""

    def flush(self) -> None:
        """Called once after a batch of submissions, by an oracle that hands them over together.

        It may not be called at all, should the process be lost; `poll` then hands over what was left behind.
        """
