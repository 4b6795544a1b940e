"""Crystals, stage by stage: space group, composition and lattice in the space's order, sites, fidelity.

Each crystal has one path. Masks are exact, so that every trajectory ends in a crystal that keeps all
constraints of its space, and every crystal of the space is reached; but where coordinates are sampled, Wyckoff
positions that plainly leave no room for the atoms are left out (`wyckoff_room`). Rewards are densities against counting
measure on space groups, compositions, Wyckoff positions and fidelities, times Lebesgue measure on the free
lattice parameters scaled to [0, 1] by their ranges and on the free fractional coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from activelearning.candidate import CrystalCandidate
from activelearning.contracts import Proposal
from samplers.gflownet.environments.crystal_stages.composition import CompositionStage
from samplers.gflownet.environments.crystal_stages.fidelity import FidelityStage
from samplers.gflownet.environments.crystal_stages.lattice import LatticeStage
from samplers.gflownet.environments.crystal_stages.space_group import SpaceGroupStage
from samplers.gflownet.environments.crystal_stages.stage import Floats, Integers, Stage

if TYPE_CHECKING:
    from activelearning.spaces.crystal import CrystalSpace

# The candidate's field that a stage decides, where it has another name.
FIELDS = {"coordinates": "structure"}


def _stages(space: CrystalSpace, n_fidelities: int | None) -> list[Stage]:
    makers: dict[str, Callable[[CrystalSpace], Stage]] = {
        "space_group": SpaceGroupStage,
        "composition": CompositionStage,
        "lattice": LatticeStage,
    }
    stages = [makers[name](space) for name in space.order]
    if space.wyckoff:
        # Its tables of sites take time and memory that other campaigns should not pay for.
        from samplers.gflownet.environments.crystal_stages.wyckoff import WyckoffStage

        stages.append(WyckoffStage(space))
    if space.coordinates:
        from samplers.gflownet.environments.crystal_stages.coordinates import CoordinatesStage

        stages.append(CoordinatesStage(space))
    if n_fidelities is not None:
        stages.append(FidelityStage(n_fidelities))
    return stages


class CrystalEnvironment:
    """The stages of a crystal as one environment.

    A state is (index of its stage, block of each stage); what is not decided yet is zero. Actions of the
    stages follow each other.

    Args:
        space: The space of crystals. A restricted space has the states, inputs and actions of its base, so
            that a policy trained there samples it by narrower masks.
        n_fidelities: Number of fidelities to choose from; None where the fidelity is not sampled.
    """

    has_unique_paths = True

    def __init__(self, space: CrystalSpace, n_fidelities: int | None = None) -> None:
        self.space, self.n_fidelities = space, n_fidelities
        self.stages = _stages(space, n_fidelities)
        self._end = len(self.stages)
        #: Columns of the state that each stage owns, by its name.
        self.columns: dict[str, slice] = {}
        self.n_state, self.n_actions, self.n_inputs = 1, 0, self._end + 1
        self._first_action, self._first_input = [], []
        for stage in self.stages:
            self.columns[stage.name] = slice(self.n_state, self.n_state + stage.width)
            self._first_action.append(self.n_actions)
            self._first_input.append(self.n_inputs)
            self.n_state += stage.width
            self.n_actions += stage.n_actions
            self.n_inputs += stage.n_inputs
        self.n_continuous = max(stage.n_continuous for stage in self.stages)
        self._continuous = [k for k, stage in enumerate(self.stages) if stage.n_continuous]
        self.max_steps = sum(stage.max_steps for stage in self.stages)
        self._lattice = next((stage for stage in self.stages if isinstance(stage, LatticeStage)), None)
        #: Whether continuous coordinates are restricted to `bounds`.
        self.is_bounded = self._lattice is not None and self._lattice.is_bounded

    # ---------------------------------------------------------------- states

    def initial(self, n: int) -> Tensor:
        """`n x n_state`: nothing chosen."""
        return torch.zeros(n, self.n_state, dtype=torch.float64)

    def is_terminal(self, states: Tensor) -> Tensor:
        """`n`, bool."""
        return torch.from_numpy(states.numpy()[:, 0] == self._end)

    def encode(self, states: Tensor) -> Tensor:
        """Stage one-hot, and what each stage has decided, `n x n_inputs`, float32."""
        rows = states.numpy()
        at = rows[:, 0].astype(np.int64)
        inputs = np.zeros((len(rows), self.n_inputs), dtype=np.float32)
        inputs[np.arange(len(rows)), at] = 1.0
        crystals = _Batch(self, rows)
        for k, stage in enumerate(self.stages):
            (begun,) = (at >= k).nonzero()
            if not len(begun):
                break
            first = self._first_input[k]
            columns = slice(first, first + stage.n_inputs)
            if len(begun) == len(rows):
                inputs[:, columns] = stage.encode(crystals)
            else:
                inputs[begun, columns] = stage.encode(crystals.take(begun))
        return torch.from_numpy(inputs)

    # ---------------------------------------------------------------- masks

    def forward_mask(self, states: Tensor) -> Tensor:
        """`n x n_actions`, bool: actions from which a crystal of the space can still be reached."""
        rows = states.numpy()
        mask = np.zeros((len(rows), self.n_actions), dtype=np.bool_)
        for k, members, crystals in self._by_stage(rows):
            stage, first = self.stages[k], self._first_action[k]
            columns = slice(first, first + stage.n_actions)
            if len(members) == len(rows):
                mask[:, columns] = stage.mask(crystals)
            else:
                mask[members, columns] = stage.mask(crystals)
        return torch.from_numpy(mask)

    def backward_mask(self, states: Tensor) -> Tensor:
        """`n x n_actions`, bool: the one last action, none at the source."""
        mask = torch.zeros(len(states), self.n_actions, dtype=torch.bool)
        actions = self.last_actions(states)
        rows = (actions >= 0).nonzero().squeeze(1)
        mask[rows, actions[rows]] = True
        return mask

    def last_actions(self, states: Tensor) -> Tensor:
        """The action that led to each state, `n`, long; -1 at the source."""
        rows = states.numpy()
        actions = np.full(len(rows), -1, dtype=np.int64)
        for k, members, crystals in self._by_last_stage(rows):
            actions[members] = self._first_action[k] + self.stages[k].step_back(crystals)[0]
        return torch.from_numpy(actions)

    def continuous_mask(self, states: Tensor, actions: Tensor) -> Tensor:
        """`n x c`, bool: coordinates that each action draws."""
        rows = states.numpy()
        drawn = np.zeros((len(rows), self.n_continuous), dtype=np.bool_)
        for k, members, crystals in self._by_stage(rows, self._continuous):
            stage = self.stages[k]
            local = actions.numpy()[members] - self._first_action[k]
            drawn[members, : stage.n_continuous] = stage.drawn(crystals, local)
        return torch.from_numpy(drawn)

    # ---------------------------------------------------------------- steps

    def step(self, states: Tensor, actions: Tensor, u: Tensor) -> Tensor:
        """Children, `n x n_state`."""
        rows, taken, coordinates = states.numpy(), actions.numpy(), u.double().numpy()
        children = rows.copy()
        for k, members, crystals in self._by_stage(rows):
            stage = self.stages[k]
            local = taken[members] - self._first_action[k]
            block = stage.step(crystals, local, coordinates[members, : stage.n_continuous])
            children[members, self.columns[stage.name]] = block
            while k < self._end:
                at = children if len(members) == len(children) else children[members]
                members, k = members[self.stages[k].is_complete(_Batch(self, at))], k + 1
                if not len(members):
                    break
                children[members, 0] = k
        return torch.from_numpy(children)

    def step_back(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Parents, `n x n_state`, and the coordinates drawn on the way back here, `n x c` (0.5 where none)."""
        rows = states.numpy()
        parents, u = rows.copy(), np.full((len(rows), self.n_continuous), 0.5)
        for k, members, crystals in self._by_last_stage(rows):
            stage = self.stages[k]
            _, coordinates, block = stage.step_back(crystals)
            parents[members, 0] = k
            parents[members, self.columns[stage.name]] = block
            u[members, : stage.n_continuous] = coordinates
        return torch.from_numpy(parents), torch.from_numpy(u)

    def log_jacobian(self, states: Tensor, actions: Tensor, u: Tensor) -> Tensor:
        """`n`, float64: minus log |det ∂θ/∂u|, θ the free parameters scaled to [0, 1]."""
        rows, coordinates = states.numpy(), u.double().numpy()
        result = np.zeros(len(rows))
        for k, members, crystals in self._by_stage(rows, self._continuous):
            stage = self.stages[k]
            local = actions.numpy()[members] - self._first_action[k]
            result[members] = stage.log_jacobian(crystals, local, coordinates[members, : stage.n_continuous])
        return torch.from_numpy(result)

    def bounds(self, states: Tensor, actions: Tensor, j: int, u: Tensor) -> tuple[Tensor, Tensor]:
        """Interval of coordinate j, `n` each, that a restricted space leaves, given those before it."""
        rows, coordinates = states.numpy(), u.double().numpy()
        low, high = np.zeros(len(rows)), np.ones(len(rows))
        for k, members, crystals in self._by_stage(rows):
            stage = self.stages[k]
            if stage is self._lattice:
                low[members], high[members] = self._lattice.bounds(
                    crystals, j, coordinates[members, : stage.n_continuous]
                )
        return torch.from_numpy(low), torch.from_numpy(high)

    # ---------------------------------------------------------------- objects

    def proposals(self, states: Tensor) -> list[Proposal]:
        """Crystals, and fidelities where they are sampled, of terminal states."""
        crystals = _Batch(self, states.numpy())
        if not len(crystals):
            return []
        fields: dict[str, Sequence[Any]] = {
            FIELDS.get(stage.name, stage.name): stage.values(crystals) for stage in self.stages
        }
        fidelities = fields.pop("fidelity", [None] * len(crystals))
        return [
            Proposal(CrystalCandidate(**dict(zip(fields, values, strict=True))), fidelity)
            for values, fidelity in zip(zip(*fields.values(), strict=True), fidelities, strict=True)
        ]

    def states(self, proposals: Sequence[Proposal]) -> Tensor:
        """Terminal states, `n x n_state`, of crystals of the space: the inverse of `proposals`.

        Raises:
            ValueError: a candidate is not of the space, or its fidelity is missing or out of range.
        """
        candidates = []
        for i, proposal in enumerate(proposals):
            crystal, fidelity = proposal.candidate, proposal.fidelity
            self.space.validate(crystal)
            if not isinstance(crystal, CrystalCandidate):
                raise ValueError(f"proposal {i} is no crystal: {crystal}")
            is_known = fidelity is None if self.n_fidelities is None else fidelity in range(self.n_fidelities)
            if not is_known:
                raise ValueError(f"proposal {i} has fidelity {fidelity} among {self.n_fidelities}")
            candidates.append(crystal)
        rows = np.zeros((len(candidates), self.n_state))
        rows[:, 0] = self._end
        for stage in self.stages:
            columns = self.columns[stage.name]
            if stage.name == "fidelity":
                rows[:, columns] = np.array([1.0 + (p.fidelity or 0) for p in proposals]).reshape(-1, 1)
            elif len(rows):
                rows[:, columns] = stage.read(candidates, _Batch(self, rows))
        return torch.from_numpy(rows)

    # ---------------------------------------------------------------- batches

    def _by_stage(
        self, rows: Floats, stages: Iterable[int] | None = None
    ) -> list[tuple[int, Integers, _Batch]]:
        """Rows of each stage (by default of all) that is present: its index, the rows' indices, the rows."""
        return self._grouped(rows, rows[:, 0], range(self._end) if stages is None else stages)

    def _by_last_stage(self, rows: Floats) -> list[tuple[int, Integers, _Batch]]:
        """As `_by_stage`, by the stage of the last step; rows without a step are left out."""
        at = np.minimum(rows[:, 0].astype(np.int64), self._end - 1)
        for k in range(self._end - 1, -1, -1):
            here = np.flatnonzero(at == k)
            if len(here):
                at[here[self.stages[k].is_empty(_Batch(self, rows[here]))]] -= 1
        return self._grouped(rows, at, range(self._end))

    def _grouped(
        self, rows: Floats, at: Integers | Floats, stages: Iterable[int]
    ) -> list[tuple[int, Integers, _Batch]]:
        groups = []
        for k in stages:
            (members,) = (at == k).nonzero()
            if len(members):
                chosen = rows if len(members) == len(rows) else rows[members]
                groups.append((k, members, _Batch(self, chosen)))
        return groups


class _Batch:
    """Rows of states as `Crystals`."""

    def __init__(self, environment: CrystalEnvironment, rows: Floats) -> None:
        self._environment, self._rows = environment, rows

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: Integers) -> _Batch:
        return _Batch(self._environment, self._rows[rows])

    def block(self, name: str) -> Floats:
        return self._rows[:, self._environment.columns[name]]

    @cached_property
    def groups(self) -> Integers:
        return self.block("space_group")[:, 2].astype(np.int64) - 1

    @cached_property
    def counts(self) -> Integers:
        return self.block("composition")[:, :-1].astype(np.int64)

    @cached_property
    def lattices(self) -> Floats:
        lattice = self._environment._lattice
        if lattice is None:
            raise ValueError("crystals of this space have no lattice")
        return lattice.parameters(self, self.block("lattice"))[0]
