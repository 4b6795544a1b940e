"""The oracle: crystals in, energies or conductivities by density-functional theory out, hours to weeks later."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ase import Atoms

from activelearning.candidate import CrystalCandidate, digest
from activelearning.contracts.oracle import ExternalId, JobState, OracleContext
from activelearning.errors import ConfigError, OracleError
from activelearning.measurement import Measurement
from oracles.base import QueuedOracle
from oracles.dft import references
from oracles.dft.dynamics import Simulation
from oracles.dft.engines import ENGINES, Engine
from oracles.dft.queue import Done, JobQueue, Outcome, Retries
from oracles.dft.runner import atoms_json
from oracles.dft.schedulers import SCHEDULERS, Scheduler
from oracles.dft.sections import make_part, make_plain
from oracles.dft.structure import Start, cell_of, primitive
from oracles.dynamics.answer import NAMED, check_temperature, conductivity, nothing_to_measure
from oracles.dynamics.answer import UNIT as CONDUCTIVITY_UNIT
from oracles.dynamics.motion import SimulationError
from oracles.dynamics.supercell import supercell
from oracles.potentials import Potential, check_potential, checksum

UNIT = "eV/atom"
_REFERENCE = "reference"


@dataclass(frozen=True)
class Relaxation:
    """How a crystal is relaxed.

    Attributes:
        cell: Whether the cell relaxes with the atoms.
        symmetry: Whether the space group is kept.
        fmax: Largest force that is left, eV/Å.
        max_steps: Steps of all attempts together after which it counts as not converged.
    """

    cell: bool
    symmetry: bool
    fmax: float
    max_steps: int

    def to_json(self, *, is_molecule: bool = False) -> dict[str, Any]:
        """As the runner reads it; the box of a molecule stays as it is."""
        return {
            "cell": self.cell and not is_molecule,
            "symmetry": self.symmetry and not is_molecule,
            "fmax": self.fmax,
            "max_steps": self.max_steps,
        }


class DFTQueueOracle(QueuedOracle):
    """Energies and conductivities from density-functional theory, computed by jobs under a scheduler.

    Each evaluation is a folder under its key, with the structure, the input, the script, the log and the result. A
    crystal without a structure is realised, and an energy is computed in the primitive cell. Faults of
    infrastructure (a node lost, a job killed or forgotten, out of time after having got on) are tried again, from the
    last restart file or checkpoint; what the calculation itself makes of a crystal (no convergence, bad input, out of
    memory) is a failure with its reason. What all attempts took, in core-hours, is the cost.

    Args:
        task: `energy`, or `formation_energy` against the elements, both in eV/atom. The elements' own energies are
            jobs of their own, computed once, not charged to any evaluation. `molecular_dynamics` gives log10 of the
            ionic conductivity (S/cm) at the simulated temperature, or an upper bound, as `MaceMDOracle` does.
        engine: `{type: gpaw | espresso | ase | package.module:Class, ...}`.
        scheduler: `{type: local | slurm | package.module:Class, ...}`.
        relax: What is relaxed: `none`, `positions`, or `cell` (and positions).
        fmax: Largest force left by a relaxation, eV/Å.
        max_relax_steps: Steps after which a relaxation counts as not converged.
        keep_symmetry: Whether a relaxation keeps the space group.
        dynamics: How crystals are simulated, for that task alone (see `Simulation`).
        references: Energies of elements (eV/atom, by the same engine and protocol) that need not be computed.
        max_atoms: Atoms in the primitive cell, or in the one that is simulated; larger crystals are refused.
        potential: Ranks the realisations of a crystal without a structure: a name, or a mapping (see
            `oracles.potentials`); without one the first is taken.
        n_realisations: Number of realisations that a potential ranks.
        prerelax_steps: Most steps by which that potential relaxes atoms and cell before the job is made, as `mace_md`
            does before dynamics; 0 for none.
        max_attempts: Of one job.
        backoff: Seconds to wait after a fault of the infrastructure, after each further one twice as long, up to an
            hour. What ran out of time and got on goes on at once.
        cost_per_core_hour: In the campaign's cost unit. No further attempt is made once the fidelity's `cost` is used.
        folder: Folder of the jobs' folders; by default one in the campaign's own. Campaigns that name the same one
            share the elements' energies.
    """

    version = "1"

    def __init__(
        self,
        task: Literal["energy", "formation_energy", "molecular_dynamics"] = "formation_energy",
        engine: dict[str, Any] | None = None,
        scheduler: dict[str, Any] | None = None,
        relax: Literal["none", "positions", "cell"] = "none",
        fmax: float = 0.03,
        max_relax_steps: int = 100,
        keep_symmetry: bool = True,
        dynamics: dict[str, Any] | None = None,
        references: dict[str, float] | None = None,
        max_atoms: int = 100,
        potential: str | dict[str, Any] | None = None,
        n_realisations: int = 5,
        prerelax_steps: int = 0,
        max_attempts: int = 3,
        backoff: float = 60.0,
        cost_per_core_hour: float = 1.0,
        folder: Path | None = None,
    ) -> None:
        for name, value, least in (
            ("max_relax_steps", max_relax_steps, 1),
            ("max_atoms", max_atoms, 1),
            ("n_realisations", n_realisations, 1),
            ("prerelax_steps", prerelax_steps, 0),
            ("max_attempts", max_attempts, 1),
        ):
            if value < least:
                raise ConfigError(f"{name} must be at least {least}, not {value}.")
        if not fmax > 0:
            raise ConfigError(f"fmax is a force in eV/Å above 0, not {fmax:g}.")
        for name, amount in (("backoff", backoff), ("cost_per_core_hour", cost_per_core_hour)):
            if not (math.isfinite(amount) and amount >= 0):
                raise ConfigError(f"{name} must be 0 or more, not {amount:g}.")
        if prerelax_steps and potential is None:
            raise ConfigError(
                "prerelax_steps is stated, but no potential to take them; add one, as in 'potential: mace:student'."
            )
        self.simulation = self._simulation(task, dynamics, relax, references)
        self.task = task
        self.engine: Engine = make_part("engine", engine or {"type": "gpaw"}, ENGINES)
        self.scheduler: Scheduler = make_part("scheduler", scheduler or {"type": "local"}, SCHEDULERS)
        self.relaxation = (
            None if relax == "none" else Relaxation(relax == "cell", keep_symmetry, fmax, max_relax_steps)
        )
        self.references = dict(references or {})
        self.max_atoms = max_atoms
        self.start = (
            Start()
            if potential is None
            else Start(n_realisations, Potential.of(potential), prerelax_steps, keep_symmetry)
        )
        self.max_attempts = max_attempts
        self.backoff = backoff
        self.cost_per_core_hour = cost_per_core_hour
        self._folder = folder

    @staticmethod
    def _simulation(
        task: str, dynamics: Mapping[str, Any] | None, relax: str, references: Mapping[str, float] | None
    ) -> Simulation | None:
        if task != "molecular_dynamics":
            if dynamics is not None:
                raise ConfigError(
                    f"dynamics is stated, but task {task} has none; remove it, or set 'task: molecular_dynamics'."
                )
            return None
        if relax != "none":
            raise ConfigError(
                f"relax is {relax}, but task molecular_dynamics relaxes nothing; remove it, and have a potential relax "
                f"crystals before their job by prerelax_steps."
            )
        if references is not None:
            raise ConfigError(
                "references is stated, but task molecular_dynamics measures no energy against the elements; remove it."
            )
        return make_plain("dynamics", dynamics or {}, Simulation)

    def bind(self, context: OracleContext) -> None:
        """Take notice of the campaign."""
        super().bind(context)
        self.scheduler.bind(context.workdir)
        price = self.cost_per_core_hour
        self.queue = JobQueue(
            self._folder or context.workdir / "jobs",
            self.scheduler,
            self.engine,
            Retries(self.max_attempts, self.backoff, context.cost / price if price else math.inf),
        )

    def check(self) -> None:
        """Raise a `ConfigError` where engine, scheduler, potential or unit does not fit."""
        if self.simulation is not None:
            self._check_conductivity(self.simulation.conditions.temperature)
        else:
            self.check_unit(UNIT)
        if self.start.potential is not None:
            check_potential(self.start.potential)
        self.engine.check()
        if self.scheduler.runs_here:
            self.engine.check_here()
        self.scheduler.check()

    def _check_conductivity(self, temperature: float) -> None:
        self.check_unit(CONDUCTIVITY_UNIT)
        if not NAMED.search(self.context.property):
            raise ConfigError(
                f"fidelity {self.context.fidelity}: its property {self.context.property} does not say at which "
                f"temperature, and molecular dynamics answer for that of dynamics.temperature alone; state 'property: "
                f"log10_conductivity_{temperature:g}K'."
            )
        check_temperature(self.context, temperature)
        if "for_dynamics" not in inspect.signature(self.engine.calculator).parameters:
            raise ConfigError(
                f"engine.type is {type(self.engine).__name__}, whose calculator() takes no 'for_dynamics'; task "
                f"molecular_dynamics needs it, to say that atoms leave their symmetry."
            )

    def content(self) -> Mapping[str, object]:
        """All that changes results: task, engine, relaxation, dynamics; not where or how fast it is computed."""
        start = self.start
        relaxed = {"prerelax_steps": start.relax_steps, "prerelax_keeps_symmetry": start.keep_symmetry}
        return {
            "task": self.task,
            "engine": dict(self.engine.content()),
            "relaxation": None if self.relaxation is None else self.relaxation.to_json(),
            "references": self.references if self.task == "formation_energy" else None,
            "reference_table": references.VERSION if self.task == "formation_energy" else None,
            "n_realisations": start.n_realisations,
            "potential": None if start.potential is None else checksum(start.potential),
            **(relaxed if start.relax_steps else {}),
            **({} if self.simulation is None else {"dynamics": self.simulation.content()}),
        }

    def submit(self, candidate: Any, key: str) -> ExternalId:
        """Write the job's folder and hand it over; the elements' energies come first."""
        if not isinstance(candidate, CrystalCandidate):
            raise OracleError(f"dft_queue computes crystals, not a {type(candidate).__name__}")
        self.engine.check_elements(candidate.composition)
        self.start.potential_for(candidate)  # an element that it lacks is refused before any job begins
        if self.simulation is not None:
            nothing = nothing_to_measure(candidate.composition, self.simulation.mobile_ion)
            if nothing is not None:
                raise OracleError(nothing)
        if self.task == "formation_energy":
            self._submit_references(candidate)
        seed = int(key[:16], 16) >> 1
        atoms, prerelaxation = cell_of(candidate, self.start, seed=seed)
        job = (
            self._energy_job(key, atoms) if self.simulation is None else self._dynamics_job(key, atoms, seed)
        )
        self.queue.put(key, {**job, "prerelaxation": prerelaxation})
        return key

    def flush(self) -> None:
        """Hand a round's jobs over together, where the scheduler takes batches."""
        self.queue.flush()

    def find(self, key: str) -> ExternalId | None:
        """The job of an evaluation, by its folder, and where that can't tell by the scheduler."""
        return key if self.queue.find(key) else None

    def poll(self, ids: Sequence[ExternalId]) -> Mapping[ExternalId, JobState | Measurement]:
        """States and results; the scheduler is asked once for all, the jobs of their elements among them."""
        elements = self._element_jobs(ids)
        outcomes = self.queue.look([*ids, *elements])
        return {key: self._answer(outcomes[key], outcomes) for key in ids}

    def cancel(self, ids: Sequence[ExternalId]) -> None:
        """End jobs; those of elements go on, since other evaluations need them."""
        self.queue.cancel(ids)

    def _energy_job(self, key: str, atoms: Atoms) -> dict[str, Any]:
        atoms = primitive(atoms)
        if len(atoms) > self.max_atoms:
            raise OracleError(
                f"its primitive cell has {len(atoms)} atoms, more than max_atoms = {self.max_atoms}"
            )
        atoms.set_initial_magnetic_moments(self.engine.moments(atoms))
        return self._job(key, atoms, None if self.relaxation is None else self.relaxation.to_json())

    def _dynamics_job(self, key: str, atoms: Atoms, seed: int) -> dict[str, Any]:
        assert self.simulation is not None
        try:
            atoms, info = supercell(atoms, self.simulation.conditions.min_cell_edge, self.max_atoms)
        except SimulationError as error:
            raise OracleError(str(error)) from error
        atoms.set_initial_magnetic_moments(self.engine.moments(atoms))
        return {
            **self._job(key, atoms, None),
            "calculator": self.engine.calculator(atoms, for_dynamics=True),
            "dynamics": self.simulation.job(info, seed),
        }

    def _job(self, key: str, atoms: Atoms, relaxation: Mapping[str, Any] | None) -> dict[str, Any]:
        return {
            "key": key,
            "campaign": self.context.campaign,
            "fidelity": self.context.fidelity,
            "formula": atoms.get_chemical_formula(),
            "atoms": atoms_json(atoms),
            "calculator": self.engine.calculator(atoms),
            "relaxation_calculator": self.engine.calculator(
                atoms, for_stress=bool(relaxation and relaxation["cell"])
            ),
            "modules": list(self.engine.modules),
            "relaxation": relaxation,
        }

    def _reference(self, symbol: str) -> tuple[str, Atoms, dict[str, Any] | None]:
        """Key, atoms and relaxation of an element's job; the key says all that decides its energy."""
        atoms = references.reference_atoms(symbol)
        if not atoms.get_initial_magnetic_moments().any():
            atoms.set_initial_magnetic_moments(self.engine.moments(atoms))
        relaxation = None
        if self.relaxation is not None:
            relaxation = self.relaxation.to_json(is_molecule=references.is_molecule(atoms))
        what = {"atoms": atoms_json(atoms), "relaxation": relaxation, "engine": dict(self.engine.content())}
        return f"{_REFERENCE}-{symbol}-{digest(what)[:16]}", atoms, relaxation

    def _submit_references(self, candidate: CrystalCandidate) -> None:
        for symbol in sorted(set(candidate.composition) - set(self.references)):
            key, atoms, relaxation = self._reference(symbol)
            known = self.queue.over(key)
            if known is not None and known.reason is not None:
                raise OracleError(
                    f"the energy of elemental {symbol} could not be computed ({known.reason}); remove "
                    f"{known.folder.path} to have it tried again, or state it in params.references"
                )
            if known is None:
                self.queue.put(key, self._job(key, atoms, relaxation))

    def _element_jobs(self, ids: Sequence[ExternalId]) -> list[str]:
        """Keys of the elements' jobs that crystals wait for; those of other campaigns may be in the folder as well."""
        if self.task != "formation_energy":
            return []
        numbers: set[int] = set()
        for key in ids:
            job = self.queue.job(key)
            if job is not None:
                numbers |= set(job["atoms"]["numbers"])
        return [
            self._reference(symbol)[0] for symbol in sorted(set(_symbols(numbers)) - set(self.references))
        ]

    def _answer(self, outcome: Outcome, outcomes: Mapping[str, Outcome]) -> JobState | Measurement:
        if isinstance(outcome, JobState):
            return outcome
        job = outcome.folder.job()
        facts: dict[str, Any] = {
            "formula": job["formula"],
            "n_atoms": len(job["atoms"]["numbers"]),
            "core_hours": outcome.core_hours,
            "attempts": outcome.n_attempts,
        }
        if job.get("prerelaxation"):
            facts["prerelaxation"] = job["prerelaxation"]
        rest: dict[str, Any] = {
            "cost": outcome.core_hours * self.cost_per_core_hour,
            "seconds": outcome.seconds,
            "artifacts": outcome.folder.files(self.engine.outputs),
        }
        if outcome.result is None:
            return Measurement.failed(str(outcome.reason), metadata=facts, **rest)
        result = outcome.result
        facts["versions"] = dict(result["versions"])
        if self.engine.log is not None:
            facts["versions"] |= self.engine.program_version(outcome.folder.output_head(self.engine.log))
        if self.simulation is not None:
            facts |= {"steps": result["steps"], **job["dynamics"]["info"]}
            return self._conductivity(self.simulation, outcome, facts, rest)
        atoms = result["atoms"]
        facts |= {
            "energy": result["energy"],
            "steps": result["steps"],
            "cell": atoms["cell"],
            **{name: result[name] for name in ("max_force", "magnetic_moment") if name in result},
        }
        n = len(atoms["numbers"])
        if self.task == "energy":
            return Measurement.of(
                self.context.property, result["energy"] / n, unit=UNIT, metadata=facts, **rest
            )
        elements = self._elements(atoms["numbers"], outcomes)
        if isinstance(elements, JobState):
            return elements
        if isinstance(elements, str):
            return Measurement.failed(elements, metadata=facts, **rest)
        formation = (result["energy"] - sum(elements[symbol] for symbol in _symbols(atoms["numbers"]))) / n
        facts["references"] = elements
        return Measurement.of(self.context.property, formation, unit=UNIT, metadata=facts, **rest)

    def _conductivity(
        self, simulation: Simulation, outcome: Done, facts: dict[str, Any], rest: dict[str, Any]
    ) -> Measurement:
        """What a trajectory says; one of a crystal that did not stand it is a failure with its reason."""
        assert outcome.result is not None
        unstable = outcome.result.get("unstable")
        if unstable is not None:
            return Measurement.failed(unstable, metadata=facts, **rest)
        folder = outcome.folder
        try:
            reading, kept = simulation.read(folder.path, folder.key)
        except (FileNotFoundError, ValueError) as error:
            return Measurement.failed(f"its trajectory can't be read: {error}", metadata=facts, **rest)
        facts |= reading.metadata
        rest["artifacts"] = tuple(dict.fromkeys((*rest["artifacts"], *kept)))
        if reading.invalid is not None:
            return Measurement.failed(reading.invalid, metadata=facts, **rest)
        return Measurement({self.context.property: conductivity(reading)}, metadata=facts, **rest)

    def _elements(
        self, numbers: Sequence[int], outcomes: Mapping[str, Outcome]
    ) -> dict[str, float] | JobState | str:
        """Energies of a crystal's elements, eV/atom; RUNNING while one is to come; or why one does not come."""
        energies = dict(self.references)
        for symbol in sorted(set(_symbols(numbers)) - set(energies)):
            key, atoms, relaxation = self._reference(symbol)
            outcome = outcomes.get(key, JobState.LOST)
            if outcome in (JobState.LOST, JobState.CANCELLED):
                # Somebody removed or cancelled it; the crystal's own result is worth computing it again.
                self.queue.renew(key, self._job(key, atoms, relaxation))
                return JobState.RUNNING
            if isinstance(outcome, JobState):
                return JobState.RUNNING
            if outcome.result is None:
                return f"the energy of elemental {symbol} could not be computed: {outcome.reason}"
            energies[symbol] = outcome.result["energy"] / len(atoms)
        return {symbol: energies[symbol] for symbol in sorted(set(_symbols(numbers)))}


def _symbols(numbers: Iterable[int]) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[number] for number in numbers]
