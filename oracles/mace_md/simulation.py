"""One crystal at one or several temperatures: prepared once, run by run, each taken up where a killed one was left."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from activelearning.candidate import CrystalCandidate, digest
from oracles.dynamics.diffusion import FitSettings
from oracles.dynamics.motion import (
    Dynamics,
    Run,
    RunFolder,
    SamplesLostError,
    SimulationError,
    durable,
    remove,
    steps,
)
from oracles.dynamics.reading import Reading, read, write_artifacts, write_trajectory
from oracles.mace_md.preparation import prepare
from oracles.mace_md.protocol import Protocol
from oracles.mace_md.reading import Progress, force_reliability
from oracles.relaxed import NAME, keep_relaxed

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What is done with a crystal.

    Attributes:
        protocol: Of the run at the temperature of the answer; the others differ in temperature alone.
        temperatures: All of them, K.
        fit: How diffusion is read off.
        mobile_ion: Symbol.
        target_error: Standard error of ln D at which a run stops to grow; None: as soon as diffusion is resolved.
        collective: Whether collective diffusion is read off, too.
        reliability_every: Samples from one estimate of the force error to the next.
        checkpoint_every: Steps.
        keep_trajectory: Whether the samples stay as artifacts.
        cross_check: Told of the ions' samples and what was found, gives plain values to keep; None for none.
    """

    protocol: Protocol
    temperatures: tuple[float, ...]
    fit: FitSettings
    mobile_ion: str
    target_error: float | None
    collective: bool
    reliability_every: int
    checkpoint_every: int
    keep_trajectory: bool
    cross_check: Callable[[Run, RunFolder, Reading, float], dict[str, Any]] | None = None

    @property
    def most_steps(self) -> int:
        """Steps of a crystal all of whose runs grow to the end."""
        return len(self.temperatures) * self.protocol.n_steps(self.protocol.lengths[-1])


@dataclass(frozen=True)
class Outcome:
    """What became of a run at one temperature.

    Attributes:
        temperature: K.
        reading: What it says; None where it did not run to an end.
        reason: Why there is no reading, or none that counts.
        steps: Done.
        is_skipped: Whether it was not begun, because of what runs before it said.
        metadata: Plain values.
        artifacts: Files to keep.
    """

    temperature: float
    reading: Reading | None
    reason: str | None = None
    steps: int = 0
    is_skipped: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()

    @property
    def is_valid(self) -> bool:
        """Whether it says something of the crystal, if only a bound."""
        return self.reading is not None and self.reason is None

    @property
    def is_resolved(self) -> bool:
        """Whether it gives a conductivity and no bound."""
        return self.is_valid and self.reading is not None and not self.reading.diffusion.is_bound


