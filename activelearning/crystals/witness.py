"""Whole arrangements of a crystal's atoms, found by a seeded search.

A *witness* has a place for each orbit still to come, far enough from the atoms placed and from one another that each
of its atoms could move by `SPARE` besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from activelearning.crystals.placement import Floats, Integers, PositionGrid, Words, unpacked

# Å by which any atom of a witness may move without losing its place.
SPARE = 0.03


class Orbit(NamedTuple):
    """Atoms of one element on one Wyckoff position.

    Attributes:
        position: Index of the position in `SpaceGroup.wyckoff`.
        element: Atomic number.
    """

    position: int
    element: int


@dataclass(frozen=True, eq=False)
class Place:
    """What an orbit with free coordinates is, in its cell.

    Attributes:
        orbit: The orbit.
        grid: The grid of its position.
        radius: Å that each of its atoms contributes to a smallest distance.
        spacious: Cells at whose centre its own atoms keep apart with `SPARE` each, as words.
        open: Cells throughout which they keep apart, as words.
    """

    orbit: Orbit
    grid: PositionGrid
    radius: float
    spacious: Words
    open: Words

    @property
    def multiplicity(self) -> int:
        """Number of its atoms."""
        return self.grid.maps.position.multiplicity


class Witness(NamedTuple):
    """Places for orbits still to come.

    Attributes:
        coordinates: Free coordinates of each.
        atoms: Fractional coordinates of all their atoms, `n x 3`.
    """

    coordinates: tuple[Floats, ...]
    atoms: Floats

    def after(self, place: Place) -> Witness:
        """Without the first orbit."""
        return Witness(self.coordinates[1:], self.atoms[place.multiplicity :])


def find_witnesses(
    places: Sequence[Place],
    atoms: Floats,
    radii: Floats,
    rounding: float,
    n_attempts: int,
    generator: np.random.Generator,
) -> list[Witness]:
    """Attempts made at once, each orbit at the centre of a random cell of those left; what succeeds is a witness.

    Args:
        places: The orbits to come.
        atoms: Fractional coordinates of the atoms placed, `n x 3`.
        radii: What they contribute to smallest distances, Å, `n`.
        rounding: Å kept in reserve for the rounding of coordinates.
        n_attempts: Number of attempts.
        generator: Where they come from.
    """
    starts = np.concatenate([[0], np.cumsum([place.multiplicity for place in places], dtype=np.int64)])
    # The least free and the largest first: they have the fewest places.
    order = sorted(
        range(len(places)), key=lambda k: (places[k].grid.n_free, -places[k].radius, -places[k].multiplicity)
    )
    coordinates = [np.zeros((n_attempts, place.grid.n_free)) for place in places]
    found = np.zeros((n_attempts, int(starts[-1]), 3))
    of_found = np.repeat([place.radius for place in places], np.diff(starts)) + 2.0 * SPARE
    columns = np.zeros(0, dtype=np.int64)
    alive = np.arange(n_attempts)
    for k in order:
        place = places[k]
        n_alive, n = len(alive), len(columns)
        covered = place.grid.covered(
            np.concatenate([atoms, found[alive][:, columns].reshape(-1, 3)]),
            place.radius + rounding + np.concatenate([radii + SPARE, np.tile(of_found[columns], n_alive)]),
            np.repeat(np.arange(n_alive + 1), [len(atoms), *[n] * n_alive]),
            n_alive + 1,
        )
        words = (place.spacious & ~covered[0] & ~covered[1:]).reshape(n_alive, -1)
        # Atoms side by side leave most room to others: so does every second attempt.
        words = np.where(alive[:, None] % 2 > 0, _edges(words, place.grid.shape[2]), words)
        rows, cells = _random_cells(words, place.grid.shape[2], generator)
        if not len(rows):
            return []
        alive = alive[rows]
        coordinates[k][alive] = place.grid.places(cells)
        found[alive, starts[k] : starts[k + 1]] = place.grid.atoms(coordinates[k][alive])
        columns = np.concatenate([columns, np.arange(starts[k], starts[k + 1])])
    return [Witness(tuple(values[attempt] for values in coordinates), found[attempt]) for attempt in alive]


def _edges(words: Words, n: int) -> Words:
    """Of the cells of a circle of n, those next to one that is none of them; all where all are."""
    if n == 1:
        return words
    one, last = np.uint64(1), np.uint64(n - 1)
    inner = ((words << one) | (words >> last)) & ((words >> one) | (words << last))
    edges = words & ~inner
    return np.where(edges.any(axis=1, keepdims=True), edges, words)


def _random_cells(words: Words, n_last: int, generator: np.random.Generator) -> tuple[Integers, Integers]:
    """A cell of a random line for each row of words, `n x lines`, that has any: rows, and flat indices of cells."""
    is_open = words > 0
    n_lines = is_open.sum(axis=1)
    rows = np.flatnonzero(n_lines)
    ranks = np.cumsum(n_lines) - n_lines + np.floor(generator.random(len(words)) * n_lines).astype(np.int64)
    chosen = np.flatnonzero(is_open)[ranks[rows]] % words.shape[1]
    bits = unpacked(words[rows, chosen], n_last)
    # The bit with the largest of random numbers.
    last = np.argmax(np.where(bits, generator.random(bits.shape), -1.0), axis=1)
    return rows, chosen * n_last + last
