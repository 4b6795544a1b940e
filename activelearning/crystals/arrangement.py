"""All atoms of a crystal, orbit by orbit, without two of them too close and without a dead end.

Orbits without free coordinates are there from the start. For the others a seeded search first finds *witnesses*: whole
arrangements that keep all distances. An orbit may then go where it is far enough from the orbits placed and from what
at least one witness that is still valid has for the orbits to come. So a valid witness remains after every step, every
trajectory ends in a structure, and the structure keeps all distances. Where no witness is found, there is no
arrangement, and the crystal stays without atoms.

All is a function of the crystal's group, lattice and orbits, and of the coordinates chosen: nothing depends on what was
asked before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from activelearning.candidate import ANGLE_DECIMALS, COORDINATE_DECIMALS, LENGTH_DECIMALS
from activelearning.crystals.placement import (
    Cell,
    Domain,
    Flags,
    Floats,
    Integers,
    PositionGrid,
    smallest_radii,
    unpacked,
)
from activelearning.crystals.symmetry import space_group

# Å by which any atom of a witness may move without losing its place, and at most.
SPARE = 0.03
MOST_SPARE = 0.3
# Attempts made at once, which all become witnesses where they succeed, and how often.
ATTEMPTS = 6
# Of fractional coordinates, when a structure is read.
TOLERANCE = 1e-4
ROUNDS = 6


class Orbit(NamedTuple):
    """Atoms of one element on one Wyckoff position.

    Attributes:
        position: Index of the position in `SpaceGroup.wyckoff`.
        element: Atomic number.
    """

    position: int
    element: int


class Arrangement:
    """How the atoms of one crystal may be arranged in its cell.

    Args:
        number: International number of the group.
        lattice: (a, b, c, α, β, γ) in Å and degrees; rounded as candidates are.
        orbits: All orbits; those with free coordinates are placed in this order.

    Attributes:
        fixed: Orbits without free coordinates.
        free: Orbits to be placed.
        is_possible: Whether a whole arrangement was found.
    """

    def __init__(self, number: int, lattice: Sequence[float], orbits: Sequence[Orbit]) -> None:
        decimals = [LENGTH_DECIMALS] * 3 + [ANGLE_DECIMALS] * 3
        a, b, c, alpha, beta, gamma = (round(float(x), d) for x, d in zip(lattice, decimals, strict=True))
        self.cell = Cell((a, b, c, alpha, beta, gamma))
        positions = space_group(number).wyckoff
        self.fixed = tuple(orbit for orbit in orbits if positions[orbit.position].is_fixed)
        self.free = tuple(orbit for orbit in orbits if not positions[orbit.position].is_fixed)
        radii = smallest_radii()
        self._radius = {orbit: float(radii[orbit.element - 1]) for orbit in set(orbits)}
        farthest = 2.0 * max(self._radius.values()) + 3.0 * SPARE
        self._grids = {
            orbit.position: PositionGrid(self.cell, number, orbit.position, farthest) for orbit in orbits
        }
        # Places far enough from the orbit's own other atoms: with room for a witness, and throughout a grid's cell.
        spacious: dict[Orbit, Flags] = {}
        self._open: dict[Orbit, NDArray[np.uint8]] = {}
        for position in {orbit.position for orbit in self.free}:
            centre, throughout = self._grids[position].own()
            for orbit in {orbit for orbit in self.free if orbit.position == position}:
                least = 2.0 * self._radius[orbit] + self.rounding
                spacious[orbit] = centre >= least + 2.0 * SPARE
                self._open[orbit] = np.packbits(throughout >= least)
        self._seed = int.from_bytes(
            hashlib.blake2b(
                repr((number, self.cell.parameters, tuple(map(tuple, orbits)))).encode(), digest_size=8
            ).digest()
        )
        self.fixed_atoms, self.fixed_radii = self._fixed()
        held = [positions[orbit.position].multiplicity for orbit in self.free]
        #: First of the atoms, among those of the free orbits, of each free orbit, and their number at the end.
        self.starts = np.concatenate([[0], np.cumsum(held, dtype=np.int64)])
        self.free_radii = np.repeat([self.radius(orbit) for orbit in self.free], held)
        self.witnesses = self._search(spacious) if self._is_frame_valid() else []
        self.is_possible = bool(self.witnesses)

    def grid(self, orbit: Orbit) -> PositionGrid:
        """The grid of an orbit's position."""
        return self._grids[orbit.position]

    def radius(self, orbit: Orbit) -> float:
        """Å that an atom of the orbit contributes to a smallest distance."""
        return self._radius[orbit]

    def is_open(self, orbit: Orbit) -> Flags:
        """Cells of the orbit's grid, three axes, throughout which its own atoms keep apart."""
        return unpacked(self._open[orbit], self.grid(orbit).shape)

    @property
    def rounding(self) -> float:
        """Å kept in reserve for the rounding of coordinates."""
        return self.cell.rounding

    def begin(self) -> Placed:
        """No free orbit placed.

        Raises:
            ValueError: there is no arrangement.
        """
        if not self.is_possible:
            raise ValueError("the atoms of this crystal can't be kept apart")
        return Placed(self, (), self.fixed_atoms, tuple(range(len(self.witnesses))))

    def read(self, elements: Integers, atoms: Floats) -> Placed:
        """The arrangement that a structure has.

        Args:
            elements: Atomic number of each atom, `n`.
            atoms: Fractional coordinates, `n x 3`, within `TOLERANCE` of their positions, in any order.

        Raises:
            ValueError: its atoms are not on the orbits, or nearer to each other than the sampler would place them.
        """
        left = list(range(len(atoms)))
        placed = self.begin()
        for orbit in self.fixed:
            if not _take(left, elements, atoms, orbit, self.grid(orbit).atoms(np.zeros(0))):
                raise ValueError(_absent(orbit, self.grid(orbit)))
        for orbit in self.free:
            grid = self.grid(orbit)
            for first in [i for i in left if elements[i] == orbit.element]:
                coordinates = grid.locate(atoms[first], TOLERANCE)
                if coordinates is not None:
                    rest = list(left)
                    if _take(rest, elements, atoms, orbit, grid.atoms(coordinates)):
                        break
            else:
                raise ValueError(_absent(orbit, grid))
            left = rest
            coordinates = placed.rounded(coordinates)
            placed.domain.u(coordinates)
            placed = placed.place(coordinates)
        if left:
            raise ValueError(f"{len(left)} atoms are on none of the orbits")
        return placed

    # ---------------------------------------------------------------- fixed orbits

    def _fixed(self) -> tuple[Floats, Floats]:
        atoms = [self.grid(orbit).atoms(np.zeros(0)) for orbit in self.fixed]
        radii = [np.full(len(a), self.radius(orbit)) for a, orbit in zip(atoms, self.fixed, strict=True)]
        return np.concatenate([np.zeros((0, 3)), *atoms]), np.concatenate([np.zeros(0), *radii])

    def _is_frame_valid(self) -> bool:
        """Whether lattice translations and fixed orbits keep all distances."""
        if self.cell.shortest < 2.0 * max(self._radius.values()) + self.rounding:
            return False
        start = 0
        for orbit in self.fixed:
            at = self.fixed_atoms[start]
            others = np.delete(np.arange(len(self.fixed_atoms)), start)
            least = self.radius(orbit) + self.fixed_radii[others] + self.rounding
            if (
                self.cell.distances(self.fixed_atoms[others] - at, float(least.max(initial=0.0))) < least
            ).any():
                return False
            start += self.grid(orbit).maps.position.multiplicity
        return True

    # ---------------------------------------------------------------- search

    def _search(self, spacious: Mapping[Orbit, Flags]) -> list[Witness]:
        if not self.free:
            return [Witness((), np.zeros((0, 3)))]
        generator = np.random.Generator(np.random.PCG64(self._seed))
        # The least free and the largest first: they have the fewest places.
        order = sorted(
            range(len(self.free)),
            key=lambda k: (
                self.grid(self.free[k]).n_free,
                -self.radius(self.free[k]),
                -(self.starts[k + 1] - self.starts[k]),
            ),
        )
        for _ in range(ROUNDS):
            found = self._attempt(order, spacious, generator)
            if found:
                return found
        return []

    def _attempt(
        self, order: Sequence[int], spacious: Mapping[Orbit, Flags], generator: np.random.Generator
    ) -> list[Witness]:
        """Some arrangements at once, each orbit at a random cell of those left."""
        coordinates: list[dict[int, Floats]] = [{} for _ in range(ATTEMPTS)]
        atoms = np.zeros((ATTEMPTS, len(self.free_radii), 3))
        placed: list[int] = []
        alive = list(range(ATTEMPTS))
        for k in order:
            orbit = self.free[k]
            grid, radius = self.grid(orbit), self.radius(orbit)
            columns = np.array(placed, dtype=np.int64)
            n, n_fixed = len(columns), len(self.fixed_atoms)
            covered = grid.covered(
                np.concatenate([self.fixed_atoms, atoms[alive][:, columns].reshape(-1, 3)]),
                radius
                + self.rounding
                + np.concatenate(
                    [self.fixed_radii + SPARE, np.tile(self.free_radii[columns] + 2.0 * SPARE, len(alive))]
                ),
                np.concatenate([np.zeros(n_fixed, dtype=np.int64), np.repeat(np.arange(len(alive)) + 1, n)]),
                len(alive) + 1,
            )
            is_open = spacious[orbit] & ~covered[0]
            still = []
            for row, attempt in enumerate(alive):
                cells = np.flatnonzero(is_open & ~covered[row + 1])
                if len(cells):
                    chosen = grid.centre(int(cells[generator.integers(len(cells))]))
                    coordinates[attempt][k] = chosen
                    atoms[attempt, self.starts[k] : self.starts[k + 1]] = grid.atoms(chosen)
                    still.append(attempt)
            alive = still
            placed += range(int(self.starts[k]), int(self.starts[k + 1]))
            if not alive:
                break
        return [
            Witness(tuple(coordinates[attempt][k] for k in range(len(self.free))), atoms[attempt])
            for attempt in alive
        ]


