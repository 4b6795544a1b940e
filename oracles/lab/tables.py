"""Requests and results as tables: what is asked for as a sheet to fill in, and that sheet read back, all or nothing."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from activelearning.errors import ActiveLearningError, InputError
from activelearning.measurement import Censoring
from activelearning.report.text import candidate_text
from activelearning.store.database import Database
from oracles.lab.recording import RefusedError, problems_of, record_all
from oracles.lab.requests import OPEN, list_requests
from oracles.lab.results import NewResult, Unrequested, Upload, parse_number, parse_value
from oracles.lab.sheet import all_priorities
from oracles.lab.unrequested import read_candidate

# What a person fills in; a table needs `key` (or `candidate` and `campaign`) and `value`.
INPUT = ("key", "value", "std", "unit", "method", "by", "cost", "note", "file", "corrects", "replicate")
UNREQUESTED = ("candidate", "campaign", "fidelity")
# What an exported table says besides; read back, it is passed over.
SAID = ("priority", "material", "property", "wanted_unit", "state", "number", "corrected_by", "recorded_at")
EXPORTED = (
    "key",
    "campaign",
    "fidelity",
    "priority",
    "material",
    "candidate",
    "property",
    "wanted_unit",
    "state",
)
MAX_ROWS = 10_000
_BOUNDS = {Censoring.UPPER: "<", Censoring.LOWER: ">", Censoring.NONE: ""}
# A spreadsheet takes a cell that begins with one of these for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_YES, _NO = ("yes", "true", "1", "x"), ("", "no", "false", "0")

ReadFile = Callable[[str], Upload]


def export_table(database: Database, *, campaign: str | None = None, all: bool = False) -> str:
    """Requests as CSV: those that are open with empty columns for their results; or all, a row for each result."""
    rows = []
    requests = list_requests(database, campaign=campaign, state=None if all else OPEN)
    with database.read() as session:
        places = all_priorities(session, (request["campaign"] for request in requests))
    for request in requests:
        head = {
            **{name: request[name] for name in ("key", "campaign", "fidelity", "property", "state")},
            "priority": places.get(request["key"], ""),
            "material": candidate_text(request["candidate"]),
            "candidate": json.dumps(request["candidate"]),
            "wanted_unit": request["unit"] or "",
        }
        rows += [{**head, **_result(result)} for result in request["results"]] or [head]
    columns = (
        [*EXPORTED, *INPUT[1:], "number", "corrected_by", "recorded_at"] if all else [*EXPORTED, *INPUT[1:]]
    )
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows({k: _cell(v) for k, v in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA) and not _is_number(value):
        return f"'{value}"
    return "" if value is None else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _result(result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "value": f"{_BOUNDS[Censoring(result['censoring'])]}{result['value']!r}",
        "by": result["recorded_by"],
        "file": "; ".join(file["name"] for file in result["files"]),
        **{name: result[name] for name in ("std", "unit", "method", "cost", "note", "corrects")},
        **{name: result[name] for name in ("number", "corrected_by", "recorded_at")},
    }


def import_table(database: Database, text: str, read_file: ReadFile, *, once: str | None = None) -> list[str]:
    """Record the results of a CSV table, all or none. Rows without a value are passed over.

    Args:
        database: The store.
        text: The table, with a header of `INPUT` and `UNREQUESTED` columns; those of an export are known, too.
        read_file: Gives the file that a cell of `file`, or a `candidate` that is no JSON, names.
        once: A mark of the form that it was sent by, as `Unrequested` has it.

    Returns:
        The keys of the requests, in the order of the rows.

    Raises:
        InputError: naming every line that is wrong, or the column; nothing was recorded.
    """
    rows = _rows(text)
    results, lines = [], []
    problems: list[tuple[int, str]] = []
    for line, row in rows:
        if not row.get("value"):
            continue
        try:
            # The same material twice in one table is measured twice.
            results.append(_new_result(row, read_file, None if once is None else f"{once}:{line}"))
            lines.append(line)
        except ActiveLearningError as error:
            problems.append((line, str(error)))
    if not results and not problems:
        raise InputError("The table holds no result: fill in the column 'value'.")
    if problems:
        # One look at the table should be enough: what is wrong with the others is said, too.
        problems += [(lines[i], said) for i, said in problems_of(database, results).items()]
        raise InputError(_named(sorted(problems), len(rows)))
    try:
        return record_all(database, results)
    except RefusedError as error:
        raise InputError(
            _named([(lines[i], said) for i, said in error.problems.items()], len(rows))
        ) from error


def _named(problems: Sequence[tuple[int, str]], n_rows: int) -> str:
    wrong = "; ".join(f"line {line}: {said.rstrip('.')}" for line, said in problems)
    return f"Nothing was recorded, since {len(problems)} of {n_rows} rows can't be: {wrong}."


def _rows(text: str) -> list[tuple[int, dict[str, str]]]:
    """Rows with the numbers of the lines that they end on."""
    try:
        reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
        columns = list(reader.fieldnames or ())
        known = (*INPUT, *UNREQUESTED, *SAID)
        for column in columns:
            if column not in known:
                near = difflib.get_close_matches(column or "", known, n=1)
                hint = (
                    f"did you mean {near[0]!r}?" if near else f"known: {', '.join((*INPUT, *UNREQUESTED))}."
                )
                raise InputError(f"The table has a column {column!r}; {hint}")
        if len(set(columns)) < len(columns):
            raise InputError("The table has two columns of one name.")
        if "value" not in columns or not {"key", "candidate"} & set(columns):
            raise InputError(
                "The table needs the columns 'key' and 'value' (or, for a material that nobody asked for, "
                "'candidate', 'campaign' and 'value'), separated by commas."
            )
        rows: list[tuple[int, dict[str, str]]] = []
        for row in reader:
            if None in row or None in row.values():
                raise InputError(f"Line {reader.line_num} of the table has not {len(columns)} cells.")
            if len(rows) == MAX_ROWS:
                raise InputError(f"The table has more than {MAX_ROWS} rows; record it in parts.")
            rows.append((reader.line_num, {k: v.strip() for k, v in row.items()}))
    except csv.Error as error:
        raise InputError(f"The table is no CSV: {error}.") from error
    return rows


def _new_result(row: Mapping[str, str], read_file: ReadFile, once: str | None) -> NewResult:
    value, censoring = parse_value(row["value"])
    replicate = row.get("replicate", "").lower()
    if replicate not in (*_YES, *_NO):
        raise InputError(f"replicate is yes or no, not {replicate!r}")
    corrects = row.get("corrects", "")
    if corrects and not corrects.isdecimal():
        raise InputError(f"corrects is the number of a result, not {corrects!r}")
    std, cost = row.get("std"), row.get("cost")
    names = [name.strip() for name in row.get("file", "").split(";") if name.strip()]
    return NewResult(
        of=_of(row, read_file, once),
        value=value,
        censoring=censoring,
        std=parse_number(std, "std") if std else None,
        unit=row.get("unit") or None,
        corrects=int(corrects) if corrects else None,
        is_replicate=replicate in _YES,
        method=row.get("method") or None,
        by=row.get("by") or None,
        cost=parse_number(cost, "cost") if cost else None,
        note=row.get("note") or None,
        files=tuple(read_file(name) for name in names),
    )


def _of(row: Mapping[str, str], read_file: ReadFile, once: str | None) -> str | Unrequested:
    if row.get("key"):
        return row["key"]
    material, campaign = row.get("candidate"), row.get("campaign")
    if not material or not campaign:
        raise InputError("it has neither a key, nor a candidate and a campaign")
    if material.startswith("{"):
        candidate = read_candidate("the candidate", material.encode())
    else:
        candidate = read_candidate(PurePosixPath(material).name, read_file(material).content)
    return Unrequested(candidate, campaign, row.get("fidelity") or None, once)
