"""Rewards of properties that oracles tell: products, failures, contracts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pymatgen.core import Composition, Lattice

from activelearning.candidate import CrystalCandidate
from activelearning.contracts import OracleContext
from activelearning.errors import ConfigError, OracleError
from activelearning.measurement import Measurement
from activelearning.rewards import Exponential, OracleProperty, ProductReward, TargetDistance, Term
from oracles.base import Oracle
from oracles.density import DensityOracle

CRYSTALS = [
    CrystalCandidate(225, {"Li": 4, "Cl": 4}, (a, a, a, 90.0, 90.0, 90.0)) for a in (4.8, 5.14, 5.5, 6.0)
]


def bound(oracle: Oracle, name: str = "density", unit: str | None = None) -> OracleProperty:
    oracle.bind(OracleContext("test", name, name, unit, 1.0, "", Path("nowhere")))
    return OracleProperty(oracle, name, unit)


class Answering(Oracle):
    """Gives the answers it is made with."""

    def __init__(self, answers: Sequence[Any]) -> None:
        self.answers = answers

    def evaluate(self, candidates: Sequence[Any]) -> Sequence[Any]:
        return self.answers


def test_density_is_rewarded_as_pymatgen_computes_it() -> None:
    reward = ProductReward((Term(bound(DensityOracle(), unit="g/cm3"), Exponential("maximize", beta=2.0)),))
    dalton = 1.66053906660
    expected = [
        2.0 * dalton * Composition(dict(c.composition)).weight / Lattice.from_parameters(*c.lattice).volume
        for c in CRYSTALS
    ]
    assert reward(CRYSTALS).tolist() == pytest.approx(expected, rel=1e-6)


def test_a_product_of_properties_is_the_sum_of_their_log_rewards() -> None:
    density = Term(bound(DensityOracle()), Exponential("maximize", beta=2.0))
    other = Term(bound(DensityOracle(scale=2.0)), TargetDistance("maximize", target=3.0, beta=0.5))
    both = ProductReward((density, other))
    total = ProductReward((density,))(CRYSTALS) + ProductReward((other,))(CRYSTALS)
    assert torch.equal(both(CRYSTALS), total)
    evaluated = both.evaluate(CRYSTALS)
    assert torch.allclose(evaluated.properties[1].values, 2.0 * evaluated.properties[0].values)


def test_a_candidate_without_the_property_has_the_floor_and_a_reason() -> None:
    answers = [Measurement.of("p", 1.0), Measurement.failed("no Li"), Measurement.of("p", 2.0)]
    source = bound(Answering(answers), "p")
    found = source(CRYSTALS[:3])
    assert (found.n_failed, found.reason) == (1, "no Li")
    reward = ProductReward((Term(source, Exponential("maximize", beta=1.0, floor=1e-3)),))
    assert reward(CRYSTALS[:3]).tolist() == pytest.approx([1.0, math.log(1e-3), 2.0])


def test_standard_deviations_come_from_the_prediction_before_the_measurement() -> None:
    answers = [
        Measurement.of("p", 1.0, std=0.3),
        Measurement.of("p", 1.0, std=0.3, metadata={"predictive_std": 0.5}),
    ]
    stds = bound(Answering(answers), "p")(CRYSTALS[:2]).stds
    assert stds is not None
    assert stds.tolist() == [0.3, 0.5]
    assert bound(DensityOracle())(CRYSTALS).stds is None


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([Measurement.of("p", 1.0)], "gave 1 answers to 2 candidates"),
        ([1.0, 2.0], "answered with a float"),
        ([Measurement.of("q", 1.0)] * 2, "measured q in its place"),
        ([Measurement.of("p", 1.0, unit="K")] * 2, "answers in 'K', but the config states the unit 'eV'"),
    ],
)
def test_a_broken_contract_is_said(answers: list[Any], message: str) -> None:
    with pytest.raises(OracleError, match=message):
        bound(Answering(answers), "p", "eV")(CRYSTALS[:2])


def test_an_exception_in_an_oracle_names_the_property() -> None:
    class Raising(Oracle):
        def evaluate(self, candidates: Sequence[Any]) -> Sequence[Measurement]:
            raise RuntimeError("out of memory")

    with pytest.raises(OracleError, match="oracle of 'p' raised RuntimeError: out of memory"):
        bound(Raising(), "p")(CRYSTALS)


def test_errors_of_a_shaping_name_the_property() -> None:
    reward = ProductReward((Term(bound(DensityOracle()), Exponential("maximize", beta=1.0, caution=1.0)),))
    with pytest.raises(ConfigError, match="reward of 'density': caution is 1, but"):
        reward(CRYSTALS)


def test_an_automatic_beta_is_fitted_term_by_term() -> None:
    stated = Term(bound(DensityOracle()), Exponential("maximize", beta=1.5))
    automatic = Term(bound(DensityOracle()), Exponential("maximize"))
    reward = ProductReward((stated, automatic))
    fitted = reward.fitted(CRYSTALS)
    assert fitted.terms[0] == stated
    values = stated.source(CRYSTALS).values
    assert fitted.terms[1].shaping == Exponential("maximize").fitted(values, None)
    assert fitted.fitted(CRYSTALS) == fitted


def test_a_property_that_no_crystal_has_is_said() -> None:
    source = bound(Answering([Measurement.failed("no Li")] * 4), "p")
    with pytest.raises(ConfigError, match="None of 4 candidates of the space has the property 'p': no Li"):
        ProductReward((Term(source, Exponential("maximize", beta=1.0)),)).fitted(CRYSTALS)
