"""Crystals with partial occupancies in a campaign: a pool of CIFs, the same whole atoms for all, and the record."""

import json
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from activelearning.campaign.answering import ask, with_whole_atoms
from activelearning.campaign.tick import run
from activelearning.candidate import candidate_from_dict
from activelearning.contracts.oracle import OracleContext
from activelearning.crystals.ordered import crystal_of
from activelearning.errors import ConfigError
from activelearning.spaces.pool import PoolSpace
from oracles import Oracle
from oracles.density import DensityOracle

SHARED = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.3), [{"Li": 0.5, "Na": 0.5}, "Cl"], [[0, 0, 0], [0.5] * 3]
)
CROWDED = Structure(  # two positions of Li that exclude one another, and atoms for both
    Lattice.tetragonal(4.0, 6.0),
    [{"Li": 0.9}, {"Li": 0.9}, "O"],
    [[0, 0, 0.05], [0, 0, -0.05], [0.5, 0.5, 0.5]],
)
SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.1), ["Li", "Cl"], [[0, 0, 0], [0.5] * 3])


class Looks(Oracle):
    """Remembers what it was given, and answers with the number of atoms."""

    def __init__(self):
        self.given = []

    def evaluate_one(self, candidate):
        self.given.append((candidate, self.key(candidate)))
        return float(len(candidate.structure))


def asked(oracle, candidates):
    oracle.bind(OracleContext("c", "looks", "n", None, 1.0, "sqlite://", Path()))
    keys = [f"key-{k}" for k in range(len(candidates))]
    return ask(oracle, "looks", "n", None, candidates, keys)


def test_oracles_get_whole_atoms_and_the_choice_is_recorded():
    oracle = Looks()
    average, salt = crystal_of(SHARED), crystal_of(SALT)
    first, second = asked(oracle, [average, salt])
    (whole, key), (plain, _) = oracle.given
    assert whole.structure.is_ordered
    assert key == "key-0"
    assert plain == salt
    assert first.values["n"].value == len(whole.structure)
    record = first.metadata["ordering"]
    assert record["composition_error"] == 0.0
    assert record["average_formula"] == average.formula == "Cl4 Li2 Na2"
    assert record["ordered_formula"] == whole.formula
    assert json.loads(json.dumps(record)) == record
    assert "ordering" not in second.metadata
    other = Looks()
    asked(other, [average])
    assert other.given[0][0] == whole


def test_what_cannot_be_ordered_fails_alone():
    oracle = Looks()
    failed, good = asked(oracle, [crystal_of(CROWDED, composition={"Li": 2, "O": 1}), crystal_of(SALT)])
    assert failed.reason.startswith("can't be ordered: ")
    assert "atoms overlap in every arrangement" in failed.reason
    assert good.is_success
    assert len(oracle.given) == 1


def test_oracles_of_averages_get_the_crystal_as_it_is(tmp_path):
    oracle = DensityOracle()
    oracle.bind(OracleContext("c", "f", "density", None, 1.0, "sqlite://", tmp_path))
    (answer,) = ask(oracle, "density", "density", None, [crystal_of(SHARED)], ["key"])
    assert answer.values["density"].value == pytest.approx(SHARED.density, rel=1e-3)
    assert "ordering" not in answer.metadata


def pool(folder, rows, name="pool.csv"):
    (folder / "cifs").mkdir(exist_ok=True)
    SHARED.to(str(folder / "cifs" / "shared.cif"), fmt="cif")
    SALT.to(str(folder / "cifs" / "salt.cif"), fmt="cif")
    file = folder / name
    file.write_text("\n".join(["cif,composition,space_group,score", *rows]) + "\n")
    return file


def test_a_pool_of_cifs(tmp_path):
    file = pool(tmp_path, ["cifs/shared.cif,Li0.6Na0.4Cl,225,1", "cifs/salt.cif,,,2"])
    space = PoolSpace(file=file)
    shared, salt = space.candidates
    assert shared.space_group == salt.space_group == 225
    # The composition is authoritative, in the number of formula units of the file's cell.
    assert dict(shared.composition) == {
        "Li": pytest.approx(2.4),
        "Na": pytest.approx(1.6),
        "Cl": pytest.approx(4.0),
    }
    assert shared.structure[0].species["Li"] == 0.5
    assert space.from_json(json.loads(json.dumps(space.to_json(shared)))) == shared
    assert candidate_from_dict(salt.to_dict()) == salt
    features = space.features(space.candidates)
    assert features.shape == (2, space.n_features)
    assert PoolSpace(file=file, features=["score"]).features(space.candidates).tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("cifs/gone.cif,,,1", r"row 1 is no crystal: .*gone\.cif can't be read"),
        (",,,1", "row 1, column 'cif' holds '', not the path of a CIF"),
        ("cifs/salt.cif,Li2Cl,,1", "row 1 is no crystal: its structure is ordered and holds Cl4 Li4"),
        ("cifs/salt.cif,,2.5,1", "row 1, column 'space_group' holds 2.5"),
    ],
)
def test_wrong_rows_are_named(tmp_path, row, message):
    with pytest.raises(ConfigError, match=message):
        PoolSpace(file=pool(tmp_path, [row]))


