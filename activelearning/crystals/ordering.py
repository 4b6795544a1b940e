"""From a crystal with partial occupancies to an ordered one: whole atoms in a supercell, neutral, of low energy.

Three steps, each bounded and the same for the same seed.

1. How many: for every supercell of the primitive cell, up to a number of sites, whole numbers of atoms on every orbit
   come from a mixed-integer program: neutral by the oxidation states, total amounts as near to the composition wanted
   as can be, then occupancies as near to those given. The smallest supercell whose error is small enough is taken.
2. Where: atoms and vacancies change places by simulated annealing on the Coulomb energy of point charges, by Ewald
   sums, with a wall between atoms that would overlap. Several starts give several arrangements.
3. What was chosen is told beside the atoms: supercell, error of the composition, oxidation states, energies.

Oxidation states decide the electrostatics, as in pymatgen's ordering transformations; those want whole amounts and
no split positions, and enumerate, which ends soon after a dozen sites.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from activelearning.crystals.annealing import Arrangement, Sites, anneal
from activelearning.crystals.distances import MIN_DISTANCE_RATIO
from activelearning.crystals.oxidation import guess_oxidation_states
from activelearning.crystals.rounding import Orbit, Rounding, round_occupancies
from activelearning.errors import ActiveLearningError

SYMMETRY_TOLERANCE = 0.01  # Å
FULL = 1e-3  # an orbit whose occupancies miss one by no more has no vacancies
CHARGE_TOLERANCE = 0.05  # e per atom of the composition wanted; occupancies are published to a few digits


class OrderingError(ActiveLearningError):
    """A crystal with partial occupancies can't be ordered; the message says why."""


@dataclass(frozen=True)
class OrderingSettings:
    """Bounds of an ordering.

    Attributes:
        max_sites: Largest supercell, in sites, vacant and split ones counted. A primitive cell above it is refused.
        max_supercell: Most primitive cells in a supercell.
        composition_error: Supercells grow until their error (see `Ordering`) is at most this, or the bounds are met.
        max_composition_error: Error above which an ordering is refused.
        n_starts: Independent annealings.
        sweeps: Attempted moves for each site with a choice, in each annealing.
        min_distance_ratio: Atoms closer than this, over the sum of covalent radii, count as overlapping.
    """

    max_sites: int = 400
    max_supercell: int = 8
    composition_error: float = 0.01
    max_composition_error: float = 0.1
    n_starts: int = 3
    sweeps: int = 200
    min_distance_ratio: float = MIN_DISTANCE_RATIO

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"{name} of an ordering must be above 0, not {value}")


@dataclass(frozen=True)
class Ordering:
    """An ordered crystal, and the choice behind it.

    Attributes:
        structure: Ordered atoms, grouped by element.
        supercell: Rows are its lattice vectors in those of the primitive cell.
        composition_error: Largest difference of an element's atomic fraction from the one wanted.
        lost_elements: Those of which there is too little for one atom of the supercell.
        oxidation_states: Charge of each element.
        energy: Coulomb energy of the point charges, eV per atom.
        energies: Of the distinct arrangements found, ascending, eV per atom; the first was taken.
        seed: Seed of the annealing.
        has_kept_orbits: Whether every orbit holds the atoms that rounding gave it; where atoms overlapped otherwise,
            they were let onto other orbits of their element.
    """

    structure: Structure
    supercell: tuple[tuple[int, int, int], ...]
    composition_error: float
    lost_elements: tuple[str, ...]
    oxidation_states: Mapping[str, float]
    energy: float
    energies: tuple[float, ...]
    seed: int
    has_kept_orbits: bool

    def summary(self) -> dict[str, Any]:
        """Plain values to be kept with what is measured on the structure; rounded, so that they are stable."""
        return {
            "method": "ewald",
            "supercell": [list(row) for row in self.supercell],
            "composition_error": round(self.composition_error, 6),
            "lost_elements": list(self.lost_elements),
            "oxidation_states": {s: round(q, 4) for s, q in sorted(self.oxidation_states.items())},
            "coulomb_energies_per_atom": [round(energy, 3) for energy in self.energies],
            "seed": self.seed,
            "has_kept_orbits": self.has_kept_orbits,
        }


