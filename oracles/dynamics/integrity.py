"""Whether what was simulated is still the crystal: bonds of the framework, energy, displacement, the total energy.

None of these tells a superionic conductor from an insulator: only atoms other than the mobile ion are looked at. A
rotating anion keeps its bonds and so passes; its atoms move no further than its diameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from oracles.dynamics.analysis import Array, rms_displacement

BOND = 1.25  # times the sum of covalent radii: closer, atoms are bonded
BROKEN = 1.6  # beyond, a bond is broken; between the two it vibrates, or breaks and forms
Pair = tuple[int, int, int, int, int]  # two atoms, and by which cells the second is shifted
N_FRAMES = 20  # looked at in the first and in the last tenth of a run
TENTH = 0.1
FIFTH = 0.2


@dataclass(frozen=True)
class Bonds:
    """Bonds between atoms of the framework, at the start and at the end of a run.

    Attributes:
        n_first: In most frames of the first tenth.
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
    """Compare the bonds of the framework at the two ends of a run.

    Args:
        atoms: Numbers and cell.
        frames: Unwrapped positions, `T x N x 3`, Å.
        framework: Which atoms are not mobile, `N`.
    """
    tenth = max(1, round(TENTH * len(frames)))
    picks = np.unique(np.linspace(0, tenth - 1, N_FRAMES).round().astype(int))
    start, end = frames[picks], frames[len(frames) - 1 - picks]
    first = _most(atoms, start, framework, BOND)
    last = _most(atoms, end, framework, BOND)
    near_first = _most(atoms, start, framework, BROKEN)
    near_last = _most(atoms, end, framework, BROKEN)
    return Bonds(len(first), len(first - near_last), len(last - near_first), int(framework.sum()))


def _most(atoms: Atoms, frames: Array, framework: NDArray[np.bool_], factor: float) -> set[Pair]:
    """Pairs of the framework (with the shift of the cell between them) within reach in most frames.

    Positions are unwrapped, so that a pair that stays together keeps its shift however far it goes.
    """
    radii = covalent_radii[atoms.numbers]
    reach = np.where(framework, factor * radii, 0.0)
    counts: dict[Pair, int] = {}
    copy = atoms.copy()
    for frame in frames:
        copy.positions = frame
        for i, j, shift in zip(*neighbor_list("ijS", copy, cutoff=reach), strict=True):
            if i < j or (i == j and tuple(shift) > (0, 0, 0)):
                key = (int(i), int(j), int(shift[0]), int(shift[1]), int(shift[2]))
                counts[key] = counts.get(key, 0) + 1
    return {key for key, count in counts.items() if 2 * count > len(frames)}


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


def displacements(frames: Array, symbols: Sequence[str], mobile: str) -> dict[str, float]:
    """Largest root-mean-square displacement of each element's atoms but the mobile ion's, Å."""
    kinds = np.asarray(symbols)
    return {str(s): rms_displacement(frames[:, kinds == s]) for s in sorted(set(symbols) - {mobile})}
