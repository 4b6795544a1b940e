"""CHGNet's calculator, by one backward pass."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from chgnet.model.dynamics import CHGNetCalculator
from pymatgen.io.ase import AseAtomsAdaptor

LEAN = {"energy", "free_energy", "forces", "stress"}


class LeanCHGNetCalculator(CHGNetCalculator):  # type: ignore[misc]
    """CHGNet, whose own calculator keeps what a second derivative would need, and walks back twice.

    Where more than `LEAN` is asked for, such as magnetic moments, it is left to that.
    """

    def calculate(  # type: ignore[override]
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] | None = None,
        **options: Any,
    ) -> None:
        """Energy (eV), forces (eV/Å) and stress (eV/Å³), or all that CHGNet knows."""
        if not properties or not set(properties) <= LEAN:
            super().calculate(atoms, properties, system_changes, **options)
            return
        Calculator.calculate(self, atoms, properties, system_changes or all_changes)
        assert self.atoms is not None
        structure = AseAtomsAdaptor.get_structure(self.atoms)
        graph = self.model.graph_converter(structure).to(self.device)
        places, cell = graph.atom_frac_coord.requires_grad_(True), graph.lattice.requires_grad_(True)
        with torch.enable_grad(), warnings.catch_warnings():
            # The volume depends on the cell, too, and CHGNet takes it as a number; no energy depends on it.
            warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True")
            energy = self.model([graph], task="e")["e"].sum() * len(structure)
            by_places, by_cell = torch.autograd.grad(
                energy, [places, cell], allow_unused=True, materialize_grads=True
            )
        matrix = cell.detach()
        # Rows: r = f L, so that dE/dr = dE/df L⁻ᵀ; and a strain turns L to L (1 + ε), so that dE/dε = Lᵀ dE/dL.
        forces = -torch.linalg.solve(matrix, by_places.T).T
        virial = matrix.T @ by_cell
        stress = 0.5 * (virial + virial.T) / torch.linalg.det(matrix).abs()
        self.results = {
            "energy": float(energy.detach()),
            "free_energy": float(energy.detach()),
            "forces": forces.cpu().double().numpy(),
            "stress": full_3x3_to_voigt_6_stress(stress.cpu().double().numpy()),
        }
