"""How children are made of parents, by the kind of space; every child is a candidate of its space.

On points, the mutation of JADE: a parent moves towards one of the best and along the difference of two others,

    v = x + F (x_best - x) + F (x_1 - x_2),

and takes each coordinate of v with probability CR (Zhang & Sanderson, *JADE: Adaptive Differential Evolution with
Optional External Archive*, IEEE Trans. Evol. Comput. 13, 2009).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from activelearning.candidate import BoxCandidate, Candidate
from activelearning.contracts import Space
from activelearning.errors import ConfigError

Floats = NDArray[np.float64]

# Nearest candidates of a pool among which a child is looked for.
NEIGHBOURS = 32


@dataclass(frozen=True)
class Brood:
    """What n children are made of.

    Attributes:
        parents: Whose place each child may take, `n`.
        mates: For each one of the best, `n`.
        first: For each one drawn by chance, `n`; `first - second` is a direction in which the population is spread.
        second: The same, also from among those that lost their place.
        strength: F of each, `n`, in (0, 1].
        crossover: CR of each, `n`, in [0, 1].
        is_new: Whether the reward of a candidate is unknown, at the fidelity of the i-th child.
    """

    parents: Sequence[Candidate]
    mates: Sequence[Candidate]
    first: Sequence[Candidate]
    second: Sequence[Candidate]
    strength: Floats
    crossover: Floats
    is_new: Callable[[int, Candidate], bool]


class Variation(Protocol):
    """Makes children."""

    def children(self, brood: Brood, rng: np.random.Generator) -> list[Candidate]:
        """One child for each parent, `n`."""
        ...


def make_variation(space: Space) -> Variation:
    """The variation of a space's kind.

    Raises:
        ConfigError: there is none.
    """
    of: Any = space
    if space.kind == "pool":
        return PoolVariation(of)
    if space.kind == "box":
        return BoxVariation(of.bounds)
    if space.kind == "crystal":
        # Its symmetry tables take time and memory that other campaigns should not pay for.
        from samplers.evolutionary.crystals import CrystalVariation

        return CrystalVariation(of)
    raise ConfigError(
        f"The sampler 'evolutionary' breeds candidates of a space of kind box, pool or crystal, not {space.kind!r}; "
        f"choose another sampler."
    )


def moved(
    x: Floats, best: Floats, first: Floats, second: Floats, brood: Brood, rng: np.random.Generator
) -> Floats:
    """Children, `n x d` in [0, 1], of parents x; all of the shape `n x d`."""
    strength = brood.strength[:, None]
    mutant = x + strength * (best - x) + strength * (first - second)
    # Half way to a bound that was passed, so that the population does not gather on it.
    mutant = np.where(mutant < 0.0, 0.5 * x, np.where(mutant > 1.0, 0.5 * (1.0 + x), mutant))
    is_taken = rng.random(x.shape) < brood.crossover[:, None]
    is_taken[np.arange(len(x)), rng.integers(x.shape[1], size=len(x))] = True
    child: Floats = np.where(is_taken, mutant, x)
    return child


class BoxVariation:
    """Points of a box.

    Args:
        bounds: Lower and upper bound of each parameter.
    """

    def __init__(self, bounds: Sequence[tuple[float, float]]) -> None:
        self._lower = np.array([low for low, _ in bounds], dtype=np.float64)
        self._width = np.array([high for _, high in bounds], dtype=np.float64) - self._lower

    def children(self, brood: Brood, rng: np.random.Generator) -> list[Candidate]:
        """One child for each parent."""
        x, best, first, second = map(self._unit, (brood.parents, brood.mates, brood.first, brood.second))
        values = self._lower + moved(x, best, first, second, brood, rng) * self._width
        return [BoxCandidate(tuple(row)) for row in values.tolist()]

    def _unit(self, candidates: Sequence[Candidate]) -> Floats:
        """Points scaled to [0, 1], `n x d`."""
        values = [candidate.values for candidate in candidates if isinstance(candidate, BoxCandidate)]
        unit: Floats = ((np.array(values) - self._lower) / self._width).clip(0.0, 1.0)
        return unit


class PoolVariation:
    """Members of a list: the point of `moved`, in the space of features, then the nearest member not yet known."""

    def __init__(self, space: Any) -> None:
        self._space = space
        self._candidates: Sequence[Candidate] = space.candidates
        self._features: Floats = space.features(self._candidates).numpy()
        self._squares = np.square(self._features).sum(axis=1)

    def children(self, brood: Brood, rng: np.random.Generator) -> list[Candidate]:
        """One child for each parent; the nearest of all where its neighbours are all known."""
        x, best, first, second = map(self._rows, (brood.parents, brood.mates, brood.first, brood.second))
        points = moved(x, best, first, second, brood, rng)
        distances = self._squares - 2.0 * points @ self._features.T
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]
        return [
            next(
                (c for c in (self._candidates[j] for j in row) if brood.is_new(i, c)),
                self._candidates[row[0]],
            )
            for i, row in enumerate(nearest.tolist())
        ]

    def _rows(self, candidates: Sequence[Candidate]) -> Floats:
        """Features, `n x d`."""
        rows: Floats = self._features[[self._space.index_of(candidate) for candidate in candidates]]
        return rows
