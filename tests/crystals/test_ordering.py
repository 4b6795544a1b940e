"""Ordering of partial occupancies: amounts, neutrality, energies against pymatgen and enumeration."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from pymatgen.analysis.ewald import EwaldSummation
from pymatgen.core import Composition, Lattice, Structure

from activelearning.candidate import CrystalCandidate, candidate_from_dict
from activelearning.crystals.annealing import Sites, anneal, coulomb_matrix
from activelearning.crystals.ordered import crystal_of, ordered, read_structure
from activelearning.crystals.ordering import OrderingError, OrderingSettings, compact_supercell, order
from activelearning.crystals.rounding import Orbit, round_occupancies
from activelearning.errors import InputError

HALF_SALT = Structure.from_spacegroup(  # Li and Na share the cations' sites
    "Fm-3m", Lattice.cubic(5.3), [{"Li": 0.5, "Na": 0.5}, "Cl"], [[0, 0, 0], [0.5] * 3]
)
VACANT = Structure.from_spacegroup(  # perovskite with a third of its large cations' sites empty
    "Pm-3m", Lattice.cubic(3.9), [{"La": 0.5, "Li": 0.35}, "Ti", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]]
)
SPLIT = Structure(  # lithium on one of two positions, 0.6 Å apart
    Lattice.tetragonal(4.0, 6.0),
    [{"Li": 0.5}, {"Li": 0.5}, "Cl"],
    [[0, 0, 0.05], [0, 0, -0.05], [0.5, 0.5, 0.5]],
)
MIXED = Structure.from_spacegroup(  # Fe at 2.67, which whole atoms miss
    "Fm-3m", Lattice.cubic(4.2), [{"Li": 0.4, "Fe": 0.6}, "O"], [[0, 0, 0], [0.5] * 3]
)


def counts(structure):
    return {s: round(n) for s, n in structure.composition.get_el_amt_dict().items()}


def charge(ordering):
    return sum(ordering.oxidation_states[s] * n for s, n in counts(ordering.structure).items())


def test_shared_sites_are_divided_as_they_should_be():
    found = order(HALF_SALT)
    held = counts(found.structure)
    assert held["Li"] == held["Na"]
    assert held["Li"] + held["Na"] == held["Cl"]
    assert found.structure.is_ordered
    assert found.composition_error == 0.0
    assert charge(found) == 0.0
    assert np.linalg.det(np.array(found.supercell)) == held["Cl"]  # one formula unit in the primitive cell


def test_vacancies_are_rounded_to_a_neutral_supercell_with_the_error_stated():
    wanted = {"La": 0.5, "Li": 0.35, "Ti": 1.0, "O": 3.0}  # total charge -0.15
    found = order(VACANT, oxidation_states={"La": [3], "Li": [1], "Ti": [4], "O": [-2]})
    assert charge(found) == pytest.approx(0.0)
    held = counts(found.structure)
    total, target = sum(held.values()), sum(wanted.values())
    error = max(abs(held[s] / total - wanted[s] / target) for s in wanted)
    assert found.composition_error == pytest.approx(error)
    assert 0.0 < error <= 0.04
    # The largest cell allowed can't be worse than a smaller one.
    small = order(VACANT, oxidation_states={"La": [3], "Li": [1], "Ti": [4], "O": [-2]}, settings=OrderingSettings(
        max_supercell=2, max_composition_error=0.5))  # fmt: skip
    assert small.composition_error >= error - 1e-9


def test_a_composition_that_is_known_better_goes_before_the_occupancies():
    twice = {"La": 1.0, "Li": 1.0, "Ti": 2.0, "O": 6.0}  # two formula units of La0.5Li0.5TiO3
    found = order(VACANT, composition=twice)
    held = counts(found.structure)
    assert held["La"] == held["Li"]
    assert found.composition_error == pytest.approx(0.0)
    with pytest.raises(
        OrderingError, match=r"holds La, Li, O, Ti, but its composition is said to be La0.5 O3 Ti1"
    ):
        order(VACANT, composition={"La": 0.5, "Ti": 1.0, "O": 3.0})


def test_split_positions_are_filled_once():
    found = order(SPLIT, settings=OrderingSettings(composition_error=1e-6))
    lithium = [site for site in found.structure if site.specie.symbol == "Li"]
    assert len(lithium) == counts(found.structure)["Cl"]
    for a, b in itertools.combinations(lithium, 2):
        assert a.distance(b) > 1.5


def test_a_mixed_valence_moves_with_the_rounding():
    found = order(MIXED)
    assert charge(found) == pytest.approx(0.0, abs=1e-9)
    assert 2.0 < found.oxidation_states["Fe"] < 4.0


def test_the_same_seed_gives_the_same_atoms():
    a, b, c = order(VACANT, seed=1), order(VACANT, seed=1), order(VACANT, seed=2)
    assert a.structure == b.structure
    assert a.summary() == b.summary()
    assert counts(a.structure) == counts(c.structure)
    assert list(a.energies) == sorted(a.energies)


@pytest.mark.parametrize("structure", [HALF_SALT, VACANT, MIXED], ids=["salt", "vacancies", "mixed"])
def test_energies_are_pymatgens_ewald_sums(structure):
    found = order(structure)
    charged = found.structure.copy()
    charged.add_oxidation_state_by_element(found.oxidation_states)
    assert found.energy * len(charged) == pytest.approx(EwaldSummation(charged).total_energy, rel=1e-6)


def test_annealing_finds_the_minimum_of_an_enumeration():
    """Four Li and four vacancies on eight sites of a distorted cell: seventy arrangements."""
    rng = np.random.default_rng(4)
    lattice = np.diag([7.0, 8.1, 6.2])
    fractional = np.concatenate([rng.random((8, 3)), [[0.1, 0.2, 0.3], [0.6, 0.7, 0.8]]])
    sites = Sites(
        matrix=lattice,
        fractional=fractional,
        orbits=np.array([0] * 8 + [1] * 2),
        elements=("Li", "O"),
        charges=np.array([1.0, -2.0]),
        radii=np.array([0.01, 0.01]),
        counts=np.array([[4, 0], [0, 2]]),
        allowed=np.array([[True, False], [False, True]]),
    )
    energies = coulomb_matrix(lattice, fractional)
    best = np.inf
    for chosen in itertools.combinations(range(8), 4):
        q = np.zeros(10)
        q[list(chosen)], q[8:] = 1.0, -2.0
        best = min(best, q @ energies @ q)
    found = anneal(sites, n_starts=2, sweeps=200, seed=0)
    assert found[0].energy == pytest.approx(best, abs=1e-9)
    assert found[0].has_kept_orbits


def test_rounding_is_that_of_an_enumeration():
    """All whole amounts on two orbits, by brute force, against the mixed-integer program."""
    orbits = [
        Orbit(3, {"Li": 0.4, "Na": 0.2}, is_full=False),
        Orbit(2, {"Li": 0.3, "Al": 0.3}, is_full=False),
        Orbit(3, {"Cl": 1.0}, is_full=True),
    ]
    charges = {"Li": 1.0, "Na": 1.0, "Al": 3.0, "Cl": -1.0}
    wanted = {"Li": 1.8, "Na": 0.6, "Al": 0.6, "Cl": 3.0}
    found = round_occupancies(orbits, np.array([0] * 3 + [1] * 2 + [2] * 3), wanted, charges, 1)

    def cost(li0, na, li1, al):
        place = abs(li0 - 1.2) + abs(na - 0.6) + abs(li1 - 0.6) + abs(al - 0.6)
        return 10 * (abs(li0 + li1 - 1.8) + abs(na - 0.6) + abs(al - 0.6)) + place

    best = min(
        cost(*each)
        for each in itertools.product(range(4), range(4), range(3), range(3))
        if each[0] + each[1] <= 3
        and each[2] + each[3] <= 2
        and each[0] + each[1] + each[2] + 3 * each[3] == 3
    )
    al, cl, li, na = range(4)
    k = found.counts
    assert cost(k[0, li], k[0, na], k[1, li], k[1, al]) == pytest.approx(best)
    assert k[2, cl] == 3


@pytest.mark.parametrize("n_cells", [1, 2, 3, 4, 6, 8])
def test_supercells_are_compact(n_cells):
    matrix = np.array([[3.0, 0, 0], [0, 4.0, 0], [0.5, 0, 12.0]])
    rows = compact_supercell(matrix, n_cells)
    assert round(np.linalg.det(rows)) == n_cells
    height = (1.0 / np.linalg.norm(np.linalg.inv(rows @ matrix), axis=0)).min()
    if n_cells == 6:  # better than any row or plane of cells along the axes
        boxes = [d for d in itertools.product((1, 2, 3, 6), repeat=3) if np.prod(d) == 6]
        straight = max(
            (1.0 / np.linalg.norm(np.linalg.inv(np.diag(d) @ matrix), axis=0)).min() for d in boxes
        )
        assert height >= straight - 1e-9


def test_what_cannot_be_ordered_says_why():
    with pytest.raises(OrderingError, match="no choice of oxidation states makes"):
        order(Structure(Lattice.cubic(3.0), [{"Li": 0.5, "Na": 0.5}], [[0, 0, 0]]))
    with pytest.raises(OrderingError, match=r"primitive cell has 5 sites, above max_sites = 4"):
        order(VACANT, settings=OrderingSettings(max_sites=4))
    crowded = Structure(SPLIT.lattice, [{"Li": 0.9}, {"Li": 0.9}, "O"], SPLIT.frac_coords)
    with pytest.raises(OrderingError, match=r"atoms overlap in every arrangement.*Li and Li at 0.60 Å"):
        order(crowded, composition={"Li": 2, "O": 1})
    with pytest.raises(OrderingError, match=r"off by .* above\s+max_composition_error = 0.001"):
        order(VACANT, settings=OrderingSettings(max_supercell=1, max_composition_error=0.001))
    with pytest.raises(ValueError, match="sweeps of an ordering must be above 0"):
        OrderingSettings(sweeps=0)


def test_a_candidate_keeps_its_occupancies_and_is_ordered_the_same_way_each_time():
    candidate = crystal_of(VACANT, composition={"La": 1.0, "Li": 1.0, "Ti": 2.0, "O": 6.0})
    assert not candidate.is_ordered
    assert candidate.space_group == 221
    assert dict(candidate.composition) == {"La": 0.5, "Li": 0.5, "O": 3.0, "Ti": 1.0}
    again = candidate_from_dict(candidate.to_dict())
    assert again == candidate
    assert again.to_dict() == candidate.to_dict()
    whole, record = ordered(candidate)
    assert whole.is_ordered
    assert whole.composition["La"] == whole.composition["Li"]
    assert record["composition_error"] == 0.0
    assert record["average_formula"] == "La0.5 Li0.5 O3 Ti1"
    ordered.cache_clear()
    assert ordered(again) == (whole, record)


def test_rounded_occupancies_fill_a_site_and_no_more():
    halides = {"Cl": 0.43456543, "Br": 0.14785215, "S": 0.41758242}  # one; each rounded up, 1.0001
    argyrodite = Structure(Lattice.cubic(9.85), ["Li", halides], [[0, 0, 0], [0.5] * 3])
    candidate = crystal_of(argyrodite, space_group=221)
    assert candidate.to_dict()["structure"]["species"] == ["Li", {"Br": 0.1479, "Cl": 0.4345, "S": 0.4176}]
    again = candidate_from_dict(candidate.to_dict())
    assert again.key == candidate.key
    assert again.to_dict() == candidate.to_dict()
    thirds = dict.fromkeys(("Cl", "Br", "S"), 1 / 3)  # what adds up to less is left as it is
    assert crystal_of(Structure(Lattice.cubic(9.85), ["Li", thirds], [[0, 0, 0], [0.5] * 3])).to_dict()[
        "structure"
    ]["species"][1] == dict.fromkeys(("Br", "Cl", "S"), 0.3333)


def test_fractions_need_partial_occupancies():
    with pytest.raises(ValueError, match="whole positive counts"):
        CrystalCandidate(225, {"Li": 0.5, "Cl": 1}, (5.0,) * 3 + (90,) * 3)
    with pytest.raises(ValueError, match="positive amounts"):
        CrystalCandidate(221, {"Li": 0.0, "La": 0.5}, structure=VACANT)


def test_an_ordered_file_must_hold_what_is_said_of_it(tmp_path):
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.1), ["Li", "Cl"], [[0, 0, 0], [0.5] * 3])
    path = Path(tmp_path) / "LiCl.cif"
    salt.to(str(path), fmt="cif")
    read = crystal_of(read_structure(path), composition={"Li": 1, "Cl": 1})
    assert read.space_group == 225
    assert dict(read.composition) == {"Cl": 4, "Li": 4}
    with pytest.raises(
        ValueError, match="is ordered and holds Cl4 Li4, but its composition is said to be Cl1 Li2"
    ):
        crystal_of(read_structure(path), composition={"Li": 2, "Cl": 1})
    path.write_text("no crystal")
    with pytest.raises(InputError, match=r"LiCl\.cif can't be read as a crystal"):
        read_structure(path)


R_CHAIN = Structure.from_spacegroup(
    "R-3m", Lattice.hexagonal(3.0, 15.0), [{"Li": 0.5, "Na": 0.4}, "Cl"], [[0, 0, 0], [0, 0, 0.5]]
)
C_CENTRED = Structure.from_spacegroup(
    "C2/m", Lattice.monoclinic(9.0, 5.0, 6.0, 105), ["Li", "Cl"], [[0.1, 0, 0.3], [0.4, 0, 0.2]]
)


@pytest.mark.parametrize("structure", [HALF_SALT, VACANT, R_CHAIN, C_CENTRED])
def test_a_crystal_is_taken_on_its_conventional_cell(structure):
    whole = crystal_of(structure)
    assert whole.cell == pytest.approx(structure.lattice.parameters, abs=2e-3)
    assert whole.structure.frac_coords == pytest.approx(structure.frac_coords, abs=1e-6)  # as it stands
    held = structure.composition.get_el_amt_dict()
    for other in (structure.get_primitive_structure(), structure * (2, 1, 1)):
        for found in (crystal_of(other), crystal_of(other, space_group=whole.space_group, composition=held)):
            assert found.space_group == whole.space_group
            assert found.cell == pytest.approx(whole.cell, abs=2e-3)
            assert dict(found.composition) == pytest.approx(held, abs=1e-4)
            assert dict(found.structure.composition.get_el_amt_dict()) == pytest.approx(held, abs=1e-3)
            assert found.structure.volume == pytest.approx(whole.volume, rel=1e-3)


def test_a_cell_that_is_not_its_groups_is_refused():
    with pytest.raises(ValueError, match=r"of space group 216 \(alpha = 60 must be 90 .* have 225 instead"):
        crystal_of(HALF_SALT.get_primitive_structure(), space_group=216)
    assert crystal_of(HALF_SALT, space_group=216).space_group == 216  # this is its author's business


@pytest.mark.slow
def test_measured_crystals_are_ordered_or_say_why(obelix):
    """Every second CIF of OBELiX with partial occupancies, by its true composition."""
    import pandas as pd

    rows = pd.read_csv(obelix / "all.csv").set_index("ID")
    reasons, errors = [], []
    for file in sorted((obelix / "all_randomized_cifs").glob("*.cif"))[::2]:
        structure = read_structure(file)
        if structure.is_ordered:
            continue
        try:
            found = order(
                structure, composition=Composition(rows.loc[file.stem, "True Composition"]).get_el_amt_dict()
            )
        except OrderingError as error:
            reasons.append(str(error))
            continue
        errors.append(found.composition_error)
        assert found.structure.is_ordered
        assert charge(found) == pytest.approx(0.0, abs=1e-6)
        assert len(found.structure) <= 400
    assert len(errors) >= 0.9 * (len(errors) + len(reasons))
    assert max(errors) < 0.05
    for reason in reasons:
        assert "composition is said to be" in reason or "atoms overlap" in reason
