"""Crystals as the decisions that lead to them, and back: what is inherited is kept wherever the space allows it.

A crystal's genome is its trajectory in the environment of the GFlowNet, stage by stage. A changed genome develops step
by step under that environment's exact masks: an inherited decision is taken where it is allowed, else one like it, else
any that is. So every genome ends in a crystal that keeps all constraints of its space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from activelearning.candidate import Candidate
from activelearning.contracts import Proposal
from activelearning.spaces.crystal import CrystalSpace
from samplers.gflownet.environments.crystal import CrystalEnvironment
from samplers.gflownet.mixture import U_MARGIN

Floats = NDArray[np.float64]

# Of allowed counts of an element in place of one that is not: the weight of each falls by this factor an atom.
NEXT_COUNT = 0.5


@dataclass(frozen=True)
class Decision:
    """One step.

    Attributes:
        action: The discrete choice, within its stage.
        u: Continuous coordinates in (0, 1), NaN where none is drawn.
    """

    action: int
    u: Floats


# Decisions by the name of their stage, in order.
Genome = dict[str, list[Decision]]


class Development:
    """Genomes of crystals, and crystals of genomes.

    Args:
        space: The space of crystals.
    """

    def __init__(self, space: CrystalSpace) -> None:
        self.environment = CrystalEnvironment(space)
        self.names = [stage.name for stage in self.environment.stages]
        ends = np.cumsum([0, *(stage.n_actions for stage in self.environment.stages)])
        self._first, self._last = ends[:-1], ends[1:]
        self._per_element = space.base.max_atoms_per_element
        self._stop = self._per_element * len(space.base.elements)

    # ---------------------------------------------------------------- composition

    def atoms(self, decision: Decision) -> tuple[int, int] | None:
        """Element and number of atoms that a decision of the composition adds; None for its end."""
        if decision.action == self._stop:
            return None
        element, count = divmod(decision.action, self._per_element)
        return element, count + 1

    def composition(self, counts: Sequence[tuple[int, int]]) -> list[Decision]:
        """Decisions that add numbers of atoms of elements; those beyond the most atoms of an element add the most."""
        nothing = np.full(self.environment.n_continuous, np.nan)
        most = self._per_element
        actions = sorted(e * most + min(max(n, 1), most) - 1 for e, n in counts)
        return [Decision(action, nothing) for action in [*actions, self._stop]]

    # ---------------------------------------------------------------- both ways

    def genomes(self, crystals: Sequence[Candidate]) -> list[Genome]:
        """The decisions that lead to crystals of the space."""
        environment = self.environment
        states = environment.states([Proposal(crystal) for crystal in crystals])
        found: list[Genome] = [{name: [] for name in self.names} for _ in crystals]
        walking = torch.arange(len(states))
        for _ in range(environment.max_steps):
            actions = environment.last_actions(states)
            going = (actions >= 0).nonzero().squeeze(1)
            if not len(going):
                break
            walking, states, actions = walking[going], states[going], actions[going]
            states, u = environment.step_back(states, actions)
            drawn = environment.continuous_mask(states, actions)
            coordinates = torch.where(drawn, u, torch.nan).numpy()
            for row, action, values in zip(walking.tolist(), actions.tolist(), coordinates, strict=True):
                k = int(np.searchsorted(self._last, action, side="right"))
                found[row][self.names[k]].insert(0, Decision(action - int(self._first[k]), values))
        return found

    def crystals(self, genomes: Sequence[Genome], rng: np.random.Generator) -> list[Candidate]:
        """The crystals that genomes develop into."""
        environment = self.environment
        left = [{name: list(decisions) for name, decisions in genome.items()} for genome in genomes]
        states = environment.initial(len(genomes))
        walking = torch.arange(len(genomes))
        for _ in range(environment.max_steps):
            if not len(walking):
                break
            here = states[walking]
            mask, stage = environment.forward_mask(here).numpy(), here[:, 0].long().tolist()
            taken = [
                self._next(k, left[row][self.names[k]], np.flatnonzero(allowed), rng)
                for row, k, allowed in zip(walking.tolist(), stage, mask, strict=True)
            ]
            actions = torch.tensor([action for action, _ in taken])
            u = torch.from_numpy(np.stack([u for _, u in taken]))
            states[walking] = environment.step(here, actions, self._filled(here, actions, u, rng))
            walking = walking[~environment.is_terminal(states[walking])]
        return [proposal.candidate for proposal in environment.proposals(states)]

    def _next(
        self, k: int, inherited: list[Decision], allowed: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[int, Floats]:
        """The action to take in stage k and its coordinates; what is inherited is used up on the way."""
        options = allowed - self._first[k]
        while inherited:
            decision = inherited.pop(0)
            if decision.action in options:
                return decision.action + int(self._first[k]), decision.u
            like = self._like(decision.action, options) if self.names[k] == "composition" else None
            if like is not None and len(like[0]):
                action = int(rng.choice(like[0], p=like[1]))
                return action + int(self._first[k]), decision.u
        return int(rng.choice(allowed)), np.full(self.environment.n_continuous, np.nan)

    def _like(self, action: int, options: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats] | None:
        """Allowed counts of the same element, with their probabilities."""
        same = options[(options // self._per_element == action // self._per_element) & (options < self._stop)]
        weight = NEXT_COUNT ** np.abs(same - action).astype(np.float64)
        return (same, weight / weight.sum()) if len(same) else None

    def _filled(self, states: Tensor, actions: Tensor, u: Tensor, rng: np.random.Generator) -> Tensor:
        """Coordinates, with those drawn by chance that are needed and not inherited."""
        drawn = self.environment.continuous_mask(states, actions)
        chance = torch.from_numpy(rng.random(u.shape))
        filled = torch.where(drawn, torch.where(u.isnan(), chance, u).clamp(U_MARGIN, 1.0 - U_MARGIN), 0.5)
        if self.environment.is_bounded:
            # What a restricted space leaves of each coordinate depends on those before it.
            for j in range(self.environment.n_continuous):
                low, high = self.environment.bounds(states, actions, j, filled)
                within = low + chance[:, j] * (high - low)
                is_outside = drawn[:, j] & ((filled[:, j] <= low) | (filled[:, j] >= high))
                filled[:, j] = torch.where(is_outside, within, filled[:, j])
        return filled
