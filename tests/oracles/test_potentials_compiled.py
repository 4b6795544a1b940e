"""A MACE evaluated by compiled loops against the same model as torch evaluates it."""

from functools import cache

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from oracles.potentials.compiled import is_compilable
from oracles.potentials.loading import load_calculator
from oracles.potentials.mace_model import Architecture, MaceCalculator, build
from oracles.potentials.student.structures import argyrodite

PRECISE = {"energy": 1e-6, "forces": 5e-6, "stress": 1e-7}
SINGLE = {"energy": 1e-4, "forces": 1e-4, "stress": 1e-6}
STRUCTURES = {
    "argyrodite": argyrodite(),
    "its primitive cell": argyrodite(primitive=True),
    # Every atom is its own neighbour many times over.
    "two atoms": bulk("LiF", "rocksalt", a=3.6),
    "one atom, no neighbours": Atoms("Li", cell=[20.0] * 3, pbc=True),
    "atoms on top of each other": Atoms("LiS", [[0, 0, 0], [0.4, 0.2, 0.3]], cell=[20.0] * 3, pbc=True),
    "not periodic": molecule("H2O", cell=[9.0] * 3),
    "periodic in a plane": Atoms(
        "LiSPCl", [[0, 0, 0], [2, 0.3, 0], [4, 0, 0.5], [6, 0, 0]], cell=[8, 5, 30], pbc=(1, 1, 0)
    ),
}


@cache
def models(name, dtype):
    """One model twice: as torch evaluates it, and compiled."""
    calculator = load_calculator(name, dtype=dtype)
    return [
        MaceCalculator(calculator.model, dtype=getattr(torch, dtype), compiled=compiled)
        for compiled in (False, True)
    ]


def answers(calculator, atoms):
    atoms = atoms.copy()
    atoms.rattle(0.05, seed=3)
    calculator.calculate(atoms)
    return {name: np.array(calculator.results[name]) for name in ("energy", "forces", "stress")} | {
        "features": calculator._node_features.numpy()
    }


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", ["mace:student", "mace:student-lipscl"])
def test_answers_are_torch_s(name, structure):
    atoms = STRUCTURES[structure]
    by_torch, compiled = models(name, "float64")
    if set(atoms.symbols) - set(compiled.elements):
        pytest.skip("of elements that this student does not know")
    expected, found = answers(by_torch, atoms), answers(compiled, atoms)
    steep = max(1.0, abs(expected["forces"]).max())
    for quantity, tolerance in PRECISE.items():
        np.testing.assert_allclose(found[quantity], expected[quantity], rtol=0, atol=tolerance * steep)
    np.testing.assert_allclose(found["features"], expected["features"], rtol=0, atol=1e-6 * steep)


def test_single_precision_loses_no_more_than_torch_s():
    atoms = argyrodite()
    exact = answers(models("mace:student", "float64")[0], atoms)
    found = answers(models("mace:student", "float32")[1], atoms)
    for quantity, tolerance in SINGLE.items():
        np.testing.assert_allclose(found[quantity], exact[quantity], rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "architecture",
    [{"correlation": 1}, {"correlation": 4}, {"n_layers": 3, "channels": 5}],
    ids=str,
)
def test_models_of_other_shapes(architecture):
    torch.manual_seed(0)
    model = build(
        Architecture((3, 15, 16, 17), **({"channels": 6, "radial_width": 8} | architecture)), torch.float64
    )
    expected, found = (
        answers(MaceCalculator(model, dtype=torch.float64, compiled=compiled), argyrodite(primitive=True))
        for compiled in (False, True)
    )
    for quantity, tolerance in PRECISE.items():
        np.testing.assert_allclose(found[quantity], expected[quantity], rtol=0, atol=tolerance)


def test_forces_and_stress_are_derivatives_of_the_energy():
    compiled = models("mace:student", "float64")[1]
    atoms = argyrodite(primitive=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = compiled
    forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
    h = 1e-4

    def energy(move):
        moved = atoms.copy()
        move(moved)
        moved.calc = compiled
        return moved.get_potential_energy()

    for atom, axis in ((0, 0), (5, 1), (12, 2)):
        ends = []
        for sign in (1, -1):
            step = np.zeros((len(atoms), 3))
            step[atom, axis] = sign * h
            ends.append(energy(lambda a, step=step: a.set_positions(a.positions + step)))
        assert -(ends[0] - ends[1]) / (2 * h) == pytest.approx(forces[atom, axis], abs=1e-5)
    for i, j in ((0, 0), (1, 2)):
        ends = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] = sign * h
            strain = np.eye(3) + 0.5 * (strain + strain.T)
            ends.append(energy(lambda a, s=strain: a.set_cell(a.cell @ s, scale_atoms=True)))
        assert (ends[0] - ends[1]) / (2 * h) / atoms.get_volume() == pytest.approx(stress[i, j], abs=1e-6)


def test_the_same_atoms_have_the_same_bits():
    first, second = (answers(load_calculator("mace:student"), argyrodite()) for _ in range(2))
    for quantity, value in first.items():
        np.testing.assert_array_equal(value, second[quantity])


def test_several_structures_have_the_answers_that_each_has_alone():
    compiled = load_calculator("mace:student")
    structures = [STRUCTURES["two atoms"], STRUCTURES["argyrodite"]]
    for atoms, one in zip(structures, compiled.evaluate(structures), strict=True):
        compiled.calculate(atoms)
        assert one.energy == compiled.results["energy"]
        np.testing.assert_array_equal(one.forces, compiled.results["forces"])


def test_models_that_are_not_ours_are_left_to_torch():
    assert is_compilable(build(Architecture((3,), channels=2)))
    assert not is_compilable(build(Architecture((3,), channels=2, max_ell=3)))
    assert not is_compilable(build(Architecture((3,), channels=2, max_l=1)))
    assert not is_compilable(build(Architecture((3,), channels=2, n_layers=1)))
    assert not is_compilable(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="unknown elements: H, O"):
        load_calculator("mace:student-lipscl").evaluate([STRUCTURES["not periodic"]])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_atoms_that_are_nowhere_are_refused(compiled, number):
    calculator = models("mace:student", "float32")[compiled]
    atoms = argyrodite(primitive=True)
    atoms.positions[3, 1] = number
    with pytest.raises(ValueError, match="not finite"):
        calculator.calculate(atoms)
    atoms = argyrodite(primitive=True)
    atoms.cell[1, 1] = number
    with pytest.raises(ValueError, match="not finite"):
        calculator.calculate(atoms)


def test_atoms_in_one_place_have_no_finite_energy():
    atoms = Atoms("LiS", np.zeros((2, 3)), cell=[9.0] * 3, pbc=True)
    (found,) = models("mace:student", "float32")[1].evaluate([atoms])
    assert not np.isfinite(found.energy)
    assert not np.isfinite(found.forces).all()


def test_atomic_numbers_must_rise():
    model = build(Architecture((16, 3), channels=2))
    with pytest.raises(ValueError, match="must rise"):
        MaceCalculator(model, dtype=torch.float32)
