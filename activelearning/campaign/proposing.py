"""Proposing a round: train the sampler on the cost-aware acquisition, sample a pool, choose a batch from it."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from activelearning.acquisition.batch import SharedLimit, choose_batch, polish
from activelearning.acquisition.cost import log_per_cost, per_cost
from activelearning.acquisition.diversity import Determinantal, Diversity, Repulsion, batch_scale
from activelearning.acquisition.feasible import FeasibleScorer
from activelearning.acquisition.posterior import joint_posterior
from activelearning.acquisition.safe import AloneScorer, SafeScorer, only_fidelity
from activelearning.acquisition.sharpening import least_exponent, sharpen
from activelearning.campaign.config import CampaignConfig
from activelearning.campaign.costs import Costs
from activelearning.campaign.initial import is_of
from activelearning.campaign.parts import Parts
from activelearning.campaign.safety import Expectation, Guard, Trust
from activelearning.campaign.seeds import seed_for
from activelearning.candidate import Candidate
from activelearning.contracts.acquisition import AcquisitionContext, Goals, Scorer
from activelearning.contracts.sampler import LogReward, Proposal
from activelearning.contracts.surrogate import FeasibilityModel, Surrogate
from activelearning.measurement import Measurement
from activelearning.spaces.box import BoxSpace
from activelearning.store.records import COST_TOLERANCE

REFERENCE_SIZE = 256  # untrained samples that stand for the space where an acquisition needs its maximum
UNTRAINED_SIZE = 1024  # samples over which the mean score of an untrained sampler is taken: it is noisy
N_PROMOTED = 256  # candidates asked of other fidelities that are offered at the target, at most
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
    predicted_noise: float | None = None
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
        can_wait: Whether a round may be cut short for the answers of cheap queries; not where rounds are few.
        slots: Evaluations of each fidelity that may be started.
        pending: Work in flight.
        known: How often each (candidate key, fidelity name) was asked so far.
        answered: Pairs with an answer.
        best: Best objective measured at the target fidelity; None with several objectives.
        costs: What answers reserve, and what they are expected to cost.
        cost_figures: What was learned of costs.
        cost_exponent: Of the cost in utility per cost.
        guard: What holds fidelities other than the target in check; None where there is none.
    """

    config: CampaignConfig
    parts: Parts
    round: int
    budget: float
    can_wait: bool
    slots: Mapping[int, int]
    pending: Sequence[Pair]
    known: Mapping[tuple[str, str], int]
    answered: Sequence[Pair]
    best: float | None
    costs: Costs
    cost_figures: Mapping[str, Any]
    cost_exponent: float
    guard: Guard | None

    @property
    def observed(self) -> list[Candidate]:
        """Candidates with an answer."""
        return list(dict.fromkeys(candidate for candidate, _ in self.answered))

    @cached_property
    def again(self) -> list[Candidate]:
        """Candidates with an answer that may be asked again, elsewhere: those that the space holds."""
        if self.config.initial_design.outside == "refuse":
            return self.observed
        return [candidate for candidate in self.observed if is_of(self.parts.space, candidate)]

    def plan(self) -> Plan:
        """Train, sample, choose."""
        acquisition = self.config.acquisition
        untrained = self.parts.sampler.sample_untrained(UNTRAINED_SIZE, seed=self._seed("sampler.untrained"))
        reference = [proposal.candidate for proposal in untrained[:REFERENCE_SIZE]]
        context = self._context(reference)
        alone = None if self.guard is None else self._alone_scorer(self.guard, context)
        scorer = self._scorer(context, alone)
        timings = {}

        begin = time.perf_counter()
        log_reward, exponent = self._log_reward(scorer, reference)
        prior = self.parts.prior
        if prior is not None:
            log_reward = prior.on(log_reward)
        training = self.parts.sampler.fit(log_reward, seed=self._seed("sampler.fit"))
        timings["sampler"] = time.perf_counter() - begin

        begin = time.perf_counter()
        sampled = self.parts.sampler.sample(acquisition.pool_size, seed=self._seed("sampler.sample"))
        trained_score = self._mean_score(scorer, sampled)
        untrained_score = self._mean_score(scorer, untrained)
        pairs = self._fresh(self._with_fidelity(scorer, sampled))
        n_at_target = self._n_at_target(pairs)
        pairs = self._polished(scorer, [*self._with_target(pairs), *self._offered_at_target()])
        pairs = self._fresh([*self._with_every_target(pairs), *self._repeats()])
        independent = [] if alone is None else self._choose_independent(alone, [*sampled, *untrained])
        for planned in independent:
            scorer.add_pending(self._inputs([(planned.candidate, planned.fidelity)]))
        chosen = [*independent, *self._choose(scorer, pairs, independent)]
        timings["choice"] = time.perf_counter() - begin

        summary = {
            "sampler": dict(training),
            "reward_exponent": exponent,
            "cost_exponent": self.cost_exponent,
            **({"costs": dict(self.cost_figures)} if self.cost_figures else {}),
            "trained_score": trained_score,
            "untrained_score": untrained_score,
            "pool": len(pairs),
            "pool_at_target": n_at_target,
            "chosen": len(chosen),
        }
        if self.guard is not None:
            summary["safety"] = self.guard.summary(self._expectations(chosen, len(independent)))
        if prior is not None:
            summary["prior"] = {
                "trained": float(prior([p.candidate for p in sampled]).mean()),
                "untrained": float(prior([p.candidate for p in untrained]).mean()),
            }
        return Plan(chosen, summary, timings)

    def _seed(self, component: str) -> int:
        return seed_for(self.config.seed, self.round, component)

    # -- scoring ------------------------------------------------------------------------------------------------------

    def _context(self, untrained: Sequence[Candidate]) -> AcquisitionContext:
        """What the acquisition may go by; the candidates asked and the untrained ones stand for the space."""
        return AcquisitionContext(
            model=self.parts.surrogate.model,
            fidelities=self.parts.fidelities,
            target=self.parts.target.fidelity.index,
            maximize=self.parts.goals.objectives[0].maximize,
            best=self.best,
            reference=self.parts.space.features(list(dict.fromkeys([*self.observed, *untrained]))),
            pending=self._inputs(self.pending),
            seed=self._seed("acquisition"),
            goals=self.parts.goals,
            answered=self._inputs(self.answered),
        )

    def _scorer(self, context: AcquisitionContext, alone: AloneScorer | None) -> Scorer:
        """Utilities of all queries, as far as the other fidelities are trusted."""
        scorer = self.parts.acquisition.build(context)
        if self.guard is not None:
            cheapest = min(f.cost for f in self.parts.fidelities if not f.is_target)
            scorer = SafeScorer(
                scorer,
                alone if self.guard.standing.trust is Trust.REFUTED else None,
                context.target,
                others_allowed=self.guard.allowance >= cheapest,
            )
        return self._feasible(scorer)

    def _alone_scorer(self, guard: Guard, context: AcquisitionContext) -> AloneScorer:
        """Utilities of the target's queries as if there were no other fidelities."""
        target = self.parts.target.fidelity

        def of_target(pairs: Sequence[Pair]) -> Tensor:
            return only_fidelity(self._inputs([pair for pair in pairs if pair[1] == target.index]))

        alone = replace(
            context,
            model=guard.alone.model,
            fidelities=(replace(target, index=0),),
            target=0,
            pending=of_target(self.pending),
            goals=Goals((replace(self.parts.goals.objectives[0], fidelity=0),)),
            answered=of_target(self.answered),
        )
        return AloneScorer(self.parts.acquisition.build(alone), target.index)

    def _feasible(self, scorer: Scorer) -> Scorer:
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

    def _utilities(self, scorer: Scorer, pairs: Sequence[Pair]) -> Tensor:
        with torch.no_grad():
            return scorer(self._inputs(pairs))

    def _expanded(self, candidates: Sequence[Candidate]) -> list[Pair]:
        """Every candidate at every fidelity, candidate by candidate."""
        return [(candidate, f.index) for candidate in candidates for f in self.parts.fidelities]

    def _log_reward(self, scorer: Scorer, untrained: Sequence[Candidate]) -> tuple[LogReward, float]:
        """The sampler's reward and its exponent: cost-aware acquisition, floored relative to the best known."""
        targets = [fidelity.index for fidelity in self.parts.targets]
        n = len(self.parts.fidelities)
        known = self._expanded(list(dict.fromkeys([*self.observed, *untrained])))
        utilities = self._utilities(scorer, known)
        reference = float(utilities.max())

        def logs_of(utilities: Tensor, pairs: Sequence[Pair]) -> Tensor:
            # What can't be paid for is worth nothing, and being cheap must not make it look better than that.
            costs = self.costs.expected(pairs)
            dear = costs.clamp_min(self.parts.target.fidelity.cost)
            return log_per_cost(
                utilities,
                torch.where(self._payable(pairs), costs, dear),
                reference_utility=reference,
                exponent=self.cost_exponent,
            )

        # By candidate and fidelity; without a fidelity of its own a candidate is worth what its best one is.
        logs = logs_of(utilities, known).reshape(-1, n)
        if self.parts.mode == "after":
            logs = logs.max(dim=1, keepdim=True).values
        elif self.parts.mode == "random":
            logs = logs[:, targets].max(dim=1, keepdim=True).values
        anchors = logs.max(dim=0).values
        # Columns that nothing can be paid for in would pass for a steep reward.
        open_ = self._payable(known).reshape(-1, n).any(dim=0) if logs.shape[1] == n else slice(None)
        stated = self.config.acquisition.reward_exponent
        exponent = (
            least_exponent(logs[:, open_].flatten(), anchors.expand_as(logs)[:, open_].flatten(), GAIN)
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
        return float(per_cost(self._utilities(scorer, pairs), self.costs.expected(pairs)).mean())

    # -- choosing -----------------------------------------------------------------------------------------------------

    def _with_fidelity(self, scorer: Scorer, proposals: Sequence[Proposal]) -> list[Pair]:
        """Pairs of the samples: as sampled, with the fidelity that the acquisition picks, or with each."""
        n = len(self.parts.fidelities)
        if self.parts.mode == "joint":
            return [(p.candidate, p.fidelity) for p in proposals if p.fidelity is not None]
        candidates = [p.candidate for p in proposals]
        if n == 1:
            return [(candidate, 0) for candidate in candidates]
        if self.parts.mode == "random":
            return self._expanded(candidates)  # `_drawn_blindly` decides
        pairs = self._expanded(candidates)
        scores = per_cost(self._utilities(scorer, pairs), self.costs.expected(pairs), self.cost_exponent)
        scores = scores.masked_fill(~self._payable(pairs), -math.inf)
        picked = scores.reshape(len(candidates), n).argmax(dim=1).tolist()
        return [(candidate, int(index)) for candidate, index in zip(candidates, picked, strict=True)]

    def _payable(self, pairs: Sequence[Pair]) -> Tensor:
        """Whether each query could be paid for by itself, `n`, bool: the other fidelities have an allowance."""
        if self.guard is None:
            return torch.ones(len(pairs), dtype=torch.bool)
        allowance = self.guard.allowance * (1.0 + COST_TOLERANCE)
        return torch.tensor(
            [
                self.parts.fidelities[index].is_target or self.costs.reserved(index, candidate) <= allowance
                for candidate, index in pairs
            ],
            dtype=torch.bool,
        )

    def _fresh(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Without what was asked as often as it may be and without repetitions, in order."""
        most = self.config.acquisition.replicates
        return [pair for pair in dict.fromkeys(pairs) if self._times(pair) < most]

    def _times(self, pair: Pair) -> int:
        return self.known.get((pair[0].key, self.parts.fidelities[pair[1]].name), 0)

    def _repeats(self) -> list[Pair]:
        """What was asked before and may be asked again; samplers of a continuum hardly find it by themselves."""
        if self.config.acquisition.replicates == 1:
            return []
        return [pair for pair in self._expanded(self.again) if self._times(pair)]

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

    def _offered_at_target(self) -> list[Pair]:
        """What was asked of other fidelities, at the target: the most promising, by what is expected there.

        A sampler of a continuum hardly returns to a candidate by itself, whatever a cheap answer has said of it. Not
        where fidelities are drawn blindly, whatever the answers say; several targets are seen to by
        `_with_every_target`.
        """
        if self.parts.mode == "random" or len(self.parts.targets) > 1:
            return []
        target = self.parts.target.fidelity.index
        asked = {candidate for candidate, index in self.answered if index == target}
        pairs = self._fresh([(candidate, target) for candidate in self.again if candidate not in asked])
        if not pairs:
            return []
        with torch.no_grad():
            means, _ = joint_posterior(self.parts.surrogate.model, self._inputs(pairs).unsqueeze(-2))
        maximize = self.parts.goals.objectives[0].maximize
        order = torch.argsort(means.flatten(), descending=maximize, stable=True)[:N_PROMOTED]
        return [pairs[i] for i in order.tolist()]

    def _with_every_target(self, pairs: list[Pair]) -> list[Pair]:
        """With several targets, candidates of the pool and those observed are offered at each of them.

        A candidate counts once all its targets are measured, and a sampler hardly ever returns to one by itself.
        """
        targets = self.parts.targets
        if len(targets) == 1:
            return pairs
        candidates = dict.fromkeys([*(candidate for candidate, _ in pairs), *self.again])
        return self._fresh([*pairs, *((c, target.index) for c in candidates for target in targets)])

    def _polished(self, scorer: Scorer, pairs: list[Pair]) -> list[Pair]:
        """On a box, the best pairs of each fidelity, moved uphill on the acquisition, are added to the pool.

        Of each: by utility per cost the best of all are often those of the cheapest alone. Not where there is a prior,
        which the moves would leave behind.
        """
        space = self.parts.space
        if not isinstance(space, BoxSpace) or not pairs or self.parts.prior is not None:
            return pairs
        scores = per_cost(self._utilities(scorer, pairs), self.costs.expected(pairs), self.cost_exponent)
        order = torch.argsort(scores, descending=True, stable=True).tolist()
        most = self.config.acquisition.batch_size
        best = [
            pair
            for fidelity in self.parts.fidelities
            for pair in itertools.islice((pairs[i] for i in order if pairs[i][1] == fidelity.index), most)
        ]
        improved = polish(scorer, self._inputs(best))
        moved = space.from_features(improved[:, :-1])
        return self._fresh([*pairs, *((c, index) for c, (_, index) in zip(moved, best, strict=True))])

    def _choose(
        self, scorer: Scorer, pairs: list[Pair], taken: Sequence[PlannedEvaluation]
    ) -> list[PlannedEvaluation]:
        """The batch, beside what has been taken into it already."""
        held = {(planned.candidate, planned.fidelity) for planned in taken}
        pairs = [pair for pair in pairs if pair not in held]
        slots = dict(self.slots)
        for planned in taken:
            slots[planned.fidelity] -= 1
        shared = None
        if self.guard is not None:
            others = frozenset(f.index for f in self.parts.fidelities if not f.is_target)
            shared = SharedLimit(others, self.guard.allowance)
        # Answers in process are worth waiting for; not where fidelities are drawn blindly, whatever the answers say,
        # nor where the campaign would end with its last round and money left.
        quick = {
            source.fidelity.index for source in self.parts.sources if not source.is_queued and self.can_wait
        }
        if self.parts.mode == "random":
            slots, quick = self._drawn_blindly(pairs, slots), set()
        budget = self.budget - math.fsum(planned.cost for planned in taken)
        return self._picked(scorer, pairs, budget, slots, taken, shared=shared, patient=quick)

    def _drawn_blindly(self, pairs: Sequence[Pair], slots: Mapping[int, int]) -> dict[int, int]:
        """How many queries of each fidelity chance wants of this round, each with the same probability.

        There is one sequence of draws in a campaign, a draw for each query. One that this round can't start or pay for
        any more ends it and opens the next round, so that dear fidelities are drawn as often as cheap ones; what can't
        be started even by itself is not drawn.
        """
        there = {index for _, index in pairs}
        found = dict.fromkeys(slots, 0)
        left, asked = self.budget * (1.0 + COST_TOLERANCE), sum(self.known.values())
        open_ = [
            f for f in self.parts.fidelities if f.index in there and slots[f.index] > 0 and f.cost <= left
        ]
        while open_:
            generator = np.random.default_rng(seed_for(self.config.seed, asked, "fidelity.random"))
            drawn = open_[generator.integers(len(open_))]
            if drawn.cost > left or found[drawn.index] == slots[drawn.index]:
                break
            found[drawn.index] += 1
            left -= drawn.cost
            asked += 1
        return found

    def _choose_independent(
        self, alone: AloneScorer, proposals: Sequence[Proposal]
    ) -> list[PlannedEvaluation]:
        """Queries of the target chosen as if there were no other fidelities, where some are due."""
        assert self.guard is not None
        if self.guard.standing.trust is Trust.REFUTED:
            return []  # all of them will be
        target = self.parts.target.fidelity.index
        due = min(self.guard.standing.n_due(self.guard.config), self.slots[target])
        if not due:
            return []
        scorer = self._feasible(alone)
        candidates = dict.fromkeys(proposal.candidate for proposal in proposals)
        pairs = self._polished(scorer, self._fresh([(candidate, target) for candidate in candidates]))
        return self._picked(scorer, pairs, self.budget, {target: due})

    def _picked(
        self,
        scorer: Scorer,
        pairs: list[Pair],
        budget: float,
        slots: Mapping[int, int],
        taken: Sequence[PlannedEvaluation] = (),
        **limits: Any,
    ) -> list[PlannedEvaluation]:
        if not pairs:
            return []
        inputs, costs = self._inputs(pairs), self.costs.expected(pairs)
        reserved = torch.tensor([self.costs.reserved(m, c) for c, m in pairs], dtype=torch.float64)
        utilities = self._utilities(scorer, pairs)
        picked = choose_batch(
            scorer,
            inputs,
            costs,
            reserved=reserved,
            budget=budget,
            remaining=slots,
            exponent=self.cost_exponent,
            diversity=self._diversity(inputs, taken),
            rescore=self.config.acquisition.diversity != "determinantal",
            **limits,
        )
        if not picked:
            return []
        noise = dict(zip(picked, expected_noise(self.parts.surrogate, inputs[picked]).tolist(), strict=True))
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
                cost=float(reserved[i]),
                acquisition=float(utilities[i]),
                predicted_mean=predicted[i][0],
                predicted_std=predicted[i][1],
                predicted_noise=noise[i],
            )
            for i in picked
        ]

    def _expectations(self, chosen: Sequence[PlannedEvaluation], n_independent: int) -> list[Expectation]:
        """What is foretold of the target's answers, with the other fidelities and without them."""
        assert self.guard is not None
        target = self.parts.target.fidelity.index
        asked = [(i, planned) for i, planned in enumerate(chosen) if planned.fidelity == target]
        if not asked:
            return []
        candidates = [planned.candidate for _, planned in asked]
        alone = self.guard.alone.predict(candidates, 0)
        X = only_fidelity(self._inputs([(candidate, target) for candidate in candidates]))
        alone_std = torch.hypot(alone.std, expected_noise(self.guard.alone, X))
        n_known = sum(index == target for _, index in self.answered)
        found = []
        for (i, planned), mean, std in zip(asked, alone.mean.tolist(), alone_std.tolist(), strict=True):
            # Every query that was picked has its prediction.
            assert planned.predicted_mean is not None
            assert planned.predicted_std is not None
            assert planned.predicted_noise is not None
            found.append(
                Expectation(
                    planned.candidate.key,
                    (planned.predicted_mean, math.hypot(planned.predicted_std, planned.predicted_noise)),
                    (mean, std),
                    independent=i < n_independent or self.guard.standing.trust is Trust.REFUTED,
                    n_known=n_known,
                )
            )
        return found

    def _diversity(self, X: Tensor, taken: Sequence[PlannedEvaluation]) -> Diversity | None:
        """What holds the batch apart, told of the work in flight and of what has been taken into the batch already."""
        acquisition = self.config.acquisition
        if acquisition.diversity == "none":
            return None
        make = Determinantal if acquisition.diversity == "determinantal" else Repulsion
        diversity = make(X, batch_scale(X, acquisition.batch_size))
        beside = [*self.pending, *((planned.candidate, planned.fidelity) for planned in taken)]
        diversity.take(self._inputs(beside))
        return diversity


def expected_noise(surrogate: Surrogate, X: Tensor) -> Tensor:
    """Standard deviation, `n`, that a surrogate's model expects of answers about their noise-free values."""
    single = X.unsqueeze(-2)
    with torch.no_grad():
        noisy, free = (
            joint_posterior(surrogate.model, single, noisy=noisy)[1].flatten() for noisy in (True, False)
        )
    return (noisy - free).clamp_min(0.0).sqrt()
