"""From a sampled crystal to atoms: sites drawn on its own lattice and space group, the best draw kept.

A candidate with a `structure`, from a sampler that goes on to coordinates, is taken as it is. One without states
only its space group, composition and lattice, and sometimes its Wyckoff letters. PyXtal places the atoms, on those
letters where they are known; since one draw rarely finds the ground state, several are drawn, those with atoms on top
of each other are thrown away, and the rest are ranked by a potential's energy. Which potential is the caller's
business: a calculator is handed in.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import cellpar_to_cell
from ase.neighborlist import neighbor_list

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.distances import MIN_DISTANCE_RATIO
from activelearning.crystals.lattice import misfits
from activelearning.crystals.symmetry import space_group
from activelearning.errors import ActiveLearningError, is_machine_trouble

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

# PyXtal refuses pairs closer than `tolerance x (r_i + r_j) / 2`, r being covalent radii. Strict draws come
# first, since they start nearer to a minimum of energy; a cell too dense for them gets the laxer ones.
TOLERANCES = (1.6, 1.3, 1.0)
PLACEMENTS = 20  # of all atoms, at each tolerance


class RealisationError(ActiveLearningError):
    """A crystal can't be turned into atoms, or not without atoms on top of each other."""


@dataclass(frozen=True)
class Realisation:
    """One way to put a crystal's atoms on its lattice.

    Attributes:
        atoms: The conventional cell with periodic boundaries, without a calculator.
        energy: Potential energy in eV per atom; None where no calculator was given.
        trial: Number of the draw, 0 for a structure that came with the candidate.
        distance_ratio: Smallest interatomic distance over the sum of the pair's covalent radii.
    """

    atoms: Atoms
    energy: float | None
    trial: int
    distance_ratio: float


def realise(
    candidate: CrystalCandidate,
    *,
    n_trials: int = 5,
    seed: int,
    calculator: Calculator | None = None,
    min_distance_ratio: float = MIN_DISTANCE_RATIO,
) -> list[Realisation]:
    """Turn a crystal into atoms, best first.

    A candidate with a `structure` has that one realisation. Otherwise trial k is drawn from
    `SeedSequence([seed, k])`, so that more trials only add to the fewer ones. Work is bounded: a trial
    ends after `PLACEMENTS` placements at each of the `TOLERANCES`.

    Args:
        candidate: The crystal; its lattice is that of the conventional cell.
        n_trials: Draws of the sites, at least 1.
        seed: Seed of the draws.
        calculator: Ranks the realisations by its energy; without one they stay in the order drawn.
        min_distance_ratio: Smallest distance allowed, over the sum of the pair's covalent radii.

    Returns:
        The realisations, the lowest energy first. At least one.

    Raises:
        RealisationError: The lattice is missing, or not that of the space group in its standard setting; or no trial
            gave atoms that are far enough apart and on which the potential has a finite energy.
    """
    if n_trials < 1:
        raise ValueError(f"n_trials must be at least 1, not {n_trials}")
    if candidate.structure is None and candidate.lattice is None:
        raise RealisationError(
            f"{candidate.formula} in space group {candidate.space_group} has no lattice, so it can't be turned into "
            "atoms; sample crystals of a space whose order goes on to the lattice."
        )
    if candidate.structure is None:
        _check_lattice(candidate)
    if candidate.structure is not None:
        draws: list[tuple[int, Atoms | str]] = [(0, _given(candidate))]
    else:
        draws = [
            (trial, _draw(candidate, np.random.SeedSequence([seed, trial]))) for trial in range(n_trials)
        ]

    found, refused = [], []
    for trial, drawn in draws:
        if isinstance(drawn, str):
            refused.append(drawn)
            continue
        ratio = distance_ratio(drawn)
        if ratio < min_distance_ratio:
            refused.append(f"atoms at {ratio:.2f} of the sum of their covalent radii")
            continue
        energy = None if calculator is None else _energy_per_atom(drawn, calculator)
        if isinstance(energy, str):
            refused.append(energy)
            continue
        found.append(Realisation(drawn, energy, trial, ratio))
    if not found:
        reasons = "; ".join(sorted(set(refused)))
        raise RealisationError(
            f"{candidate.formula} in space group {candidate.space_group} has no realisation in {len(draws)} "
            f"trial{'s' if len(draws) > 1 else ''} on its cell of {candidate.volume:.0f} Å³: {reasons}."
        )
    if calculator is not None:
        found.sort(key=lambda r: (r.energy, r.trial))
    return found


def _check_lattice(candidate: CrystalCandidate) -> None:
    """Atoms drawn on another lattice than the group's are of another group, and would pass for those asked for."""
    wrong = misfits(space_group(candidate.space_group).lattice_system, candidate.cell)
    if wrong:
        raise RealisationError(
            f"{candidate.formula} has no realisation in space group {candidate.space_group}, since its lattice is not "
            f"that of the conventional cell in the standard setting (unique axis b, hexagonal axes for R groups): "
            f"{'; '.join(wrong)}."
        )


