"""Real jobs of the DFT queue: what the tests of each engine do with them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from activelearning.candidate import CrystalCandidate
from activelearning.contracts.oracle import JobState, OracleContext
from activelearning.measurement import Measurement
from oracles.dft import DFTQueueOracle


def energies(
    folder: Path, engine: Mapping[str, Any], scheduler: Mapping[str, Any], **params: Any
) -> DFTQueueOracle:
    """An oracle of energies, ready to be asked."""
    oracle = DFTQueueOracle(engine=dict(engine), scheduler=dict(scheduler), backoff=0.0, **params)
    oracle.bind(OracleContext("search", "dft", "formation_energy", "eV/atom", 10.0, "sqlite://", folder))
    oracle.check()
    return oracle


def ten_steps(folder: Path, engine: Mapping[str, Any], scheduler: Mapping[str, Any]) -> DFTQueueOracle:
    """An oracle of molecular dynamics at 300 K, ten steps of 1 fs in the crystal's own cell."""
    oracle = DFTQueueOracle(
        task="molecular_dynamics",
        engine=dict(engine),
        scheduler=dict(scheduler),
        dynamics={
            "temperature": 300.0,
            "time_ps": 0.01,
            "equilibration_ps": 0.0,
            "timestep_fs": 1.0,
            "interval_fs": 1.0,
            "min_cell_edge": 0.0,
            "max_energy_change": 1.0,  # half a vibration is no equilibrium
            "max_total_energy_drift": 1.0,
        },
    )
    oracle.bind(
        OracleContext("search", "aimd", "log10_conductivity_300K", "log10(S/cm)", 1.0, "sqlite://", folder)
    )
    oracle.check()
    return oracle


def answers(oracle: DFTQueueOracle, candidates: Mapping[str, CrystalCandidate]) -> dict[str, Measurement]:
    """Ask of candidates, by name, and wait for all answers."""
    for candidate in candidates.values():
        oracle.submit(candidate, candidate.key)
    end = time.monotonic() + 1100
    while True:
        found = oracle.poll([candidate.key for candidate in candidates.values()])
        if not any(isinstance(answer, JobState) for answer in found.values()):
            return {name: found[c.key] for name, c in candidates.items()}  # type: ignore[misc]
        assert time.monotonic() < end, found
        time.sleep(0.5)
