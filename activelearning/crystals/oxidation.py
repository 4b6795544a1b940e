"""The likely oxidation state of every element of a composition, in bounded time.

Each element takes one of its states so that the whole is neutral; of all neutral choices the one is kept whose states
are the most frequent, by their counts in the Inorganic Crystal Structure Database as pymatgen ships them. One element
may have a mixed valence, at a price: its atoms share two neighbouring states, and its mean is what makes the whole
neutral. pymatgen's own `oxi_state_guesses` counts states atom by atom, takes whole amounts only, and some compositions
take it many seconds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.charge import default_oxidation_states

EXACT = 1e-6  # e per atom
# Of a state given that the database does not hold; one less frequent than this in it counts for as much.
UNKNOWN = math.log(1e-4)
# Added to the logarithm of the states' frequencies.
NEARLY_NEUTRAL = math.log(0.1)
MIXED = math.log(0.01)
MAX_CHOICES = 500_000  # of states for all elements together; the rarest states go first


def guess_oxidation_states(
    composition: Mapping[str, float],
    *,
    states: Mapping[str, Sequence[int]] | None = None,
    tolerance: float = 1e-6,
) -> dict[str, float] | None:
    """Oxidation state of every element; a fraction where it is the mean of a mixed valence.

    Args:
        composition: Atoms of each element, fractions allowed.
        states: States that an element may have, where they are known better.
        tolerance: Total charge still taken for neutral, in e per atom (rounded occupancies).

    Returns:
        The states by element; None where nothing makes the composition neutral.
    """
    symbols = sorted(composition)
    amounts = np.array([composition[symbol] for symbol in symbols], dtype=np.float64)
    known = [_likelihoods(symbol, tuple((states or {}).get(symbol, ()))) for symbol in symbols]
    if not all(known):
        return None
    known = _bounded(known)
    choices = np.array(list(itertools.product(*(range(len(each)) for each in known))), dtype=np.intp)
    charges = np.stack(
        [np.array([q for q, _ in each])[choices[:, e]] for e, each in enumerate(known)], axis=1
    )
    weights = np.stack(
        [np.array([w for _, w in each])[choices[:, e]] for e, each in enumerate(known)], axis=1
    )
    totals = charges @ amounts
    imbalance = np.abs(totals) / amounts.sum()
    scores = weights.sum(axis=1)
    scores = np.where(
        imbalance <= EXACT, scores, np.where(imbalance <= tolerance, scores + NEARLY_NEUTRAL, -np.inf)
    )
    best = _first_of_best(scores)
    found = (float(scores[best]), dict(zip(symbols, charges[best].tolist(), strict=True)))
    for e, each in enumerate(known):
        mean = charges[:, e] - totals / amounts[e]
        rest = weights.sum(axis=1) - weights[:, e] + MIXED
        for (low, low_weight), (high, high_weight) in itertools.pairwise(sorted(each)):
            share = (mean - low) / (high - low)
            is_between = (share > 0.0) & (share < 1.0) & (low * high > 0)
            scores = np.where(is_between, rest + (1.0 - share) * low_weight + share * high_weight, -np.inf)
            best = _first_of_best(scores)
            if scores[best] > found[0] + 1e-9:
                states_of = dict(zip(symbols, charges[best].tolist(), strict=True))
                found = (float(scores[best]), states_of | {symbols[e]: float(mean[best])})
    return None if math.isinf(found[0]) else {symbol: float(q) for symbol, q in found[1].items()}


def _first_of_best(scores: NDArray[np.float64]) -> int:
    """Rounded, so that ties are broken the same way everywhere."""
    return int(np.argmax(scores.round(9)))


def _bounded(known: Sequence[Sequence[tuple[int, float]]]) -> list[list[tuple[int, float]]]:
    """The states, the rarest left out until the choices are few enough."""
    kept = [list(each) for each in known]
    while math.prod(len(each) for each in kept) > MAX_CHOICES:
        longest = max(kept, key=len)
        longest.remove(min(longest, key=lambda state: state[1]))
    return kept


@cache
def _likelihoods(symbol: str, allowed: tuple[int, ...]) -> list[tuple[int, float]]:
    """States of an element other than zero, each with the logarithm of its share in the database."""
    counts = _counts().get(symbol, {})
    # pymatgen's lists hold curiosities, alkalides and metal carbonyls: they serve where the database knows none.
    known = allowed or tuple(sorted(counts)) or default_oxidation_states(symbol)
    total = sum(counts.values()) or 1
    return [(q, max(UNKNOWN, math.log(counts[q] / total) if counts.get(q) else UNKNOWN)) for q in known]


@cache
def _counts() -> dict[str, dict[int, int]]:
    """How often the database holds each state of each element; whole states other than zero."""
    from pymatgen.analysis.bond_valence import PRIOR_PROB

    counts: dict[str, dict[int, int]] = {}
    for species, n in PRIOR_PROB.items():
        q = species.oxi_state
        if q and q == int(q):
            counts.setdefault(species.symbol, {})[int(q)] = int(n)
    return counts
