"""Where the atoms of a Wyckoff position may lie in a cell, so that no two atoms of the crystal come too close.

Two atoms, periodic images and images of one atom included, keep at least `MIN_DISTANCE_RATIO` times the sum of
their covalent radii. For each position the free ones of x, y, z in [0, 1) are divided into a grid. An atom that moves
within a cell of the grid moves by at most the cell's *reach* from its centre, so a cell whose centre keeps all
distances with that to spare keeps them throughout. What must be far from one atom of an orbit and from its images by
symmetry is a set with that symmetry, so that one atom of the orbit, its representative, stands for all.

Lengths are in Å. Coordinates (x, y, z) are those of the position's maps (`sites`). Equivalent choices of the
representative are different points of the grid and count separately.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.elements import properties
from activelearning.crystals.sites import WyckoffMaps, wyckoff_maps

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

# Over the sum of covalent radii (Cordero et al., Dalton Trans. 2008). All of 3,282 structures of the Materials Project
# (every seventh of those with a band gap or on the hull that the tests read) keep 0.65; the closest are uranyl's U=O.
MIN_DISTANCE_RATIO = 0.6

# Edges of grid cells by number of free coordinates. The last coordinate is divided more finely: it costs little.
EDGES = {1: 0.08, 2: 0.2, 3: 0.4}
LAST_EDGE = {1: 0.08, 2: 0.12, 3: 0.2}
MAX_CELLS = 16_384


def smallest_radii() -> Floats:
    """What an atom of each element, H to Lr, contributes to its smallest distances, Å."""
    return MIN_DISTANCE_RATIO * properties(["covalent_radius"])[:, 0]


@dataclass(frozen=True, eq=False)
class Cell:
    """A conventional cell.

    Attributes:
        parameters: (a, b, c, α, β, γ) in Å and degrees.
    """

    parameters: tuple[float, float, float, float, float, float]

    @cached_property
    def metric(self) -> Floats:
        """Gram matrix of the lattice vectors, `3 x 3`, in Å²."""
        lengths = np.array(self.parameters[:3])
        alpha, beta, gamma = np.cos(np.radians(self.parameters[3:]))
        # cos 90° is not zero in floating point.
        cosines = np.array([[1.0, gamma, beta], [gamma, 1.0, alpha], [beta, alpha, 1.0]]).round(12)
        return np.asarray(cosines * lengths[:, None] * lengths)

    @cached_property
    def rounding(self) -> float:
        """Å that no distance changes by when fractional coordinates are rounded to 1e-6, x, y, z and atoms in turn."""
        return 2.5e-6 * sum(self.parameters[:3])

    @cached_property
    def shortest(self) -> float:
        """Length of the shortest lattice vector among small combinations, in Å."""
        vectors = [n for n in itertools.product((-2, -1, 0, 1, 2), repeat=3) if any(n)]
        return float(np.sqrt(squared_lengths(np.array(vectors, dtype=np.float64), self.metric).min()))

    def images(self, reach: float) -> Floats:
        """Translations, `k x 3`, that take a difference in [-½, ½]³ to all of its images within a distance."""
        heights = 1.0 / np.sqrt(np.diag(np.linalg.inv(self.metric)))
        ranges = [range(-int(k), int(k) + 1) for k in reach / heights + 0.5]
        return np.array(list(itertools.product(*ranges)), dtype=np.float64)

    def distances(self, differences: Floats, reach: float) -> Floats:
        """Distance, `n`, of fractional differences, `n x 3`, to the nearest lattice point.

        Exact up to `reach`; what is further away has some distance beyond it.
        """
        wrapped = differences - np.round(differences)
        return np.sqrt(
            squared_lengths(wrapped[:, None] + self.images(reach), self.metric).min(axis=1, initial=np.inf)
        )


def squared_lengths(vectors: Floats, metric: Floats) -> Floats:
    """Squared lengths, `...`, of vectors, `... x 3`."""
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.asarray(
        metric[0, 0] * x * x
        + metric[1, 1] * y * y
        + metric[2, 2] * z * z
        + 2.0 * (metric[0, 1] * x * y + metric[0, 2] * x * z + metric[1, 2] * y * z)
    )


@dataclass(frozen=True, eq=False)
class _Frame:
    """A lattice basis in which a position's representative moves along the last vectors.

    Attributes:
        basis: `3 x 3`, unimodular whole numbers, vectors in columns: those that complete the basis, then the direction
            of each free coordinate.
        inverse: `3 x 3`.
        pairs: Indices of atoms whose distances to the first one are, as functions of the coordinates, all those that
            occur within the orbit.
    """

    basis: Floats
    inverse: Floats
    pairs: tuple[int, ...]


@lru_cache(maxsize=2048)
def _frame(number: int, index: int) -> _Frame:
    maps = wyckoff_maps(number)[index]
    directions = maps.rotations[0][:, list(maps.free)]
    for chosen in itertools.combinations(range(3), 3 - len(maps.free)):
        basis = np.column_stack([np.eye(3)[:, list(chosen)], directions])
        if abs(abs(np.linalg.det(basis)) - 1.0) < 1e-9:
            return _Frame(basis, np.rint(np.linalg.inv(basis)), _distinct_pairs(number, maps))
    raise AssertionError(f"no lattice basis along {maps.position.letter} of group {number}")


def _distinct_pairs(number: int, maps: WyckoffMaps) -> tuple[int, ...]:
    """One atom of each set whose distances to the first are equal by symmetry, tried on a cell of the group's shape."""
    rotations = wyckoff_maps(number)[0].rotations
    metric = np.array([[30.0, 3.1, 4.3], [3.1, 41.0, 5.9], [4.3, 5.9, 53.0]])
    metric = np.einsum("kji,jl,klm->im", rotations, metric, rotations) / len(rotations)
    images = np.array(list(itertools.product(range(-2, 3), repeat=3)), dtype=np.float64)
    points = np.random.default_rng(0).random((3, 3))
    seen: set[tuple[float, ...]] = set()
    pairs = []
    atoms = np.stack([maps.atoms(point) for point in points])
    for k in range(1, len(rotations) if not maps.position.is_fixed else maps.position.multiplicity):
        if k >= maps.position.multiplicity:
            break
        gaps = atoms[:, k] - atoms[:, 0]
        gaps -= np.round(gaps)
        lengths = squared_lengths(gaps[:, None] + images, metric).min(axis=1)
        name = tuple(lengths.round(6).tolist())
        if name not in seen:
            seen.add(name)
            pairs.append(k)
    return tuple(pairs)


