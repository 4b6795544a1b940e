"""Relaxation within symmetry, of draws ranked by a potential; and its failures, with reasons."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.spacegroup.symmetrize import check_symmetry

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.realise import realise
from activelearning.crystals.relaxation import RelaxationError, realise_relaxed, relax

P4MM = CrystalCandidate(99, {"Cu": 4}, (3.9, 3.9, 7.5, 90, 90, 90), wyckoff={"Cu": ("a", "b", "c")})


def group(atoms, tolerance=1e-3):
    return check_symmetry(atoms, tolerance).number


def test_a_metal_comes_to_its_lattice_constant_and_stays_cubic():
    strained = bulk("Cu", cubic=True)
    strained.set_cell(strained.cell * 1.04, scale_atoms=True)
    done = relax(strained, EMT(), fmax=1e-3)
    assert done.is_converged
    assert done.space_group == group(done.atoms) == 225
    # EMT's own minimum, by a scan that knows no optimiser.
    energies = {}
    for a in np.linspace(3.55, 3.65, 41):
        atoms = bulk("Cu", cubic=True, a=a)
        atoms.calc = EMT()
        energies[a] = atoms.get_potential_energy()
    assert done.atoms.cell.cellpar()[0] == pytest.approx(min(energies, key=energies.get), abs=0.004)
    assert done.volume_ratio == pytest.approx(done.atoms.get_volume() / strained.get_volume())
    assert strained.calc is None


def test_symmetry_is_kept_where_the_potential_would_rather_break_it():
    """bcc copper is a saddle of this potential: free, a small push lets it fall into a close packing."""
    bcc = bulk("Cu", "bcc", a=2.9, cubic=True).repeat((2, 2, 2))
    kept = relax(bcc, EMT(), fmax=0.005, max_steps=300)
    assert group(kept.atoms) == 229
    pushed = bcc.copy()
    pushed.rattle(0.05, seed=1)
    free = relax(pushed, EMT(), fmax=0.005, max_steps=300, keep_symmetry=False)
    assert free.space_group is None
    assert free.energy < kept.energy - 0.01
    assert group(free.atoms, 0.05) != 229


def test_the_cell_is_left_alone_where_asked():
    atoms = bulk("Cu", cubic=True, a=3.8)
    atoms.rattle(0.1, seed=0)
    done = relax(atoms, EMT(), relax_cell=False, keep_symmetry=False)
    np.testing.assert_array_equal(np.asarray(done.atoms.cell), np.asarray(atoms.cell))
    assert done.volume_ratio == pytest.approx(1.0)
    assert done.energy < atoms_energy(atoms)


def atoms_energy(atoms):
    copy = atoms.copy()
    copy.calc = EMT()
    return copy.get_potential_energy() / len(copy)


def test_steps_are_bounded_and_told():
    atoms = bulk("Cu", cubic=True, a=3.8)
    done = relax(atoms, EMT(), fmax=1e-6, max_steps=3)
    assert done.n_steps == 3
    assert not done.is_converged
    assert relax(atoms, EMT(), max_steps=0).energy == pytest.approx(atoms_energy(atoms))


def test_draws_are_relaxed_within_their_group_and_the_lowest_is_kept():
    drawn = realise(P4MM, n_trials=4, seed=2, calculator=EMT())
    one, info_one = realise_relaxed(P4MM, EMT(), seed=2, n_trials=4, relaxation={"max_steps": 30})
    assert info_one["realisation"] == drawn[0].trial
    assert one.energy < drawn[0].energy
    many, info = realise_relaxed(P4MM, EMT(), seed=2, n_trials=4, n_relaxed=4, relaxation={"max_steps": 30})
    assert info["n_realisations"] == len(drawn)
    assert many.energy <= one.energy
    assert info["relaxed_energy_per_atom"] == many.energy
    # A subgroup relation would need tables; the fourfold axis and the mirrors show in the cell and the order.
    a, b, _, *angles = many.atoms.cell.cellpar()
    assert a == pytest.approx(b, abs=1e-6)
    np.testing.assert_allclose(angles, 90.0, atol=1e-6)
    assert len(check_symmetry(many.atoms, 1e-3).rotations) >= 8


class Tilted(Calculator):
    """Pulls a pair of atoms together, or its cell apart, without end."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, pressure=0.0, energy=0.0):
        super().__init__()
        self.pressure, self.energy = pressure, energy

    def calculate(self, *arguments, **named):
        super().calculate(*arguments, **named)
        n = len(self.atoms)
        self.results = {
            "energy": self.energy,
            "forces": np.zeros((n, 3)),
            "stress": self.pressure * np.array([1.0, 1, 1, 0, 0, 0]),
        }


def test_what_falls_apart_or_collapses_is_an_error_with_a_reason():
    salt = bulk("LiCl", "rocksalt", a=5.1, cubic=True)
    with pytest.raises(RelaxationError, match="falls apart in relaxation"):
        relax(salt, Tilted(pressure=-2.0), max_steps=500)
    with pytest.raises(RelaxationError, match="collapses in relaxation"):
        relax(salt, Tilted(pressure=2.0), max_steps=500)
    with pytest.raises(RelaxationError, match="not finite"):
        relax(salt, Tilted(energy=float("nan")))
    close = Atoms("Li2", positions=[[0, 0, 0], [0, 0, 0.5]], cell=[8, 8, 8], pbc=True)
    with pytest.raises(RelaxationError, match="atoms on top of each other"):
        relax(close, Tilted(), keep_symmetry=False)


def test_a_potential_that_fails_is_an_error_with_its_words():
    class Broken(Tilted):
        def calculate(self, *arguments, **named):
            raise RuntimeError("no element of mine")

    with pytest.raises(RelaxationError, match="no element of mine"):
        relax(bulk("Cu"), Broken())


def test_trouble_of_the_machine_is_raised_as_it_is():
    class OutOfMemoryError(RuntimeError):
        pass

    class Full(Tilted):
        def calculate(self, *arguments, **named):
            raise OutOfMemoryError("Tried to allocate 20.00 GiB")

    with pytest.raises(OutOfMemoryError):
        relax(bulk("Cu"), Full())
    with pytest.raises(OutOfMemoryError):
        realise_relaxed(P4MM, Full(), seed=2)  # as a ranking of draws meets it


def test_reasons_of_all_draws_are_told():
    with pytest.raises(RelaxationError, match=r"Cu4: falls apart in relaxation"):
        realise_relaxed(P4MM, Tilted(pressure=-3.0), seed=2, n_trials=2, n_relaxed=2)
    with pytest.raises(ValueError, match="n_relaxed must be at least 1"):
        realise_relaxed(P4MM, LennardJones(), seed=2, n_relaxed=0)
    with pytest.raises(ValueError, match="fmax above 0"):
        relax(bulk("Cu"), EMT(), fmax=0.0)
