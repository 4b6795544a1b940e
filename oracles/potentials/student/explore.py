"""Structures that a student itself comes to: frames of its relaxations and of its dynamics.

The teacher's labels there correct the student where it will be used (and where it went astray), at a fraction of the
cost of running the teacher's own dynamics.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator

from activelearning.crystals.realise import distance_ratio
from oracles.potentials.student.structures import MAX_ATOMS, distorted, prototypes, random_crystals

RELAXATION_STEPS = (5, 10, 20, 40, 80)  # at which a frame is kept
TEMPERATURES = (300.0, 1500.0)  # K
MIN_DISTANCE_RATIO = 0.45


def explored_structures(
    student: Calculator, *, n_random: int, n_random_frames: int, n_known_frames: int, seed: int
) -> Iterator[tuple[str, Atoms]]:
    """Frames of the student's relaxations (of random crystals) and dynamics (of these and of the prototypes).

    Args:
        student: The student as a calculator.
        n_random: Random crystals, other ones than those of the first training set of the same seed.
        n_random_frames: Frames of dynamics of each random crystal, 0.1 ps apart.
        n_known_frames: Those of each prototype; half as many where it is large.
        seed: Seed of it all.

    Yields:
        The group of the frame and its atoms.
    """
    rng = np.random.default_rng([seed, 1])
    for name, atoms in prototypes().items():
        start = distorted(atoms, rng, rattle=0.05, strain=0.02)
        for frame in dynamics(
            student, start, n_known_frames if len(atoms) <= MAX_ATOMS else n_known_frames // 2, rng
        ):
            yield name, frame
    for k, atoms in enumerate(random_crystals(n_random, seed + 1)):
        group = f"random explored {seed} {k}"
        frame = atoms
        for frame in relaxation(student, atoms):
            yield group, frame
        for after in dynamics(student, frame, n_random_frames, rng):
            yield group, after


def relaxation(student: Calculator, atoms: Atoms) -> Iterator[Atoms]:
    """Frames of a relaxation of positions and cell, until it ends or leaves what a crystal is."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    copy = atoms.copy()
    copy.calc = student
    optimiser = FIRE(FrechetCellFilter(copy), logfile=None)
    done = 0
    for step in RELAXATION_STEPS:
        converged = optimiser.run(fmax=0.05, steps=step - done)
        done = step
        if not is_sane(copy) or copy.get_volume() > 3.0 * atoms.get_volume():
            return
        yield copy.copy()
        if converged:
            return


def dynamics(student: Calculator, atoms: Atoms, n_frames: int, rng: np.random.Generator) -> Iterator[Atoms]:
    """Frames of Langevin dynamics at a temperature drawn from `TEMPERATURES`, until they end or collapse."""
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

    if len(atoms) < 2:
        return
    temperature = rng.uniform(*TEMPERATURES)
    copy = atoms.copy()
    copy.calc = student
    MaxwellBoltzmannDistribution(copy, temperature_K=temperature, rng=rng)
    motion = Langevin(
        copy, 2.0 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, fixcm=False, rng=rng
    )
    for _ in range(n_frames):
        motion.run(50)
        if not is_sane(copy) or copy.get_temperature() > 5.0 * temperature:
            return
        yield copy.copy()


def is_sane(atoms: Atoms) -> bool:
    """Whether positions are finite and no atoms are on top of each other."""
    return bool(np.isfinite(atoms.positions).all()) and distance_ratio(atoms) > MIN_DISTANCE_RATIO
