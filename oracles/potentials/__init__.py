"""Interatomic potentials by name, as ASE calculators."""

from oracles.potentials.loading import check_potential, checksum, load_calculator, unsupported_elements
from oracles.potentials.naming import Potential
from oracles.potentials.threads import torch_threads

__all__ = [
    "Potential",
    "check_potential",
    "checksum",
    "load_calculator",
    "torch_threads",
    "unsupported_elements",
]
