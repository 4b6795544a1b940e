"""The section `dynamics` of the oracle's parameters: short ab-initio molecular dynamics for conductivity.

The job moves the atoms and writes samples (`runner.py`, by `oracles.dynamics.motion`); what they say is read off here,
by what reads the samples of machine-learned potentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from activelearning.errors import ConfigError
from oracles.dynamics.conditions import Conditions
from oracles.dynamics.diffusion import FitSettings
from oracles.dynamics.motion import RunFolder
from oracles.dynamics.reading import Reading, read, write_artifacts, write_trajectory

READING = "2"  # of what is made of the same samples: another, and earlier answers are not reused


class Simulation:
    """How a crystal is simulated, and how its conductivity is read off.

    Args:
        temperature: K; the conductivity is that at this temperature.
        time_ps: Length of the production run, ps.
        equilibration_ps: Length of the run before it, ps.
        timestep_fs: fs.
        interval_fs: Time from one sample of the trajectory to the next, fs; a multiple of the time step.
        thermostat_time_fs: Relaxation time of the velocity-rescaling thermostat, fs.
        min_cell_edge: Least distance between opposite faces of the simulated cell, Å.
        mobile_ion: The conducting ion; singly charged.
        checkpoint_every: Steps from one checkpoint, from which a job goes on that was lost, to the next.
        hop_distance: Typical distance between neighbouring sites of the mobile ion, Å.
        fit_start: The fit begins where the mean-squared displacement reaches this many squared hop distances, or later
            where it still curves there; where it curves to the end, the answer is a bound.
        fit_stop: The fit ends where it reaches this many, or at `fit_end`.
        fit_end: The fit ends at this fraction of the run at the latest.
        min_msd_gain: Least growth of the mean-squared displacement within the fit, Å²; below, the answer is a bound.
        min_hops: Least number of hops; below, a bound.
        collective: Whether the collective conductivity and the Haven ratio are read off, too (metadata).
        max_framework_displacement: Largest root-mean-square displacement of any kind of the framework's molecules, by
            their centres, or single atoms, since the run began, Å.
        max_broken_bonds: Largest share of the framework's bonds that break or form since then.
        max_energy_change: Largest change of the potential energy within the run, eV/atom.
        max_total_energy_drift: Largest drift of the total energy, the thermostat's heat taken off, eV/atom/ps.
        max_temperature_ratio: Temperature over the one wanted at which dynamics count as unstable.
    """

    def __init__(
        self,
        temperature: float = 800.0,
        time_ps: float = 20.0,
        equilibration_ps: float = 2.0,
        timestep_fs: float = 2.0,
        interval_fs: float = 10.0,
        thermostat_time_fs: float = 100.0,
        min_cell_edge: float = 10.0,
        mobile_ion: Literal["Li", "Na", "K"] = "Li",
        checkpoint_every: int = 1,
        hop_distance: float = 3.0,
        fit_start: float = 0.5,
        fit_stop: float = 6.0,
        fit_end: float = 0.5,
        min_msd_gain: float = 4.5,
        min_hops: float = 10.0,
        collective: bool = False,
        max_framework_displacement: float = 3.0,
        max_broken_bonds: float = 0.25,
        max_energy_change: float = 0.1,
        max_total_energy_drift: float = 0.01,
        max_temperature_ratio: float = 5.0,
    ) -> None:
        if checkpoint_every < 1:
            raise ConfigError(f"dynamics.checkpoint_every must be at least 1, not {checkpoint_every}.")
        self.conditions = Conditions(
            temperature=temperature,
            time_ps=time_ps,
            timestep_fs=timestep_fs,
            equilibration_ps=equilibration_ps,
            thermostat_time_fs=thermostat_time_fs,
            min_cell_edge=min_cell_edge,
            sample_every=_steps_between(interval_fs, timestep_fs),
            max_framework_displacement=max_framework_displacement,
            max_broken_bonds=max_broken_bonds,
            max_energy_change=max_energy_change,
            max_total_energy_drift=max_total_energy_drift,
            max_temperature_ratio=max_temperature_ratio,
        )
        self.fit = FitSettings(hop_distance, fit_start, fit_stop, fit_end, min_msd_gain, min_hops)
        self.fit.check("dynamics: ")
        self.mobile_ion = mobile_ion
        self.collective = collective
        self.checkpoint_every = checkpoint_every

    def content(self) -> Mapping[str, Any]:
        """All that changes results: every number, defaults included."""
        return {
            **asdict(self.conditions),
            "fit": asdict(self.fit),
            "mobile_ion": self.mobile_ion,
            "collective": self.collective,
            "reading": READING,
        }

    def job(self, info: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """What the runner has to know.

        Args:
            info: Of the cell (see `oracles.dynamics.supercell`).
            seed: Of the evaluation; with the same, `mace_md` starts with the same momenta.
        """
        conditions = self.conditions
        return {
            "motion": asdict(conditions.motion),
            "until": conditions.n_steps(conditions.n_frames),
            "checkpoint_every": self.checkpoint_every,
            "seed": [seed, round(1000.0 * conditions.temperature)],
            "info": dict(info),
        }

    def read(self, folder: Path, key: str) -> tuple[Reading, tuple[str, ...]]:
        """What the samples in a job's folder say, and the files that hold them.

        Raises:
            FileNotFoundError: they are not there.
            ValueError: there are fewer than the job wrote.
        """
        samples = RunFolder(folder, key)
        run = samples.load()
        if run is None:
            raise FileNotFoundError(f"{folder} holds no trajectory")
        reading = read(run, samples, self.conditions, self.fit, self.mobile_ion, collective=self.collective)
        kept = write_artifacts(folder, run, reading, self.conditions.frame_ps)
        return reading, (*kept, write_trajectory(folder, run, samples))


def _steps_between(interval_fs: float, timestep_fs: float) -> int:
    """Steps from one sample to the next."""
    if not timestep_fs > 0:
        raise ConfigError(f"dynamics.timestep_fs must be above zero, not {timestep_fs}.")
    steps = interval_fs / timestep_fs
    if not (steps >= 0.5 and abs(steps - round(steps)) < 1e-6):
        raise ConfigError(
            f"dynamics.interval_fs is {interval_fs:g}, which is no multiple of dynamics.timestep_fs ({timestep_fs:g}); "
            f"take {max(1, round(steps) if steps < 1e9 else 1) * timestep_fs:g}."
        )
    return round(steps)
