from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Element

from activelearning.crystals.charge import ChargeSet, default_oxidation_states, is_neutral, total_charges

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


@given(STATES, st.integers(1, 6))
def test_mixed_totals_are_those_of_brute_force(states, n):
    expected = {sum(chosen) for chosen in itertools.combinations_with_replacement(states, n)}
    assert total_charges(states, n, is_mixed=True) == tuple(sorted(expected))
    assert total_charges(states, n, is_mixed=False) == tuple(sorted({n * q for q in states}))


@given(
    st.lists(st.tuples(st.integers(1, 4), STATES, st.booleans()), min_size=1, max_size=4).filter(
        lambda elements: sum(n for n, *_ in elements) <= 9
    )
)
def test_mixed_neutrality_is_that_of_brute_force(elements):
    symbols = ["Li", "P", "S", "Cl"][: len(elements)]
    atoms = []
    for n, q, is_mixed in elements:
        choices = itertools.combinations_with_replacement(q, n) if is_mixed else ((s,) * n for s in q)
        atoms.append([sum(choice) for choice in choices])
    expected = any(sum(chosen) == 0 for chosen in itertools.product(*atoms))
    rows = list(zip(symbols, elements, strict=True))
    found = is_neutral(
        {symbol: n for symbol, (n, _, _) in rows},
        {symbol: q for symbol, (_, q, _) in rows},
        [symbol for symbol, (_, _, is_mixed) in rows if is_mixed],
    )
    assert found == expected


@given(st.sets(st.integers(-40, 40), max_size=24), st.sets(st.integers(0, 60), max_size=10))
def test_adding_a_set_of_charges_gives_all_sums(charges, bits):
    added = ChargeSet.of(charges)
    expected = {a + b for a in charges for b in bits if a + b >= 0}
    assert added.added_to(sum(1 << b for b in bits)) == sum(1 << b for b in expected)
    assert added.largest == max(map(abs, charges), default=0)
    opposite = {b - a for a in charges for b in bits if b - a >= 0}
    assert (-added).added_to(sum(1 << b for b in bits)) == sum(1 << b for b in opposite)


@pytest.mark.parametrize(
    ("composition", "mixed", "expected"),
    [
        ({"Fe": 3, "O": 4}, ["Fe"], True),
        ({"Fe": 3, "O": 4}, ["O"], False),
        ({"Mn": 3, "O": 4}, ["Mn"], True),
        ({"Li": 1, "Mg": 3}, ["Li", "Mg"], False),
    ],
)
def test_compounds_of_mixed_valence(composition, mixed, expected):
    states = {"Fe": (2, 3), "Mn": (2, 3), "O": (-2,), "Li": (1,), "Mg": (2,)}
    assert is_neutral(composition, states, mixed) is expected


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
