"""The pool: a finite list of candidates, read from a file."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from pymatgen.core.composition import Composition
from torch import Tensor

from activelearning.candidate import BoxCandidate, Candidate, CrystalCandidate, candidate_from_dict
from activelearning.errors import ConfigError, InputError

LATTICE_COLUMNS = ("a", "b", "c", "alpha", "beta", "gamma")
CIF_COLUMN = "cif"
CRYSTAL_COLUMNS = ("space_group", "composition", *LATTICE_COLUMNS)


class PoolSpace:
    """Candidates listed in a file, crystals or rows of numbers.

    The file is a CSV table with a header, or a JSON list of mappings. Where it has the columns `space_group`,
    `composition` (JSON, or a formula as `Li6PS5Cl`), `a`, `b`, `c` (Å) and `alpha`, `beta`, `gamma` (in
    degrees), and optionally `wyckoff` (JSON), each row is a crystal, conventional cell. Where it has the column `cif`,
    each row is the crystal of that file, a path relative to the table; `space_group` and `composition` are optional
    then, the latter being authoritative for a crystal with partial occupancies, which oracles that need atoms get
    ordered. Otherwise each row is a point whose coordinates are the columns named by `features`, or all columns. Rows
    that are the same candidate count once.

    Features are scaled to [0, 1] by the pool's own range; a column without range is 0.

    Args:
        file: Path of the table.
        features: Numeric columns that are the features; by default all columns of a numeric pool, and
            some fifty descriptors of a pool of crystals (`few_descriptors`).

    Attributes:
        candidates: Each once.
        rows: The candidate of every row.

    Raises:
        ConfigError: naming the file, and the row and column at fault.
    """

    kind: ClassVar[str] = "pool"
    default_sampler: ClassVar[str] = "pool"

    def __init__(self, file: Path, features: list[str] | None = None) -> None:
        self.file = Path(file)
        rows = _read_rows(self.file)
        columns = list(rows[0])
        has_files = CIF_COLUMN in columns
        self.is_crystal = has_files or all(column in columns for column in CRYSTAL_COLUMNS)
        if features is not None and not features:
            raise ConfigError("space.features is empty; name at least one column, or leave the key out.")
        names = features if features is not None else ([] if self.is_crystal else columns)
        known = ", ".join(columns)
        for name in names:
            if name not in columns:
                raise ConfigError(
                    f"space.features names the column {name!r}, which {file} lacks; it has: {known}."
                )
        numbers = [[_number(row, name, file, i) for name in names] for i, row in enumerate(rows)]
        if self.is_crystal:
            read = _crystal_of_file if has_files else _crystal
            found: list[Candidate] = [read(row, self.file, i) for i, row in enumerate(rows)]
        else:
            found = [BoxCandidate(tuple(values)) for values in numbers]

        first: dict[str, int] = {}
        for i, candidate in enumerate(found):
            j = first.setdefault(candidate.key, i)
            if numbers[j] != numbers[i]:
                raise ConfigError(
                    f"{file}: {_where(j)} and {_where(i)} are the same crystal with different features "
                    f"({', '.join(names)}); a candidate has one row of features."
                )
        kept = list(first.values())
        self.rows = tuple(found)
        self.candidates: tuple[Candidate, ...] = tuple(found[i] for i in kept)
        self._row_of_key = {candidate.key: i for i, candidate in enumerate(self.candidates)}
        if names:
            table = torch.tensor([numbers[i] for i in kept], dtype=torch.float64)
        else:
            table = _crystal_descriptors(self.candidates, file)
        low, high = table.amin(0), table.amax(0)
        self._features = (table - low) / torch.where(high > low, high - low, torch.ones_like(low))

    @property
    def n_features(self) -> int:
        """Width d of the features."""
        return int(self._features.shape[1])

    def features(self, candidates: Sequence[Candidate]) -> Tensor:
        """Features scaled to [0, 1] by the pool's range, `n x d`, float64.

        Raises:
            ValueError: a candidate is not in the pool.
        """
        rows = torch.tensor([self.index_of(candidate) for candidate in candidates], dtype=torch.long)
        return self._features[rows]

    def index_of(self, candidate: Candidate) -> int:
        """Position in `candidates`.

        Raises:
            ValueError: the candidate is not in the pool.
        """
        if candidate.key not in self._row_of_key:
            raise ValueError(f"the candidate {candidate.to_dict()} is not in the pool {self.file}")
        return self._row_of_key[candidate.key]

    def to_json(self, candidate: Candidate) -> dict[str, Any]:
        """Canonical JSON value of a candidate."""
        return candidate.to_dict()

    def from_json(self, value: Mapping[str, Any]) -> Candidate:
        """Read a candidate back.

        Raises:
            ValueError: it is no candidate, or not one of the pool.
        """
        candidate = candidate_from_dict(value)
        self.validate(candidate)
        return candidate

    def validate(self, candidate: Candidate) -> None:
        """Check membership by key.

        Raises:
            ValueError: the candidate is not in the pool.
        """
        self.index_of(candidate)


def _where(row: int) -> str:
    return f"row {row + 1}"  # as people count: the first row below the header is 1


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"space.file {path} can't be read: {error}. A pool is a CSV table or a JSON list."
        ) from error
    rows: list[dict[str, Any]]
    if path.suffix.lower() == ".json":
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"space.file {path} is not valid JSON: {error}.") from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ConfigError(f"space.file {path} must hold a JSON list of mappings, one for each candidate.")
    else:
        reader = csv.DictReader(text.splitlines())
        rows = list(reader)
        # Cells beyond the header land under None; a short row has None as a value and fails where it is read.
        long = [i for i, row in enumerate(rows) if None in row]
        if long:
            raise ConfigError(f"{path}: {_where(long[0])} has more cells than the header has columns.")
    if not rows:
        raise ConfigError(f"space.file {path} holds no candidates.")
    columns = set(rows[0])
    for i, row in enumerate(rows):
        missing = columns - set(row)
        if missing:
            raise ConfigError(f"{path}: {_where(i)} lacks the column {min(missing)!r}.")
    return rows


def _number(row: Mapping[str, Any], column: str, file: Path, i: int) -> float:
    cell = row[column]
    try:
        if isinstance(cell, bool):
            raise ValueError(cell)
        value = float(cell)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(
            f"{file}: {_where(i)}, column {column!r} holds {cell!r} where a finite number is needed "
            f"(space.features names the columns that are features, where not all are)."
        )
    return value


def _mapping(row: Mapping[str, Any], column: str, file: Path, i: int) -> Mapping[str, Any]:
    """A cell that is a mapping, JSON text of one, or (for a composition) a formula."""
    cell = row[column]
    try:
        if isinstance(cell, str):
            if cell.lstrip().startswith("{"):
                cell = json.loads(cell)
            elif column == "composition":
                cell = {symbol: float(count) for symbol, count in Composition(cell).as_dict().items()}
        if not isinstance(cell, Mapping):
            raise ValueError(f"{type(cell).__name__} is no mapping")
    except ValueError as error:  # json.JSONDecodeError is one, and pymatgen's errors for a wrong formula are
        raise ConfigError(f"{file}: {_where(i)}, column {column!r} can't be read: {error}.") from error
    return cell


def _crystal(row: Mapping[str, Any], file: Path, i: int) -> CrystalCandidate:
    a, b, c, alpha, beta, gamma = (_number(row, column, file, i) for column in LATTICE_COLUMNS)
    space_group = _space_group(row, file, i)
    composition = _mapping(row, "composition", file, i)
    wyckoff = _mapping(row, "wyckoff", file, i) if row.get("wyckoff") else None
    try:
        return CrystalCandidate(
            space_group=space_group,
            composition=composition,
            lattice=(a, b, c, alpha, beta, gamma),
            wyckoff=None if wyckoff is None else {symbol: tuple(sites) for symbol, sites in wyckoff.items()},
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{file}: {_where(i)} is no crystal: {error}.") from error


def _space_group(row: Mapping[str, Any], file: Path, i: int) -> int:
    number = _number(row, "space_group", file, i)
    if number != int(number):
        raise ConfigError(
            f"{file}: {_where(i)}, column 'space_group' holds {number}, not a number from 1 to 230."
        )
    return int(number)


def _crystal_of_file(row: Mapping[str, Any], file: Path, i: int) -> CrystalCandidate:
    from activelearning.crystals.ordered import crystal_of, read_structure

    name = row[CIF_COLUMN]
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(
            f"{file}: {_where(i)}, column {CIF_COLUMN!r} holds {name!r}, not the path of a CIF."
        )
    given = {column for column in ("space_group", "composition") if row.get(column) not in (None, "")}
    try:
        return crystal_of(
            read_structure(file.parent / Path(name.strip()).expanduser()),
            space_group=_space_group(row, file, i) if "space_group" in given else None,
            composition=_mapping(row, "composition", file, i) if "composition" in given else None,
        )
    except (InputError, TypeError, ValueError) as error:
        raise ConfigError(f"{file}: {_where(i)} is no crystal: {error}") from error


def _crystal_descriptors(candidates: Sequence[Candidate], file: Path) -> Tensor:
    # The descriptors load tables of elemental properties, which a numeric pool has no use for.
    from activelearning.crystals.descriptors import DESCRIPTOR_NAMES, descriptor_table, few_descriptors

    crystals = [candidate for candidate in candidates if isinstance(candidate, CrystalCandidate)]
    try:
        table = descriptor_table(
            [crystal.composition for crystal in crystals],
            [crystal.space_group for crystal in crystals],
            [crystal.cell for crystal in crystals],
        )
    except ValueError as error:
        raise ConfigError(f"{file}: the crystals have no descriptors: {error}.") from error
    few = [DESCRIPTOR_NAMES.index(name) for name in few_descriptors(table)]
    # Where nothing tells the crystals apart, one column that is zero for all.
    return torch.from_numpy(table[:, few or [0]])