def order(
    structure: Structure,
    *,
    seed: int = 0,
    composition: Mapping[str, float] | None = None,
    oxidation_states: Mapping[str, Sequence[int]] | None = None,
    settings: OrderingSettings | None = None,
) -> Ordering:
    """Order a crystal with partial occupancies.

    Args:
        structure: The crystal; species with an oxidation state are taken for their elements.
        seed: Seed of the annealing; the same crystal, seed and settings give the same atoms.
        composition: Amounts of the elements, of any number of formula units, where they are known better than by the
            occupancies (OBELiX's "True Composition"); the occupancies then say only where atoms may be.
        oxidation_states: States that an element may have; by default those known of it.
        settings: Bounds.

    Raises:
        OrderingError: elements differ from those of the composition, no oxidation states make it neutral, the cell is
            too large, no supercell within the bounds is near enough, or atoms overlap in every arrangement.
    """
    settings = settings or OrderingSettings()
    cell = _primitive(structure)
    if len(cell) > settings.max_sites:
        raise OrderingError(
            f"{structure.composition.reduced_formula}: its primitive cell has {len(cell)} sites, above max_sites = "
            f"{settings.max_sites}"
        )
    wanted = _wanted(cell, composition)
    charges = guess_oxidation_states(wanted, states=oxidation_states, tolerance=CHARGE_TOLERANCE)
    if charges is None:
        raise OrderingError(f"no choice of oxidation states makes {amounts_text(wanted)} neutral")
    rounding = _smallest_supercell(cell, wanted, charges, settings)
    matrix = compact_supercell(np.array(cell.lattice.matrix), rounding.n_cells)
    supercell = cell.copy()
    supercell.make_supercell(matrix, to_unit_cell=True)
    # pymatgen keeps the images of a site together, so that orbits stay blocks of sites.
    sites = Sites(
        matrix=np.array(supercell.lattice.matrix),
        fractional=np.array(supercell.frac_coords) % 1.0,
        orbits=np.repeat(rounding.orbit_of_site, rounding.n_cells),
        elements=tuple(rounding.charges),
        charges=np.array(list(rounding.charges.values())),
        radii=settings.min_distance_ratio
        * np.array([covalent_radii[atomic_numbers[symbol]] for symbol in rounding.charges]),
        counts=rounding.counts,
        allowed=np.array(
            [[symbol in orbit.amounts for symbol in rounding.charges] for orbit in rounding.orbits]
        ),
    )
    found = anneal(sites, n_starts=settings.n_starts, sweeps=settings.sweeps, seed=seed)
    apart = [arrangement for arrangement in found if arrangement.n_overlaps == 0]
    if not apart:
        raise OrderingError(
            f"{amounts_text(wanted)}: atoms overlap in every arrangement; at best {found[0].n_overlaps} pairs are "
            f"closer than {settings.min_distance_ratio} of the sum of their covalent radii ({found[0].closest})"
        )
    best = apart[0]
    n_atoms = int((best.species >= 0).sum())
    return Ordering(
        structure=_structure(supercell, sites, best),
        supercell=tuple(tuple(int(x) for x in row) for row in matrix),  # type: ignore[misc]
        composition_error=rounding.error,
        lost_elements=rounding.lost,
        oxidation_states=dict(rounding.charges),
        energy=best.energy / n_atoms,
        energies=tuple(arrangement.energy / n_atoms for arrangement in apart),
        seed=seed,
        has_kept_orbits=best.has_kept_orbits,
    )


def _primitive(structure: Structure) -> Structure:
    """The primitive cell of the average structure, elements only."""
    plain = Structure(structure.lattice, [_amounts(site) for site in structure], structure.frac_coords)
    try:
        return SpacegroupAnalyzer(plain, symprec=SYMMETRY_TOLERANCE).find_primitive() or plain
    except (TypeError, ValueError, np.linalg.LinAlgError) as error:
        raise OrderingError(
            f"{structure.composition.reduced_formula}: no primitive cell ({error})"
        ) from error


def _amounts(site: Any) -> dict[str, float]:
    """Occupancies of a site by element; atoms of one element in two states are one."""
    amounts: dict[str, float] = {}
    for species, amount in site.species.items():
        amounts[species.symbol] = amounts.get(species.symbol, 0.0) + float(amount)
    total = sum(amounts.values())
    return {symbol: amount / max(total, 1.0) for symbol, amount in sorted(amounts.items())}


def _orbits(cell: Structure) -> tuple[list[Orbit], NDArray[np.int64]]:
    """Sites that symmetry makes equal, with what they hold; and each site's orbit."""
    dataset = SpacegroupAnalyzer(cell, symprec=SYMMETRY_TOLERANCE).get_symmetry_dataset()
    _, orbit_of_site = np.unique(np.asarray(dataset.equivalent_atoms), return_inverse=True)
    orbits = []
    for k in range(int(orbit_of_site.max()) + 1):
        members = np.flatnonzero(orbit_of_site == k)
        amounts = _amounts(cell[int(members[0])])
        orbits.append(Orbit(len(members), amounts, is_full=sum(amounts.values()) >= 1.0 - FULL))
    return orbits, orbit_of_site.astype(np.int64)


