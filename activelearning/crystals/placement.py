"""Where the atoms of a Wyckoff position may lie in a cell, so that no two atoms of the crystal come too close.

For each position the free ones of x, y, z in [0, 1) are divided into a grid. An atom that moves within a cell of the
grid moves by at most the cell's *reach* from its centre, so a cell whose centre keeps all distances with that to spare
keeps them throughout. What must be far from one atom of an orbit and from its images by symmetry is a set with that
symmetry, so that one atom of the orbit, its representative, stands for all.

A set of cells is an array of words, one for each line of cells along the last coordinate, with the cells as its bits. A
ball meets a line in an interval, which needs no look at single cells.

Lengths are in Å. Coordinates (x, y, z) are those of the position's maps (`sites`). Equivalent choices of the
representative are different points of the grid and count separately.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.distances import Cell, squared_lengths
from activelearning.crystals.sites import WyckoffMaps, lattice_basis, wyckoff_maps

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Words = NDArray[np.uint64]

# Edges of grid cells in Å by number of free coordinates. The last coordinate is divided more finely: it costs little.
EDGES = {1: 0.08, 2: 0.2, 3: 0.3}
LAST_EDGE = {1: 0.08, 2: 0.12, 3: 0.12}
MAX_LINES = 1024
BITS = 64


@dataclass(frozen=True, eq=False)
class _Pair:
    """The difference of an atom of an orbit from the first one, directions · coordinates + offset.

    Attributes:
        directions: `3 x 3`, whole numbers, by axis of the grid.
        offset: `3`.
        n_turns: How often the difference comes to an equal point of a lattice line as the last coordinate goes from 0
            to 1; 0 where it does not move.
        basis: Where it does, a lattice basis whose last vector it moves along, `3 x 3`, vectors in columns.
        inverse: `3 x 3`.
    """

    directions: Floats
    offset: Floats
    n_turns: int
    basis: Floats
    inverse: Floats


@dataclass(frozen=True, eq=False)
class _Frame:
    """A lattice basis in which a position's representative moves along the last vectors.

    Attributes:
        basis: `3 x 3`, unimodular whole numbers, vectors in columns: those that complete the basis, then the direction
            of each free coordinate.
        inverse: `3 x 3`.
        pairs: Atoms whose distances to the first one are, as functions of the coordinates, all that occur within the
            orbit.
    """

    basis: Floats
    inverse: Floats
    pairs: tuple[_Pair, ...]


@lru_cache(maxsize=2048)
def _frame(number: int, index: int) -> _Frame:
    maps = wyckoff_maps(number)[index]
    n_free = len(maps.free)
    basis = lattice_basis(maps.rotations[0][:, list(maps.free)])
    pairs = []
    for k in _distinct(number, maps):
        directions = np.zeros((3, 3))
        directions[:, 3 - n_free :] = (maps.rotations[k] - maps.rotations[0])[:, list(maps.free)]
        along = directions[:, 2]
        n_turns = math.gcd(*along.astype(int).tolist())
        line = lattice_basis(along[:, None] / n_turns) if n_turns else np.eye(3)
        offset = maps.translations[k] - maps.translations[0]
        pairs.append(_Pair(directions, offset, n_turns, line, np.rint(np.linalg.inv(line))))
    return _Frame(basis, np.rint(np.linalg.inv(basis)), tuple(pairs))


def _distinct(number: int, maps: WyckoffMaps) -> list[int]:
    """One atom of each set whose distances to the first are equal by symmetry, tried on a cell of the group's shape."""
    rotations = wyckoff_maps(number)[0].rotations
    metric = np.array([[30.0, 3.1, 4.3], [3.1, 41.0, 5.9], [4.3, 5.9, 53.0]])
    metric = np.einsum("kji,jl,klm->im", rotations, metric, rotations) / len(rotations)
    images = np.array(list(itertools.product(range(-2, 3), repeat=3)), dtype=np.float64)
    atoms = maps.atoms(np.random.default_rng(0).random((3, 3)))
    gaps = atoms[:, 1:] - atoms[:, :1]
    gaps -= np.round(gaps)
    squared = squared_lengths(gaps[:, :, None] + images, metric).min(axis=2).round(6)
    names = [tuple(column) for column in squared.T.tolist()]
    return [1 + names.index(name) for name in dict.fromkeys(names)]


