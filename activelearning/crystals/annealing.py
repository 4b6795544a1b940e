"""Where atoms and vacancies go: simulated annealing of their Coulomb energy on given sites.

Atoms change places with others, or with vacancies, of the same orbit. The energy of point charges is half a quadratic
form of the charges, whose matrix is made once by Ewald summation; a move costs a few sums (Kirkpatrick, Gelatt &
Vecchi, Science 1983, 220, 671). Atoms that would overlap meet a wall, so that split positions are filled once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

Array = NDArray[np.float64]
Whole = NDArray[np.int64]

VACANT = -1
WALL = 50.0  # eV for each overlapping pair: more than charges gain by overlapping
HOTTEST, COLDEST = 5.0, 0.02  # eV, of the annealing's temperatures


@dataclass(frozen=True)
class Sites:
    """What is to be arranged.

    Attributes:
        matrix: Lattice vectors as rows, `3 x 3`, Å.
        fractional: Coordinates of the sites, `n x 3`.
        orbits: Number of each site's orbit, `n`.
        elements: Symbols.
        charges: Of the elements, e; the counts make them neutral.
        radii: Of the elements, Å: atoms closer than the sum of two overlap.
        counts: Atoms on each orbit, `n_orbits x n_elements`.
        allowed: Which elements may be on which orbit, `n_orbits x n_elements`.
    """

    matrix: Array
    fractional: Array
    orbits: Whole
    elements: tuple[str, ...]
    charges: Array
    radii: Array
    counts: Whole
    allowed: NDArray[np.bool_]


@dataclass(frozen=True)
class Arrangement:
    """Atoms on sites.

    Attributes:
        species: Index of the element on each site, `VACANT` for none, `n`.
        energy: Coulomb energy, eV, without walls.
        n_overlaps: Pairs of atoms that overlap.
        has_kept_orbits: Whether every orbit holds its counts.
        closest: The closest overlapping pair in words, empty where there is none.
    """

    species: Whole
    energy: float
    n_overlaps: int
    has_kept_orbits: bool
    closest: str = ""


def coulomb_matrix(matrix: Array, fractional: Array) -> Array:
    """Energies, eV, of unit charges on sites, `n x n`: the energy of neutral charges q is qᵀ W q.

    Sites of distance zero must have been merged before.
    """
    from pymatgen.analysis.ewald import EwaldSummation
    from pymatgen.core import Lattice, Species, Structure

    unit = Structure(Lattice(matrix), [Species("H", 1)] * len(fractional), fractional)
    return np.array(EwaldSummation(unit).total_energy_matrix, dtype=np.float64)


def anneal(sites: Sites, *, n_starts: int, sweeps: int, seed: int) -> list[Arrangement]:
    """Arrangements of low energy, those without overlaps first, then by energy; distinct by energy.

    Start k draws from `SeedSequence([seed, k])`. Where atoms overlap at the end of all starts, as they must where
    rounding has put too many on split positions, they are annealed once more, free to go to any orbit of their element.

    Args:
        sites: Sites, orbits and counts.
        n_starts: Independent annealings.
        sweeps: Attempted moves for each site with a choice.
        seed: Seed.
    """
    energies = coulomb_matrix(sites.matrix, sites.fractional)
    pairs = _close_pairs(sites)
    found = [
        _Annealing(sites, energies, pairs, np.random.SeedSequence([seed, k]), keep_orbits=True).run(sweeps)
        for k in range(n_starts)
    ]
    if all(arrangement.n_overlaps for arrangement in found):
        found += [
            _Annealing(
                sites, energies, pairs, np.random.SeedSequence([seed, n_starts + k]), keep_orbits=False
            ).run(sweeps)
            for k in range(n_starts)
        ]
    found.sort(key=lambda each: (each.n_overlaps, round(each.energy, 6), each.species.tolist()))
    distinct: list[Arrangement] = []
    for each in found:
        last = distinct[-1] if distinct else None
        if last is None or each.n_overlaps != last.n_overlaps or abs(each.energy - last.energy) > 1e-3:
            distinct.append(each)
    return distinct


def _close_pairs(sites: Sites) -> list[list[tuple[int, float]]]:
    """Of each site: the others near enough for some two atoms to overlap, with their distance, images included."""
    reach = 2.0 * float(sites.radii.max())
    atoms = Atoms(
        numbers=np.ones(len(sites.fractional)), scaled_positions=sites.fractional, cell=sites.matrix, pbc=True
    )
    nearest: list[dict[int, float]] = [{} for _ in range(len(atoms))]
    for i, j, distance in zip(*neighbor_list("ijd", atoms, cutoff=reach), strict=True):
        if i != j:
            nearest[i][int(j)] = min(float(distance), nearest[i].get(int(j), math.inf))
    return [sorted(others.items()) for others in nearest]


class _Annealing:
    """One annealing: species on sites, and what follows from them, kept up to date move by move."""

    def __init__(
        self,
        sites: Sites,
        energies: Array,
        pairs: list[list[tuple[int, float]]],
        sequence: np.random.SeedSequence,
        *,
        keep_orbits: bool,
    ) -> None:
        self._energies = energies
        self._pairs = pairs
        self._orbits = sites.orbits.tolist()
        self._counts = sites.counts
        self._elements = sites.elements
        self._rng = np.random.default_rng(sequence)
        # The last entry, at index -1, is the vacancy's.
        self._charges = [*sites.charges.tolist(), 0.0]
        self._radii = [*sites.radii.tolist(), -math.inf]
        n_sites = np.bincount(sites.orbits, minlength=len(sites.counts))
        has_vacancies = (n_sites > sites.counts.sum(axis=1))[:, None]
        self._allowed = np.concatenate([sites.allowed, has_vacancies], axis=1).tolist()
        species = np.full(len(sites.orbits), VACANT, dtype=np.int64)
        for orbit, counts in enumerate(sites.counts):
            here = self._rng.permutation(np.flatnonzero(sites.orbits == orbit))
            filled = np.repeat(np.arange(len(counts)), counts)
            species[here[: len(filled)]] = filled
        self._species: list[int] = species.tolist()
        self._groups = self._choices(sites, keep_orbits=keep_orbits)

    @staticmethod
    def _choices(sites: Sites, *, keep_orbits: bool) -> list[Whole]:
        """Groups of sites that may trade what they hold."""
        n_sites = np.bincount(sites.orbits, minlength=len(sites.counts))
        kinds = (sites.counts > 0).sum(axis=1) + (n_sites > sites.counts.sum(axis=1))
        if keep_orbits:
            return [np.flatnonzero(sites.orbits == orbit) for orbit in np.flatnonzero(kinds > 1)]
        # Orbits with an element in common, chosen to trade at all, are one group.
        shared = sites.allowed.astype(np.int64) @ sites.allowed.T.astype(np.int64) > 0
        movable = (kinds > 1) | (sites.allowed.sum(axis=1) > 1) | (shared @ (kinds > 1))
        _, label = connected_components(shared & movable[:, None] & movable)
        groups = [
            np.flatnonzero(movable[sites.orbits] & (label[sites.orbits] == k)) for k in np.unique(label)
        ]
        return [group for group in groups if len(group) > 1]

    def run(self, sweeps: int) -> Arrangement:
        """Cool from `HOTTEST` to `COLDEST`, then descend; the best state met is the answer."""
        n_choices = sum(len(group) for group in self._groups)
        charges = np.array([self._charges[k] for k in self._species])
        potential = self._energies @ charges
        overlaps = sum(self._overlaps(i, k, VACANT) for i, k in enumerate(self._species)) // 2
        energy = float(charges @ potential) + WALL * overlaps
        best, best_species = energy, list(self._species)
        n_moves = sweeps * n_choices
        of_group, first, second, chance = self._draws(n_moves)
        for move in range(n_moves):
            group = self._groups[of_group[move]]
            i, j = int(group[int(first[move] * len(group))]), int(group[int(second[move] * len(group))])
            a, b = self._species[i], self._species[j]
            if a == b or not (self._allowed[self._orbits[i]][b] and self._allowed[self._orbits[j]][a]):
                continue
            by = self._charges[b] - self._charges[a]
            change = 2.0 * by * float(potential[i] - potential[j])
            change += (
                by * by * float(self._energies[i, i] + self._energies[j, j] - 2.0 * self._energies[i, j])
            )
            before = self._overlaps(i, a, j) + self._overlaps(j, b, i)
            change += WALL * (self._overlaps(i, b, j) + self._overlaps(j, a, i) - before)
            progress = move / (0.9 * n_moves)
            temperature = HOTTEST * (COLDEST / HOTTEST) ** progress if progress < 1.0 else 0.0
            if change > 0.0 and (temperature == 0.0 or chance[move] >= math.exp(-change / temperature)):
                continue
            self._species[i], self._species[j] = b, a
            energy += change
            if by:
                potential += by * (self._energies[:, i] - self._energies[:, j])
            if energy < best - 1e-9:
                best, best_species = energy, list(self._species)
        return self._arrangement(best_species)

    def _draws(self, n_moves: int) -> tuple[list[int], list[float], list[float], list[float]]:
        """Random numbers of all moves: group (by its number of sites), two places in it, and a chance."""
        if not n_moves:
            return [], [], [], []
        sizes = np.array([len(group) for group in self._groups], dtype=np.float64)
        groups = self._rng.choice(len(sizes), size=n_moves, p=sizes / sizes.sum())
        first, second, chance = self._rng.random((3, n_moves))
        return groups.tolist(), first.tolist(), second.tolist(), chance.tolist()

    def _overlaps(self, site: int, element: int, without: int) -> int:
        """Atoms, on other sites than `without`, that an element on a site would overlap."""
        reach = self._radii[element]
        species, radii = self._species, self._radii
        return sum(
            1
            for other, distance in self._pairs[site]
            if other != without and distance < reach + radii[species[other]]
        )

    def _arrangement(self, species: list[int]) -> Arrangement:
        self._species = species
        charges = np.array([self._charges[k] for k in species])
        kept = all(
            int(sum(1 for orbit, k in zip(self._orbits, species, strict=True) if (orbit, k) == (row, column)))
            == count
            for (row, column), count in np.ndenumerate(self._counts)
        )
        overlaps = sum(self._overlaps(i, k, VACANT) for i, k in enumerate(species)) // 2
        energy = float(charges @ self._energies @ charges)
        return Arrangement(np.array(species, dtype=np.int64), energy, overlaps, kept, self._closest(species))

    def _closest(self, species: list[int]) -> str:
        """The closest pair of atoms that overlap, in words."""
        pairs = [
            (distance, *sorted((self._elements[k], self._elements[species[other]])))
            for i, k in enumerate(species)
            for other, distance in self._pairs[i]
            if distance < self._radii[k] + self._radii[species[other]]
        ]
        if not pairs:
            return ""
        distance, first, second = min(pairs)
        return f"{first} and {second} at {distance:.2f} Å"
