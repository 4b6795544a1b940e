"""The relaxed crystal as a file beside an answer: for exports, and for what a laboratory is told."""

from __future__ import annotations

from pathlib import Path

from ase import Atoms
from pymatgen.io.ase import AseAtomsAdaptor

from oracles.dynamics.motion import replacing

NAME = "relaxed.cif"


def keep_relaxed(folder: Path, atoms: Atoms) -> str:
    """Write all atoms of a cell, in no space group, to `relaxed.cif` in a folder; returns the path.

    Raises:
        OSError: the file can't be written.
    """
    path = folder / NAME
    with replacing(path) as partial:
        partial.write_text(str(AseAtomsAdaptor.get_structure(atoms).to(fmt="cif")), encoding="utf-8")
    return str(path)
