"""Whether what was simulated is still the crystal: bonds of the framework, energy, displacement, the total energy.

All is compared with the crystal from which the run began, before equilibration: one that falls apart there and then
only vibrates is no longer the crystal either. None of these tells a superionic conductor from an insulator: only atoms
other than the mobile ion are looked at. An anion that turns keeps its bonds and its centre, and so passes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from oracles.dynamics.analysis import Array, rms_displacement
from oracles.dynamics.groups import BOND, Group, Pair, pairs

BROKEN = 1.6  # times the sum of covalent radii: beyond, a bond is broken; between this and `BOND` it vibrates
N_FRAMES = 20  # looked at in the last tenth of a run
TENTH = 0.1
FIFTH = 0.2


@dataclass(frozen=True)
class Bonds:
    """Bonds between atoms of the framework, where a run began and at its end.

    Attributes:
        n_first: In the crystal from which it began.
        n_broken: Of these, those longer than `BROKEN` in most frames of the last tenth.
        n_formed: In most frames of the last tenth, and not within `BROKEN` at the start.
        n_atoms: Of the framework.
    """

    n_first: int
    n_broken: int
    n_formed: int
    n_atoms: int

    @property
    def changed(self) -> float:
        """Share of bonds that are broken or new, by those there were, or by all pairs of atoms where these are more.

        The anions of a salt have no bonds among themselves; one pair of many that meets is no decomposition.
        """
        return max(self.n_broken, self.n_formed) / max(self.n_first, self.n_atoms / 2)


def framework_bonds(atoms: Atoms, frames: Array, framework: NDArray[np.bool_]) -> Bonds:
    """Compare the bonds of the framework where a run began with those at its end.

    Args:
        atoms: Numbers, cell, and the positions from which the run began, before equilibration.
        frames: Unwrapped positions, continuous with those, `T x N x 3`, Å.
        framework: Which atoms are not mobile, `N`.
    """
    tenth = max(1, round(TENTH * len(frames)))
    picks = np.unique(np.linspace(0, tenth - 1, N_FRAMES).round().astype(int))
    end = frames[len(frames) - 1 - picks]
    first = pairs(atoms, framework, BOND)
    last = _most(atoms, end, framework, BOND)
    n_broken = len(first - _most(atoms, end, framework, BROKEN))
    n_formed = len(last - pairs(atoms, framework, BROKEN))
    return Bonds(len(first), n_broken, n_formed, int(framework.sum()))


def _most(atoms: Atoms, frames: Array, framework: NDArray[np.bool_], factor: float) -> set[Pair]:
    """Pairs of the framework (with the shift of the cell between them) within reach in most frames.

    Positions are unwrapped, so that a pair that stays together keeps its shift however far it goes.
    """
    counts: Counter[Pair] = Counter()
    copy = atoms.copy()
    for frame in frames:
        copy.positions = frame
        counts.update(pairs(copy, framework, factor))
    return {pair for pair, count in counts.items() if 2 * count > len(frames)}


def energy_change(potential: Array) -> tuple[float, float]:
    """Mean potential energy of the last fifth of a run less that of the first, and the error of that (unit as given).

    The error takes each fifth for few independent values: energies of successive samples are alike.
    """
    n = max(1, round(FIFTH * len(potential)))
    first, last = potential[:n], potential[-n:]
    independent = max(1.0, n / 20.0)
    error = float(np.sqrt((first.var() + last.var()) / independent))
    return float(last.mean() - first.mean()), error


def trend(times: Array, values: Array) -> float:
    """Slope of values over times by least squares."""
    centred = times - times.mean()
    return float(centred @ values / (centred @ centred))


def displacements(moved: Array, groups: Sequence[Group]) -> dict[str, float]:
    """Largest root-mean-square displacement, Å, of each kind (`PS4`, `Cl`) of group, from `T x G x 3` of centres."""
    names = np.array([group.name for group in groups])
    return {str(name): rms_displacement(moved[:, names == name]) for name in sorted(set(names.tolist()))}
