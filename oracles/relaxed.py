"""The relaxed crystal as a file beside an answer: for exports, and for what a laboratory is told."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from ase import Atoms
from pymatgen.io.ase import AseAtomsAdaptor

NAME = "relaxed.cif"


def keep_relaxed(folder: Path, atoms: Atoms) -> str:
    """Write all atoms of a cell, in no space group, to `relaxed.cif` in a folder; returns the path.

    Raises:
        OSError: the file can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    # A name of its own: two processes may be at one evaluation, after a claim is taken over.
    partial = folder / f"{NAME}.{uuid4().hex}"
    try:
        partial.write_text(str(AseAtomsAdaptor.get_structure(atoms).to(fmt="cif")), encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return str(path)
