"""Properties of candidates, in batches, as a reward asks for them millions of times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from activelearning.candidate import Candidate
from activelearning.contracts.oracle import OracleLike
from activelearning.errors import ActiveLearningError, OracleError
from activelearning.measurement import Measurement


@dataclass(frozen=True)
class PropertyValues:
    """A property of n candidates.

    Attributes:
        values: `n`, float64; NaN where it could not be told.
        stds: Predictive standard deviations, `n`, float64; None where the source states none.
        reason: Why the first candidate without a value has none; None where all have one.
    """

    values: Tensor
    stds: Tensor | None = None
    reason: str | None = None

    @property
    def n_failed(self) -> int:
        """Number of candidates without a value."""
        return int(self.values.isnan().sum())


@runtime_checkable
class PropertySource(Protocol):
    """A property as a function of candidates.

    Attributes:
        name: Its name.
        unit: Its unit, None where none is stated.
    """

    name: str
    unit: str | None

    def __call__(self, candidates: Sequence[Candidate]) -> PropertyValues:
        """The property of every candidate, in order."""
        ...


class OracleProperty:
    """A property as an oracle that answers at once tells it.

    The standard deviation of a value is the oracle's `predictive_std` in a measurement's metadata, else the
    measurement's own standard error.

    Args:
        oracle: A bound oracle.
        name: The property; it must be among the values of a measurement.
        unit: Its unit, for labels.
    """

    def __init__(self, oracle: OracleLike, name: str, unit: str | None = None) -> None:
        self.oracle = oracle
        self.name = name
        self.unit = unit

    def __call__(self, candidates: Sequence[Candidate]) -> PropertyValues:
        """The property of every candidate; NaN where the oracle says that it can't be told.

        Raises:
            OracleError: the oracle raised, or broke its contract.
        """
        try:
            answers = self.oracle.evaluate(candidates)
        except ActiveLearningError:
            raise
        except Exception as error:
            raise OracleError(
                f"The oracle of {self.name!r} raised {type(error).__name__}: {' '.join(str(error).split())}."
            ) from error
        if len(answers) != len(candidates):
            raise OracleError(
                f"The oracle of {self.name!r} gave {len(answers)} answers to {len(candidates)} candidates; evaluate() "
                f"must give one for each, in order."
            )
        read = [self._read(answer) for answer in answers]
        values = torch.tensor([value for value, _ in read], dtype=torch.float64)
        stds = torch.tensor([float("nan") if std is None else std for _, std in read], dtype=torch.float64)
        is_known = ~values.isnan()
        reason = next((answer.reason for answer in answers if not answer.is_success), None)
        has_stds = bool(is_known.any()) and not bool(stds[is_known].isnan().any())
        return PropertyValues(values, stds if has_stds else None, reason)

    def _read(self, answer: object) -> tuple[float, float | None]:
        """Value and standard deviation of one answer."""
        if not isinstance(answer, Measurement):
            raise OracleError(
                f"The oracle of {self.name!r} answered with a {type(answer).__name__}; a Measurement is wanted."
            )
        if not answer.is_success:
            return float("nan"), None
        if self.name not in answer.values:
            raise OracleError(
                f"The oracle of {self.name!r} measured {', '.join(answer.values)} in its place."
            )
        measured = answer.values[self.name]
        if self.unit is not None and measured.unit not in (None, self.unit):
            raise OracleError(
                f"The oracle of {self.name!r} answers in {measured.unit!r}, but the config states the unit "
                f"{self.unit!r}."
            )
        predictive = answer.metadata.get("predictive_std", measured.std)
        return measured.value, None if predictive is None else float(predictive)
