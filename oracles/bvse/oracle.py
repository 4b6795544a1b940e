"""The oracle: a crystal in, the percolation barrier of its mobile ion out."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any, Literal

from ase import Atoms
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.oxidation import guess_oxidation_states
from activelearning.crystals.realise import RealisationError
from activelearning.crystals.relaxation import realise_relaxed
from activelearning.errors import ConfigError
from activelearning.measurement import Censoring, Measurement
from oracles.base import Oracle
from oracles.bvse.barrier import Barriers, Settings, barriers
from oracles.bvse.landscape import LandscapeError, tables_checksum
from oracles.potentials import check_potential, checksum, load_calculator, torch_threads, unsupported_elements
from oracles.relaxed import keep_relaxed

UNIT = "eV"


class BVSEOracle(Oracle):
    """Percolation barrier, eV, of a mobile ion through a crystal's bond-valence site energies.

    A rank of how easily the ion moves, from the structure alone, in about a second; never a conductivity. High barriers
    go with low conductivities: the surrogate learns how they relate. A barrier above `max_barrier` is a lower bound.

    A crystal with a structure is taken as it is. One without is realised first: sites drawn on its lattice, ranked and
    relaxed by `potential`, within their symmetry. What can't be realised, has no oxidation states that make it neutral,
    or holds a pair of ions that the tables lack is a failure with its reason.

    Args:
        mobile_ion: The ion that moves; singly charged.
        dimension: Directions along which the network must be connected, 1 to 3.
        resolution: Largest distance between neighbouring points of the grid, Å.
        cutoff: Pairs of ions further apart do not count, Å.
        max_barrier: Barriers above this are not searched for, eV.
        max_grid_points: Largest grid; a primitive cell that needs more points fails.
        max_atoms: Largest cell of a candidate, atoms.
        oxidation_states: States that an element may have; by default those known of it, the most frequent that make the
            crystal neutral.
        potential: Ranks and relaxes crystals without a structure; a name, or a mapping (see `oracles.potentials`).
        n_realisations: Draws of the sites of such a crystal.
        relax_steps: Most steps of relaxation of such a crystal.
        device: Torch device of the potential.
    """

    version = "1"

    def __init__(
        self,
        mobile_ion: Literal["Li", "Na", "K"] = "Li",
        dimension: Literal[1, 2, 3] = 3,
        resolution: float = 0.15,
        cutoff: float = 8.0,
        max_barrier: float = 5.0,
        max_grid_points: int = 2_000_000,
        max_atoms: int = 1000,
        oxidation_states: dict[str, list[int]] | None = None,
        potential: str | dict[str, Any] = "mace:student",
        n_realisations: int = 5,
        relax_steps: int = 100,
        device: str = "cpu",
    ) -> None:
        self.settings = Settings(resolution, cutoff, max_barrier, max_grid_points, max_atoms)
        for name in [field.name for field in fields(Settings)]:
            if not getattr(self.settings, name) > 0:
                raise ConfigError(
                    f"params.{name} of the oracle 'bvse' must be above 0, not {getattr(self.settings, name)}."
                )
        if dimension not in (1, 2, 3):
            raise ConfigError(f"params.dimension of the oracle 'bvse' must be 1, 2 or 3, not {dimension}.")
        if n_realisations < 1 or relax_steps < 0:
            raise ConfigError(
                f"params.n_realisations of the oracle 'bvse' must be at least 1 and relax_steps at least 0, not "
                f"{n_realisations} and {relax_steps}."
            )
        for symbol, states in (oxidation_states or {}).items():
            if not states or 0 in states:
                raise ConfigError(
                    f"params.oxidation_states of the oracle 'bvse' gives {symbol} {states}; it must be one state or "
                    f"more, none of them 0."
                )
        self.mobile_ion = mobile_ion
        self.dimension = dimension
        self.oxidation_states = oxidation_states or {}
        self.potential = potential
        self.n_realisations = n_realisations
        self.relax_steps = relax_steps
        self.device = device
        self._calculator: Any = None

    def check(self) -> None:
        """Refuse a unit other than eV, a potential that can't work, and bvlain's tables where they are missing.

        Raises:
            ConfigError: naming what is wrong.
        """
        tables_checksum()
        check_potential(self.potential)
        self.check_unit(UNIT)

    def content(self) -> Mapping[str, object]:
        """Every number of the calculation, defaults included, and checksums of tables and potential."""
        return {
            **asdict(self.settings),
            "mobile_ion": self.mobile_ion,
            "dimension": self.dimension,
            "oxidation_states": {symbol: sorted(q) for symbol, q in sorted(self.oxidation_states.items())},
            "tables": tables_checksum(),
            "realisation": {
                "weights": checksum(self.potential),
                "n_realisations": self.n_realisations,
                "relax_steps": self.relax_steps,
            },
        }

    def evaluate_one(self, candidate: Any) -> Measurement:
        """The barrier of one crystal, or why it has none."""
        if not isinstance(candidate, CrystalCandidate):
            return Measurement.failed(f"the oracle 'bvse' needs crystals, not a {type(candidate).__name__}")
        started = time.perf_counter()
        info: dict[str, Any] = {"formula": candidate.formula}
        files: tuple[str, ...] = ()
        try:
            charges = self._charges(candidate)
            info["oxidation_states"] = charges
            structure, relaxed, how = self._structure(candidate)
            info |= how
            if relaxed is not None:
                try:
                    files = (keep_relaxed(self.context.workdir / self.key(candidate), relaxed),)
                except OSError as error:  # no reason to lose the answer
                    info["relaxed_not_kept"] = str(error)
            found = barriers(structure, self.mobile_ion, charges, self.settings)
        except (RealisationError, LandscapeError) as error:
            return Measurement.failed(
                str(error), metadata=info, seconds=time.perf_counter() - started, artifacts=files
            )
        return replace(self._measurement(found, info, time.perf_counter() - started), artifacts=files)

    def _measurement(self, found: Barriers, info: dict[str, Any], seconds: float) -> Measurement:
        barrier = found.by_dimension[self.dimension - 1]
        is_bound = math.isinf(barrier)
        return Measurement.of(
            self.context.property,
            self.settings.max_barrier if is_bound else barrier,
            unit=UNIT,
            censoring=Censoring.LOWER if is_bound else Censoring.NONE,
            seconds=seconds,
            metadata={
                **info,
                "barriers": [None if math.isinf(energy) else energy for energy in found.by_dimension],
                "grid": list(found.grid),
                "n_atoms_primitive": found.n_atoms,
            },
        )

    def _charges(self, candidate: CrystalCandidate) -> dict[str, float]:
        if self.mobile_ion not in candidate.composition:
            raise LandscapeError(f"holds no {self.mobile_ion}: nothing to move")
        allowed = {self.mobile_ion: [1], **self.oxidation_states}
        charges = guess_oxidation_states(candidate.composition, states=allowed)
        if charges is None:
            raise LandscapeError(f"no choice of oxidation states makes {candidate.formula} neutral")
        return charges

    def _structure(self, candidate: CrystalCandidate) -> tuple[Structure, Atoms | None, dict[str, Any]]:
        """An ordered crystal; where it was relaxed for this, its atoms; and how it came about."""
        if candidate.structure is not None:
            if not candidate.structure.is_ordered:
                raise RealisationError("its structure has partial occupancies; order it first")
            return candidate.structure, None, {}
        calculator = self._load()
        unknown = unsupported_elements(calculator, list(candidate.composition))
        if unknown:
            raise RealisationError(f"the potential {self.potential} does not cover {', '.join(unknown)}")
        with torch_threads(1):
            relaxed, info = realise_relaxed(
                candidate,
                calculator,
                seed=self.seed(candidate),
                n_trials=self.n_realisations,
                relaxation={"max_steps": self.relax_steps},
            )
        return AseAtomsAdaptor.get_structure(relaxed.atoms), relaxed.atoms, info

    def _load(self) -> Any:
        if self._calculator is None:
            self._calculator = load_calculator(self.potential, device=self.device)
        return self._calculator
