"""Interatomic potentials by name, as ASE calculators, with what they know of their own errors."""

from oracles.potentials.loading import (
    ForceErrors,
    check_potential,
    checksum,
    expected_force_errors,
    load_calculator,
    unsupported_elements,
)
from oracles.potentials.naming import Potential
from oracles.potentials.threads import torch_threads

__all__ = [
    "ForceErrors",
    "Potential",
    "check_potential",
    "checksum",
    "expected_force_errors",
    "load_calculator",
    "torch_threads",
    "unsupported_elements",
]
