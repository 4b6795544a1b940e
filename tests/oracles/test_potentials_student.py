"""The student's making: what materials it is trained on and kept from, training that resumes."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from pymatgen.core import Lattice, Structure

from activelearning.crystals.realise import distance_ratio
from activelearning.errors import InputError
from oracles.potentials.mace_model import Architecture
from oracles.potentials.student import materials as student_materials
from oracles.potentials.student.chemistry import (
    ELEMENTS,
    KINDRED,
    OXIDATION_STATES,
    STAND_INS,
    family,
    is_held_out,
    split_key,
)
from oracles.potentials.student.explore import dynamics, relaxation
from oracles.potentials.student.materials import (
    Material,
    computed_materials,
    conductor_materials,
    substituted,
    transmuted,
)
from oracles.potentials.student.sampling import Sample, explored_samples, first_samples
from oracles.potentials.student.structures import argyrodite, lithium_subsets, prototypes, random_crystals
from oracles.potentials.student.train import Course, collate, element_energies, labelled_graph, train

SMALL = Architecture((3, 17), channels=4, radial_width=8, r_max=4.0)


def salt(a=5.1, seed=None):
    atoms = bulk("LiCl", "rocksalt", a=a, cubic=True)
    if seed is not None:
        atoms.rattle(0.1, seed=seed)
    return atoms


def labelled(atoms, source="lithium"):
    """With the labels of a Lennard-Jones salt."""
    copy = atoms.copy()
    copy.calc = LennardJones(sigma=2.2, epsilon=0.1, rc=6.0)
    frame = atoms.copy()
    frame.calc = SinglePointCalculator(
        frame,
        energy=copy.get_potential_energy(),
        forces=copy.get_forces(),
        stress=copy.get_stress(voigt=False),
    )
    frame.info |= {"group": "salt", "source": source}
    return frame


def test_relatives_of_a_material_are_on_the_same_side_of_the_split():
    names = ["LiF", "Li2O", "NaCl", "Li3N", "MgO", "LiAlO2", "Li3InCl6", "Li2ZnGeS4"]
    for name in names:
        atoms = Atoms(
            name, positions=np.arange(3.0 * len(Atoms(name))).reshape(-1, 3), cell=[20] * 3, pbc=True
        )
        larger = atoms.repeat((2, 1, 1))
        larger.rattle(0.1)
        assert split_key(larger) == split_key(atoms)
        assert is_held_out(larger) == is_held_out(atoms)
    # Of four elements or more the amounts do not matter.
    assert split_key(Atoms("Li7La3Zr2O12")) == split_key(Atoms("Li6La3ZrNbO12".replace("Nb", "Zr")))
    assert split_key(Atoms("Li2O")) != split_key(Atoms("Li2O2"))


def test_about_one_chemistry_in_ten_is_held_out_and_none_of_the_flagships():
    systems = ["".join(f"{e}2" for e in chosen) for chosen in itertools.combinations(sorted(ELEMENTS), 3)]
    share = np.mean([is_held_out(Atoms(formula)) for formula in systems])
    assert share == pytest.approx(0.1, abs=0.01)
    assert not any(is_held_out(atoms) for atoms in prototypes().values())
    assert not is_held_out(Atoms("Li7La3Zr2O12"))


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("Li3PO4", "phosphates"),
        ("Li7La3Zr2O12", "oxides"),
        ("Li6PS5Cl", "sulfide and selenide halides"),
        ("Li3PS4", "sulfides and selenides"),
        ("Li3YCl6", "halides"),
        ("LiF", "fluorides"),
        ("Li3OCl", "mixed oxides"),
        ("Li3N", "nitrides"),
        ("LiBH4", "with hydrogen"),
        ("Li3P", "intermetallics, pnictides and elements"),
    ],
)
def test_families(formula, expected):
    assert family(Atoms(formula).get_chemical_symbols()) == expected


def test_kindred_elements_have_the_same_charge():
    for kin in KINDRED:
        assert len({OXIDATION_STATES[e] for e in kin}) == 1


def perovskite():
    """La0.5Li0.5TiO3, five atoms: A sites half La, half Li."""
    return Structure(
        Lattice.cubic(3.87),
        [{"La": 0.5, "Li": 0.5}, "Ti", "O", "O", "O"],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    )


def test_conductors_are_ordered_and_what_cannot_be_is_left_out(tmp_path):
    perovskite().to(filename=str(tmp_path / "perovskite.cif"))
    # Fluorine alone can't be neutral.
    wrong = Structure(Lattice.cubic(4.0), [{"Li": 0.2}, "F"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    wrong.to(filename=str(tmp_path / "wrong.cif"))
    Structure(Lattice.cubic(4.0), ["Cs", "F"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(
        filename=str(tmp_path / "foreign.cif")
    )
    (found,) = conductor_materials(tmp_path, seed=0)
    assert (found.name, found.source) == ("obelix perovskite", "obelix")
    counts = {e: found.atoms.get_chemical_symbols().count(e) for e in ("La", "Li", "Ti", "O")}
    assert counts["Ti"] == counts["La"] + counts["Li"] == counts["O"] / 3
    assert counts["La"] == counts["Li"]


def table(path: Path):
    """Six materials in the format of the Materials Project's subset."""
    import json

    import pandas as pd

    rows = []
    formulas = [("LiCl", 0.0), ("NaCl", 0.0), ("MgO", 0.0), ("MgSe", 0.3), ("MnO", 0.5), ("FeNi", 0.0)]
    for k, (formula, hull) in enumerate(formulas):
        atoms = bulk(formula, "rocksalt", a=5.0, cubic=True)
        structure = Structure(atoms.cell.array, atoms.get_chemical_symbols(), atoms.get_scaled_positions())
        rows.append(
            {
                "material_id": f"mp-{k}",
                "composition": json.dumps(structure.composition.get_el_amt_dict()),
                "e_above_hull": hull,
                "n_sites_conventional": 8,
                "cif": structure.to(fmt="cif"),
            }
        )
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_materials_of_a_table_are_told_apart_by_their_elements(tmp_path):
    lithium, sodium, neighbours, foreign = computed_materials(table(tmp_path / "materials.csv.gz"), seed=0)
    assert [m.atoms.get_chemical_formula() for m in lithium] == ["Cl4Li4"]
    assert [m.atoms.get_chemical_formula() for m in sodium] == ["Cl4Na4"]
    # The unstable MgSe is left out.
    assert {m.atoms.get_chemical_formula() for m in neighbours} == {"Mg4O4", "Cl4Na4"}
    # Of what the student does not know, compounds alone.
    assert [m.atoms.get_chemical_formula() for m in foreign] == ["Mn4O4"]


