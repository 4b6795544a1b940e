"""Density-functional theory under a scheduler: formation energies and relaxations, one job a crystal."""

from oracles.dft.engines import Engine
from oracles.dft.oracle import DFTQueueOracle
from oracles.dft.schedulers import Scheduler

__all__ = ["DFTQueueOracle", "Engine", "Scheduler"]
