"""Tables of known crystals: what is wrong is named by line and column, and nothing wrong is let through."""

from __future__ import annotations

from pathlib import Path

import pytest

from activelearning.candidate import CrystalCandidate
from activelearning.errors import InputError
from activelearning.sampling.tables import read_crystals, write_samples

HEAD = "space_group,composition,a,b,c,alpha,beta,gamma,note"
SALT = '225,"{""Na"": 4, ""Cl"": 4}",5.69,5.69,5.69,90,90,90,as it is'


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join([HEAD, *rows]) + "\n")
    return path


def test_crystals_are_read_back(tmp_path: Path) -> None:
    (salt,) = read_crystals(table(tmp_path / "t.csv", SALT.replace("225", "225.0")))
    assert salt == CrystalCandidate(225, {"Na": 4, "Cl": 4}, (5.69, 5.69, 5.69, 90, 90, 90))
    write_samples(tmp_path / "s.csv", [salt], {"x": [float("inf")]}, [0.0])
    assert read_crystals(tmp_path / "s.csv") == [salt]
    assert "inf" not in (tmp_path / "s.csv").read_text()


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ("225", "2.7", "space_group must be a whole number from 1 to 230, not '2.7'"),
        ("225", "231", "space_group must be a whole number from 1 to 230, not '231'"),
        ("225", "", "space_group must be a whole number from 1 to 230, not empty"),
        ('"{""Na"": 4, ""Cl"": 4}"', "Fe2O3", "composition must be JSON .* not 'Fe2O3'"),
        ('"{""Na"": 4, ""Cl"": 4}"', '"[1,2]"', r"composition must be JSON .* not '\[1,2\]'"),
        ('"{""Na"": 4, ""Cl"": 4}"', "Pnma", "composition must be JSON .* not 'Pnma'"),
        ('""Cl"": 4', '""Xx"": 4', "composition names 'Xx', which is no element"),
        ('""Cl"": 4', '""Cl"": 4.5', "composition needs whole positive counts, not Cl: 4.5"),
        ('""Cl"": 4', '""Cl"": ""4""', "composition needs whole positive counts, not Cl: '4'"),
        ('""Cl"": 4', '""Cl"": Infinity', "composition needs whole positive counts, not Cl: inf"),
        (SALT[SALT.index(",5.69") :], "", "a must be a length above 0 Å, not empty"),
        ("5.69,90", "-4,90", "c must be a length above 0 Å, not '-4'"),
        ("5.69,90", ",90", "c must be a length above 0 Å, not empty"),
        ("5.69,90", "inf,90", "c must be a length above 0 Å, not 'inf'"),
        ("90,as", "200,as", "gamma must be an angle above 0 and below 180 degrees, not '200'"),
        ("90,90,90", "30,30,120", "the angles 30, 30 and 120 degrees close no cell"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, was: str, now: str, message: str) -> None:
    path = table(tmp_path / "t.csv", SALT, SALT.replace(was, now, 1))
    with pytest.raises(InputError, match=rf"t\.csv, line 3: {message}"):
        read_crystals(path)


def test_a_table_without_rows_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t\.csv is empty"):
        read_crystals(table(tmp_path / "t.csv"))
