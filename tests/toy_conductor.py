"""A conductor that costs nothing: Li hops between wells past Cl on springs. Jobs find it by PYTHONPATH."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

SPACING, CELLS, N_LI = 3.0, 3, 12


class Lattice(Calculator):
    """Li in a periodic potential with wells 3 Å apart, repelling one another; Cl on springs between the wells.

    Args:
        barrier: Between neighbouring wells, eV.
        spring: Of the Cl, eV/Å²; 0 frees them.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, barrier: float = 0.15, spring: float = 3.0) -> None:
        super().__init__()
        self.barrier, self.spring = barrier, spring
        self.n_calls = 0

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = ()) -> None:
        super().calculate(atoms, properties, system_changes)
        self.n_calls += 1
        positions, mobile = self.atoms.positions, self.atoms.numbers == 3
        forces = np.zeros_like(positions)
        k = 2.0 * math.pi / SPACING
        r = positions[mobile]
        energy = 0.5 * self.barrier * (1.0 - np.cos(k * r)).sum()
        forces[mobile] = -0.5 * self.barrier * k * np.sin(k * r)
        # Pairs with a Li (all, where nothing else holds the Cl) repel as Gaussians of the minimum image.
        edge, height, width = SPACING * CELLS, 4.0, 0.6
        apart = positions[:, None] - positions[None]
        apart -= edge * np.round(apart / edge)
        repel = mobile[:, None] | mobile[None] | (not self.spring)
        pair = height * np.exp(-(apart**2).sum(-1) / (2.0 * width**2)) * repel
        np.fill_diagonal(pair, 0.0)
        energy += 0.5 * pair.sum()
        forces += (pair[..., None] * apart).sum(axis=1) / width**2
        if self.spring:
            home = SPACING * (np.floor(positions[~mobile] / SPACING) + 0.5)
            stretch = positions[~mobile] - home
            energy += 0.5 * self.spring * (stretch**2).sum()
            forces[~mobile] -= self.spring * stretch
        self.results = {"energy": float(energy), "forces": forces}


def conductor() -> Atoms:
    """Its atoms: 12 Li in 27 wells, 27 Cl."""
    grid = SPACING * np.stack(np.meshgrid(*[np.arange(CELLS)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    sites = np.random.default_rng(0).permutation(grid)[:N_LI]
    return Atoms(
        ["Li"] * N_LI + ["Cl"] * len(grid),
        positions=np.concatenate([sites, grid + 0.5 * SPACING]),
        cell=np.full(3, SPACING * CELLS),
        pbc=True,
    )
