"""Figures of samples against closed forms and other programs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.symmetry.groups import SpaceGroup

from activelearning.candidate import CrystalCandidate
from activelearning.sampling.statistics import CrystalCounts, Reweighted, correlation, quantiles

CUBE = (4.0, 4.0, 4.0, 90.0, 90.0, 90.0)


def test_quantiles_are_those_of_the_known_values() -> None:
    assert quantiles(np.array([3.0, np.nan, 1.0, 2.0, 4.0, 5.0])) == {
        "min": 1.0,
        "q25": 2.0,
        "median": 3.0,
        "q75": 4.0,
        "max": 5.0,
        "n": 5,
    }
    assert quantiles(np.array([np.nan])) is None
    assert quantiles(np.zeros(0)) is None


def test_values_that_are_not_finite_are_left_out() -> None:
    found = quantiles(np.array([1.0, np.inf, 3.0, -np.inf, np.nan]))
    assert found is not None
    assert (found["max"], found["n"]) == (3.0, 2)
    log_rewards = np.array([0.0, 1.0, 2.0, 3.0, 4.0, np.inf])
    told = correlation(np.array([0.0, 1.0, -np.inf, 3.0, np.nan, 5.0]), log_rewards)
    assert told == {"pearson": pytest.approx(1.0), "spearman": pytest.approx(1.0), "n": 3}
    assert correlation(np.full(4, -np.inf), np.arange(4.0)) == {"pearson": None, "spearman": None, "n": 0}


def test_an_exact_sampler_has_correlation_one_and_equal_weights() -> None:
    log_rewards = np.random.default_rng(0).normal(size=100)
    found = correlation(log_rewards - 3.0, log_rewards)
    assert found["pearson"] == pytest.approx(1.0)
    assert found["spearman"] == pytest.approx(1.0)
    weighed = Reweighted.of(log_rewards - 3.0, log_rewards)
    assert weighed.weights == pytest.approx(np.full(100, 0.01))
    assert weighed.effective_sample_size == pytest.approx(100.0)
    assert weighed.log_z == pytest.approx(3.0)


def test_weighted_samples_have_the_rewards_own_quartiles() -> None:
    # Samples of N(0, 1), reward exp(x - x²/2): the reward's distribution is N(1, 1), log Z = 1/2 + log sqrt(2 π).
    rng = np.random.default_rng(1)
    x = rng.normal(size=200_000)
    weighed = Reweighted.of(-0.5 * x**2 - 0.5 * np.log(2 * np.pi), x - 0.5 * x**2)
    found = weighed.quantiles(x)
    assert found is not None
    assert found["median"] == pytest.approx(1.0, abs=0.02)
    assert found["q75"] - found["q25"] == pytest.approx(1.349, abs=0.03)
    assert weighed.log_z == pytest.approx(0.5 + 0.5 * np.log(2 * np.pi), abs=0.02)
    assert weighed.effective_sample_size == pytest.approx(200_000 / np.e, rel=0.1)  # 1 / E[w²] = exp(-1)


@given(st.lists(st.floats(-30.0, 30.0), min_size=1, max_size=30), st.floats(-500.0, 500.0))
def test_weights_are_a_distribution_whatever_the_scale(log_weights: list[float], shift: float) -> None:
    weighed = Reweighted.of(np.full(len(log_weights), -shift), np.array(log_weights))
    assert weighed.weights.sum() == pytest.approx(1.0)
    assert 1.0 - 1e-9 <= weighed.effective_sample_size <= len(log_weights) + 1e-9
    unshifted = Reweighted.of(np.zeros(len(log_weights)), np.array(log_weights))
    assert weighed.weights == pytest.approx(unshifted.weights, rel=1e-6, abs=1e-12)
    assert weighed.log_z == pytest.approx(unshifted.log_z + shift, rel=1e-9, abs=1e-6)


def test_counts_of_a_few_known_crystals() -> None:
    crystals = [
        CrystalCandidate(225, {"Na": 4, "Cl": 4}, CUBE),
        CrystalCandidate(225, {"Mg": 4, "O": 4}, CUBE),
        CrystalCandidate(167, {"Al": 12, "O": 18}, (4.76, 4.76, 12.99, 90.0, 90.0, 120.0)),
        CrystalCandidate(152, {"Si": 3, "O": 6}, (4.91, 4.91, 5.4, 90.0, 90.0, 120.0)),
    ]
    counts = CrystalCounts.of(crystals)
    assert counts.space_groups == {225: 2, 167: 1, 152: 1}
    assert counts.lattice_systems == {"cubic": 2, "trigonal-rhombohedral": 1, "trigonal-hexagonal": 1}
    assert counts.point_symmetries == {"centrosymmetric": 3, "enantiomorphic": 1}
    assert counts.elements == {"Na": 1, "Cl": 1, "Mg": 1, "O": 3, "Al": 1, "Si": 1}
    assert counts.n_elements == {2: 4}
    assert counts.distinct() == {
        "space_groups": 3,
        "lattice_systems": 3,
        "point_symmetries": 2,
        "elements": 6,
    }
    # pymatgen's own systems, of which the trigonal one is not split.
    assert {SpaceGroup.from_int_number(g).crystal_system for g in counts.space_groups} == {
        "cubic",
        "trigonal",
    }