def test_what_is_too_large_is_taken_by_its_primitive_cell(tmp_path, monkeypatch):
    monkeypatch.setitem(student_materials.MAX_ATOMS, "lithium", 2)
    monkeypatch.setitem(student_materials.MAX_ATOMS, "sodium", 1)
    found = computed_materials(table(tmp_path / "materials.csv.gz"), seed=0)
    assert [m.atoms.get_chemical_formula() for m in found.lithium] == ["ClLi"]
    assert found.lithium[0].atoms.get_volume() == pytest.approx(5.0**3 / 4)
    assert found.sodium == []


def test_a_table_or_a_folder_without_structures_is_refused(tmp_path):
    path = tmp_path / "materials.csv"
    path.write_text("material_id,composition\nmp-1,{}\n")
    with pytest.raises(InputError, match="lacks cif, e_above_hull"):
        computed_materials(path, seed=0)
    with pytest.raises(InputError, match="no CIFs below"):
        list(conductor_materials(tmp_path, seed=0))


def test_substitution_keeps_the_shape_and_the_relative_length_of_the_shortest_bond():
    origin = Material("rock salt", "sodium", bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    found = list(substituted([origin], 40, seed=0))
    formulas = {m.atoms.get_chemical_formula() for m in found}
    assert "Cl4Li4" in formulas
    assert len(found) == len(formulas) > 2  # none is made twice
    assert formulas <= {f"{x}4Li4" for x in ("F", "Cl", "Br")} | {"I4Li4", "Li4I4"}
    for material in found:
        assert distance_ratio(material.atoms) == pytest.approx(distance_ratio(origin.atoms), rel=1e-6)
        np.testing.assert_allclose(material.atoms.get_scaled_positions(), origin.atoms.get_scaled_positions())


def test_of_a_held_out_crystal_nothing_is_made_that_would_be_trained_on():
    def relatives(formula):
        origin = Material(formula, "lithium", bulk(formula, "rocksalt", a=5.6, cubic=True))
        return [m.atoms for m in substituted([origin], 60, seed=0)]

    assert is_held_out(Atoms("LiI"))
    assert all(is_held_out(atoms) for atoms in relatives("LiI"))
    made = relatives("LiBr")  # which is trained on, with a held-out relative among the others
    assert {is_held_out(atoms) for atoms in made} == {True, False}


def test_foreign_elements_are_replaced_throughout_by_stand_ins():
    atoms = bulk("CuCl", "zincblende", a=5.4, cubic=True)
    found = [next(transmuted([Material("copper", "foreign", atoms)], seed)) for seed in range(20)]
    assert {m.atoms.get_chemical_formula() for m in found} == {"Cl4Li4", "Cl4Na4"}
    for material in found:
        assert material.source == "transmuted"
        assert distance_ratio(material.atoms) == pytest.approx(distance_ratio(atoms), rel=1e-6)


def test_stand_ins_are_known_elements_for_unknown_ones():
    assert not set(STAND_INS) & set(ELEMENTS)
    assert {new for choices in STAND_INS.values() for new in choices} <= set(ELEMENTS)


def test_random_crystals_have_the_elements_asked_for():
    for elements in lithium_subsets(20, seed=3):
        assert elements[0] == "Li"
        assert set(elements) <= set(ELEMENTS)
        assert len(set(elements)) == len(elements)
    for atoms in random_crystals(5, seed=1, elements=("Li", "O")):
        assert set(atoms.get_chemical_symbols()) <= {"Li", "O"}
        assert distance_ratio(atoms) >= 0.5


def test_held_out_materials_are_never_sampled_for_training():
    held_out = next(
        Atoms(formula, positions=[[0, 0, 0], [2.2, 0, 0]], cell=[4.4] * 3, pbc=True)
        for formula in (
            "LiF",
            "LiBr",
            "LiI",
            "NaCl",
            "MgO",
            "CaO",
            "NaF",
            "KF",
            "KCl",
            "KI",
            "SrO",
            "BaS",
            "NaI",
        )
        if is_held_out(Atoms(formula))
    )
    materials = [Material("kept", "lithium", salt()), Material("held out", "lithium", held_out)]
    first = list(first_samples(materials, 0, 0, seed=0))
    assert len(first) > 2
    assert {sample.group for sample in first} == {"kept"}
    assert first[0].atoms == salt()
    explored = list(explored_samples(LennardJones(sigma=2.2, epsilon=0.1, rc=6.0), materials, 0, 0, seed=0))
    assert explored
    assert {sample.group for sample in explored} == {"kept"}
    assert all(isinstance(sample, Sample) for sample in explored)


def test_dynamics_are_at_the_temperature_asked_for():
    rng = np.random.default_rng(0)
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True) * 2
    argon = LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0)
    temperatures = []
    for _ in range(3):
        for frame in list(dynamics(argon, atoms, 8, rng, temperatures=(40.0, 40.0)))[2:]:
            temperatures.append(frame.get_temperature())
    assert np.mean(temperatures) == pytest.approx(40.0, rel=0.12)


