"""Masks of the composition stage against enumeration: an action is allowed if and only if it can be completed."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pyxtal.symmetry import Group

from activelearning.crystals import composition as composition_module
from activelearning.crystals.charge import total_charges
from activelearning.crystals.composition import CompositionMasks
from activelearning.crystals.symmetry import space_group
from activelearning.crystals.wyckoff import CountAutomaton, CountLimits, Signature


@cache
def fits(number: int, counts: tuple[int, ...]) -> bool:
    return bool(Group(number).check_compatible(list(counts))[0])


def charges(states, n, is_mixed):
    """All charges of n atoms, by trying every choice of oxidation states."""
    if is_mixed:
        return {sum(chosen) for chosen in itertools.combinations_with_replacement(states, n)}
    return {n * q for q in states} if n else {0}


def valid_compositions(number, states, required, limits, mixed=()):
    """All valid counts of each element, by trying them all with PyXtal and every choice of oxidation states."""
    found = set()
    for counts in itertools.product(range(limits.per_element + 1), repeat=len(states)):
        present = [n for n in counts if n]
        if (
            limits.n_elements[0] <= len(present) <= limits.n_elements[1]
            and limits.atoms[0] <= sum(present) <= limits.atoms[1]
            and all(n for n, is_required in zip(counts, required, strict=True) if is_required)
            and any(
                sum(chosen) == 0
                for chosen in itertools.product(
                    *(charges(q, n, e in mixed) for e, (n, q) in enumerate(zip(counts, states, strict=True)))
                )
            )
            and fits(number, tuple(sorted(present)))
        ):
            found.add(counts)
    return found


def made(numbers, states, required, limits, mixed=()):
    automaton = CountAutomaton(limits.per_element)
    roots = [automaton.add(Signature.of(space_group(n), limits.per_element), limits) for n in numbers]
    automaton.freeze()
    return masks_of(automaton, states, required, mixed), np.array(roots)


def masks_of(automaton, states, required, mixed=()):
    n = automaton.per_element
    totals = [
        [total_charges(q, k, is_mixed=e in mixed) for k in range(1, n + 1)] for e, q in enumerate(states)
    ]
    allowed = np.ones((len(states), n + 1), dtype=bool)
    allowed[:, 0] = ~np.array(required)
    return CompositionMasks(automaton, totals, allowed)


def walk(masks, root):
    """All compositions that masks let through; fails on a state without an action or a composition met twice."""
    finished = set()
    pending = [(0,) * masks.n_elements]
    while pending:
        counts = np.array(pending)
        before = counts.copy()
        allowed = masks.masks(np.full(len(counts), root), counts)
        assert (counts == before).all()
        assert allowed.any(axis=1).all(), "stuck"
        children = []
        for row, action in np.argwhere(allowed):
            if action == masks.n_actions - 1:
                assert pending[row] not in finished
                finished.add(pending[row])
                continue
            element, n = divmod(int(action), masks.per_element)
            assert not any(pending[row][element:]), "elements come in order"
            child = list(pending[row])
            child[element] = n + 1
            children.append(tuple(child))
        assert len(children) == len(set(children)), "one path"
        pending = children
    return finished


SPACES = st.fixed_dictionaries(
    {
        "number": st.sampled_from(
            [1, 2, 3, 16, 47, 62, 84, 123, 146, 166, 194, 216, 221, 225, 227, 229, 230]
        ),
        # One element of each sign at least, so that most spaces hold something.
        "states": st.tuples(
            st.lists(st.integers(1, 5), min_size=1, max_size=3, unique=True),
            st.lists(st.integers(-4, -1), min_size=1, max_size=2, unique=True),
            *[st.lists(st.integers(-4, 5), min_size=1, max_size=3, unique=True)] * 2,
        ).flatmap(lambda s: st.sampled_from([s[:2], s[:3], s]).flatmap(st.permutations)),
        "required": st.one_of(st.none(), st.integers(0, 3)),
        "mixed": st.sets(st.integers(0, 3), max_size=2),
        "n_elements": st.tuples(st.integers(1, 2), st.integers(2, 4)).map(lambda p: (min(p), max(p))),
        "per_element": st.sampled_from([4, 6, 8]),
        "atoms": st.tuples(st.integers(1, 6), st.integers(8, 24)),
    }
)


@settings(max_examples=250)
@given(SPACES)
def test_masks_let_through_exactly_the_valid_compositions(space):
    states = space["states"]
    required = [i == space["required"] for i in range(len(states))]
    limits = CountLimits(space["n_elements"], space["per_element"], space["atoms"])
    masks, roots = made([space["number"]], states, required, limits, space["mixed"])
    expected = valid_compositions(space["number"], states, required, limits, space["mixed"])
    assert masks.has_composition(int(roots[0])) == bool(expected)
    event(f"below {10 ** len(str(len(expected)))} compositions" if expected else "empty")
    if expected:
        assert walk(masks, roots[0]) == expected


def test_spaces_of_many_groups_share_their_tables():
    states = [(1,), (-2, 4), (-1, 3)]
    limits = CountLimits((1, 3), 8, (1, 16))
    numbers = list(range(1, 231, 6))
    masks, roots = made(numbers, states, [False] * 3, limits)
    sizes = []
    for number, root in zip(numbers, roots, strict=True):
        expected = valid_compositions(number, states, [False] * 3, limits)
        assert masks.has_composition(int(root)) == bool(expected)
        if expected:
            assert walk(masks, root) == expected
        sizes.append(len(expected))
    assert len(set(sizes)) > 5


def test_neutrality_turned_off_allows_every_count_that_fits():
    limits = CountLimits((1, 2), 6, (1, 12))
    masks, roots = made([221], [(0,), (0,)], [False, False], limits)
    assert walk(masks, roots[0]) == valid_compositions(221, [(0,), (0,)], [False] * 2, limits)


def test_small_memory_gives_the_same_masks(monkeypatch):
    states = [(1,), (-3, 3, 5), (-2, 4, 6), (-1, 7)]
    limits = CountLimits((1, 4), 12, (1, 24))
    numbers = [2, 14, 62, 166, 216, 225]
    plenty, roots = made(numbers, states, [False] * 4, limits)
    monkeypatch.setattr(composition_module, "BLOCK_BYTES", 1)
    monkeypatch.setattr(composition_module, "CHUNK", 7)
    scarce, _ = made(numbers, states, [False] * 4, limits)
    rng = np.random.default_rng(1)
    rows = roots[rng.integers(0, len(roots), 300)]
    counts = rng.integers(0, 7, (300, 4)) * (rng.random((300, 4)) < 0.4)
    expected = plenty.masks(rows, counts)
    assert expected.any(axis=1).sum() > 50
    assert (scarce.masks(rows, counts) == expected).all()


def test_a_full_memory_loses_nothing_on_the_way(monkeypatch):
    """What is dropped for the first node of a call is made again for those behind it."""
    states = [(1,), (-3, 3, 5), (-2, 4, 6), (-1, 7)]
    limits = CountLimits((1, 4), 12, (1, 24))
    numbers = [2, 14, 62, 166, 216, 225]
    plenty, roots = made(numbers, states, [False] * 4, limits)
    monkeypatch.setattr(composition_module, "BLOCK_BYTES", 1)
    scarce, _ = made(numbers, states, [False] * 4, limits)
    rng = np.random.default_rng(2)
    for _ in range(200):
        rows = roots[rng.integers(0, len(roots), 8)]
        counts = rng.integers(0, 7, (8, 4)) * (rng.random((8, 4)) < 0.4)
        assert (scarce.masks(rows, counts) == plenty.masks(rows, counts)).all()


def test_forgotten_charge_sets_are_found_again(monkeypatch):
    states = [(1,), (-3, 3, 5), (-2, 4, 6), (-1, 7)]
    limits = CountLimits((1, 4), 12, (1, 24))
    plenty, roots = made([2, 62, 225], states, [False] * 4, limits, mixed=(1, 2))
    monkeypatch.setattr(composition_module, "CHUNK", 32 * 12 * 5)
    monkeypatch.setattr(composition_module, "KNOWN_SETS", 3)
    forgetful, _ = made([2, 62, 225], states, [False] * 4, limits, mixed=(1, 2))
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 7, (200, 4)) * (rng.random((200, 4)) < 0.5)
    rows = roots[rng.integers(0, len(roots), 200)]
    expected = plenty.masks(rows, counts)
    assert expected.any(axis=1).sum() > 50
    for _ in range(2):
        assert (forgetful.masks(rows, counts) == expected).all()
        assert len(forgetful._sets) < len(plenty._sets)


def test_impossible_counts_have_no_action():
    limits = CountLimits((2, 2), 4, (1, 8))
    masks, roots = made([1], [(1,), (2,), (-2,)], [False] * 3, limits)
    dead = np.array([[1, 1, 0], [4, 4, 4], [3, 0, 4]])
    assert not masks.masks(np.repeat(roots, 3), dead).any()


@pytest.mark.parametrize("number", [216, 225])
def test_a_required_element_is_never_skipped(number):
    limits = CountLimits((1, 3), 8, (1, 24))
    masks, roots = made([number], [(1,), (-1, 5), (-2,)], [False, True, False], limits)
    finished = walk(masks, roots[0])
    assert finished
    assert all(counts[1] > 0 for counts in finished)


@settings(max_examples=60)
@given(
    numbers=st.lists(
        st.sampled_from([2, 47, 84, 123, 195, 200, 207, 216, 221, 225, 227, 230]),
        min_size=1,
        max_size=4,
        unique=True,
    ),
    per_element=st.sampled_from([4, 8]),
    seed=st.integers(0, 1000),
)
def test_a_union_holds_what_one_of_its_groups_holds(numbers, per_element, seed):
    rng = np.random.default_rng(seed)
    states = [(1,), (-2, 3), (-1, 4)]
    automaton = CountAutomaton(per_element)
    limits, roots = [], []
    for number in numbers:
        fewest = int(rng.integers(1, 9))
        limits.append(CountLimits((1, 3), per_element, (fewest, int(rng.integers(fewest, 25)))))
        roots.append(automaton.add(Signature.of(space_group(number), per_element), limits[-1]))
    union = automaton.add_union(roots)
    automaton.freeze()
    masks = masks_of(automaton, states, [False] * 3)
    each = [
        valid_compositions(number, states, [False] * 3, limit)
        for number, limit in zip(numbers, limits, strict=True)
    ]
    expected = set().union(*each)
    assert masks.has_composition(union) == bool(expected)
    if expected:
        assert walk(masks, union) == expected
        counts = np.array(sorted(expected))
        found = masks.is_complete(np.array(roots), counts)
        assert found.tolist() == [[tuple(row) in some for some in each] for row in counts.tolist()]
