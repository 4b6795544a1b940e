"""The campaign engine: the steps of a round as plain functions over the store.

Everything that matters is in the store; an engine may be lost at any instant. Steps between `fit` and `commit` keep
their work in memory only, and depend on nothing but the store's rows, the warm states committed with the last round and
the seed, so that repeating them gives the same result, bit for bit.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from activelearning.campaign.agreement import agreement
from activelearning.campaign.answering import checked
from activelearning.campaign.config import CampaignConfig
from activelearning.campaign.continuation import check_continuation
from activelearning.campaign.costs import Charge, Costs
from activelearning.campaign.evaluation import Evaluator, Observer
from activelearning.campaign.funnel import FunnelProposer
from activelearning.campaign.initial import Known, design_counts, design_pairs, read_observations
from activelearning.campaign.parts import Parts, make_parts
from activelearning.campaign.proposing import Plan, PlannedEvaluation, Proposer
from activelearning.campaign.queues import Queues
from activelearning.campaign.safety import Expectation, Guard, Standing, judge
from activelearning.campaign.sections import resolved_path
from activelearning.campaign.seeds import seed_for
from activelearning.campaign.states import pack, unpack
from activelearning.campaign.stopping import Action, Decision, Stopping
from activelearning.candidate import Candidate, candidate_from_dict, digest
from activelearning.contracts.surrogate import FeasibilityModel
from activelearning.errors import ActiveLearningError, ConfigError, EvaluatingError
from activelearning.observation import Observation, Outcome
from activelearning.report.prequential import forecasts, prequential
from activelearning.store.database import Database, check_reachable, open_database, resolve_url
from activelearning.store.models import OPEN_STATES, CampaignState, State
from activelearning.store.records import COST_TOLERANCE, Balance, NewEvaluation, NewRound
from activelearning.store.repository import Repository
from activelearning.store.workers import WorkerRegistration


def _silent(_event: str, _facts: Mapping[str, Any]) -> None:
    return


class Engine:
    """One campaign, opened by one process."""

    def __init__(
        self,
        config: CampaignConfig,
        parts: Parts,
        database: Database,
        artifacts: Path,
        observer: Observer | None = None,
    ) -> None:
        self.config = config
        self.parts = parts
        self.database = database
        self.artifacts = artifacts
        self.repository = Repository(database, config.name)
        self._observe: Observer = observer or _silent
        self._worker = WorkerRegistration(database, config.name)
        self._evaluator = Evaluator(parts, self.repository, self._worker.id, artifacts, self._observe)
        self._queues = Queues(parts, self.repository, self._evaluator, self._observe)
        self._stopping = Stopping(config, parts, self.repository)
        self._costs = Costs(parts)
        self._plan: Plan | None = None
        self._timings: dict[str, float] = {}
        self._fit_figures: Mapping[str, Any] = {}
        self._answered: list[tuple[Candidate, int]] = []
        self._diagnostics: Mapping[str, Any] = {}

    # -- opening and closing ------------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        config: CampaignConfig,
        *,
        folder: Path,
        store: str | None = None,
        observer: Observer | None = None,
    ) -> Engine:
        """Check everything, then create the campaign or continue it.

        Args:
            config: The campaign's config.
            folder: The config's folder: plug-in files and data are looked for there.
            store: Database URL; default the config's, relative to the working directory.
            observer: Told of every step and every change of an evaluation's state.

        Raises:
            ActiveLearningError: naming the key, plug-in or store at fault; nothing was written.
        """
        # Results must not depend on how many threads share a sum.
        torch.set_num_threads(1)
        folder = folder.resolve()
        url = resolve_url(store or config.store)
        check_reachable(url)
        artifacts = artifacts_folder(config, url)
        parts = make_parts(
            config, folder=folder, store=url.render_as_string(hide_password=False), artifacts=artifacts
        )
        counts = design_counts(
            config.initial_design, parts.fidelities, parts.space.n_features, config.budget.total
        )
        if config.initial_design.observations is not None:
            _known(config, parts, folder)
        elif not sum(counts.values()):
            raise ConfigError("initial_design: not one evaluation fits into its share of the budget.")
        database = open_database(url, create=True)
        try:
            repository = Repository(database, config.name)
            stated = config.to_json()
            # Spelled out, so that a campaign of the default sampler can be continued with other step counts.
            stated["sampler"] = stated["sampler"] or {"type": parts.space.default_sampler}
            stored = repository.stored_config()
            if stored is not None:
                check_continuation(stored, stated)
            repository.save(stated, str(folder), str(artifacts))
            return cls(config, parts, database, artifacts, observer)
        except BaseException:
            database.close()
            raise

    @property
    def name(self) -> str:
        """The campaign's name."""
        return self.config.name

    @property
    def round(self) -> int:
        """Index of the next round to be committed."""
        last = self.repository.last_round()
        return 0 if last is None else last + 1

    def balance(self) -> Balance:
        """The campaign's money."""
        return self.repository.balance(self.config.budget.total)

    def close(self) -> None:
        """End worker processes and give back lease, claims and connections."""
        with ExitStack() as stack:  # each is done, whatever the one before raises
            stack.callback(self.database.close)
            stack.callback(self._worker.close)
            stack.callback(self.repository.release_claims, self._worker.id)
            stack.callback(self._evaluator.close)

    def __enter__(self) -> Engine:
        """Use as a context manager that closes at its end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; after an error the worker processes are killed first."""
        if error is None:
            self.close()
            return
        self._evaluator.kill()
        with suppress(SQLAlchemyError):  # a full disk, say; the first error is the one to tell
            self.close()

    def abort(self) -> None:
        """End evaluations at once, from any thread; what they were at stays open for the next run."""
        self._evaluator.kill()

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Hold the mutex of the campaign's steps.

        Raises:
            LeaseHeldError: another live process has it.
        """
        with self._worker.lease(self.name):
            yield

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self._observe(f"step.{name}", {"round": self.round})
        begin = time.perf_counter()
        yield
        self._timings[name] = time.perf_counter() - begin

    # -- the steps ----------------------------------------------------------------------------------------------------

    def reconcile(self) -> None:
        """Bring the store up to what is true outside: finish half-done submissions of a lost process."""
        with self._step("reconcile"):
            state, _ = self.repository.state()
            if state not in (CampaignState.RUNNING, CampaignState.CANCELLED):
                self.repository.set_state(CampaignState.RUNNING, None)
            if state is not CampaignState.CANCELLED:
                self._queues.submit()
            else:
                self._queues.cancel("the campaign was cancelled")

    def ingest(self) -> int:
        """Take in what outside oracles have finished, corrected or say unasked; returns the number of results."""
        with self._step("ingest"):
            n = self._queues.ingest() + self._queues.follow_corrections() + self._take_unasked()
            if self.repository.state()[0] is not CampaignState.CANCELLED:
                self._queues.refill()  # what has come back left room for what waits
            return n

    def _take_unasked(self) -> int:
        """Take in what people measured unasked, free of charge, into the last committed round."""
        unasked = self._queues.unasked()
        if not unasked:
            return 0
        taken = {row.external_id for row in self.repository.evaluations()}
        found = [(source, answer) for source, answer in unasked if answer.external_id not in taken]
        asked = self.repository.times_asked()
        new = []
        for source, answer in found:
            measurement = checked(
                answer.measurement, source.config.oracle, source.fidelity.property, source.fidelity.unit
            )
            if not measurement.is_success:
                continue  # what nobody asked for and did not work out says nothing
            measurement, files = self._evaluator.keep_files(source.name, answer.external_id, measurement)
            planned = PlannedEvaluation(answer.candidate, source.fidelity.index, 0.0, measurement=measurement)
            made = self._new(planned, asked)
            new.append(replace(made, external_id=answer.external_id, artifacts=files))
            asked[answer.candidate.key, source.name] += 1
        return self.repository.add_unasked(new, worker=self._worker)

    def outstanding(self) -> dict[str, list[str]]:
        """Evaluations still to be made in process, by fidelity, in the stated order."""
        state, _ = self.repository.state()
        if state is CampaignState.CANCELLED:
            return {}
        names = [source.name for source in self.parts.sources if not source.is_queued]
        keys: dict[str, list[str]] = {}
        for row in self.repository.evaluations(states=[State.SUBMITTED, State.RUNNING], fidelities=names):
            keys.setdefault(row.fidelity, []).append(row.key)
        return keys

    def decide(self) -> Decision:
        """Whether another round is due.

        Raises:
            EvaluatingError: another process is still evaluating for this campaign.
        """
        if any(self.outstanding().values()):
            raise EvaluatingError(
                f"Another process is still evaluating for the campaign {self.name!r}; go on when it is done."
            )
        decision = self._stopping.decide()
        faults = "; ".join(self._queues.faults.values())
        if faults and decision.action is Action.WAITING:
            return Decision(decision.action, f"{decision.reason}; {faults}")
        return decision

    def fit(self) -> Mapping[str, Any]:
        """Fit the surrogate to every observation in the store; returns figures. Round 0 has nothing to fit."""
        with self._step("fit"):
            index = self.round
            if index == 0:
                return {}
            observations = self._observations()
            surrogate = self.parts.surrogate
            state = self.repository.checkpoint("surrogate")
            if state is not None:
                surrogate.load_state_dict(unpack(state))
            seed = seed_for(self.config.seed, index, "surrogate.fit")
            figures = dict(surrogate.fit(observations, seed=seed))
            if isinstance(surrogate, FeasibilityModel):
                seed = seed_for(self.config.seed, index, "surrogate.feasibility")
                figures["feasibility"] = dict(surrogate.fit_feasibility(self._outcomes(), seed=seed))
            self._fit_alone(observations, seed_for(self.config.seed, index, "surrogate.alone"))
            self._fit_figures = figures
            self._answered = [(observation.candidate, observation.fidelity) for observation in observations]
            self._diagnostics = self._diagnose(index, observations, figures)
            return figures

    def _fit_alone(self, observations: Sequence[Observation], seed: int) -> None:
        """Fit the surrogate that knows the target alone, against which the other fidelities must prove themselves."""
        if self.parts.alone is None:
            return
        state = self.repository.checkpoint("surrogate.alone")
        if state is not None:
            self.parts.alone.load_state_dict(unpack(state))
        target = self.parts.target.fidelity.index
        self.parts.alone.fit(
            [replace(o, fidelity=0) for o in observations if o.fidelity == target], seed=seed
        )

    def _guard(self) -> Guard | None:
        """Where the other fidelities stand, from what was foretold and what was answered; None without any."""
        if self.parts.alone is None:
            return None
        target = self.parts.target.name
        answers = self.repository.answers_by_round(target)
        foretold = []
        for index, summary in enumerate(self.repository.round_summaries()):
            for stored in summary.get("safety", {}).get("expected", ()):
                expected = Expectation.from_json(stored)
                foretold.append((expected, answers.get((index, expected.candidate))))
        money = self.repository.charged(from_round=1)  # the initial design is what its own share says
        spent_target = money.pop(target, 0.0)
        standing = Standing(
            scores=judge(foretold),
            n_target=len(foretold),
            n_independent=sum(expected.independent for expected, _ in foretold),
            spent_target=spent_target,
            spent_others=math.fsum(money.values()),
        )
        return Guard(standing, self.config.safety, self.config.budget.total, self.parts.alone)

    def _diagnose(
        self, index: int, observations: Sequence[Observation], figures: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What the answers say of the model; `pending` are those that a later round will judge."""
        made = forecasts(self.database, self.name)
        awaited = set(self.repository.round_summary(index - 1).get("pending", ()))
        new = [f for f in made if f.round == index - 1 or f.key in awaited]
        return {
            "prequential": prequential(made, new),
            "agreement": agreement(
                observations, self.parts.fidelities, figures, target=self.parts.target.fidelity.index
            ),
            "pending": [row.key for row in self.repository.evaluations(states=OPEN_STATES)],
        }

    def _outcomes(self) -> list[Outcome]:
        index = {source.name: source.fidelity.index for source in self.parts.sources}
        return [
            Outcome(candidate, index[name], answered)
            for candidate, name, answered in self.repository.outcomes()
        ]

    def _observations(self) -> list[Observation]:
        index = {source.name: source.fidelity.index for source in self.parts.sources}
        return [
            Observation(candidate, index[name], m.value, m.std, m.censoring)
            for candidate, name, m in self.repository.answers()
        ]

    def propose(self) -> Decision:
        """Choose the next round's evaluations; finished or waiting where there is nothing left to ask."""
        with self._step("propose"):
            index = self.round
            plan = self._initial_plan() if index == 0 else self._proposer(index).plan()
        self._plan = plan
        if plan.evaluations:
            return Decision(Action.CONTINUE, "")
        reason = "the sampler proposes nothing new that the budget and the limits in flight allow"
        waiting = self.repository.evaluations(states=OPEN_STATES)
        return Decision(Action.WAITING if waiting else Action.FINISHED, reason)

    def _initial_plan(self) -> Plan:
        design = self.config.initial_design
        planned: list[PlannedEvaluation] = []
        if design.observations is not None:
            asked: Counter[tuple[str, int]] = Counter()
            for known in _known(self.config, self.parts, self.parts.sources[0].spec.folder or Path()):
                pair = (known.candidate.key, known.fidelity.index)
                planned.append(
                    PlannedEvaluation(
                        known.candidate,
                        known.fidelity.index,
                        0.0,
                        replicate=asked[pair],
                        measurement=known.measurement,
                    )
                )
                asked[pair] += 1
            if design.per_fidelity is None:
                return Plan(planned)
        held = {(known.candidate, known.fidelity) for known in planned}
        counts = design_counts(
            design, self.parts.fidelities, self.parts.space.n_features, self.config.budget.total
        )
        wanted = max(counts.values())
        seed = seed_for(self.config.seed, 0, "initial_design")
        proposals = self.parts.sampler.sample_untrained(2 * wanted, seed=seed)
        candidates = list(dict.fromkeys(proposal.candidate for proposal in proposals))[:wanted]
        money = self.balance().remaining * (1 + COST_TOLERANCE)
        for candidate, index in design_pairs(candidates, counts):
            cost = self._costs.reserved(index, candidate)
            # What an oracle foresees for a candidate may differ from the configured cost.
            if cost <= money and (candidate, index) not in held:
                planned.append(PlannedEvaluation(candidate, index, cost))
                money -= cost
        return Plan(planned)

    def _proposer(self, index: int) -> Proposer:
        balance = self.balance()
        in_flight: dict[str, int] = {}
        pending = []
        for row in self.repository.evaluations(states=OPEN_STATES):
            in_flight[row.fidelity] = in_flight.get(row.fidelity, 0) + 1
            pending.append(
                (candidate_from_dict(row.candidate), self.parts.source(row.fidelity).fidelity.index)
            )
        acquisition = self.config.acquisition
        slots = {}
        for source in self.parts.sources:
            limit = acquisition.batch_size
            if source.is_queued and source.config.max_in_flight is not None:
                limit = min(limit, source.config.max_in_flight - in_flight.get(source.name, 0))
            slots[source.fidelity.index] = max(limit, 0)
        sampler_state = self.repository.checkpoint("sampler")
        if sampler_state is not None:
            self.parts.sampler.load_state_dict(unpack(sampler_state))
        proposer = Proposer(
            config=self.config,
            parts=self.parts,
            round=index,
            budget=min(self.config.per_round, balance.remaining),
            can_wait=self._can_wait(index, balance.remaining),
            slots=slots,
            pending=pending,
            known=self.repository.times_asked(cancelled=False),
            answered=self._answered,
            best=self._stopping.best_at_target(),
            costs=self._costs,
            cost_figures=self._learn_costs(),
            cost_exponent=self._cost_exponent(balance),
            guard=self._guard(),
        )
        if self.parts.mode == "funnel":
            return FunnelProposer(
                **vars(proposer), answers=self.repository.answers(), charged=self.repository.charged()
            )
        return proposer

    def _can_wait(self, index: int, remaining: float) -> bool:
        """Whether the rounds after this one could spend by themselves what is left of the budget."""
        last = self.config.stopping.max_rounds
        return last is None or (last - index) * self.config.per_round >= remaining

    def _learn_costs(self) -> dict[str, Any]:
        """Learn from what answers were charged; what was free, since another campaign had paid, teaches nothing."""
        if self.config.acquisition.costs == "stated" or not self._costs.measured:
            return {}
        index = {source.name: source.fidelity.index for source in self.parts.sources}
        return self._costs.learn(
            [
                Charge(candidate, index[name], reserved, charged)
                for candidate, name, reserved, charged in self.repository.charges(self._costs.measured)
            ]
        )

    def _cost_exponent(self, balance: Balance) -> float:
        """The cost's exponent: stated, or cooled with what is left of the budget that the initial design left.

        Lee, Perrone, Archambeau & Seeger, *Cost-aware Bayesian optimization* (2020), section 4.
        """
        stated = self.config.acquisition.cost_exponent
        if stated != "cooled":
            return stated
        start = balance.total - self.repository.cost_of_round(0)
        return min(max(balance.remaining / start, 0.0), 1.0) if start > 0.0 else 0.0

    def commit(self) -> int:
        """Write the round with its reservations and the warm states in one transaction; returns its index.

        Raises:
            LeaseHeldError: the lease was lost meanwhile; nothing was written.
        """
        if self._plan is None or not self._plan.evaluations:
            raise ActiveLearningError("commit() was called without a proposal; call propose() first.")
        with self._step("commit"):
            index = self.round
            plan, self._plan = self._plan, None
            checkpoints = {}
            if index > 0:
                checkpoints = {
                    "surrogate": pack(self.parts.surrogate.state_dict()),
                    "sampler": pack(self.parts.sampler.state_dict()),
                }
                if self.parts.alone is not None:
                    checkpoints["surrogate.alone"] = pack(self.parts.alone.state_dict())
            asked = self.repository.times_asked()
            new = NewRound(
                index=index,
                evaluations=[self._new(planned, asked) for planned in plan.evaluations],
                fingerprint=self.parts.surrogate.fingerprint if index > 0 else None,
                summary={
                    **plan.summary,
                    "n_answers": self._stopping.n_answers(),
                    **({"front": self._stopping.archive().summary()} if len(self.config.sought) > 1 else {}),
                    **({"surrogate": dict(self._fit_figures), **self._diagnostics} if index > 0 else {}),
                },
                timings={**self._timings, **plan.timings},
                checkpoints=checkpoints,
            )
            self.repository.commit_round(new, total=self.config.budget.total, worker=self._worker)
        self._observe("round.committed", {"round": index, "n": len(new.evaluations)})
        return index

    def _new(self, planned: PlannedEvaluation, asked: Mapping[tuple[str, str], int]) -> NewEvaluation:
        source = self.parts.sources[planned.fidelity]
        content_key = source.content_key(planned.candidate)
        # What was cancelled outside may be asked again, under a key of its own.
        replicate = planned.replicate + asked.get((planned.candidate.key, source.name), 0)
        return NewEvaluation(
            key=digest([self.name, content_key, replicate]),
            content_key=content_key,
            candidate=planned.candidate,
            fidelity=source.name,
            oracle=source.config.oracle,
            oracle_version=str(source.oracle.version),
            property=source.fidelity.property,
            cost=planned.cost,
            replicate=replicate,
            acquisition=planned.acquisition,
            predicted_mean=planned.predicted_mean,
            predicted_std=planned.predicted_std,
            predicted_noise=planned.predicted_noise,
            measurement=planned.measurement,
        )

    def submit(self) -> int:
        """Hand over what is committed; returns the number of evaluations handed over."""
        with self._step("submit"):
            return self._queues.submit()

    def evaluate(self, fidelity: str, keys: Sequence[str]) -> None:
        """Evaluate in process, outside the lease; different fidelities may run in different threads."""
        self._evaluator.evaluate(fidelity, keys)

    # -- ends ---------------------------------------------------------------------------------------------------------

    def conclude(self, decision: Decision) -> None:
        """Record how the run ended."""
        states = {
            Action.CONTINUE: CampaignState.INTERRUPTED,
            Action.WAITING: CampaignState.WAITING,
            Action.FINISHED: CampaignState.FINISHED,
            Action.CANCELLED: CampaignState.CANCELLED,
        }
        if decision.action is Action.CANCELLED:
            self._queues.cancel(decision.reason)
        self.repository.set_state(states[decision.action], decision.reason)
        self._observe(f"campaign.{states[decision.action]}", {"reason": decision.reason})

    def mark_interrupted(self, reason: str) -> None:
        """Record that the run was stopped from outside; the next run goes on from here."""
        self.repository.set_state(CampaignState.INTERRUPTED, reason)

    def mark_failed(self, reason: str) -> None:
        """Record that an error ended the run; the next run goes on from here."""
        self.repository.set_state(CampaignState.FAILED, reason)


def artifacts_folder(config: CampaignConfig, url: URL) -> Path:
    """Where a campaign keeps its files: as configured, else beside a SQLite store, else in the working directory.

    Raises:
        ConfigError: the place is not in a file system of this machine.
    """
    if config.artifacts is not None:
        place = config.artifacts.removeprefix("file://")
        if "://" in place:
            raise ConfigError(
                f"artifacts: {config.artifacts!r} is not a folder of this machine; only a path or a 'file://' URL is "
                f"supported, since oracles write their files there. Mount the remote place, and name the mount."
            )
        return (Path.cwd() / Path(place).expanduser() / config.name).resolve()
    base = Path(str(url.database)).parent if url.get_backend_name() == "sqlite" else Path.cwd()
    return (base / "artifacts" / config.name).resolve()


def _known(config: CampaignConfig, parts: Parts, folder: Path) -> list[Known]:
    """The known measurements that a campaign starts from."""
    design = config.initial_design
    assert design.observations is not None
    path = resolved_path(design.observations, folder, "initial_design.observations")
    return read_observations(path, parts.space, parts.fidelities, keep_outside=design.outside == "keep")
