"""Crystals in tables: what sampling writes, and known crystals read."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.descriptors import cell_volumes
from activelearning.errors import InputError
from activelearning.sampling.statistics import finite

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
                values = {name: finite(properties[name][row]) for name in names}
                told = json.dumps(values) if len(names) > 1 else values[names[0]]
                lattice = crystal.lattice if crystal.lattice is not None else ("",) * 6
                letters = "" if crystal.wyckoff is None else _json(crystal.wyckoff)
                writer.writerow(
                    [crystal.space_group, _json(crystal.composition), *lattice, letters, told, log_reward]
                )
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror or error}.") from error


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
        # Cells stay the texts they are: what is no number is shown as it stands.
        table = pd.read_csv(path, usecols=lambda column: column in _NEEDED, dtype=str, keep_default_na=False)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise InputError(f"The table {path} can't be read: {' '.join(str(error).split())}.") from error
    if missing := [column for column in _NEEDED if column not in table.columns]:
        raise InputError(
            f"The table {path} lacks the column {', '.join(missing)}; crystals have {', '.join(_NEEDED)}."
        )
    if table.empty:
        raise InputError(f"The table {path} is empty: it has a head of columns and no row.")
    crystals = []
    for line, cells in enumerate(table[list(_NEEDED)].fillna("").itertuples(index=False), start=2):
        try:
            crystals.append(_crystal(*cells))
        except ValueError as error:
            raise InputError(f"The table {path}, line {line}: {error}.") from error
    return crystals


def _crystal(group: str, composition: str, *lattice: str) -> CrystalCandidate:
    """The crystal of a row.

    Raises:
        ValueError: naming the column and what would be right.
    """
    number = _number(group)
    if number not in range(1, 231):
        raise ValueError(f"space_group must be a whole number from 1 to 230, not {_shown(group)}")
    try:
        atoms = json.loads(composition)
    except ValueError:
        atoms = None
    if not isinstance(atoms, dict):
        raise ValueError(
            'composition must be JSON of elements and atoms in the conventional cell, as in {"Li": 8, "O": 4}, not '
            + _shown(composition)
        )
    for name, value in atoms.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"composition needs whole positive counts, not {name}: {value!r}")
    for name, cell in zip(LATTICE[:3], lattice[:3], strict=True):
        if not 0.0 < _number(cell) < math.inf:
            raise ValueError(f"{name} must be a length above 0 Å, not {_shown(cell)}")
    for name, cell in zip(LATTICE[3:], lattice[3:], strict=True):
        if not 0.0 < _number(cell) < 180.0:
            raise ValueError(f"{name} must be an angle above 0 and below 180 degrees, not {_shown(cell)}")
    a, b, c, alpha, beta, gamma = map(float, lattice)
    if not np.nan_to_num(cell_volumes(np.array([[a, b, c, alpha, beta, gamma]])))[0] > 0.0:
        raise ValueError(f"the angles {alpha:g}, {beta:g} and {gamma:g} degrees close no cell")
    return CrystalCandidate(int(number), atoms, (a, b, c, alpha, beta, gamma))


def _number(cell: str) -> float:
    """The number of a cell; NaN where it holds none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _shown(cell: str) -> str:
    return repr(cell) if cell.strip() else "empty"
