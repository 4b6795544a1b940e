"""Oxidation states and charge neutrality, one oxidation state per element.

A set of possible charges is an integer used as a bit set: bit `q + offset` says that charge q is possible.
Shifting it adds a charge to all its members at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pymatgen.core import Element


def default_oxidation_states(symbol: str) -> tuple[int, ...]:
    """pymatgen's `Element.oxidation_states` without zero, ascending; empty where it knows none."""
    return tuple(sorted({int(q) for q in Element(symbol).oxidation_states if q != 0}))


def shifted(charges: int, by: int) -> int:
    """The bit set with `by` added to every charge."""
    return charges << by if by >= 0 else charges >> -by


def is_neutral(composition: Mapping[str, int], states: Mapping[str, Sequence[int]]) -> bool:
    """True when one oxidation state can be chosen for each element so that the charges sum to zero.

    Args:
        composition: Atoms of each element.
        states: Oxidation states each element may take.
    """
    offset = sum(n * max((abs(q) for q in states[symbol]), default=0) for symbol, n in composition.items())
    charges = 1 << offset
    for symbol, n in composition.items():
        reached = 0
        for q in states[symbol]:
            reached |= shifted(charges, n * q)
        charges = reached
    return bool(charges >> offset & 1)