def _wanted(cell: Structure, composition: Mapping[str, float] | None) -> dict[str, float]:
    """Atoms of each element in the primitive cell."""
    own: dict[str, float] = {}
    for site in cell:
        for symbol, amount in _amounts(site).items():
            own[symbol] = own.get(symbol, 0.0) + amount
    if composition is None:
        return own
    given = scaled_to(composition, own)
    if set(given) != set(own):
        raise OrderingError(
            f"the structure holds {', '.join(sorted(own))}, but its composition is said to be "
            f"{amounts_text(composition)}"
        )
    return given


def scaled_to(composition: Mapping[str, float], own: Mapping[str, float]) -> dict[str, float]:
    """A composition in the number of formula units that a structure holds.

    By the median of the elements' ratios, which one element's wrong occupancy does not move.

    Args:
        composition: Amounts of any number of formula units.
        own: What the structure's occupancies add up to.
    """
    given = {symbol: float(amount) for symbol, amount in composition.items() if amount > 0}
    ratios = [own[symbol] / amount for symbol, amount in given.items() if own.get(symbol)]
    ratio = float(np.median(ratios)) if ratios else 1.0
    return {symbol: ratio * amount for symbol, amount in given.items()}


def _smallest_supercell(
    cell: Structure, wanted: Mapping[str, float], charges: Mapping[str, float], settings: OrderingSettings
) -> Rounding:
    orbits, orbit_of_site = _orbits(cell)
    best: Rounding | None = None
    for n_cells in range(1, min(settings.max_supercell, settings.max_sites // len(cell)) + 1):
        rounding = round_occupancies(orbits, orbit_of_site, wanted, charges, n_cells)
        if rounding is None:
            continue
        if best is None or (len(rounding.lost), rounding.error + 1e-9) < (len(best.lost), best.error):
            best = rounding
        if best.error <= settings.composition_error and not best.lost:
            break
    if best is None:
        raise OrderingError(
            f"{amounts_text(wanted)}: no supercell of up to {settings.max_sites} sites and {settings.max_supercell} "
            f"primitive cells holds whole atoms that are neutral"
        )
    if best.error > settings.max_composition_error:
        raise OrderingError(
            f"{amounts_text(wanted)}: the nearest neutral supercell is off by {best.error:.3f} in an element's "
            f"fraction, above max_composition_error = {settings.max_composition_error}"
        )
    return best


def compact_supercell(matrix: NDArray[np.float64], n_cells: int) -> NDArray[np.int64]:
    """The supercell of so many cells whose opposite faces are furthest apart.

    All superlattices are looked at, by their Hermite normal forms (Hart & Forcade, Phys. Rev. B 2008, 77, 224115).

    Args:
        matrix: Lattice vectors as rows, `3 x 3`.
        n_cells: Cells in the supercell.

    Returns:
        Whole numbers, `3 x 3`: rows are its lattice vectors in those of the cell, Niggli-reduced.
    """
    from pymatgen.core import Lattice

    best: tuple[float, NDArray[np.int64]] | None = None
    for a, b in itertools.product(range(1, n_cells + 1), repeat=2):
        if n_cells % (a * b):
            continue
        c = n_cells // (a * b)
        for d, e, f in itertools.product(range(b), range(c), range(c)):
            form = np.array([[a, d, e], [0, b, f], [0, 0, c]])
            # Rows of an upper triangle: d is counted by the second diagonal entry, e and f by the third.
            reduced = Lattice(form @ matrix).get_niggli_reduced_lattice().matrix
            height = float((1.0 / np.linalg.norm(np.linalg.inv(reduced), axis=0)).min())
            if best is None or height > best[0] + 1e-6:
                # The reduced vectors, found again in the orientation of the cell.
                mapping = Lattice(form @ matrix).find_mapping(Lattice(reduced), ltol=1e-5, atol=1e-3)
                rows = form if mapping is None else np.round(mapping[2]).astype(np.int64) @ form
                best = height, rows
    assert best is not None
    rows = best[1]
    return -rows if np.linalg.det(rows) < 0 else rows


def _structure(supercell: Structure, sites: Sites, arrangement: Arrangement) -> Structure:
    taken = np.flatnonzero(arrangement.species >= 0)
    symbols = [sites.elements[k] for k in arrangement.species[taken]]
    by_number = sorted(range(len(taken)), key=lambda k: (atomic_numbers[symbols[k]], taken[k]))
    return Structure(
        supercell.lattice, [symbols[k] for k in by_number], sites.fractional[taken[by_number]].tolist()
    )


def amounts_text(amounts: Mapping[str, float]) -> str:
    """Amounts of elements for messages, as in `Cl1 Li5.7`."""
    return " ".join(
        f"{symbol}{amount:.4g}" for symbol, amount in sorted(amounts.items()) if not math.isnan(amount)
    )
