"""Reading OBELiX's format, finding the data set, and groups that keep look-alikes together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from activelearning.errors import InputError
from oracles.ml_proxy.data import (
    COLUMNS,
    _connected,
    find_obelix,
    odd_volumes,
    read_csv,
    read_evaluation,
    read_training,
)

ROWS = {
    "aaa": "aaa,Li8.0P4.0O14.0,1e-5,2,5.0,6.0,7.0,90,90,90,10.1/A",
    "bbb": "bbb,Li7.0La3.0Zr2.0O12.0,<1E-10,230,12.97,12.97,12.97,90,90,90,10.1/B",
    "ccc": "ccc,Li4.0P2.0O7.0,0.5,2,5.1,6.1,7.1,90,90,90,10.1/C",
    "ddd": "ddd,La1.13Li0.61Ti2.0O6.0,2.5e-06,123,3.87,3.87,7.78,90,90,90,10.1/b",
}


def write(path: Path, *ids: str, **changed: str) -> Path:
    rows = {**ROWS, **changed}
    path.write_text("\n".join([",".join(COLUMNS), *(rows[i] for i in ids)]) + "\n")
    return path


def test_values_are_log10_and_bounds_are_marked(tmp_path):
    table = read_csv(write(tmp_path / "t.csv", "aaa", "bbb", "ccc", "ddd"))
    assert table.ids == ("aaa", "bbb", "ccc", "ddd")
    np.testing.assert_allclose(table.values, [-5.0, -10.0, np.log10(0.5), np.log10(2.5e-6)])
    assert table.is_bound.tolist() == [False, True, False, False]
    assert table.compositions[3] == {"La": 1.13, "Li": 0.61, "Ti": 2.0, "O": 6.0}
    assert table.space_groups.tolist() == [2, 230, 2, 123]
    assert table.lattices[1].tolist() == [12.97, 12.97, 12.97, 90.0, 90.0, 90.0]


def test_rows_of_one_composition_or_publication_are_one_group(tmp_path):
    groups = read_csv(write(tmp_path / "t.csv", "aaa", "bbb", "ccc", "ddd")).groups()
    assert groups[0] == groups[2]  # Li4P2O7 twice over
    assert groups[1] == groups[3]  # one publication, written in two ways
    assert groups[0] != groups[1]


def test_a_row_of_two_publications_is_tied_to_each(tmp_path):
    rows = {"ccc": ROWS["ccc"].replace("Li4.0P2.0", "Li6.0P2.0").replace("10.1/C", "10.1/b | 10.1/A")}
    groups = read_csv(write(tmp_path / "t.csv", "aaa", "bbb", "ccc", **rows)).groups()
    assert len(set(groups.tolist())) == 1


def test_rows_without_a_publication_are_not_one_group(tmp_path):
    rows = {i: ROWS[i].replace("10.1/", "").removesuffix("A").removesuffix("B") for i in ("aaa", "bbb")}
    groups = read_csv(write(tmp_path / "t.csv", "aaa", "bbb", **rows)).groups()
    assert groups[0] != groups[1]


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(10, 18)), min_size=1, max_size=30))
def test_groups_are_connected_components(pairs):
    found = _connected(pairs)
    ones = np.ones(len(pairs))
    left, right = np.array(pairs).T
    shared = sum(
        (m := coo_matrix((ones, (np.arange(len(pairs)), marks))).tocsr()) @ m.T for marks in (left, right)
    )
    expected = connected_components(shared)[1]
    assert ((found[:, None] == found) == (expected[:, None] == expected)).all()


def test_keys_tell_crystals_apart(tmp_path):
    table = read_csv(write(tmp_path / "t.csv", "aaa", "bbb", "ccc", "aaa"))
    keys = table.keys()
    assert keys[0] == keys[3]
    assert len(set(keys.tolist())) == 3


def test_a_folder_keeps_its_test_entries_out_of_training(tmp_path):
    write(tmp_path / "all.csv", "aaa", "bbb", "ccc")
    assert read_training(tmp_path).ids == read_evaluation(tmp_path).ids == ("aaa", "bbb", "ccc")
    write(tmp_path / "test.csv")
    assert read_training(tmp_path).ids == read_evaluation(tmp_path).ids == ("aaa", "bbb", "ccc")
    write(tmp_path / "test.csv", "bbb")
    assert read_training(tmp_path).ids == ("aaa", "ccc")
    assert read_evaluation(tmp_path).ids == ("bbb",)
    assert read_evaluation(tmp_path / "all.csv").ids == ("aaa", "bbb", "ccc")


@pytest.mark.parametrize(
    ("row", "match"),
    [
        (ROWS["aaa"].replace("1e-5", "high"), r"line 2.*must be a positive number or a bound"),
        (ROWS["aaa"].replace("1e-5", "0"), "must be a positive number"),
        (ROWS["aaa"].replace("Li8.0P4.0O14.0", "Qq3"), "is no formula"),
        (ROWS["aaa"].replace("Li8.0P4.0O14.0", ""), "True Composition"),
        (ROWS["aaa"].replace(",2,", ",231,"), "must be 1 to 230"),
        (ROWS["aaa"].replace("5.0", "five"), r"'aaa'.*five"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, match):
    with pytest.raises(InputError, match=match):
        read_csv(write(tmp_path / "t.csv", "aaa", aaa=row))


def test_rows_whose_cell_their_composition_can_t_fill_are_named_and_kept(tmp_path, caplog):
    wide = ROWS["ccc"].replace("5.1,6.1,7.1", "10.2,6.1,14.2")
    table = read_csv(write(tmp_path / "t.csv", "aaa", "ccc", "ddd", ccc=wide))
    assert len(table) == 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the volume of ccc (" in caplog.text
    caplog.clear()
    read_csv(write(tmp_path / "t.csv", "aaa", "ccc", "ddd"))
    assert not caplog.records


def test_the_odd_cells_of_obelix_are_known(obelix):
    assert set(odd_volumes(read_training(obelix))) == {"vy5", "yav"}


def test_a_missing_column_is_named(tmp_path):
    path = write(tmp_path / "t.csv", "aaa")
    path.write_text(path.read_text().replace("Space group #", "SG"))
    with pytest.raises(InputError, match="lacks the column Space group #"):
        read_csv(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv"):
        read_csv(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match=r"all\.csv"):
        read_training(tmp_path)


def test_the_data_set_is_found_by_path_then_by_environment(tmp_path, monkeypatch):
    named = tmp_path / "named"
    named.mkdir()
    monkeypatch.setenv("ACTIVELEARNING_OBELIX", str(named))
    assert find_obelix() == named
    assert find_obelix(tmp_path) == tmp_path
    with pytest.raises(InputError, match="named by --data"):
        find_obelix(tmp_path / "nowhere")
    monkeypatch.setenv("ACTIVELEARNING_OBELIX", str(tmp_path / "gone"))
    with pytest.raises(InputError, match="named by ACTIVELEARNING_OBELIX"):
        find_obelix()
    monkeypatch.delenv("ACTIVELEARNING_OBELIX")
    with pytest.raises(InputError, match="pip install obelix-data"):
        find_obelix()


def test_obelix_itself_is_read(obelix):
    table = read_training(obelix)
    assert len(table) == 478
    assert table.is_bound.sum() == 29
    assert all("Li" in composition for composition in table.compositions)
    groups = table.groups()
    for marks in (
        table.sources,
        [s.split("|")[0].lower() for s in table.sources],
        [tuple(sorted(c.items())) for c in table.compositions],
    ):
        homes: dict[object, int] = {}
        assert all(homes.setdefault(mark, g) == g for mark, g in zip(marks, groups, strict=True))
