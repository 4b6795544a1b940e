"""Answers looked up in a table by the candidate's key: measurements that exist already, as an oracle.

A plug-in as a user writes one, named in a config by `path/to/table_oracle.py:TableOracle`.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from activelearning.candidate import Candidate
from activelearning.errors import ConfigError
from activelearning.measurement import Censoring, Measurement
from oracles import Oracle


class TableOracle(Oracle):
    """One column of a CSV table.

    Args:
        file: The table; its column `key` holds the keys of candidates.
        column: The column with the answers, in the campaign's unit.
        bounds: The column that is 1 where the answer is an upper bound and 0 where it is a value; all are values by
            default.

    Raises:
        ConfigError: the file can't be read, lacks a column, names a key twice, or holds what is no answer.
    """

    def __init__(self, file: Path, column: str, bounds: str | None = None) -> None:
        self._answers = _read(Path(file), column, bounds)

    def evaluate_one(self, candidate: Candidate) -> Measurement:
        """The candidate's answer; a candidate that the table lacks fails."""
        if candidate.key not in self._answers:
            return Measurement.failed(f"the table has no row for the candidate {candidate.key[:12]}")
        value, censoring = self._answers[candidate.key]
        return Measurement.of(self.context.property, value, censoring=censoring)


def _read(path: Path, column: str, bounds: str | None) -> Mapping[str, tuple[float, Censoring]]:
    """Value and kind of every key."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"params.file {path} can't be read: {error}. It must be a CSV table.") from error
    answers: dict[str, tuple[float, Censoring]] = {}
    for number, row in enumerate(rows, start=1):
        lacking = [name for name in ("key", column, bounds) if name is not None and row.get(name) is None]
        if lacking:
            raise ConfigError(f"params.file {path}: row {number} lacks the column {lacking[0]!r}.")
        if row["key"] in answers:
            raise ConfigError(f"params.file {path}: row {number} names the key {row['key']!r} a second time.")
        kind = row[bounds] if bounds is not None else "0"
        try:
            value = float(row[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or kind not in ("0", "1"):
            raise ConfigError(
                f"params.file {path}: row {number} holds {row[column]!r} as {column!r} (a finite number is needed)"
                + (f" and {kind!r} as {bounds!r} (0 or 1 is needed)." if bounds is not None else ".")
            )
        answers[row["key"]] = value, Censoring.UPPER if kind == "1" else Censoring.NONE
    return answers