def test_relaxation_lowers_the_energy():
    calculator = LennardJones(sigma=2.2, epsilon=0.1, rc=6.0)
    start = salt(seed=0)
    energies = []
    for frame in [start, *relaxation(calculator, start)]:
        copy = frame.copy()
        copy.calc = calculator
        energies.append(copy.get_potential_energy())
    assert len(energies) > 2
    assert energies[-1] < energies[0]


def test_a_course_goes_from_its_first_to_its_last_values():
    course = Course(epochs=10, rates=(1e-2, 1e-4), energy_weights=(10.0, 1000.0))
    assert course.at(0.0) == pytest.approx((1e-2, 10.0))
    assert course.at(1.0) == pytest.approx((1e-4, 1000.0))
    assert course.at(0.5) == pytest.approx((1e-3, 100.0))


def test_energies_of_elements_are_recovered_from_sums():
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(30):
        n, m = rng.integers(1, 9, 2)
        atoms = Atoms(f"Li{n}Cl{m}")
        atoms.calc = SinglePointCalculator(atoms, energy=-1.5 * n - 3.25 * m)
        frames.append(atoms)
    np.testing.assert_allclose(element_energies(frames, [3, 17]), [-1.5, -3.25], atol=0.01)


def test_sources_weigh_in_the_loss():
    from oracles.potentials.mace_model import build

    model = build(SMALL)
    graphs = [labelled_graph(labelled(salt(), source), model) for source in ("lithium", "random lithium")]
    np.testing.assert_allclose(collate(graphs)["weight"], [1.0, 0.3])


def test_training_learns_and_a_stopped_one_goes_on_bit_for_bit(tmp_path):
    frames = [labelled(salt(a=5.1 + 0.02 * k, seed=k)) for k in range(8)]
    course = Course(epochs=12, batch_size=4, energy_weights=(10.0, 10.0))
    lines = []
    whole, architecture = train(frames, SMALL, course, seed=0, report=lines.append)
    losses = [float(line.split()[-1]) for line in lines]
    assert losses[-1] < 0.8 * losses[0]
    assert architecture.average_neighbors > 1

    class StopError(Exception):
        pass

    def stop_early(line):
        if line.startswith("epoch 9"):
            raise StopError  # before this epoch is written

    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(StopError):
        train(frames, SMALL, course, seed=0, checkpoint=checkpoint, report=stop_early)
    resumed, _ = train(frames, SMALL, course, seed=0, checkpoint=checkpoint, report=lines.append)
    assert [line.split(" of")[0] for line in lines[12:]] == [f"epoch {k}" for k in (9, 10, 11, 12)]
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match=r"checkpoint\.pt is of another training"):
        train(frames, SMALL, Course(epochs=13), seed=0, checkpoint=checkpoint)


def test_argyrodites_of_the_flagship_are_neutral():
    assert sum(OXIDATION_STATES[s] for s in argyrodite().get_chemical_symbols()) == 0
