"""Realisations of sampled crystals: symmetry, distances, order, determinism, and reasons of failure."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.lj import LennardJones
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from pymatgen.symmetry.groups import SpaceGroup

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.realise import RealisationError, distance_ratio, realise

CRYSTALS = [
    CrystalCandidate(1, {"Li": 3, "S": 2}, (4.9, 5.3, 5.8, 80, 95, 102)),
    CrystalCandidate(14, {"Li": 4, "P": 4, "S": 12}, (7, 8, 9, 90, 110, 90)),
    CrystalCandidate(62, {"Li": 12, "P": 4, "S": 16}, (12.8, 8.2, 6.1, 90, 90, 90)),
    CrystalCandidate(87, {"Li": 4, "S": 8}, (6.2, 6.2, 9.0, 90, 90, 90)),
    CrystalCandidate(166, {"Li": 6, "S": 3, "Cl": 3}, (6, 6, 15, 90, 90, 120)),
    CrystalCandidate(194, {"Li": 4, "P": 2}, (4.5, 4.5, 8, 90, 90, 120)),
    CrystalCandidate(216, {"Li": 4, "Cl": 4}, (5.1, 5.1, 5.1, 90, 90, 90)),
]


@pytest.mark.parametrize("candidate", CRYSTALS, ids=lambda c: str(c.space_group))
def test_a_realisation_has_the_candidates_lattice_composition_and_symmetry(candidate):
    for found in realise(candidate, n_trials=3, seed=7):
        atoms = found.atoms
        np.testing.assert_allclose(atoms.cell.cellpar(), candidate.lattice, atol=1e-9)
        assert {str(s): int((atoms.symbols == s).sum()) for s in set(atoms.symbols)} == dict(
            candidate.composition
        )
        assert found.distance_ratio == pytest.approx(distance_ratio(atoms))
        assert found.distance_ratio >= 0.6
        # Every operation of the group, from pymatgen's tables, maps the atoms onto themselves.
        fractional = atoms.get_scaled_positions()
        for operation in SpaceGroup.from_int_number(candidate.space_group).symmetry_ops:
            moved = operation.operate_multi(fractional)
            gaps = moved[:, None] - fractional[None]
            gaps -= np.round(gaps)
            near = (np.abs(gaps) < 1e-4).all(-1) & (atoms.numbers[:, None] == atoms.numbers[None])
            assert near.any(axis=1).all()


def test_spglib_finds_at_least_the_sampled_symmetry():
    candidate = CRYSTALS[1]
    (found,) = realise(candidate, n_trials=1, seed=0)
    analysed = SpacegroupAnalyzer(AseAtomsAdaptor.get_structure(found.atoms), symprec=1e-3)
    assert analysed.get_space_group_number() == 14


def test_the_same_seed_gives_the_same_atoms_and_more_trials_only_add():
    few = realise(CRYSTALS[1], n_trials=2, seed=3)
    many = realise(CRYSTALS[1], n_trials=4, seed=3)
    other = realise(CRYSTALS[1], n_trials=2, seed=4)
    assert [r.trial for r in many] == [0, 1, 2, 3]
    for a, b, c in zip(few, many, other, strict=False):
        assert np.array_equal(a.atoms.positions, b.atoms.positions)
        assert not np.array_equal(a.atoms.positions, c.atoms.positions)


def test_numpys_global_generator_is_neither_read_nor_moved():
    np.random.seed(0)
    first = realise(CRYSTALS[2], n_trials=1, seed=3)[0]
    state = np.random.get_state()[1].copy()
    np.random.seed(1)
    second = realise(CRYSTALS[2], n_trials=1, seed=3)[0]
    assert np.array_equal(first.atoms.positions, second.atoms.positions)
    np.random.seed(0)
    assert np.array_equal(np.random.get_state()[1], state)


def test_realisations_are_ranked_by_energy():
    found = realise(CRYSTALS[1], n_trials=5, seed=1, calculator=LennardJones(sigma=1.5, rc=6.0))
    energies = [r.energy for r in found]
    assert energies == sorted(energies)
    copy = found[0].atoms.copy()
    copy.calc = LennardJones(sigma=1.5, rc=6.0)
    assert found[0].energy == pytest.approx(copy.get_potential_energy() / len(copy))
    assert found[0].atoms.calc is None


def test_a_structure_of_the_candidates_own_is_used_as_it_is():
    structure = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.13), ["Li", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    candidate = CrystalCandidate(225, {"Li": 4, "Cl": 4}, (5.13,) * 3 + (90,) * 3, structure=structure)
    (found,) = realise(candidate, n_trials=9, seed=0)
    np.testing.assert_allclose(found.atoms.positions, structure.cart_coords, atol=1e-5)


def test_sampled_wyckoff_letters_are_occupied():
    candidate = CrystalCandidate(
        225, {"Li": 8, "S": 4}, (5.7,) * 3 + (90,) * 3, wyckoff={"Li": ("c",), "S": ("a",)}
    )
    for found in realise(candidate, n_trials=2, seed=0):
        # 8c and 4a of Fm-3m are antifluorite: every S has eight Li at a √3 / 4.
        sulfur = [k for k, s in enumerate(found.atoms.symbols) if s == "S"]
        distances = found.atoms.get_all_distances(mic=True)[sulfur[0]]
        assert np.sum(np.isclose(distances, 5.7 * np.sqrt(3) / 4, atol=1e-3)) >= 4


def test_sampled_letters_may_repeat():
    candidate = CrystalCandidate(
        31, {"Li": 8, "S": 4}, (7.5, 6.4, 6.2, 90, 90, 90), wyckoff={"Li": ("a", "b", "a"), "S": ("a", "a")}
    )
    for found in realise(candidate, n_trials=2, seed=0):
        # 2a of Pmn2_1 is its mirror plane at x = 0, and ½ further on; 4b is general.
        planes = np.abs(
            np.round(2 * found.atoms.get_scaled_positions()[:, 0]) / 2
            - found.atoms.get_scaled_positions()[:, 0]
        )
        on_mirror = np.isclose(planes, 0.0, atol=1e-6)
        species = np.array(found.atoms.get_chemical_symbols())
        assert on_mirror[species == "S"].all()
        assert on_mirror[species == "Li"].sum() == 4


def test_a_candidate_without_lattice_has_no_atoms():
    with pytest.raises(RealisationError, match="has no lattice"):
        realise(CrystalCandidate(225, {"Li": 4, "Cl": 4}), seed=0)


def test_crystals_that_cannot_be_realised_say_why():
    with pytest.raises(RealisationError, match="multiplicities of its Wyckoff positions"):
        realise(CrystalCandidate(225, {"Li": 3}, (5,) * 3 + (90,) * 3), seed=0)
    with pytest.raises(RealisationError, match=r"Li4 P4 S12 in space group 19 .* cell of 27 Å³"):
        realise(CrystalCandidate(19, {"Li": 4, "P": 4, "S": 12}, (3, 3, 3, 90, 90, 90)), n_trials=1, seed=0)


def test_partial_occupancies_are_refused():
    structure = Structure(Lattice.cubic(4.0), [{"Li": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    candidate = CrystalCandidate(221, {"Li": 1, "Cl": 1}, (4.0,) * 3 + (90,) * 3)
    object.__setattr__(candidate, "structure", structure)
    with pytest.raises(RealisationError, match="partial occupancies"):
        realise(candidate, seed=0)


def test_a_potential_that_is_not_finite_is_a_reason():
    class Broken(Calculator):
        implemented_properties = ["energy"]  # noqa: RUF012

        def calculate(self, *arguments, **named):
            super().calculate(*arguments, **named)
            self.results = {"energy": float("nan")}

    with pytest.raises(RealisationError, match="not finite"):
        realise(CRYSTALS[0], n_trials=2, seed=0, calculator=Broken())


def test_a_draw_on_which_the_potential_fails_is_none():
    class Picky(Calculator):
        """Fails on its first atoms and, like ASE's EMT, on all others while it holds to those."""

        implemented_properties = ["energy"]  # noqa: RUF012
        n_left = 1
        error = KeyError("Li")

        def calculate(self, atoms, properties, changes):
            begun = self.atoms is None
            super().calculate(atoms, properties, changes)
            if self.n_left:
                self.n_left -= 1
                raise self.error
            if not begun:
                raise AttributeError("half made")
            self.results = {"energy": 0.0}
            self.atoms = None

    found = realise(CRYSTALS[0], n_trials=3, seed=0, calculator=Picky())
    assert [one.trial for one in found] == [1, 2]
    with pytest.raises(RealisationError, match=r"in 1 trial .*: the potential fails: KeyError: 'Li'"):
        realise(CRYSTALS[0], n_trials=1, seed=0, calculator=Picky())
    outside = Picky()
    outside.error = FileNotFoundError("no such program")
    with pytest.raises(FileNotFoundError):  # not the crystal's fault
        realise(CRYSTALS[0], n_trials=1, seed=0, calculator=outside)


