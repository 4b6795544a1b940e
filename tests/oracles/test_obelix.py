"""OBELiX as campaigns take it: whole crystals to start from, and a pool whose answers nothing has learned from."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from activelearning.candidate import candidate_from_dict
from activelearning.errors import InputError
from activelearning.spaces.pool import PoolSpace
from oracles.ml_proxy import MLProxyOracle
from oracles.ml_proxy.data import CONDUCTIVITY, read_training
from oracles.obelix import materials, whole_crystal, write_tables

HEAD = [
    "ID",
    "True Composition",
    CONDUCTIVITY,
    "Space group #",
    "a",
    "b",
    "c",
    "alpha",
    "beta",
    "gamma",
    "DOI",
]
CUBE = [90, 90, 90]
ROWS = [
    ["salt", "Li4Cl4", "1e-9", 225, 5.13, 5.13, 5.13, *CUBE, "10.1/a"],
    ["same", "Li8Cl8", "1e-8", 225, 5.14, 5.14, 5.14, *CUBE, "10.1/b"],
    ["less", "Li4Cl4", "<1E-10", 225, 5.12, 5.12, 5.12, *CUBE, "10.1/c"],
    ["part", "Li3.6Na0.4Cl4", "2e-7", 225, 5.2, 5.2, 5.2, *CUBE, "10.1/d"],
    ["none", "Li4F4", "1e-12", 225, 4.03, 4.03, 4.03, *CUBE, "10.1/e"],
    ["bare", "Li4Br4", "1e-9", 225, 5.5, 5.5, 5.5, *CUBE, "10.1/f"],
    ["tiny", "Li0.4P0.3S1.2", "1e-4", 62, 13.0, 8.0, 6.1, *CUBE, "10.1/g"],
]


def rock_salt(a: float, cation: Any, anion: str) -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A data set of seven entries: one material three times, one disordered, one without atoms, one without lithium."""
    folder = tmp_path / "obelix"
    (folder / "all_cifs").mkdir(parents=True)
    with (folder / "all.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEAD, *ROWS])
    rock_salt(5.14, "Li", "Cl").to(str(folder / "all_cifs" / "same.cif"))
    rock_salt(5.2, {"Li": 0.9, "Na": 0.1}, "Cl").to(str(folder / "all_cifs" / "part.cif"))
    bare = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.5), ["Br"], [[0, 0, 0]])
    bare.to(str(folder / "all_cifs" / "bare.cif"))
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_material_measured_several_times_is_one(source: Path) -> None:
    assert materials(read_training(source)) == [[0, 1, 2], [3], [4], [5], [6]]


def test_the_pool_holds_materials_with_atoms_and_what_was_measured(source: Path, tmp_path: Path) -> None:
    written = write_tables(source, tmp_path / "out")
    assert (written.n_materials, written.n_without_atoms) == (2, 3)
    rows = rows_of(written.pool)
    assert [(row["id"], float(row["measured"]), row["is_bound"], row["n_entries"]) for row in rows] == [
        ("same", -9.0, "0", "3"),  # the lower median of the values, the bound aside, on the one CIF there is
        ("part", pytest.approx(np.log10(2e-7)), "0", "1"),
    ]
    salt, part = PoolSpace(written.pool).candidates
    assert salt.composition == {"Li": 4, "Cl": 4}  # type: ignore[union-attr]
    assert part.composition == pytest.approx({"Li": 3.6, "Na": 0.4, "Cl": 4.0})  # type: ignore[union-attr]
    # Neither was the proxy's to learn from: it predicts them as any other crystal.
    assert all(np.isfinite(float(row["predicted"])) and float(row["predicted_std"]) > 0.0 for row in rows)


def test_a_cif_that_can_t_be_read_is_told_from_one_that_disagrees(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (source / "all_cifs" / "part.cif").write_text("no crystal")
    assert write_tables(source, tmp_path / "out").n_materials == 1
    told = [text for text in caplog.messages if "has no atoms" in text]
    unreadable, disagreeing = sorted(told, key=lambda text: "disagrees" in text)
    assert unreadable.startswith("The entry part has no atoms: ")
    assert "can't be read as a crystal" in unreadable
    assert disagreeing.startswith("The entry bare has no atoms, since its CIF disagrees with it: ")
    assert "holds Br4" in disagreeing


def test_observations_are_whole_crystals(source: Path, tmp_path: Path) -> None:
    written = write_tables(source, tmp_path / "out")
    rows = rows_of(written.observations)
    assert (
        written.n_observations == len(rows) == 5
    )  # the fourth would gain sodium, the seventh is mostly rounding
    found = [candidate_from_dict(json.loads(row["candidate"])) for row in rows]
    assert found[1].composition == {"Li": 8, "Cl": 8}  # type: ignore[union-attr]
    assert [row["censoring"] for row in rows] == ["none", "none", "upper", "none", "none"]
    assert {(row["property"], row["unit"]) for row in rows} == {("log10_conductivity", "log10(S/cm)")}


def test_what_the_pool_says_is_predicted_was_not_learned(obelix: Path, tmp_path: Path) -> None:
    written = write_tables(obelix, tmp_path / "out")
    assert written.n_materials > 200
    assert written.n_observations > 450
    rows = rows_of(written.pool)
    measured, predicted = (np.array([float(row[name]) for row in rows]) for name in ("measured", "predicted"))
    # The model itself knows what it was trained on; predictions that have not seen a row miss it by far more.
    own = MLProxyOracle()
    table = read_training(obelix)
    at = [table.ids.index(row["id"]) for row in rows]
    known, _ = own.model.predict(  # type: ignore[attr-defined]
        [table.compositions[i] for i in at], [int(table.space_groups[i]) for i in at], table.lattices[at]
    )
    assert np.abs(predicted - measured).mean() > 2.0 * np.abs(known - measured).mean()
    assert np.corrcoef(predicted, measured)[0, 1] > 0.5


def test_what_can_t_be_done_is_said(source: Path, tmp_path: Path) -> None:
    (source / "all_cifs").rename(source / "elsewhere")
    with pytest.raises(InputError, match=r"none of the folders .*all_cifs"):
        write_tables(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rounding_moves_little(obelix: Path) -> None:
    table = read_training(obelix)
    for i in range(len(table)):
        crystal = whole_crystal(table, i)
        if crystal is not None:
            n, total = sum(crystal.composition.values()), sum(table.compositions[i].values())
            for symbol, amount in table.compositions[i].items():
                assert abs(crystal.composition[symbol] / n - amount / total) <= 0.05
