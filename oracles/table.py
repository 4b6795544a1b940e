"""Answers looked up in a table: measurements that exist already, as an oracle, for campaigns in retrospect."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from activelearning.candidate import Candidate
from activelearning.errors import ConfigError
from activelearning.measurement import Censoring, Measurement
from activelearning.spaces.pool import PoolSpace
from oracles.base import Oracle

KEY = "key"


class TableOracle(Oracle):
    """One column of a CSV table.

    Rows belong to candidates by the column `key`, which holds candidates' keys; a table without one is read as a
    pool is (`space: {type: pool, file: ...}`), so that the pool's own file may hold the answers, too.

    Args:
        file: The table, relative to the config's folder.
        column: The column with the answers, in the campaign's unit; a row with nothing there has no answer.
        std: The column with standard errors, if there is one.
        bounds: The column that is 1 where the answer is an upper bound, -1 where it is a lower one, and 0 where it is
            a value; all are values by default.
        features: The pool's `features`, where the table is read as a pool of points.

    Raises:
        ConfigError: the file can't be read, lacks a column, names a candidate twice, or holds what is no answer.
    """

    takes_average: ClassVar[bool] = True
    version = "1"

    def __init__(
        self,
        file: Path,
        column: str,
        std: str | None = None,
        bounds: str | None = None,
        features: list[str] | None = None,
    ) -> None:
        self._answers = _read(Path(file), column, std, bounds, features)

    def evaluate_one(self, candidate: Candidate) -> Measurement:
        """The candidate's answer; a candidate that the table lacks fails."""
        if candidate.key not in self._answers:
            return Measurement.failed(f"the table has no answer for the candidate {candidate.key[:12]}")
        value, std, censoring = self._answers[candidate.key]
        return Measurement.of(
            self.context.property, value, unit=self.context.unit, std=std, censoring=censoring
        )


_KINDS = {"0": Censoring.NONE, "1": Censoring.UPPER, "-1": Censoring.LOWER}


def _read(
    path: Path, column: str, std: str | None, bounds: str | None, features: list[str] | None
) -> Mapping[str, tuple[float, float | None, Censoring]]:
    """Value, standard error and kind by key."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"params.file {path} can't be read: {error}. It must be a CSV table.") from error
    if not rows:
        raise ConfigError(f"params.file {path} holds no rows.")
    answers: dict[str, tuple[float, float | None, Censoring]] = {}
    for number, (key, row) in enumerate(zip(_keys(path, rows, features), rows, strict=True), start=1):
        lacking = [name for name in (column, std, bounds) if name is not None and row.get(name) is None]
        if lacking:
            raise ConfigError(f"params.file {path}: row {number} lacks the column {lacking[0]!r}.")
        if not row[column].strip():
            continue
        if key in answers:
            raise ConfigError(
                f"params.file {path}: row {number} holds a second answer for one candidate ({key[:12]})."
            )
        value = _number(row[column])
        error_text = row[std].strip() if std is not None else ""
        deviation = _number(error_text) if error_text else None
        kind = row[bounds].strip() if bounds is not None else "0"
        is_wrong = error_text != "" and (deviation is None or deviation < 0)
        if value is None or kind not in _KINDS or is_wrong:
            raise ConfigError(
                f"params.file {path}: row {number} holds {row[column]!r} as {column!r} (a finite number is needed)"
                + (f", {row[std]!r} as {std!r} (a number of at least 0)" if std is not None else "")
                + (f", {kind!r} as {bounds!r} (0, 1 or -1)" if bounds is not None else "")
                + "."
            )
        answers[key] = value, deviation, _KINDS[kind]
    return answers


def _keys(path: Path, rows: Sequence[Mapping[str, str]], features: list[str] | None) -> Sequence[str]:
    if KEY in rows[0]:
        return [row[KEY] for row in rows]
    return [candidate.key for candidate in PoolSpace(path, features).rows]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
