"""Whether what is left of a composition finds room on Wyckoff positions, all elements together.

Positions that atoms can occupy without end (those with two or three free coordinates) take what they can of an element;
that leaves most to the others. What they can't take goes on lines and fixed positions, which elements share: a search
in depth, with few branches since few atoms are concerned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Steps of one search. One that is not over by then is taken to succeed: nothing is left out without proof.
STEPS = 300


@dataclass(frozen=True)
class Letters:
    """The positions of a group by letter in canonical order, as plain values.

    Attributes:
        multiplicity: Atoms of an orbit on each letter.
        is_fixed: Whether it has no free coordinate.
        lines: Which lines atoms of an orbit lie on, and how many of them on each.
        limited: Letters that are fixed or on a line, ascending.
        endless: Entry [l][n]: whether n atoms fit on letters from l on that are not limited.
    """

    multiplicity: Sequence[int]
    is_fixed: Sequence[bool]
    lines: Sequence[Sequence[tuple[int, int]]]
    limited: Sequence[int]
    endless: Sequence[Sequence[bool]]


class Completion:
    """What is left to be assigned of one crystal.

    Args:
        letters: Of its group.
        distances: Between fixed positions, Å, by letter.
        free: Length left on each line, Å.
        fixed: Radius, Å, of what sits on each fixed letter; 0 where nothing does.
        radii: Of the elements to be placed, Å, in any order.
        left: Atoms of each.
        first: First letter that each may go on.
    """

    def __init__(
        self,
        letters: Letters,
        distances: Sequence[Sequence[float]],
        free: Sequence[float],
        fixed: Sequence[float],
        radii: Sequence[float],
        left: Sequence[int],
        first: Sequence[int],
    ) -> None:
        self._letters, self._distances = letters, distances
        self._free, self._fixed = list(free), list(fixed)
        self._radii, self._left, self._first = radii, left, first
        self._steps = 0

    def exists(self) -> bool:
        """Whether there is a way, as far as the search goes."""
        return self._place(0, self._left[0], self._first[0]) if self._left else True

    def _place(self, e: int, left: int, letter_from: int) -> bool:
        letters = self._letters
        if letters.endless[self._first[e]][left]:
            return e + 1 == len(self._left) or self._place(e + 1, self._left[e + 1], self._first[e + 1])
        self._steps += 1
        if self._steps > STEPS:
            return True
        for letter in letters.limited:
            if letter >= letter_from and letters.multiplicity[letter] <= left and self._has_room(e, letter):
                self._occupy(e, letter, 1.0)
                # A letter on a line may hold more than one orbit of the element.
                if self._place(e, left - letters.multiplicity[letter], letter + letters.is_fixed[letter]):
                    return True
                self._occupy(e, letter, -1.0)
        return False

    def _has_room(self, e: int, letter: int) -> bool:
        radius = self._radii[e]
        if self._letters.is_fixed[letter]:
            if self._fixed[letter] > 0.0 or self._distances[letter][letter] < 2.0 * radius:
                return False
            near = self._distances[letter]
            if any(there > 0.0 and near[i] < radius + there for i, there in enumerate(self._fixed)):
                return False
        return all(self._free[line] >= 2.0 * radius * atoms for line, atoms in self._letters.lines[letter])

    def _occupy(self, e: int, letter: int, sign: float) -> None:
        radius = self._radii[e]
        if self._letters.is_fixed[letter]:
            self._fixed[letter] = radius if sign > 0 else 0.0
        for line, atoms in self._letters.lines[letter]:
            self._free[line] -= sign * 2.0 * radius * atoms
