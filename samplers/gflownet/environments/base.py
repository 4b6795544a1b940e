"""The contract of an environment: a directed acyclic graph of states, seen as tensors only.

The learner knows an environment by tensors of states, masks and action distributions, and nothing else. A
state is one row of float64; an action is one discrete choice, and for some choices a vector u of continuous
coordinates in (0, 1), drawn with it in the same step. Every method takes a batch and returns new tensors;
none changes its input.

Densities are against counting measure on discrete choices times Lebesgue measure on the unit-scaled free
parameters of the terminal object. `log_jacobian` converts a density over u into that measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from activelearning.contracts import Proposal


class Environment(Protocol):
    """A batched environment over `n` states.

    Attributes:
        n_state: Width of a state row.
        n_inputs: Width of the policy's input.
        n_actions: Number of discrete actions.
        n_continuous: Width c of the continuous part of an action, 0 where there is none.
        max_steps: Upper bound on a trajectory's length.
        has_unique_paths: True when each state has one parent, so that P_B = 1 and log P(x) is one
            trajectory's log P_F.
    """

    n_state: int
    n_inputs: int
    n_actions: int
    n_continuous: int
    max_steps: int
    has_unique_paths: bool

    def initial(self, n: int) -> Tensor:
        """`n x n_state`, float64: n copies of the source state."""
        ...

    def encode(self, states: Tensor) -> Tensor:
        """Policy inputs, `n x n_inputs`, float32."""
        ...

    def is_terminal(self, states: Tensor) -> Tensor:
        """`n`, bool: states without further action."""
        ...

    def forward_mask(self, states: Tensor) -> Tensor:
        """`n x n_actions`, bool: actions from which a terminal state can still be reached.

        No row of a non-terminal state is all False.
        """
        ...

    def backward_mask(self, states: Tensor) -> Tensor:
        """`n x n_actions`, bool: last actions that may have led to each state; all False at the source."""
        ...

    def continuous_mask(self, states: Tensor, actions: Tensor) -> Tensor:
        """`n x c`, bool: coordinates that each action draws in its state."""
        ...

    def step(self, states: Tensor, actions: Tensor, u: Tensor) -> Tensor:
        """Children, `n x n_state`, of states by actions (`n`, long) and coordinates u (`n x c`)."""
        ...

    def step_back(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Parents, `n x n_state`, by last actions (`n`, long), and the u (`n x c`) that led back here."""
        ...

    def log_jacobian(self, states: Tensor, actions: Tensor, u: Tensor) -> Tensor:
        """`n`, float64: added to a log density over u it gives that over unit-scaled parameters."""
        ...

    def proposals(self, states: Tensor) -> list[Proposal]:
        """The objects (and fidelities) of terminal states."""
        ...


@runtime_checkable
class InvertibleEnvironment(Environment, Protocol):
    """An environment that also reads its objects back, as `log_probability` needs."""

    def states(self, proposals: Sequence[Proposal]) -> Tensor:
        """Terminal states, `n x n_state`, of proposals: the inverse of `proposals()`.

        Raises:
            ValueError: an object that no trajectory of this environment ends in.
        """
        ...


@runtime_checkable
class BoundedEnvironment(Environment, Protocol):
    """An environment that restricts continuous coordinates to intervals, for sampling without retraining.

    It has the states and actions of the environment that a policy was trained in. Draws are truncated to the
    intervals exactly; densities then are those of the truncated draws.

    Attributes:
        is_bounded: True where there is a restriction; what has no such attribute has none.
    """

    is_bounded: bool

    def bounds(self, states: Tensor, actions: Tensor, j: int, u: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper ends, `n` each, of coordinate j in (0, 1), low < high.

        Coordinates are drawn in ascending order.

        Args:
            states: `n x n_state`.
            actions: What is done there, `n`, long.
            j: The coordinate; rows whose action does not draw it may give any interval.
            u: `n x c`; of meaning before coordinate j.
        """
        ...
