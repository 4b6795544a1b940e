"""Tables of crystals with a measured property: OBELiX's format, keys of rows, and leakage-free groups of rows."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from activelearning.candidate import digest
from activelearning.crystals.descriptors import cell_volumes
from activelearning.crystals.elements import element_rows, properties
from activelearning.crystals.volume import VOLUME_OVER_SPHERES
from activelearning.errors import InputError

_log = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "ACTIVELEARNING_OBELIX"
CONDUCTIVITY = "Ionic conductivity (S cm-1)"
LATTICE = ("a", "b", "c", "alpha", "beta", "gamma")
# A composition or a publication that rows may share.
Mark = tuple[str, str]
COLUMNS = ("ID", "True Composition", CONDUCTIVITY, "Space group #", *LATTICE, "DOI")


@dataclass(frozen=True)
class CrystalTable:
    """Crystals with one measured property each; every attribute has n entries.

    Attributes:
        ids: Names of the rows.
        compositions: Atoms of each element in the conventional cell, amounts may be fractional.
        space_groups: International numbers.
        lattices: (a, b, c, α, β, γ) of the conventional cell in Å and degrees, `n x 6`.
        values: Measured values, for a bound the bound.
        is_bound: True where the truth is at most the value.
        sources: Where each value was published.
    """

    ids: tuple[str, ...]
    compositions: tuple[Mapping[str, float], ...]
    space_groups: npt.NDArray[np.int64]
    lattices: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    is_bound: npt.NDArray[np.bool_]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> CrystalTable:
        """The table of some of the rows."""
        index = np.asarray(rows, dtype=np.int64)
        return CrystalTable(
            ids=tuple(self.ids[i] for i in index),
            compositions=tuple(self.compositions[i] for i in index),
            space_groups=self.space_groups[index],
            lattices=self.lattices[index],
            values=self.values[index],
            is_bound=self.is_bound[index],
            sources=tuple(self.sources[i] for i in index),
        )

    def keys(self) -> npt.NDArray[np.uint64]:
        """One number a crystal, `n`: equal where composition, space group and lattice are."""
        rows = zip(self.compositions, self.space_groups.tolist(), self.lattices.tolist(), strict=True)
        return np.array(
            [
                int(
                    digest(
                        {
                            "composition": {symbol: round(n, 4) for symbol, n in composition.items()},
                            "space_group": group,
                            "lattice": [round(x, 4) for x in lattice],
                        }
                    )[:16],
                    16,
                )
                for composition, group, lattice in rows
            ],
            dtype=np.uint64,
        )

    def groups(self) -> npt.NDArray[np.int64]:
        """Numbers of groups, `n`: rows that share a composition or a publication, however indirectly, are in one.

        Publications are compared because one paper varies one material: its rows are too alike to be told apart in
        validation.
        """
        return _connected(self.marks())

    def marks(self) -> list[list[Mark]]:
        """What ties each row to others: its composition, and the publications it names.

        Compositions are compared by their fractions to three decimals. A row that names several publications, as in
        "10.1/a|10.1/b", belongs to each; one that names none is tied by its composition alone.
        """
        return [
            [("composition", _fractions(composition)), *(("source", mark) for mark in _publications(source))]
            for composition, source in zip(self.compositions, self.sources, strict=True)
        ]


def _fractions(composition: Mapping[str, float]) -> str:
    """Fractions of the elements to three decimals, as text."""
    total = sum(composition.values())
    return " ".join(f"{symbol}{n / total:.3f}" for symbol, n in sorted(composition.items()))


def _publications(source: str) -> list[str]:
    """The publications that a row names."""
    return [mark for part in source.split("|") if (mark := part.strip().lower())]


def _connected(marks: Iterable[Iterable[object]]) -> npt.NDArray[np.int64]:
    """Label rows so that two rows with a mark in common, or linked by such rows, have one label."""
    parent: list[int] = []
    first: dict[object, int] = {}

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for row, row_marks in enumerate(marks):
        parent.append(row)
        for mark in row_marks:
            parent[root(row)] = root(first.setdefault(mark, row))
    return np.unique([root(i) for i in range(len(parent))], return_inverse=True)[1].astype(np.int64)


def find_obelix(path: Path | None = None) -> Path:
    """OBELiX's folder or CSV file: the path given, else the one named by `ACTIVELEARNING_OBELIX`.

    Raises:
        InputError: neither is given, or there is nothing there.
    """
    named = path if path is not None else os.environ.get(ENVIRONMENT_VARIABLE) or None
    if named is None:
        raise InputError(
            f"The OBELiX data set is not here: name its folder or CSV file with --data, or set "
            f"{ENVIRONMENT_VARIABLE}. It is fetched by pip install obelix-data and then 'activelearning proxy fetch "
            f"--out FOLDER'; it is described in arXiv 2502.14234."
        )
    found = Path(named).expanduser()
    if not found.exists():
        origin = "--data" if path is not None else ENVIRONMENT_VARIABLE
        raise InputError(f"There is no OBELiX folder or CSV file at {found} (named by {origin}).")
    return found


def read_training(path: Path) -> CrystalTable:
    """The training entries: of a folder, `all.csv` less the entries of `test.csv`; of a CSV file, every row.

    Raises:
        InputError: the file is missing or not in OBELiX's format.
    """
    if not path.is_dir():
        return read_csv(path)
    table = read_csv(path / "all.csv")
    held_out = set(read_csv(path / "test.csv").ids) if (path / "test.csv").is_file() else set()
    return table.take([i for i, row in enumerate(table.ids) if row not in held_out])


def read_evaluation(path: Path) -> CrystalTable:
    """The entries to evaluate on: of a folder, those of `test.csv`, or all where it lists none; of a CSV, every row.

    Raises:
        InputError: the file is missing or not in OBELiX's format.
    """
    if not path.is_dir():
        return read_csv(path)
    held_out = read_csv(path / "test.csv") if (path / "test.csv").is_file() else None
    return held_out if held_out is not None and len(held_out) else read_csv(path / "all.csv")


def read_csv(path: Path) -> CrystalTable:
    """Read a CSV file with OBELiX's columns; values become log10 of S/cm, `<x` an upper bound.

    "True Composition" is taken for the content of the conventional cell, which the lattice parameters describe. Rows
    whose volume no such content can fill are named in one warning, and kept as they are: some state another number of
    formula units, and their densities are wrong by that factor. A factor of two may hide within the range of volumes;
    by their CIFs, OBELiX's `9ph` is such a row.

    Raises:
        InputError: the file can't be read, lacks a column, or a row has no valid composition, space group, lattice
            or conductivity.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read as a CSV file: {error}.") from error
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise InputError(
            f"{path} is no OBELiX table: it lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}."
        )
    rows = []
    for line, row in enumerate(frame[list(COLUMNS)].to_dict("records"), start=2):
        try:
            rows.append(_parse({str(k): str(v).strip() for k, v in row.items()}))
        except ValueError as error:
            raise InputError(f"{path}, line {line} (ID {row['ID']!r}): {error}.") from error
    table = CrystalTable(
        ids=tuple(str(row) for row in frame["ID"]),
        compositions=tuple(composition for composition, _, _, _, _ in rows),
        space_groups=np.array([group for _, group, _, _, _ in rows], dtype=np.int64),
        lattices=np.array([lattice for _, _, lattice, _, _ in rows], dtype=np.float64).reshape(-1, 6),
        values=np.array([value for _, _, _, value, _ in rows], dtype=np.float64),
        is_bound=np.array([bound for _, _, _, _, bound in rows], dtype=np.bool_),
        sources=tuple(str(doi) for doi in frame["DOI"]),
    )
    if odd := odd_volumes(table):
        _log.warning(
            "%s: the volume of %s is beyond %g to %g times its atoms' spheres, as of no known crystal; 'True "
            "Composition' may not be the content of the whole cell, and predictions from the density are then wrong.",
            path,
            ", ".join(f"{row} ({ratio:.2f})" for row, ratio in odd.items()),
            *VOLUME_OVER_SPHERES,
        )
    return table


