"""The numbers of a molecular-dynamics measurement that do not depend on where its forces come from, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from activelearning.crystals.distances import COLLAPSED
from activelearning.errors import ConfigError
from oracles.dynamics.motion import Motion


@dataclass(frozen=True)
class Conditions:
    """How a crystal is simulated, and what it must stand; see `MaceMDOracle` for what each means."""

    subject: ClassVar[str] = "dynamics."  # what messages say before a key
    at_least: ClassVar[Mapping[str, float]] = {
        "equilibration_ps": 0.0,
        "min_cell_edge": 0.0,
        "sample_every": 1,
    }

    temperature: float
    time_ps: float
    timestep_fs: float
    equilibration_ps: float
    thermostat_time_fs: float
    min_cell_edge: float
    sample_every: int
    max_framework_displacement: float
    max_broken_bonds: float
    max_energy_change: float
    max_total_energy_drift: float
    max_temperature_ratio: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if isinstance(value, bool):
                continue
            least = self.at_least.get(field.name)
            if not (math.isfinite(value) and (value > 0 if least is None else value >= least)):
                right = "above zero" if least is None else f"at least {least}"
                raise ConfigError(f"{self.subject}{field.name} must be {right}, not {value}.")
        if self.n_frames < 10:
            raise ConfigError(
                f"{self.subject}time_ps {self.time_ps} holds {self.n_frames} samples, one every {self.sample_every} "
                f"steps of {self.timestep_fs} fs; a mean-squared displacement needs at least 10."
            )

    @property
    def motion(self) -> Motion:
        """What the integrator has to know."""
        return Motion(
            self.temperature,
            self.timestep_fs,
            self.thermostat_time_fs,
            self.n_equilibration,
            self.sample_every,
            self.max_temperature_ratio,
            COLLAPSED,
        )

    @property
    def n_equilibration(self) -> int:
        """Steps before the production run."""
        return round(self.equilibration_ps * 1000.0 / self.timestep_fs)

    @property
    def n_frames(self) -> int:
        """Samples of the production run before it grows, its start not counted."""
        return self._frames(self.time_ps)

    def n_steps(self, n_frames: int) -> int:
        """Steps of a run with so many samples, equilibration included."""
        return self.n_equilibration + n_frames * self.sample_every

    def _frames(self, time_ps: float) -> int:
        return -int(-(time_ps * 1000.0 / self.timestep_fs - 1e-9) // self.sample_every)

    @property
    def frame_ps(self) -> float:
        """Time between samples, ps."""
        return self.sample_every * self.timestep_fs / 1000.0
