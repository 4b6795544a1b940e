"""Counts of atoms that Wyckoff positions allow, as an automaton over the counts of successive elements.

The count of each element must be a sum of Wyckoff multiplicities, where a position without free coordinates
is used at most once, whatever element sits on it. A *usage* says how many fixed positions of each
multiplicity are taken. What a sequence of counts leaves to the elements after it depends on its
Pareto-minimal usages alone; sequences that leave the same are one node of the automaton. Element symbols do
not matter here, so that the automaton is small: a few hundred nodes for all 230 groups together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.symmetry import SpaceGroup

Usage = tuple[int, ...]
DEAD = -1


@dataclass(frozen=True)
class CountLimits:
    """Limits on the counts of a composition, all inclusive.

    Attributes:
        n_elements: Fewest and most elements.
        per_element: Most atoms of one element.
        atoms: Fewest and most atoms in all.
    """

    n_elements: tuple[int, int]
    per_element: int
    atoms: tuple[int, int]


@dataclass(frozen=True)
class Signature:
    """What a space group's Wyckoff positions allow for counts up to some limit.

    Attributes:
        fixed: (multiplicity, number of positions) of fixed positions that free ones can't stand in for,
            ascending.
        is_free: Entry n says whether n atoms fit on positions with free coordinates, which may be used
            without limit.
    """

    fixed: tuple[tuple[int, int], ...]
    is_free: tuple[bool, ...]

    @classmethod
    def of(cls, group: SpaceGroup, per_element: int) -> Signature:
        """The signature of a group for counts up to `per_element`."""
        is_free = [True] + [False] * per_element
        for n in range(1, per_element + 1):
            is_free[n] = any(n >= m and is_free[n - m] for m in group.free_multiplicities)
        fixed = tuple(
            (m, positions)
            for m, positions in group.fixed_multiplicities
            if m <= per_element and not is_free[m]
        )
        return cls(fixed, tuple(is_free))

    def minimal_usages(self) -> list[tuple[Usage, ...]]:
        """Entry n: the Pareto-minimal usages by which n atoms of one element can be placed; empty where none can."""
        per_element = len(self.is_free) - 1
        found: list[list[Usage]] = [[] for _ in range(per_element + 1)]
        for usage in itertools.product(*(range(min(p, per_element // m) + 1) for m, p in self.fixed)):
            held = sum(used * m for used, (m, _) in zip(usage, self.fixed, strict=True))
            for n in range(held, per_element + 1):
                if self.is_free[n - held]:
                    found[n].append(usage)
        return [_pareto(usages) for usages in found]


def _pareto(usages: Iterable[Usage]) -> tuple[Usage, ...]:
    """The minimal elements, sorted."""
    kept: list[Usage] = []
    for usage in sorted(set(usages), key=sum):
        if not any(all(a <= b for a, b in zip(other, usage, strict=True)) for other in kept):
            kept.append(usage)
    return tuple(sorted(kept))


def is_compatible(group: SpaceGroup, counts: Sequence[int]) -> bool:
    """True when the counts of all elements fit on the group's Wyckoff positions together."""
    signature = Signature.of(group, max(counts))
    minimal = signature.minimal_usages()
    usages: tuple[Usage, ...] = ((0,) * len(signature.fixed),)
    for n in counts:
        usages = _combined(usages, minimal[n], signature)
    return bool(usages)


def _combined(first: Iterable[Usage], second: Iterable[Usage], signature: Signature) -> tuple[Usage, ...]:
    limits = [positions for _, positions in signature.fixed]
    sums = (tuple(a + b for a, b in zip(u, v, strict=True)) for u in first for v in second)
    return _pareto(s for s in sums if all(a <= p for a, p in zip(s, limits, strict=True)))


