"""The numbers of a molecular-dynamics measurement, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from activelearning.errors import ConfigError

GROWTH = 1.5  # of a run from one look at it to the next


@dataclass(frozen=True)
class Protocol:
    """Everything that shapes a trajectory but the potential; see `MaceMDOracle` for what each means."""

    temperature: float
    time_ps: float
    max_time_ps: float
    timestep_fs: float
    equilibration_ps: float
    thermostat_time_fs: float
    min_cell_edge: float
    max_atoms: int
    n_realisations: int
    n_relaxed: int
    min_distance_ratio: float
    relax_steps: int
    relax_fmax: float
    relax_cell: bool
    keep_symmetry: bool
    sample_every: int
    max_framework_displacement: float
    max_broken_bonds: float
    max_energy_change: float
    max_total_energy_drift: float
    max_temperature_ratio: float

    def __post_init__(self) -> None:
        at_least = {
            "equilibration_ps": 0.0,
            "min_cell_edge": 0.0,
            "min_distance_ratio": 0.0,
            "max_atoms": 1,
            "n_realisations": 1,
            "n_relaxed": 1,
            "relax_steps": 0,
            "sample_every": 1,
        }
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if field.name in at_least:
                if not value >= at_least[field.name]:
                    raise ConfigError(
                        f"mace_md: {field.name} must be at least {at_least[field.name]}, not {value}."
                    )
            elif field.name not in ("relax_cell", "keep_symmetry") and not value > 0:
                raise ConfigError(f"mace_md: {field.name} must be above zero, not {value}.")
        if self.max_time_ps < self.time_ps:
            raise ConfigError(
                f"mace_md: max_time_ps ({self.max_time_ps:g}) is below time_ps ({self.time_ps:g}); a run starts with "
                f"time_ps and may grow from there."
            )
        if self.n_frames < 10:
            raise ConfigError(
                f"mace_md: time_ps {self.time_ps} holds {self.n_frames} samples, one every {self.sample_every} "
                f"steps of {self.timestep_fs} fs; a mean-squared displacement needs at least 10."
            )

    @property
    def n_equilibration(self) -> int:
        """Steps before the production run."""
        return round(self.equilibration_ps * 1000.0 / self.timestep_fs)

    @property
    def n_frames(self) -> int:
        """Samples of the production run before it grows, its start not counted."""
        return self._frames(self.time_ps)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Samples of the production run at the end of each of its blocks: at first, then by half more each time."""
        found = [self.n_frames]
        most = self._frames(self.max_time_ps)
        while found[-1] < most:
            found.append(min(most, math.ceil(GROWTH * found[-1])))
        return tuple(found)

    def n_steps(self, n_frames: int) -> int:
        """Steps of a run with so many samples, equilibration included."""
        return self.n_equilibration + n_frames * self.sample_every

    def _frames(self, time_ps: float) -> int:
        return -int(-(time_ps * 1000.0 / self.timestep_fs - 1e-9) // self.sample_every)

    @property
    def frame_ps(self) -> float:
        """Time between samples, ps."""
        return self.sample_every * self.timestep_fs / 1000.0
