"""The contract of a stage: a part of the crystal that is decided in one or more steps of a trajectory.

The environment is a sequence of stages. Each owns a block of columns of the state, all zero before it begins,
a range of actions and some inputs of the policy, and sees what the stages before it have decided through
`Crystals`. All arrays are of numpy, a row a crystal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from activelearning.candidate import CrystalCandidate

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Inputs = NDArray[np.float32]


class Crystals(Protocol):
    """A batch of partly built crystals."""

    @property
    def groups(self) -> Integers:
        """Index of the space group in `space.space_groups`, `n`; -1 before it is chosen."""
        ...

    @property
    def counts(self) -> Integers:
        """Atoms of each of the space's elements, `n x E`; zero for those not added."""
        ...

    @property
    def lattices(self) -> Floats:
        """(a, b, c, α, β, γ) of the conventional cell in Å and degrees, `n x 6`; once the lattice is drawn."""
        ...

    def block(self, name: str) -> Floats:
        """Columns of the state that the stage of a name owns, `n x width`."""
        ...

    def take(self, rows: Integers) -> Crystals:
        """Some rows."""
        ...

    def __len__(self) -> int: ...


class Stage(Protocol):
    """One stage. Each state of it has one parent.

    Attributes:
        name: Name of its block: space_group, composition, lattice, wyckoff, coordinates, fidelity.
        width: Columns of its block.
        n_inputs: Columns it adds to the policy's input.
        n_actions: Number of its actions.
        n_continuous: Most coordinates u in (0, 1) that one of its actions draws.
        max_steps: Most steps it takes.
    """

    name: str
    width: int
    n_inputs: int
    n_actions: int
    n_continuous: int
    max_steps: int

    def encode(self, crystals: Crystals) -> Inputs:
        """What it has decided and what is next, for the policy, `n x n_inputs`; asked once the stage has begun."""
        ...

    def mask(self, crystals: Crystals) -> Flags:
        """Allowed actions, `n x n_actions`, of crystals that are in this stage; none of the rows is all False."""
        ...

    def drawn(self, crystals: Crystals, actions: Integers) -> Flags:
        """Coordinates that each action draws, `n x n_continuous`."""
        ...

    def step(self, crystals: Crystals, actions: Integers, u: Floats) -> Floats:
        """The block, `n x width`, after actions, `n`, with coordinates u, `n x n_continuous`."""
        ...

    def is_complete(self, crystals: Crystals) -> Flags:
        """`n`: whether nothing is left to decide; asked on entry and after each step of this stage."""
        ...

    def is_empty(self, crystals: Crystals) -> Flags:
        """`n`: whether the block is as it was on entry, so that the last step was in an earlier stage."""
        ...

    def step_back(self, crystals: Crystals) -> tuple[Integers, Floats, Floats]:
        """The last action, `n`, of blocks that are not empty, its u, `n x n_continuous` (0.5 where none), and
        the parent's block, `n x width`.
        """
        ...

    def log_jacobian(self, crystals: Crystals, actions: Integers, u: Floats) -> Floats:
        """`n`: what makes a log density over u one over the unit-scaled free parameters: minus log |det ∂θ/∂u|.

        `crystals` are those that the actions are taken in.
        """
        ...

    def values(self, crystals: Crystals) -> Sequence[Any]:
        """What it has decided of each finished crystal, as the candidate's field takes it, `n`.

        The field is the stage's name, but `structure` for the coordinates: a group's number, a mapping of
        counts, six lattice parameters, letters by element, a structure or None.
        """
        ...

    def read(self, candidates: Sequence[CrystalCandidate], crystals: Crystals) -> Floats:
        """The block, `n x width`, of finished candidates: the inverse of `values`.

        Of `crystals` the blocks of earlier stages are filled in.

        Raises:
            ValueError: a candidate lacks what this stage decides, or it can't be decided so.
        """
        ...
