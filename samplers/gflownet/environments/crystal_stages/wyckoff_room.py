"""Room in a cell for atoms on Wyckoff positions: what can't be kept apart there is not worth a trajectory.

Conditions that are quick to check for many choices: atoms on a line that keep apart by the sums of their smallest radii
take up twice that radius each, all together at most a share of the line; and two positions without free coordinates
are as far apart as they are. A choice is kept when what is left of all elements can be assigned so. That
does not promise that the atoms can be placed (`activelearning.crystals.arrangement` sees to that), but they seldom
can't.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from activelearning.crystals.distances import Cell
from activelearning.crystals.sites import axes, canonical_order, wyckoff_maps
from activelearning.crystals.symmetry import SpaceGroup
from samplers.gflownet.environments.crystal_stages.caching import Cache
from samplers.gflownet.environments.crystal_stages.stage import Flags, Floats, Integers
from samplers.gflownet.environments.crystal_stages.wyckoff_search import Completion, Letters

# Counts are bits of a word; an element with more atoms left is taken to find its place.
MOST_ATOMS = 63
# Rows that are looked at together, so that memory stays bounded.
CHUNK = 4096
CELLS = 4096
# Of 200 structures of the Materials Project with atoms on such lines, the fullest line is full to 0.74. Where a
# composition has no such place the second share is tried.
FILLINGS = (0.75, 0.9)


class Occupation(NamedTuple):
    """Partly assigned crystals.

    Attributes:
        groups: Index of the group, `n`.
        lattices: (a, b, c, α, β, γ) in Å and degrees, `n x 6`.
        radii: Of the element in each slot, Å, `n x S`; 0 in empty ones.
        orbits: Number of orbits by slot and letter, `n x S x L`.
        left: Atoms still to place, by slot, `n x S`.
        slot: The slot at work, `n`.
    """

    groups: Integers
    lattices: Floats
    radii: Floats
    orbits: Integers
    left: Integers
    slot: Integers

    def take(self, rows: Integers) -> Occupation:
        """Some rows."""
        return Occupation(
            self.groups[rows],
            self.lattices[rows],
            self.radii[rows],
            self.orbits[rows],
            self.left[rows],
            self.slot[rows],
        )


class Room:
    """How many more orbits fit on each letter, for G groups with letters in canonical order.

    Args:
        groups: The groups.
        multiplicity: `G x L`.
        is_fixed: `G x L`.
        per_element: Most atoms of one element, N.
    """

    def __init__(
        self, groups: Sequence[SpaceGroup], multiplicity: Integers, is_fixed: Flags, per_element: int
    ) -> None:
        self._groups, self._multiplicity, self._is_fixed = groups, multiplicity, is_fixed
        n_letters = multiplicity.shape[1]
        found = [axes(group.number) for group in groups]
        n_axes = max(map(len, found))
        self._directions = np.zeros((len(groups), n_axes, 3))
        # Atoms of an orbit on each letter that lie on each line, within its period.
        self._atoms = np.zeros((len(groups), n_axes, n_letters))
        for g, (group, lines) in enumerate(zip(groups, found, strict=True)):
            order = list(canonical_order(group))
            for i, line in enumerate(lines):
                self._directions[g, i] = line.direction
                self._atoms[g, i, : len(order)] = line.atoms[order]
        #: Entry [g, l, n]: whether n atoms fit on letters from l on that can be occupied without end.
        self._endless = self._endless_table(per_element)
        self._plain: dict[int, Letters] = {}
        self._n_fixed = int(is_fixed.sum(axis=1).max())
        self._distances: Cache[tuple[int, tuple[float, ...]], Floats] = Cache(CELLS)

    def _endless_table(self, per_element: int) -> Flags:
        n_groups, n_letters = self._multiplicity.shape
        self._is_endless = ~self._is_fixed & ~self._atoms.any(axis=1) & (self._multiplicity > 0)
        table = np.zeros((n_groups, n_letters + 1, per_element + 1), dtype=np.bool_)
        table[:, :, 0] = True
        groups = np.arange(n_groups)
        for letter in range(n_letters - 1, -1, -1):
            table[:, letter] = table[:, letter + 1]
            multiplicity = self._multiplicity[:, letter]
            for n in range(1, per_element + 1):
                before = table[groups, letter, np.maximum(n - multiplicity, 0)]
                table[:, letter, n] |= self._is_endless[:, letter] & (multiplicity <= n) & before
        return table

    def _of(self, group: int) -> Letters:
        """The group's letters for the search."""
        if group not in self._plain:
            atoms = self._atoms[group]
            self._plain[group] = Letters(
                self._multiplicity[group].tolist(),
                self._is_fixed[group].tolist(),
                [
                    [(int(line), int(atoms[line, letter])) for line in np.flatnonzero(atoms[:, letter])]
                    for letter in range(atoms.shape[1])
                ],
                np.flatnonzero(~self._is_endless[group] & (self._multiplicity[group] > 0)).tolist(),
                self._endless[group].tolist(),
            )
        return self._plain[group]

    # ---------------------------------------------------------------- the cell

    def _lengths(self, groups: Integers, lattices: Floats) -> Floats:
        """Period of each line, Å, `n x A`."""
        x, y, z = np.moveaxis(self._directions[groups] * lattices[:, None, :3], 2, 0)
        p, q, r = np.cos(np.radians(lattices[:, 3:])).T[:, :, None]
        squared = x * x + y * y + z * z + 2.0 * (y * z * p + x * z * q + x * y * r)
        return np.sqrt(np.maximum(squared, 0.0))

    def _between_fixed(self, groups: Integers, lattices: Floats) -> Floats:
        """Distances between the positions without free coordinates, images included, Å, `n x F x F`."""
        found = np.full((len(groups), self._n_fixed, self._n_fixed), np.inf)
        for row, (group, lattice) in enumerate(zip(groups.tolist(), lattices.tolist(), strict=True)):
            found[row] = self._distances.get((group, tuple(lattice)), self._measured)
        return found

    def _measured(self, key: tuple[int, tuple[float, ...]]) -> Floats:
        group, lattice = key
        found = np.full((self._n_fixed, self._n_fixed), np.inf)
        of = self._groups[group]
        cell = Cell(lattice)  # type: ignore[arg-type]
        maps = [wyckoff_maps(of.number)[i] for i in canonical_order(of) if of.wyckoff[i].is_fixed]
        atoms = [position.atoms(np.zeros(3)) for position in maps]
        for i, first in enumerate(atoms):
            found[i, i] = cell.shortest
            if len(first) > 1:
                found[i, i] = min(cell.shortest, float(cell.distances(first[1:] - first[0], 6.0).min()))
            for j in range(i):
                found[i, j] = found[j, i] = float(cell.distances(first[0] - atoms[j], 6.0).min())
        return found

    # ---------------------------------------------------------------- choices

    def keep(self, mask: Flags, state: Occupation, last: Integers) -> Flags:
        """Choices, `n x L x N`, that leave room for the atoms still to place; all of a row where none does.

        Args:
            mask: Choices allowed by counts alone.
            state: The crystals that they are for.
            last: Last letter of the element at work, `n`.
        """
        kept = np.zeros_like(mask)
        for filling in FILLINGS:
            rows = np.flatnonzero(~kept.any(axis=(1, 2)))
            if len(rows):
                kept[rows] = self._with_room(mask[rows], state.take(rows), last[rows], filling)
        some: Flags = np.asarray(kept.any(axis=(1, 2)))
        return np.where(some[:, None, None], kept, mask)

    def _with_room(self, mask: Flags, state: Occupation, last: Integers, filling: float) -> Flags:
        """As `keep`, for one share of the lines; nothing of a row where no choice leaves room."""
        lengths = filling * self._lengths(state.groups, state.lattices)
        distances = self._between_fixed(state.groups, state.lattices)
        rows = np.arange(len(mask))
        room = self._room(state, state.radii[rows, state.slot], lengths, distances)
        kept = mask & (np.arange(1, mask.shape[2] + 1) <= room[:, :, None])
        row, letter, k = np.nonzero(kept)
        left = state.left[row, state.slot[row]] - (k + 1) * self._multiplicity[state.groups[row], letter]
        later = np.arange(state.left.shape[1]) > state.slot[:, None]
        is_easy = (self._endless[state.groups[:, None], 0, state.left] | ~later).all(axis=1)
        hard = np.flatnonzero(~(is_easy[row] & self._endless[state.groups[row], letter + 1, left]))
        for start in range(0, len(hard), CHUNK):
            at = hard[start : start + CHUNK]
            after = state.take(row[at])
            i = np.arange(len(at))
            after.orbits[i, after.slot, letter[at]] += k[at] + 1
            after.left[i, after.slot] = left[at]
            possible = self._can_follow(after, letter[at], lengths[row[at]], distances[row[at]])
            for j in np.flatnonzero(possible).tolist():
                rest = self._completion(after, j, letter[at[j]], lengths[row[at[j]]], distances[row[at[j]]])
                possible[j] = rest.exists()
            kept[row[at], letter[at], k[at]] = possible
        return kept

    def _completion(
        self, state: Occupation, j: int, last: int, lengths: Floats, distances: Floats
    ) -> Completion:
        """What is left of crystal j, whose element at work is to go on after its last letter."""
        group, slot = int(state.groups[j]), int(state.slot[j])
        taken = 2.0 * state.orbits[j].T @ state.radii[j]
        fixed = (state.orbits[j, :, : self._n_fixed] * state.radii[j][:, None]).sum(axis=0)
        slots = [s for s in range(slot, state.left.shape[1]) if state.left[j, s] > 0]
        return Completion(
            self._of(group),
            distances.tolist(),
            (lengths - self._atoms[group] @ taken).tolist(),
            fixed.tolist(),
            state.radii[j, slots].tolist(),
            state.left[j, slots].tolist(),
            [int(last) + 1 if s == slot else 0 for s in slots],
        )

    def _room(self, state: Occupation, radius: Floats, lengths: Floats, distances: Floats) -> Integers:
        """Orbits of an element of some radius, `n`, that fit on each letter next to those there, `n x L`."""
        taken = 2.0 * np.einsum("nsl,ns->nl", state.orbits, state.radii)
        atoms = self._atoms[state.groups]
        free = lengths - np.einsum("nal,nl->na", atoms, taken)
        each = 2.0 * radius[:, None, None] * atoms
        fits = np.where(atoms > 0, free[:, :, None] / np.where(atoms > 0, each, 1.0), np.inf)
        room = np.clip(np.floor(fits.min(axis=1, initial=1e6)), 0.0, 1e6).astype(np.int64)
        n = self._n_fixed
        there = (state.orbits[:, :, :n] * state.radii[:, :, None]).sum(axis=1)
        near = (there[:, None, :] > 0) & (distances < radius[:, None, None] + there[:, None, :])
        itself = np.einsum("nff->nf", distances) < 2.0 * radius[:, None]
        is_fixed = self._is_fixed[state.groups][:, :n]
        barred = is_fixed & (itself | near.any(axis=2) | (there > 0))
        room[:, :n] = np.where(is_fixed, np.where(barred, 0, np.minimum(room[:, :n], 1)), room[:, :n])
        return room

    def _can_follow(self, state: Occupation, last: Integers, lengths: Floats, distances: Floats) -> Flags:
        """`n`: whether each element by itself still finds room for what is left of it."""
        possible = np.ones(len(state.slot), dtype=np.bool_)
        letters = np.arange(self._multiplicity.shape[1])
        for slot in range(state.left.shape[1]):
            rows = np.flatnonzero(possible & (state.left[:, slot] > 0) & (state.left[:, slot] <= MOST_ATOMS))
            if not len(rows):
                continue
            at = state.take(rows)
            room = self._room(at, at.radii[:, slot], lengths[rows], distances[rows])
            # The element at work goes on after its last letter, later ones begin with the first.
            room[(at.slot == slot)[:, None] & (letters <= last[rows, None])] = 0
            found = _is_reachable(room, self._multiplicity[at.groups], at.left[:, slot])
            possible[rows[~found]] = False
        return possible


def _is_reachable(room: Integers, multiplicity: Integers, n_atoms: Integers) -> Flags:
    """`n`: whether so many atoms, at most 63, are a sum of multiplicities, `n x L`, each taken `room` times at most."""
    reached = np.ones(len(room), dtype=np.uint64)
    most = np.where(multiplicity > 0, np.minimum(room, n_atoms[:, None] // np.maximum(multiplicity, 1)), 0)
    for letter in np.flatnonzero(most.any(axis=0)):
        rest, size, taken = most[:, letter], multiplicity[:, letter], 1
        # As many as are left, in powers of two.
        while rest.any():
            step = np.minimum(rest, taken)
            reached |= reached << (step * size).astype(np.uint64)
            rest, taken = rest - step, 2 * taken
    return np.asarray((reached >> n_atoms.astype(np.uint64)) & np.uint64(1) > 0)
