"""Relaxation of atoms in fixed cells, many cells at once, with CHGNet (Deng et al., Nat. Mach. Intell. 5, 2023).

A relaxation at fixed cell keeps the space group it starts in, for forces have the symmetry of the crystal. So it may
work on the primitive cell, and what comes out is still a crystal of the lattice and group that were asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Rows: primitive vectors of a centred conventional cell, in units of its own (International Tables, obverse setting).
PRIMITIVE_VECTORS: dict[str, list[list[float]]] = {
    "P": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "A": [[1, 0, 0], [0, 1 / 2, -1 / 2], [0, 1 / 2, 1 / 2]],
    "C": [[1 / 2, 1 / 2, 0], [-1 / 2, 1 / 2, 0], [0, 0, 1]],
    "F": [[0, 1 / 2, 1 / 2], [1 / 2, 0, 1 / 2], [1 / 2, 1 / 2, 0]],
    "I": [[-1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [1 / 2, 1 / 2, -1 / 2]],
    "R": [[2 / 3, 1 / 3, 1 / 3], [-1 / 3, 1 / 3, 1 / 3], [-1 / 3, -2 / 3, 1 / 3]],
}
SAME_SITE = 1e-3  # Å; images by a centring translation agree far better

MAX_STEP = 0.2  # Å a step and atom
TIME_STEP, MAX_TIME_STEP = 0.1, 0.3  # FIRE's, with unit masses: Å / sqrt(eV)
MIXING = 0.1


@dataclass(frozen=True)
class Cell:
    """Atoms in a periodic cell.

    Attributes:
        numbers: Atomic numbers, `n`.
        matrix: Cell vectors in Å as rows, `3 x 3`.
        fractional: Fractional coordinates, `n x 3`.
    """

    numbers: npt.NDArray[np.int64]
    matrix: Array
    fractional: Array

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True)
class Relaxed:
    """Where a relaxation ended.

    Attributes:
        cell: The atoms.
        energy: Lowest energy met, eV/atom.
        initial_energy: Energy it started from, eV/atom.
        max_force: Largest force on an atom at the lowest energy, eV/Å.
    """

    cell: Cell
    energy: float
    initial_energy: float
    max_force: float


class Potential(Protocol):
    """Energies and forces of many cells."""

    def evaluate(self, cells: Sequence[Cell], forces: bool = True) -> tuple[Array, list[Array]]:
        """Energies in eV/atom, one a cell, and forces in eV/Å, one `n x 3` a cell (none where not asked for)."""
        ...


class CHGNetPotential:
    """CHGNet 0.3.0, whose weights ship in its wheel, without the second derivatives that its calculator carries.

    Args:
        batch_atoms: About how many atoms go through the network together; bounds memory.
    """

    name = "chgnet-0.3.0"

    def __init__(self, batch_atoms: int = 200) -> None:
        from chgnet.model.model import CHGNet

        self.batch_atoms = batch_atoms
        self.model: Any = CHGNet.load(model_name="0.3.0", use_device="cpu", verbose=False)
        self.model.eval()
        self.model.graph_converter.set_isolated_atom_response("ignore")
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)

    def evaluate(self, cells: Sequence[Cell], forces: bool = True) -> tuple[Array, list[Array]]:
        """See `Potential.evaluate`."""
        energies: list[float] = []
        gradients: list[Array] = []
        for batch in _batches(cells, self.batch_atoms):
            found, slopes = self._evaluate(batch, forces)
            energies += found
            gradients += slopes
        return np.array(energies), gradients

    def _evaluate(self, cells: Sequence[Cell], forces: bool) -> tuple[list[float], list[Array]]:
        import torch
        from pymatgen.core import Lattice, Structure

        graphs = [
            self.model.graph_converter(Structure(Lattice(c.matrix), c.numbers.tolist(), c.fractional))
            for c in cells
        ]
        with torch.enable_grad():
            energy = self.model(graphs, task="e")["e"]
            if not forces:
                return energy.detach().double().tolist(), []
            sizes = torch.tensor([len(cell) for cell in cells], dtype=energy.dtype)
            slopes = torch.autograd.grad((energy * sizes).sum(), [graph.atom_frac_coord for graph in graphs])
        # Coordinates are rows: r = f M, so that dE/dr = dE/df M^-T.
        pulled = [
            -slope.double().numpy() @ np.linalg.inv(cell.matrix).T
            for slope, cell in zip(slopes, cells, strict=True)
        ]
        return energy.detach().double().tolist(), pulled


def _batches(cells: Sequence[Cell], batch_atoms: int) -> list[list[Cell]]:
    batches: list[list[Cell]] = []
    load = batch_atoms
    for cell in cells:
        if load + len(cell) > batch_atoms:
            batches.append([])
            load = 0
        batches[-1].append(cell)
        load += len(cell)
    return batches


def primitive(cell: Cell, centering: str) -> Cell:
    """The primitive cell of a conventional one.

    Args:
        cell: The conventional cell, rhombohedral groups on hexagonal axes.
        centering: P, A, C, F, I or R.

    Raises:
        ValueError: the atoms lack the symmetry of the centring.
    """
    vectors = np.array(PRIMITIVE_VECTORS[centering])
    n_points = round(1.0 / abs(np.linalg.det(vectors)))
    if n_points == 1:
        return cell
    matrix = vectors @ cell.matrix
    folded = cell.fractional @ np.linalg.inv(vectors)
    kept: list[int] = []
    for i in range(len(cell)):
        same = [j for j in kept if cell.numbers[j] == cell.numbers[i]]
        offset = folded[same] - folded[i]
        distance = np.linalg.norm((offset - np.round(offset)) @ matrix, axis=1)
        if not (distance < SAME_SITE).any():
            kept.append(i)
    if len(kept) * n_points != len(cell):
        raise ValueError(f"{len(cell)} atoms of a {centering} cell leave {len(kept)} in the primitive one")
    return Cell(cell.numbers[kept], matrix, folded[kept] % 1.0)


def relax(
    cells: Sequence[Cell], potential: Potential, n_steps: int = 20, tolerance: float = 0.05
) -> list[Relaxed]:
    """Move the atoms of every cell downhill by FIRE (Bitzek et al., Phys. Rev. Lett. 97, 170201, 2006).

    Each cell has its own time step and leaves the batch once its forces are below the tolerance.

    Args:
        cells: Where to start.
        potential: The potential.
        n_steps: Most steps; costs `n_steps + 1` evaluations of a cell at most.
        tolerance: Largest force on an atom, eV/Å, at which a cell counts as relaxed.
    """
    walkers = [_Walker(cell) for cell in cells]
    active = walkers
    for step in range(n_steps + 1):
        energies, forces = potential.evaluate([w.cell for w in active])
        for walker, energy, force in zip(active, energies.tolist(), forces, strict=True):
            walker.see(energy, force)
        active = [w for w in active if w.max_force > tolerance and np.isfinite(w.energy)]
        if step == n_steps or not active:
            break
        for walker in active:
            walker.move()
    return [w.best for w in walkers]


class _Walker:
    """One cell on its way down."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.inverse = np.linalg.inv(cell.matrix)
        self.velocity = np.zeros((len(cell), 3))
        self.time_step, self.mixing, self.n_downhill = TIME_STEP, MIXING, 0
        self.best: Relaxed

    def see(self, energy: float, force: Array) -> None:
        """Take notice of the energy (eV/atom) and forces (eV/Å) at the present place."""
        self.energy, self.force = energy, force
        self.max_force = float(np.linalg.norm(force, axis=1).max())
        if not hasattr(self, "best"):
            self.best = Relaxed(self.cell, energy, energy, self.max_force)
        elif energy < self.best.energy:
            self.best = Relaxed(self.cell, energy, self.best.initial_energy, self.max_force)

    def move(self) -> None:
        """One step of FIRE, no atom further than `MAX_STEP`."""
        if (self.velocity * self.force).sum() > 0.0:
            speed, pull = np.linalg.norm(self.velocity), np.linalg.norm(self.force)
            self.velocity = (1 - self.mixing) * self.velocity + self.mixing * speed / pull * self.force
            self.n_downhill += 1
            if self.n_downhill > 3:
                self.time_step = min(1.2 * self.time_step, MAX_TIME_STEP)
                self.mixing *= 0.99
        else:
            self.velocity = np.zeros_like(self.velocity)
            self.time_step = TIME_STEP if self.n_downhill == 0 else 0.5 * self.time_step
            self.mixing, self.n_downhill = MIXING, 0
        self.velocity = self.velocity + self.time_step * self.force
        step = self.time_step * self.velocity
        longest = np.linalg.norm(step, axis=1).max()
        if longest > MAX_STEP:
            step *= MAX_STEP / longest
        self.cell = Cell(self.cell.numbers, self.cell.matrix, self.cell.fractional + step @ self.inverse)
