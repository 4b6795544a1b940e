"""Structures that a potential itself comes to: frames of its relaxations and of its dynamics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator

from activelearning.crystals.realise import distance_ratio

RELAXATION_STEPS = (5, 10, 20, 40, 80)  # at which a frame is kept
TEMPERATURES = (300.0, 1500.0)  # K
STEPS_BETWEEN = 25  # of dynamics
MIN_DISTANCE_RATIO = 0.45


def relaxation(
    potential: Calculator, atoms: Atoms, *, steps: Sequence[int] = RELAXATION_STEPS
) -> Iterator[Atoms]:
    """Frames of a relaxation of positions and cell, at these steps, until it ends or leaves what a crystal is."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    copy = atoms.copy()
    copy.calc = potential
    optimiser = FIRE(FrechetCellFilter(copy), logfile=None)
    done = 0
    for step in steps:
        converged = optimiser.run(fmax=0.05, steps=step - done)
        done = step
        if not is_sane(copy) or copy.get_volume() > 3.0 * atoms.get_volume():
            return
        yield copy.copy()
        if converged:
            return


def dynamics(
    potential: Calculator,
    atoms: Atoms,
    n_frames: int,
    rng: np.random.Generator,
    *,
    temperatures: tuple[float, float] = TEMPERATURES,
) -> Iterator[Atoms]:
    """Frames of Langevin dynamics at a temperature (K) drawn from a range, until they end or collapse.

    Frames are `STEPS_BETWEEN` steps of 2 fs apart, of 1 fs where there is hydrogen.
    """
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

    if len(atoms) < 2:
        return
    temperature = rng.uniform(*temperatures)
    copy = atoms.copy()
    copy.calc = potential
    # Half of it goes into the springs, from which most crystals start relaxed.
    MaxwellBoltzmannDistribution(copy, temperature_K=1.7 * temperature, rng=rng)
    step = 1.0 if "H" in copy.symbols else 2.0
    motion = Langevin(
        copy, step * units.fs, temperature_K=temperature, friction=0.02 / units.fs, fixcm=False, rng=rng
    )
    for _ in range(n_frames):
        motion.run(STEPS_BETWEEN)
        if not is_sane(copy) or copy.get_temperature() > 5.0 * temperature:
            return
        yield copy.copy()


def is_sane(atoms: Atoms) -> bool:
    """Whether positions are finite and no atoms are on top of each other."""
    return bool(np.isfinite(atoms.positions).all()) and distance_ratio(atoms) > MIN_DISTANCE_RATIO
