"""An evolutionary search: a population that follows the reward uphill, and a draw from all that it came by.

Each member has one child a generation, which takes its place where its reward is at least as high, so that the
population closes in on several peaks at once. How far children go (F) and how much they take from elsewhere (CR) follow
what succeeded, as in JADE (Zhang & Sanderson, IEEE Trans. Evol. Comput. 13, 2009).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from activelearning.candidate import Candidate
from activelearning.contracts import LogReward, Proposal, Space
from activelearning.errors import ConfigError, SamplerError
from samplers.evolutionary.variation import Brood, make_variation
from samplers.random import RandomSampler

Floats = NDArray[np.float64]

ADAPTATION = 0.1  # share by which F and CR follow the last generation's successes
SPREAD = 0.1  # of F (Cauchy) and CR (normal) about their centres
NEW_FIDELITY = 0.1  # probability that a child's fidelity is drawn by chance
RECORD = 2048  # proposals kept of a fit, to be drawn from
PATIENCE = 5  # generations, or draws, in a row without anything new before a search ends


class EvolutionarySampler:
    """Proposes, in proportion to reward, what an evolving population came by.

    Proportions hold among the candidates that were asked for, not over the space: they lie where the search went. What
    is proposed so spreads over several good regions even where the population has closed in on one. Where a space is
    searched from round to round, the population goes on. Children of a box and of a pool come of
    differences between members; crystals are changed in composition, space group and lattice (`variation`,
    `crystals`). A fidelity, where it is sampled, is inherited, or at times drawn by chance.

    Args:
        space: What to sample: a box, a pool or crystals.
        n_fidelities: Number of fidelities to sample from; None where the fidelity is not sampled.
        steps: Generations in the first fit.
        warm_steps: Generations in each later fit.
        population: Number of members.
        elite_share: Share of them, the best, that children are drawn towards.
        immigrants: Share of the members, the worst, that later fits replace by untrained ones: the reward has changed.

    Raises:
        ConfigError: a value is out of range, or the space is of another kind.
    """

    def __init__(
        self,
        space: Space,
        n_fidelities: int | None,
        *,
        steps: int = 80,
        warm_steps: int = 40,
        population: int = 128,
        elite_share: float = 0.1,
        immigrants: float = 0.25,
    ) -> None:
        for key, value, least in (
            ("steps", steps, 1),
            ("warm_steps", warm_steps, 1),
            ("population", population, 4),
        ):
            if value < least:
                raise ConfigError(f"sampler.{key} is {value}; it must be at least {least}.")
        if not 0.0 < elite_share <= 1.0:
            raise ConfigError(f"sampler.elite_share is {elite_share}; it must be above 0 and at most 1.")
        if not 0.0 <= immigrants < 1.0:
            raise ConfigError(f"sampler.immigrants is {immigrants}; it must be at least 0 and below 1.")
        self.space, self.n_fidelities = space, n_fidelities
        self.steps, self.warm_steps, self.size = steps, warm_steps, population
        self.elite_share, self.immigrants = elite_share, immigrants
        self._variation = make_variation(space)
        self._untrained = RandomSampler(space, n_fidelities)
        self._members: list[Proposal] = []  # the best first
        self._record: list[Proposal] = []  # the best, then a draw in proportion to reward
        self._log_rewards = np.zeros(0)
        self._n_fits = 0
        self._strength, self._crossover = 0.5, 0.5

    def fit(self, log_reward: LogReward, *, seed: int) -> Mapping[str, Any]:
        """Let the population evolve under a reward, going on from the present one.

        Raises:
            SamplerError: the reward's answer is not one finite number for each candidate.
        """
        rng = np.random.default_rng(seed)
        search = _Search(self, log_reward, rng)
        for _ in range(self.steps if self._n_fits == 0 else self.warm_steps):
            if search.n_idle == PATIENCE:
                break
            search.advance()
        self._members, rewards = search.ranked()
        self._record, self._log_rewards = search.drawn(RECORD)
        self._n_fits += 1
        return {
            "steps": search.n_steps,
            "mean_log_reward": float(rewards.mean()),
            "max_log_reward": float(rewards.max()),
            "rewards_evaluated": len(search.known),
            "success_share": search.n_better / max(search.n_children, 1),
            "strength": self._strength,
            "crossover": self._crossover,
        }

    def sample(self, n: int, *, seed: int) -> list[Proposal]:
        """The best found, then n - 1 distinct others in proportion to reward, of those that the last fit asked for.

        Where these are fewer, children of the members are added, whose rewards are not known; and fewer than n are
        given where the space holds no more (or none were found in several attempts).
        """
        if not self._members or n < 1:
            return self.sample_untrained(n, seed=seed)
        rng = np.random.default_rng(seed)
        order = [0, *(1 + _drawn(self._log_rewards[1:], n - 1, rng)).tolist()]
        found = dict.fromkeys(self._record[i] for i in order)
        n_idle = 0
        while len(found) < n and n_idle < PATIENCE:
            before = len(found)
            for child in self.bred(self._members, [], rng, self.parameters(rng), found):
                if len(found) < n:
                    found.setdefault(child)
            n_idle = n_idle + 1 if len(found) == before else 0
        return list(found)

    def sample_untrained(self, n: int, *, seed: int) -> list[Proposal]:
        """Draw n proposals by chance, as the sampler `random` does."""
        return self._untrained.sample(n, seed=seed)

    def state_dict(self) -> dict[str, Any]:
        """Members, the best first; what is drawn from, with log rewards; F and CR; number of fits."""
        return {
            "members": self._to_json(self._members),
            "record": self._to_json(self._record),
            "log_rewards": torch.from_numpy(self._log_rewards.copy()),
            "strength": self._strength,
            "crossover": self._crossover,
            "n_fits": self._n_fits,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a state up again; afterwards every call gives the same results, bit for bit.

        Raises:
            SamplerError: a member is not of this space, or has no fidelity of this campaign's.
        """
        members, record = self._from_json(state["members"]), self._from_json(state["record"])
        self._members, self._record = members, record
        self._log_rewards = state["log_rewards"].numpy().copy()
        self._strength, self._crossover = float(state["strength"]), float(state["crossover"])
        self._n_fits = int(state["n_fits"])

    def _to_json(self, proposals: Sequence[Proposal]) -> list[tuple[dict[str, Any], int | None]]:
        return [(self.space.to_json(proposal.candidate), proposal.fidelity) for proposal in proposals]

    def _from_json(self, values: Sequence[tuple[Mapping[str, Any], int | None]]) -> list[Proposal]:
        try:
            found = [Proposal(self.space.from_json(value), fidelity) for value, fidelity in values]
        except ValueError as error:
            raise SamplerError(f"The saved population is not of this space: {error}.") from error
        for _, m in values:
            if not (m is None if self.n_fidelities is None else m in range(self.n_fidelities)):
                raise SamplerError(
                    f"The saved population has a member of fidelity {m}; this sampler has {self.n_fidelities}."
                )
        return found

    # ---------------------------------------------------------------- the search's own

    def first_members(self, rng: np.random.Generator) -> list[Proposal]:
        """Distinct members to begin with: the best of the fit before, and untrained ones."""
        kept = self._members[: round(self.size * (1.0 - self.immigrants))] if self._members else []
        found = dict.fromkeys(kept)
        n_idle = 0
        while len(found) < self.size and n_idle < PATIENCE:
            before = len(found)
            for proposal in self.sample_untrained(self.size - before, seed=_seed(rng)):
                found.setdefault(proposal)
            n_idle = n_idle + 1 if len(found) == before else 0
        return list(found)

    def parameters(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """F and CR of each child, `size` each."""
        strength = self._strength + SPREAD * rng.standard_cauchy(self.size)
        crossover = rng.normal(self._crossover, SPREAD, self.size)
        # JADE draws again what is not positive; so small a step is the limit of that.
        return strength.clip(0.05, 1.0), crossover.clip(0.0, 1.0)

    def adapt(self, strength: Floats, crossover: Floats) -> None:
        """Follow the F and CR of children that were better than their parents; of F the Lehmer mean."""
        if len(strength):
            self._strength += ADAPTATION * (
                float(np.square(strength).sum() / strength.sum()) - self._strength
            )
            self._crossover += ADAPTATION * (float(crossover.mean()) - self._crossover)

    def bred(
        self,
        members: Sequence[Proposal],
        lost: Sequence[Proposal],
        rng: np.random.Generator,
        parameters: tuple[Floats, Floats],
        known: Mapping[Proposal, Any],
    ) -> list[Proposal]:
        """One child of each member.

        Args:
            members: The best first.
            lost: Those that lost their place.
            rng: All randomness comes from it.
            parameters: F and CR of each child.
            known: Proposals that are known; a pool's children are others where there are any near.
        """
        n = len(members)
        everyone = [*members, *lost]
        mates = [members[i] for i in rng.integers(max(math.ceil(self.elite_share * n), 1), size=n)]
        fidelities = self._fidelities(members, mates, rng)

        def is_new(i: int, candidate: Candidate) -> bool:
            return Proposal(candidate, fidelities[i]) not in known

        brood = Brood(
            parents=[member.candidate for member in members],
            mates=[mate.candidate for mate in mates],
            first=[members[i].candidate for i in rng.integers(n, size=n)],
            second=[everyone[i].candidate for i in rng.integers(len(everyone), size=n)],
            strength=parameters[0][:n],
            crossover=parameters[1][:n],
            is_new=is_new,
        )
        children = self._variation.children(brood, rng)
        return [Proposal(child, fidelity) for child, fidelity in zip(children, fidelities, strict=True)]

    def _fidelities(
        self, members: Sequence[Proposal], mates: Sequence[Proposal], rng: np.random.Generator
    ) -> list[int | None]:
        """The fidelity of each child: its parent's, its mate's, or at times any."""
        if self.n_fidelities is None:
            return [None] * len(members)
        chance = rng.random(len(members))
        drawn = rng.integers(self.n_fidelities, size=len(members)).tolist()
        return [
            drawn[i] if chance[i] < NEW_FIDELITY else (mates[i] if chance[i] > 0.75 else member).fidelity
            for i, member in enumerate(members)
        ]


class _Search:
    """One fit under way."""

    def __init__(self, sampler: EvolutionarySampler, log_reward: LogReward, rng: np.random.Generator) -> None:
        self._sampler, self._log_reward, self._rng = sampler, log_reward, rng
        self.known: dict[Proposal, float] = {}
        self._members = sampler.first_members(rng)
        self._evaluate(self._members)
        self._lost: list[Proposal] = []
        self.n_steps = self.n_children = self.n_better = self.n_idle = 0

    def _evaluate(self, proposals: Sequence[Proposal]) -> None:
        if not proposals:
            return
        fidelities = [p.fidelity for p in proposals if p.fidelity is not None]
        found = self._log_reward([p.candidate for p in proposals], fidelities or None).detach().double()
        if found.shape != (len(proposals),) or not bool(found.isfinite().all()):
            raise SamplerError(
                f"The log reward must answer {len(proposals)} candidates with as many finite numbers; it gave shape "
                f"{tuple(found.shape)} with {int((~found.isfinite()).sum())} not finite."
            )
        self.known.update(zip(proposals, found.tolist(), strict=True))

    def ranked(self) -> tuple[list[Proposal], Floats]:
        """Members, the best first, and their log rewards."""
        rewards = np.array([self.known[member] for member in self._members])
        order = np.argsort(-rewards, kind="stable")
        return [self._members[i] for i in order.tolist()], rewards[order]

    def drawn(self, n: int) -> tuple[list[Proposal], Floats]:
        """The best of all that is known and a draw of n - 1 others, with their log rewards."""
        proposals, rewards = list(self.known), np.array(list(self.known.values()))
        others = _drawn(rewards, n, self._rng)
        best = int(rewards.argmax())
        order = [best, *others[others != best].tolist()][:n]
        return [proposals[i] for i in order], rewards[order]

    def advance(self) -> None:
        """One generation."""
        sampler, rng = self._sampler, self._rng
        self._members, _ = self.ranked()
        parameters = sampler.parameters(rng)
        children = self._fresh(sampler.bred(self._members, self._lost, rng, parameters, self.known))
        self._evaluate(list(children.values()))
        better = []
        for i, child in children.items():
            parent = self._members[i]
            if self.known[child] >= self.known[parent]:
                if self.known[child] > self.known[parent]:
                    better.append(i)
                self._lost.append(parent)
                self._members[i] = child
        if len(self._lost) > sampler.size:
            kept = rng.permutation(len(self._lost))[: sampler.size]
            self._lost = [self._lost[i] for i in sorted(kept.tolist())]
        sampler.adapt(parameters[0][better], parameters[1][better])
        self.n_steps += 1
        self.n_children += len(children)
        self.n_better += len(better)
        self.n_idle = 0 if children else self.n_idle + 1

    def _fresh(self, children: Sequence[Proposal]) -> dict[int, Proposal]:
        """By the parent's place: children whose rewards are not known; untrained proposals for those that are."""
        n_known = sum(child in self.known for child in children)
        others = iter(self._sampler.sample_untrained(n_known, seed=_seed(self._rng)) if n_known else [])
        found: dict[int, Proposal] = {}
        taken: set[Proposal] = set()
        for i, child in enumerate(children):
            chosen = child if child not in self.known else next(others, child)
            if chosen not in self.known and chosen not in taken:
                found[i] = chosen
                taken.add(chosen)
        return found


def _drawn(log_weights: Floats, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of a draw of n at most without replacement, in proportion to weights, in the order drawn.

    The n largest of Gumbel-perturbed log weights (Kool, van Hoof & Welling, ICML 2019).
    """
    perturbed = log_weights + rng.gumbel(size=len(log_weights))
    return np.argsort(-perturbed, kind="stable")[: max(n, 0)]


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))
