"""Wyckoff positions chosen step by step: exactly PyXtal's combinations, each by one path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from ase.data import atomic_numbers, covalent_radii
from pymatgen.core import Lattice, Structure
from pyxtal.symmetry import Group, Wyckoff_position

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.sites import wyckoff_violations
from activelearning.crystals.symmetry import SpaceGroup, space_group, space_groups
from activelearning.crystals.wyckoff import is_compatible
from samplers.gflownet.environments.crystal_stages.wyckoff import WyckoffStage
from samplers.gflownet.environments.crystal_stages.wyckoff_room import FILLINGS

ELEMENTS = ("Li", "O", "P", "S", "Cl")


def make_stage(
    numbers: Sequence[int],
    *,
    n_elements: int = 3,
    per_element: int = 24,
    atoms: int = 80,
    coordinates: bool = False,
) -> WyckoffStage:
    space = SimpleNamespace(
        elements=ELEMENTS,
        space_groups=tuple(space_group(number) for number in numbers),
        n_elements=(1, n_elements),
        max_atoms=atoms,
        max_atoms_per_element=per_element,
        coordinates=coordinates,
    )
    space.base = space
    return WyckoffStage(space)


@dataclass
class Batch:
    """Crystals whose groups and counts are known."""

    groups: np.ndarray
    counts: np.ndarray
    wyckoff: np.ndarray
    lattices: np.ndarray

    def block(self, name: str) -> np.ndarray:
        assert name == "wyckoff"
        return self.wyckoff

    def take(self, rows: np.ndarray) -> Batch:
        return Batch(self.groups[rows], self.counts[rows], self.wyckoff[rows], self.lattices[rows])

    def __len__(self) -> int:
        return len(self.groups)


def start(stage: WyckoffStage, groups: Sequence[int], counts: Sequence[Sequence[int]]) -> Batch:
    padded = np.zeros((len(groups), len(ELEMENTS)), dtype=np.int64)
    for row, values in enumerate(counts):
        padded[row, : len(values)] = values
    return Batch(
        np.array(groups, dtype=np.int64),
        padded,
        np.zeros((len(groups), stage.width)),
        np.zeros((len(groups), 6)),
    )


def ways(group: SpaceGroup, counts: Sequence[int]) -> int:
    """Number of assignments, by polynomials: fixed positions are given away one by one, the rest is free."""

    def on_free(n: int) -> int:
        found = [1] + [0] * n
        for position in group.wyckoff:
            if not position.is_fixed:
                for total in range(position.multiplicity, n + 1):
                    found[total] += found[total - position.multiplicity]
        return found[n]

    left = {tuple(counts): 1}
    for position in group.wyckoff:
        if position.is_fixed:
            for rest, n_ways in list(left.items()):
                for e, n in enumerate(rest):
                    if n >= position.multiplicity:
                        key = (*rest[:e], n - position.multiplicity, *rest[e + 1 :])
                        left[key] = left.get(key, 0) + n_ways
    return sum(n_ways * math.prod(map(on_free, rest)) for rest, n_ways in left.items())


def everything(
    stage: WyckoffStage, group: int, counts: Sequence[int], lattice: Sequence[float] = (0.0,) * 6
) -> list[dict[str, tuple[str, ...]]]:
    """All assignments by following every allowed action; a dead end fails."""
    found = []
    open_ = start(stage, [group], [counts])
    open_.lattices[:] = lattice
    while len(open_):
        done = stage.is_complete(open_)
        found += stage.values(open_.take(np.flatnonzero(done)))
        open_ = open_.take(np.flatnonzero(~done))
        if not len(open_):
            break
        mask = stage.mask(open_)
        assert mask.any(axis=1).all()
        rows, actions = np.nonzero(mask)
        parents = open_.take(rows)
        children = stage.step(parents, actions, np.zeros((len(rows), 0)))
        open_ = Batch(parents.groups, parents.counts, children, parents.lattices)
        back, _, undone = stage.step_back(open_)
        assert np.array_equal(back, actions)
        assert np.array_equal(undone, parents.wyckoff)
    return found


def canonical(assignment: dict[str, tuple[str, ...]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple(sorted((symbol, tuple(sorted(letters))) for symbol, letters in assignment.items()))


CASES = [
    (2, (2, 1)),
    (2, (3, 2, 1)),
    (10, (2, 3)),
    (15, (4, 8)),
    (47, (1, 2)),
    (62, (4, 4, 8)),
    (123, (1, 2, 2)),
    (166, (3, 6)),
    (194, (2, 2, 4)),
    (208, (2, 6, 6)),
    (221, (1, 1, 3)),
    (223, (2, 6, 8)),
    (225, (4, 4, 8)),
    (225, (24, 8, 4)),
    (227, (8, 16, 24)),
    (229, (2, 6, 12)),
]


@pytest.mark.parametrize(("number", "counts"), CASES)
def test_the_assignments_are_those_of_pyxtal_each_once(number, counts):
    stage = make_stage([number])
    found = [canonical(assignment) for assignment in everything(stage, 0, counts)]
    combinations, _, _ = Group(number).list_wyckoff_combinations(list(counts))
    expected = {
        canonical(
            {
                symbol: [site[-1] for site in sites]
                for symbol, sites in zip(ELEMENTS, combination, strict=False)
            }
        )
        for combination in combinations
    }
    assert len(found) == len(set(found)) == ways(space_group(number), counts)
    assert set(found) == expected


@cache
def positions_of(number: int) -> dict[str, Wyckoff_position]:
    return {w.letter: w for w in Group(number)}


@cache
def on_line(number: int, line: str, letter: str) -> int:
    """Atoms of an orbit on a letter that lie on the first line of another, by collinearity over many translations."""
    positions = positions_of(number)
    xyz = np.array([0.1234, 0.3456, 0.5791])
    base = positions[line].ops[0].operate(np.zeros(3))
    direction = positions[line].ops[0].rotation_matrix.sum(axis=1)
    images = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    n = 0
    for operation in positions[letter].ops:
        gaps = operation.operate(xyz) - base + images
        n += bool((np.abs(np.cross(gaps, direction)) < 1e-6).all(axis=1).any())
    return n


def has_room(
    number: int, lattice: Sequence[float], wyckoff: dict[str, tuple[str, ...]], share: float
) -> bool:
    """Whether lines are full to no more than a share, and fixed positions far enough apart, by pymatgen's distances."""
    cell = Lattice.from_parameters(*lattice)
    positions = positions_of(number)
    radius = {symbol: 0.6 * covalent_radii[atomic_numbers[symbol]] for symbol in wyckoff}
    for line in (letter for letter, w in positions.items() if w.get_dof() == 1):
        direction = positions[line].ops[0].rotation_matrix.sum(axis=1)
        taken = sum(
            2 * radius[symbol] * on_line(number, line, letter)
            for symbol, letters in wyckoff.items()
            for letter in letters
        )
        if taken > share * np.linalg.norm(direction @ cell.matrix):
            return False
    fixed = [
        (symbol, operation.operate(np.zeros(3)) % 1.0)
        for symbol, letters in wyckoff.items()
        for letter in letters
        if positions[letter].get_dof() == 0
        for operation in positions[letter].ops
    ]
    structure = Structure(cell, [symbol for symbol, _ in fixed], [xyz for _, xyz in fixed]) if fixed else None
    if structure is None:
        return True
    first, second, _, distances = structure.get_neighbor_list(4.0)
    return all(
        d >= radius[structure[i].specie.symbol] + radius[structure[j].specie.symbol]
        for i, j, d in zip(first, second, distances, strict=True)
    )


