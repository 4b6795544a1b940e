"""Free coordinates of the Wyckoff positions: with them a crystal has atoms.

Orbits without free coordinates are there from the start; each other one is placed in one step, in order of element and
letter. No two atoms come closer than `activelearning.crystals.placement` allows, and no trajectory gets stuck: where
an orbit may go is decided by `activelearning.crystals.arrangement`. A crystal for which that finds no arrangement
stays without atoms. The measure is Lebesgue's on the free coordinates in [0, 1), where choices of representative, and
of the order of orbits of one element on one letter, that give the same structure count separately.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pymatgen.core import Lattice, Structure

from activelearning.candidate import ANGLE_DECIMALS, LENGTH_DECIMALS, CrystalCandidate
from activelearning.crystals.arrangement import Arrangement, Placed
from activelearning.crystals.elements import atomic_number, element_rows, properties
from activelearning.crystals.witness import Orbit
from samplers.gflownet.environments.crystal_stages.caching import Cache
from samplers.gflownet.environments.crystal_stages.stage import Crystals, Flags, Floats, Inputs, Integers
from samplers.gflownet.environments.crystal_stages.wyckoff import ELEMENT_COLUMNS
from samplers.gflownet.environments.crystal_stages.wyckoff_tables import WyckoffBlock

if TYPE_CHECKING:
    from activelearning.spaces.crystal import CrystalSpace

# Crystals and partly placed crystals that are remembered: a batch asks for each several times. About 30 and 12 kB each.
ARRANGEMENTS = 4096
PLACED = 8192

# Reflections, up to sign, whose structure factors tell the policy where atoms are.
REFLECTIONS = np.array(
    [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [1, 1, 0],
        [1, -1, 0],
        [1, 0, 1],
        [1, 0, -1],
        [0, 1, 1],
        [0, 1, -1],
        [1, 1, 1],
        [1, 1, -1],
        [1, -1, 1],
        [-1, 1, 1],
    ]
)


class CoordinatesStage:
    """One step for each orbit with free coordinates.

    Block: free coordinates of the orbits in the order placed, three columns each, and how many are placed.
    """

    name = "coordinates"
    n_actions = 1
    n_continuous = 3

    def __init__(self, space: CrystalSpace) -> None:
        base = space.base
        self._symbols, self._groups = base.elements, base.space_groups
        self._numbers = [atomic_number(symbol) for symbol in self._symbols]
        self._layout = WyckoffBlock(base.space_groups, base.n_elements[1])
        self.max_steps = base.max_atoms
        self.width = 3 * base.max_atoms + 1
        self.n_inputs = len(ELEMENT_COLUMNS) + self._layout.n_letters + 9 + 4 * len(REFLECTIONS)
        self._descriptors = _scaled(properties(ELEMENT_COLUMNS))
        self._arrangements: Cache[_Key, Arrangement] = Cache(ARRANGEMENTS)
        self._placed: Cache[tuple[_Key, bytes], Placed] = Cache(PLACED)

    # ---------------------------------------------------------------- what is placed

    def arrangements(self, crystals: Crystals) -> list[Arrangement]:
        """The arrangement of each crystal, `n`."""
        return [self._arrangement(key) for key in self._keys(crystals)]

    def placed(self, crystals: Crystals) -> list[Placed | None]:
        """What is placed of each crystal, `n`; None where there is no arrangement."""
        block = crystals.block(self.name)
        return [
            self._at(key, row[: 3 * int(row[-1])]) if self._arrangement(key).is_possible else None
            for key, row in zip(self._keys(crystals), block, strict=True)
        ]

    def _keys(self, crystals: Crystals) -> Iterator[_Key]:
        """Group, lattice, and orbits as (slot's element, letter, number), hashable."""
        orbits, (elements, _) = self._layout.orbits(crystals), self._layout.slots(crystals)
        # As candidates hold them; equal keys for equal cells.
        lattices = np.concatenate(
            [
                np.round(crystals.lattices[:, :3], LENGTH_DECIMALS),
                np.round(crystals.lattices[:, 3:], ANGLE_DECIMALS),
            ],
            axis=1,
        )
        for row, group in enumerate(crystals.groups.tolist()):
            slots, letters = np.nonzero(orbits[row])
            held = orbits[row, slots, letters]
            yield (
                group,
                tuple(lattices[row].tolist()),
                tuple(zip(elements[row, slots].tolist(), letters.tolist(), held.tolist(), strict=True)),
            )

    def _arrangement(self, key: _Key) -> Arrangement:
        return self._arrangements.get(key, self._make)

    def _make(self, key: _Key) -> Arrangement:
        group, lattice, assigned = key
        positions = self._layout.positions.indices[group]
        orbits = [
            Orbit(int(positions[letter]), self._numbers[element])
            for element, letter, held in assigned
            for _ in range(held)
        ]
        return Arrangement(self._groups[group].number, lattice, orbits)

    def _at(self, key: _Key, coordinates: Floats) -> Placed:
        return self._placed.get((key, coordinates.tobytes()), self._replay)

    def _replay(self, key: tuple[_Key, bytes]) -> Placed:
        coordinates = np.frombuffer(key[1])
        if not len(coordinates):
            return self._arrangement(key[0]).begin()
        before = self._at(key[0], coordinates[:-3])
        return before.place(coordinates[-3:][: before.next.grid.n_free])

    # ---------------------------------------------------------------- the stage

    def encode(self, crystals: Crystals) -> Inputs:
        """The orbit to be placed (element, letter, multiplicity, free coordinates, share of positions allowed), what is
        done and left, and structure factors of all that is placed and of its own element, `n x n_inputs`.
        """
        inputs = np.zeros((len(crystals), self.n_inputs), dtype=np.float32)
        n_letters, n_elements = self._layout.n_letters, len(ELEMENT_COLUMNS)
        groups = crystals.groups.tolist()
        for row, placed in enumerate(self.placed(crystals)):
            if placed is None:
                continue
            values = inputs[row]
            of, k = placed.arrangement, placed.n_placed
            n_orbits = max(1, len(of.free))
            factors = -4 * len(REFLECTIONS)
            values[factors : factors // 2] = _structure_factors(
                placed.atoms, placed.elements.astype(np.float64)
            )
            tail = values[n_elements + n_letters : factors]
            tail[:3] = 1.0, k / n_orbits, np.log1p(len(of.free) - k)
            if placed.is_complete:
                continue
            orbit, position = of.free[k], of.position(of.free[k])
            values[:n_elements] = self._descriptors[orbit.element - 1]
            letter = np.flatnonzero(self._layout.positions.indices[groups[row]] == orbit.position)[0]
            values[n_elements + letter] = 1.0
            tail[3] = np.log(position.multiplicity) / np.log(192)
            tail[3 + position.freedom] = 1.0
            tail[7] = placed.domain.share
            tail[8] = np.log(placed.domain.share)
            values[factors // 2 :] = _structure_factors(
                placed.atoms, (placed.elements == orbit.element).astype(np.float64)
            )
        return inputs

    def mask(self, crystals: Crystals) -> Flags:
        """`n x 1`."""
        return np.ones((len(crystals), 1), dtype=np.bool_)

    def drawn(self, crystals: Crystals, actions: Integers) -> Flags:
        """`n x 3`: as many as the orbit has free coordinates."""
        n_free = [placed.next.grid.n_free for placed in self._open(crystals)]
        return np.arange(3) < np.array(n_free, dtype=np.int64)[:, None]

    def _open(self, crystals: Crystals) -> Iterator[Placed]:
        """What is placed of crystals that are in this stage."""
        for placed in self.placed(crystals):
            if placed is None or placed.is_complete:
                raise ValueError("no orbit is left to be placed")
            yield placed

    def step(self, crystals: Crystals, actions: Integers, u: Floats) -> Floats:
        """`n x width`."""
        block = crystals.block(self.name).copy()
        for row, placed in enumerate(self._open(crystals)):
            coordinates, _ = placed.domain.coordinates(u[row, : placed.next.grid.n_free])
            first = 3 * placed.n_placed
            block[row, first : first + placed.next.grid.n_free] = placed.rounded(coordinates)
        block[:, -1] += 1.0
        return block

    def is_complete(self, crystals: Crystals) -> Flags:
        """`n`."""
        n_placed = crystals.block(self.name)[:, -1]
        return np.array(
            [
                not of.is_possible or n == len(of.free)
                for of, n in zip(self.arrangements(crystals), n_placed, strict=True)
            ],
            dtype=np.bool_,
        )

    def is_empty(self, crystals: Crystals) -> Flags:
        """`n`."""
        return np.asarray(crystals.block(self.name)[:, -1] == 0.0)

    def step_back(self, crystals: Crystals) -> tuple[Integers, Floats, Floats]:
        """Take the last orbit away."""
        block = crystals.block(self.name).copy()
        u = np.full((len(block), self.n_continuous), 0.5)
        last = 3 * (block[:, -1].astype(np.int64) - 1)
        for row, key in enumerate(self._keys(crystals)):
            before = self._at(key, block[row, : last[row]])
            chosen = block[row, last[row] : last[row] + before.next.grid.n_free]
            u[row, : before.next.grid.n_free] = before.domain.u(chosen)
            block[row, last[row] : last[row] + 3] = 0.0
        block[:, -1] -= 1.0
        return np.zeros(len(block), dtype=np.int64), u, block

    def log_jacobian(self, crystals: Crystals, actions: Integers, u: Floats) -> Floats:
        """`n`: minus log |det ∂x/∂u|."""
        return np.array(
            [
                -placed.domain.coordinates(u[row, : placed.next.grid.n_free])[1]
                for row, placed in enumerate(self._open(crystals))
            ]
        )

    # ---------------------------------------------------------------- candidates

    def values(self, crystals: Crystals) -> Sequence[Structure | None]:
        """The conventional cell with its atoms, orbit by orbit; None where they can't be kept apart."""
        return [None if placed is None else _structure(placed) for placed in self.placed(crystals)]

    def read(self, candidates: Sequence[CrystalCandidate], crystals: Crystals) -> Floats:
        """The block of candidates' atoms, in whatever order those are."""
        block = np.zeros((len(candidates), self.width))
        for row, (candidate, of) in enumerate(zip(candidates, self.arrangements(crystals), strict=True)):
            if candidate.structure is None:
                if of.is_possible:
                    raise ValueError(f"{candidate.formula} has no atoms, though its cell has room for them")
                continue
            numbers = np.array([site.specie.Z for site in candidate.structure], dtype=np.int64)
            placed = of.read(numbers, candidate.structure.frac_coords)
            for k, coordinates in enumerate(placed.coordinates):
                block[row, 3 * k : 3 * k + len(coordinates)] = coordinates
            block[row, -1] = placed.n_placed
        return block


_Key = tuple[int, tuple[float, ...], tuple[tuple[int, int, int], ...]]


def _scaled(table: Floats) -> Floats:
    """Columns from 0 to 1."""
    low = table.min(axis=0)
    return np.asarray((table - low) / (table.max(axis=0) - low))


def _structure_factors(atoms: Floats, weights: Floats) -> Floats:
    """Real and imaginary parts for the `REFLECTIONS`, over the sum of weights; zero without atoms."""
    total = weights.sum()
    if not total:
        return np.zeros(2 * len(REFLECTIONS))
    phases = 2.0 * np.pi * (atoms @ REFLECTIONS.T)
    return np.concatenate([weights @ np.cos(phases), weights @ np.sin(phases)]) / total


def _structure(placed: Placed) -> Structure:
    symbols = list(element_rows())
    return Structure(
        Lattice.from_parameters(*placed.arrangement.cell.parameters),
        [symbols[number - 1] for number in placed.elements],
        placed.atoms,
    )
