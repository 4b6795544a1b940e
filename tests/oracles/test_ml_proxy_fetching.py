"""Fetching OBELiX: by its package, whole or not at all."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from activelearning.errors import InputError
from oracles.ml_proxy.data import COLUMNS
from oracles.ml_proxy.fetching import fetch_obelix

HEADER = ",".join(COLUMNS)
ROWS = [
    "aaa,Li8.0P4.0O14.0,1e-5,2,5.0,6.0,7.0,90,90,90,10.1/A",
    "bbb,Li3N,1e-3,191,3.6,3.6,3.9,90,90,120,10.1/B",
]


def package(monkeypatch: pytest.MonkeyPatch, make) -> None:
    """Put a stand-in for the package where it is imported from."""
    module = ModuleType("obelix")
    module.OBELiX = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "obelix", module)


def test_the_tables_come_into_a_new_folder(tmp_path, monkeypatch, capsys):
    def make(data_path: Path, no_cifs: bool) -> None:
        assert no_cifs
        assert not data_path.exists()  # only then does the package download
        data_path.mkdir()
        print("Downloading data...")
        (data_path / "all.csv").write_text("\n".join([HEADER, *ROWS]) + "\n")
        (data_path / "test.csv").write_text("\n".join([HEADER, ROWS[1]]) + "\n")

    package(monkeypatch, make)
    folder = tmp_path / "deep" / "obelix"
    assert fetch_obelix(folder) == {"data": str(folder), "n": 2, "n_training": 1}
    assert sorted(path.name for path in folder.iterdir()) == ["all.csv", "test.csv"]
    assert [path.name for path in folder.parent.iterdir()] == ["obelix"]
    assert capsys.readouterr().out == ""
    with pytest.raises(InputError, match="exists"):
        fetch_obelix(folder)


def test_a_failed_download_leaves_nothing(tmp_path, monkeypatch):
    def make(data_path: Path, no_cifs: bool) -> None:
        data_path.mkdir()
        (data_path / "all.csv").write_text(HEADER)
        raise OSError("no route to host")

    package(monkeypatch, make)
    with pytest.raises(InputError, match=r"no route to host.*ACTIVELEARNING_OBELIX"):
        fetch_obelix(tmp_path / "obelix")
    assert list(tmp_path.iterdir()) == []


def test_another_table_is_no_obelix(tmp_path, monkeypatch):
    def make(data_path: Path, no_cifs: bool) -> None:
        data_path.mkdir()
        (data_path / "all.csv").write_text("a,b\n1,2\n")

    package(monkeypatch, make)
    with pytest.raises(InputError, match="lacks the columns"):
        fetch_obelix(tmp_path / "obelix")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "obelix", None)
    with pytest.raises(InputError, match="pip install obelix-data"):
        fetch_obelix(tmp_path / "obelix")
