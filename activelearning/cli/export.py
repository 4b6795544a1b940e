"""Writing what a campaign found to files: tables, and crystals as CIF."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activelearning.errors import InputError
from activelearning.report import EXPORT_COLUMNS

if TYPE_CHECKING:
    from activelearning.report.crystals import Crystal

Rows = Sequence[Mapping[str, Any]]


def write_table(rows: Rows, out: Path, format: str) -> int:
    """Write rows as `csv`, `json` or `parquet`; returns their number.

    Raises:
        InputError: the file can't be written, or a package that the format needs is missing.
    """
    try:
        _TABLES[format](rows, out)
    except OSError as error:
        raise InputError(f"--out: {out} can't be written: {error.strerror or error}.") from error
    return len(rows)


def _write_json(rows: Rows, out: Path) -> None:
    out.write_text(json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_csv(rows: Rows, out: Path) -> None:
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, EXPORT_COLUMNS)
        writer.writeheader()
        writer.writerows(_flat(row) for row in rows)


def _write_parquet(rows: Rows, out: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("--format parquet needs the package 'pyarrow': pip install pyarrow.") from error
    # Types are stated, so that a column without a single value has the type it has elsewhere.
    types = {"round": pyarrow.int64()} | dict.fromkeys(
        ("value", "std", "cost_reserved", "cost_paid"), pyarrow.float64()
    )
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in EXPORT_COLUMNS])
    table = pyarrow.Table.from_pylist([_flat(row) for row in rows], schema=schema)
    pyarrow.parquet.write_table(table, out)


_TABLES: Mapping[str, Callable[[Rows, Path], None]] = {
    "csv": _write_csv,
    "json": _write_json,
    "parquet": _write_parquet,
}


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its candidate as JSON text."""
    return {**row, "candidate": json.dumps(row["candidate"], sort_keys=True)}


def write_cifs(crystals: Sequence[Crystal], out: Path) -> int:
    """Write one CIF a crystal into a folder, named by formula and key; returns their number.

    Raises:
        InputError: there is no crystal whose atoms are known, or the folder can't be written.
    """
    if not crystals:
        raise InputError(
            "--format cif: no crystal of this campaign has known atoms. Space group, composition and lattice of every "
            "candidate are in the other formats."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for crystal in crystals:
            formula = crystal.candidate.formula.replace(" ", "")
            (out / f"{formula}_{crystal.key[:16]}.cif").write_text(crystal.cif, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out: {out} can't be written: {error.strerror or error}.") from error
    return len(crystals)
