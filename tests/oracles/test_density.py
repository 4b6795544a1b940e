"""The density oracle against pymatgen's `Structure.density` and its own contract."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from activelearning.candidate import BoxCandidate, CrystalCandidate
from activelearning.contracts import OracleContext, OracleLike
from activelearning.errors import ConfigError
from oracles.density import DensityOracle

ELEMENTS = ["H", "Li", "O", "P", "S", "Cl", "Fe", "La", "Pb", "U"]
LENGTH = st.floats(2.0, 30.0)
ANGLE = st.floats(65.0, 115.0)
CRYSTALS = st.builds(
    CrystalCandidate,
    space_group=st.just(1),
    composition=st.dictionaries(st.sampled_from(ELEMENTS), st.integers(1, 16), min_size=1, max_size=5),
    lattice=st.tuples(LENGTH, LENGTH, LENGTH, ANGLE, ANGLE, ANGLE),
)


def make(unit: str | None = "g/cm3", **params) -> DensityOracle:
    oracle = DensityOracle(**params)
    oracle.bind(OracleContext("c", "exact", "density", unit, 1.0, "sqlite://", Path("unused")))
    return oracle


def density(oracle: DensityOracle, crystal: CrystalCandidate) -> float:
    return oracle.evaluate([crystal])[0].values["density"].value


@given(st.lists(CRYSTALS, min_size=1, max_size=4))
@settings(max_examples=100)
def test_it_is_the_density_of_pymatgen(crystals):
    answers = make().evaluate(crystals)
    for crystal, answer in zip(crystals, answers, strict=True):
        species = [symbol for symbol, n in crystal.composition.items() for _ in range(n)]
        structure = Structure(Lattice.from_parameters(*crystal.lattice), species, np.zeros((len(species), 3)))
        assert answer.values["density"].value == pytest.approx(
            float(structure.density), rel=1e-8
        )  # constants of different years


@given(st.lists(CRYSTALS, min_size=1, max_size=6))
@settings(max_examples=50)
def test_an_answer_does_not_depend_on_its_batch(crystals):
    oracle = make(noise_std=0.1)
    batch = [answer.values["density"].value for answer in oracle.evaluate(crystals)]
    assert batch == [density(oracle, crystal) for crystal in crystals]


@pytest.mark.parametrize(
    ("crystal", "published"),
    [
        (CrystalCandidate(225, {"Li": 4, "F": 4}, (4.0262,) * 3 + (90.0,) * 3), 2.64),
        (CrystalCandidate(225, {"Na": 4, "Cl": 4}, (5.6402,) * 3 + (90.0,) * 3), 2.165),
        (CrystalCandidate(154, {"Si": 3, "O": 6}, (4.9133, 4.9133, 5.4053, 90.0, 90.0, 120.0)), 2.65),
    ],
    ids=["LiF", "halite", "quartz"],
)
def test_minerals_have_their_handbook_density(crystal, published):
    assert density(make(), crystal) == pytest.approx(published, rel=0.01)


def test_scale_bias_and_noise_make_a_cheap_source():
    crystal = CrystalCandidate(225, {"Li": 4, "F": 4}, (4.0262,) * 3 + (90.0,) * 3)
    exact = density(make(), crystal)
    assert density(make(scale=-2.0, bias=0.5), crystal) == pytest.approx(-2.0 * exact + 0.5)
    noisy = make(noise_std=0.3)
    assert density(noisy, crystal) == density(make(noise_std=0.3), crystal) != exact
    assert noisy.evaluate([crystal])[0].values["density"].std == 0.3


def test_bad_candidates_fail_alone():
    good = CrystalCandidate(225, {"Li": 4, "F": 4}, (4.0262,) * 3 + (90.0,) * 3)
    flat = CrystalCandidate(1, {"Li": 1}, (4.0, 4.0, 4.0, 30.0, 30.0, 120.0))
    bare = CrystalCandidate(225, {"Li": 4, "Cl": 4}, None)
    answers = make().evaluate([BoxCandidate((1.0,)), good, flat, bare])
    assert [answer.is_success for answer in answers] == [False, True, False, False]
    assert "needs crystals" in answers[0].reason
    assert "closes no cell" in answers[2].reason
    assert "without a lattice" in answers[3].reason
    assert make().evaluate([]) == []


@pytest.mark.parametrize(
    "params", [{"scale": 0.0}, {"scale": math.inf}, {"bias": math.nan}, {"noise_std": -0.1}], ids=str
)
def test_wrong_parameters_are_refused(params):
    with pytest.raises(ConfigError, match=f"params.{next(iter(params))}"):
        DensityOracle(**params)


def test_another_unit_is_refused():
    make("g/cm^3").check()
    make(None).check()
    with pytest.raises(ConfigError, match="answers in g/cm3"):
        make("kg/m3").check()
    assert isinstance(make(), OracleLike)
