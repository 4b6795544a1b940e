"""Narrower limits of a crystal space, for sampling a part of it without another training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.lattice import LatticeLimits
from activelearning.crystals.symmetry import SpaceGroup
from activelearning.errors import ConfigError
from activelearning.spaces.crystal import options
from activelearning.spaces.crystal.limits import CrystalLimits, atom_limits

SECTION = "restriction "


@dataclass(frozen=True)
class Restrictions:
    """Restrictions of a space; None leaves it as it is. See `CrystalSpace.restricted`."""

    elements: Sequence[str] | None = None
    required_elements: Sequence[str] | None = None
    counts: Mapping[str, tuple[int, int]] | None = None
    n_elements: tuple[int, int] | None = None
    max_atoms: int | None = None
    max_atoms_per_element: int | None = None
    space_groups: Sequence[int] | None = None
    crystal_systems: Sequence[str] | None = None
    lengths: tuple[float, float] | None = None
    angles: tuple[float, float] | None = None
    volume_per_atom: tuple[float, float] | None = None
    composition: Mapping[str, int] | None = None
    space_group: int | None = None

    def __str__(self) -> str:
        stated = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return ", ".join(f"{name} {value}" for name, value in stated if value is not None)

    def within(self, limits: CrystalLimits, elements: Sequence[str]) -> CrystalLimits:
        """The limits that keep the restrictions, too.

        Args:
            limits: Limits of the space.
            elements: Its elements.

        Raises:
            ConfigError: a restriction is out of range, or wider than the limits.
        """
        max_atoms = self._most("max_atoms", self.max_atoms, limits.max_atoms)
        lattice = self._lattice(limits.lattice)
        return dataclasses.replace(
            limits,
            n_elements=self._n_elements(limits.n_elements),
            max_atoms=max_atoms,
            counts=self._counts(limits, elements),
            groups=self._groups(limits.groups),
            lattice=lattice,
            atoms=atom_limits(lattice, max_atoms, limits.atoms),
        )

    def _most(self, key: str, value: int | None, most: int) -> int:
        if value is None:
            return most
        if options.positive(key, value, SECTION) > most:
            raise ConfigError(f"{SECTION}{key} is {value}, more than the {most} of the space.")
        return value

    def _n_elements(self, outer: tuple[int, int]) -> tuple[int, int]:
        if self.n_elements is None:
            return outer
        low, high = self.n_elements
        if not outer[0] <= low <= high <= outer[1]:
            raise ConfigError(
                f"{SECTION}n_elements is {[low, high]}; it must be [fewest, most] within the space's {list(outer)}."
            )
        return low, high

    def _counts(self, limits: CrystalLimits, elements: Sequence[str]) -> NDArray[np.bool_]:
        allowed = limits.counts.copy()
        if self.elements is not None:
            kept = options.subset("elements", self.elements, elements, SECTION)
            allowed[[symbol not in kept for symbol in elements], 1:] = False
        if self.required_elements is not None:
            needed = options.subset("required_elements", self.required_elements, elements, SECTION)
            allowed[[symbol in needed for symbol in elements], 0] = False
        if self.counts is not None:
            allowed &= options.count_ranges(self.counts, elements, allowed.shape[1] - 1, SECTION)
        if self.composition is not None:
            exact = {symbol: (n, n) for symbol, n in self.composition.items()}
            options.count_ranges(exact, elements, allowed.shape[1] - 1, SECTION, key="composition")
            counts = [self.composition.get(symbol, 0) for symbol in elements]
            allowed &= np.arange(allowed.shape[1]) == np.array(counts)[:, None]
        most = limits.max_atoms_per_element
        allowed[:, self._most("max_atoms_per_element", self.max_atoms_per_element, most) + 1 :] = False
        return allowed

    def _groups(self, groups: tuple[SpaceGroup, ...]) -> tuple[SpaceGroup, ...]:
        known = {group.number for group in groups}
        for key, numbers in (
            ("space_groups", self.space_groups),
            ("space_group", None if self.space_group is None else [self.space_group]),
        ):
            if numbers is None:
                continue
            for number in numbers:
                if number not in known:
                    raise ConfigError(
                        f"{SECTION}{key} names {number}, which is not among those of the space."
                    )
            groups = tuple(group for group in groups if group.number in numbers)
        chosen = options.groups(self.space_groups, self.crystal_systems, SECTION)
        return tuple(group for group in groups if group in chosen)

    def _lattice(self, outer: LatticeLimits | None) -> LatticeLimits | None:
        given = {"lengths": self.lengths, "angles": self.angles, "volume_per_atom": self.volume_per_atom}
        if outer is None:
            options.without_lattice({key: pair is not None for key, pair in given.items()}, SECTION)
            return None
        units = {"lengths": "Å", "angles": "degrees", "volume_per_atom": "Å³"}
        ranges: dict[str, tuple[float, float]] = {key: getattr(outer, key) for key in given}
        for key, pair in given.items():
            if pair is not None:
                ranges[key] = options.value_range(key, pair, *ranges[key], units[key], SECTION)
        return LatticeLimits(**ranges)
