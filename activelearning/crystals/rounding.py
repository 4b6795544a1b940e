"""Whole numbers of atoms on partly occupied orbits of a supercell: neutral, and near to what is wanted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# What a program pays: for an atom of an element too many or too few in all, for a vacancy on a full orbit, and for an
# atom on another orbit than it should be on.
TOTAL, VACANCY, PLACE = 10.0, 3.0, 1.0
NODES = 20_000  # of one program's search, which takes a few; not seconds, so that the answer is the same everywhere


@dataclass(frozen=True)
class Orbit:
    """Sites that symmetry makes equal.

    Attributes:
        n_sites: In the primitive cell.
        amounts: Occupancy of each site by element, each above 0.
        is_full: Whether it has no vacancies.
    """

    n_sites: int
    amounts: Mapping[str, float]
    is_full: bool


@dataclass(frozen=True)
class Rounding:
    """Whole atoms in a supercell.

    Attributes:
        n_cells: Primitive cells in it.
        orbits: Orbits of the primitive cell.
        orbit_of_site: Number of the orbit of each site of the primitive cell.
        counts: Atoms on each orbit of the supercell, `n_orbits x n_elements`.
        charges: Oxidation state by element, in the order of the columns; a mixed valence's makes the whole neutral.
        error: Largest difference of an element's atomic fraction from the one wanted.
        lost: Elements of which there is too little for one atom.
    """

    n_cells: int
    orbits: tuple[Orbit, ...]
    orbit_of_site: NDArray[np.int64]
    counts: NDArray[np.int64]
    charges: Mapping[str, float]
    error: float
    lost: tuple[str, ...]


def round_occupancies(
    orbits: Sequence[Orbit],
    orbit_of_site: NDArray[np.int64],
    wanted: Mapping[str, float],
    charges: Mapping[str, float],
    n_cells: int,
) -> Rounding | None:
    """Whole atoms on the orbits of a supercell; None where none are neutral.

    The mixed-integer program minimises a weighted sum of absolute deviations: of total amounts from those wanted, of
    each orbit from its occupancy, and of vacancies on full orbits. Charges must sum to zero; a mixed valence, whose
    mean is not whole, may move between the whole states next to it.

    Args:
        orbits: Of the primitive cell.
        orbit_of_site: Each site's orbit, kept for the result.
        wanted: Atoms of each element in the primitive cell.
        charges: Oxidation states, fractions for a mixed valence.
        n_cells: Primitive cells in the supercell.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    elements = sorted(wanted)
    entries = [(k, symbol) for k, orbit in enumerate(orbits) for symbol in sorted(orbit.amounts)]
    full = [k for k, orbit in enumerate(orbits) if orbit.is_full]
    n, m = len(entries), len(elements)
    # Variables: atoms by entry, then their deviations, deviations of totals, vacancies on full orbits.
    width = 2 * n + m + len(full)
    cost = np.concatenate([np.zeros(n), np.full(n, PLACE), np.full(m, TOTAL), np.full(len(full), VACANCY)])
    # Ties are broken by the order of entries, not by the solver's mood.
    cost[:n] += 1e-6 * np.arange(1, n + 1)
    capacity = np.array([orbits[k].n_sites * n_cells for k, _ in entries], dtype=np.float64)
    given = np.array([orbits[k].amounts[symbol] for k, symbol in entries]) * capacity
    rows: list[NDArray[np.float64]] = []
    low: list[float] = []
    high: list[float] = []

    def limit(row: NDArray[np.float64], lowest: float, highest: float) -> None:
        rows.append(row)
        low.append(lowest)
        high.append(highest)

    def deviation(members: NDArray[np.float64], column: int, value: float) -> None:
        """|members - value| <= the variable of a column."""
        for sign in (1.0, -1.0):
            row = sign * members
            row[column] = -1.0
            limit(row, -math.inf, sign * value)

    for i in range(n):
        deviation(np.eye(1, width, i)[0], n + i, float(given[i]))
    for j, symbol in enumerate(elements):
        members = np.zeros(width)
        members[[i for i, (_, s) in enumerate(entries) if s == symbol]] = 1.0
        deviation(members, 2 * n + j, wanted[symbol] * n_cells)
    for k in range(len(orbits)):
        members = np.zeros(width)
        members[[i for i, (orbit, _) in enumerate(entries) if orbit == k]] = 1.0
        sites = orbits[k].n_sites * n_cells
        if k in full:
            members[2 * n + m + full.index(k)] = 1.0
            limit(members, sites, sites)
        else:
            limit(members, 0.0, sites)
    for bound, lowest, highest in ((math.floor, -math.inf, 0.0), (math.ceil, 0.0, math.inf)):
        charge = np.zeros(width)
        charge[:n] = [bound(round(charges[symbol], 6)) for _, symbol in entries]
        limit(charge, lowest, highest)

    upper = np.concatenate([capacity, np.full(width - n, np.inf)])
    solved = milp(
        cost,
        constraints=LinearConstraint(np.array(rows), low, high),
        integrality=np.concatenate([np.ones(n), np.zeros(width - n)]),
        bounds=Bounds(np.zeros(width), upper),
        options={"node_limit": NODES},
    )
    if solved.status != 0:
        return None
    counts = np.zeros((len(orbits), m), dtype=np.int64)
    for (k, symbol), value in zip(entries, np.round(solved.x[:n]).astype(np.int64), strict=True):
        counts[k, elements.index(symbol)] = value
    totals = counts.sum(axis=0)
    if not totals.any():
        return None
    target = np.array([wanted[symbol] for symbol in elements])
    error = float(np.abs(totals / totals.sum() - target / target.sum()).max())
    return Rounding(
        n_cells=n_cells,
        orbits=tuple(orbits),
        orbit_of_site=orbit_of_site,
        counts=counts,
        charges=_exact_charges(elements, totals, charges),
        error=error,
        lost=tuple(symbol for symbol, total in zip(elements, totals, strict=True) if total == 0),
    )


def _exact_charges(
    elements: Sequence[str], totals: NDArray[np.int64], charges: Mapping[str, float]
) -> dict[str, float]:
    """The charges, that of a mixed valence such that whole atoms are neutral."""
    exact = {symbol: charges[symbol] for symbol in elements}
    mixed = [symbol for symbol in elements if abs(charges[symbol] - round(charges[symbol])) > 1e-6]
    for symbol in mixed:
        if not totals[elements.index(symbol)]:
            continue
        others = sum(
            exact[other] * int(count)
            for other, count in zip(elements, totals, strict=True)
            if other != symbol
        )
        exact[symbol] = -others / int(totals[elements.index(symbol)])
    return exact
