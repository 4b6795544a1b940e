"""Known crystals for the student: the Materials Project's table, OBELiX's CIFs, and substitutions in them.

Each source is optional in the tests only: `python -m oracles.potentials.student` needs both data sets.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from activelearning.crystals.realise import distance_ratio
from activelearning.errors import InputError
from oracles.potentials.student.chemistry import ANIONS, ELEMENTS, KINDRED
from oracles.potentials.student.ordering import ordered
from oracles.potentials.student.structures import prototypes

MAX_ATOMS = 44  # of a cell from the tables; the teacher's time grows with it
MAX_ATOMS_ORDERED = 100  # of one that OBELiX's partial occupancies need: a garnet has 96
MAX_HULL_ENERGY = 0.1  # eV/atom, of materials without lithium
N_NEIGHBOURS = 800
N_SUBSTITUTED = 400


@dataclass(frozen=True)
class Material:
    """A known crystal, unrelaxed by the teacher.

    Attributes:
        name: Where it comes from, unique.
        source: `prototype`, `obelix`, `lithium`, `neighbour` or `substituted`.
        atoms: Its cell.
    """

    name: str
    source: str
    atoms: Atoms


def known_materials(table: Path, conductors: Path, seed: int) -> list[Material]:
    """All known crystals, prototypes first.

    Args:
        table: The Materials Project's table (`materials.csv.gz`), with the column `cif`.
        conductors: Folder of OBELiX's CIFs.
        seed: Of the choice of neighbours, orderings and substitutions.

    Raises:
        InputError: a source lacks what is read of it.
    """
    lithium, sodium, neighbours = computed_materials(table, seed)
    return [
        *(Material(name, "prototype", atoms) for name, atoms in prototypes().items()),
        *conductor_materials(conductors, seed),
        *lithium,
        *neighbours,
        *substituted([*sodium, *lithium], N_SUBSTITUTED, seed),
    ]


def computed_materials(table: Path, seed: int) -> tuple[list[Material], list[Material], list[Material]]:
    """Materials of the table in the student's elements: with lithium, with Na or K alone, and a choice without alkali.

    Raises:
        InputError: the table has no structures.
    """
    import pandas as pd

    frame = pd.read_csv(table)
    wanted = {"material_id", "composition", "e_above_hull", "n_sites_conventional", "cif"}
    if not wanted <= set(frame.columns):
        raise InputError(f"{table} lacks {', '.join(sorted(wanted - set(frame.columns)))}.")
    elements = [frozenset(json.loads(text)) for text in frame["composition"]]
    known = frozenset(ELEMENTS)
    rows = [k for k, found in enumerate(elements) if found <= known]
    lithium = [k for k in rows if "Li" in elements[k]]
    stable = [k for k in rows if "Li" not in elements[k] and frame["e_above_hull"][k] < MAX_HULL_ENERGY]
    rng = np.random.default_rng([seed, 10])
    others = [stable[k] for k in rng.permutation(len(stable))]
    sodium = [k for k in others if elements[k] & {"Na", "K"} and elements[k] & ANIONS][:N_SUBSTITUTED]
    # One metal in eight: alloys are what a random composition often is, and no conductor.
    neighbours = [k for k in others if elements[k] & ANIONS][: N_NEIGHBOURS * 7 // 8]
    neighbours += [k for k in others if not elements[k] & ANIONS][: N_NEIGHBOURS // 8]

    def made(chosen: list[int], source: str, max_atoms: int) -> list[Material]:
        found = []
        for k in chosen:
            atoms = _from_cif(frame["cif"][k])
            if len(atoms) <= max_atoms:
                found.append(Material(f"{source} {frame['material_id'][k]}", source, atoms))
        return found

    return made(lithium, "lithium", MAX_ATOMS), made(sodium, "sodium", 30), made(neighbours, "neighbour", 24)


def _from_cif(text: str) -> Atoms:
    from pymatgen.core import Structure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = Structure.from_str(text, fmt="cif")
    return Atoms(
        [site.specie.symbol for site in structure],
        scaled_positions=structure.frac_coords,
        cell=structure.lattice.matrix,
        pbc=True,
    )


def conductor_materials(folder: Path, seed: int) -> Iterator[Material]:
    """OBELiX's crystals in the student's elements, ordered where their sites are not.

    Raises:
        InputError: the folder has no CIFs.
    """
    from pymatgen.core import Structure

    paths = sorted(folder.glob("**/*.cif"))
    if not paths:
        raise InputError(f"There are no CIFs below {folder}.")
    for path in paths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure = Structure.from_file(path)
            if not {e.symbol for e in structure.composition.elements} <= set(ELEMENTS):
                continue
            name = int(hashlib.sha256(path.stem.encode()).hexdigest()[:8], 16)
            atoms = ordered(structure, np.random.default_rng([seed, 11, name]), MAX_ATOMS_ORDERED)
        if atoms is not None and distance_ratio(atoms) > 0.5:
            yield Material(f"obelix {path.stem}", "obelix", atoms)


def substituted(materials: list[Material], n: int, seed: int) -> Iterator[Material]:
    """Relatives of known materials: Na and K become Li, and one other element becomes a kindred one.

    The cell is scaled so that the shortest bond keeps its length over the sum of covalent radii.
    """
    rng = np.random.default_rng([seed, 12])
    for k, index in enumerate(rng.permutation(len(materials))[:n]):
        origin = materials[index].atoms
        symbols = np.array(origin.get_chemical_symbols(), dtype=object)
        symbols[np.isin(symbols, ["Na", "K"])] = "Li"
        choices = [
            (old, new)
            for kin in KINDRED
            for old in kin
            for new in kin
            if old != new and old in symbols and new not in symbols
        ]
        if choices and ("Li" in origin.get_chemical_symbols() or rng.random() < 0.3):
            old, new = choices[rng.integers(len(choices))]
            symbols[symbols == old] = new
        changed = Atoms(list(symbols), positions=origin.positions, cell=origin.cell, pbc=True)
        scale = distance_ratio(origin) / distance_ratio(changed)
        if not 0.7 < scale < 1.4:
            continue
        changed.set_cell(changed.cell.array * scale, scale_atoms=True)
        yield Material(f"substituted {k} of {materials[index].name}", "substituted", changed)