def test_trials_are_counted():
    with pytest.raises(ValueError, match="at least 1"):
        realise(CRYSTALS[0], n_trials=0, seed=0)


def test_distance_ratio_sees_images():
    # One atom in a cell of 2 Å: its nearest neighbour is its own image.
    assert distance_ratio(Atoms("Li", cell=[2, 9, 9], pbc=True)) == pytest.approx(2.0 / (2 * 1.28))
    assert distance_ratio(Atoms("Li", cell=[9, 9, 9], pbc=True)) == float("inf")


@pytest.mark.parametrize(
    ("group", "lattice", "wrong"),
    [
        (225, (5, 5.5, 6, 90, 90, 90), r"lengths \[5.0, 5.5, 6.0\] must have a = b = c in the cubic"),
        (14, (7, 8, 9, 90, 90, 105), "gamma = 105 must be 90 in the monoclinic"),
        (
            166,
            (6, 6, 6, 70, 70, 70),
            r"hexagonal axes for R groups\): alpha = 70 must be 90 .* gamma = 70 must be 120",
        ),
    ],
)
def test_a_lattice_must_be_its_groups(group, lattice, wrong):
    with pytest.raises(RealisationError, match=wrong):
        realise(CrystalCandidate(group, {"Li": 12, "Cl": 12}, lattice), seed=0)


def test_a_lattice_may_be_rounded():
    (found,) = realise(
        CrystalCandidate(225, {"Li": 4, "Cl": 4}, (5.13, 5.135, 5.13, 90, 90, 90.05)), n_trials=1, seed=0
    )
    assert len(found.atoms) == 8
