"""Interatomic potentials by name, as ASE calculators."""

from oracles.potentials.loading import check_potential, checksum, load_calculator, unsupported_elements

__all__ = ["check_potential", "checksum", "load_calculator", "unsupported_elements"]
