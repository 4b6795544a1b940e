"""Tables of computed materials: the Materials Project's format, and crystals of a sampler's own making."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from activelearning.candidate import digest
from activelearning.crystals.descriptors import amounts_of, cell_volumes
from activelearning.crystals.elements import element_rows
from activelearning.errors import InputError

ENVIRONMENT_VARIABLE = "ACTIVELEARNING_MP"
FILE = "materials.csv.gz"
LATTICE = ("a", "b", "c", "alpha", "beta", "gamma")
CRYSTAL_COLUMNS = ("space_group", "composition", *LATTICE)
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MaterialsTable:
    """Crystals with computed properties; every attribute has n entries.

    Attributes:
        amounts: Atoms of each element (H to Lr) in the conventional cell, `n x 103`.
        space_groups: International numbers, `n`.
        lattices: (a, b, c, α, β, γ) of the conventional cell in Å and degrees, `n x 6`.
        values: Properties by column of the table, `n` each; NaN where a row has none.
        formulas: 64 bits for each reduced composition, `n`; rows of one composition are in one fold.
    """

    amounts: Array
    space_groups: npt.NDArray[np.int64]
    lattices: Array
    values: Mapping[str, Array]
    formulas: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.amounts)

    def compositions(self) -> list[dict[str, float]]:
        """Atoms of each element in the conventional cells."""
        symbols = np.array(list(element_rows()))
        return [
            dict(zip(symbols[row > 0].tolist(), row[row > 0].tolist(), strict=True)) for row in self.amounts
        ]

    def joined(self, other: MaterialsTable) -> MaterialsTable:
        """This table's rows, then the other's; a column that only one of them has is NaN in the other's rows."""
        columns = sorted({*self.values, *other.values})
        return MaterialsTable(
            np.concatenate([self.amounts, other.amounts]),
            np.concatenate([self.space_groups, other.space_groups]),
            np.concatenate([self.lattices, other.lattices]),
            {
                name: np.concatenate([t.values.get(name, np.full(len(t), np.nan)) for t in (self, other)])
                for name in columns
            },
            np.concatenate([self.formulas, other.formulas]),
        )


def find_materials(path: Path | None = None) -> Path:
    """The table of materials: the path given, else the one named by `ACTIVELEARNING_MP`; a folder's `materials.csv.gz`.

    Raises:
        InputError: neither is given, or there is nothing there.
    """
    named = path if path is not None else os.environ.get(ENVIRONMENT_VARIABLE) or None
    if named is None:
        raise InputError(
            f"The table of materials is not here: name it with --data, or set {ENVIRONMENT_VARIABLE} to its folder. It "
            f"is a CSV file (compressed or not) with the columns {', '.join(CRYSTAL_COLUMNS)} and a property."
        )
    found = Path(named).expanduser()
    found = found / FILE if found.is_dir() else found
    if not found.is_file():
        origin = "--data" if path is not None else ENVIRONMENT_VARIABLE
        raise InputError(f"There is no table of materials at {found} (named by {origin}).")
    return found


def read_materials(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> MaterialsTable:
    """Read a CSV file, compressed or not, with the columns of a crystal and some of its properties.

    Args:
        path: The file.
        columns: Properties it must have; a cell may be empty.
        optional: Properties read where it has them.

    Raises:
        InputError: the file can't be read, lacks a column, or a row is no crystal or holds no number.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read as a CSV file: {error}.") from error
    missing = [column for column in (*CRYSTAL_COLUMNS, *columns) if column not in frame.columns]
    if missing:
        raise InputError(
            f"{path} is no table of materials: it lacks the column{'s' if len(missing) > 1 else ''} "
            f"{', '.join(missing)}. It has {', '.join(map(str, frame.columns))}."
        )
    if frame.empty:
        raise InputError(f"{path} is empty: it has a head of columns and no row.")
    wanted = [*columns, *(name for name in optional if name in frame.columns)]
    numbers = {}
    for name in ("space_group", *LATTICE, *wanted):
        as_numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64)
        is_bad = ~np.isfinite(as_numbers)
        if name in wanted:
            is_bad &= frame[name].notna().to_numpy()  # a property may be unknown
        if is_bad.any():
            line = int(np.argmax(is_bad))
            found = "empty" if frame[name].isna()[line] else repr(str(frame[name][line]))
            raise InputError(f"{path}, line {line + 2}: {name} must be a number, not {found}.")
        numbers[name] = as_numbers
    groups = numbers["space_group"]
    lattices = np.column_stack([numbers[name] for name in LATTICE])
    is_cell = np.nan_to_num(cell_volumes(lattices)) > 0.0
    for what, is_right in (
        ("space_group must be a whole number from 1 to 230", np.isin(groups, np.arange(1, 231))),
        ("a, b and c must be above 0 Å", (lattices[:, :3] > 0).all(axis=1)),
        ("alpha, beta and gamma must be above 0 and below 180 degrees", _are_angles(lattices[:, 3:])),
        ("its lattice closes no cell", is_cell),
    ):
        if not is_right.all():
            raise InputError(f"{path}, line {int(np.argmin(is_right)) + 2}: {what}.")
    amounts = _amounts(path, frame["composition"].tolist())
    return MaterialsTable(
        amounts=amounts,
        space_groups=groups.astype(np.int64),
        lattices=lattices,
        values={name: numbers[name] for name in wanted},
        formulas=formula_marks(amounts),
    )


def _are_angles(angles: Array) -> npt.NDArray[np.bool_]:
    return np.all((angles > 0.0) & (angles < 180.0), axis=1)


def _amounts(path: Path, texts: Sequence[Any]) -> Array:
    try:
        return amounts_of([json.loads(text) for text in texts])
    except (TypeError, ValueError, AttributeError):
        for line, text in enumerate(texts, start=2):
            try:
                amounts_of([json.loads(text)])
            except (TypeError, ValueError, AttributeError) as error:
                is_mapping = isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError)
                why = f" ({error})" if is_mapping else ""
                raise InputError(
                    f"{path}, line {line}: composition must be JSON of elements and atoms in the conventional cell, as "
                    f'in {{"Li": 8, "O": 4}}, not {text!r}{why}.'
                ) from error
        raise


def formula_marks(amounts: Array) -> npt.NDArray[np.uint64]:
    """64 bits for the reduced composition of each row, `n`, of `n x 103` amounts; fractions count to four decimals."""
    fractions = np.round(amounts / amounts.sum(axis=1, keepdims=True), 4)
    marks = []
    for row in fractions:
        elements = np.flatnonzero(row)
        marks.append(int(digest([elements.tolist(), row[elements].tolist()])[:16], 16))
    return np.array(marks, dtype=np.uint64)
