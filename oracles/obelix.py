"""OBELiX as campaigns take it: known measurements to start from, and a pool of real materials to search in retrospect.

OBELiX: Therrien et al., arXiv 2502.14234 (CC BY 4.0). The folder is laid out as `obelix-data` downloads it.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.ordered import crystal_of, read_structure
from activelearning.errors import InputError
from oracles.ml_proxy.data import CrystalTable, read_training
from oracles.ml_proxy.measured_training import predict_unseen
from oracles.ml_proxy.model import ProxyModel
from oracles.ml_proxy.properties import proxy_property

UNIT = "log10(S/cm)"
PROPERTY = "log10_conductivity"
FIDELITY = "measured"  # that observations belong to, by name, in a campaign that starts from them
CIF_FOLDERS = ("all_randomized_cifs", "all_cifs", "cifs")
LARGEST_ERROR = 0.05  # of an element's fraction, when amounts become whole atoms
OBSERVATIONS, POOL = "observations.csv", "pool.csv"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """What was made.

    Attributes:
        observations: File of known measurements, for `initial_design.observations`.
        n_observations: Rows in it; entries that make no whole crystal are left out.
        pool: File of the pool, for `space: {type: pool, file: ...}` and the oracle `table`.
        n_materials: Rows in it.
        n_without_atoms: Materials that are not in the pool, since no CIF agrees with an entry of theirs.
    """

    observations: Path
    n_observations: int
    pool: Path
    n_materials: int
    n_without_atoms: int


def write_tables(source: Path, out: Path) -> Written:
    """Make both tables from OBELiX's folder; each appears whole or not at all.

    The pool's columns: `cif, space_group, composition, id` say what a material is; `measured, is_bound` what its median
    entry says; `predicted, predicted_std` what the shipped proxy makes of it by models that have seen neither it nor
    anything published with it.

    Args:
        source: The folder, with `all.csv` and the CIFs. Entries of its `test.csv` are left out.
        out: Folder to make, or to write into.

    Raises:
        InputError: the data can't be read, hold no CIFs, or `out` can't be written to.
    """
    folder = cif_folder(source)
    table = read_training(source)
    model = ProxyModel.load(proxy_property(PROPERTY).weights)
    predicted, error = predict_unseen(model, table, source)
    known = [
        {
            "candidate": json.dumps(crystal.to_dict()),
            "fidelity": FIDELITY,
            "property": PROPERTY,
            "value": repr(float(table.values[i])),
            "censoring": "upper" if table.is_bound[i] else "none",
            "unit": UNIT,
        }
        for i in range(len(table))
        if (crystal := whole_crystal(table, i)) is not None
    ]
    pool: list[dict[str, Any]] = []
    without = 0
    for rows in materials(table):
        of_file = next((i for i in rows if _has_atoms(table, i, folder)), None)
        if of_file is None:
            without += 1
            continue
        first = rows[0]
        pool.append(
            {
                "cif": str((folder / f"{table.ids[of_file]}.cif").resolve()),
                "space_group": int(table.space_groups[of_file]),
                "composition": json.dumps(dict(table.compositions[of_file])),
                "id": table.ids[of_file],
                "measured": repr(float(table.values[first])),
                "is_bound": int(table.is_bound[first]),
                "n_entries": len(rows),
                "predicted": f"{predicted[of_file]:.6f}",
                "predicted_std": f"{error[of_file]:.6f}",
            }
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write(out / OBSERVATIONS, known)
        _write(out / POOL, pool)
    except OSError as error:
        raise InputError(f"The tables can't be written to {out}: {error}.") from error
    return Written(out / OBSERVATIONS, len(known), out / POOL, len(pool), without)


def materials(table: CrystalTable) -> list[list[int]]:
    """Rows of each material, in the order of their first; the row that stands for it comes first.

    Entries with the same composition (fractions of the elements to three decimals) and the same space group are one
    material, measured several times: its answer is the lower median of the values; bounds count only where nothing
    else is known, and then the least. (A best of several would reward what was measured often, and a mean would be no
    entry's.)
    """
    rows: dict[object, list[int]] = {}
    for i, (composition, group) in enumerate(
        zip(table.compositions, table.space_groups.tolist(), strict=True)
    ):
        total = sum(composition.values())
        fractions = tuple(sorted((s, round(n / total, 3)) for s, n in composition.items()))
        rows.setdefault((fractions, group), []).append(i)
    found = []
    for same in rows.values():
        exact = sorted((i for i in same if not table.is_bound[i]), key=lambda i: table.values[i])
        # Of bounds, the least says the most.
        first = exact[(len(exact) - 1) // 2] if exact else min(same, key=lambda i: table.values[i])
        found.append([first, *(i for i in same if i != first)])
    return found


def whole_crystal(table: CrystalTable, row: int) -> CrystalCandidate | None:
    """An entry as a candidate: the amounts in its conventional cell rounded to whole atoms, at least one of each.

    None where that moves an element's fraction by more than 0.05, as it does in one entry of thirty. (In the median it
    moves by 0.001; repeated measurements of one material differ by 0.4 decades.)
    """
    amounts = table.compositions[row]
    composition = {symbol: max(1, round(amount)) for symbol, amount in amounts.items()}
    n, total = sum(composition.values()), sum(amounts.values())
    if max(abs(composition[s] / n - amounts[s] / total) for s in amounts) > LARGEST_ERROR:
        return None
    a, b, c, alpha, beta, gamma = table.lattices[row].tolist()
    return CrystalCandidate(int(table.space_groups[row]), composition, (a, b, c, alpha, beta, gamma))


def cif_folder(source: Path) -> Path:
    """Folder of the CIFs.

    Raises:
        InputError: there is none.
    """
    for name in CIF_FOLDERS:
        if (source / name).is_dir():
            return source / name
    raise InputError(
        f"{source} holds none of the folders {', '.join(CIF_FOLDERS)} with OBELiX's crystal structures; "
        f"`activelearning proxy fetch` downloads the whole data set."
    )


def _has_atoms(table: CrystalTable, row: int, folder: Path) -> bool:
    """Whether an entry has a CIF that agrees with it; where it has another, the log says what is wrong."""
    path = folder / f"{table.ids[row]}.cif"
    if not path.is_file():
        return False
    try:
        crystal_of(
            read_structure(path),
            space_group=int(table.space_groups[row]),
            composition=table.compositions[row],
        )
    except InputError as error:
        _log.warning("The entry %s has no atoms: %s", table.ids[row], error)
        return False
    except ValueError as error:  # some CIFs leave out the lithium
        _log.warning("The entry %s has no atoms, since its CIF disagrees with it: %s", table.ids[row], error)
        return False
    return True


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        raise InputError(f"There is nothing to write to {path}: no entry fits.")
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)
