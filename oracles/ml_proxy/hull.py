"""Distance from the convex hull of known materials, by linear programming."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from activelearning.crystals.descriptors import amounts_of
from oracles.ml_proxy.relaxation import Array


class Hull:
    """Lowest energy that any mixture of known phases has at a composition.

    Elements count as phases of formation energy 0.

    Args:
        compositions: Phases: atoms of each element.
        energies: Their formation energies, eV/atom, `n`.
    """

    def __init__(self, compositions: Sequence[Mapping[str, float]], energies: Array) -> None:
        amounts = amounts_of(compositions)
        fractions = amounts / amounts.sum(axis=1, keepdims=True)
        self._fractions = np.concatenate([fractions, np.eye(fractions.shape[1])])
        self._energies = np.concatenate([np.asarray(energies, np.float64), np.zeros(fractions.shape[1])])

    def energy(self, composition: Mapping[str, float]) -> float:
        """Energy of the hull at a composition, eV/atom."""
        from scipy.optimize import linprog

        amounts = amounts_of([composition])[0]
        absent = amounts == 0.0
        rows = np.flatnonzero(~self._fractions[:, absent].any(axis=1))
        # Shares of the phases, not negative, that add up to the composition.
        found = linprog(
            self._energies[rows],
            A_eq=self._fractions[rows][:, ~absent].T,
            b_eq=amounts[~absent] / amounts.sum(),
            method="highs",
        )
        return float(found.fun)
