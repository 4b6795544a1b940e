"""Potentials by name: loading, checksums, physics of the shipped student against its teacher."""

import hashlib

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.optimize import FIRE
from ase.stress import voigt_6_to_full_3x3_stress
from scipy.stats import spearmanr

from activelearning.errors import ConfigError
from oracles.potentials import (
    check_potential,
    checksum,
    expected_force_errors,
    load_calculator,
    torch_threads,
    unsupported_elements,
)
from oracles.potentials.loading import STUDENT, model_file
from oracles.potentials.mace_model import (
    Architecture,
    MaceCalculator,
    build,
    load,
    load_with_architecture,
    save,
)
from oracles.potentials.student.chemistry import ELEMENTS
from oracles.potentials.student.structures import argyrodite, prototypes, random_crystals

SMALL = Architecture((3, 15, 16, 17), channels=4, max_l=1, radial_width=8, r_max=4.0)


@pytest.fixture(scope="module")
def student():
    return load_calculator("mace:student")


@pytest.fixture(scope="module")
def chgnet():
    return load_calculator("chgnet")


def rattled(atoms, amplitude=0.1, seed=0):
    copy = atoms.copy()
    copy.rattle(amplitude, seed=seed)
    return copy


def test_unknown_names_are_refused_with_what_would_be_right():
    with pytest.raises(ConfigError, match="'lennard-jones' is unknown; use mace:student"):
        load_calculator("lennard-jones")
    with pytest.raises(ConfigError, match="'mace:' is unknown"):
        check_potential("mace:")
    with pytest.raises(
        ConfigError, match=r"neither a file that exists \(.*missing\.model\) nor one of .*medium-mpa-0"
    ):
        check_potential("mace:missing.model")


def test_a_file_that_is_no_model_is_refused(tmp_path):
    text = tmp_path / "text.model"
    text.write_text("not a model")
    with pytest.raises(ConfigError, match=r"can't be loaded from .*text\.model"):
        load_calculator({"name": f"mace:{text}", "trust_code": True})
    other = tmp_path / "other.model"
    torch.save({"a": 1}, other)
    with pytest.raises(ConfigError, match="holds a dict, not a MACE model"):
        check_potential({"name": f"mace:{other}", "trust_code": True})


def test_a_foundation_model_that_cannot_be_downloaded_says_what_to_do(monkeypatch, tmp_path):
    import mace.calculators.foundations_models as foundations

    def offline(*arguments, **named):
        raise OSError("network is unreachable")

    monkeypatch.setattr(foundations, "download_mace_mp_checkpoint", offline)
    with pytest.raises(ConfigError, match=r"network is unreachable.*potential: mace:<path of the file>"):
        check_potential("mace:small")


def test_a_whole_model_of_the_users_is_loaded_and_agrees_with_its_state_dict(tmp_path):
    torch.manual_seed(0)
    model = build(SMALL, torch.float64)
    whole, ours = tmp_path / "whole.model", tmp_path / "ours.pt"
    torch.save(model, whole)
    save(ours, model, SMALL)
    a = load_calculator({"name": f"mace:{whole}", "trust_code": True}, dtype="float64")
    b = MaceCalculator(load(ours, torch.float64), dtype=torch.float64)
    atoms = rattled(bulk("LiCl", "rocksalt", a=5.1, cubic=True))
    np.testing.assert_allclose(a.get_forces(atoms), b.get_forces(atoms), atol=1e-5)
    assert checksum(f"mace:{whole}") == hashlib.sha256(whole.read_bytes()).hexdigest()
    assert load_with_architecture(ours, torch.float32)[1] == SMALL


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_a_model_file_is_run_only_where_the_config_says_so(tmp_path):
    trace, model = tmp_path / "trace", tmp_path / "bomb.model"
    torch.save(Bomb(trace), model)
    for use in (load_calculator, check_potential):
        with pytest.raises(ConfigError, match=r"runs code when it is loaded.*trust_code: true"):
            use(f"mace:{model}")
    assert not trace.exists()
    with pytest.raises(ConfigError, match="not a MACE model"):
        load_calculator({"name": f"mace:{model}", "trust_code": True})
    assert trace.exists()