class PositionGrid:
    """The grid of one Wyckoff position in a cell.

    Three axes, of which the last f belong to the free coordinates in the order x, y, z; the others have one layer.

    Args:
        cell: The cell.
        number: International number of the group.
        index: Index of the position in `SpaceGroup.wyckoff`.
        farthest: Å up to which distances within the orbit matter.

    Attributes:
        maps: The position's maps.
        shape: Cells along the three axes.
        reach: Å by which an atom can be away from the centre of its cell.
        lengths: Å that the representative moves by as each free coordinate goes from 0 to 1, `f`.
    """

    def __init__(self, cell: Cell, number: int, index: int, farthest: float) -> None:
        self.cell, self._farthest = cell, farthest
        self.maps = wyckoff_maps(number)[index]
        self._frame = _frame(number, index)
        self.n_free = len(self.maps.free)
        basis = self._frame.basis
        self._metric = basis.T @ cell.metric @ basis
        self._extent = np.sqrt(np.diag(np.linalg.inv(self._metric)))
        self.shape = self._shape()
        self._steps = np.array(self.shape, dtype=np.float64)
        self._is_free = np.arange(3) >= 3 - self.n_free
        self.reach = self._reach(basis)
        self.translation = self.maps.translations[0]
        self.lengths = np.sqrt(np.diag(self._metric))[3 - self.n_free :]

    def _shape(self) -> tuple[int, int, int]:
        if not self.n_free:
            return (1, 1, 1)
        edges = np.full(3, EDGES[self.n_free])
        edges[2] = LAST_EDGE[self.n_free]
        lengths = np.sqrt(np.diag(self._metric))
        counts = np.where(np.arange(3) >= 3 - self.n_free, lengths / edges, 1.0)
        counts *= min(1.0, (MAX_CELLS / counts.prod()) ** (1.0 / self.n_free))
        first, second, third = (max(1, math.ceil(n)) for n in counts)
        return first, second, third

    def _reach(self, directions: Floats) -> float:
        """Largest length of a combination of directions (columns) within half a cell of the grid."""
        if not self.n_free:
            return 0.0
        half = np.where(self._is_free, 0.5 / self._steps, 0.0)
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
        corners = (signs * half) @ directions.T
        return float(np.sqrt(squared_lengths(corners, self.cell.metric).max()))

    # ---------------------------------------------------------------- coordinates

    def xyz(self, coordinates: Floats) -> Floats:
        """(x, y, z), `3`, of the free coordinates, `f`."""
        found = np.zeros(3)
        found[list(self.maps.free)] = coordinates
        return found

    def atoms(self, coordinates: Floats) -> Floats:
        """Fractional coordinates of the orbit's atoms in [0, 1), `m x 3`, the representative first."""
        return self.maps.atoms(self.xyz(coordinates))

    def centre(self, index: int) -> Floats:
        """Free coordinates, `f`, of the centre of a cell of the grid, by its flat index."""
        at = np.array(np.unravel_index(index, self.shape), dtype=np.float64)
        return np.asarray(((at + 0.5) / self._steps)[3 - self.n_free :])

    @property
    def name(self) -> str:
        """Multiplicity and letter."""
        return f"{self.maps.position.multiplicity}{self.maps.position.letter}"

    def locate(self, atom: Floats, tolerance: float) -> Floats | None:
        """Free coordinates, `f`, at which the representative is at an atom; None where it can't be."""
        at = self._frame.inverse @ (atom - self.translation)
        across = at[: 3 - self.n_free]
        if (np.abs(across - np.round(across)) > tolerance).any():
            return None
        return np.asarray(at[3 - self.n_free :] % 1.0)

    # ---------------------------------------------------------------- distances

    def own(self) -> tuple[Floats, Floats]:
        """Distances within the orbit, `shape` twice: at the centre of each cell, and that less what the cell's reach
        may take from it. Those beyond `farthest` are no less than it.
        """
        centre = np.full(self.shape, np.inf)
        throughout = np.full(self.shape, np.inf)
        rotations, translations = self.maps.rotations, self.maps.translations
        free = list(self.maps.free)
        axes = [
            ((np.arange(n) + 0.5) / n).reshape([-1 if i == j else 1 for i in range(3)])
            for j, n in enumerate(self.shape)
        ]
        for k in self._frame.pairs:
            directions = np.zeros((3, 3))
            directions[:, 3 - self.n_free :] = (rotations[k] - rotations[0])[:, free]
            gap = []
            for i in range(3):
                value = np.asarray(translations[k, i] - translations[0, i]).reshape(1, 1, 1)
                for j in range(3):
                    if directions[i, j]:
                        value = value + directions[i, j] * axes[j]
                gap.append(value - np.round(value))
            taken = self._reach(directions)
            squared = np.full((1, 1, 1), np.inf)
            for image in self.cell.images(self._farthest + taken):
                squared = np.minimum(squared, _squared(gap, image, self.cell.metric))
            distance = np.sqrt(squared)
            np.minimum(centre, distance, out=centre)
            np.minimum(throughout, distance - taken, out=throughout)
        return centre, throughout

    def covered(self, points: Floats, radii: Floats, batch: Integers, n_batch: int) -> Flags:
        """Cells whose centre has an atom nearer than its radius, `n_batch x shape`.

        Args:
            points: Fractional coordinates of atoms, `n x 3`; their images are taken into account.
            radii: Å, `n`.
            batch: To which of the `n_batch` independent sets of atoms each belongs, `n`.
            n_batch: Number of sets.
        """
        first, second, third = self.shape
        if not len(points):
            return np.zeros((n_batch, first, second, third), dtype=np.bool_)
        at = (points - self.translation) @ self._frame.inverse.T
        widest = float(radii.max())
        gaps, places = [], []
        for axis in (0, 1):
            n, half = self.shape[axis], 0.5 if self._is_free[axis] else 0.0
            span = int(widest * self._extent[axis] * n + 0.5)
            place = np.floor(at[:, axis, None] * n + (0.5 - half)) + np.arange(-span, span + 1)
            gaps.append((place + half) / n - at[:, axis, None])
            places.append(place.astype(np.int64) % n)
        return self._lines(at[:, 2], gaps, places, radii, batch, n_batch)

    def _lines(
        self,
        at: Floats,
        gaps: list[Floats],
        places: list[Integers],
        radii: Floats,
        batch: Integers,
        n_batch: int,
    ) -> Flags:
        """What balls cover, line by line along the last axis: there each ball is an interval."""
        first, second, third = self.shape
        metric = self._metric
        p, q = gaps[0][:, :, None], gaps[1][:, None, :]
        b = (metric[0, 2] * p + metric[1, 2] * q) / metric[2, 2]
        c = (
            metric[0, 0] * p * p
            + 2.0 * metric[0, 1] * p * q
            + metric[1, 1] * q * q
            - (radii**2)[:, None, None]
        )
        root = b * b - c / metric[2, 2]
        atom, i, j = np.nonzero(root > 0.0)
        half = np.sqrt(root[atom, i, j])
        middle = at[atom] - b[atom, i, j]
        if self.n_free:
            low = np.ceil((middle - half) * third - 0.5)
            high = np.floor((middle + half) * third - 0.5)
        else:
            low, high = np.ceil(middle - half), np.floor(middle + half)
        length = np.minimum(high - low + 1.0, third).astype(np.int64)
        keep = length > 0
        atom, length = atom[keep], length[keep]
        line = (batch[atom] * first + places[0][atom, i[keep]]) * second + places[1][atom, j[keep]]
        # Two turns of the circle: an interval begins in the first and may end in the second.
        start = line * (2 * third + 1) + low[keep].astype(np.int64) % third
        size = n_batch * first * second * (2 * third + 1)
        edges = np.bincount(start, minlength=size) - np.bincount(start + length, minlength=size)
        depth = np.cumsum(edges.reshape(-1, 2 * third + 1), axis=1)
        covered = (depth[:, :third] + depth[:, third : 2 * third]) > 0
        return covered.reshape(n_batch, first, second, third)


