"""The student's making from end to end, by the command that made the shipped one: small, but nothing left out."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from ase.build import bulk
from pymatgen.core import Lattice, Structure

from oracles.potentials import expected_force_errors, load_calculator
from oracles.potentials.student import __main__ as making
from oracles.potentials.student import materials, sampling
from oracles.potentials.student.chemistry import is_held_out
from oracles.potentials.student.structures import prototypes
from oracles.potentials.student.train import Course

pytestmark = pytest.mark.slow


@pytest.fixture
def small(monkeypatch):
    """Few crystals, frames and passes."""
    for numbers in (sampling.N_DISTORTED, sampling.N_EXPLORED):
        for source in numbers:
            monkeypatch.setitem(numbers, source, 2)
    monkeypatch.setattr(making, "ARCHITECTURE", replace(making.ARCHITECTURE, channels=8, radial_width=16))
    course = Course(epochs=4, rates=(1e-2, 1e-3), energy_weights=(1.0, 1.0))
    monkeypatch.setattr(making, "ROUNDS", (making.Round(2, 2, course), making.Round(1, 1, course)))
    monkeypatch.setattr(making, "N_TEST_MATERIALS", 4)
    monkeypatch.setattr(making, "N_TEST_RANDOM", 4)
    few = dict(list(prototypes().items())[2:5])
    for module in (materials, sampling):
        monkeypatch.setattr(module, "prototypes", lambda: few)


@pytest.fixture
def data(tmp_path):
    """A table of rock salts, some of them held out, and a folder with one disordered conductor."""
    import pandas as pd

    rows = []
    formulas = [
        "LiF",
        "LiBr",
        "LiI",
        "NaCl",
        "NaF",
        "KCl",
        "KF",
        "MgO",
        "CaO",
        "SrO",
        "BaS",
        "MnO",
        "FeO",
        "NiO",
    ]
    assert any(is_held_out(bulk(formula, "rocksalt", a=5.0)) for formula in formulas)
    for k, formula in enumerate(formulas):
        atoms = bulk(formula, "rocksalt", a=5.0 if "O" not in formula else 4.5, cubic=True)
        structure = Structure(atoms.cell.array, atoms.get_chemical_symbols(), atoms.get_scaled_positions())
        rows.append(
            {
                "material_id": f"mp-{k}",
                "composition": json.dumps(structure.composition.get_el_amt_dict()),
                "e_above_hull": 0.0,
                "n_sites_conventional": 8,
                "cif": structure.to(fmt="cif"),
            }
        )
    pd.DataFrame(rows).to_csv(tmp_path / "materials.csv", index=False)
    conductors = tmp_path / "conductors"
    conductors.mkdir()
    Structure(
        Lattice.cubic(3.87),
        [{"La": 0.5, "Li": 0.5}, "Ti", "O", "O", "O"],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    ).to(filename=str(conductors / "perovskite.cif"))
    return tmp_path


@pytest.mark.usefixtures("small")
def test_one_command_makes_a_student_that_can_be_used(data, monkeypatch, capsys):
    out = data / "student"
    words = ["all", "--out", out, "--materials", data / "materials.csv", "--conductors", data / "conductors"]
    monkeypatch.setattr(sys, "argv", ["student", *map(str, words)])
    threads = torch.get_num_threads()
    try:
        making.main()
    finally:
        torch.set_num_threads(threads)
    table = capsys.readouterr().out
    assert "| held-out materials, 600 K |" in table
    assert "| known conductors, 600 K |" in table
    errors = json.loads((out / "errors.json").read_text())
    known = errors["known conductors, 600 K"]
    # Six passes are no training, but forces are better than none at all.
    assert 0 < known["force_mae_meV_per_A"] < known["force_rms_of_labels_meV_per_A"]
    student = load_calculator(f"mace:{out / 'student.pt'}")
    salt = bulk("LiCl", "rocksalt", a=5.1, cubic=True)
    salt.rattle(0.05, seed=0)
    salt.calc = student
    assert abs(salt.get_potential_energy() / 8) < 20.0
    estimate = expected_force_errors(student, salt)
    assert estimate is not None
    assert estimate.mean > 0