def test_a_model_in_our_format_needs_no_trust(tmp_path):
    path = tmp_path / "ours.pt"
    torch.manual_seed(0)
    save(path, build(SMALL), SMALL)
    check_potential(f"mace:{path}")
    assert load_calculator(f"mace:{path}").elements == {"Li", "P", "S", "Cl"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content["architecture"].update(gate="tanh"), "unexpected keyword argument 'gate'"),
        (lambda content: content.update(format="activelearning-mace-2"), "format is activelearning-mace-2"),
        (lambda content: content.pop("state"), "KeyError: 'state'"),
        (lambda content: content["architecture"].update(channels=8), "tensors do not fit its architecture"),
        (lambda content: content.update(state={}), "tensors do not fit its architecture"),
        (lambda content: content.update(reliability={"floor": 0.1}), "unexpected keyword argument 'floor'"),
    ],
)
def test_a_damaged_or_newer_model_file_says_so(tmp_path, change, told):
    path = tmp_path / "ours.pt"
    save(path, build(SMALL), SMALL)
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    with pytest.raises(
        ConfigError, match=r"ours\.pt .*written by another version .* or is damaged"
    ) as caught:
        check_potential(f"mace:{path}")
    assert told in str(caught.value)
    assert "trust_code" not in str(caught.value)


def test_a_model_file_is_read_once(tmp_path, monkeypatch):
    path = tmp_path / "ours.pt"
    torch.manual_seed(0)
    save(path, build(SMALL), SMALL)
    reads, read = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: (reads.append(a), read(*a, **k))[1])
    load_calculator(f"mace:{path}")
    assert len(reads) == 1


def test_a_calculator_by_its_dotted_path():
    parameters = {"sigma": 2.5, "epsilon": 0.3, "rc": 6.0}
    spec = {"name": "ase.calculators.lj:LennardJones", "parameters": parameters}
    check_potential(spec)
    atoms = rattled(bulk("Ar", "fcc", a=5.3, cubic=True))
    ours = load_calculator(spec)
    assert ours.get_potential_energy(atoms) == LennardJones(**parameters).get_potential_energy(atoms)
    assert unsupported_elements(ours, ["Li", "U"]) == []


def test_checksums_of_dotted_paths_follow_parameters_files_and_code(tmp_path, monkeypatch):
    def of(**parameters):
        return checksum({"name": "ase.calculators.lj:LennardJones", "parameters": parameters})

    assert of(sigma=2.5) == of(sigma=2.5)
    assert len({of(), of(sigma=2.5), of(sigma=2.6), checksum("ase.calculators.emt:EMT")}) == 4
    table = tmp_path / "table"
    table.write_text("one")
    first = of(file=str(table))
    table.write_text("two")
    assert of(file=str(table)) != first

    assert of(sizes=[1, 2]) == of(sizes=(1, 2)) != of(sizes=[2, 1])
    folder = tmp_path / "tables" / "inner"
    folder.mkdir(parents=True)
    (folder / "a").write_text("one")
    for parameters in (
        {"files": [str(folder / "a")]},
        {"files": {"Li": [str(folder / "a")]}},
        {"at": str(folder.parent)},
    ):
        (folder / "a").write_text("one")
        first = of(**parameters)
        (folder / "a").write_text("two")
        assert of(**parameters) != first
    first, empty = of(at=str(folder.parent)), of(directory=str(folder.parent))
    (folder / "a").rename(folder / "b")
    assert of(at=str(folder.parent)) != first
    assert of(directory=str(folder.parent)) == empty  # where a calculator works is none of what it is

    module = tmp_path / "own_calculator_for_a_test.py"
    text = "from ase.calculators.lj import LennardJones\nclass Own(LennardJones):\n    pass\n"
    module.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    before = checksum("own_calculator_for_a_test:Own")
    module.write_text(text + "# changed\n")
    assert checksum("own_calculator_for_a_test:Own") != before


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ase.calculators.nothing:LennardJones", "can't be imported .*must be installed or on PYTHONPATH"),
        ("ase.calculators.lj:Nothing", "names nothing, not a class of ASE calculators"),
        ("ase.build:bulk", "names a function, not a class of ASE calculators"),
        ("ase.calculators.test:FreeElectrons", "does not compute forces"),
        ("ase.calculators.singlepoint:SinglePointCalculator", "can't be made with the parameters .*'atoms'"),
        ({"name": "chgnet", "parameters": {"a": 1}}, "'chgnet' takes no parameters"),
        ({"name": "chgnet", "trust": True}, "unknown key 'trust'. Did you mean 'trust_code'"),
        ({"name": "chgnet", "trust_code": "yes"}, "must be true or false, not 'yes'"),
        ({"trust_code": True}, "lacks a name"),
        ({"name": "ase.calculators.emt:EMT", "parameters": [1]}, "must be a mapping of keywords"),
    ],
)
def test_wrong_potentials_are_refused_with_what_would_be_right(spec, message):
    with pytest.raises(ConfigError, match=message):
        check_potential(spec)


