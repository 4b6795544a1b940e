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

from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from activelearning.candidate import ORDERING, CrystalCandidate
from activelearning.crystals.ordering import amounts_text, order, scaled_to
from activelearning.errors import InputError

SYMMETRY_TOLERANCE = 0.01  # Å


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
    """A candidate with a structure.

    Args:
        structure: The crystal, partial occupancies allowed.
        space_group: Its number, where it is known; else what spglib finds in the average structure.
        composition: Amounts of the elements, of any number of formula units, where they are known better than by the
            occupancies.

    Raises:
        ValueError: an ordered crystal holds other atoms than its composition says, or has no space group.
    """
    if space_group is None:
        try:
            space_group = SpacegroupAnalyzer(structure, symprec=SYMMETRY_TOLERANCE).get_space_group_number()
        except (TypeError, ValueError) as error:
            raise ValueError(f"no space group is found ({error})") from error
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
