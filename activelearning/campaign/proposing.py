"""Proposing a round: train the sampler on the cost-aware acquisition, sample a pool, choose a batch from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from activelearning.acquisition.batch import choose_batch, polish
from activelearning.acquisition.cost import log_per_cost, per_cost
from activelearning.acquisition.feasible import FeasibleScorer
from activelearning.acquisition.sharpening import least_exponent, sharpen
from activelearning.campaign.config import CampaignConfig
from activelearning.campaign.parts import Parts
from activelearning.campaign.seeds import seed_for
from activelearning.candidate import Candidate
from activelearning.contracts.acquisition import AcquisitionContext, Scorer
from activelearning.contracts.sampler import LogReward, Proposal
from activelearning.contracts.surrogate import FeasibilityModel
from activelearning.measurement import Measurement
from activelearning.spaces.box import BoxSpace

REFERENCE_SIZE = 256  # untrained samples that stand for the space where an acquisition needs its maximum
UNTRAINED_SIZE = 1024  # samples over which the mean score of an untrained sampler is taken: it is noisy
GAIN = 4.0  # mean score of sampled over random candidates that `reward_exponent: auto` aims at

Pair = tuple[Candidate, int]


@dataclass(frozen=True)
class PlannedEvaluation:
    """One question of the round to come."""

    candidate: Candidate
    fidelity: int
    cost: float
    replicate: int = 0
    acquisition: float | None = None
    predicted_mean: float | None = None
    predicted_std: float | None = None
    measurement: Measurement | None = None


@dataclass(frozen=True)
class Plan:
    """The round to come, with figures of how it was found."""

    evaluations: Sequence[PlannedEvaluation]
    summary: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Proposer:
    """The work of one `propose` step.

    Attributes:
        budget: Cost that the batch may reserve.
        slots: Evaluations of each fidelity that may be started.
        pending: Work in flight.
        known: (candidate key, fidelity name) of everything asked so far.
        answered: Pairs with an answer.
        best: Best objective measured at the target fidelity; None with several objectives.
        cost: Expected cost of (fidelity, candidate).
    """

    config: CampaignConfig
    parts: Parts
    round: int
    budget: float
    slots: Mapping[int, int]
    pending: Sequence[Pair]
    known: set[tuple[str, str]]
    answered: Sequence[Pair]
    best: float | None
    cost: Callable[[int, Candidate], float]

    @property
    def observed(self) -> list[Candidate]:
        """Candidates with an answer."""
        return list(dict.fromkeys(candidate for candidate, _ in self.answered))

    def plan(self) -> Plan:
        """Train, sample, choose."""
        acquisition = self.config.acquisition
        untrained = self.parts.sampler.sample_untrained(UNTRAINED_SIZE, seed=self._seed("sampler.untrained"))
        reference = [proposal.candidate for proposal in untrained[:REFERENCE_SIZE]]
        scorer = self._scorer(reference)
        timings = {}

        begin = time.perf_counter()
        log_reward, exponent = self._log_reward(scorer, reference)
        training = self.parts.sampler.fit(log_reward, seed=self._seed("sampler.fit"))
        timings["sampler"] = time.perf_counter() - begin

        begin = time.perf_counter()
        sampled = self.parts.sampler.sample(acquisition.pool_size, seed=self._seed("sampler.sample"))
        trained_score = self._mean_score(scorer, sampled)
        untrained_score = self._mean_score(scorer, untrained)
        pairs = self._fresh(self._with_fidelity(scorer, sampled))
        n_at_target = self._n_at_target(pairs)
        pairs = self._with_every_target(self._polished(scorer, self._with_target(pairs)))
        chosen = self._choose(scorer, pairs)
        timings["choice"] = time.perf_counter() - begin

        summary = {
            "sampler": dict(training),
            "reward_exponent": exponent,
            "trained_score": trained_score,
            "untrained_score": untrained_score,
            "pool": len(pairs),
            "pool_at_target": n_at_target,
            "chosen": len(chosen),
        }
        return Plan(chosen, summary, timings)

    def _seed(self, component: str) -> int:
        return seed_for(self.config.seed, self.round, component)

    # -- scoring ------------------------------------------------------------------------------------------------------

    def _scorer(self, untrained: Sequence[Candidate]) -> Scorer:
        reference = list(dict.fromkeys([*self.observed, *untrained]))
        scorer = self.parts.acquisition.build(
            AcquisitionContext(
                model=self.parts.surrogate.model,
                fidelities=self.parts.fidelities,
                target=self.parts.target.fidelity.index,
                maximize=self.parts.goals.objectives[0].maximize,
                best=self.best,
                reference=self.parts.space.features(reference),
                pending=self._inputs(self.pending),
                seed=self._seed("acquisition"),
                goals=self.parts.goals,
                answered=self._inputs(self.answered),
            )
        )
        surrogate = self.parts.surrogate
        return (
            FeasibleScorer(scorer, surrogate.feasibility)
            if isinstance(surrogate, FeasibilityModel)
            else scorer
        )

    def _inputs(self, pairs: Sequence[Pair]) -> Tensor:
        """Model inputs, `n x (d + 1)`, of (candidate, fidelity) pairs."""
        if not pairs:
            return torch.empty(0, self.parts.space.n_features + 1, dtype=torch.float64)
        features = self.parts.space.features([candidate for candidate, _ in pairs])
        column = torch.tensor([[float(index)] for _, index in pairs], dtype=torch.float64)
        return torch.cat([features, column], dim=-1)

    def _costs(self, pairs: Sequence[Pair]) -> Tensor:
        return torch.tensor([self.cost(index, candidate) for candidate, index in pairs], dtype=torch.float64)

    def _utilities(self, scorer: Scorer, pairs: Sequence[Pair]) -> Tensor:
        with torch.no_grad():
            return scorer(self._inputs(pairs))

    def _expanded(self, candidates: Sequence[Candidate]) -> list[Pair]:
        """Every candidate at every fidelity, candidate by candidate."""
        return [(candidate, f.index) for candidate in candidates for f in self.parts.fidelities]

    def _log_reward(self, scorer: Scorer, untrained: Sequence[Candidate]) -> tuple[LogReward, float]:
        """The sampler's reward and its exponent: cost-aware acquisition, floored relative to the best known."""
        cost_exponent = self.config.acquisition.cost_exponent
        targets = [fidelity.index for fidelity in self.parts.targets]
        n = len(self.parts.fidelities)
        known = self._expanded(list(dict.fromkeys([*self.observed, *untrained])))
        utilities = self._utilities(scorer, known)
        reference = float(utilities.max())

        def logs_of(utilities: Tensor, pairs: Sequence[Pair]) -> Tensor:
            return log_per_cost(
                utilities, self._costs(pairs), reference_utility=reference, exponent=cost_exponent
            )

        # By candidate and fidelity; without a fidelity of its own a candidate is worth what its best one is.
        logs = logs_of(utilities, known).reshape(-1, n)
        if self.parts.mode == "after":
            logs = logs.max(dim=1, keepdim=True).values
        elif self.parts.mode == "random":
            logs = logs[:, targets].max(dim=1, keepdim=True).values
        anchors = logs.max(dim=0).values
        stated = self.config.acquisition.reward_exponent
        exponent = (
            least_exponent(logs.flatten(), anchors.expand_as(logs).flatten(), GAIN)
            if stated == "auto"
            else stated
        )

        def log_reward(candidates: Sequence[Candidate], fidelities: Sequence[int] | None) -> Tensor:
            if fidelities is not None:
                pairs = list(zip(candidates, fidelities, strict=True))
                return sharpen(
                    logs_of(self._utilities(scorer, pairs), pairs), anchors[list(fidelities)], exponent
                )
            if self.parts.mode == "random":
                # The fidelity is drawn blindly later: candidates are sought for the targets alone.
                pairs = [(candidate, index) for candidate in candidates for index in targets]
                found = logs_of(self._utilities(scorer, pairs), pairs)
                found = found.reshape(-1, len(targets)).max(dim=1).values
            else:
                pairs = self._expanded(candidates)
                found = logs_of(self._utilities(scorer, pairs), pairs).reshape(-1, n).max(dim=1).values
            return sharpen(found, anchors, exponent)

        return log_reward, exponent

    def _mean_score(self, scorer: Scorer, proposals: Sequence[Proposal]) -> float:
        """Mean of acquisition ÷ cost over samples as the sampler gave them."""
        pairs = self._with_fidelity(scorer, proposals)
        return float(per_cost(self._utilities(scorer, pairs), self._costs(pairs)).mean())

    # -- choosing -----------------------------------------------------------------------------------------------------

    def _with_fidelity(self, scorer: Scorer, proposals: Sequence[Proposal]) -> list[Pair]:
        """Pairs of the samples: as sampled, or with the fidelity that the acquisition or chance picks."""
        n = len(self.parts.fidelities)
        if self.parts.mode == "joint":
            return [(p.candidate, p.fidelity) for p in proposals if p.fidelity is not None]
        candidates = [p.candidate for p in proposals]
        if n == 1:
            return [(candidate, 0) for candidate in candidates]
        if self.parts.mode == "random":
            generator = np.random.default_rng(self._seed("fidelity.random"))
            return [
                (candidate, int(index))
                for candidate, index in zip(
                    candidates, generator.integers(n, size=len(candidates)), strict=True
                )
            ]
        pairs = self._expanded(candidates)
        scores = per_cost(
            self._utilities(scorer, pairs), self._costs(pairs), self.config.acquisition.cost_exponent
        )
        picked = scores.reshape(len(candidates), n).argmax(dim=1).tolist()
        return [(candidate, int(index)) for candidate, index in zip(candidates, picked, strict=True)]

    def _fresh(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Without what was asked before and without repetitions, in order."""
        names = [f.name for f in self.parts.fidelities]
        return [
            (candidate, index)
            for candidate, index in dict.fromkeys(pairs)
            if (candidate.key, names[index]) not in self.known
        ]

    def _n_at_target(self, pairs: Sequence[Pair]) -> int:
        return sum(self.parts.fidelities[index].is_target for _, index in pairs)

    def _with_target(self, pairs: list[Pair]) -> list[Pair]:
        """Where a target is so dear that samples hardly name it, every sampled candidate is offered at it too.

        Answers of the other fidelities are worth nothing if the target is never asked. What is added is judged by the
        same acquisition and cost as what was sampled, and bought only with what the better bargains leave.
        """
        if self.parts.mode != "joint":
            return pairs
        sampled = list(pairs)
        for target in self.parts.targets:
            affordable = min(int(self.budget / target.cost * (1 + 1e-9)), self.slots[target.index])
            if sum(index == target.index for _, index in sampled) < affordable:
                pairs = self._fresh([*pairs, *((candidate, target.index) for candidate, _ in sampled)])
        return pairs

    def _with_every_target(self, pairs: list[Pair]) -> list[Pair]:
        """With several targets, candidates of the pool and those observed are offered at each of them.

        A candidate counts once all its targets are measured, and a sampler hardly ever returns to one by itself.
        """
        targets = self.parts.targets
        if len(targets) == 1:
            return pairs
        candidates = dict.fromkeys([*(candidate for candidate, _ in pairs), *self.observed])
        return self._fresh([*pairs, *((c, target.index) for c in candidates for target in targets)])

    def _polished(self, scorer: Scorer, pairs: list[Pair]) -> list[Pair]:
        """On a box, the best pairs moved uphill on the acquisition are added to the pool."""
        space = self.parts.space
        if not isinstance(space, BoxSpace) or not pairs:
            return pairs
        exponent = self.config.acquisition.cost_exponent
        scores = per_cost(self._utilities(scorer, pairs), self._costs(pairs), exponent)
        order = torch.argsort(scores, descending=True, stable=True)[: self.config.acquisition.batch_size]
        best = [pairs[i] for i in order.tolist()]
        improved = polish(scorer, self._inputs(best))
        moved = space.from_features(improved[:, :-1])
        return self._fresh([*pairs, *((c, index) for c, (_, index) in zip(moved, best, strict=True))])

    def _choose(self, scorer: Scorer, pairs: list[Pair]) -> list[PlannedEvaluation]:
        if not pairs:
            return []
        inputs, costs = self._inputs(pairs), self._costs(pairs)
        utilities = self._utilities(scorer, pairs)
        picked = choose_batch(
            scorer,
            inputs,
            costs,
            budget=self.budget,
            remaining=self.slots,
            exponent=self.config.acquisition.cost_exponent,
        )
        predicted: dict[int, tuple[float, float]] = {}
        for index in sorted({pairs[i][1] for i in picked}):
            mine = [i for i in picked if pairs[i][1] == index]
            prediction = self.parts.surrogate.predict([pairs[i][0] for i in mine], index)
            for i, mean, std in zip(mine, prediction.mean.tolist(), prediction.std.tolist(), strict=True):
                predicted[i] = (mean, std)
        return [
            PlannedEvaluation(
                candidate=pairs[i][0],
                fidelity=pairs[i][1],
                cost=float(costs[i]),
                acquisition=float(utilities[i]),
                predicted_mean=predicted[i][0],
                predicted_std=predicted[i][1],
            )
            for i in picked
        ]
