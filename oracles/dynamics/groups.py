"""Atoms of the framework that move as one: the molecules and molecular ions that a crystal starts with.

A PS4 that turns carries its S by up to 4 Å and goes nowhere; its centre tells whether it left its place. Atoms of a
network that runs through the whole crystal, and atoms without bonds, stand for themselves.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.formula import Formula
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from oracles.dynamics.analysis import Array

BOND = 1.25  # times the sum of covalent radii: closer, atoms are bonded
Shift = tuple[int, int, int]
Pair = tuple[int, int, int, int, int]  # two atoms, and by which cells the second is shifted


@dataclass(frozen=True)
class Group:
    """A molecule of the framework, or an atom that stands for itself.

    Attributes:
        name: Formula, as in `PS4`.
        atoms: Their numbers in the crystal.
    """

    name: str
    atoms: tuple[int, ...]


def pairs(atoms: Atoms, framework: NDArray[np.bool_], factor: float) -> set[Pair]:
    """Pairs of framework atoms nearer than so many times the sum of their covalent radii, each once.

    Args:
        atoms: The crystal; positions may be unwrapped, and shifts are between the atoms as they are placed.
        framework: Which atoms are not mobile, `N`.
        factor: Of the sum of covalent radii.
    """
    reach = np.where(framework, factor * covalent_radii[atoms.numbers], 0.0)
    found = zip(*neighbor_list("ijS", atoms, cutoff=reach), strict=True)
    return {
        (int(i), int(j), int(s[0]), int(s[1]), int(s[2]))
        for i, j, s in found
        if i < j or (i == j and tuple(s) > (0, 0, 0))
    }


def bonded_groups(atoms: Atoms, framework: NDArray[np.bool_]) -> tuple[Group, ...]:
    """Divide the framework into finite molecules and single atoms, by the bonds that it has in these positions.

    Args:
        atoms: The crystal where the run begins.
        framework: Which atoms are not mobile, `N`.
    """
    neighbours: dict[int, list[tuple[int, Shift]]] = defaultdict(list)
    for i, j, a, b, c in pairs(atoms, framework, BOND):
        neighbours[i].append((j, (a, b, c)))
        neighbours[j].append((i, (-a, -b, -c)))
    groups: list[Group] = []
    seen: set[int] = set()
    for index in np.flatnonzero(framework).tolist():
        if index in seen:
            continue
        members, is_finite = _component(index, neighbours)
        seen.update(members)
        parts = [members] if is_finite else [[member] for member in members]
        groups += [Group(_formula(atoms.symbols[part]), tuple(part)) for part in parts]
    return tuple(groups)


def _component(first: int, neighbours: dict[int, list[tuple[int, Shift]]]) -> tuple[list[int], bool]:
    """All atoms that bonds lead to, and whether none of them is also reached as its own periodic image."""
    cells: dict[int, Shift] = {first: (0, 0, 0)}
    waiting = deque([first])
    is_finite = True
    while waiting:
        here = waiting.popleft()
        x, y, z = cells[here]
        for other, (a, b, c) in neighbours[here]:
            cell = (x + a, y + b, z + c)
            if other not in cells:
                cells[other] = cell
                waiting.append(other)
            is_finite = is_finite and cells[other] == cell
    return sorted(cells), is_finite


def _formula(symbols: Iterable[str]) -> str:
    return str(Formula.from_list(list(symbols)).format("periodic"))


def centre_displacements(
    frames: Array, start: Array, groups: Sequence[Group], masses: Array, drift: Array
) -> NDArray[np.float32]:
    """How far each group's centre of mass is from where it began, `T x G x 3`, Å.

    Single precision is plenty for numbers that begin at zero.

    Args:
        frames: Unwrapped positions, `T x N x 3`, Å.
        start: Those where the run began, continuous with the frames, `N x 3`, Å.
        groups: The `G` groups.
        masses: `N`.
        drift: Of the framework as a whole since the start, `T x 3`, Å; taken off.
    """
    moved = np.empty((len(frames), len(groups), 3), dtype=np.float32)
    for k, group in enumerate(groups):
        members = list(group.atoms)
        weights = masses[members] / masses[members].sum()
        away = frames[:, members] - start[members]
        moved[:, k] = np.einsum("tnx,n->tx", away, weights) - drift
    return moved
