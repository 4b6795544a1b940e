"""Labels of generated crystals: placement of atoms, relaxation, reference energies, hull, and the table of them all."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ase.data import atomic_numbers
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from activelearning.crystals.realise import distance_ratio as distance_ratio_of_atoms
from activelearning.crystals.symmetry import space_groups
from activelearning.errors import InputError
from oracles.ml_proxy.hull import Hull
from oracles.ml_proxy.label import (
    BELOW,
    CAP,
    LONG,
    RELAXED_RATIO,
    Crystal,
    label,
    main,
    read_crystals,
    read_lines,
)
from oracles.ml_proxy.materials import CRYSTAL_COLUMNS, read_materials
from oracles.ml_proxy.placement import TARGET, anion_radii, distance_ratio, place, push_apart, wyckoff_sites
from oracles.ml_proxy.references import References, elements, fit_references
from oracles.ml_proxy.relaxation import Cell, CHGNetPotential, primitive, relax

# Space group, composition and lattice, one of every centring, each with free coordinates.
CRYSTALS = [
    (14, {"Li": 4, "O": 8}, (5.6, 5.1, 6.4, 90.0, 104.0, 90.0)),
    (38, {"Na": 4, "Cl": 4}, (4.6, 6.9, 7.1, 90.0, 90.0, 90.0)),
    (15, {"Li": 8, "S": 4}, (8.2, 6.1, 7.0, 90.0, 110.0, 90.0)),
    (69, {"K": 8, "F": 8}, (8.9, 7.4, 7.0, 90.0, 90.0, 90.0)),
    (139, {"Mg": 4, "O": 4}, (4.4, 4.4, 8.4, 90.0, 90.0, 90.0)),
    (166, {"Al": 6, "F": 18}, (5.2, 5.2, 13.0, 90.0, 90.0, 120.0)),
    (198, {"Fe": 4, "Si": 4}, (4.6, 4.6, 4.6, 90.0, 90.0, 90.0)),
]
LATTICE_POINTS = {"P": 1, "A": 2, "C": 2, "F": 4, "I": 2, "R": 3}


def structure_of(cell: Cell) -> Structure:
    return Structure(Lattice(cell.matrix), cell.numbers.tolist(), cell.fractional)


@pytest.mark.parametrize(("group", "composition", "lattice"), CRYSTALS)
def test_placed_atoms_have_the_composition_the_cell_and_the_symmetry(group, composition, lattice):
    found = place(composition, group, lattice, n_draws=4, seed=[3])
    assert len(found) == 4
    assert [p.overlap for p in found] == sorted(p.overlap for p in found)
    asked = space_groups()[group - 1]
    for placement in found:
        structure = structure_of(placement.cell)
        n_points = Lattice.from_parameters(*lattice).volume / structure.volume
        assert n_points == pytest.approx(LATTICE_POINTS[asked.centering])
        amounts = structure.composition.get_el_amt_dict()
        assert {str(s): n * n_points for s, n in amounts.items()} == pytest.approx(composition)
        # A drawn crystal may have more symmetry than was asked for, never less.
        order = len(SpacegroupAnalyzer(structure, symprec=1e-3).get_point_group_operations())
        assert order % asked.point_group_order == 0


def test_placements_depend_on_their_seed_alone():
    group, composition, lattice = CRYSTALS[0]
    few, more = (place(composition, group, lattice, n_draws=n, seed=[1, 2]) for n in (2, 5))
    drawn = {p.cell.fractional.tobytes() for p in more}
    assert all(p.cell.fractional.tobytes() in drawn for p in few)
    other = place(composition, group, lattice, n_draws=2, seed=[1, 3])
    assert not drawn & {p.cell.fractional.tobytes() for p in other}


def test_a_composition_without_wyckoff_positions_has_no_placement():
    assert place({"Na": 1, "Cl": 4}, 225, (5.0, 5.0, 5.0, 90.0, 90.0, 90.0), n_draws=3, seed=[0]) == []


def test_sites_are_those_of_the_international_tables():
    sites = wyckoff_sites(225)
    assert sorted({s.multiplicity for s in sites}) == [4, 8, 24, 32, 48, 96, 192]
    assert [s.multiplicity for s in sites if s.is_fixed] == [24, 8, 4, 4]
    assert all(len(s.operations) == s.multiplicity for s in sites)


def test_pushing_separates_atoms_and_measures_what_is_left():
    rng = np.random.default_rng(0)
    for _ in range(10):
        cell = Cell(
            rng.choice([3, 8, 16], 6), np.eye(3) * 6.5 + rng.normal(0, 0.5, (3, 3)), rng.random((6, 3))
        )
        pushed = push_apart(cell)
        assert pushed.distance_ratio > min(distance_ratio(cell), TARGET - 1e-9)
        atoms = structure_of(pushed.cell).to_ase_atoms()
        assert pushed.distance_ratio == pytest.approx(min(TARGET, distance_ratio_of_atoms(atoms)), abs=1e-6)
    tight = push_apart(Cell(np.array([55]), np.eye(3) * 2.0, np.zeros((1, 3))))
    assert tight.overlap > 0.1
    assert tight.distance_ratio < 0.5


@pytest.mark.parametrize("centering", "ACFIR")
def test_the_primitive_cell_is_the_crystal(centering):
    translations = {
        "A": [[0, 0, 0], [0, 0.5, 0.5]],
        "C": [[0, 0, 0], [0.5, 0.5, 0]],
        "F": [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
        "I": [[0, 0, 0], [0.5, 0.5, 0.5]],
        "R": [[0, 0, 0], [2 / 3, 1 / 3, 1 / 3], [1 / 3, 2 / 3, 2 / 3]],
    }[centering]
    gamma = 120.0 if centering == "R" else 90.0
    b = 4.0 if centering == "R" else 5.0
    matrix = Lattice.from_parameters(4.0, b, 7.0, 90.0, 90.0, gamma).matrix
    points = np.array([[0.1, 0.2, 0.3], [0.45, 0.05, 0.72]])
    fractional = np.concatenate([points + t for t in translations]) % 1.0
    whole = Cell(np.tile([3, 9], len(translations)), matrix, fractional)
    small = primitive(whole, centering)
    assert len(small) == 2
    assert structure_of(whole).matches(structure_of(small), primitive_cell=True, scale=False)
    with pytest.raises(ValueError, match="leave"):
        primitive(Cell(whole.numbers, matrix, np.random.default_rng(0).random(fractional.shape)), centering)


class Springs:
    """Each atom is held to the middle of its cell by a spring: E = k |r|² / 2 an atom."""

    name = "springs"

    def __init__(self, k: float = 2.0) -> None:
        self.k = k
        self.asked = 0

    def evaluate(self, cells: Sequence[Cell], forces: bool = True) -> tuple[np.ndarray, list[np.ndarray]]:
        self.asked += len(cells)
        places = [(cell.fractional - 0.5) @ cell.matrix for cell in cells]
        energies = np.array([0.5 * self.k * (r**2).sum() / len(r) for r in places])
        return energies, [-self.k * r for r in places]


def test_relaxation_finds_the_minimum_and_stops_there():
    rng = np.random.default_rng(1)
    cells = [Cell(np.array([3, 8]), np.eye(3) * 5.0, 0.5 + rng.uniform(-0.2, 0.2, (2, 3))) for _ in range(5)]
    springs = Springs()
    found = relax(cells, springs, n_steps=200, tolerance=0.01)
    assert all(r.energy < 1e-4 and r.max_force < 0.01 for r in found)
    assert all(r.energy < r.initial_energy for r in found)
    assert springs.asked < 5 * 150
    once = relax(cells, Springs(), n_steps=0)
    assert [r.energy for r in once] == [r.initial_energy for r in found]


def test_relaxation_keeps_the_lowest_energy_met():
    class Cliff(Springs):
        def evaluate(self, cells, forces=True):
            energies, pulls = super().evaluate(cells)
            return energies + 100.0 * (self.asked > 1), pulls

    cell = Cell(np.array([3]), np.eye(3) * 5.0, np.array([[0.7, 0.5, 0.5]]))
    (found,) = relax([cell], Cliff(), n_steps=5)
    assert found.energy == found.initial_energy
    assert (found.cell.fractional == cell.fractional).all()


def test_chgnet_forces_are_the_slope_of_its_energy():
    potential = CHGNetPotential()
    rng = np.random.default_rng(0)
    cell = Cell(
        np.array([3, 3, 8]), np.array([[3.4, 0, 0], [0.6, 3.3, 0], [0.2, -0.4, 3.5]]), rng.random((3, 3))
    )
    cell = push_apart(cell).cell
    (_,), (force,) = potential.evaluate([cell])
    for atom, axis in ((0, 0), (2, 1)):
        step = np.zeros((3, 3))
        step[atom, axis] = 0.01
        there, back = (
            Cell(cell.numbers, cell.matrix, cell.fractional + sign * step @ np.linalg.inv(cell.matrix))
            for sign in (1, -1)
        )
        energies, _ = potential.evaluate([there, back], forces=False)
        assert force[atom, axis] == pytest.approx(-3 * (energies[0] - energies[1]) / 0.02, abs=0.05)


def test_references_are_found_again():
    rng = np.random.default_rng(0)
    true = {"Li": -1.9, "O": -4.9, "Fe": -8.4}
    compositions = [dict(zip(true, map(float, row), strict=True)) for row in rng.integers(1, 9, (80, 3))]
    formation = rng.normal(-1.5, 0.7, 80)
    own = np.array([sum(n * true[s] for s, n in c.items()) / sum(c.values()) for c in compositions])
    energies = formation + own
    energies[:4] += 3.0  # what a potential gets quite wrong must not move the rest
    found = fit_references("p", compositions, energies, formation)
    assert found.energies == pytest.approx(true, abs=0.02)
    np.testing.assert_allclose(found.formation_energies(compositions, energies)[4:], formation[4:], atol=0.02)
    with pytest.raises(InputError, match="lack Na"):
        found.formation_energies([{"Na": 1.0}], np.array([0.0]))


def test_elements_have_their_densities():
    known = {next(iter(composition)): (group, composition, cell) for group, composition, cell in elements()}
    assert len(known) > 50
    for symbol, density in {"Fe": 7.87, "Cu": 8.96, "Mg": 1.74, "Si": 2.33}.items():
        group, composition, cell = known[symbol]
        lattice = Lattice.from_parameters(*cell)
        assert space_groups()[group - 1].crystal_system == ("hexagonal" if symbol == "Mg" else "cubic")
        crystal = Structure(lattice, [symbol] * composition[symbol], np.zeros((composition[symbol], 3)))
        assert crystal.density == pytest.approx(density, rel=0.02)


def test_references_are_kept_as_json(tmp_path):
    found = References("p", {"Li": -1.9}, 5, 0.02, 0.01)
    found.save(tmp_path / "r.json")
    assert References.load(tmp_path / "r.json") == found
    with pytest.raises(InputError, match=r"none\.json"):
        References.load(tmp_path / "none.json")


def test_the_hull_is_pymatgens():
    rng = np.random.default_rng(2)
    phases = [
        {"Li": int(a), "P": int(b), "S": int(c)} for a, b, c in rng.integers(0, 4, (40, 3)) if a + b + c
    ]
    phases = [{s: n for s, n in phase.items() if n} for phase in phases]
    energies = rng.uniform(-1.5, 0.2, len(phases))
    hull = Hull(phases, energies)
    entries = [PDEntry(Composition(c), e * sum(c.values())) for c, e in zip(phases, energies, strict=True)]
    diagram = PhaseDiagram([*entries, *(PDEntry(Composition(s), 0.0) for s in ("Li", "P", "S"))])
    for a, b, c in rng.integers(1, 9, (20, 3)):
        composition = {"Li": int(a), "P": int(b), "S": int(c)}
        assert hull.energy(composition) == pytest.approx(
            diagram.get_hull_energy_per_atom(Composition(composition)), abs=1e-8
        )
    assert hull.energy({"Na": 2}) == 0.0


def write_crystals(path: Path) -> list[Crystal]:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CRYSTAL_COLUMNS)
        for group, composition, lattice in CRYSTALS[:3]:
            writer.writerow([group, json.dumps(composition), *lattice])
    return [Crystal(*crystal) for crystal in CRYSTALS[:3]]


def test_labels_are_the_lowest_of_several_and_depend_on_the_crystal_alone(tmp_path):
    crystals = write_crystals(tmp_path / "samples.csv")
    assert read_crystals(tmp_path / "samples.csv") == crystals
    rows = list(label(crystals, Springs(1e-3)))
    assert [row["key"] for row in rows] == [c.key for c in crystals]
    assert all(row["energy"] <= row["initial_energy"] for row in rows)
    assert next(iter(label(crystals[2:], Springs(1e-3)))) == rows[2]
    impossible = Crystal(225, {"Na": 1}, (5.0, 5.0, 5.0, 90.0, 90.0, 90.0))
    (row,) = label([impossible], Springs(1e-3))
    assert row["energy"] is None
    with_cell = next(iter(label(crystals, Springs(1e-3), with_cells=True)))["cell"]
    assert len(with_cell["numbers"]) == len(with_cell["fractional"]) == 12


def test_atoms_that_fall_into_each_other_are_a_hole_of_the_potential():
    crystal, springs = Crystal(*CRYSTALS[0]), Springs(20.0)
    placed = place(crystal.composition, crystal.space_group, crystal.lattice, n_draws=1, seed=[0])[0]
    (fallen,) = relax([placed.cell], springs, LONG)
    assert distance_ratio(fallen.cell) < RELAXED_RATIO  # where the energy is lowest
    (row,) = label([crystal], springs, with_cells=True)
    kept = Cell(*(np.array(row["cell"][name]) for name in ("numbers", "matrix", "fractional")))
    assert distance_ratio(kept) >= RELAXED_RATIO
    assert row["energy"] > fallen.energy


def test_wrong_crystals_are_refused_by_line(tmp_path):
    write_crystals(tmp_path / "samples.csv")
    text = (tmp_path / "samples.csv").read_text().splitlines()
    text[2] = text[2].replace("38", "P1", 1)
    (tmp_path / "bad.csv").write_text("\n".join(text))
    with pytest.raises(InputError, match=r"bad\.csv, line 3: .*columns space_group"):
        read_crystals(tmp_path / "bad.csv")
    with pytest.raises(InputError, match=r"no\.csv"):
        read_crystals(tmp_path / "no.csv")


def test_labelling_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("oracles.ml_proxy.relaxation.CHGNetPotential", Springs)
    write_crystals(tmp_path / "samples.csv")
    step = ["label", "--crystals", str(tmp_path / "samples.csv"), "--out", str(tmp_path / "l.jsonl")]
    assert main([*step, "--limit", "2"]) == 0
    first = (tmp_path / "l.jsonl").read_text()
    (tmp_path / "l.jsonl").write_text(first + '{"key": "cut sho')
    assert len(read_lines(tmp_path / "l.jsonl")) == 2
    (tmp_path / "l.jsonl").write_text(first)
    assert main(step) == 0
    assert (tmp_path / "l.jsonl").read_text().startswith(first)
    assert len(read_lines(tmp_path / "l.jsonl")) == 3
    assert main(["label", "--crystals", str(tmp_path / "no.csv"), "--out", str(tmp_path / "l.jsonl")]) == 2


def test_ions_of_one_sign_are_pushed_further():
    rng = np.random.default_rng(1)
    for _ in range(10):
        # Li3PO4's atoms, at its density
        cell = Cell(np.repeat([3, 15, 8], [6, 2, 8]), np.diag([6.1, 5.2, 4.9]), rng.random((16, 3)))
        pushed = push_apart(cell, is_ionic=True)
        distances = structure_of(pushed.cell).distance_matrix
        oxygen = distances[8:, 8:][~np.eye(8, dtype=bool)]
        plain = structure_of(push_apart(cell).cell).distance_matrix[8:, 8:][~np.eye(8, dtype=bool)]
        assert oxygen.min() > max(1.9, plain.min())  # 2.5 Å in the mineral
        assert pushed.distance_ratio == pytest.approx(distance_ratio(pushed.cell))


def test_anions_are_those_without_a_partner_far_more_electronegative():
    def anions(*symbols: str) -> set[str]:
        radii = anion_radii(tuple(atomic_numbers[s] for s in symbols))
        return {s for s, r in zip(symbols, radii.tolist(), strict=True) if r}

    assert anions("Li", "P", "S", "Cl") == {"S", "Cl"}
    assert anions("Na", "S", "O") == {"O"}
    assert anions("Li", "O", "F") == {"O", "F"}
    assert anions("Li", "Al") == set()


def test_the_table_joins_labels_and_leaves_holes_of_the_potential_out(tmp_path):
    cell = "3,3,3,90,90,90"
    (tmp_path / "mp.csv").write_text(
        f"{','.join(CRYSTAL_COLUMNS)},formation_energy_per_atom,e_above_hull\n"
        f'1,"{{""Li"": 2, ""O"": 1}}",{cell},-2.0,0.0\n1,"{{""Li"": 1, ""O"": 1}}",{cell},-1.4,0.1\n'
    )
    References("p", {"Li": -2.0, "O": -5.0}, 9, 0.0, 0.0).save(tmp_path / "r.json")
    crystal = {"space_group": 1, "composition": {"Li": 2, "O": 1}, "lattice": [3, 3, 3, 90, 90, 90]}
    labels = [
        {
            "key": "a",
            **crystal,
            "energy": -4.5,
            "max_force": 0.1,
        },  # formation energy -1.5, 0.5 above the hull
        {"key": "a", **crystal, "energy": -4.4, "max_force": 0.1},  # labelled twice: the lower counts
        {"key": "b", **crystal, "energy": None},  # no room
        {"key": "c", **crystal, "energy": -5.2 - BELOW, "max_force": 0.1},  # far below the hull
        {"key": "d", **crystal, "energy": -4.0, "max_force": 80.0},  # still falling
        {"key": "e", **crystal, "energy": 30.0, "max_force": 80.0},  # bad in any case
    ]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    strained = {**crystal, "formation_energy": -1.0}
    (tmp_path / "s.jsonl").write_text(json.dumps(strained) + "\n")
    step = ["table", "--data", str(tmp_path / "mp.csv"), "--references", str(tmp_path / "r.json")]
    step += ["--labels", str(tmp_path / "l.jsonl"), "--strained", str(tmp_path / "s.jsonl"), "--out"]
    assert main([*step, str(tmp_path / "t.csv.gz")]) == 0
    table = read_materials(tmp_path / "t.csv.gz", ["formation_energy_per_atom", "e_above_hull"])
    energies, above = (table.values[name] for name in ("formation_energy_per_atom", "e_above_hull"))
    np.testing.assert_allclose(energies[:4], [-1.5, CAP, CAP, -1.0])
    np.testing.assert_allclose(above[:4], [0.5, CAP, CAP, 1.0])
    assert not energies[4:].any()
    assert not above[4:].any()
    assert main([*step, str(tmp_path / "again.csv.gz")]) == 0
    assert (tmp_path / "again.csv.gz").read_bytes() == (tmp_path / "t.csv.gz").read_bytes()
    assert gzip.decompress((tmp_path / "t.csv.gz").read_bytes()).decode().splitlines()[1].endswith("sampled")
