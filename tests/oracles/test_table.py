"""The oracle `table`: answers by candidate, bounds as bounds, and tables that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from activelearning.candidate import BoxCandidate
from activelearning.contracts import OracleContext
from activelearning.contracts.registry import load_plugin
from activelearning.errors import ConfigError
from activelearning.measurement import Censoring
from activelearning.spaces.pool import PoolSpace


def oracle(path: Path, **params: Any) -> Any:
    made = load_plugin("oracles", "table")(file=path, **params)
    made.bind(OracleContext("c", "f", "s", "eV", 1.0, "sqlite://", path.parent))
    return made


def test_answers_by_key_with_bounds_and_errors(tmp_path: Path) -> None:
    first, second, third, fourth, fifth = (BoxCandidate((x,)) for x in (0.1, 0.2, 0.3, 0.4, 0.5))
    path = tmp_path / "t.csv"
    path.write_text(
        f"key,y,upper,error\n{first.key},-3.5,0,0.25\n{second.key},-10,1,\n{fourth.key},2,-1,\n{fifth.key},,0,\n"
    )
    told = oracle(path, column="y", bounds="upper", std="error")
    answers = told.evaluate([second, first, fourth])
    found = [(a.values["s"].value, a.values["s"].censoring, a.values["s"].std) for a in answers]
    assert found == [
        (-10.0, Censoring.UPPER, None),
        (-3.5, Censoring.NONE, 0.25),
        (2.0, Censoring.LOWER, None),
    ]
    assert {a.values["s"].unit for a in answers} == {"eV"}
    for candidate in (third, fifth):  # not in the table, and without an answer there
        assert "no answer" in told.evaluate([candidate])[0].reason
    assert oracle(path, column="y").evaluate([second])[0].values["s"].censoring == Censoring.NONE
    content = told.content()
    path.write_text(path.read_text().replace("-3.5", "-3.6"))
    assert oracle(path, column="y", bounds="upper", std="error").content() != content


CRYSTALS = """space_group,composition,a,b,c,alpha,beta,gamma,measured
225,Li4Cl4,5.13,5.13,5.13,90,90,90,-8
225,Li4F4,4.03,4.03,4.03,90,90,90,-12
"""


def test_a_pool_holds_its_own_answers(tmp_path: Path) -> None:
    path = tmp_path / "pool.csv"
    path.write_text(CRYSTALS)
    answers = oracle(path, column="measured").evaluate(PoolSpace(path).candidates)
    assert [a.values["s"].value for a in answers] == [-8.0, -12.0]
    path.write_text("x,y\n1,5\n2,6\n")
    answers = oracle(path, column="y", features=["x"]).evaluate(PoolSpace(path, ["x"]).candidates)
    assert [a.values["s"].value for a in answers] == [5.0, 6.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key,z,error\na,1,0\n", "row 1 lacks the column 'y'"),
        ("key,y,upper,error\na,1,0,\na,2,0,\n", "row 2 holds a second answer"),
        ("key,y,upper,error\na,nan,0,\n", "holds 'nan' as 'y'"),
        ("key,y,upper,error\na,1,<,\n", "'<' as 'upper'"),
        ("key,y,upper,error\na,1,0,some\n", "'some' as 'error'"),
        ("key,y,upper,error\na,1,0,-1\n", "'-1' as 'error'"),
        ("key,y,upper,error\n", "holds no rows"),
        (None, "can't be read"),
    ],
    ids=["column", "twice", "number", "kind", "error", "negative", "empty", "missing"],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "t.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        oracle(path, column="y", bounds="upper", std="error")
