"""Known crystals for the student: the Materials Project's table, OBELiX's CIFs, and substitutions in them.

Each source is optional in the tests only: `python -m oracles.potentials.student` needs both data sets.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from pymatgen.core import Structure

from activelearning.crystals.ordering import OrderingError, OrderingSettings, order
from activelearning.crystals.realise import distance_ratio
from activelearning.errors import InputError
from oracles.potentials.student.chemistry import ANIONS, ELEMENTS, KINDRED, STAND_INS, is_held_out
from oracles.potentials.student.structures import prototypes

# Of a cell from the tables; the teacher's time grows with it.
MAX_ATOMS = {"lithium": 44, "sodium": 30, "neighbour": 40, "foreign": 32}
MAX_ATOMS_ORDERED = 100  # of one that OBELiX's partial occupancies need: a garnet has 96
# A likely arrangement is enough to learn from.
ORDERING = OrderingSettings(max_sites=260, n_starts=1, sweeps=50)
MAX_HULL_ENERGY = 0.1  # eV/atom, of materials without lithium
N_NEIGHBOURS = 3000
N_SODIUM = 1500
N_SUBSTITUTED = 6000
N_TRANSMUTED = 10000


@dataclass(frozen=True)
class Material:
    """A known crystal, unrelaxed by the teacher.

    Attributes:
        name: Where it comes from, unique.
        source: `prototype`, `obelix`, `lithium`, `neighbour`, `substituted` or `transmuted`.
        atoms: Its cell.
    """

    name: str
    source: str
    atoms: Atoms


class Computed(NamedTuple):
    """Materials of the table.

    Attributes:
        lithium: In the student's elements, with lithium.
        sodium: With Na or K and an anion, without lithium.
        neighbours: A choice of those without lithium.
        foreign: Compounds with other elements than the student's, those with lithium first.
    """

    lithium: list[Material]
    sodium: list[Material]
    neighbours: list[Material]
    foreign: list[Material]


def known_materials(table: Path, conductors: Path, seed: int) -> list[Material]:
    """All known crystals, prototypes first.

    Args:
        table: The Materials Project's table (`materials.csv.gz`), with the column `cif`.
        conductors: Folder of OBELiX's CIFs.
        seed: Of the choice of neighbours, orderings and substitutions.

    Raises:
        InputError: a source lacks what is read of it.
    """
    computed = computed_materials(table, seed)
    return [
        *(Material(name, "prototype", atoms) for name, atoms in prototypes().items()),
        *conductor_materials(conductors, seed),
        *computed.lithium,
        *computed.neighbours,
        *substituted([*computed.sodium, *computed.lithium], N_SUBSTITUTED, seed),
        *transmuted(computed.foreign, seed),
    ]


def computed_materials(table: Path, seed: int) -> Computed:
    """Materials of the table, by what the student learns from them.

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
    sodium = [k for k in others if elements[k] & {"Na", "K"} and elements[k] & ANIONS][:N_SODIUM]
    # One metal in eight: alloys are what a random composition often is, and no conductor.
    neighbours = [k for k in others if elements[k] & ANIONS][: N_NEIGHBOURS * 7 // 8]
    neighbours += [k for k in others if not elements[k] & ANIONS][: N_NEIGHBOURS // 8]
    foreign = [
        k
        for k in rng.permutation(len(frame))
        if not elements[k] <= known
        and elements[k] <= known | set(STAND_INS)
        and elements[k] & (ANIONS | {"Te"})
    ]
    foreign.sort(key=lambda k: "Li" not in elements[k])

    def made(chosen: list[int], source: str) -> list[Material]:
        cells = ((frame["material_id"][k], _from_cif(frame["cif"][k], MAX_ATOMS[source])) for k in chosen)
        return [Material(f"{source} {name}", source, atoms) for name, atoms in cells if atoms is not None]

    return Computed(
        made(lithium, "lithium"),
        made(sodium, "sodium"),
        made(neighbours, "neighbour"),
        made(foreign[:N_TRANSMUTED], "foreign"),
    )


def _from_cif(text: str, max_atoms: int) -> Atoms | None:
    """A cell as it is written, or the primitive one where that is too large; None where both are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = Structure.from_str(text, fmt="cif")
        if len(structure) > max_atoms:
            structure = structure.get_primitive_structure()
    return _atoms(structure) if len(structure) <= max_atoms else None


def _atoms(structure: Structure) -> Atoms:
    """Elements, positions and cell of an ordered structure."""
    return Atoms(
        [site.specie.symbol for site in structure],
        scaled_positions=structure.frac_coords,
        cell=structure.lattice.matrix,
        pbc=True,
    )


def conductor_materials(folder: Path, seed: int) -> Iterator[Material]:
    """OBELiX's crystals in the student's elements, ordered where their sites are not; what can't be is left out.

    Raises:
        InputError: the folder has no CIFs.
    """
    paths = sorted(folder.glob("**/*.cif"))
    if not paths:
        raise InputError(f"There are no CIFs below {folder}.")
    for path in paths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure = Structure.from_file(path)
            if not {e.symbol for e in structure.composition.elements} <= set(ELEMENTS):
                continue
            try:
                atoms = _atoms(order(structure, seed=seed, settings=ORDERING).structure)
            except OrderingError:
                continue
        if len(atoms) <= MAX_ATOMS_ORDERED:
            yield Material(f"obelix {path.stem}", "obelix", atoms)


def substituted(materials: list[Material], n: int, seed: int) -> Iterator[Material]:
    """Relatives of known materials: Na and K become Li, and one other element becomes a kindred one, or two do.

    The cell is scaled so that the shortest bond keeps its length over the sum of covalent radii; what would change too
    much is left out, and so is what was made before. Of a held-out material only held-out relatives are made: others
    would be trained on, in its own cell.

    Args:
        materials: Known ones, each of which is taken as often as the others.
        n: How often one is taken.
        seed: Of the choices.
    """
    rng = np.random.default_rng([seed, 12])
    made: set[tuple[str, ...]] = set()
    order = rng.permutation(len(materials))
    for k in range(n if materials else 0):
        origin = materials[order[k % len(order)]]
        symbols = np.array(origin.atoms.get_chemical_symbols(), dtype=object)
        symbols[np.isin(symbols, ["Na", "K"])] = "Li"
        if "Li" in origin.atoms.symbols or rng.random() < 0.6:
            for _ in range(rng.integers(1, 3)):
                _replace_one(symbols, rng)
        key = (origin.name, *symbols)
        if key not in made and symbols.tolist() != origin.atoms.get_chemical_symbols():
            made.add(key)
            changed = _rebuilt(origin.atoms, symbols)
            if changed is not None and (is_held_out(changed) or not is_held_out(origin.atoms)):
                yield Material(f"substituted {k} of {origin.name}", "substituted", changed)


def _replace_one(symbols: np.ndarray, rng: np.random.Generator) -> None:
    """Replace an element that has kin by one that is not there yet, in place."""
    choices = [
        (old, new)
        for kin in KINDRED
        for old in kin
        for new in kin
        if old != new and old in symbols and new not in symbols
    ]
    if choices:
        old, new = choices[rng.integers(len(choices))]
        symbols[symbols == old] = new


def transmuted(materials: Sequence[Material], seed: int) -> Iterator[Material]:
    """Crystals of foreign elements, each of which is replaced by one of its stand-ins throughout the crystal.

    Na and K become Li in half of those without it. The cell is scaled as by `substituted`. The foreign crystals
    themselves are neither trained on nor tested, so that none of them is held out.
    """
    rng = np.random.default_rng([seed, 13])
    for material in materials:
        symbols = np.array(material.atoms.get_chemical_symbols(), dtype=object)
        for old in sorted(set(symbols) & set(STAND_INS)):
            free = [new for new in STAND_INS[old] if new not in symbols] or STAND_INS[old]
            symbols[symbols == old] = free[rng.integers(len(free))]
        if "Li" not in symbols and rng.random() < 0.5:
            symbols[np.isin(symbols, ["Na", "K"])] = "Li"
        changed = _rebuilt(material.atoms, symbols)
        if changed is not None:
            yield Material(f"transmuted {material.name}", "transmuted", changed)


def _rebuilt(origin: Atoms, symbols: np.ndarray) -> Atoms | None:
    """The crystal with other elements, scaled until its shortest bond is as long as before, over covalent radii.

    None where that scales the cell by much.
    """
    changed = Atoms(list(symbols), positions=origin.positions, cell=origin.cell, pbc=True)
    scale = distance_ratio(origin) / distance_ratio(changed)
    changed.set_cell(changed.cell.array * scale, scale_atoms=True)
    return changed if 0.7 < scale < 1.4 else None
