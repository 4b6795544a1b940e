"""All atoms of a crystal, orbit by orbit, without two of them too close and without a dead end.

Orbits without free coordinates are there from the start. For the others a seeded search first finds *witnesses*
(`witness`): whole arrangements that keep all distances. An orbit may then go where it is far enough from the atoms
placed and from what at least one witness has for the orbits to come. So a witness remains after every step, every
trajectory ends in a structure, and the structure keeps all distances. New witnesses, found from where the trajectory
is, join those that remain, so that little of what is possible is left out. Where none is found at the start there is
no arrangement, and the crystal stays without atoms.

All is a function of the crystal's group, lattice and orbits, and of the coordinates chosen: nothing depends on what was
asked before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from activelearning.candidate import ANGLE_DECIMALS, COORDINATE_DECIMALS, LENGTH_DECIMALS
from activelearning.crystals.distances import Cell, smallest_radii
from activelearning.crystals.domain import Domain
from activelearning.crystals.placement import Floats, Integers, PositionGrid
from activelearning.crystals.sites import axes
from activelearning.crystals.symmetry import WyckoffPosition, space_group
from activelearning.crystals.witness import SPARE, Orbit, Place, Witness, find_witnesses

# Witnesses that are kept, renewed when fewer than half are left; and how often as many attempts are made before a
# crystal is given up.
WITNESSES = 8
ROUNDS = 8
# Å by which an atom may be away from its place in a witness where no whole cell of a grid is free.
MOST_SPARE = 0.3
# Of fractional coordinates, when a structure is read.
TOLERANCE = 1e-4


class Arrangement:
    """How the atoms of one crystal may be arranged in its cell.

    Args:
        number: International number of the group.
        lattice: (a, b, c, α, β, γ) in Å and degrees; rounded as candidates are.
        orbits: All orbits; those with free coordinates are placed in this order.

    Attributes:
        cell: The cell.
        fixed: Orbits without free coordinates.
        free: Orbits to be placed.
        is_possible: Whether a whole arrangement was found.
    """

    def __init__(self, number: int, lattice: Sequence[float], orbits: Sequence[Orbit]) -> None:
        decimals = [LENGTH_DECIMALS] * 3 + [ANGLE_DECIMALS] * 3
        a, b, c, alpha, beta, gamma = (round(float(x), d) for x, d in zip(lattice, decimals, strict=True))
        self.cell = Cell((a, b, c, alpha, beta, gamma))
        self._number, self._positions = number, space_group(number).wyckoff
        self.fixed = tuple(orbit for orbit in orbits if self._positions[orbit.position].is_fixed)
        self.free = tuple(orbit for orbit in orbits if not self._positions[orbit.position].is_fixed)
        radii = smallest_radii()
        self._radius = {orbit: float(radii[orbit.element - 1]) for orbit in orbits}
        self._grids = {orbit.position: PositionGrid(self.cell, number, orbit.position) for orbit in orbits}
        self.fixed_atoms = np.concatenate(
            [np.zeros((0, 3)), *(self._grids[orbit.position].atoms(np.zeros(0)) for orbit in self.fixed)]
        )
        self.fixed_radii = self._atom_radii(self.fixed)
        self._name = repr((number, self.cell.parameters, [tuple(orbit) for orbit in orbits]))
        self._places: dict[Orbit, Place] = {}
        self._witnesses: tuple[Witness, ...] = ()
        self.is_possible = self._has_room() and self._search()

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """The free orbits with their grids, in order."""
        return tuple(self._places[orbit] for orbit in self.free)

    def position(self, orbit: Orbit) -> WyckoffPosition:
        """Where an orbit is."""
        return self._positions[orbit.position]

    @property
    def rounding(self) -> float:
        """Å kept in reserve for the rounding of coordinates."""
        return self.cell.rounding

    def generator(self, coordinates: Sequence[Floats]) -> np.random.Generator:
        """Random numbers that belong to some orbits placed."""
        name = self._name.encode() + b"".join(values.tobytes() for values in coordinates)
        return np.random.Generator(
            np.random.PCG64(int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()))
        )

    def begin(self) -> Placed:
        """No free orbit placed.

        Raises:
            ValueError: there is no arrangement.
        """
        if not self.is_possible:
            raise ValueError("the atoms of this crystal can't be kept apart")
        return Placed(self, (), self.fixed_atoms, self.fixed_radii, self._witnesses)

    # ---------------------------------------------------------------- what is possible

    def _atom_radii(self, orbits: Sequence[Orbit]) -> Floats:
        held = [self.position(orbit).multiplicity for orbit in orbits]
        return np.repeat([self._radius[orbit] for orbit in orbits], held)

    def _has_room(self) -> bool:
        """Whether lattice translations and fixed orbits keep all distances, and no line is plainly overfull."""
        if self.cell.shortest < 2.0 * max(self._radius.values()) + self.rounding:
            return False
        start = 0
        for orbit in self.fixed:
            at = self.fixed_atoms[start]
            others = np.delete(np.arange(len(self.fixed_atoms)), start)
            least = self._radius[orbit] + self.fixed_radii[others] + self.rounding
            distances = self.cell.distances(self.fixed_atoms[others] - at, float(least.max(initial=0.0)))
            if (distances < least).any():
                return False
            start += self.position(orbit).multiplicity
        for axis in axes(self._number):
            taken = sum(
                2.0 * self._radius[orbit] * axis.atoms[orbit.position] for orbit in (*self.fixed, *self.free)
            )
            if taken > np.sqrt(axis.direction @ self.cell.metric @ axis.direction):
                return False
        return True

    def _search(self) -> bool:
        """Find the first witnesses; whether there is any."""
        for orbit in dict.fromkeys(self.free):
            grid, radius = self._grids[orbit.position], self._radius[orbit]
            least = 2.0 * radius + self.rounding
            self._places[orbit] = Place(
                orbit,
                grid,
                radius,
                grid.apart(least + 2.0 * SPARE, throughout=False),
                grid.apart(least, throughout=True),
            )
        generator = self.generator(())
        for _ in range(ROUNDS):
            self._witnesses = tuple(
                find_witnesses(
                    self.places, self.fixed_atoms, self.fixed_radii, self.rounding, WITNESSES, generator
                )
            )
            if self._witnesses:
                return True
        return False

    # ---------------------------------------------------------------- structures

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
            grid = self._grids[orbit.position]
            if not _take(left, elements, atoms, orbit, grid.atoms(np.zeros(0))):
                raise ValueError(_absent(orbit, grid))
        n_taken = sum(place.multiplicity for place in self.places)
        if n_taken != len(left):
            raise ValueError(f"{len(left) - n_taken} atoms are on none of the orbits")
        found = _read_orbits(placed, left, elements, atoms)
        if isinstance(found, str):
            raise ValueError(found)
        return found


@dataclass(frozen=True, eq=False)
class Placed:
    """An arrangement of which some orbits are placed.

    Attributes:
        arrangement: What is arranged.
        coordinates: Free coordinates of the orbits placed, in order.
        atoms: Fractional coordinates of the atoms placed, `n x 3`: fixed orbits, then the others in order.
        radii: What they contribute to smallest distances, Å, `n`.
        witnesses: Places for the orbits to come; at least one.
    """

    arrangement: Arrangement
    coordinates: tuple[Floats, ...]
    atoms: Floats
    radii: Floats
    witnesses: tuple[Witness, ...]

    @property
    def n_placed(self) -> int:
        """Number of free orbits placed."""
        return len(self.coordinates)

    @property
    def is_complete(self) -> bool:
        """Whether all are."""
        return self.n_placed == len(self.arrangement.free)

    @property
    def next(self) -> Place:
        """The next orbit."""
        return self.arrangement.places[self.n_placed]

    @cached_property
    def elements(self) -> Integers:
        """Atomic number of each atom placed, `n`."""
        of = self.arrangement
        orbits = (*of.fixed, *of.free[: self.n_placed])
        held = [of.position(orbit).multiplicity for orbit in orbits]
        return np.repeat(np.array([orbit.element for orbit in orbits], dtype=np.int64), held)

    def _later(self) -> tuple[Floats, Floats]:
        """Atoms that witnesses have for the orbits after the next, `w x n x 3`, and their radii with `SPARE`, `n`."""
        of = self.arrangement
        later = np.stack([witness.atoms[self.next.multiplicity :] for witness in self.witnesses])
        return later, of._atom_radii(of.free[self.n_placed + 1 :]) + SPARE

    @cached_property
    def domain(self) -> Domain:
        """Where the next orbit may go."""
        place, rounding = self.next, self.arrangement.rounding
        grid = place.grid
        later, later_radii = self._later()
        n_witnesses, n_later = later.shape[:2]
        covered = grid.covered(
            np.concatenate([self.atoms, later.reshape(-1, 3)]),
            place.radius
            + rounding
            + grid.reach
            + np.concatenate([self.radii, np.tile(later_radii, n_witnesses)]),
            np.repeat(np.arange(n_witnesses + 1), [len(self.atoms), *[n_later] * n_witnesses]),
            n_witnesses + 1,
        )
        allowed = place.open & ~covered[0] & ~np.bitwise_and.reduce(covered[1:], axis=0)
        if not allowed.any():
            return self._around_witness(later[0], later_radii)
        n_free = grid.n_free
        words = allowed.reshape(grid.shape[3 - n_free : 2])
        return Domain.of(np.zeros(n_free), np.ones(n_free), words, grid.shape[2])

    def _around_witness(self, later: Floats, later_radii: Floats) -> Domain:
        """A box about the place that the first witness has for the next orbit, as large as distances allow."""
        of, place = self.arrangement, self.next
        middle = self.witnesses[0].coordinates[0]
        own = place.grid.atoms(middle)
        others = np.concatenate([self.atoms, later, own[1:]])
        least = place.radius + np.concatenate([self.radii, later_radii, np.full(len(own) - 1, place.radius)])
        spare = of.cell.distances(others - own[0], float(least.max(initial=0.0)) + 2.0 * MOST_SPARE) - least
        # Atoms of the orbit may move towards one another, by twice as much.
        spare[len(spare) - len(own) + 1 :] /= 2.0
        room = min(MOST_SPARE, float(spare.min(initial=np.inf)) - of.rounding)
        half = np.minimum(room / (place.grid.n_free * place.grid.lengths), 0.5)
        one = np.ones((1,) * (place.grid.n_free - 1), dtype=np.uint64)
        return Domain.of(middle - half, 2.0 * half, one, 1)

    @staticmethod
    def rounded(coordinates: Floats) -> Floats:
        """Coordinates as candidates hold them, in [0, 1)."""
        return np.asarray(np.round(coordinates, COORDINATE_DECIMALS) % 1.0)

    def place(self, coordinates: Floats) -> Placed:
        """With the next orbit at free coordinates of its domain, `f`.

        Raises:
            ValueError: they are not of its domain, and leave no room for the orbits to come.
        """
        of, place = self.arrangement, self.next
        coordinates = self.rounded(coordinates)
        own = place.grid.atoms(coordinates)
        later, later_radii = self._later()
        least = place.radius + later_radii
        gaps = of.cell.distances((later - own[0]).reshape(-1, 3), float(least.max(initial=0.0)))
        far_enough = (gaps.reshape(len(later), -1) >= least).all(axis=1)
        kept = [self.witnesses[w].after(place) for w in np.flatnonzero(far_enough)]
        if not kept:
            raise ValueError(f"orbit {self.n_placed} at {coordinates} leaves no room for the orbits to come")
        path = (*self.coordinates, coordinates)
        atoms = np.concatenate([self.atoms, own])
        radii = np.concatenate([self.radii, np.full(len(own), place.radius)])
        if 2 * len(kept) < WITNESSES and self.n_placed + 2 < len(of.free):
            # The last orbit needs none, as nothing comes after it.
            kept += find_witnesses(
                of.places[len(path) :], atoms, radii, of.rounding, WITNESSES - len(kept), of.generator(path)
            )
        return Placed(of, path, atoms, radii, tuple(kept))


def _read_orbits(placed: Placed, left: list[int], elements: Integers, atoms: Floats) -> Placed | str:
    """With all orbits to come at atoms that are left; why not, where there is no way.

    Equal orbits may be taken in one order and not in another, since each has to leave room for those after it: where
    one choice leads nowhere, the next is tried.
    """
    if placed.n_placed == len(placed.arrangement.free):
        return placed
    place = placed.next
    reason = _absent(place.orbit, place.grid)
    for first in [i for i in left if elements[i] == place.orbit.element]:
        coordinates = place.grid.locate(atoms[first], TOLERANCE)
        rest = list(left)
        if coordinates is None or not _take(
            rest, elements, atoms, place.orbit, place.grid.atoms(coordinates)
        ):
            continue
        coordinates = placed.rounded(coordinates)
        try:
            placed.domain.u(coordinates)
            after = placed.place(coordinates)
        except ValueError as error:
            reason = f"on Wyckoff position {place.grid.name} {error}"
            continue
        found = _read_orbits(after, rest, elements, atoms)
        if not isinstance(found, str):
            return found
        reason = found
    return reason


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
