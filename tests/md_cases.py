"""Crystals and short runs shared by the tests of molecular dynamics."""

from collections import Counter

from ase.build import bulk
from pymatgen.io.ase import AseAtomsAdaptor

from activelearning.candidate import CrystalCandidate
from activelearning.contracts import OracleContext
from oracles.mace_md import MaceMDOracle

SHORT = {
    "temperature": 700.0,
    "time_ps": 0.1,
    "equilibration_ps": 0.04,
    "min_cell_edge": 4.0,
    "relax_steps": 5,
    "max_energy_change": 1.0,  # these runs are too short for an equilibrium
    "checkpoint_every": 10,
}


def crystal(atoms):
    """A candidate that brings its atoms along."""
    return CrystalCandidate(
        space_group=1,
        composition=dict(Counter(atoms.get_chemical_symbols())),
        lattice=tuple(atoms.cell.cellpar()),
        structure=AseAtomsAdaptor.get_structure(atoms),
    )


def rocksalt(repeat=1):
    return crystal(bulk("LiCl", "rocksalt", a=5.13, cubic=True).repeat(repeat))


def oracle(folder, prop="log10_conductivity_700K", unit=None, **params):
    made = MaceMDOracle(**{**SHORT, **params})
    made.bind(OracleContext("campaign", "md", prop, unit, 1.0, "sqlite://", folder / "md"))
    return made
