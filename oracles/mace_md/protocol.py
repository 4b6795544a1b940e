"""The numbers of a molecular-dynamics measurement with a machine-learned potential, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from activelearning.errors import ConfigError
from oracles.dynamics.conditions import Conditions

GROWTH = 1.5  # of a run from one look at it to the next


@dataclass(frozen=True)
class Protocol(Conditions):
    """Everything that shapes a trajectory but the potential; see `MaceMDOracle` for what each means."""

    subject: ClassVar[str] = "mace_md: "
    at_least: ClassVar[Mapping[str, float]] = {
        **Conditions.at_least,
        "min_distance_ratio": 0.0,
        "max_atoms": 1,
        "n_realisations": 1,
        "n_relaxed": 1,
        "relax_steps": 0,
    }

    max_time_ps: float
    max_atoms: int
    n_realisations: int
    n_relaxed: int
    min_distance_ratio: float
    relax_steps: int
    relax_fmax: float
    relax_cell: bool
    keep_symmetry: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_time_ps < self.time_ps:
            raise ConfigError(
                f"mace_md: max_time_ps ({self.max_time_ps:g}) is below time_ps ({self.time_ps:g}); a run starts with "
                f"time_ps and may grow from there."
            )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Samples of the production run at the end of each of its blocks: at first, then by half more each time."""
        found = [self.n_frames]
        most = self._frames(self.max_time_ps)
        while found[-1] < most:
            found.append(min(most, math.ceil(GROWTH * found[-1])))
        return tuple(found)
