"""Counts on Wyckoff positions against PyXtal."""

from __future__ import annotations

import numpy as np
import pytest
from pyxtal.symmetry import Group

from activelearning.crystals.symmetry import space_group
from activelearning.crystals.wyckoff import CountAutomaton, CountLimits, Signature, is_compatible


def test_compatibility_agrees_with_pyxtal():
    rng = np.random.default_rng(0)
    answers = []
    for _ in range(600):
        number = int(rng.integers(1, 231))
        counts = rng.integers(1, 25, int(rng.integers(1, 6))).tolist()
        answers.append(is_compatible(space_group(number), counts))
        assert answers[-1] == Group(number).check_compatible(counts)[0], (number, counts)
    assert 0.05 < np.mean(answers) < 0.8


@pytest.mark.parametrize(
    ("number", "counts", "expected"),
    [
        (225, [4, 4], True),  # rock salt: 4a, 4b
        (225, [4, 4, 4], False),  # there is no third fixed position of four
        (225, [4, 8], True),  # fluorite: 4a, 8c
        (221, [1, 1, 3], True),  # perovskite: 1a, 1b, 3c
        (221, [1, 1, 1], False),
        (227, [8, 16, 32], True),  # spinel: 8a, 16d, 32e
        (2, [1] * 8, True),  # eight inversion centres
        (2, [1] * 9, False),
        (1, [7, 5, 3], True),
    ],
)
def test_known_structures(number, counts, expected):
    assert is_compatible(space_group(number), counts) is expected


@pytest.mark.parametrize("number", [2, 16, 47, 123, 194, 221, 225, 230])
def test_automaton_accepts_what_is_compatible(number):
    limits = CountLimits(n_elements=(2, 3), per_element=9, atoms=(5, 20))
    automaton = CountAutomaton(9)
    root = automaton.add(Signature.of(space_group(number), 9), limits)
    automaton.freeze()
    for counts in np.ndindex(10, 10, 10):
        sequence = [n for n in counts if n]
        # A zero in the middle would make two ways to write one sequence.
        if 0 in counts and tuple(sequence) != counts[: len(sequence)]:
            continue
        node = root
        for n in sequence:
            node = int(automaton.children[node, n - 1]) if node >= 0 else -1
        accepted = node >= 0 and bool(automaton.is_accepting[node])
        expected = (
            2 <= len(sequence) <= 3
            and 5 <= sum(sequence) <= 20
            and bool(Group(number).check_compatible(sequence)[0])
        )
        assert accepted == expected, (number, sequence)


def test_automaton_stays_small_for_all_groups():
    automaton = CountAutomaton(16)
    for number in range(1, 231):
        automaton.add(Signature.of(space_group(number), 16), CountLimits((1, 5), 16, (1, 80)))
    automaton.freeze()
    assert automaton.n_nodes < 1000
    # Children come before parents, which the dynamic program relies on.
    assert (automaton.children < np.arange(automaton.n_nodes)[:, None]).all()