class PositionGrid:
    """The grid of one Wyckoff position in a cell.

    Three axes, of which the last f belong to the free coordinates in the order x, y, z; the others have one layer.

    Args:
        cell: The cell.
        number: International number of the group.
        index: Index of the position in `SpaceGroup.wyckoff`.

    Attributes:
        cell: The cell.
        maps: The position's maps.
        n_free: Number f of its free coordinates.
        shape: Cells along the three axes.
        reach: Å by which an atom can be away from the centre of its cell.
        lengths: Å that the representative moves by as each free coordinate goes from 0 to 1, `f`.
    """

    def __init__(self, cell: Cell, number: int, index: int) -> None:
        self.cell = cell
        self.maps = wyckoff_maps(number)[index]
        self.n_free = len(self.maps.free)
        self._frame = _frame(number, index)
        self._translation = self.maps.translations[0]
        self._metric = self._frame.basis.T @ cell.metric @ self._frame.basis
        # Half-widths of a ball of 1 Å along the axes.
        self._extent = _extent(self._frame.inverse, cell.inverse)
        self._is_free = np.arange(3) >= 3 - self.n_free
        # The one layer of an axis that is not free is at its origin, not in the middle of a period.
        self._middle = np.where(self._is_free, 0.5, 0.0)
        self.lengths = np.sqrt(np.diag(self._metric))[3 - self.n_free :]
        self.shape = self._shape()
        self._steps = np.array(self.shape, dtype=np.float64)
        self._strides = np.array([self.shape[1] * self.shape[2], self.shape[2], 1])
        self.reach = self._reach(self._frame.basis)

    @property
    def name(self) -> str:
        """Multiplicity and letter."""
        return f"{self.maps.position.multiplicity}{self.maps.position.letter}"

    def _shape(self) -> tuple[int, int, int]:
        counts = np.ones(3)
        if self.n_free:
            counts[3 - self.n_free :] = self.lengths / EDGES[self.n_free]
            counts[2] = self.lengths[-1] / LAST_EDGE[self.n_free]
        excess = counts[:2].prod() / MAX_LINES
        if excess > 1.0:
            counts[3 - self.n_free : 2] /= excess ** (1.0 / (self.n_free - 1))
        first, second, third = (max(1, math.ceil(n)) for n in counts)
        return first, second, min(third, BITS)

    def _reach(self, directions: Floats) -> float:
        """Largest length of a combination of directions (columns) within half a cell of the grid."""
        corners = (_CORNERS * np.where(self._is_free, 0.5 / self._steps, 0.0)) @ directions.T
        return float(np.sqrt(squared_lengths(corners, self.cell.metric).max()))

    # ---------------------------------------------------------------- coordinates

    def atoms(self, coordinates: Floats) -> Floats:
        """Fractional coordinates of the orbit's atoms in [0, 1), `... x m x 3`, of the free ones, `... x f`.

        The representative is the first.
        """
        xyz = np.zeros((*coordinates.shape[:-1], 3))
        xyz[..., list(self.maps.free)] = coordinates
        return self.maps.atoms(xyz)

    def places(self, cells: Integers) -> Floats:
        """Free coordinates, `n x f`, of the centres of cells by their flat indices, `n`."""
        at = cells[:, None] // self._strides % self.shape
        return np.asarray(((at + 0.5) / self._steps)[:, 3 - self.n_free :])

    def locate(self, atom: Floats, tolerance: float) -> Floats | None:
        """Free coordinates, `f`, at which the representative is at an atom; None where it can't be."""
        at = self._frame.inverse @ (atom - self._translation)
        across = at[: 3 - self.n_free]
        if (np.abs(across - np.round(across)) > tolerance).any():
            return None
        return np.asarray(at[3 - self.n_free :] % 1.0)

    # ---------------------------------------------------------------- distances

    def covered(self, points: Floats, radii: Floats, batch: Integers, n_batch: int) -> Words:
        """Cells whose centre has an atom nearer than its radius, `n_batch x n_1 x n_2`.

        Args:
            points: Fractional coordinates of atoms, `n x 3`; their images are taken into account.
            radii: Å, `n`.
            batch: To which of the `n_batch` independent sets of atoms each belongs, `n`.
            n_batch: Number of sets.
        """
        first, second, third = self.shape
        words = np.zeros(n_batch * first * second, dtype=np.uint64)
        if len(points):
            at = (points - self._translation) @ self._frame.inverse.T
            widest = float(radii.max())
            gaps, lines = [], []
            for axis in (0, 1):
                n, middle = self.shape[axis], self._middle[axis]
                span = int(widest * self._extent[axis] * n + 0.5)
                place = np.floor(at[:, axis, None] * n + (0.5 - middle)) + np.arange(-span, span + 1)
                gaps.append((place + middle) / n - at[:, axis, None])
                lines.append(place.astype(np.int64) % n)
            atom, i, j, low, high = _chords(self._metric, gaps[0], gaps[1], radii)
            line = (batch[atom] * first + lines[0][atom, i]) * second + lines[1][atom, j]
            _mark(words, line, at[atom, 2] + low, at[atom, 2] + high, third, self._middle[2])
        return words.reshape(n_batch, first, second)

    def apart(self, least: float, *, throughout: bool) -> Words:
        """Cells at whose centre the orbit's own atoms keep a distance in Å, `n_1 x n_2`.

        Args:
            least: The distance.
            throughout: Whether they keep it wherever in the cell the representative is.
        """
        first, second, third = self.shape
        words = np.zeros(first * second, dtype=np.uint64)
        lines = np.stack(np.unravel_index(np.arange(first * second), (first, second)), axis=-1)
        at = (lines + self._middle[:2]) / self._steps[:2]
        for pair in self._frame.pairs:
            radius = least + (self._reach(pair.directions) if throughout else 0.0)
            # Differences at the beginning of each line.
            gaps = at @ pair.directions[:, :2].T + pair.offset
            if pair.n_turns:
                self._mark_pair(words, pair, gaps, radius)
            else:
                words[self.cell.distances(gaps, radius) < radius] = _ALL
        return (~words & (_ALL >> np.uint64(BITS - third))).reshape(first, second)

    def _mark_pair(self, words: Words, pair: _Pair, gaps: Floats, radius: float) -> None:
        """Mark, in place, where a difference that moves along each line comes near to a lattice point."""
        at = -gaps @ pair.inverse.T
        metric = pair.basis.T @ self.cell.metric @ pair.basis
        extent = _extent(pair.inverse, self.cell.inverse)
        across = []
        for axis in (0, 1):
            span = int(radius * extent[axis] + 0.5)
            across.append(np.round(at[:, axis, None]) + np.arange(-span, span + 1) - at[:, axis, None])
        line, _, _, low, high = _chords(metric, across[0], across[1], np.full(len(at), radius))
        for turn in range(pair.n_turns):
            start = at[line, 2] + turn
            _mark(
                words,
                line,
                (start + low) / pair.n_turns,
                (start + high) / pair.n_turns,
                self.shape[2],
                self._middle[2],
            )