QUEUE = """
import json
from pathlib import Path

from activelearning.measurement import Measurement
from oracles import QueuedOracle


class Outside(QueuedOracle):
    '''Answers with the number of atoms it was handed.'''

    def __init__(self, folder: Path, gate: Path | None = None):
        self.folder = folder
        self.gate = gate

    def content(self):
        return {}

    def submit(self, candidate, key):
        (self.folder / key).write_text(json.dumps(len(candidate.structure)))
        return key

    def find(self, key):
        return key if (self.folder / key).exists() else None

    def poll(self, ids):
        if self.gate is not None and not self.gate.exists():
            return {}
        return {i: Measurement.of("bvse_barrier", float((self.folder / i).read_text()) / 100) for i in ids}

    def cancel(self, ids):
        pass
"""


@pytest.mark.parametrize("target", ["bvse", "queue.py:Outside"])
def test_a_campaign_on_files_measures_whole_atoms_and_learns_on_averages(bench, target):
    rows = []
    for k, a in enumerate((5.1, 5.2, 5.3)):
        crystal = SHARED.copy()
        crystal.scale_lattice(a**3)
        crystal.to(str(bench.folder / f"{k}.cif"), fmt="cif")
        rows.append(f"{k}.cif")
    CROWDED.to(str(bench.folder / "crowded.cif"), fmt="cif")
    bench.write("pool.csv", "\n".join(["cif", *rows, "crowded.cif"]) + "\n")
    bench.write("queue.py", QUEUE)
    (bench.folder / "jobs").mkdir()
    source = {"name": "atoms", "oracle": target, "cost": 1.0, "target": True}
    if target != "bvse":
        source["params"] = {"folder": "jobs"}
    config = bench.config(
        space={"type": "pool", "file": "pool.csv"},
        objective={"property": "bvse_barrier", "unit": "eV", "direction": "minimize"},
        fidelities=[
            {"name": "rho", "oracle": "density", "cost": 0.1, "property": "density", "unit": "g/cm3"},
            source,
        ],
        sampler={"type": "pool"},
        initial_design={"per_fidelity": {"rho": 4, "atoms": 4}},
        budget={"total": 4.4, "per_round": 1.0},
    )
    with bench.open(config) as engine:
        run(engine)
    found = [row for row in bench.evaluations() if row.fidelity == "atoms"]
    assert len(found) == 4
    failed = [row for row in found if row.reason]
    assert len(failed) == 1
    assert "can't be ordered" in failed[0].reason
    for row in found:
        assert row.candidate["composition"] != {}
        if not row.reason:
            assert row.details["ordering"]["ordered_formula"]
            assert row.candidate["structure"]["species"][0] == {"Li": 0.5, "Na": 0.5}
    densities = [row for row in bench.evaluations() if row.fidelity == "rho"]
    assert len(densities) == 4
    assert all(row.reason is None and "ordering" not in row.details for row in densities)


def test_an_ordering_is_kept_when_it_is_handed_over_and_not_found_again(bench, monkeypatch):
    SHARED.to(str(bench.folder / "shared.cif"), fmt="cif")
    SALT.to(str(bench.folder / "salt.cif"), fmt="cif")
    bench.write("pool.csv", "cif\nshared.cif\nsalt.cif\n")
    bench.write("queue.py", QUEUE)
    (bench.folder / "jobs").mkdir()
    params = {"folder": "jobs", "gate": "gate"}
    config = bench.config(
        space={"type": "pool", "file": "pool.csv"},
        objective={"property": "bvse_barrier", "unit": "eV", "direction": "minimize"},
        fidelities=[{"name": "atoms", "oracle": "queue.py:Outside", "cost": 1.0, "params": params}],
        sampler={"type": "pool"},
        initial_design={"per_fidelity": {"atoms": 2}},
        budget={"total": 2.0},
    )
    with bench.open(config) as engine:
        assert run(engine).action == "waiting"
    assert {row.state for row in bench.evaluations()} == {"submitted"}
    expected = {
        row.candidate_key: with_whole_atoms(candidate_from_dict(row.candidate))[1]
        for row in bench.evaluations()
    }
    assert sorted(len(record) for record in expected.values()) == [0, 1]

    def never(*_, **__):
        raise AssertionError("ordered again")

    monkeypatch.setattr("activelearning.crystals.ordered.ordered", never)
    bench.write("gate", "")
    with bench.open(config) as engine:
        run(engine)
    rows = bench.evaluations()
    assert {row.state for row in rows} == {"succeeded"}
    assert {row.candidate_key: row.details for row in rows} == expected