def distance_ratio(atoms: Atoms) -> float:
    """Smallest interatomic distance over the sum of the pair's covalent radii, images included.

    Infinity where no pair is closer than 1.5 times that sum.
    """
    radii = covalent_radii[atoms.numbers]
    first, second, distance = neighbor_list("ijd", atoms, cutoff=1.5 * radii)
    if len(distance) == 0:
        return float("inf")
    return float((distance / (radii[first] + radii[second])).min())


def _energy_per_atom(atoms: Atoms, calculator: Calculator) -> float | str:
    """Potential energy, eV per atom, or why there is none; trouble with files, programs and the machine is raised."""
    copy = atoms.copy()
    copy.calc = calculator
    try:
        energy = float(copy.get_potential_energy()) / len(atoms)
    except OSError:
        raise
    except Exception as error:  # whatever a calculator of the user's may raise on atoms that it does not like
        # What it had begun with these atoms is in the way of the next. (Not all calculators have ASE's `reset`.)
        calculator.atoms, calculator.results = None, {}
        if is_machine_trouble(error):
            raise
        return f"the potential fails: {type(error).__name__}: {' '.join(str(error).split())}"
    return energy if np.isfinite(energy) else "the potential's energy is not finite"


def _given(candidate: CrystalCandidate) -> Atoms | str:
    structure = candidate.structure
    assert structure is not None
    if not structure.is_ordered:
        return "its structure has partial occupancies; order it first"
    return Atoms(
        numbers=[site.specie.Z for site in structure],
        scaled_positions=structure.frac_coords,
        cell=structure.lattice.matrix,
        pbc=True,
    )


def _draw(candidate: CrystalCandidate, sequence: np.random.SeedSequence) -> Atoms | str:
    """One draw of the sites, or why there is none."""
    from pyxtal.lattice import Lattice
    from pyxtal.msg import Comp_CompatibilityError
    from pyxtal.symmetry import Group
    from pyxtal.tolerance import Tol_matrix

    group = Group(candidate.space_group)
    species = list(candidate.composition)
    for tolerance, streams in zip(TOLERANCES, sequence.spawn(len(TOLERANCES)), strict=True):
        of_points, of_letters = (np.random.default_rng(stream) for stream in streams.spawn(2))
        # The lattice holds the generator from which PyXtal draws points.
        lattice = Lattice.from_para(*candidate.cell, ltype=group.lattice_type, random_state=of_points)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                crystal = _bounded_random_crystal()(
                    dim=3,
                    group=group,
                    species=species,
                    numIons=[candidate.composition[symbol] for symbol in species],
                    lattice=lattice,
                    sites=_sites(candidate, group, species),
                    tm=Tol_matrix(prototype="atomic", factor=tolerance),
                    random_state=of_letters,
                )
        except Comp_CompatibilityError:
            return "its composition does not fit the multiplicities of its Wyckoff positions"
        if crystal.valid:
            return _on_lattice(crystal, candidate)
    return "PyXtal finds no places for its atoms that keep them apart"


@cache
def _bounded_random_crystal() -> type[Any]:
    """PyXtal's generator with `PLACEMENTS` attempts; its own 400 take minutes where a cell is dense."""
    from pyxtal.crystal import random_crystal

    from activelearning.crystals import pyxtal_loops

    pyxtal_loops.install()

    class BoundedRandomCrystal(random_crystal):  # type: ignore[misc]
        def set_crystal(self) -> None:
            self.numattempts = 0
            self.set_lattice(self.lattice0)
            for _ in range(PLACEMENTS):
                sites = self._set_coords()
                if sites:
                    self.atom_sites = sites
                    return

    return BoundedRandomCrystal


def _sites(candidate: CrystalCandidate, group: Any, species: list[str]) -> list[list[str]] | None:
    """PyXtal's labels (multiplicity and letter) of the sampled Wyckoff letters."""
    if candidate.wyckoff is None:
        return None
    labels = {position.letter: f"{position.multiplicity}{position.letter}" for position in group}
    return [[labels[letter] for letter in candidate.wyckoff[symbol]] for symbol in species]


def _on_lattice(crystal: Any, candidate: CrystalCandidate) -> Atoms:
    """PyXtal's sites on the candidate's exact cell, in a fixed order of atoms."""
    sites = sorted(crystal.atom_sites, key=lambda site: atomic_numbers[site.specie])
    return Atoms(
        numbers=np.concatenate([[atomic_numbers[site.specie]] * len(site.coords) for site in sites]),
        scaled_positions=np.concatenate([site.coords for site in sites]) % 1.0,
        cell=cellpar_to_cell(candidate.cell),
        pbc=True,
    )
