"""Rules of chemistry, against SMACT's tests and brute force over oxidation states."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Element
from smact.screening import pauling_test

from activelearning.candidate import BoxCandidate, CrystalCandidate
from activelearning.contracts import OracleContext
from activelearning.contracts.registry import load_plugin
from activelearning.errors import ConfigError
from oracles.chemical_rules import ChemicalRulesOracle

# Halogens, chalcogens, metals of one and of many states, and hydrogen and carbon of both signs.
ELEMENTS = ["H", "Li", "C", "N", "O", "F", "Mg", "Al", "P", "S", "Cl", "Mn", "Fe", "Br", "I", "Au"]
COMPOSITIONS = st.dictionaries(st.sampled_from(ELEMENTS), st.integers(1, 8), min_size=1, max_size=4)


def bound(prop: str, unit: str | None = None, **params: Any) -> ChemicalRulesOracle:
    oracle = ChemicalRulesOracle(**params)
    oracle.bind(OracleContext("c", "f", prop, unit, 1.0, "", Path("nowhere")))
    oracle.check()
    return oracle


def told(oracle: ChemicalRulesOracle, composition: dict[str, int]) -> float | None:
    answer = oracle.evaluate([CrystalCandidate(1, composition)])[0]
    return answer.values[oracle.context.property].value if answer.is_success else None


def choices(composition: dict[str, int]) -> list[tuple[int, ...]]:
    """Every choice of one oxidation state an element, of pymatgen's without zero."""
    states = [[q for q in Element(symbol).oxidation_states if q != 0] for symbol in composition]
    return list(itertools.product(*states))


def charge(composition: dict[str, int], chosen: tuple[int, ...]) -> int:
    return sum(n * q for n, q in zip(composition.values(), chosen, strict=True))


@settings(max_examples=200)
@given(COMPOSITIONS)
def test_the_charge_left_over_is_that_of_brute_force(composition: dict[str, int]) -> None:
    least = min(abs(charge(composition, chosen)) for chosen in choices(composition))
    expected = least / sum(composition.values())
    assert told(bound("charge_imbalance"), composition) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=200)
@given(COMPOSITIONS)
def test_a_rule_is_kept_where_smact_says_so(composition: dict[str, int]) -> None:
    chi = [Element(symbol).X for symbol in composition]
    neutral = [chosen for chosen in choices(composition) if charge(composition, chosen) == 0]
    found = told(bound("electronegativity_violation"), composition)
    if not neutral:
        assert found is None
        return
    assert (found == 0.0) == any(pauling_test(chosen, chi) for chosen in neutral)
    violations = [
        max(x for x, q in zip(chi, chosen, strict=True) if q > 0)
        - min(x for x, q in zip(chi, chosen, strict=True) if q < 0)
        for chosen in neutral
    ]
    assert found == pytest.approx(max(0.0, min(violations)), abs=1e-12)


def test_known_cases() -> None:
    rule = bound("electronegativity_violation")
    assert told(rule, {"Li": 3, "P": 1, "S": 4}) == 0.0
    # Chlorine is a cation beside oxygen.
    assert told(rule, {"Cl": 2, "O": 1}) == 0.0
    # Nothing here can be an anion.
    assert told(rule, {"Li": 1, "Mg": 1}) is None
    gold = bound("electronegativity_violation", oxidation_states={"Au": [3], "I": [-1]})
    assert told(gold, {"Au": 1, "I": 3}) == 0.0
    wrong = bound("electronegativity_violation", oxidation_states={"Cl": [1], "S": [-2]})
    assert told(wrong, {"Cl": 2, "S": 1}) == pytest.approx(3.16 - 2.58)


def test_atoms_of_one_element_may_differ_where_that_is_allowed() -> None:
    """Fe3O4 is neutral with Fe2+ and Fe3+ together."""
    iron = {"Fe": [2, 3], "O": [-2]}
    magnetite = {"Fe": 3, "O": 4}
    assert told(bound("charge_imbalance", oxidation_states=iron), magnetite) == pytest.approx(1 / 7)
    mixed = {"oxidation_states": iron, "mixed_valence": True}
    assert told(bound("charge_imbalance", **mixed), magnetite) == 0.0
    assert told(bound("electronegativity_violation", **mixed), magnetite) == 0.0


def test_a_rule_may_have_another_name() -> None:
    oracle = bound("order", rule="electronegativity_violation")
    assert told(oracle, {"Li": 2, "O": 1}) == 0.0
    assert oracle.content()["rule"] == "electronegativity_violation"
    assert load_plugin("oracles", "chemical_rules") is ChemicalRulesOracle


def test_what_has_no_charges_fails_with_its_reason() -> None:
    oracle = bound("charge_imbalance")
    answers = oracle.evaluate([CrystalCandidate(1, {"He": 1}), BoxCandidate((0.0,))])
    assert [answer.is_success for answer in answers] == [False, False]
    assert "He" in (answers[0].reason or "")
    assert "needs crystals" in (answers[1].reason or "")


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="electronegativity_violation and charge_imbalance, not 'order'"):
        bound("order")
    with pytest.raises(ConfigError, match=r"e/atom.*'eV'"):
        bound("charge_imbalance", unit="eV")
    with pytest.raises(ConfigError, match="'Xx', which is no element"):
        ChemicalRulesOracle(oxidation_states={"Xx": [1]})
    with pytest.raises(ConfigError, match="of Li is"):
        ChemicalRulesOracle(oxidation_states={"Li": [0, 1]})