_CORNERS = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
_ALL = ~np.uint64(0)


def _extent(inverse_basis: Floats, inverse_metric: Floats) -> list[float]:
    """Half-widths of a ball of radius 1 along the vectors of a basis, of which the inverse is given."""
    squared = ((inverse_basis @ inverse_metric) * inverse_basis).sum(axis=1)
    return np.sqrt(squared).tolist()


def _chords(
    metric: Floats, p: Floats, q: Floats, radii: Floats
) -> tuple[Integers, Integers, Integers, Floats, Floats]:
    """Where balls meet lines along the last axis of a basis.

    Args:
        metric: Of the basis, `3 x 3`.
        p: Differences of lines from the balls' centres along the first axis, `n x s`.
        q: The same along the second, `n x t`.
        radii: Å, `n`.

    Returns:
        Indices of ball and line for each pair that meets, and ends of the chord as differences from the centre.
    """
    p, q = p[:, :, None], q[:, None, :]
    # A quadratic in the difference t along the line: (t + b)² < root.
    b = (metric[0, 2] * p + metric[1, 2] * q) / metric[2, 2]
    c = metric[0, 0] * p * p + 2.0 * metric[0, 1] * p * q + metric[1, 1] * q * q
    root = b * b - (c - (radii**2)[:, None, None]) / metric[2, 2]
    ball, i, j = np.nonzero(root > 0.0)
    half, middle = np.sqrt(root[ball, i, j]), -b[ball, i, j]
    return ball, i, j, middle - half, middle + half


def _mark(words: Words, line: Integers, low: Floats, high: Floats, n: int, middle: float) -> None:
    """Set, in place, the bits of a circle of n cells whose centres are within intervals."""
    start, end = np.ceil(low * n - middle), np.floor(high * n - middle)
    some = np.flatnonzero(end >= start)
    start, length = start[some], np.minimum(end[some] - start[some] + 1.0, n).astype(np.uint64)
    first = (start.astype(np.int64) % n).astype(np.uint64)
    ones = _ALL >> (np.uint64(BITS) - length)
    # What goes past the end begins again; a shift by all bits is undefined.
    is_inside = first == 0
    past = ones >> np.where(is_inside, np.uint64(1), np.uint64(n) - first)
    bits = (ones << first) | np.where(is_inside, np.uint64(0), past)
    np.bitwise_or.at(words, line[some], bits & (_ALL >> np.uint64(BITS - n)))


def unpacked(words: Words, n: int) -> Flags:
    """The first n bits of words, along a new last axis."""
    octets = np.ascontiguousarray(words[..., None]).view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little")[..., :n].view(np.bool_)
