"""Making of the shipped tables `symmetry.json`, `sites.npz` and `elements.json`.

Run `python -m activelearning.crystals.tables` to write them again from the installed PyXtal, pymatgen
and ASE. They are shipped so that features, and with them every fitted model, stay the same whatever versions
are installed, and so that nothing slow is imported at run time.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = Path(__file__).parent
LAST_ATOMIC_NUMBER = 103

# CRC's table ends with nobelium, whose radius its neighbour takes.
LAWRENCIUM_RADIUS = 2.46

# Pauling's scale has no value for these; Allen's (J. Am. Chem. Soc. 1989, 111, 9003), close to it elsewhere, does.
ALLEN_ELECTRONEGATIVITY = {"He": 4.16, "Ne": 4.79, "Ar": 3.24}


def symmetry_table() -> list[dict[str, Any]]:
    """All 230 groups in the standard settings of PyXtal (International Tables A, hexagonal axes for R).

    Each has its number, symbol, point group and Wyckoff positions (letter, multiplicity in the conventional
    cell, degrees of freedom), the general position first.
    """
    from pyxtal.symmetry import Group

    table = []
    for number in range(1, 231):
        group = Group(number, quick=False)
        table.append(
            {
                "number": number,
                "symbol": str(group.symbol),
                # One name for one point group, whichever way its axes lie in the cell.
                "point_group": str(group.point_group).replace("-62m", "-6m2"),
                "wyckoff": [[str(w.letter), int(w.multiplicity), int(w.get_dof())] for w in group],
            }
        )
    return table


def site_table() -> dict[str, NDArray[Any]]:
    """The affine maps of all Wyckoff positions, in the order of `symmetry_table`, from PyXtal.

    `rotations`, `rows x 3 x 3`, and `translations`, `rows x 3` in 24ths, one row an atom of a conventional
    cell; `starts`, `230`, the first row of each group.
    """
    import numpy as np
    from pyxtal.symmetry import Group

    rotations: list[NDArray[Any]] = []
    translations: list[NDArray[Any]] = []
    starts: list[int] = []
    for number in range(1, 231):
        starts.append(len(rotations))
        for position in Group(number, quick=False):
            for operation in position.ops:
                rotations.append(np.rint(operation.rotation_matrix))
                translations.append(np.rint(operation.translation_vector * 24) % 24)
                exact = np.allclose(operation.rotation_matrix, rotations[-1]) and np.allclose(
                    (operation.translation_vector - translations[-1] / 24 + 0.5) % 1.0, 0.5
                )
                if not exact:
                    raise ValueError(f"{number}{position.letter}: {operation} is not in 24ths")
    return {
        "rotations": np.array(rotations, dtype=np.int8),
        "translations": np.array(translations, dtype=np.int8),
        "starts": np.array(starts, dtype=np.int32),
    }


def element_table() -> dict[str, Any]:
    """Elemental properties of H to Lr, one row an element in the order of `columns`.

    From pymatgen: mass (u), Pauling electronegativity, mean ionic radius (Å), Mendeleev number, group, row,
    first ionisation energy and electron affinity (eV), electrons beyond the noble-gas core by shell. From
    ASE: covalent radius (Å; Cordero et al., Dalton Trans. 2008). Van der Waals radii (Å) are those of the CRC
    Handbook of Chemistry and Physics, after Bondi (1964), Rowland and Taylor (1996), Mantina et al. (2009) and
    Hu, Zhou and Robertson (2009), from pymatgen.
    """
    from ase.data import covalent_radii
    from pymatgen.core import Element

    columns = [
        "atomic_number",
        "row",
        "group",
        "mass",
        "electronegativity",
        "covalent_radius",
        "ionic_radius",
        "mendeleev_number",
        "ionization_energy",
        "electron_affinity",
        "s_electrons",
        "p_electrons",
        "d_electrons",
        "f_electrons",
        "van_der_waals_radius",
    ]
    elements = {}
    for number in range(1, LAST_ATOMIC_NUMBER + 1):
        element = Element.from_Z(number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            electronegativity = ALLEN_ELECTRONEGATIVITY.get(element.symbol, float(element.X))
        shells = dict.fromkeys("spdf", 0)
        for shell, count in re.findall(
            r"\d([spdf])(\d+)", re.sub(r"\[.*?\]", "", element.electronic_structure)
        ):
            shells[shell] += int(count)
        row = [
            float(number),
            float(element.row),
            float(element.group),
            float(element.atomic_mass),
            electronegativity,
            float(covalent_radii[number]),
            float(element.average_ionic_radius),
            float(element.mendeleev_no or math.nan),
            float(element.ionization_energy or math.nan),
            float(element.electron_affinity),
            *(float(shells[shell]) for shell in "spdf"),
            LAWRENCIUM_RADIUS if element.symbol == "Lr" else float(element.van_der_waals_radius),
        ]
        if not all(math.isfinite(x) for x in row):
            raise ValueError(f"{element.symbol} lacks a property: {dict(zip(columns, row, strict=True))}")
        elements[element.symbol] = [round(x, 6) for x in row]
    return {"columns": columns, "elements": elements}


def _write(path: Path, head: str, rows: list[str], tail: str) -> None:
    path.write_text(head + ",\n".join(rows) + tail)


def main() -> None:
    """Write the files."""
    import numpy as np

    table: dict[str, Any] = site_table()
    np.savez_compressed(FOLDER / "sites.npz", **table)
    symmetry = [json.dumps(row) for row in symmetry_table()]
    _write(FOLDER / "symmetry.json", "[\n", symmetry, "\n]\n")
    elements = element_table()
    rows = [f"{json.dumps(symbol)}: {json.dumps(row)}" for symbol, row in elements["elements"].items()]
    head = f'{{"columns": {json.dumps(elements["columns"])},\n"elements": {{\n'
    _write(FOLDER / "elements.json", head, rows, "\n}}\n")


if __name__ == "__main__":
    main()
