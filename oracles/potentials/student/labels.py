"""Labels from the teacher: energy, forces and stress of CHGNet, kept in extended XYZ files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from oracles.potentials.student.sampling import Sample

# Where two atoms collide, the teacher is outside its own training and its forces mean nothing; the student's short
# range is the ZBL repulsion's there.
MAX_FORCE = 25.0  # eV/Å


def label(samples: Iterable[Sample], path: Path, *, report_every: int = 100) -> int:
    """Label structures with the teacher and append them to a file, those with forces above `MAX_FORCE` left out.

    Args:
        samples: The structures.
        path: Extended XYZ file; each frame holds energy (eV), forces (eV/Å), stress (eV/Å³), its `group` and `source`.
        report_every: Print progress after so many structures.

    Returns:
        The number of structures kept.
    """
    from ase.io import write

    from oracles.potentials.loading import load_calculator

    teacher = load_calculator("chgnet")
    n_kept = 0
    for n_seen, sample in enumerate(samples, start=1):
        atoms = sample.atoms
        copy = atoms.copy()
        copy.calc = teacher
        forces = copy.get_forces()
        if np.isfinite(forces).all() and np.linalg.norm(forces, axis=1).max() < MAX_FORCE:
            frame = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
            frame.calc = SinglePointCalculator(
                frame, energy=copy.get_potential_energy(), forces=forces, stress=copy.get_stress(voigt=False)
            )
            frame.info |= {"group": sample.group, "source": sample.source}
            write(path, frame, format="extxyz", append=True)
            n_kept += 1
        if n_seen % report_every == 0:
            print(f"{n_seen} structures seen, {n_kept} labelled", flush=True)
    return n_kept
