"""Bond-valence site energies: how high the barriers are that a mobile ion meets on its way through a crystal."""

from oracles.bvse.oracle import BVSEOracle

__all__ = ["BVSEOracle"]
