"""The oracle: a crystal in, log10 of its ionic conductivity out, at a simulated temperature and carried to another."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from activelearning.candidate import CrystalCandidate, digest
from activelearning.crystals.realise import RealisationError
from activelearning.errors import ConfigError
from activelearning.measurement import MeasuredValue, Measurement
from oracles.base import Oracle
from oracles.dynamics.answer import (
    NAMED,
    UNIT,
    check_temperature,
    conductivity,
    nothing_to_measure,
)
from oracles.dynamics.diffusion import FitSettings
from oracles.dynamics.motion import Dynamics, SimulationError
from oracles.mace_md.arrhenius import MIN_POINTS, Arrhenius, fit_arrhenius
from oracles.mace_md.batch import BatchedMace, drive_together
from oracles.mace_md.cross_check import check_kinisi, kinisi_diffusion
from oracles.mace_md.dynamics import drive
from oracles.mace_md.protocol import Protocol
from oracles.mace_md.simulation import CrystalRuns, Outcome, Plan
from oracles.potentials import (
    Potential,
    check_potential,
    checksum,
    load_calculator,
    torch_threads,
    unsupported_elements,
)

ROOM_TEMPERATURE = 300.0  # K, of a conductivity whose name has no temperature
Z90 = 1.645  # standard errors of a 90 % interval


class MaceMDOracle(Oracle):
    """log10 of the ionic conductivity (S/cm) from molecular dynamics, at one temperature or from several.

    The crystal becomes atoms (several realisations, the one of lowest energy is kept), is relaxed, repeated to a
    supercell and simulated at constant temperature and volume. The mobile ions' mean-squared displacement gives their
    self-diffusion coefficient with its error, and Nernst-Einstein the conductivity. Where too little moved, the answer
    is an upper bound at that temperature, and of no other. A melted or decomposed framework, unstable dynamics or a
    crystal that can't be realised is a failure with its reason.

    With `temperatures`, the crystal is simulated at each. Where at least three give a conductivity and no bound, their
    Arrhenius line gives the activation energy (metadata) and the conductivity at `target_temperature`, a second
    property of the answer: with the fidelity's property `log10_conductivity_800K` it is `log10_conductivity`. A
    fidelity may also have that second property for its own; it then fails where the line can't be drawn.

    The cost of an answer, for `charge: measured`, is the fidelity's times the share of the steps that the longest
    possible evaluation takes: the configured cost is a limit.

    Args:
        potential: A name, such as `mace:student` or `chgnet`, or a mapping (see `oracles.potentials`).
        temperature: K; the conductivity is that at this temperature.
        temperatures: Of all runs, K, `temperature` among them; by default it alone.
        target_temperature: K; the Arrhenius line is carried to it.
        time_ps: Length of a production run, ps.
        max_time_ps: Up to which it grows, by half its length at a time, while diffusion is not resolved or not as
            well as `target_relative_error` wants; by default `time_ps`. A run in which nothing hopped does not grow.
        target_relative_error: Standard error of the diffusion coefficient over itself that is good enough.
        timestep_fs: fs.
        equilibration_ps: Length of the run before it, ps.
        thermostat_time_fs: Relaxation time of the velocity-rescaling thermostat, fs.
        min_cell_edge: Least distance between opposite faces of the simulated cell, Å.
        max_atoms: Largest simulated cell; a crystal that needs more fails.
        n_realisations: Draws of the sites where the candidate has no structure.
        n_relaxed: How many of them, the lowest in energy first, are relaxed; the lowest after that is simulated.
        min_distance_ratio: Least interatomic distance in a realisation, over the sum of covalent radii.
        relax_steps: Most steps of relaxation (0 for none).
        relax_fmax: Force at which relaxation ends, eV/Å.
        relax_cell: Whether the cell relaxes with the atoms.
        keep_symmetry: Whether relaxation keeps the space group; dynamics do not.
        mobile_ion: The conducting ion; singly charged.
        sample_every: Steps between samples of the trajectory.
        hop_distance: Typical distance between neighbouring sites of the mobile ion, Å.
        fit_start: The fit begins where the mean-squared displacement reaches this many squared hop distances, or later
            where it still curves there; where it curves to the end, the answer is a bound.
        fit_stop: The fit ends where it reaches this many, or at `fit_end`.
        fit_end: The fit ends at this fraction of the run at the latest.
        min_msd_gain: Least growth of the mean-squared displacement within the fit, Å²; below, the answer is a bound.
        min_hops: Least number of hops (ions times mean-squared displacement over a squared hop); below, a bound.
        collective: Whether the collective conductivity and the Haven ratio are read off, too (metadata).
        max_framework_displacement: Largest root-mean-square displacement, Å, of any kind of the framework's molecules
            (by their centres, whichever way they turn) or single atoms, since the relaxed crystal; beyond, the
            framework has melted, as it has where it diffuses by the same fit as the ion. (The largest displacement of a
            single one grows with the cell.)
        max_broken_bonds: Largest share of the framework's bonds that break, or are new, from the relaxed crystal to the
            end of a run; beyond, it has decomposed. (Anions that rotate keep their bonds.)
        max_energy_change: Largest change of the potential energy within a run, eV/atom, beyond its noise. (Melting
            LiCl takes 0.1 eV/atom.)
        max_total_energy_drift: Largest drift of the total energy, the thermostat's heat taken off, eV/atom/ps.
        max_temperature_ratio: Temperature over the one wanted at which dynamics count as unstable.
        reliability_every: Samples from one look at the force error to the next, of a potential that estimates it.
        cross_check: `kinisi` to have that package's Bayesian estimate of diffusion beside ours (metadata).
        keep_trajectory: Whether the samples of positions and energies stay as artifacts.
        checkpoint_every: Steps between checkpoints.
        batch_size: Crystals simulated together, their forces computed in one call: for a GPU, and a MACE. Each
            crystal's dynamics are its own but for rounding, which goes by which crystals are in the call; so a killed
            evaluation that goes on is bit for bit that of one never killed only with 1. Evaluations with a
            `timeout` are one by one in any case.
        device: Torch device of the potential.
        dtype: Precision of a MACE.
    """

    version = "3"

    def __init__(
        self,
        potential: str | dict[str, Any] = "mace:student",
        temperature: float = 800.0,
        temperatures: Sequence[float] | None = None,
        target_temperature: float = 300.0,
        time_ps: float = 50.0,
        max_time_ps: float | None = None,
        target_relative_error: float | None = None,
        timestep_fs: float = 2.0,
        equilibration_ps: float = 5.0,
        thermostat_time_fs: float = 100.0,
        min_cell_edge: float = 10.0,
        max_atoms: int = 500,
        n_realisations: int = 5,
        n_relaxed: int = 1,
        min_distance_ratio: float = 0.6,
        relax_steps: int = 200,
        relax_fmax: float = 0.05,
        relax_cell: bool = True,
        keep_symmetry: bool = False,
        mobile_ion: Literal["Li", "Na", "K"] = "Li",
        sample_every: int = 5,
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
        reliability_every: int = 100,
        cross_check: Literal["kinisi"] | None = None,
        keep_trajectory: bool = False,
        checkpoint_every: int = 500,
        batch_size: int = 1,
        device: str = "cpu",
        dtype: Literal["float32", "float64"] = "float32",
    ) -> None:
        protocol = Protocol(
            temperature=temperature,
            time_ps=time_ps,
            max_time_ps=time_ps if max_time_ps is None else max_time_ps,
            timestep_fs=timestep_fs,
            equilibration_ps=equilibration_ps,
            thermostat_time_fs=thermostat_time_fs,
            min_cell_edge=min_cell_edge,
            max_atoms=max_atoms,
            n_realisations=n_realisations,
            n_relaxed=n_relaxed,
            min_distance_ratio=min_distance_ratio,
            relax_steps=relax_steps,
            relax_fmax=relax_fmax,
            relax_cell=relax_cell,
            keep_symmetry=keep_symmetry,
            sample_every=sample_every,
            max_framework_displacement=max_framework_displacement,
            max_broken_bonds=max_broken_bonds,
            max_energy_change=max_energy_change,
            max_total_energy_drift=max_total_energy_drift,
            max_temperature_ratio=max_temperature_ratio,
        )
        fit = FitSettings(hop_distance, fit_start, fit_stop, fit_end, min_msd_gain, min_hops)
        fit.check("mace_md: ")
        for name, value in {
            "checkpoint_every": checkpoint_every,
            "reliability_every": reliability_every,
            "batch_size": batch_size,
        }.items():
            if value < 1:
                raise ConfigError(f"mace_md: {name} must be at least 1, not {value}.")
        self._check_growth(protocol, target_relative_error)
        self.plan = Plan(
            protocol=protocol,
            temperatures=self._all_temperatures(temperature, temperatures, target_temperature),
            fit=fit,
            mobile_ion=mobile_ion,
            target_error=target_relative_error,
            collective=collective,
            reliability_every=reliability_every,
            checkpoint_every=checkpoint_every,
            keep_trajectory=keep_trajectory,
            cross_check=None if cross_check is None else kinisi_diffusion,
        )
        if batch_size > 1 and not Potential.of(potential).name.startswith("mace:"):
            raise ConfigError(
                f"mace_md: batch_size {batch_size} needs a MACE, and the potential is {potential!r}; leave "
                f"batch_size out."
            )
        self.batch_size = batch_size
        self.cross_check = cross_check
        self.target_temperature = target_temperature
        self.potential = potential
        self._name = Potential.of(potential).name
        self.device = device
        self.dtype: Literal["float32", "float64"] = dtype
        self._calculator: Any = None

    @property
    def protocol(self) -> Protocol:
        """Of the run at the temperature of the answer."""
        return self.plan.protocol

    @staticmethod
    def _check_growth(protocol: Protocol, target: float | None) -> None:
        if target is None:
            return
        if not target > 0:
            raise ConfigError(f"mace_md: target_relative_error must be above zero, not {target}.")
        if protocol.max_time_ps == protocol.time_ps:
            raise ConfigError(
                f"mace_md: target_relative_error {target:g} is reached by longer runs, which max_time_ps has to allow: "
                f"set it above time_ps ({protocol.time_ps:g})."
            )

    @staticmethod
    def _all_temperatures(main: float, several: Sequence[float] | None, target: float) -> tuple[float, ...]:
        if not target > 0:
            raise ConfigError(f"mace_md: target_temperature must be above zero, not {target}.")
        if several is None:
            return (float(main),)
        if isinstance(several, str) or not all(
            isinstance(t, (int, float)) and not isinstance(t, bool) for t in several
        ):
            raise ConfigError(f"mace_md: temperatures is a list of numbers, K, not {several!r}.")
        found = tuple(sorted(float(t) for t in several))
        if len(set(found)) != len(found) or not all(t > 0 for t in found):
            raise ConfigError(f"mace_md: temperatures must be above zero and differ, not {list(several)}.")
        if main not in found:
            raise ConfigError(
                f"mace_md: temperatures {list(several)} lack temperature ({main:g} K), that of the answer; name it "
                f"among them, or set temperature to one of them."
            )
        return found

    def check(self) -> None:
        """Raise a `ConfigError` where potential, unit, the property's temperature or the cross-check does not fit."""
        check_potential(self.potential)
        if self.cross_check is not None:
            check_kinisi()
        self.check_unit(UNIT)
        if not self._answers_target:
            check_temperature(self.context, self.protocol.temperature)

    def content(self) -> Mapping[str, object]:
        """Every number of the protocol, defaults included, and the checksum of the potential's weights."""
        return {
            **asdict(self.protocol),
            "temperatures": list(self.plan.temperatures),
            "target_temperature": self.target_temperature,
            "target_relative_error": self.plan.target_error,
            "fit": asdict(self.plan.fit),
            "mobile_ion": self.plan.mobile_ion,
            "collective": self.plan.collective,
            "dtype": self.dtype,
            "potential": checksum(self.potential),
        }

    def evaluate_one(self, candidate: Any) -> Measurement:
        """Simulate one crystal; a killed evaluation of the same key goes on from its last checkpoint."""
        return self.evaluate([candidate])[0]

    @property
    def is_batched(self) -> bool:
        """Whether candidates are handed over together."""
        return self.batch_size > 1

    def evaluate(self, candidates: Sequence[Any]) -> Sequence[Measurement]:
        """Simulate crystals, `batch_size` at a time; the next takes the place of one that is done.

        What was simulated is kept until all answers are there: they are stored together, and a call that is killed, or
        ended by trouble of the machine, is made again.
        """
        runs = [self._runs(c) if isinstance(c, CrystalCandidate) else None for c in candidates]
        works = [
            _at_once(Measurement.failed(f"mace_md measures crystals, not a {type(candidate).__name__}"))
            if its_runs is None
            else self._dynamics(candidate, its_runs)
            for candidate, its_runs in zip(candidates, runs, strict=True)
        ]
        with torch_threads():
            if self.batch_size == 1:
                answers = [drive(work, self._load()) for work in works]
            else:
                answers = drive_together(works, BatchedMace(self._load()), self.batch_size)
        for its_runs in runs:
            if its_runs is not None:
                its_runs.clear()
        return answers

    def _dynamics(self, candidate: CrystalCandidate, runs: CrystalRuns) -> Dynamics[Measurement]:
        """All that is done with one crystal; the forces of its dynamics are asked for."""
        started = time.perf_counter()
        try:
            measurement = yield from self._simulate(candidate, runs)
        except (RealisationError, SimulationError) as error:
            measurement = self._failed(candidate, str(error))
        return replace(measurement, seconds=time.perf_counter() - started)

    @property
    def _answers_target(self) -> bool:
        """Whether the fidelity's own property is the conductivity at the target temperature."""
        if len(self.plan.temperatures) < MIN_POINTS:
            return False
        stated = NAMED.search(self.context.property)
        if stated is None:
            return math.isclose(self.target_temperature, ROOM_TEMPERATURE)
        return math.isclose(float(stated[1]), self.target_temperature) and not math.isclose(
            self.target_temperature, self.protocol.temperature
        )

    def _runs(self, candidate: CrystalCandidate) -> CrystalRuns:
        content = {"oracle": dict(self.content()), "candidate": candidate.key, "seed": self.seed(candidate)}
        return CrystalRuns(self._folder(candidate), digest(content), self.seed(candidate), self.plan)

    def _folder(self, candidate: CrystalCandidate) -> Path:
        return self.context.workdir / self.key(candidate)

    def _simulate(self, candidate: CrystalCandidate, runs: CrystalRuns) -> Dynamics[Measurement]:
        nothing = nothing_to_measure(candidate.composition, self.plan.mobile_ion)
        if nothing is not None:
            return self._failed(candidate, nothing)
        calculator = self._load()
        unknown = unsupported_elements(calculator, list(candidate.composition))
        if unknown:
            return self._failed(candidate, f"the potential {self._name} does not cover {', '.join(unknown)}")
        atoms, info = runs.prepare(candidate, calculator)
        outcomes = yield from runs.run_all(atoms, info, calculator, needs_first=not self._answers_target)
        return self._answer(info, outcomes, runs.relaxed)

    def _load(self) -> Any:
        if self._calculator is None:
            self._calculator = load_calculator(self.potential, device=self.device, dtype=self.dtype)
        return self._calculator

    def _failed(self, candidate: CrystalCandidate, reason: str) -> Measurement:
        return Measurement.failed(reason, metadata={"formula": candidate.formula})

    def _answer(self, info: Mapping[str, Any], outcomes: Sequence[Outcome], relaxed: str) -> Measurement:
        """One answer from all runs; the first is that at the temperature of the answer."""
        main = outcomes[0]
        line, refusal = self._line(outcomes)
        metadata: dict[str, Any] = {**info, "potential": self._name, **main.metadata}
        if len(self.plan.temperatures) > 1:
            metadata["temperatures"] = [
                {"temperature": o.temperature, **o.metadata, "reason": o.reason} for o in outcomes
            ]
            metadata["arrhenius"] = None if line is None else asdict(line)
            if line is None:
                metadata["arrhenius_refused"] = refusal
        rest: dict[str, Any] = {
            "metadata": metadata,
            "artifacts": (relaxed, *(path for outcome in outcomes for path in outcome.artifacts)),
            "cost": self.context.cost * sum(o.steps for o in outcomes) / self.plan.most_steps,
        }
        prop, values = self.context.property, {}
        if self._answers_target:
            if line is None:
                return Measurement.failed(refusal, **rest)
            values[prop] = _at_target(line)
            if main.is_valid and main.reading is not None:
                values[f"{NAMED.sub('', prop)}_{main.temperature:g}K"] = conductivity(main.reading)
            return Measurement(values=values, **rest)
        if not main.is_valid or main.reading is None:
            return Measurement.failed(str(main.reason), **rest)
        values[prop] = conductivity(main.reading)
        stem = NAMED.sub("", prop)
        if line is not None and stem != prop:
            is_at_room = math.isclose(line.target, ROOM_TEMPERATURE)
            values[stem if is_at_room else f"{stem}_{line.target:g}K"] = _at_target(line)
        return Measurement(values=values, **rest)

    def _line(self, outcomes: Sequence[Outcome]) -> tuple[Arrhenius | None, str]:
        """The Arrhenius line through what is resolved, or None and why there is none."""
        points = sorted(
            (o.temperature, o.reading.log10_sigma, o.reading.log10_error)
            for o in outcomes
            if o.is_resolved and o.reading is not None and o.reading.log10_error is not None
        )
        if len(points) < MIN_POINTS:
            return None, self._too_few(outcomes)
        kelvin, values, errors = zip(*points, strict=True)
        for o in outcomes:
            if o.is_resolved or not o.is_valid or o.reading is None:
                continue
            there = fit_arrhenius(kelvin, values, errors, o.temperature)
            if there.log10_sigma - Z90 * there.log10_error > o.reading.log10_sigma:
                return None, (
                    f"no conductivity at {self.target_temperature:g} K: that at {o.temperature:g} K is below "
                    f"{o.reading.log10_sigma:.2f}, but {there.log10_sigma:.2f} ± {there.log10_error:.2f} by the line "
                    f"through the others, as where the crystal changes its phase between them"
                )
        return fit_arrhenius(kelvin, values, errors, self.target_temperature), ""

    def _too_few(self, outcomes: Sequence[Outcome]) -> str:
        missing = {
            f"{o.temperature:g} K": o.reason or (o.reading.diffusion.reason if o.reading else None)
            for o in sorted(outcomes, key=lambda o: o.temperature)
            if not o.is_resolved
        }
        n = len(outcomes) - len(missing)
        told = "; ".join(f"{at}: {reason}" for at, reason in missing.items())
        return f"no conductivity at {self.target_temperature:g} K from {n} resolved temperatures ({told})"


def _at_once(measurement: Measurement) -> Dynamics[Measurement]:
    """Dynamics that are done before they begin."""
    return measurement
    yield


def _at_target(line: Arrhenius) -> MeasuredValue:
    return MeasuredValue(line.log10_sigma, UNIT, line.log10_error)
