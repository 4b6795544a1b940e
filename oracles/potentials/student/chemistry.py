"""What the student's materials are made of: its elements, their usual charges, families for the test table, the split.

Training and test materials are kept apart by composition: every polymorph, distortion and frame of the dynamics of a
held-out composition is held out with it, and what is made of a held-out crystal by exchanging elements is trained on
in no case. The converse is not kept apart: a crystal of a held-out composition, known or made, may have the structure
of one that is trained on, or be made of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

from ase import Atoms
from ase.formula import Formula

# The elements that the student knows, with their usual oxidation states, by which kindred ones are found.
OXIDATION_STATES = {
    **dict.fromkeys(("H", "Li", "Na", "K"), 1),
    **dict.fromkeys(("Mg", "Ca", "Sr", "Ba", "Zn"), 2),
    **dict.fromkeys(("B", "Al", "Sc", "Ga", "Y", "In", "La"), 3),
    **dict.fromkeys(("C", "Si", "Ti", "Ge", "Zr", "Sn", "Hf"), 4),
    **dict.fromkeys(("P", "As", "Nb", "Sb", "Ta"), 5),
    "N": -3,
    **dict.fromkeys(("O", "S", "Se"), -2),
    **dict.fromkeys(("F", "Cl", "Br", "I"), -1),
}
ELEMENTS = tuple(OXIDATION_STATES)
# Those that the student was made for; the others are in compounds that help it to learn of these.
ELECTROLYTE_ELEMENTS = frozenset(
    "Li B C N O F Mg Al Si P S Cl Ca Ti Zn Ga Ge As Se Br Y Zr In Sn Sb I La".split()
)
ANIONS = frozenset({"N", "O", "F", "S", "Cl", "Se", "Br", "I"})
# Elements that replace one another in crystals.
KINDRED = (
    ("F", "Cl", "Br", "I"),
    ("O", "S", "Se"),
    ("P", "As", "Sb"),
    ("Si", "Ge", "Sn"),
    ("Ti", "Zr", "Hf"),
    ("Al", "Ga", "In", "Y", "Sc", "La"),
    ("Mg", "Ca", "Zn", "Sr", "Ba"),
    ("Nb", "Ta"),
)
# What stands in for an element that the student does not know, so that crystals of any elements can teach it: of a
# usual charge and, roughly, size. Lithium comes first where the charge is one.
STAND_INS = {
    **dict.fromkeys(("Rb", "Cs"), ("Li", "Na", "K")),
    **dict.fromkeys(("Cu", "Ag", "Au"), ("Li", "Na")),
    "Tl": ("Li", "K", "In"),
    **dict.fromkeys(("Be", "Mn", "Co", "Ni", "Pd"), ("Mg", "Zn")),
    **dict.fromkeys(("Cd", "Hg"), ("Zn", "Ca", "Sr")),
    "Pb": ("Sr", "Ba", "Sn"),
    **dict.fromkeys(("Cr", "Fe", "Rh"), ("Al", "Sc", "Ga", "In")),
    **dict.fromkeys(("Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd"), ("La", "Y")),
    **dict.fromkeys(("Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu"), ("Y", "Sc", "In")),
    "Bi": ("Sb", "La"),
    **dict.fromkeys(("Ru", "Ir", "Pt", "Os", "Re", "Tc"), ("Ti", "Zr", "Sn")),
    **dict.fromkeys(("Ac", "Th", "Pa", "U", "Np", "Pu"), ("Zr", "Hf", "La")),
    **dict.fromkeys(("V", "Mo", "W"), ("Nb", "Ta", "P", "As")),
    "Te": ("Se", "S"),
}
# Chemistries of the flagship campaigns: materials within one are always trained on, and tested apart.
ALWAYS_TRAINED = (
    frozenset({"Li", "P", "S", "Cl"}),
    frozenset({"Li", "Ge", "P", "S"}),
    frozenset({"Li", "La", "Zr", "O"}),
)


def element_system(symbols: Collection[str]) -> str:
    """The elements in alphabetical order, joined by hyphens."""
    return "-".join(sorted(set(symbols)))


def split_key(atoms: Atoms) -> str:
    """By what a material is held out: its elements where they are four or more, else its reduced formula.

    Doped variants of one conductor differ by a few per cent of their composition and would tell of each other.
    """
    symbols = set(atoms.get_chemical_symbols())
    if len(symbols) >= 4:
        return element_system(symbols)
    reduced: Formula = atoms.symbols.formula.reduce()[0]
    return reduced.format("hill")


def is_held_out(atoms: Atoms) -> bool:
    """Whether a material is kept for testing: about one in ten."""
    symbols = set(atoms.get_chemical_symbols())
    if any(symbols <= chemistry for chemistry in ALWAYS_TRAINED):
        return False
    return int(hashlib.sha256(split_key(atoms).encode()).hexdigest(), 16) % 10 == 0


def family(symbols: Sequence[str]) -> str:
    """Family of a compound by its anions, as a table of errors tells them apart."""
    present = set(symbols)
    halogens = present & {"F", "Cl", "Br", "I"}
    chalcogens = present & {"S", "Se"}
    if "H" in present:
        return "with hydrogen"
    if "N" in present:
        return "nitrides"
    if "O" in present:
        if "P" in present:
            return "phosphates"
        return "mixed oxides" if halogens or chalcogens else "oxides"
    if chalcogens:
        return "sulfide and selenide halides" if halogens else "sulfides and selenides"
    if halogens:
        return "fluorides" if halogens == {"F"} else "halides"
    return "intermetallics, pnictides and elements"
