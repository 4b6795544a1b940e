"""Crystals from files: read, made candidates, and put in order before atoms are needed.

A candidate from a file with partial occupancies stays what was measured, an average crystal, and so do its features.
Who needs atoms gets them ordered (`activelearning.crystals.ordering`), always the same ones, with a record of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from activelearning.candidate import ORDERING, CrystalCandidate
from activelearning.crystals import symmetry
from activelearning.crystals.lattice import misfits
from activelearning.crystals.ordering import amounts_text, order, scaled_to
from activelearning.errors import InputError

SYMMETRY_TOLERANCE = 0.01  # Å
CELL_TOLERANCE = (
    0.1  # of a volume that is that of one conventional cell; of another number of them it is off by more
)


def read_structure(path: Path) -> Structure:
    """The crystal in a CIF (or another file that pymatgen reads), its cell as it stands there.

    Raises:
        InputError: the file can't be read, or holds no crystal.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # about rounded coordinates and occupancies, which are not the user's
            return Structure.from_file(path)
    except Exception as error:  # whatever a parser may stumble over
        raise InputError(f"{path} can't be read as a crystal: {error}.") from error


def crystal_of(
    structure: Structure,
    *,
    space_group: int | None = None,
    composition: Mapping[str, float] | None = None,
) -> CrystalCandidate:
    """A candidate with a structure, on the conventional cell of its space group.

    A cell that is one already (its lattice fits the group, and it holds as many lattice points as the group's centring
    says) is taken as it stands, in any choice of axes and origin; a primitive cell, a supercell and rhombohedral axes
    give way to the standard setting, with all atoms and occupancies.

    Args:
        structure: The crystal, partial occupancies allowed.
        space_group: Its number, where it is known; else what spglib finds in the average structure.
        composition: Amounts of the elements, of any number of formula units, where they are known better than by the
            occupancies.

    Raises:
        ValueError: an ordered crystal holds other atoms than its composition says, or has no space group; or the cell
            is not that of the space group stated, which the atoms do not have.
    """
    structure, space_group = _conventional(structure, space_group)
    own = structure.composition.get_el_amt_dict()
    if structure.is_ordered and composition is not None:
        given = {symbol: float(amount) for symbol, amount in composition.items()}
        fractions = {s: n / sum(given.values()) for s, n in given.items()}
        held = {s: n / sum(own.values()) for s, n in own.items()}
        if set(held) != set(fractions) or any(abs(held[s] - fractions[s]) > 5e-3 for s in held):
            raise ValueError(
                f"its structure is ordered and holds {amounts_text(own)}, but its composition is said to be "
                f"{amounts_text(given)}"
            )
    amounts = own if structure.is_ordered or composition is None else scaled_to(composition, own)
    return CrystalCandidate(
        space_group=space_group,
        composition={symbol: amount for symbol, amount in amounts.items() if amount > 0},  # type: ignore[misc]
        lattice=structure.lattice.parameters,
        structure=structure,
    )


def _conventional(structure: Structure, stated: int | None) -> tuple[Structure, int]:
    """A crystal on the conventional cell of its space group, and the group's number."""
    analyzer, found = None, None
    try:
        analyzer = SpacegroupAnalyzer(structure, symprec=SYMMETRY_TOLERANCE)
        found = analyzer.get_space_group_number()
    except (TypeError, ValueError) as error:
        if stated is None:
            raise ValueError(f"no space group is found ({error})") from error
    number = found if stated is None else stated
    assert number is not None
    wrong = misfits(symmetry.space_group(number).lattice_system, structure.lattice.parameters)
    if analyzer is None or found != number:
        # Atoms of another group say nothing of the cell of the one stated.
        if wrong:
            held = (
                "no space group is found in its atoms" if found is None else f"its atoms have {found} instead"
            )
            raise ValueError(
                f"its cell is not the conventional one of space group {number} ({'; '.join(wrong)}), and can't be made "
                f"so, since {held}. Write it on the conventional cell (unique axis b, hexagonal axes for R groups), or "
                f"leave the space group out"
            )
        return structure, number
    conventional = abs(np.linalg.det(analyzer.get_symmetry_dataset().std_lattice))
    if not wrong and abs(structure.volume / conventional - 1.0) < CELL_TOLERANCE:
        return structure, number
    return analyzer.get_refined_structure(), number


@lru_cache(maxsize=64)
def ordered(candidate: CrystalCandidate) -> tuple[CrystalCandidate, dict[str, Any]]:
    """A crystal with whole atoms in place of partial occupancies, and a record of the choice, as plain values.

    The seed is fixed, so that every oracle sees the same atoms. The space group stays that of the average crystal; cell
    and composition are those of the ordered one.

    Raises:
        OrderingError: the crystal can't be ordered.
    """
    assert candidate.structure is not None
    amounts = {symbol: float(n) for symbol, n in candidate.composition.items()}
    found = order(candidate.structure, composition=amounts)
    counts = found.structure.composition.get_el_amt_dict()
    whole = CrystalCandidate(
        space_group=candidate.space_group,
        composition={symbol: round(n) for symbol, n in counts.items()},
        lattice=found.structure.lattice.parameters,
        structure=found.structure,
    )
    record = {
        "version": ORDERING,
        **found.summary(),
        "ordered_formula": whole.formula,
        "average_formula": candidate.formula,
    }
    return whole, record