def test_threads_are_as_many_as_wanted_and_put_back():
    before = torch.get_num_threads()
    with torch_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_a_file_of_another_format_is_not_taken_for_ours(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"format": "something else"}, path)
    with pytest.raises(ValueError, match="not of the format"):
        load(path, torch.float32)


def test_checksums_tell_potentials_apart():
    assert checksum("mace:student") == hashlib.sha256(STUDENT.read_bytes()).hexdigest()
    assert checksum("chgnet") != checksum("mace:student")
    assert len(checksum("chgnet")) == 64


def test_loading_changes_nothing_for_the_rest_of_the_process(capfd):
    before = torch.get_default_dtype()
    load_calculator("mace:student", dtype="float64")
    load_calculator("chgnet")
    assert torch.get_default_dtype() == before
    assert capfd.readouterr().out == ""


def test_the_narrow_student_is_shipped_beside_the_broad_one(student):
    narrow = load_calculator("mace:student-lipscl")
    assert narrow.elements == {"Li", "P", "S", "Cl"}
    path = model_file("mace:student-lipscl")
    assert path != STUDENT
    assert path.stat().st_size < 300_000
    assert path.with_suffix(".md").read_text().startswith("# ")
    assert checksum("mace:student-lipscl") != checksum("mace:student")
    atoms = rattled(argyrodite(primitive=True), amplitude=0.15)
    ours, others = student.get_forces(atoms), narrow.get_forces(atoms)
    assert np.corrcoef(ours.ravel(), others.ravel())[0, 1] > 0.9  # both follow one teacher


def test_the_shipped_student_is_small_plain_and_has_a_card():
    assert model_file("mace:student") == STUDENT
    assert STUDENT.stat().st_size < 10_000_000
    content = torch.load(STUDENT, weights_only=True)
    assert set(content) == {"format", "architecture", "state", "reliability"}
    assert STUDENT.with_suffix(".md").read_text().startswith("# ")


def test_elements_are_known(student, chgnet):
    assert student.elements == set(ELEMENTS)
    assert unsupported_elements(student, ["Li", "O", "Fe", "Cs"]) == ["Cs", "Fe"]
    assert unsupported_elements(chgnet, ["Li", "O", "F", "U"]) == []
    assert unsupported_elements(chgnet, ["Rn", "Li"]) == ["Rn"]
    with pytest.raises(ValueError, match="unknown elements: Fe"):
        student.get_potential_energy(bulk("FeO", "rocksalt", a=4.3))