def odd_volumes(table: CrystalTable) -> dict[str, float]:
    """Rows whose volume over that of their atoms' van der Waals spheres is outside that of known crystals, with it.

    Rows that close no cell or hold unknown elements are left to those who describe them.
    """
    radii = dict(zip(element_rows(), properties(["van_der_waals_radius"])[:, 0].tolist(), strict=True))
    found = {}
    for row, composition, volume in zip(
        table.ids, table.compositions, cell_volumes(table.lattices).tolist(), strict=True
    ):
        spheres = sum(
            4.0 / 3.0 * np.pi * radii.get(symbol, np.nan) ** 3 * n for symbol, n in composition.items()
        )
        ratio = volume / spheres
        if ratio < VOLUME_OVER_SPHERES[0] or ratio > VOLUME_OVER_SPHERES[1]:
            found[row] = ratio
    return found


def _parse(row: Mapping[str, str]) -> tuple[dict[str, float], int, list[float], float, bool]:
    from pymatgen.core import Composition, Element

    match = re.fullmatch(r"(<?)\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)", row[CONDUCTIVITY])
    if match is None or not float(match[2]) > 0.0:
        raise ValueError(
            f"{CONDUCTIVITY!r} must be a positive number or a bound as in '<1E-10', not {row[CONDUCTIVITY]!r}"
        )
    formula = row["True Composition"]
    try:
        composition = {str(s): float(n) for s, n in Composition(formula).get_el_amt_dict().items()}
    except Exception as error:  # the parser of formulas raises errors of many kinds
        raise ValueError(f"'True Composition' {formula!r} is no formula: {error}") from error
    if not composition or not all(Element.is_valid_symbol(symbol) for symbol in composition):
        raise ValueError(f"'True Composition' {formula!r} is no formula of elements")
    group = float(row["Space group #"])
    if group not in range(1, 231):
        raise ValueError(f"'Space group #' must be 1 to 230, not {row['Space group #']}")
    return (
        composition,
        int(group),
        [float(row[x]) for x in LATTICE],
        float(np.log10(float(match[2]))),
        bool(match[1]),
    )
