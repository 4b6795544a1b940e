"""The lattice: one step with the free parameters of the group's lattice system."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.lattice import (
    EDGE,
    LatticeLimits,
    cosines,
    equal_lengths,
    fixed_angles,
    free_coordinates,
    volume_factor,
)
from activelearning.crystals.restricted_lattice import DRAWN_IN_ORDER, bounds, is_narrower
from activelearning.crystals.symmetry import LATTICE_SYSTEMS
from samplers.gflownet.environments.crystal_stages.stage import Crystals, Flags, Floats, Inputs, Integers

if TYPE_CHECKING:
    from activelearning.spaces.crystal import CrystalSpace

# Å³ per atom between which the input for log volume goes from 0 to 1.
VOLUMES = 4.0, 80.0
# Where each column of the lattice's own u is drawn, and the volume's place among them.
COLUMNS = [DRAWN_IN_ORDER.index(column) for column in range(6)]
VOLUME = COLUMNS[0]


def _log_scale(limits: LatticeLimits, base: LatticeLimits) -> Floats:
    """Logarithms of the unit-scaled volume of narrower limits in wider ones, by lattice system."""
    lengths, angles = (
        math.log((inner[1] - inner[0]) / (outer[1] - outer[0]))
        for inner, outer in ((limits.lengths, base.lengths), (limits.angles, base.angles))
    )
    n_angles = [sum(angle is None for angle in fixed_angles(system)) for system in LATTICE_SYSTEMS]
    n_lengths = [4 - equal_lengths(system) for system in LATTICE_SYSTEMS]
    return np.array([n * lengths + m * angles for n, m in zip(n_lengths, n_angles, strict=True)])


class LatticeStage:
    """One action with up to six coordinates u, each mapped onto the interval that the earlier ones leave open.

    Block: u in the order in which they are drawn (α, β, γ, volume, a, b), zero where the system does not use
    it. The map (`activelearning.crystals.lattice`) is that of the unrestricted space also where a restricted
    one is sampled, so that the same u means the same cell, and draws are truncated to its `bounds`. Only where
    the lengths of a restricted space take a composition's volume beyond what its radii suggest the map is that
    of the restricted space.
    """

    name = "lattice"
    width = 6
    n_inputs = 7
    n_actions = 1
    n_continuous = 6
    max_steps = 1

    def __init__(self, space: CrystalSpace) -> None:
        self._space, self._restricted = space.base, space
        self._limits = space.base.limits
        #: Whether draws are truncated.
        self.is_bounded = space is not space.base
        self._free = free_coordinates()[:, DRAWN_IN_ORDER]
        self._log_scale = _log_scale(space.limits, space.base.limits)

    def systems(self, crystals: Crystals) -> Integers:
        """Lattice system of each crystal, `n`."""
        systems: Integers = self._space.systems[crystals.groups]
        return systems

    def parameters(self, crystals: Crystals, u: Floats) -> tuple[Floats, Floats]:
        """Cells, `n x 6`, of coordinates u, `n x 6`, and log |det ∂θ/∂u|, `n`."""
        systems, counts = self.systems(crystals), crystals.counts
        volumes = self._space.log_volumes(systems, counts)
        cells, log_det = self._limits.parameters(systems, volumes, u[:, COLUMNS])
        if self.is_bounded:
            narrow = self._restricted.log_volumes(systems, counts)
            rows = np.flatnonzero(~is_narrower(volumes, narrow))
            cells[rows], own = self._restricted.limits.parameters(
                systems[rows], narrow[rows], u[rows][:, COLUMNS]
            )
            # That map scales parameters by its own ranges; densities are told against those of the whole space.
            log_det[rows] = own + self._log_scale[systems[rows]]
        return cells, log_det

    def bounds(self, crystals: Crystals, column: int, u: Floats) -> tuple[Floats, Floats]:
        """Interval that a restricted space leaves coordinate `column`, given those before it; `n` each."""
        systems, counts = self.systems(crystals), crystals.counts
        volumes = self._space.log_volumes(systems, counts)
        narrow = self._restricted.log_volumes(systems, counts)
        low, high = np.zeros(len(u)), np.ones(len(u))
        rows = np.flatnonzero(is_narrower(volumes, narrow))
        low[rows], high[rows] = bounds(
            self._limits,
            self._restricted.limits,
            systems[rows],
            volumes[rows],
            narrow[rows],
            DRAWN_IN_ORDER[column],
            u[rows][:, COLUMNS],
        )
        return low, high

    def encode(self, crystals: Crystals) -> Inputs:
        """Six scaled parameters and log volume per atom; zero before they are drawn."""
        inputs = np.zeros((len(crystals), self.n_inputs), dtype=np.float32)
        rows = np.flatnonzero(~self.is_empty(crystals))
        if not len(rows):
            return inputs
        drawn = crystals if len(rows) == len(crystals) else crystals.take(rows)
        cells = drawn.lattices
        low, high = np.log(self._limits.lengths)
        first, last = self._limits.angles
        volumes = cells[:, :3].prod(axis=1) * volume_factor(*cosines(cells[:, 3:]).T)
        least, most = map(math.log, VOLUMES)
        inputs[rows, :3] = (np.log(cells[:, :3]) - low) / (high - low)
        inputs[rows, 3:6] = (cells[:, 3:] - first) / (last - first)
        inputs[rows, 6] = (np.log(volumes / drawn.counts.sum(axis=1)) - least) / (most - least)
        return inputs

    def mask(self, crystals: Crystals) -> Flags:
        """`n x 1`."""
        return np.ones((len(crystals), 1), dtype=np.bool_)

    def drawn(self, crystals: Crystals, actions: Integers) -> Flags:
        """`n x 6`: the free coordinates of the lattice system."""
        free: Flags = self._free[self.systems(crystals)]
        return free

    def step(self, crystals: Crystals, actions: Integers, u: Floats) -> Floats:
        """`n x 6`."""
        return np.where(self.drawn(crystals, actions), u, 0.0)

    def is_complete(self, crystals: Crystals) -> Flags:
        """`n`."""
        # Every system has a free volume, and u is never 0.
        return crystals.block(self.name)[:, VOLUME] > 0.0

    def is_empty(self, crystals: Crystals) -> Flags:
        """`n`."""
        return crystals.block(self.name)[:, VOLUME] == 0.0

    def step_back(self, crystals: Crystals) -> tuple[Integers, Floats, Floats]:
        """Undo the one step."""
        block = crystals.block(self.name)
        actions = np.zeros(len(block), dtype=np.int64)
        return actions, np.where(self.drawn(crystals, actions), block, 0.5), np.zeros_like(block)

    def log_jacobian(self, crystals: Crystals, actions: Integers, u: Floats) -> Floats:
        """`n`: minus log |det ∂θ/∂u|, θ the free parameters scaled to [0, 1] by their ranges."""
        return -self.parameters(crystals, u)[1]

    def values(self, crystals: Crystals) -> Sequence[tuple[float, ...]]:
        """(a, b, c, α, β, γ) of each cell."""
        return [tuple(cell) for cell in crystals.lattices.tolist()]

    def read(self, candidates: Sequence[CrystalCandidate], crystals: Crystals) -> Floats:
        """The block of candidates' cells."""
        cells = np.zeros((len(candidates), 6))
        for row, candidate in enumerate(candidates):
            if candidate.lattice is None:
                raise ValueError(f"{candidate.formula} has no lattice")
            cells[row] = candidate.lattice
        systems, counts = self.systems(crystals), crystals.counts
        volumes = self._space.log_volumes(systems, counts)
        if not self.is_bounded:
            u = self._limits.coordinates(systems, volumes, cells)
            return np.where(self._free[systems], u[:, DRAWN_IN_ORDER], 0.0)
        narrow, limits = self._restricted.log_volumes(systems, counts), self._restricted.limits
        # Rounding may have taken cells out of the restricted limits: inside them first, then on the wider map.
        own = limits.coordinates(systems, narrow, cells)
        inside, _ = limits.parameters(systems, narrow, own)
        held = is_narrower(volumes, narrow)[:, None]
        u = np.where(held, self._limits.coordinates(systems, volumes, inside), own)[:, DRAWN_IN_ORDER]
        free = self._free[systems]
        for j in range(self.n_continuous):
            low, high = self.bounds(crystals, j, u)
            edge = np.minimum(EDGE, 0.25 * (high - low))
            u[:, j] = np.clip(u[:, j], low + edge, high - edge)
        return np.where(free, u, 0.0)
