"""Children of crystals: changed compositions, space groups, lattices, sites; every one a crystal of the space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from activelearning.candidate import Candidate
from activelearning.spaces.crystal import CrystalSpace
from samplers.evolutionary.development import Decision, Development, Genome
from samplers.evolutionary.variation import Brood

Floats = NDArray[np.float64]

CROSSES = 0.5  # probability that a child has a second parent
CHANGES = 2 / 3  # probability of a discrete change; in the same share of children the coordinates move
JITTER = 0.05  # standard deviation, times F, of coordinates that follow no difference of others


class CrystalVariation:
    """Crossover by parts of a crystal, then a change of one part, then a move of its continuous coordinates.

    - Crossover: space group, lattice and (with the sites that belong to it) composition come each from one of the best
      with probability CR, or the composition is mixed element by element.
    - Changes: an element for another of a common oxidation state, a count, an element more or less, the number of
      formula units, the space group (or all of its kind), the sites.
    - Moves: as for points of a box, where the crystals have the same free coordinates.

    What then does not keep neutrality, Wyckoff positions or ranges is made to (`development`).

    Args:
        space: The space of crystals.
    """

    def __init__(self, space: CrystalSpace) -> None:
        self._development = Development(space)
        self._n_elements = len(space.base.elements)
        states = space.oxidation_states
        self._alike = [
            [
                other
                for other in range(self._n_elements)
                if other != e
                and (
                    states is None
                    or {*states[space.base.elements[other]]} & {*states[space.base.elements[e]]}
                )
            ]
            for e in range(self._n_elements)
        ]
        self._has_sites = "wyckoff" in self._development.names

    def children(self, brood: Brood, rng: np.random.Generator) -> list[Candidate]:
        """One child for each parent."""
        n = len(brood.parents)
        everyone = list(dict.fromkeys([*brood.parents, *brood.mates, *brood.first, *brood.second]))
        genome_of = dict(zip(everyone, self._development.genomes(everyone), strict=True))
        parents, mates, first, second = (
            [genome_of[crystal] for crystal in crystals]
            for crystals in (brood.parents, brood.mates, brood.first, brood.second)
        )
        genomes = []
        for i in range(n):
            genome = dict(parents[i])
            if rng.random() < CROSSES:
                genome = self._crossed(genome, mates[i], float(brood.crossover[i]), rng)
            is_changed, is_moved = rng.random() < CHANGES, rng.random() < CHANGES
            if is_changed or not is_moved:
                genome = self._changed(genome, rng)
            if is_moved:
                others = (mates[i], first[i], second[i])
                genome = self._moved(genome, others, float(brood.strength[i]), float(brood.crossover[i]), rng)
            genomes.append(genome)
        return self._development.crystals(genomes, rng)

    # ---------------------------------------------------------------- crossover

    def _crossed(self, one: Genome, other: Genome, share: float, rng: np.random.Generator) -> Genome:
        child = dict(one)
        for name in ("space_group", "lattice"):
            if name in child and rng.random() < share:
                child[name] = other[name]
        if rng.random() < share:
            if rng.random() < 0.5:
                for name in ("composition", "wyckoff", "coordinates"):
                    if name in child:
                        child[name] = other[name]
            else:
                child["composition"] = self._mixed(one["composition"], other["composition"], rng)
        return child

    def _mixed(
        self, one: Sequence[Decision], other: Sequence[Decision], rng: np.random.Generator
    ) -> list[Decision]:
        """Of each element the count of one of the two; none, too."""
        counts = [self._counts(one), self._counts(other)]
        mixed = {e: counts[rng.integers(2)].get(e, 0) for e in sorted({*counts[0], *counts[1]})}
        return self._composition(mixed, counts[0])

    # ---------------------------------------------------------------- changes

    def _counts(self, decisions: Sequence[Decision]) -> dict[int, int]:
        return dict(atoms for atoms in map(self._development.atoms, decisions) if atoms is not None)

    def _composition(self, counts: dict[int, int], otherwise: dict[int, int]) -> list[Decision]:
        """Decisions of counts, of which zeros are left out; of others where nothing is left."""
        kept = {e: n for e, n in counts.items() if n > 0} or otherwise
        return self._development.composition(list(kept.items()))

    def _changed(self, genome: Genome, rng: np.random.Generator) -> Genome:
        """The genome with one part of it changed."""
        kinds = ["element", "count", "number", "units", "group"] + ["sites"] * self._has_sites
        kind = kinds[rng.integers(len(kinds))]
        if kind == "group":
            # The first decisions kept: none, the lattice system, the point symmetry, too.
            return {**genome, "space_group": genome["space_group"][: rng.integers(3)]}
        if kind == "sites":
            return {**genome, "wyckoff": genome["wyckoff"][: rng.integers(len(genome["wyckoff"]) or 1)]}
        counts = self._counts(genome["composition"])
        elements = list(counts)
        chosen = elements[rng.integers(len(elements))]
        changed = dict(counts)
        absent = [e for e in range(self._n_elements) if e not in counts]
        if kind == "element":
            likely = [e for e in self._alike[chosen] if e not in counts] or absent
            if likely:
                changed[int(rng.choice(likely))] = changed.pop(chosen)
        elif kind == "count":
            changed[chosen] = max(counts[chosen] + int(rng.choice([-1, 1]) * rng.geometric(0.5)), 1)
        elif kind == "number":
            if absent and rng.random() < 0.5:
                changed[int(rng.choice(absent))] = int(rng.geometric(0.3))
            else:
                del changed[chosen]
        else:
            unit = int(np.gcd.reduce(list(counts.values())))
            z = int(rng.choice([z for z in range(1, 2 * unit + 2) if z != unit]))
            changed = {e: n // unit * z for e, n in counts.items()}
        return {**genome, "composition": self._composition(changed, counts)}

    # ---------------------------------------------------------------- moves

    def _moved(
        self,
        genome: Genome,
        others: tuple[Genome, Genome, Genome],
        strength: float,
        crossover: float,
        rng: np.random.Generator,
    ) -> Genome:
        """The genome with its lattice, or where it has atoms at times those, moved."""
        moved = dict(genome)
        if genome.get("lattice"):
            decision = genome["lattice"][0]
            best, first, second = (other["lattice"][0].u for other in others)
            moved["lattice"] = [
                Decision(decision.action, _moved(decision.u, best, first, second, strength, crossover, rng))
            ]
        if genome.get("coordinates"):
            moved["coordinates"] = [
                Decision(each.action, _reflected(each.u + rng.normal(0.0, JITTER * strength, len(each.u))))
                if rng.random() < 0.5
                else each
                for each in genome["coordinates"]
            ]
        return moved


def _moved(
    u: Floats,
    best: Floats,
    first: Floats,
    second: Floats,
    strength: float,
    crossover: float,
    rng: np.random.Generator,
) -> Floats:
    """Coordinates moved towards the best and along a difference, where all have them; else by chance."""
    step = strength * (best - u) + strength * (first - second)
    step = np.where(np.isnan(step), rng.normal(0.0, JITTER * strength, len(u)), step)
    is_taken = rng.random(len(u)) < crossover
    is_taken[rng.integers(len(u))] = True
    return _reflected(np.where(is_taken, u + step, u))


def _reflected(u: Floats) -> Floats:
    """Coordinates folded back into [0, 1]; NaN stays."""
    folded: Floats = 1.0 - np.abs(1.0 - np.mod(u, 2.0))
    return folded
