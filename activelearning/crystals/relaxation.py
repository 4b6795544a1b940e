"""Relaxation of a crystal's atoms, and of its cell's shape, within its symmetry; the potential is handed in."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.distances import COLLAPSED, MIN_DISTANCE_RATIO
from activelearning.crystals.realise import Realisation, RealisationError, distance_ratio, realise
from activelearning.errors import is_machine_trouble

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

MAX_VOLUME_CHANGE = 4.0  # a factor; beyond, the atoms have flown apart or the cell has collapsed
SYMMETRY_TOLERANCE = 0.01  # Å


class RelaxationError(RealisationError):
    """A crystal falls apart or collapses in relaxation, or the potential fails on it."""


@dataclass(frozen=True)
class Relaxed:
    """Where a relaxation ended.

    Attributes:
        atoms: Relaxed atoms, without calculator or constraint.
        energy: Potential energy, eV per atom.
        n_steps: Steps taken.
        is_converged: Whether all forces (and stresses, in the filter's sense) came below the limit.
        volume_ratio: Volume after over volume before.
        space_group: Number of the space group that was kept; None where symmetry was free.
    """

    atoms: Atoms
    energy: float
    n_steps: int
    is_converged: bool
    volume_ratio: float
    space_group: int | None

    def summary(self) -> dict[str, Any]:
        """Plain values for a measurement's metadata."""
        return {
            "relaxation_steps": self.n_steps,
            "relaxation_converged": self.is_converged,
            "relaxed_energy_per_atom": self.energy,
            "relaxed_volume_ratio": self.volume_ratio,
            "relaxed_space_group": self.space_group,
        }


def relax(
    atoms: Atoms,
    calculator: Calculator,
    *,
    max_steps: int = 200,
    fmax: float = 0.05,
    relax_cell: bool = True,
    keep_symmetry: bool = True,
) -> Relaxed:
    """Move atoms, and the cell by option, downhill by at most `max_steps` steps of FIRE.

    With `keep_symmetry` every operation that the atoms have at the start, to 0.01 Å, is kept: forces and stress are
    symmetrised at each step. A relaxation that has not converged is no error; the result says so.

    Args:
        atoms: The crystal, unchanged by this.
        calculator: Potential with energy, forces and, for the cell, stress.
        max_steps: Most steps, at least 0.
        fmax: Largest force at which it ends, eV/Å.
        relax_cell: Whether lengths and angles relax with the atoms.
        keep_symmetry: Whether the space group is kept.

    Raises:
        RelaxationError: the cell or the atoms collapse or fly apart, or the potential fails or is not finite. (Trouble
            of the machine, such as no memory, is raised as it is.)
    """
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    if max_steps < 0 or not fmax > 0.0:
        raise ValueError(f"max_steps must be at least 0 and fmax above 0, not {max_steps} and {fmax}")
    moving = atoms.copy()
    space_group = None
    if keep_symmetry:
        from ase.spacegroup.symmetrize import check_symmetry

        found = check_symmetry(moving, SYMMETRY_TOLERANCE)
        if found is not None:  # None: spglib finds no symmetry at all, so there is nothing to keep
            space_group = int(found.number)
            moving.set_constraint(
                FixSymmetry(moving, SYMMETRY_TOLERANCE, adjust_positions=True, adjust_cell=True)
            )
    moving.calc = calculator
    volume = float(atoms.get_volume())
    optimiser = FIRE(FrechetCellFilter(moving) if relax_cell else moving, logfile=None)
    is_converged = False
    try:
        with warnings.catch_warnings():
            # Of scipy, at errors of some 1e-13 in the logarithm of a strain.
            warnings.filterwarnings("ignore", r"logm result may be inaccurate, approximate err = \S+e-1\d\b")
            for has_ended in optimiser.irun(fmax=fmax, steps=max_steps):
                is_converged = bool(has_ended)
                ratio = float(moving.get_volume()) / volume
                # Looked at on the way: a potential may take ages over a cell of no volume.
                if not 1.0 / MAX_VOLUME_CHANGE < ratio < MAX_VOLUME_CHANGE:
                    raise RelaxationError(
                        f"{'falls apart' if ratio > 1.0 else 'collapses'} in relaxation: "
                        f"{moving.get_volume() / len(moving):.1f} Å³ per atom after {optimiser.nsteps} steps"
                    )
            energy = float(moving.get_potential_energy()) / len(moving)
    except RelaxationError:
        raise
    except (RuntimeError, ValueError, ArithmeticError, IndexError, np.linalg.LinAlgError) as error:
        if is_machine_trouble(error):
            raise
        raise RelaxationError(f"relaxation fails: {error}") from error
    if not (math.isfinite(energy) and np.isfinite(moving.positions).all()):
        raise RelaxationError("relaxation fails: the potential's energy or forces are not finite")
    ended = Atoms(numbers=moving.numbers, positions=moving.positions, cell=moving.cell, pbc=True)
    if distance_ratio(ended) < COLLAPSED:
        raise RelaxationError("collapses in relaxation: atoms on top of each other")
    return Relaxed(
        ended,
        energy,
        int(optimiser.nsteps),
        bool(is_converged),
        float(moving.get_volume()) / volume,
        space_group,
    )


def realise_relaxed(
    candidate: CrystalCandidate,
    calculator: Calculator,
    *,
    seed: int,
    n_trials: int = 5,
    n_relaxed: int = 1,
    min_distance_ratio: float = MIN_DISTANCE_RATIO,
    relaxation: Mapping[str, Any] | None = None,
) -> tuple[Relaxed, dict[str, Any]]:
    """Turn a crystal into relaxed atoms: draw, rank by the potential, relax the best, keep the lowest.

    Args:
        candidate: The crystal.
        calculator: The potential that ranks and relaxes.
        seed: Seed of the draws.
        n_trials: Draws of the sites, where the candidate has no structure.
        n_relaxed: How many of the draws are relaxed, the lowest in energy first.
        min_distance_ratio: Least distance in a draw, over the sum of covalent radii.
        relaxation: Keywords of `relax`.

    Returns:
        The one of lowest energy, and plain values that say how it came about.

    Raises:
        RealisationError: no draw keeps its atoms apart.
        RelaxationError: none of the relaxations holds; the reasons are listed.
    """
    if n_relaxed < 1:
        raise ValueError(f"n_relaxed must be at least 1, not {n_relaxed}")
    drawn = realise(
        candidate,
        n_trials=n_trials,
        seed=seed,
        calculator=calculator,
        min_distance_ratio=min_distance_ratio,
    )
    ended: list[tuple[Relaxed, Realisation]] = []
    reasons = []
    for realisation in drawn[:n_relaxed]:
        try:
            ended.append((relax(realisation.atoms, calculator, **(relaxation or {})), realisation))
        except RelaxationError as error:
            reasons.append(str(error))
    if not ended:
        raise RelaxationError(f"{candidate.formula}: {'; '.join(sorted(set(reasons)))}")
    best, realisation = min(ended, key=lambda pair: (pair[0].energy, pair[1].trial))
    info = {"n_realisations": len(drawn), "realisation": realisation.trial, "n_relaxed": len(ended)}
    return best, info | best.summary()
