"""A box, one coordinate a step, then the fidelity.

A point is built autoregressively, p(x) = ∏ p(x_i | x_1 … x_{i-1}): each step's density is over one
coordinate, where a mixture of few components represents any shape, and dependence between coordinates is the
network's to learn. A mixture over all coordinates at once would need a component for each mode of the reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from activelearning.candidate import BoxCandidate
from activelearning.contracts import Proposal

# Coordinates stay this far inside (0, 1), where the log density of a policy is finite.
MARGIN = 1e-6


class _Bounded(Protocol):
    """What is needed of a box space."""

    @property
    def bounds(self) -> Sequence[tuple[float, float]]: ...


class BoxEnvironment:
    """A box of d dimensions.

    A state is the d unit-scaled coordinates (0 until drawn), the number drawn, and 1 + the fidelity (0 until
    chosen). Action 0 draws the next coordinate, action 1 + m ends with fidelity m. Where the fidelity is not
    sampled, a trajectory ends with the last coordinate.
    """

    n_continuous = 1
    has_unique_paths = True

    def __init__(self, space: _Bounded, n_fidelities: int | None = None, *, n_frequencies: int = 2) -> None:
        bounds = torch.tensor([list(pair) for pair in space.bounds], dtype=torch.float64)
        self.lower, self.width = bounds[:, 0], bounds[:, 1] - bounds[:, 0]
        self.n_dimensions = d = len(bounds)
        self.n_fidelities = n_fidelities
        self.frequencies = torch.pi * torch.arange(1, n_frequencies + 1, dtype=torch.float32)
        self.n_state = d + 2
        self.n_inputs = d * (1 + n_frequencies) + d + 1
        self.n_actions = 1 + (n_fidelities or 0)
        self.max_steps = d + (n_fidelities is not None)

    def initial(self, n: int) -> Tensor:
        """`n x (d + 2)`: nothing drawn."""
        return torch.zeros(n, self.n_state, dtype=torch.float64)

    def encode(self, states: Tensor) -> Tensor:
        """Drawn coordinates on [-1, 1], their cosines, and the one-hot number drawn, `n x n_inputs`, float32."""
        x = states[:, : self.n_dimensions].float()
        drawn = self._n_drawn(states)
        known = (torch.arange(self.n_dimensions) < drawn[:, None]).float()
        waves = torch.cos(x[:, :, None] * self.frequencies) * known[:, :, None]
        hot = torch.nn.functional.one_hot(drawn, self.n_dimensions + 1).float()
        return torch.cat([(2.0 * x - 1.0) * known, waves.flatten(1), hot], dim=1)

    def is_terminal(self, states: Tensor) -> Tensor:
        """`n`, bool."""
        if self.n_fidelities is None:
            return self._n_drawn(states) == self.n_dimensions
        return states[:, -1] > 0

    def forward_mask(self, states: Tensor) -> Tensor:
        """`n x n_actions`, bool."""
        is_drawing = (self._n_drawn(states) < self.n_dimensions)[:, None]
        if self.n_fidelities is None:
            return is_drawing
        is_choosing = ~is_drawing & (states[:, -1:] == 0)
        return torch.cat([is_drawing, is_choosing.expand(-1, self.n_fidelities)], dim=1)

    def backward_mask(self, states: Tensor) -> Tensor:
        """`n x n_actions`, bool: one last action, or none at the source."""
        was_drawing = ((self._n_drawn(states) > 0) & (states[:, -1] == 0))[:, None]
        if self.n_fidelities is None:
            return was_drawing
        return torch.cat([was_drawing, states[:, -1:] == torch.arange(1, self.n_fidelities + 1)], dim=1)

    def continuous_mask(self, states: Tensor, actions: Tensor) -> Tensor:
        """`n x 1`, bool."""
        return (actions == 0)[:, None]

    def step(self, states: Tensor, actions: Tensor, u: Tensor) -> Tensor:
        """Children, `n x (d + 2)`."""
        children = states.clone()
        is_drawing = actions == 0
        rows = is_drawing.nonzero().squeeze(1)
        children[rows, self._n_drawn(states)[rows]] = u[rows, 0].clamp(MARGIN, 1.0 - MARGIN)
        children[:, -2] += is_drawing
        children[:, -1] = torch.where(is_drawing, states[:, -1], actions.to(states.dtype))
        return children

    def step_back(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Parents, `n x (d + 2)`, and the coordinates drawn on the way back here, `n x 1`."""
        parents = states.clone()
        u = torch.full((len(states), 1), 0.5, dtype=torch.float64)
        was_drawing = actions == 0
        rows = was_drawing.nonzero().squeeze(1)
        last = self._n_drawn(states)[rows] - 1
        u[rows, 0] = states[rows, last]
        parents[rows, last] = 0.0
        parents[:, -2] -= was_drawing.to(states.dtype)
        parents[:, -1] = torch.where(was_drawing, states[:, -1], 0.0)
        return parents, u

    def log_jacobian(self, states: Tensor, actions: Tensor, u: Tensor) -> Tensor:
        """Zeros, `n`: u is the unit-scaled coordinate itself."""
        return torch.zeros(len(states), dtype=torch.float64)

    def proposals(self, states: Tensor) -> list[Proposal]:
        """Box candidates in the box's own units."""
        values = (self.lower + states[:, : self.n_dimensions] * self.width).tolist()
        fidelities = (states[:, -1].long() - 1).tolist()
        return [
            Proposal(BoxCandidate(tuple(row)), None if self.n_fidelities is None else fidelity)
            for row, fidelity in zip(values, fidelities, strict=True)
        ]

    def states(self, proposals: Sequence[Proposal]) -> Tensor:
        """Terminal states, `n x (d + 2)`, of proposals.

        Raises:
            ValueError: a proposal outside the box, or without a fidelity where one is sampled.
        """
        d = self.n_dimensions
        states = torch.zeros(len(proposals), self.n_state, dtype=torch.float64)
        for row, proposal in enumerate(proposals):
            candidate, fidelity = proposal.candidate, proposal.fidelity
            if not isinstance(candidate, BoxCandidate) or len(candidate.values) != d:
                raise ValueError(f"proposal {row} is no point of a box of {d} dimensions: {candidate}")
            if (fidelity is None) != (self.n_fidelities is None) or (fidelity or 0) not in range(
                self.n_fidelities or 1
            ):
                raise ValueError(f"proposal {row} has fidelity {fidelity} among {self.n_fidelities}")
            states[row, :d] = torch.tensor(candidate.values, dtype=torch.float64)
            states[row, -1] = 0 if fidelity is None else 1 + fidelity
        unit = (states[:, :d] - self.lower) / self.width
        if ((unit < -1e-9) | (unit > 1.0 + 1e-9)).any():
            raise ValueError("a proposal lies outside the box")
        states[:, :d] = unit.clamp(MARGIN, 1.0 - MARGIN)
        states[:, -2] = d
        return states

    def _n_drawn(self, states: Tensor) -> Tensor:
        return states[:, -2].long()
