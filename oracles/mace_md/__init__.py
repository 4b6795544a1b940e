"""Ionic conductivity from molecular dynamics with a machine-learned potential."""

from oracles.mace_md.oracle import MaceMDOracle

__all__ = ["MaceMDOracle"]
