"""Engines that compute: GPAW, Quantum ESPRESSO, and any ASE calculator."""

from oracles.dft.engines.ase import ASEEngine
from oracles.dft.engines.base import Engine
from oracles.dft.engines.espresso import EspressoEngine
from oracles.dft.engines.gpaw import GPAWEngine

ENGINES: dict[str, type[Engine]] = {"gpaw": GPAWEngine, "espresso": EspressoEngine, "ase": ASEEngine}

__all__ = ["ENGINES", "ASEEngine", "Engine", "EspressoEngine", "GPAWEngine"]
