"""Interatomic potentials by name, as ASE calculators, with what they know of their own errors."""

from oracles.potentials.loading import (
    ForceErrors,
    check_potential,
    checksum,
    expected_force_errors,
    load_calculator,
    unsupported_elements,
)

__all__ = [
    "ForceErrors",
    "check_potential",
    "checksum",
    "expected_force_errors",
    "load_calculator",
    "unsupported_elements",
]
