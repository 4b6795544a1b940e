from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Element

from activelearning.crystals.charge import default_oxidation_states, is_neutral

STATES = st.lists(st.integers(-5, 7).filter(bool), min_size=1, max_size=5)


@given(st.lists(st.tuples(st.integers(1, 20), STATES), min_size=1, max_size=4))
def test_neutrality_is_that_of_brute_force(elements):
    symbols = ["Li", "P", "S", "Cl"][: len(elements)]
    composition = {symbol: n for symbol, (n, _) in zip(symbols, elements, strict=True)}
    states = {symbol: q for symbol, (_, q) in zip(symbols, elements, strict=True)}
    expected = any(
        sum(n * q for (n, _), q in zip(elements, chosen, strict=True)) == 0
        for chosen in itertools.product(*(q for _, q in elements))
    )
    assert is_neutral(composition, states) == expected


@pytest.mark.parametrize(
    ("composition", "expected"),
    [
        ({"Li": 2, "O": 1}, True),
        ({"Li": 6, "P": 1, "S": 5, "Cl": 1}, True),
        ({"Li": 10, "Ge": 1, "P": 2, "S": 12}, True),
        ({"Li": 1, "Ca": 1}, False),
        ({"Li": 3, "Mg": 1}, False),
        # Mixed valence: neutral only with two states of iron.
        ({"Fe": 3, "O": 4}, False),
    ],
)
def test_known_compounds(composition, expected):
    states = {symbol: default_oxidation_states(symbol) for symbol in composition}
    assert is_neutral(composition, states) is expected


def test_defaults_are_those_of_pymatgen_without_zero():
    for number in range(1, 104):
        element = Element.from_Z(number)
        states = default_oxidation_states(element.symbol)
        assert 0 not in states
        assert set(states) == set(element.oxidation_states) - {0}
