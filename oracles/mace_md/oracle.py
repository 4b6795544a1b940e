"""The oracle: a crystal in, log10 of its ionic conductivity at the simulated temperature out."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from activelearning.candidate import CrystalCandidate, digest
from activelearning.crystals.realise import RealisationError
from activelearning.errors import ConfigError
from activelearning.measurement import Censoring, Measurement
from oracles.base import Oracle
from oracles.mace_md.analysis import (
    CM2_PER_S,
    Array,
    Diffusion,
    FitSettings,
    count_hops,
    diffusion,
    log10_error,
    mean_squared_displacement,
    nernst_einstein,
    remove_drift,
    rms_displacement,
)
from oracles.mace_md.dynamics import CheckpointFolder, Run, SimulationError, advance
from oracles.mace_md.preparation import prepare
from oracles.mace_md.protocol import Protocol
from oracles.potentials import check_potential, checksum, load_calculator, unsupported_elements

UNIT = "log10(S/cm)"


class MaceMDOracle(Oracle):
    """log10 of the ionic conductivity (S/cm) at one temperature, from molecular dynamics.

    The crystal becomes atoms (several realisations, the one of lowest energy is kept), is relaxed, repeated to a
    supercell and simulated at constant temperature and volume. The mobile ions' mean-squared displacement gives their
    self-diffusion coefficient with its error (He et al., npj Comput. Mater. 2018, 4, 18), and Nernst-Einstein the
    conductivity. Where too little moved, the answer is an upper bound at that temperature. A melted framework, unstable
    dynamics or a crystal that can't be realised is a failure with its reason.

    Args:
        potential: `mace:student`, `mace:<file>`, `mace:<foundation name>` or `chgnet`.
        temperature: K; the conductivity is that at this temperature.
        time_ps: Length of the production run, ps.
        timestep_fs: fs.
        equilibration_ps: Length of the run before it, ps.
        thermostat_time_fs: Relaxation time of the velocity-rescaling thermostat, fs.
        min_cell_edge: Least distance between opposite faces of the simulated cell, Å.
        max_atoms: Largest simulated cell; a crystal that needs more fails.
        n_realisations: Draws of the sites where the candidate has no structure.
        min_distance_ratio: Least interatomic distance in a realisation, over the sum of covalent radii.
        relax_steps: Most steps of relaxation (0 for none).
        relax_fmax: Force at which relaxation ends, eV/Å.
        relax_cell: Whether the cell relaxes with the atoms.
        mobile_ion: The conducting ion; singly charged.
        sample_every: Steps between samples of the trajectory.
        hop_distance: Typical distance between neighbouring sites of the mobile ion, Å.
        fit_start: The fit begins where the mean-squared displacement reaches this many squared hop distances.
        fit_end: The fit ends at this fraction of the run.
        min_msd_gain: Least growth of the mean-squared displacement within the fit, Å²; below, the answer is a bound.
        max_framework_displacement: Largest root-mean-square displacement, Å, of the atoms of any other element; beyond,
            the framework has melted, as it has where it diffuses by the same fit as the ion. (The largest displacement
            of a single atom grows with the cell; the S of a PS4 that turns freely move by 2.9 Å, root mean square.)
        max_temperature_ratio: Temperature over the one wanted at which dynamics count as unstable.
        checkpoint_every: Steps between checkpoints.
        device: Torch device of the potential.
        dtype: Precision of a MACE.
    """

    version = "1"

    def __init__(
        self,
        potential: str = "mace:student",
        temperature: float = 800.0,
        time_ps: float = 50.0,
        timestep_fs: float = 2.0,
        equilibration_ps: float = 5.0,
        thermostat_time_fs: float = 100.0,
        min_cell_edge: float = 10.0,
        max_atoms: int = 500,
        n_realisations: int = 5,
        min_distance_ratio: float = 0.6,
        relax_steps: int = 200,
        relax_fmax: float = 0.05,
        relax_cell: bool = True,
        mobile_ion: Literal["Li", "Na", "K"] = "Li",
        sample_every: int = 5,
        hop_distance: float = 3.0,
        fit_start: float = 0.5,
        fit_end: float = 0.5,
        min_msd_gain: float = 4.5,
        max_framework_displacement: float = 3.0,
        max_temperature_ratio: float = 5.0,
        checkpoint_every: int = 500,
        device: str = "cpu",
        dtype: Literal["float32", "float64"] = "float32",
    ) -> None:
        self.protocol = Protocol(
            temperature=temperature,
            time_ps=time_ps,
            timestep_fs=timestep_fs,
            equilibration_ps=equilibration_ps,
            thermostat_time_fs=thermostat_time_fs,
            min_cell_edge=min_cell_edge,
            max_atoms=max_atoms,
            n_realisations=n_realisations,
            min_distance_ratio=min_distance_ratio,
            relax_steps=relax_steps,
            relax_fmax=relax_fmax,
            relax_cell=relax_cell,
            sample_every=sample_every,
            max_framework_displacement=max_framework_displacement,
            max_temperature_ratio=max_temperature_ratio,
        )
        self.fit = FitSettings(hop_distance, fit_start, fit_end, min_msd_gain)
        if not (hop_distance > 0 and fit_start > 0 and 0 < fit_end <= 1 and min_msd_gain > 0):
            raise ConfigError(
                f"mace_md: hop_distance, fit_start and min_msd_gain must be above zero and fit_end at most 1, not "
                f"{hop_distance}, {fit_start}, {min_msd_gain} and {fit_end}."
            )
        if checkpoint_every < 1:
            raise ConfigError(f"mace_md: checkpoint_every must be at least 1, not {checkpoint_every}.")
        self.potential = potential
        self.mobile_ion = mobile_ion
        self.checkpoint_every = checkpoint_every
        self.device = device
        self.dtype: Literal["float32", "float64"] = dtype
        self._calculator: Any = None

    def check(self) -> None:
        """Raise a `ConfigError` where potential, unit or the property's temperature does not fit."""
        check_potential(self.potential)
        if self.context.unit not in (None, UNIT):
            raise ConfigError(
                f"fidelity {self.context.fidelity}: mace_md answers in {UNIT}, not in {self.context.unit}."
            )
        stated = re.search(r"_(\d+(?:\.\d+)?)K$", self.context.property)
        if stated and not math.isclose(float(stated[1]), self.protocol.temperature):
            raise ConfigError(
                f"fidelity {self.context.fidelity}: its property {self.context.property} names {stated[1]} K, but its "
                f"params simulate {self.protocol.temperature:g} K; make the two agree."
            )

    def content(self) -> Mapping[str, object]:
        """Every number of the protocol, defaults included, and the checksum of the potential's weights."""
        return {
            **asdict(self.protocol),
            "fit": asdict(self.fit),
            "mobile_ion": self.mobile_ion,
            "dtype": self.dtype,
            "potential": self.potential if self.potential == "chgnet" else "mace",
            "weights": checksum(self.potential),
        }

    def evaluate_one(self, candidate: Any) -> Measurement:
        """Simulate one crystal; a killed evaluation of the same key goes on from its last checkpoint."""
        if not isinstance(candidate, CrystalCandidate):
            return Measurement.failed(f"mace_md measures crystals, not a {type(candidate).__name__}")
        started = time.perf_counter()
        with one_torch_thread():
            try:
                measurement = self._simulate(candidate)
            except (RealisationError, SimulationError) as error:
                measurement = Measurement.failed(str(error), metadata={"formula": candidate.formula})
        folder = self._checkpoint(candidate)
        folder.clear()
        return Measurement(
            values=measurement.values,
            reason=measurement.reason,
            seconds=time.perf_counter() - started,
            metadata=measurement.metadata,
            artifacts=measurement.artifacts,
        )

    def _checkpoint(self, candidate: CrystalCandidate) -> CheckpointFolder:
        content = {"oracle": dict(self.content()), "candidate": candidate.key, "seed": self.seed(candidate)}
        return CheckpointFolder(self._folder(candidate), digest(content))

    def _folder(self, candidate: CrystalCandidate) -> Path:
        return self.context.workdir / self.key(candidate)

    def _simulate(self, candidate: CrystalCandidate) -> Measurement:
        others = set(candidate.composition) - {self.mobile_ion}
        if self.mobile_ion not in candidate.composition:
            return self._failed(candidate, f"holds no {self.mobile_ion}: nothing to conduct")
        if not others:
            return self._failed(
                candidate, f"holds nothing but {self.mobile_ion}: no framework to conduct through"
            )
        calculator = self._load()
        unknown = unsupported_elements(calculator, list(candidate.composition))
        if unknown:
            return self._failed(
                candidate, f"the potential {self.potential} does not cover {', '.join(unknown)}"
            )

        folder = self._checkpoint(candidate)
        run = folder.load()
        if run is None:
            seed = self.seed(candidate)
            atoms, info = prepare(candidate, calculator, self.protocol, seed)
            run = Run.begin(atoms, self.protocol.temperature, seed, info)
            folder.save(run)
        advance(
            run, calculator, self.protocol, checkpoint=folder.save, checkpoint_every=self.checkpoint_every
        )
        return self._analyse(candidate, run)

    def _load(self) -> Any:
        if self._calculator is None:
            self._calculator = load_calculator(self.potential, device=self.device, dtype=self.dtype)
        return self._calculator

    def _failed(self, candidate: CrystalCandidate, reason: str, **metadata: Any) -> Measurement:
        return Measurement.failed(reason, metadata={"formula": candidate.formula, **metadata})

    def _analyse(self, candidate: CrystalCandidate, run: Run) -> Measurement:
        mobile = np.array([symbol == self.mobile_ion for symbol in run.atoms.symbols])
        frames = remove_drift(np.stack(run.frames), ~mobile, run.atoms.get_masses())
        msd, found, n_hops = self._diffusion(frames[:, mobile])
        framework_msd, framework, _ = self._diffusion(frames[:, ~mobile])
        moved = {
            s: rms_displacement(frames[:, run.atoms.symbols == s])
            for s in sorted(set(run.atoms.symbols) - {self.mobile_ion})
        }
        farthest = max(moved, key=lambda symbol: moved[symbol])
        metadata = {
            **run.info,
            **self._metadata(run, found),
            "n_mobile": int(mobile.sum()),
            "n_hops": n_hops,
            "framework_displacement": moved[farthest],
            "framework_msd": float(framework_msd[len(framework_msd) // 2]),
        }
        artifacts = self._write(candidate, run, msd, framework_msd)
        if moved[farthest] > self.protocol.max_framework_displacement:
            reason = f"framework melted: {farthest} moved by {moved[farthest]:.1f} Å, root mean square"
            return Measurement.failed(reason, metadata=metadata, artifacts=artifacts)
        if not framework.is_bound:
            d = framework.value * CM2_PER_S
            reason = f"framework melted: atoms other than {self.mobile_ion} diffuse with {d:.1e} cm²/s"
            return Measurement.failed(reason, metadata=metadata, artifacts=artifacts)
        sigma = nernst_einstein(found.value, int(mobile.sum()), run.info["volume"], self.protocol.temperature)
        return Measurement.of(
            self.context.property,
            math.log10(sigma),
            unit=UNIT,
            std=None if found.relative_error is None else log10_error(found.relative_error),
            censoring=Censoring.UPPER if found.is_bound else Censoring.NONE,
            metadata=metadata,
            artifacts=artifacts,
        )

    def _diffusion(self, frames: Array) -> tuple[Array, Diffusion, float]:
        msd = mean_squared_displacement(frames)
        n_hops = count_hops(frames, self.fit.hop_distance)
        return msd, diffusion(msd, n_hops, self.protocol.frame_ps, frames.shape[1], self.fit), n_hops

    def _metadata(self, run: Run, found: Diffusion) -> dict[str, Any]:
        return {
            "temperature": self.protocol.temperature,
            "mean_temperature": run.temperature_sum / self.protocol.n_production,
            "steps": run.step,
            "time_ps": self.protocol.n_frames * self.protocol.frame_ps,
            "potential": self.potential,
            "diffusion_cm2_per_s": found.value * CM2_PER_S,
            "diffusion_relative_error": found.relative_error,
            "is_bound": found.is_bound,
            "n_effective_hops": found.n_effective_hops,
            "msd_gain": found.gain,
            "fit_window_ps": None if found.window is None else list(found.window),
            "energy_first": run.energies[0],
            "energy_last": run.energies[1],
        }

    def _write(
        self,
        candidate: CrystalCandidate,
        run: Run,
        msd: Array,
        framework_msd: Array,
    ) -> tuple[str, ...]:
        """Keep the mean-squared displacements and the last atoms beside the result."""
        from ase.io import write

        folder = self._folder(candidate)
        folder.mkdir(parents=True, exist_ok=True)
        curves, last = folder / "msd.npz", folder / "final.extxyz"
        lags = np.arange(len(msd)) * self.protocol.frame_ps
        np.savez_compressed(curves, lag_ps=lags, mobile=msd, framework=framework_msd)
        atoms = run.atoms.copy()
        atoms.positions = run.positions
        atoms.wrap()
        write(last, atoms, format="extxyz")
        return (str(curves), str(last))


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Compute on one thread, for sums in a fixed order; two threads on a busy machine are many times slower, too."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