def test_forces_and_stress_are_derivatives_of_the_energy():
    precise = load_calculator("mace:student", dtype="float64")
    atoms = rattled(bulk("LiCl", "rocksalt", a=5.1, cubic=True))
    forces = precise.get_forces(atoms)
    for atom, axis in [(0, 0), (3, 1), (6, 2)]:
        energies = []
        for shift in (1e-4, -1e-4):
            moved = atoms.copy()
            moved.positions[atom, axis] += shift
            energies.append(precise.get_potential_energy(moved))
        assert forces[atom, axis] == pytest.approx((energies[1] - energies[0]) / 2e-4, abs=1e-5)
    stress = precise.get_stress(atoms)
    energies = []
    for strain in (1e-5, -1e-5):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ np.diag([1 + strain, 1, 1]), scale_atoms=True)
        energies.append(precise.get_potential_energy(strained))
    assert stress[0] == pytest.approx((energies[0] - energies[1]) / 2e-5 / atoms.get_volume(), rel=1e-4)


def test_the_calculator_agrees_with_mace_torchs_own(student):
    from mace.calculators import MACECalculator

    before = torch.get_default_dtype()
    try:
        theirs = MACECalculator(models=[load(STUDENT, torch.float64)], device="cpu", default_dtype="float64")
        atoms = rattled(argyrodite(primitive=True))
        ours = load_calculator("mace:student", dtype="float64")
        assert ours.get_potential_energy(atoms) == pytest.approx(theirs.get_potential_energy(atoms), abs=1e-6)
        np.testing.assert_allclose(
            ours.get_forces(atoms), theirs.get_forces(atoms), atol=1e-5
        )  # ours has tables
        np.testing.assert_allclose(ours.get_stress(atoms), theirs.get_stress(atoms), atol=1e-7)
    finally:
        torch.set_default_dtype(before)


def test_energy_is_extensive_and_blind_to_wrapping_order_and_rotation(student):
    atoms = rattled(prototypes()["γ-Li3PS4"])
    energy = student.get_potential_energy(atoms)
    assert student.get_potential_energy(atoms.repeat((2, 1, 1))) == pytest.approx(2 * energy, abs=1e-3)
    shifted = atoms.copy()
    shifted.positions += [3.3, -7.0, 100.0]
    assert student.get_potential_energy(shifted) == pytest.approx(energy, abs=1e-3)
    assert student.get_potential_energy(atoms[::-1]) == pytest.approx(energy, abs=1e-3)
    turned = atoms.copy()
    turned.rotate(37.0, (1, 2, 3), rotate_cell=True)
    assert student.get_potential_energy(turned) == pytest.approx(energy, abs=1e-3)


def test_repeated_calls_are_equal_bit_for_bit(student):
    atoms = rattled(argyrodite(primitive=True))
    first = student.get_forces(atoms).copy()
    student.get_forces(bulk("LiCl", "rocksalt", a=5.1, cubic=True))
    for _ in range(5):
        student.reset()
        assert np.array_equal(student.get_forces(atoms), first)


@pytest.mark.parametrize(
    "pair", ["LiLi", "LiS", "PS", "SS", "LiCl", "ClCl", "PP", "LiO", "OO", "LaO", "HN", "InI"]
)
def test_close_atoms_repel(student, pair):
    """At short range the repulsion of the nuclei wins and grows without end: nothing collapses."""
    energies = []
    for distance in (0.8, 0.6, 0.4, 0.2):
        atoms = Atoms(pair, positions=[[0, 0, 0], [distance, 0, 0]], cell=[12, 12, 12], pbc=True)
        energies.append(student.get_potential_energy(atoms))
    assert np.all(np.diff(energies) > 0)


def lattice_constant(calculator, formula, structure, start):
    atoms = bulk(formula, structure, a=start, cubic=True)
    volumes, energies = [], []
    for scale in np.linspace(0.96, 1.05, 10):
        scaled = atoms.copy()
        scaled.set_cell(atoms.cell * scale, scale_atoms=True)
        volumes.append(scaled.get_volume())
        energies.append(float(calculator.get_potential_energy(scaled)))
    from ase.eos import EquationOfState

    volume, _, bulk_modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    return volume ** (1 / 3), bulk_modulus


