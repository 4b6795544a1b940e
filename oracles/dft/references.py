"""Elemental references of formation energies: the elements as they are at 0 K, near enough.

Metals, semimetals and diamond-like elements are crystals with measured lattice parameters (ASE's table, which follows
Ashcroft and Mermin); H, N, O, F, Cl, Br and I are molecules in a box (their crystals are bound by 0.1 eV/atom or less,
most of it by dispersion, which PBE lacks); P, Se and Te are the black and grey forms, S is the ring S8 in a box.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, reference_states

from activelearning.errors import OracleError

VERSION = 1  # part of the content key of every formation energy
# Bond lengths (Å) of the diatomic molecules: Huber and Herzberg, Constants of Diatomic Molecules (1979), by the NIST
# Chemistry WebBook.
DIATOMICS = {"H": 0.7414, "N": 1.0977, "O": 1.2075, "F": 1.4119, "Cl": 1.9879, "Br": 2.2811, "I": 2.6663}
VACUUM = 8.0  # Å between images of a molecule
# Structures that a table of lattice parameters can build, by ASE's names.
_BUILDABLE = ("bcc", "fcc", "hcp", "diamond", "sc", "rhombohedral", "bct")


def reference_atoms(symbol: str) -> Atoms:
    """An element's reference, its primitive cell or a molecule in a box without periodicity of its own.

    The triplet of O2 comes as initial magnetic moments.

    Raises:
        OracleError: there is none for this element.
    """
    if symbol in DIATOMICS:
        atoms = Atoms(2 * symbol, positions=[[0, 0, 0], [0, 0, DIATOMICS[symbol]]])
        if symbol == "O":
            atoms.set_initial_magnetic_moments([1.0, 1.0])
        return _boxed(atoms)
    if symbol == "S":
        return _boxed(_ring_of_sulphur())
    if symbol == "P":
        return _black_phosphorus()
    if symbol in ("Se", "Te"):
        return _helices(symbol)
    state = reference_states[atomic_numbers[symbol]]
    if state is None or state["symmetry"] not in _BUILDABLE:
        raise OracleError(
            f"there is no elemental reference for {symbol}; state its energy (eV/atom, by the same engine and "
            f"protocol) in params.references"
        )
    atoms = bulk(symbol)
    atoms.set_initial_magnetic_moments(None)  # the engine's section says what is magnetic
    return atoms


def is_molecule(atoms: Atoms) -> bool:
    """Whether a reference is a molecule in a box, whose cell means nothing."""
    return not atoms.pbc.any()


def _boxed(atoms: Atoms) -> Atoms:
    # Sides that differ a little keep degenerate levels of a molecule from mixing with the box's symmetry.
    extent = np.ptp(atoms.positions, axis=0)
    atoms.set_cell(np.diag(extent + VACUUM + np.array([0.0, 0.25, 0.5])))
    atoms.center()
    return atoms


def _ring_of_sulphur() -> Atoms:
    """The crown of S8: bonds of 2.055 Å at 108.2° (D4d; Rettig and Trotter, Acta Cryst. C43, 2260 (1987))."""
    bond, angle = 2.055, np.deg2rad(108.2)
    # Neighbours are a turn of 45° and a height h apart, next-but-one neighbours a turn of 90° at one height.
    radius = 2.0 * bond * np.sin(angle / 2.0) / np.sqrt(2.0)
    height = np.sqrt(bond**2 - (2.0 * radius * np.sin(np.pi / 8.0)) ** 2)
    turns = np.arange(8) * np.pi / 4.0
    z = np.where(np.arange(8) % 2 == 0, 0.5, -0.5) * height
    return Atoms("S8", positions=np.stack([radius * np.cos(turns), radius * np.sin(turns), z], axis=1))


def _black_phosphorus() -> Atoms:
    """Cmce, P on 8f (0, 0.1017, 0.0806) (Brown and Rundqvist, Acta Cryst. 19, 684 (1965)); the primitive cell."""
    from ase.spacegroup import crystal

    atoms: Atoms = crystal(
        "P",
        [(0.0, 0.1017, 0.0806)],
        spacegroup=64,
        cellpar=[3.3136, 10.478, 4.3763, 90, 90, 90],
        primitive_cell=True,
    )
    return _plain(atoms)


def _helices(symbol: str) -> Atoms:
    """Grey selenium and tellurium, P3_121 on 3a.

    Cherin and Unger, Inorg. Chem. 6, 1589 (1967) and Acta Cryst. 23, 670 (1967).
    """
    from ase.spacegroup import crystal

    a, c, x = {"Se": (4.3662, 4.9536, 0.2254), "Te": (4.4572, 5.9290, 0.2633)}[symbol]
    return _plain(crystal(symbol, [(x, 0.0, 1.0 / 3.0)], spacegroup=152, cellpar=[a, a, c, 90, 90, 120]))


def _plain(atoms: Atoms) -> Atoms:
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