def _squared(gap: list[Floats], image: Floats, metric: Floats) -> Floats:
    """Squared length of differences plus a translation, from components that broadcast against each other."""
    total = np.zeros((1, 1, 1))
    moved = [component + n for component, n in zip(gap, image, strict=True)]
    for i in range(3):
        total = total + metric[i, i] * moved[i] * moved[i]
        for j in range(i):
            if metric[i, j]:
                total = total + 2.0 * metric[i, j] * moved[i] * moved[j]
    return total


@dataclass(frozen=True, eq=False)
class Domain:
    """Where one orbit may go: a map from u in (0, 1)^f onto the allowed cells of a box of its free coordinates.

    u is spread coordinate by coordinate: the first over the slabs that hold an allowed cell, the next over the allowed
    parts of that slab, and so on. So |det ∂x/∂u| is constant within a cell.

    Attributes:
        low: Lower corner of the box, `f`.
        size: Its edges, `f`; [0, 1) in each coordinate, or less.
        shape: Cells along each coordinate.
        bits: Which cells are allowed, packed.
        share: Volume of the allowed cells, over that of all positions.
    """

    low: Floats
    size: Floats
    shape: tuple[int, ...]
    bits: NDArray[np.uint8]
    share: float

    @classmethod
    def of(cls, low: Floats, size: Floats, allowed: Flags) -> Domain:
        """The domain of cells, f axes, of which at least one is allowed."""
        return cls(
            low, size, allowed.shape, np.packbits(allowed), float(allowed.mean()) * float(np.prod(size))
        )

    @property
    def allowed(self) -> Flags:
        """Cells, f axes."""
        return unpacked(self.bits, self.shape)

    @property
    def n_free(self) -> int:
        """Number of coordinates f."""
        return len(self.shape)

    def coordinates(self, u: Floats) -> tuple[Floats, float]:
        """Free coordinates in [0, 1), `f`, of u, `f`, and log |det ∂x/∂u|."""
        left, found, log_det = self.allowed, np.zeros(self.n_free), 0.0
        for axis in range(self.n_free):
            slabs = _slabs(left)
            along = u[axis] * len(slabs)
            rank = min(int(along), len(slabs) - 1)
            n, place = left.shape[0], int(slabs[rank])
            found[axis] = self.low[axis] + self.size[axis] * (place + along - rank) / n
            log_det += math.log(self.size[axis] * len(slabs) / n)
            left = left[place]
        return found % 1.0, log_det

    def u(self, coordinates: Floats, tolerance: float = 2e-6) -> Floats:
        """The inverse of `coordinates`, `f`; what is outside by no more than the tolerance is taken to the edge.

        Raises:
            ValueError: the orbit may not be there.
        """
        left, found = self.allowed, np.zeros(self.n_free)
        for axis in range(self.n_free):
            slabs, n = _slabs(left), left.shape[0]
            # From the middle of the box, which may lie across the cell's boundary.
            from_middle = (coordinates[axis] - self.low[axis] - 0.5 * self.size[axis] + 0.5) % 1.0 - 0.5
            along = (from_middle / self.size[axis] + 0.5) * n
            ranks = np.arange(len(slabs))
            distance = np.abs(along - slabs - 0.5) - 0.5
            rank = int(ranks[np.argmin(distance)])
            if distance[rank] > tolerance * n / self.size[axis]:
                raise ValueError(f"coordinate {coordinates[axis]:.6f} is too close to other atoms")
            inside = min(max(along - slabs[rank], 1e-9), 1.0 - 1e-9)
            found[axis] = (rank + inside) / len(slabs)
            left = left[slabs[rank]]
        return found


def unpacked(bits: NDArray[np.uint8], shape: tuple[int, ...]) -> Flags:
    """Flags that `np.packbits` made small."""
    return np.unpackbits(bits, count=math.prod(shape)).view(np.bool_).reshape(shape)


def _slabs(allowed: Flags) -> Integers:
    """Indices along the first axis where anything is allowed."""
    return np.flatnonzero(allowed.reshape(len(allowed), -1).any(axis=1))
