"""The relaxed crystal as a file beside an answer: for exports, for what a laboratory is told, for the next question."""

from __future__ import annotations

from pathlib import Path

from ase import Atoms
from pymatgen.io.ase import AseAtomsAdaptor

NAME = "relaxed.cif"


def keep_relaxed(folder: Path, atoms: Atoms) -> str:
    """Write all atoms of a cell, in no space group, to `relaxed.cif` in a folder; returns the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    partial = path.with_suffix(".partial")
    partial.write_text(str(AseAtomsAdaptor.get_structure(atoms).to(fmt="cif")), encoding="utf-8")
    partial.replace(path)
    return str(path)
