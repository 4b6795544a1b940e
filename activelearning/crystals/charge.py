"""Oxidation states and charge neutrality.

Each element takes one of its oxidation states, the same for all its atoms, or, where mixed valence is allowed,
each atom takes one for itself. A set of possible charges is an integer used as a bit set: bit `q + offset`
says that charge q is possible. Shifting it adds a charge to all its members at once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pymatgen.core import Element

# Most charges that are added one by one.
FEW = 12


def default_oxidation_states(symbol: str) -> tuple[int, ...]:
    """pymatgen's `Element.oxidation_states` without zero, ascending; empty where it knows none."""
    return tuple(sorted({int(q) for q in Element(symbol).oxidation_states if q != 0}))


def shifted(charges: int, by: int) -> int:
    """The bit set with `by` added to every charge."""
    return charges << by if by >= 0 else charges >> -by


def total_charges(states: Sequence[int], n: int, *, is_mixed: bool) -> tuple[int, ...]:
    """Charges that n atoms of an element can have together, ascending.

    Args:
        states: Oxidation states of the element.
        n: Atoms.
        is_mixed: Whether each atom may take another state.
    """
    if not is_mixed or n == 0:
        return tuple(sorted({n * q for q in states}))
    lowest = min(states)
    sums = 1
    for _ in range(n):
        reached = 0
        for q in states:
            reached |= sums << q - lowest
        sums = reached
    return tuple(n * lowest + q for q in range(sums.bit_length()) if sums >> q & 1)


@dataclass(frozen=True)
class ChargeSet:
    """Charges to add to a bit set, as arithmetic runs of one step, so that adding many takes few shifts.

    Attributes:
        step: Difference of neighbours in a run.
        runs: (lowest, length) of each run.
    """

    step: int
    runs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, charges: Collection[int]) -> ChargeSet:
        """The set of some charges."""
        ordered = sorted(set(charges))
        step = math.gcd(*(b - a for a, b in itertools.pairwise(ordered))) or 1
        runs: list[tuple[int, int]] = []
        for charge in ordered:
            if runs and charge == runs[-1][0] + step * runs[-1][1]:
                runs[-1] = runs[-1][0], runs[-1][1] + 1
            else:
                runs.append((charge, 1))
        return cls(step, tuple(runs))

    @property
    def largest(self) -> int:
        """Largest absolute charge."""
        ends = ((first, first + self.step * (length - 1)) for first, length in self.runs)
        return max((max(abs(low), abs(high)) for low, high in ends), default=0)

    @cached_property
    def _one_by_one(self) -> tuple[int, tuple[int, ...]] | None:
        """The lowest charge, and by how much others are above it, where these are so few that runs take longer."""
        charges = sorted(first + self.step * i for first, length in self.runs for i in range(length))
        if not 0 < len(charges) <= FEW:
            return None
        return charges[0], tuple(charge - charges[0] for charge in charges[1:])

    def __neg__(self) -> ChargeSet:
        """The set of the opposite charges."""
        runs = tuple((-first - self.step * (length - 1), length) for first, length in self.runs)
        return ChargeSet(self.step, runs)

    def added_to(self, charges: int) -> int:
        """The bit set of all sums of a charge of a bit set and one of these; sums below its first bit are lost."""
        if self._one_by_one is not None:
            lowest, above = self._one_by_one
            result = charges
            for by in above:
                result |= charges << by
            return shifted(result, lowest)
        result = 0
        for first, length in self.runs:
            spread, reached = charges, 1
            while reached < length:
                further = min(reached, length - reached)
                spread |= spread << self.step * further
                reached += further
            # Last, so that nothing that a run leads back is lost on the way.
            result |= shifted(spread, first)
        return result


def is_neutral(
    composition: Mapping[str, int], states: Mapping[str, Sequence[int]], mixed: Collection[str] = ()
) -> bool:
    """True when oxidation states can be chosen so that the charges sum to zero.

    Args:
        composition: Atoms of each element.
        states: Oxidation states each element may take.
        mixed: Elements whose atoms may take different states; all others take one each.
    """
    possible = {
        symbol: total_charges(states[symbol], n, is_mixed=symbol in mixed)
        for symbol, n in composition.items()
    }
    offset = sum(max((abs(q) for q in charges), default=0) for charges in possible.values())
    reached = 1 << offset
    for charges in possible.values():
        reached = ChargeSet.of(charges).added_to(reached)
    return bool(reached >> offset & 1)