@pytest.mark.parametrize(
    ("number", "counts", "lattice"),
    [
        (75, (3, 5), (6, 6, 7, 90, 90, 90)),
        (99, (3, 2, 1), (6, 6, 6.2, 90, 90, 90)),
        (150, (3, 3), (4.6, 4.6, 6.5, 90, 90, 120)),
        (221, (6, 7), (4.6, 4.6, 4.6, 90, 90, 90)),
        (10, (1, 2), (3.6, 3.4, 4.0, 90, 104, 90)),
        (25, (3, 2), (5, 5, 4.5, 90, 90, 90)),
    ],
)
def test_with_coordinates_to_follow_assignments_are_those_with_room(number, counts, lattice):
    without = [canonical(a) for a in everything(make_stage([number]), 0, counts)]
    found = {canonical(a) for a in everything(make_stage([number], coordinates=True), 0, counts, lattice)}
    fits = {share: {a for a in without if has_room(number, lattice, dict(a), share)} for share in FILLINGS}
    expected = next((kept for kept in fits.values() if kept), set(without))
    assert found == expected
    assert 0 < len(expected) < len(without)


def test_every_count_that_fits_is_placed_and_only_those():
    rng = np.random.default_rng(0)
    stage = make_stage(range(1, 231), per_element=12)
    answers = []
    for _ in range(400):
        number = int(rng.integers(1, 231))
        counts = rng.integers(1, 13, int(rng.integers(1, 4))).tolist()
        batch = start(stage, [number - 1], [counts])
        answers.append(bool(stage.mask(batch).any()))
        assert answers[-1] == is_compatible(space_group(number), counts), (number, counts)
    assert 0.1 < np.mean(answers) < 0.9


