"""What is labelled: distorted and random crystals first, then frames of a student's own relaxations and dynamics.

The teacher's labels on the latter correct the student where it will be used (and where it went astray), at a fraction
of the cost of running the teacher's own dynamics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from activelearning.crystals.realise import distance_ratio
from oracles.potentials.student.chemistry import is_held_out
from oracles.potentials.student.explore import dynamics, relaxation
from oracles.potentials.student.materials import Material
from oracles.potentials.student.structures import (
    FLAGSHIP,
    distorted,
    lithium_subsets,
    prototypes,
    random_crystals,
)

# Frames of each material by its source; fewer than half of them where it has more than LARGE atoms.
N_DISTORTED = {
    "prototype": 24,
    "obelix": 6,
    "lithium": 6,
    "neighbour": 2,
    "substituted": 2,
    "transmuted": 1,
}
# Of those with lithium, whose dynamics a student is for.
N_EXPLORED = {"prototype": 6, "obelix": 4, "lithium": 6, "neighbour": 0, "substituted": 3, "transmuted": 0}
LARGE = 32
KNOWN = ("obelix", "lithium")  # sources of crystals with lithium that are in the tables
TEST_TEMPERATURE = 600.0  # K


@dataclass(frozen=True)
class Sample:
    """A structure to label.

    Attributes:
        group: The material it comes from.
        source: That of the material, or `random` or `random lithium`.
        atoms: The structure.
    """

    group: str
    source: str
    atoms: Atoms


def first_samples(
    materials: Sequence[Material], n_random: int, n_flagship: int, seed: int
) -> Iterator[Sample]:
    """What is labelled before there is a student: known crystals as they are and distorted, and random ones.

    Args:
        materials: Known crystals; held-out ones are passed over.
        n_random: Random crystals of a few elements with lithium; half of them also appear rattled.
        n_flagship: The same of Li, P, S and Cl.
        seed: Seed of it all.
    """
    rng = np.random.default_rng([seed, 0])
    for material in materials:
        if is_held_out(material.atoms):
            continue
        yield Sample(material.name, material.source, material.atoms)
        n = _n_frames(N_DISTORTED, material) - 1
        for k in range(n):
            # Most of them little: atoms at 600 K are some 0.1 Å from their sites.
            changed = distort(material.atoms, ((k + rng.random()) / n) ** 2, rng)
            if distance_ratio(changed) > 0.5:
                yield Sample(material.name, material.source, changed)
    for k, (source, atoms) in enumerate(_random(n_random, n_flagship, seed)):
        yield Sample(f"{source} {seed} {k}", source, atoms)
        if k % 2 == 0:
            yield Sample(f"{source} {seed} {k}", source, distorted(atoms, rng, rattle=0.15, strain=0.03))


def distort(atoms: Atoms, strength: float, rng: np.random.Generator) -> Atoms:
    """Rattled, strained and swollen or squeezed, more so as the strength goes from 0 to 1."""
    changed = distorted(atoms, rng, rattle=0.02 + 0.25 * strength, strain=0.05 * strength)
    # The whole range of volumes, since a relaxation of the cell passes through it.
    changed.set_cell(changed.cell.array * (1.0 + rng.uniform(-0.06, 0.10) * strength), scale_atoms=True)
    return changed


def explored_samples(
    student: Calculator, materials: Sequence[Material], n_random: int, n_flagship: int, seed: int
) -> Iterator[Sample]:
    """Frames of the student's dynamics (of known crystals) and of its relaxations (of random ones, then dynamics too).

    Args:
        student: The student as a calculator.
        materials: Known crystals; held-out ones are passed over.
        n_random: Random crystals with lithium.
        n_flagship: Those of Li, P, S and Cl.
        seed: Another one than that of the first samples.
    """
    rng = np.random.default_rng([seed, 1])
    for material in materials:
        n = _n_frames(N_EXPLORED, material)
        if n == 0 or is_held_out(material.atoms) or "Li" not in material.atoms.symbols:
            continue
        start = distorted(material.atoms, rng, rattle=0.05, strain=0.02)
        if material.source == "substituted":  # not at rest where the crystal it was made of is
            start = next(relaxation(student, material.atoms, steps=(20,)), material.atoms)
        for frame in dynamics(student, start, n, rng):
            yield Sample(material.name, material.source, frame)
    for k, (source, atoms) in enumerate(_random(n_random, n_flagship, seed)):
        group = f"{source} {seed} {k}"
        frame = atoms
        for frame in relaxation(student, atoms):
            yield Sample(group, source, frame)
        for after in dynamics(student, frame, 2, rng):
            yield Sample(group, source, after)


def test_samples(
    teacher: Calculator, materials: Sequence[Material], n_relatives: int, n_random: int, seed: int
) -> Iterator[Sample]:
    """Held-out materials with lithium in the teacher's own dynamics at 600 K, and random crystals of other seeds.

    Args:
        teacher: The teacher as a calculator.
        materials: Known crystals, of which all held-out ones of the tables are used.
        n_relatives: How many held-out relatives of known crystals, made by substitution and never seen by anyone.
        n_random: Random crystals, distorted as little as they are drawn.
        seed: Seed of the choice and the velocities.
    """
    rng = np.random.default_rng([seed, 2])
    held_out = [
        m for m in materials if "Li" in m.atoms.symbols and is_held_out(m.atoms) and len(m.atoms) >= 4
    ]
    relatives = [m for m in held_out if m.source == "substituted" and len(m.atoms) <= LARGE]
    for material in [
        *(m for m in held_out if m.source in KNOWN),
        *(relatives[k] for k in rng.permutation(len(relatives))[:n_relatives]),
    ]:
        yield from _hot(teacher, material.name, material.source, material.atoms, rng)
    for k, (source, atoms) in enumerate(_random(n_random, n_random, seed + 1000)):
        yield Sample(f"{source} {seed + 1000} {k}", source, atoms)


def familiar_samples(
    teacher: Calculator, materials: Sequence[Material], n_materials: int, seed: int
) -> Iterator[Sample]:
    """Materials that were trained on, in dynamics of the teacher's own, at 600 K, that were not.

    Prototypes of Li-P-S-Cl (`flagship`), and a choice of the other materials with lithium (`familiar`).
    """
    rng = np.random.default_rng([seed, 3])
    for name, atoms in prototypes().items():
        if 4 <= len(atoms) <= LARGE:
            yield from _hot(teacher, name, "flagship", atoms, rng)
    trained = [
        m
        for m in materials
        if m.source in ("lithium", "obelix", "substituted")
        and "Li" in m.atoms.symbols
        and 4 <= len(m.atoms) <= LARGE
        and not is_held_out(m.atoms)
    ]
    for k in rng.permutation(len(trained))[:n_materials]:
        yield from _hot(teacher, trained[k].name, "familiar", trained[k].atoms, rng)


def _hot(
    teacher: Calculator, group: str, source: str, atoms: Atoms, rng: np.random.Generator
) -> Iterator[Sample]:
    frames = list(dynamics(teacher, atoms, 4, rng, temperatures=(TEST_TEMPERATURE,) * 2))
    for frame in frames[2:]:  # the first two are still coming to equilibrium
        yield Sample(group, source, frame)


def _n_frames(numbers: dict[str, int], material: Material) -> int:
    n = numbers[material.source]
    return max(1, n * LARGE // (2 * len(material.atoms))) if n and len(material.atoms) > LARGE else n


def _random(n_random: int, n_flagship: int, seed: int) -> Iterator[tuple[str, Atoms]]:
    for k, elements in enumerate(lithium_subsets(n_random, seed + 20)):
        for atoms in random_crystals(1, seed * 100_003 + k, elements):
            yield "random lithium", atoms
    for atoms in random_crystals(n_flagship, seed, FLAGSHIP):
        yield "random", atoms