class CrystalRuns:
    """All runs of one evaluation, in its folder.

    Args:
        folder: The evaluation's.
        fingerprint: Of all that the runs depend on.
        seed: Of the evaluation.
        plan: What is done.
    """

    def __init__(self, folder: Path, fingerprint: str, seed: int, plan: Plan) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        self._seed = seed
        self._plan = plan
        self._prepared = folder / "prepared.npz"

    def prepare(self, candidate: CrystalCandidate, calculator: Calculator) -> tuple[Atoms, dict[str, Any]]:
        """The cell that is simulated; kept, so that it is made once however often the evaluation is killed.

        The relaxed crystal that it repeats is written to `relaxed`.
        """
        found = self._load_prepared()
        if found is None:
            self.clear()  # runs of other atoms, should there be any
            found = prepare(candidate, calculator, self._plan.protocol, self._seed)
            relaxed, atoms, info = found
            durable(
                self._prepared,
                plain=np.array(json.dumps({"fingerprint": self._fingerprint, "info": info})),
                **_arrays("relaxed", relaxed),
                **_arrays("atoms", atoms),
            )
        relaxed, atoms, info = found
        keep_relaxed(self._folder, relaxed)
        return atoms, info

    def _load_prepared(self) -> tuple[Atoms, Atoms, dict[str, Any]] | None:
        if not self._prepared.exists():
            return None
        with np.load(self._prepared, allow_pickle=False) as content:
            plain = json.loads(str(content["plain"]))
            if plain["fingerprint"] != self._fingerprint or "relaxed_cell" not in content:
                return None
            relaxed, atoms = (_atoms(name, content) for name in ("relaxed", "atoms"))
            return relaxed, atoms, plain["info"]

    def run_all(
        self, atoms: Atoms, info: dict[str, Any], calculator: Calculator, *, needs_first: bool
    ) -> Dynamics[list[Outcome]]:
        """Run at every temperature, that of the answer first, then upwards, then downwards.

        Where the crystal did not stand one temperature, it is not asked to stand a higher one; where too little moved
        at one, nothing is asked of a lower one; and without the first, where that is needed, of none.
        """
        main = self._plan.protocol.temperature
        others = sorted(set(self._plan.temperatures) - {main})
        order = [main, *[t for t in others if t > main], *[t for t in reversed(others) if t < main]]
        outcomes: list[Outcome] = []
        for temperature in order:
            reason = _pointless(temperature, outcomes)
            if needs_first and outcomes and not outcomes[0].is_valid:
                reason = f"not simulated: at {main:g} K already, {outcomes[0].reason}"
            if reason is not None:
                outcomes.append(Outcome(temperature, None, reason, is_skipped=True))
                continue
            outcomes.append((yield from self.run(temperature, atoms, info, calculator)))
        return outcomes

    def run(
        self, temperature: float, atoms: Atoms, info: dict[str, Any], calculator: Calculator
    ) -> Dynamics[Outcome]:
        """One temperature, from its last checkpoint on; a run grows until it is precise enough or as long as it may.

        Where another process takes the run's files away, it is begun anew, once.

        Raises:
            SamplesLostError: they were taken away a second time.
        """
        try:
            return (yield from self._run(temperature, atoms, info, calculator))
        except SamplesLostError as error:
            _log.warning("%s at %g K is begun anew: %s", info["formula"], temperature, error)
        self.folder(temperature).clear()
        return (yield from self._run(temperature, atoms, info, calculator))

    def _run(
        self, temperature: float, atoms: Atoms, info: dict[str, Any], calculator: Calculator
    ) -> Dynamics[Outcome]:
        plan = self._plan
        protocol = replace(plan.protocol, temperature=temperature)
        folder, files = self.folder(temperature), self.files(temperature)
        run = folder.load()
        if run is None:
            sequence = np.random.SeedSequence([self._seed, round(1000.0 * temperature)])
            run = Run.begin(atoms, temperature, sequence, info)
            folder.save(run)
        mobile = np.array([symbol == plan.mobile_ion for symbol in run.atoms.symbols])
        reading = None
        try:
            for n_frames in protocol.lengths:
                until = protocol.n_steps(n_frames)
                if run.step > until:
                    continue  # it was looked at there before it was killed, and went on
                yield from steps(
                    run,
                    protocol.motion,
                    until=until,
                    checkpoint=folder.save,
                    checkpoint_every=plan.checkpoint_every,
                    progress=Progress(info["formula"], protocol, mobile, until),
                )
                reading = read(run, folder, protocol, plan.fit, plan.mobile_ion, collective=plan.collective)
                if self._is_enough(reading):
                    break
        except SimulationError as error:
            return Outcome(temperature, None, str(error), run.step, metadata={"temperature": temperature})
        assert reading is not None
        artifacts = write_artifacts(files, run, reading, protocol.frame_ps)
        if plan.keep_trajectory:
            artifacts += (write_trajectory(files, run, folder),)
        metadata = {
            **reading.metadata,
            **force_reliability(calculator, run, folder.frames(run), plan.reliability_every),
        }
        if plan.cross_check is not None and reading.invalid is None:
            metadata |= plan.cross_check(run, folder, reading, protocol.frame_ps)
        return Outcome(
            temperature, reading, reading.invalid, run.step, metadata=metadata, artifacts=artifacts
        )

    @property
    def relaxed(self) -> str:
        """Path of the relaxed crystal."""
        return str(self._folder / NAME)

    def files(self, temperature: float) -> Path:
        """Folder of one temperature's files."""
        return self._folder / f"{temperature:g}K"

    def folder(self, temperature: float) -> RunFolder:
        """The run of one temperature on disk."""
        return RunFolder(self.files(temperature), digest({"of": self._fingerprint, "T": temperature}))

    def clear(self) -> None:
        """Remove what is of use only to go on."""
        remove(self._prepared)
        for temperature in self._plan.temperatures:
            self.folder(temperature).clear()

    def _is_enough(self, reading: Reading) -> bool:
        found, wanted = reading.diffusion, self._plan.target_error
        if reading.invalid is not None or found.n_hops == 0:
            return True  # nor would more of it help: a bound falls no faster than the time grows
        if found.relative_error is None:
            return False
        return wanted is None or found.relative_error <= wanted


def _arrays(name: str, atoms: Atoms) -> dict[str, Any]:
    return {
        f"{name}_numbers": atoms.numbers,
        f"{name}_positions": atoms.positions,
        f"{name}_cell": atoms.cell.array,
    }


def _atoms(name: str, arrays: Mapping[str, Any]) -> Atoms:
    return Atoms(
        arrays[f"{name}_numbers"],
        positions=arrays[f"{name}_positions"],
        cell=arrays[f"{name}_cell"],
        pbc=True,
    )


def _pointless(temperature: float, outcomes: Sequence[Outcome]) -> str | None:
    for outcome in outcomes:
        if not outcome.is_valid and not outcome.is_skipped and temperature > outcome.temperature:
            return f"not simulated: at {outcome.temperature:g} K already, {outcome.reason}"
        if outcome.is_valid and not outcome.is_resolved and temperature < outcome.temperature:
            return f"not simulated: at {outcome.temperature:g} K already, too little moves"
    return None