def sampled(stage: WyckoffStage, batch: Batch, rng: np.random.Generator) -> Batch:
    """Complete assignments by uniform choices; every row keeps moving until it is done."""
    for _ in range(stage.max_steps):
        rows = np.flatnonzero(~stage.is_complete(batch))
        if not len(rows):
            break
        at = batch.take(rows)
        mask = stage.mask(at)
        assert mask.any(axis=1).all(), "stuck"
        actions = np.argmax(mask * rng.random(mask.shape), axis=1)
        block = stage.step(at, actions, np.zeros((len(rows), 0)))
        back, _, undone = stage.step_back(Batch(at.groups, at.counts, block, at.lattices))
        assert np.array_equal(back, actions)
        assert np.array_equal(undone, at.wyckoff)
        batch.wyckoff[rows] = block
    assert stage.is_complete(batch).all()
    return batch


def compatible_counts(rng: np.random.Generator, n: int, most: int) -> tuple[list[int], list[list[int]]]:
    groups, counts = [], []
    while len(groups) < n:
        number = int(rng.integers(1, 231))
        values = rng.integers(1, most + 1, int(rng.integers(1, 4))).tolist()
        if is_compatible(space_group(number), values):
            groups.append(number - 1)
            counts.append(values)
    return groups, counts


def test_sampled_assignments_hold_their_composition_and_read_back():
    rng = np.random.default_rng(1)
    stage = make_stage(range(1, 231))
    batch = sampled(stage, start(stage, *compatible_counts(rng, 600, 24)), rng)
    values = stage.values(batch)
    candidates = []
    for group, counts, wyckoff in zip(batch.groups, batch.counts, values, strict=True):
        composition = {symbol: int(n) for symbol, n in zip(ELEMENTS, counts, strict=True) if n}
        assert wyckoff_violations(int(group) + 1, composition, wyckoff) == []
        # PyXtal's table, not ours.
        positions = {w.letter: w for w in Group(int(group) + 1)}
        assert {
            s: sum(positions[x].multiplicity for x in letters) for s, letters in wyckoff.items()
        } == composition
        used = [x for letters in wyckoff.values() for x in letters if positions[x].get_dof() == 0]
        assert len(used) == len(set(used))
        candidates.append(
            CrystalCandidate(int(group) + 1, composition, (5,) * 3 + (90,) * 3, wyckoff=wyckoff)
        )
    assert np.array_equal(stage.read(candidates, batch), batch.wyckoff)


def test_inputs_tell_what_is_to_be_placed():
    stage = make_stage([2, 225])
    batch = start(stage, [0, 1], [(2, 1), (4, 8)])
    actions = np.argmax(stage.mask(batch), axis=1)
    begun = Batch(batch.groups, batch.counts, stage.step(batch, actions, np.zeros((2, 0))), batch.lattices)
    inputs = stage.encode(begun)
    assert inputs.shape == (2, stage.n_inputs)
    assert np.isfinite(inputs).all()
    assert (inputs != stage.encode(batch)).any(axis=1).all()
    assert stage.is_empty(batch).all()
    assert not stage.is_empty(begun).any()


def test_a_candidate_that_does_not_fit_is_refused():
    stage = make_stage([225])
    batch = start(stage, [0], [(4,)])
    bare = CrystalCandidate(225, {"Li": 4}, (5,) * 3 + (90,) * 3)
    with pytest.raises(ValueError, match="no Wyckoff positions"):
        stage.read([bare], batch)
    wrong = CrystalCandidate(225, {"Li": 4}, (5,) * 3 + (90,) * 3, wyckoff={"Li": ("z",)})
    with pytest.raises(ValueError, match="no Li on a Wyckoff position z"):
        stage.read([wrong], batch)


def test_assignments_of_all_groups_are_exact():
    """Small counts in each of the 230 groups, the number of ways by an independent count."""
    rng = np.random.default_rng(2)
    stage = make_stage(range(1, 231), per_element=24)
    for group in space_groups():
        tried = 0
        while tried < 4:
            unit = min(w.multiplicity for w in group.wyckoff)
            counts = (rng.integers(1, 4, int(rng.integers(1, 4))) * unit).tolist()
            expected = ways(group, counts) if max(counts) <= 24 else 0
            if expected > 3000 or max(counts) > 24:
                counts = [min(unit, 24)]
                expected = ways(group, counts)
            tried += 1
            if expected and not is_compatible(group, counts):
                raise AssertionError((group.number, counts))
            if expected:
                found = [canonical(a) for a in everything(stage, group.number - 1, counts)]
                assert len(found) == len(set(found)) == expected, (group.number, counts)
