"""The scripts that measure the student: their crystals, what they record, and the limits that the student must keep."""

import json

import md_conductors
import numpy as np
import pytest
import student_speed
import student_stability
import torch

from activelearning.crystals.realise import distance_ratio
from oracles.potentials import load_calculator
from oracles.potentials.student.chemistry import OXIDATION_STATES


@pytest.fixture(scope="module")
def student():
    torch.set_num_threads(1)
    return load_calculator("mace:student")


def test_the_crystals_are_neutral_and_their_atoms_apart():
    found = student_stability.crystals() | md_conductors.crystals()
    assert len(student_stability.crystals()) == 10
    assert {name for name, _, _ in md_conductors.RUNS} == set(md_conductors.crystals())
    for name, atoms in found.items():
        assert sum(OXIDATION_STATES[symbol] for symbol in atoms.get_chemical_symbols()) == 0, name
        # Lithium of the split sites of Li10GeP2S12 is near its neighbours until it is relaxed.
        assert distance_ratio(atoms) > (0.65 if name == "Li10GeP2S12" else 0.8), name


def test_beta_thiophosphate_has_its_tetrahedra():
    atoms = student_speed.beta_li3ps4()
    assert atoms.get_chemical_formula() == "Li36P12S48"
    sulfur = np.flatnonzero(atoms.symbols == "S")
    for phosphorus in np.flatnonzero(atoms.symbols == "P"):
        near = np.sort(atoms.get_distances(phosphorus, sulfur, mic=True))
        np.testing.assert_allclose(near[:4], 2.05, atol=0.15)
        assert near[4] > 3.0


def test_a_collapse_is_recorded_as_a_failure(student):
    squeezed = student_stability.crystals()["LiF"]
    squeezed.set_cell(squeezed.cell.array * 0.5, scale_atoms=True)
    row = student_stability.hot(squeezed, student, time_ps=0.5)
    assert "unstable" in row["failure"]


def test_a_table_of_diffusion_pairs_runs_of_one_protocol():
    params = {"potential": "mace:student", "temperature": 1000.0, "time_ps": 20.0}
    student = {
        "crystal": "Li3N",
        "params": params,
        "reason": None,
        "is_bound": False,
        "log10_sigma_error": 0.3,
        "diffusion_cm2_per_s": 1e-5,
    }
    teacher = student | {
        "params": params | {"potential": "chgnet"},
        "diffusion_cm2_per_s": 1e-6,
        "log10_sigma_error": 0.4,
    }
    shorter = teacher | {"params": teacher["params"] | {"time_ps": 5.0}}
    insulator = {"crystal": "LiF"}
    rows = [student, student | insulator, teacher | insulator, shorter]
    assert md_conductors.diffusion_table(rows) == []
    lines = md_conductors.diffusion_table([*rows, teacher])
    assert lines[5:] == ["| Li3N | 1000 | +1.00 | 0.50 |  |"]
    lines = md_conductors.diffusion_table([*rows, teacher | {"is_bound": True, "log10_sigma_error": None}])
    assert lines[5:] == ["| Li3N | 1000 |  |  |  |"]
    lines = md_conductors.diffusion_table([*rows, teacher | {"reason": "framework melted"}])
    assert lines[5:] == ["| Li3N | 1000 | +1.00 | 0.50 | chgnet |"]


def test_the_measured_results_are_within_the_limits():
    """What is committed: at least three times faster than the teacher, each crystal stable, hardly any drift."""
    speed = json.loads((student_speed.RESULTS / "student_speed.json").read_text())
    assert next(row for row in speed["calls"] if row["n_atoms"] == 96)["times faster"] >= 3.0
    stability = json.loads((student_stability.RESULTS / "student_stability.json").read_text())
    assert stability["time_ps"] >= 5.0
    assert {row["crystal"] for row in stability["crystals"]} <= set(student_stability.crystals())
    for row in stability["crystals"]:
        assert row["failure"] is None
        assert abs(row["drift, meV/atom/ps"]) < 1.0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["Li2O", "γ-LiAlO2", "Li3InCl6", "γ-Li3PS4"])
def test_dynamics_at_1000_k_do_not_blow_up(student, name):
    row = student_stability.hot(student_stability.crystals()[name], student, time_ps=3.0)
    assert row["failure"] is None
    assert row["temperature, K"] == pytest.approx(1000.0, rel=0.1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["LiF", "Li3InCl6", "Li6PS5Cl"])
def test_the_total_energy_drifts_by_less_than_1_mev_per_atom_and_ps(student, name):
    assert abs(student_stability.drift(student_stability.crystals()[name], student, time_ps=3.0)) < 1.0
