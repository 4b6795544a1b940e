"""What is told of a run besides what it says: how far it is, and how far its potential may be trusted."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from oracles.dynamics.motion import Run
from oracles.mace_md.protocol import Protocol
from oracles.potentials import expected_force_errors

_log = logging.getLogger(__name__)

PROGRESS_SECONDS = 60.0  # between lines of progress


def force_reliability(
    calculator: Calculator, run: Run, frames: NDArray[np.float32], every: int
) -> dict[str, Any]:
    """What a potential that knows its errors expects of them on every k-th sample, eV/Å; nothing of any other.

    `force_error_mean` is the mean over atoms and samples, `force_error_max` that of the worst atom of all; a run is
    `reliable` where the mean over the atoms of no sample is outside what the potential was trained on.
    """
    atoms = run.atoms.copy()
    found = []
    for frame in frames[::every]:
        atoms.positions = frame
        errors = expected_force_errors(calculator, atoms)
        if errors is None:
            return {}
        found.append(errors)
    return {
        "force_error_mean": float(np.mean([errors.mean for errors in found])),
        "force_error_max": max(errors.largest for errors in found),
        "reliable": not any(errors.is_high for errors in found),
    }


class Progress:
    """Lines of progress at a bounded rate; the clock decides when to speak, and nothing else."""

    def __init__(self, name: str, protocol: Protocol, mobile: NDArray[np.bool_], until: int) -> None:
        self._name = name
        self._protocol = protocol
        self._mobile = mobile
        self._until = until
        self._said = self._begun = time.monotonic()
        self._first: int | None = None

    def __call__(self, run: Run, temperature: float) -> None:
        """Say how far a run is, if a while has passed."""
        now = time.monotonic()
        if self._first is None:
            self._first = run.step
        if now - self._said < PROGRESS_SECONDS:
            return
        self._said = now
        nanoseconds = (run.step - self._first) * self._protocol.timestep_fs * 1e-6
        moved = ((run.positions - run.atoms.positions)[self._mobile] ** 2).sum(axis=1).mean()
        _log.info(
            "%s at %g K: step %d of %d, %.0f K, %.2f ns/day, mobile ions moved by %.1f Å² from the start",
            self._name,
            self._protocol.temperature,
            run.step,
            self._until,
            temperature,
            nanoseconds / (now - self._begun) * 86400.0,
            moved,
        )