@dataclass
class CountAutomaton:
    """All sequences of counts that can be completed, shared between space groups.

    Nodes are numbered so that children come before parents.

    Attributes:
        per_element: Most atoms of one element, N.
        children: `nodes x N`, int64; entry [node, n - 1] is the node after n atoms of one more element, or
            `DEAD`.
        is_accepting: `nodes`, bool: whether a composition may end here.
    """

    per_element: int
    children: NDArray[np.int64] = field(init=False)
    is_accepting: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self._nodes: dict[tuple[bool, tuple[int, ...]], int] = {}

    def add(self, signature: Signature, limits: CountLimits) -> int:
        """Add a group's sequences; returns its root, or `DEAD` where there are none.

        Args:
            signature: Of the group, for counts up to `limits.per_element` at least.
            limits: Limits on counts; `per_element` may be less than the automaton's.
        """
        builder = _Builder(self._nodes, signature, limits, self.per_element)
        return builder.node(((0,) * len(signature.fixed),), 0, 0)

    def add_union(self, roots: Iterable[int]) -> int:
        """Add the sequences that at least one of several roots allows; returns their root, or `DEAD`."""
        return _Union(self._nodes).node(root for root in roots if root != DEAD)

    def freeze(self) -> None:
        """Make the arrays, after the last `add` or `add_union`."""
        self.is_accepting = np.array([accepting for accepting, _ in self._nodes], dtype=bool)
        self.children = np.array([list(children) for _, children in self._nodes], dtype=np.int64)
        self.children = self.children.reshape(len(self._nodes), self.per_element)
        # A node more than there are stands for what is dead, and leads nowhere else.
        self._steps = np.vstack([self.children, np.full((1, self.per_element), DEAD)])
        self._steps[self._steps == DEAD] = self.n_nodes
        self._accepts = np.append(self.is_accepting, False)

    def accepts(self, roots: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """`n x R`: whether whole compositions, counts `n x E`, are accepted from each of R roots."""
        nodes = np.repeat(np.where(roots == DEAD, self.n_nodes, roots)[None, :], len(counts), axis=0)
        for e in np.flatnonzero(counts.any(axis=0)):
            rows = np.flatnonzero(counts[:, e])
            nodes[rows] = self._steps[nodes[rows], counts[rows, e, None] - 1]
        accepted: NDArray[np.bool_] = self._accepts[nodes]
        return accepted

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return len(self._nodes)


class _Builder:
    def __init__(
        self,
        nodes: dict[tuple[bool, tuple[int, ...]], int],
        signature: Signature,
        limits: CountLimits,
        width: int,
    ) -> None:
        self.nodes, self.signature, self.limits = nodes, signature, limits
        self.padding = [DEAD] * (width - limits.per_element)
        self.minimal = signature.minimal_usages()
        self.known: dict[tuple[tuple[Usage, ...], int, int, int], int] = {}
        self.sums: dict[tuple[tuple[Usage, ...], int], tuple[Usage, ...]] = {}

    def node(self, usages: tuple[Usage, ...], n_elements: int, n_atoms: int) -> int:
        """Node after so many elements and atoms, with these usages; equal futures give equal nodes."""
        limits = self.limits
        elements_left = limits.n_elements[1] - n_elements
        # How many atoms there are matters only as far as a limit can still bind.
        missing = max(0, limits.atoms[0] - n_atoms)
        room = min(limits.atoms[1] - n_atoms, elements_left * limits.per_element)
        key = (usages, n_elements, missing, room)
        if key in self.known:
            return self.known[key]
        children = []
        for n in range(1, limits.per_element + 1):
            child = DEAD
            if elements_left and n <= room and self.minimal[n]:
                after = self._after(usages, n)
                if after:
                    child = self.node(after, n_elements + 1, n_atoms + n)
            children.append(child)
        children += self.padding
        is_accepting = n_elements >= limits.n_elements[0] and not missing
        result = DEAD
        if is_accepting or any(child != DEAD for child in children):
            result = self.nodes.setdefault((is_accepting, tuple(children)), len(self.nodes))
        self.known[key] = result
        return result

    def _after(self, usages: tuple[Usage, ...], n: int) -> tuple[Usage, ...]:
        key = (usages, n)
        if key not in self.sums:
            self.sums[key] = _combined(usages, self.minimal[n], self.signature)
        return self.sums[key]


class _Union:
    """Subset construction: a node of the union stands for the set of nodes that its members are in.

    A member whose sequences all belong to another one is dropped, so that the sets stay small: one position
    with free coordinates that holds a single atom, as in most monoclinic groups, allows every count there is.
    """

    def __init__(self, nodes: dict[tuple[bool, tuple[int, ...]], int]) -> None:
        self.nodes = nodes
        self.keys = list(nodes)
        self.known: dict[tuple[int, ...], int] = {}
        self.inclusions: dict[tuple[int, int], bool] = {}

    def node(self, members: Iterable[int]) -> int:
        """Node that accepts what at least one of the members does."""
        key = self._largest(members)
        if len(key) < 2:
            return key[0] if key else DEAD
        if key not in self.known:
            children = zip(*(self.keys[member][1] for member in key), strict=True)
            row = tuple(self.node(child for child in column if child != DEAD) for column in children)
            is_accepting = any(self.keys[member][0] for member in key)
            self.known[key] = self.nodes.setdefault((is_accepting, row), len(self.nodes))
        return self.known[key]

    def _largest(self, members: Iterable[int]) -> tuple[int, ...]:
        """The members that are not included in another, ascending."""
        kept: list[int] = []
        for member in sorted(set(members), reverse=True):
            if not any(self._is_included(member, other) for other in kept):
                kept = [other for other in kept if not self._is_included(other, member)]
                kept.append(member)
        return tuple(sorted(kept))

    def _is_included(self, node: int, other: int) -> bool:
        """Whether `other` allows every sequence that `node` allows."""
        key = (node, other)
        if key not in self.inclusions:
            (accepts, children), (other_accepts, other_children) = self.keys[node], self.keys[other]
            self.inclusions[key] = (other_accepts or not accepts) and all(
                child in (DEAD, paired) or (paired != DEAD and self._is_included(child, paired))
                for child, paired in zip(children, other_children, strict=True)
            )
        return self.inclusions[key]