@pytest.mark.parametrize(
    ("formula", "structure", "measured"),
    [
        ("LiF", "rocksalt", 4.03),
        ("LiCl", "rocksalt", 5.13),
        ("LiBr", "rocksalt", 5.50),
        ("LiI", "rocksalt", 6.00),
        ("Li2O", "fluorite", 4.62),
        ("Li2S", "fluorite", 5.71),
        ("MgO", "rocksalt", 4.21),
        ("NaCl", "rocksalt", 5.64),
        ("CaF2", "fluorite", 5.46),
        ("ZnS", "zincblende", 5.41),
    ],
)
def test_binary_crystals_have_the_teachers_lattice_constant(student, chgnet, formula, structure, measured):
    if structure == "fluorite" and formula.startswith("Li2"):
        formula = formula.removeprefix("Li2") + "Li2"  # ASE puts the first element on the cube's corners
    a_student, b_student = lattice_constant(student, formula, structure, measured)
    a_teacher, b_teacher = lattice_constant(chgnet, formula, structure, measured)
    assert a_teacher == pytest.approx(measured, rel=0.03)  # PBE, and CHGNet's own error
    assert a_student == pytest.approx(a_teacher, rel=0.06 if formula == "LiF" else 0.03)
    assert 0.5 * b_teacher < b_student < 2.0 * b_teacher  # the card says so


def test_the_teacher_says_what_chgnet_s_own_calculator_does(chgnet):
    from chgnet.model.dynamics import CHGNetCalculator

    theirs = CHGNetCalculator(model=chgnet.model, use_device="cpu", on_isolated_atoms="ignore")
    sheared = bulk("LiF", "rocksalt", a=4.1)
    sheared.set_cell(sheared.cell.array @ [[1.02, 0.03, 0], [0, 0.98, 0.05], [0.01, 0, 1]], scale_atoms=True)
    for atoms in (argyrodite(primitive=True), sheared, Atoms("Li", cell=[20.0] * 3, pbc=True)):
        atoms = rattled(atoms)
        assert chgnet.get_potential_energy(atoms) == pytest.approx(
            theirs.get_potential_energy(atoms), abs=1e-5
        )
        np.testing.assert_allclose(chgnet.get_forces(atoms), theirs.get_forces(atoms), atol=1e-5)
        stress = voigt_6_to_full_3x3_stress(chgnet.get_stress(atoms))
        np.testing.assert_allclose(stress, theirs.get_stress(atoms), atol=1e-6)
    np.testing.assert_allclose(
        chgnet.get_property("magmoms", sheared), theirs.get_property("magmoms", sheared), atol=1e-5
    )


def test_the_student_follows_its_teacher_on_rattled_crystals(student, chgnet):
    """Seeds and structures other than those of training."""
    errors, sizes = [], []
    for name in ("Li2S antifluorite", "LiCl rocksalt", "γ-Li3PS4", "Li6PS5Cl"):
        atoms = rattled(prototypes()[name], amplitude=0.12, seed=99)
        reference = np.asarray(chgnet.get_forces(atoms))
        errors.append(np.abs(student.get_forces(atoms) - reference).ravel())
        sizes.append(reference.ravel())
    assert np.concatenate(errors).mean() < 0.15  # eV/Å
    assert np.concatenate(errors).mean() < 0.2 * np.concatenate(sizes).std()


def test_the_estimate_of_errors_knows_a_crystal_from_debris(student):
    crystal = rattled(prototypes()["γ-Li3PS4"], amplitude=0.05)
    broken = rattled(prototypes()["γ-Li3PS4"], amplitude=0.6)
    near, far = expected_force_errors(student, crystal), expected_force_errors(student, broken)
    assert near.mean < near.threshold < far.mean
    assert not near.is_high
    assert far.is_high
    assert near.mean <= near.largest