def _take(left: list[int], elements: Integers, atoms: Floats, orbit: Orbit, places: Floats) -> bool:
    """Strike the atoms at some places, all of one element, off the list; whether all are there."""
    for place in places:
        gaps = atoms[left] - place
        near = (np.abs(gaps - np.round(gaps)) < TOLERANCE).all(axis=1) & (elements[left] == orbit.element)
        if not near.any():
            return False
        del left[int(np.argmax(near))]
    return True


def _absent(orbit: Orbit, grid: PositionGrid) -> str:
    return f"no atoms of atomic number {orbit.element} are left on Wyckoff position {grid.name}"


class Witness(NamedTuple):
    """A whole arrangement.

    Attributes:
        coordinates: Free coordinates of each free orbit.
        atoms: Fractional coordinates of all their atoms, `n x 3`.
    """

    coordinates: tuple[Floats, ...]
    atoms: Floats


@dataclass(frozen=True, eq=False)
class Placed:
    """An arrangement of which some orbits are placed.

    Attributes:
        arrangement: What is arranged.
        coordinates: Free coordinates of the orbits placed, in order.
        atoms: Fractional coordinates of the atoms placed, `n x 3`: fixed orbits, then the others in order.
        valid: Indices of the witnesses whose orbits to come are far enough from what is placed.
    """

    arrangement: Arrangement
    coordinates: tuple[Floats, ...]
    atoms: Floats
    valid: tuple[int, ...]

    @property
    def n_placed(self) -> int:
        """Number of free orbits placed."""
        return len(self.coordinates)

    @property
    def n_free(self) -> int:
        """Number of free coordinates of the next orbit."""
        of = self.arrangement
        return of.grid(of.free[self.n_placed]).n_free

    @property
    def is_complete(self) -> bool:
        """Whether all are."""
        return self.n_placed == len(self.arrangement.free)

    @cached_property
    def elements(self) -> Integers:
        """Atomic number of each atom placed, `n`."""
        of = self.arrangement
        orbits = (*of.fixed, *of.free[: self.n_placed])
        return np.repeat(
            np.array([orbit.element for orbit in orbits], dtype=np.int64),
            [of.grid(orbit).maps.position.multiplicity for orbit in orbits],
        )

    @cached_property
    def _radii(self) -> Floats:
        of = self.arrangement
        return np.concatenate([of.fixed_radii, of.free_radii[: of.starts[self.n_placed]]])

    def _to_come(self, after: int) -> tuple[Floats, Floats]:
        """Atoms that valid witnesses have for the free orbits from the `after`-th on, `w x n x 3`, and their radii."""
        of = self.arrangement
        first = of.starts[after]
        return np.stack([of.witnesses[w].atoms[first:] for w in self.valid]), of.free_radii[first:]

    @cached_property
    def domain(self) -> Domain:
        """Where the next orbit may go."""
        of, k = self.arrangement, self.n_placed
        orbit = of.free[k]
        grid, radius = of.grid(orbit), of.radius(orbit)
        later, later_radii = self._to_come(k + 1)
        n_witnesses, n_later = later.shape[:2]
        covered = grid.covered(
            np.concatenate([self.atoms, later.reshape(-1, 3)]),
            radius
            + of.rounding
            + grid.reach
            + np.concatenate([self._radii, np.tile(later_radii + SPARE, n_witnesses)]),
            np.repeat(np.arange(n_witnesses + 1), [len(self.atoms), *[n_later] * n_witnesses]),
            n_witnesses + 1,
        )
        allowed = of.is_open(orbit) & ~covered[0]
        allowed &= ~covered[1:].all(axis=0)
        if not allowed.any():
            return self._around_witness(later[0], later_radii)
        n_free = grid.n_free
        return Domain.of(np.zeros(n_free), np.ones(n_free), allowed.reshape(grid.shape[3 - n_free :]))

    def _around_witness(self, later: Floats, later_radii: Floats) -> Domain:
        """A box about the place that the first valid witness has for the next orbit, as large as distances allow."""
        of, k = self.arrangement, self.n_placed
        orbit = of.free[k]
        grid, radius = of.grid(orbit), of.radius(orbit)
        place = of.witnesses[self.valid[0]].coordinates[k]
        own = grid.atoms(place)
        others = np.concatenate([self.atoms, later, own[1:]])
        least = radius + np.concatenate([self._radii, later_radii + SPARE, np.full(len(own) - 1, radius)])
        spare = of.cell.distances(others - own[0], float(least.max(initial=0.0)) + 2.0 * MOST_SPARE) - least
        # Atoms of the orbit move towards one another by twice as much.
        spare[len(spare) - len(own) + 1 :] /= 2.0
        room = min(MOST_SPARE, float(spare.min(initial=np.inf)) - of.rounding)
        half = np.minimum(room / (grid.n_free * grid.lengths), 0.5)
        return Domain.of(place - half, 2.0 * half, np.ones((1,) * grid.n_free, dtype=np.bool_))

    @staticmethod
    def rounded(coordinates: Floats) -> Floats:
        """Coordinates as candidates hold them, in [0, 1)."""
        return np.asarray(np.round(coordinates, COORDINATE_DECIMALS) % 1.0)

    def place(self, coordinates: Floats) -> Placed:
        """With the next orbit at free coordinates of its domain, `f`."""
        of, k = self.arrangement, self.n_placed
        orbit = of.free[k]
        coordinates = self.rounded(coordinates)
        atoms = of.grid(orbit).atoms(coordinates)
        later, later_radii = self._to_come(k + 1)
        least = of.radius(orbit) + later_radii + SPARE
        gaps = of.cell.distances((later - atoms[0]).reshape(-1, 3), float(least.max(initial=0.0)))
        far_enough = (gaps.reshape(len(later), -1) >= least).all(axis=1)
        valid = tuple(self.valid[w] for w in np.flatnonzero(far_enough))
        if not valid:
            raise ValueError(f"orbit {k} at {coordinates} leaves no room for the orbits to come")
        return Placed(of, (*self.coordinates, coordinates), np.concatenate([self.atoms, atoms]), valid)
