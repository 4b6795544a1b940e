"""Crystals: space group, elements with their counts in order of atomic number, lattice, fidelity.

Each crystal has one path. Masks are exact (`activelearning.crystals.composition`): every trajectory ends in a
crystal that keeps all constraints of its space, and every crystal of the space is reached. The lattice is one
step with up to six continuous coordinates, each mapped onto the interval that the earlier ones leave open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from activelearning.candidate import CrystalCandidate
from activelearning.contracts import Proposal
from activelearning.crystals.lattice import free_coordinates
from activelearning.crystals.symmetry import LATTICE_SYSTEMS, POINT_SYMMETRIES

if TYPE_CHECKING:
    from activelearning.spaces.crystal import CrystalSpace

# Stages of a state.
SPACE_GROUP, COMPOSITION, LATTICE, FIDELITY, DONE = range(5)
N_STAGES = 5


class CrystalEnvironment:
    """Trajectories of at most `max elements + 4` steps.

    A state is (stage, space group's index, fidelity, six coordinates u of the lattice, count of each
    element); what is not chosen yet is zero. Actions: one for each of the G space groups; action
    `G + e * N + n - 1` adds n atoms of element e; then stop (the composition is complete), lattice, and one
    for each fidelity. Where the fidelity is not sampled a trajectory ends with the lattice.

    Args:
        space: The space of crystals.
        n_fidelities: Number of fidelities to choose from; None where the fidelity is not sampled.
    """

    n_continuous = 6
    has_unique_paths = True

    def __init__(self, space: CrystalSpace, n_fidelities: int | None = None) -> None:
        self.space, self.n_fidelities = space, n_fidelities
        self._masks, self._limits = space.masks, space.limits
        self._roots, self._systems = space.roots, space.systems
        self._free = free_coordinates()
        n_groups, n_elements = len(space.space_groups), len(space.elements)
        self._n_elements, self._per_element = n_elements, space.max_atoms_per_element
        self._first = n_groups
        self._stop = n_groups + n_elements * self._per_element
        self._lattice_action = self._stop + 1
        self._numbers = [group.number for group in space.space_groups]
        self._group_of = {number: i for i, number in enumerate(self._numbers)}
        self._column = {symbol: e for e, symbol in enumerate(space.elements)}
        self.n_state = 9 + n_elements
        self.n_actions = self._lattice_action + 1 + (n_fidelities or 0)
        self.max_steps = space.n_elements[1] + 3 + (n_fidelities is not None)
        self._end = DONE if n_fidelities is not None else FIDELITY
        self._group_inputs = torch.from_numpy(self._group_table())
        self.n_inputs = (
            N_STAGES + self._group_inputs.shape[1] + 3 * n_elements + 1 + space.n_elements[1] + 1 + 7
        )

    def _group_table(self) -> NDArray[np.float32]:
        """Row g + 1: one-hot group, lattice system and point symmetry, and sizes; row 0, no group yet, is zero."""
        groups = self.space.space_groups
        n, n_systems = len(groups), len(LATTICE_SYSTEMS)
        table = np.zeros((n + 1, n + n_systems + len(POINT_SYMMETRIES) + 2), dtype=np.float32)
        for i, group in enumerate(groups):
            row = table[i + 1]
            row[i] = 1.0
            row[n + LATTICE_SYSTEMS.index(group.lattice_system)] = 1.0
            row[n + n_systems + POINT_SYMMETRIES.index(group.point_symmetry)] = 1.0
            row[-2] = np.log(group.multiplicity) / np.log(192)
            row[-1] = min(w.multiplicity for w in group.wyckoff) / 16.0
        return table

    # ---------------------------------------------------------------- states

    def initial(self, n: int) -> Tensor:
        """`n x n_state`: nothing chosen."""
        return torch.zeros(n, self.n_state, dtype=torch.float64)

    def is_terminal(self, states: Tensor) -> Tensor:
        """`n`, bool."""
        return states[:, 0] == self._end

    def encode(self, states: Tensor) -> Tensor:
        """Stage, space group and its descriptors, counts, presence and last element, atoms and elements so
        far, and the lattice (six scaled parameters and log volume per atom), `n x n_inputs`, float32.
        """
        n = len(states)
        stage = states[:, 0].long()
        counts = states[:, 9:].float()
        present = counts > 0
        n_present = present.sum(dim=1)
        index = torch.arange(1, self._n_elements + 1)
        last = (present * index).max(dim=1).values if self._n_elements else n_present
        inputs = torch.zeros(n, self.n_inputs, dtype=torch.float32)
        rows = torch.arange(n)
        inputs[rows, stage] = 1.0
        at = N_STAGES
        group = torch.where(stage > SPACE_GROUP, states[:, 1].long() + 1, 0)
        inputs[:, at : at + self._group_inputs.shape[1]] = self._group_inputs[group]
        at += self._group_inputs.shape[1]
        inputs[:, at : at + self._n_elements] = counts / self._per_element
        at += self._n_elements
        inputs[:, at : at + self._n_elements] = present.float()
        at += self._n_elements
        chosen = last > 0
        inputs[rows[chosen], at + last[chosen] - 1] = 1.0
        at += self._n_elements
        inputs[:, at] = counts.sum(dim=1) / self.space.max_atoms
        inputs[rows, at + 1 + n_present] = 1.0
        at += 2 + self.space.n_elements[1]
        drawn = (stage > LATTICE).nonzero().squeeze(1)
        if len(drawn):
            inputs[drawn, at : at + 7] = torch.from_numpy(self._lattice_inputs(states[drawn].numpy()))
        return inputs

    def _lattice_inputs(self, states: NDArray[np.float64]) -> NDArray[np.float32]:
        cells, n_atoms = self._lattices(states), states[:, 9:].sum(axis=1)
        low, high = np.log(self._limits.lengths)
        lengths = (np.log(cells[:, :3]) - low) / (high - low)
        first, last = self._limits.angles
        angles = (cells[:, 3:] - first) / (last - first)
        cosines = np.cos(np.radians(cells[:, 3:]))
        factor = 1.0 - (cosines**2).sum(axis=1) + 2.0 * cosines.prod(axis=1)
        volume = np.log(cells[:, :3].prod(axis=1) * np.sqrt(factor) / n_atoms)
        least, most = np.log(self._limits.volume_per_atom)
        return np.column_stack([lengths, angles, (volume - least) / (most - least)]).astype(np.float32)

    def _lattices(self, states: NDArray[np.float64]) -> NDArray[np.float64]:
        systems, log_volumes = self._cells(states)
        return self._limits.parameters(systems, log_volumes, states[:, 3:9])[0]

    def _cells(self, states: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Lattice system, `n`, and interval of the log volume, `n x 2`, of each state."""
        systems = self._systems[states[:, 1].astype(np.int64)]
        return systems, self.space.log_volumes(systems, states[:, 9:].astype(np.int64))

    # ---------------------------------------------------------------- masks

    def forward_mask(self, states: Tensor) -> Tensor:
        """`n x n_actions`, bool: actions from which a crystal of the space can still be reached."""
        rows = states.numpy()
        stage = rows[:, 0]
        mask = np.zeros((len(rows), self.n_actions), dtype=bool)
        mask[:, : self._first] = (stage == SPACE_GROUP)[:, None]
        composing = np.flatnonzero(stage == COMPOSITION)
        if len(composing):
            roots = self._roots[rows[composing, 1].astype(np.int64)]
            counts = rows[composing, 9:].astype(np.int64)
            mask[composing, self._first : self._stop + 1] = self._masks.masks(roots, counts)
        mask[:, self._lattice_action] = stage == LATTICE
        if self.n_fidelities is not None:
            mask[:, self._lattice_action + 1 :] = (stage == FIDELITY)[:, None]
        return torch.from_numpy(mask)

    def backward_mask(self, states: Tensor) -> Tensor:
        """`n x n_actions`, bool: the one last action, none at the source."""
        mask = torch.zeros(len(states), self.n_actions, dtype=torch.bool)
        actions = self._last_actions(states)
        rows = (actions >= 0).nonzero().squeeze(1)
        mask[rows, actions[rows]] = True
        return mask

    def _last_actions(self, states: Tensor) -> Tensor:
        """The action that led to each state, `n`, long; -1 at the source."""
        stage = states[:, 0].long()
        last, count = self._last_elements(states)
        added = torch.where(
            last < 0, states[:, 1].long(), self._first + last * self._per_element + count.long() - 1
        )
        choices = torch.stack(
            [
                torch.full_like(stage, -1),
                added,
                torch.full_like(stage, self._stop),
                torch.full_like(stage, self._lattice_action),
                self._lattice_action + 1 + states[:, 2].long(),
            ],
            dim=1,
        )
        return choices.gather(1, stage[:, None]).squeeze(1)

    def _last_elements(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """The element of highest atomic number, `n`, long (-1 where there is none), and its count, `n`."""
        counts = states[:, 9:]
        last = ((counts > 0) * torch.arange(1, self._n_elements + 1)).max(dim=1).values - 1
        return last, counts.gather(1, last.clamp(min=0)[:, None]).squeeze(1)

    def continuous_mask(self, states: Tensor, actions: Tensor) -> Tensor:
        """`n x 6`, bool: the free coordinates of the lattice system, for the lattice's action."""
        mask = torch.zeros(len(states), self.n_continuous, dtype=torch.bool)
        rows = (actions == self._lattice_action).nonzero().squeeze(1)
        if len(rows):
            groups = states[rows, 1].long().numpy()
            mask[rows] = torch.from_numpy(self._free[self._systems[groups]])
        return mask

    # ---------------------------------------------------------------- steps

    def step(self, states: Tensor, actions: Tensor, u: Tensor) -> Tensor:
        """Children, `n x n_state`."""
        children = states.clone()
        is_group = actions < self._first
        is_element = ~is_group & (actions < self._stop)
        children[:, 0] += ~is_element
        children[:, 1] = torch.where(is_group, actions.double(), states[:, 1])
        rows = is_element.nonzero().squeeze(1)
        added = actions[rows] - self._first
        element = torch.div(added, self._per_element, rounding_mode="floor")
        children[rows, 9 + element] = (added - element * self._per_element + 1).double()
        is_lattice = (actions == self._lattice_action)[:, None]
        drawn = self.continuous_mask(states, actions)
        children[:, 3:9] = torch.where(is_lattice & drawn, u.double(), states[:, 3:9])
        children[:, 2] = torch.where(
            actions > self._lattice_action, (actions - self._lattice_action - 1).double(), states[:, 2]
        )
        return children

    def step_back(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Parents, `n x n_state`, and the coordinates drawn on the way back here, `n x 6` (0.5 where none)."""
        parents = states.clone()
        is_group = actions < self._first
        is_element = ~is_group & (actions < self._stop)
        parents[:, 0] -= (~is_element).double()
        parents[:, 1] = torch.where(is_group, 0.0, states[:, 1])
        rows = is_element.nonzero().squeeze(1)
        parents[
            rows, 9 + torch.div(actions[rows] - self._first, self._per_element, rounding_mode="floor")
        ] = 0.0
        drawn = self.continuous_mask(states, actions)
        u = torch.where(drawn, states[:, 3:9], 0.5)
        parents[:, 3:9] = torch.where((actions == self._lattice_action)[:, None], 0.0, states[:, 3:9])
        parents[:, 2] = torch.where(actions > self._lattice_action, 0.0, states[:, 2])
        return parents, u

    def log_jacobian(self, states: Tensor, actions: Tensor, u: Tensor) -> Tensor:
        """`n`, float64: minus log |det ∂θ/∂u|, θ the free lattice parameters scaled to [0, 1] by their ranges."""
        result = torch.zeros(len(states), dtype=torch.float64)
        rows = (actions == self._lattice_action).nonzero().squeeze(1)
        if len(rows):
            systems, log_volumes = self._cells(states[rows].numpy())
            log_det = self._limits.parameters(systems, log_volumes, u[rows].double().numpy())[1]
            result[rows] = -torch.from_numpy(log_det)
        return result

    # ---------------------------------------------------------------- objects

    def proposals(self, states: Tensor) -> list[Proposal]:
        """Crystals, and fidelities where they are sampled, of terminal states."""
        rows = states.numpy()
        if not len(rows):
            return []
        lattices = self._lattices(rows).tolist()
        groups, fidelities = rows[:, 1].astype(int).tolist(), rows[:, 2].astype(int).tolist()
        symbols = self.space.elements
        compositions = [
            {symbol: int(count) for symbol, count in zip(symbols, row, strict=True) if count}
            for row in rows[:, 9:].tolist()
        ]
        return [
            Proposal(
                CrystalCandidate(self._numbers[group], composition, tuple(lattice)),
                None if self.n_fidelities is None else fidelity,
            )
            for group, composition, lattice, fidelity in zip(
                groups, compositions, lattices, fidelities, strict=True
            )
        ]

    def states(self, proposals: Sequence[Proposal]) -> Tensor:
        """Terminal states, `n x n_state`, of crystals of the space: the inverse of `proposals`.

        Raises:
            ValueError: a candidate is not of the space, or its fidelity is missing or out of range.
        """
        states = np.zeros((len(proposals), self.n_state))
        lattices = np.zeros((len(proposals), 6))
        for i, proposal in enumerate(proposals):
            crystal, fidelity = proposal.candidate, proposal.fidelity
            self.space.validate(crystal)
            if not isinstance(crystal, CrystalCandidate):
                raise ValueError(f"proposal {i} is no crystal: {crystal}")
            is_known = fidelity is None if self.n_fidelities is None else fidelity in range(self.n_fidelities)
            if not is_known:
                raise ValueError(f"proposal {i} has fidelity {fidelity} among {self.n_fidelities}")
            states[i, 0] = self._end
            states[i, 1] = self._group_of[crystal.space_group]
            states[i, 2] = fidelity or 0
            for symbol, count in crystal.composition.items():
                states[i, 9 + self._column[symbol]] = count
            lattices[i] = crystal.lattice
        if len(states):
            systems, log_volumes = self._cells(states)
            u = self._limits.coordinates(systems, log_volumes, lattices)
            states[:, 3:9] = np.where(self._free[systems], u, 0.0)
        return torch.from_numpy(states)