def test_the_estimate_of_errors_ranks_the_true_ones(student, chgnet):
    """Random crystals of seeds that were not trained on, from good to hopeless."""
    expected, true = [], []
    for elements in (("Li", "P", "S"), ("Li", "Cl", "O"), ("Li", "Al", "F")):
        for atoms in random_crystals(4, seed=777, elements=elements):
            reference = np.asarray(chgnet.get_forces(atoms))
            true.append(np.abs(student.get_forces(atoms) - reference).mean())
            expected.append(expected_force_errors(student, atoms).mean)
    for name in ("γ-Li3PS4", "LiCl rocksalt", "Li6PS5Cl", "Li2S antifluorite"):
        atoms = rattled(prototypes()[name], amplitude=0.08, seed=5)
        true.append(np.abs(student.get_forces(atoms) - np.asarray(chgnet.get_forces(atoms))).mean())
        expected.append(expected_force_errors(student, atoms).mean)
    assert spearmanr(expected, true).statistic > 0.5
    assert 0.2 < np.mean(expected) / np.mean(true) < 5.0


def test_the_estimate_of_errors_costs_no_second_evaluation(monkeypatch):
    calculator = load_calculator("mace:student")
    atoms = rattled(bulk("LiCl", "rocksalt", a=5.1, cubic=True))
    calls = []
    calculate = calculator.calculate
    monkeypatch.setattr(calculator, "calculate", lambda *a, **k: (calls.append(1), calculate(*a, **k)))
    atoms.calc = calculator
    atoms.get_forces()
    first = expected_force_errors(calculator, atoms)
    assert len(calls) == 1
    # Asked about other atoms in between, it does not mistake their features for these.
    other = expected_force_errors(calculator, rattled(atoms, seed=8))
    assert other.mean != first.mean
    assert expected_force_errors(calculator, atoms) == first


def test_potentials_without_an_estimate_of_errors_say_so(chgnet):
    model = build(SMALL)
    plain = MaceCalculator(model, dtype=torch.float32)
    atoms = bulk("LiCl", "rocksalt", a=5.1, cubic=True)
    assert expected_force_errors(plain, atoms) is None
    assert expected_force_errors(chgnet, atoms) is None
    with pytest.raises(ValueError, match="without an estimate of its errors"):
        plain.estimated_force_errors(atoms)


def test_random_crystals_relax_without_collapse(student):
    from activelearning.crystals.realise import distance_ratio

    for atoms in random_crystals(4, seed=12345):
        atoms.calc = student
        FIRE(atoms, logfile=None).run(fmax=0.1, steps=30)
        assert np.isfinite(atoms.positions).all()
        assert distance_ratio(atoms) > 0.5


def test_known_crystals_have_their_stoichiometry():
    formulas = {name: atoms.get_chemical_formula("reduce") for name, atoms in prototypes().items()}
    counts = {
        name: dict(zip(*np.unique(a.get_chemical_symbols(), return_counts=True), strict=True))
        for name, a in prototypes().items()
    }
    assert counts["Li6PS5Cl"] == {"Li": 6, "P": 1, "S": 5, "Cl": 1}
    assert counts["γ-Li3PS4"] == {"Li": 6, "P": 2, "S": 8}
    assert counts["Li2S antifluorite"] == {"Li": 8, "S": 4}
    assert len(formulas) == 14
    # Phosphorus sits in a tetrahedron of sulfur at 2.05 Å.
    for name in ("Li6PS5Cl", "γ-Li3PS4"):
        atoms = prototypes()[name].repeat(2)
        phosphorus = int(np.flatnonzero(atoms.symbols == "P")[0])
        near = atoms.get_distances(phosphorus, np.flatnonzero(atoms.symbols == "S"), mic=True)
        np.testing.assert_allclose(np.sort(near)[:4], 2.05, atol=0.06)
