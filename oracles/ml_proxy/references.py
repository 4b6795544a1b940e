"""From a potential's energies to formation energies: an energy for each element, fitted to known materials.

A potential's zero is its own, and formation energies of the Materials Project carry corrections. Both are linear in the
composition, so one number an element translates between them; what is left is the potential's error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from activelearning.crystals.descriptors import amounts_of
from activelearning.crystals.elements import element_rows
from activelearning.errors import InputError
from oracles.ml_proxy.materials import CRYSTAL_COLUMNS
from oracles.ml_proxy.relaxation import Array, Cell

MAX_ATOMS = 30  # of a cell to fit to
ROUNDS = 20  # of reweighting
TURN = 0.03  # eV/atom, residual at which the fit turns from squares to absolute values


@dataclass(frozen=True)
class References:
    """Energies of elements for one potential.

    Attributes:
        potential: Its name.
        energies: eV/atom by element.
        n: Materials fitted to.
        mae: Mean absolute residual over them, eV/atom.
        median: Median absolute residual, eV/atom.
    """

    potential: str
    energies: Mapping[str, float]
    n: int
    mae: float
    median: float

    def formation_energies(self, compositions: Sequence[Mapping[str, float]], energies: Array) -> Array:
        """Formation energies in eV/atom, `n`, from the potential's energies in eV/atom, `n`.

        Raises:
            InputError: an element has no reference.
        """
        unknown = sorted({s for c in compositions for s in c if s not in self.energies})
        if unknown:
            raise InputError(
                f"The references of {self.potential} lack {', '.join(unknown)}: fit them to materials that hold them."
            )
        own = [
            sum(n * self.energies[s] for s, n in composition.items()) / sum(composition.values())
            for composition in compositions
        ]
        return np.asarray(energies, dtype=np.float64) - np.array(own)

    def save(self, path: Path) -> None:
        """Write JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> References:
        """Read JSON.

        Raises:
            InputError: the file is missing or holds no references.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} holds no reference energies: {error}.") from error


def fit_references(
    potential: str, compositions: Sequence[Mapping[str, float]], energies: Array, formation: Array
) -> References:
    """Fit energies of elements by iteratively reweighted least squares, Huber's loss.

    Args:
        potential: Name of the potential.
        compositions: Atoms of each element, one mapping a material.
        energies: The potential's energies, eV/atom, `n`.
        formation: Known formation energies, eV/atom, `n`.
    """
    amounts = amounts_of(compositions)
    present = np.flatnonzero(amounts.any(axis=0))
    x = amounts[:, present] / amounts.sum(axis=1, keepdims=True)
    y = np.asarray(energies, dtype=np.float64) - formation
    weights = np.ones(len(y))
    for _ in range(ROUNDS):
        root = np.sqrt(weights)
        found = np.linalg.lstsq(x * root[:, None], y * root, rcond=None)[0]
        residual = np.abs(y - x @ found)
        weights = np.minimum(1.0, TURN / np.maximum(residual, 1e-12))
    symbols = list(element_rows())
    return References(
        potential,
        {symbols[i]: round(float(e), 5) for i, e in zip(present.tolist(), found, strict=True)},
        len(y),
        round(float(residual.mean()), 5),
        round(float(np.median(residual)), 5),
    )


@dataclass(frozen=True)
class Material:
    """A known material with its atoms.

    Attributes:
        space_group: International number.
        composition: Atoms of each element in the conventional cell.
        lattice: (a, b, c, α, β, γ) of the conventional cell in Å and degrees.
        formation_energy: eV/atom.
        cell: Its atoms, in the cell it was calculated in.
    """

    space_group: int
    composition: Mapping[str, float]
    lattice: tuple[float, ...]
    formation_energy: float
    cell: Cell


def read_structures(
    path: Path,
    n: int | None = None,
    elements: Sequence[str] | None = None,
    seed: int = 0,
    *,
    n_atoms: tuple[int, int] = (1, MAX_ATOMS),
) -> list[Material]:
    """Materials of a table with structures, in random order.

    Args:
        path: A table of materials with the columns `cif` and `formation_energy_per_atom`.
        n: How many at most.
        elements: Only materials made of these; all by default.
        seed: Of the order.
        n_atoms: Least and most atoms of their primitive cells.

    Raises:
        InputError: the table can't be read, or lacks a column.
    """
    import pandas as pd
    from pymatgen.core import Structure

    columns = [*CRYSTAL_COLUMNS, "cif", "formation_energy_per_atom"]
    try:
        frame = pd.read_csv(path, usecols=columns)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no table of materials with structures: {error}.") from error
    wanted = None if elements is None else set(elements)
    least, most = n_atoms
    found: list[Material] = []
    for row in np.random.default_rng(seed).permutation(frame[columns].to_numpy(dtype=object)):
        group, composition, *lattice, cif, energy = row.tolist()
        composition = json.loads(composition)
        # A site is a line of the file's last loop, so that large cells need not be parsed.
        if cif.count("\n") > most + 30 or (wanted is not None and not set(composition) <= wanted):
            continue
        structure = Structure.from_str(cif, fmt="cif")
        if not least <= len(structure) <= most or not structure.is_ordered:
            continue
        numbers = np.array([site.specie.Z for site in structure], dtype=np.int64)
        cell = Cell(numbers, structure.lattice.matrix, structure.frac_coords)
        found.append(Material(int(group), composition, tuple(float(x) for x in lattice), float(energy), cell))
        if len(found) == n:
            break
    return found


# Groups and atoms of the conventional cell, by the name of the structure.
ELEMENTAL = {"fcc": (225, 4), "bcc": (229, 2), "hcp": (194, 2), "diamond": (227, 8)}


def elements() -> list[tuple[int, dict[str, int], tuple[float, ...]]]:
    """Elements in simple structures: space group, composition and lattice (Å, degrees) of the conventional cell.

    Tables of compounds lack them, though their formation energies are known best: zero. Lattices are ASE's reference
    states (Ashcroft & Mermin), of experiment.
    """
    from ase.data import atomic_numbers, reference_states

    known = element_rows()
    found: list[tuple[int, dict[str, int], tuple[float, ...]]] = []
    for symbol, number in atomic_numbers.items():
        state = reference_states[number] if number < len(reference_states) else None
        if state is None or symbol not in known or state["symmetry"] not in ELEMENTAL:
            continue
        group, n_atoms = ELEMENTAL[state["symmetry"]]
        a = float(str(state["a"]))
        is_hexagonal = state["symmetry"] == "hcp"
        c = a * float(str(state["c/a"])) if is_hexagonal else a
        found.append((group, {symbol: n_atoms}, (a, a, c, 90.0, 90.0, 120.0 if is_hexagonal else 90.0)))
    return found
