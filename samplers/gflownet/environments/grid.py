"""A hyper-grid: small enough to enumerate, with many paths to each terminal state, for exact checks of learning.

The environment of Bengio et al., "Flow Network based Generative Models for Non-Iterative Diverse Candidate
Generation" (NeurIPS 2021): start in a corner, step up one coordinate at a time, stop anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from activelearning.candidate import BoxCandidate
from activelearning.contracts import Proposal


class GridEnvironment:
    """A grid of `side ** n_dimensions` points.

    A state is the coordinates, then the stop (0 while not stopped). Actions `0 … d - 1` step up a coordinate;
    those after stop, one for each fidelity (a single one where the fidelity is not sampled). A stopped state
    holds 1 + the index of its stop.
    """

    n_continuous = 0
    has_unique_paths = False

    def __init__(self, n_dimensions: int, side: int, n_fidelities: int | None = None) -> None:
        if n_dimensions < 1 or side < 2:
            raise ValueError(
                f"a grid needs a dimension and two points along it, not {n_dimensions} and {side}"
            )
        self.n_dimensions = n_dimensions
        self.side = side
        self.n_fidelities = n_fidelities
        self.n_state = n_dimensions + 1
        self.n_inputs = n_dimensions * side
        self.n_actions = n_dimensions + (n_fidelities or 1)
        self.max_steps = n_dimensions * (side - 1) + 1

    def initial(self, n: int) -> Tensor:
        """`n x (d + 1)`: the corner."""
        return torch.zeros(n, self.n_state, dtype=torch.float64)

    def encode(self, states: Tensor) -> Tensor:
        """One-hot coordinates, `n x (d * side)`, float32."""
        hot = torch.nn.functional.one_hot(states[:, :-1].long(), self.side)
        return hot.flatten(1).float()

    def is_terminal(self, states: Tensor) -> Tensor:
        """`n`, bool."""
        return states[:, -1] > 0

    def forward_mask(self, states: Tensor) -> Tensor:
        """`n x n_actions`, bool."""
        up = states[:, :-1] < self.side - 1
        stop = torch.ones(len(states), self.n_actions - self.n_dimensions, dtype=torch.bool)
        return torch.cat([up, stop], dim=1) & ~self.is_terminal(states)[:, None]

    def backward_mask(self, states: Tensor) -> Tensor:
        """`n x n_actions`, bool: a stopped state has one parent, another one for each coordinate above 0."""
        down = (states[:, :-1] > 0) & ~self.is_terminal(states)[:, None]
        stops = torch.arange(1, self.n_actions - self.n_dimensions + 1, dtype=states.dtype)
        return torch.cat([down, states[:, -1:] == stops], dim=1)

    def continuous_mask(self, states: Tensor, actions: Tensor) -> Tensor:
        """`n x 0`: nothing is continuous."""
        return torch.zeros(len(states), 0, dtype=torch.bool)

    def step(self, states: Tensor, actions: Tensor, u: Tensor) -> Tensor:
        """Children, `n x (d + 1)`."""
        return states + self._moves(actions)

    def step_back(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Parents, `n x (d + 1)`, and `n x 0`."""
        return states - self._moves(actions), torch.zeros(len(states), 0, dtype=torch.float64)

    def log_jacobian(self, states: Tensor, actions: Tensor, u: Tensor) -> Tensor:
        """Zeros, `n`."""
        return torch.zeros(len(states), dtype=torch.float64)

    def proposals(self, states: Tensor) -> list[Proposal]:
        """Box candidates of whole coordinates."""
        return [
            Proposal(BoxCandidate(tuple(row[:-1])), None if self.n_fidelities is None else int(row[-1]) - 1)
            for row in states.tolist()
        ]

    def states(self, proposals: Sequence[Proposal]) -> Tensor:
        """Terminal states, `n x (d + 1)`, of proposals."""
        rows = [
            [*p.candidate.values, 1 + (p.fidelity or 0)]
            for p in proposals
            if isinstance(p.candidate, BoxCandidate)
        ]
        states = torch.tensor(rows, dtype=torch.float64).reshape(-1, self.n_state)
        if len(states) != len(proposals) or not torch.isin(states[:, :-1], torch.arange(self.side)).all():
            raise ValueError(f"a proposal is no point of the grid of side {self.side}")
        return states

    def _moves(self, actions: Tensor) -> Tensor:
        """Change of state, `n x (d + 1)`, by each action."""
        table = torch.zeros(self.n_actions, self.n_state, dtype=torch.float64)
        table[: self.n_dimensions, : self.n_dimensions] = torch.eye(self.n_dimensions, dtype=torch.float64)
        table[self.n_dimensions :, -1] = torch.arange(1, self.n_actions - self.n_dimensions + 1)
        return table[actions]
