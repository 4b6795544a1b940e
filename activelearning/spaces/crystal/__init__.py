"""The space of crystals: elements, space groups, lattices, Wyckoff positions under hard constraints."""

from activelearning.spaces.crystal.space import CrystalSpace

__all__ = ["CrystalSpace"]
