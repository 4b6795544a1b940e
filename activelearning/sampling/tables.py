"""Crystals in tables: what sampling writes, and known crystals read."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from activelearning.candidate import CrystalCandidate
from activelearning.errors import InputError

LATTICE = ("a", "b", "c", "alpha", "beta", "gamma")
COLUMNS = ("space_group", "composition", *LATTICE, "wyckoff", "property", "log_reward")
_NEEDED = ("space_group", "composition", *LATTICE)


def write_samples(
    path: Path,
    crystals: Sequence[CrystalCandidate],
    properties: Mapping[str, Sequence[float]],
    log_rewards: Sequence[float],
) -> None:
    """Write sampled crystals as CSV with exactly the columns `COLUMNS`.

    Composition and Wyckoff letters are JSON; the latter are empty where they were not sampled, and the lattice is where
    the space has none. `property` is a number, or with several properties a JSON object of them; a value that could
    not be told is empty (null).

    Raises:
        InputError: the file can't be written.
    """
    names = list(properties)
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for row, (crystal, log_reward) in enumerate(zip(crystals, log_rewards, strict=True)):
                values = {name: _known(properties[name][row]) for name in names}
                told = json.dumps(values) if len(names) > 1 else values[names[0]]
                lattice = crystal.lattice if crystal.lattice is not None else ("",) * 6
                letters = "" if crystal.wyckoff is None else _json(crystal.wyckoff)
                writer.writerow(
                    [crystal.space_group, _json(crystal.composition), *lattice, letters, told, log_reward]
                )
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror or error}.") from error


def _known(value: float) -> float | None:
    return None if value != value else value


def _json(mapping: Mapping[str, object]) -> str:
    return json.dumps({key: list(v) if isinstance(v, tuple) else v for key, v in mapping.items()})


def read_crystals(path: Path) -> list[CrystalCandidate]:
    """Read known crystals from a table (CSV, packed by gzip or not).

    Args:
        path: A table with the columns `space_group`, `composition` (JSON) and `a` to `gamma` (Å, degrees) of the
            conventional cell, as `samples.csv` has them; other columns are not looked at.

    Raises:
        InputError: the file can't be read, lacks a column, or a row is no crystal.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, usecols=lambda column: column in _NEEDED)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise InputError(f"The table {path} can't be read: {' '.join(str(error).split())}.") from error
    if missing := [column for column in _NEEDED if column not in table.columns]:
        raise InputError(
            f"The table {path} lacks the column {', '.join(missing)}; crystals have {', '.join(_NEEDED)}."
        )
    crystals = []
    for row, values in enumerate(table[list(_NEEDED)].itertuples(index=False), start=2):
        try:
            lattice = (*map(float, values[2:]),)
            crystals.append(CrystalCandidate(int(values[0]), json.loads(values[1]), lattice))  # type: ignore[arg-type]
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"The table {path}, line {row}, holds no crystal: {error}.") from error
    return crystals
