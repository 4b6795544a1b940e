"""One command from config to crystals: train, sample, write tables, structures, a summary and the run page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from activelearning.campaign.seeds import seed_for
from activelearning.candidate import CrystalCandidate, digest
from activelearning.contracts.sampler import Proposal, Sampler
from activelearning.contracts.space import Space
from activelearning.errors import ConfigError, InputError, SamplerError
from activelearning.rewards import LogLinear, ProductReward, Term
from activelearning.sampling.checkpoint import FILE, read_checkpoint
from activelearning.sampling.config import SampleConfig
from activelearning.sampling.crystals import as_crystals, evaluate, one_thread
from activelearning.sampling.events import InterruptedTrainingError, Observer, Stage
from activelearning.sampling.folder import PAGE, SAMPLES, SUMMARY, check_ours, held, replaced
from activelearning.sampling.identity import check_same_training
from activelearning.sampling.page import RunPage
from activelearning.sampling.parts import SamplingParts, make_sampling_parts
from activelearning.sampling.restricting import restricted_sampler, restricted_space
from activelearning.sampling.speed import check_speed
from activelearning.sampling.statistics import Array
from activelearning.sampling.structures import realise_best, write_structures
from activelearning.sampling.summary import Drawn, summarise
from activelearning.sampling.tables import read_crystals, write_samples
from activelearning.sampling.training import Trainer, Training

N_FIT = 512  # untrained crystals that a property must be told of, and that `beta: auto` is fitted to
N_REFERENCE = 2000  # untrained, unrestricted and known crystals that samples are compared with
N_CORRELATED = 2000  # samples whose log-probability is told


@dataclass(frozen=True)
class Request:
    """What a sampling run is asked for.

    Attributes:
        n: Number of crystals.
        out: Folder of checkpoint and results.
        steps: Updates of the sampler in all; None takes those of the config or the sampler.
        trained: Folder whose checkpoint is used as it is, in place of training in `out`.
        structures: Number of the best crystals that are written with their atoms.
    """

    n: int
    out: Path
    steps: int | None = None
    trained: Path | None = None
    structures: int = 20


def sample(
    config: SampleConfig,
    request: Request,
    *,
    folder: Path,
    observe: Observer = lambda _event: None,
    must_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train a sampler, or take up its checkpoint, and write crystals.

    Everything is checked before anything is trained or written. Writes `samples.csv`, `structures/*.cif`,
    `structures.json`, `summary.json` and `run.html` into the folder; they are the same, bit for bit, whether the
    training was interrupted or not (the time on the page aside).

    Args:
        config: The config.
        request: What is wanted.
        folder: Folder of the config, where relative paths start.
        observe: Told of each stage and of the training's progress.
        must_stop: Asked after each piece of work; True ends the run, with a checkpoint.

    Returns:
        The summary (JSON), as `summary.json` has it; see `summarise`.

    Raises:
        ActiveLearningError: naming the key, file or plug-in at fault.
        InterruptedTrainingError: it was asked to stop.
    """
    one_thread()
    with held(request.out):
        run = _Run.prepare(config, request, folder, observe, must_stop)
        run.train()
        drawn = run.draw()
        return run.write(drawn)


@dataclass
class _Run:
    """The stages of a run, one after the other."""

    config: SampleConfig
    request: Request
    parts: SamplingParts
    part_of_space: Space | None
    given: list[CrystalCandidate] | None
    known: list[CrystalCandidate] | None
    reward: ProductReward
    training: Training
    observe: Observer
    must_stop: Callable[[], bool]

    @classmethod
    def prepare(
        cls,
        config: SampleConfig,
        request: Request,
        folder: Path,
        observe: Observer,
        must_stop: Callable[[], bool],
    ) -> _Run:
        """Make and check everything; nothing is written before it is done."""
        check_ours(request.out)
        parts = make_sampling_parts(
            config, folder=folder, workdir=request.out / "oracle", steps=request.steps
        )
        part_of_space = restricted_space(parts.space, config.restrict) if config.restrict else None
        if part_of_space is not None:
            restricted_sampler(parts.sampler, part_of_space)
        known = given = None
        if config.validation is not None:
            observe(Stage("reading the validation crystals"))
            path = folder / config.validation
            known = _crystals_of("validation", path, part_of_space or parts.space, observe)
            if len(known) > N_REFERENCE:
                observe(Stage(f"{N_REFERENCE} of them, drawn by the seed, are compared with"))
        if config.dataset is not None:
            observe(Stage("reading the crystals to train from"))
            given = _crystals_of("dataset", folder / config.dataset, parts.space, observe)
            parts = replace(parts, training={**parts.training, "dataset": digest([c.key for c in given])})
        reward, training = _training(config, parts, request, observe)
        return cls(config, request, parts, part_of_space, given, known, reward, training, observe, must_stop)

    def train(self) -> None:
        """Bring the sampler to the steps wanted."""
        trainer = Trainer(
            self.parts.sampler,
            self.reward,
            self.training,
            self.request.out,
            seed=self.config.seed,
            given=None if self.given is None else [Proposal(crystal) for crystal in self.given],
            observe=self.observe,
            must_stop=self.must_stop,
        )
        if self.request.trained is not None:
            trainer.load()
        else:
            trainer.train(int(getattr(self.parts.sampler, "steps", 0)))

    def draw(self) -> Drawn:
        """Sample, and draw what the samples are compared with."""
        self._stage(f"sampling {self.request.n} crystals")
        trained, seed = self.parts.sampler, self.config.seed
        part = self.part_of_space
        sampler = trained if part is None else restricted_sampler(trained, part)
        n_alike = min(self.request.n, N_REFERENCE)
        of_samples = seed_for(seed, 0, "samples")
        proposals = sampler.sample(self.request.n, seed=of_samples)
        untrained = trained.sample_untrained(n_untrained(self.request.n), seed=seed_for(seed, 0, "untrained"))
        log_probabilities, why_not = _log_probabilities(sampler, proposals[:N_CORRELATED])
        return Drawn(
            samples=evaluate(self.reward, [p.candidate for p in proposals]),
            untrained=evaluate(self.reward, [p.candidate for p in untrained]),
            unrestricted=None
            if part is None
            else evaluate(self.reward, [p.candidate for p in trained.sample(n_alike, seed=of_samples)]),
            validation=None if self.known is None else evaluate(self.reward, self._validation()),
            log_probabilities=log_probabilities,
            why_no_probabilities=why_not,
        )

    def _validation(self) -> list[CrystalCandidate]:
        """Known crystals, at most `N_REFERENCE` of them, drawn by the seed."""
        assert self.known is not None
        rng = np.random.default_rng(seed_for(self.config.seed, 0, "validation"))
        rows = rng.permutation(len(self.known))[:N_REFERENCE]
        return [self.known[row] for row in sorted(rows.tolist())]

    def write(self, drawn: Drawn) -> dict[str, Any]:
        """Write all files; returns the summary."""
        if self.request.structures:
            self._stage(f"placing the atoms of the best {self.request.structures} crystals")
        samples = drawn.samples
        summary = summarise(self.config.name, self.training, self.reward, drawn)
        realised = realise_best(
            samples.crystals, samples.ranking(), self.request.structures, self.config.seed
        )
        summary["structures"] = len(realised)
        self._stage("writing")
        log_rewards = samples.log_rewards.tolist()
        with replaced(self.request.out) as out:
            write_samples(out / SAMPLES, samples.crystals, samples.lists(), log_rewards)
            files = write_structures(out, realised, samples.lists(), log_rewards)
            page = RunPage(self.config, self.training, self.reward, drawn, summary, realised, files)
            page.write(out / PAGE)
            text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
            (out / SUMMARY).write_text(text + "\n", encoding="utf-8")
        return summary

    def _stage(self, text: str) -> None:
        if self.must_stop():
            raise InterruptedTrainingError("Stopped; the same command goes on from the checkpoint.")
        self.observe(Stage(text))


def n_untrained(n: int) -> int:
    """How many untrained crystals n samples are compared with: enough for a median whatever n is."""
    return max(N_FIT, min(n, N_REFERENCE))


def _crystals_of(key: str, path: Path, space: Space, observe: Observer) -> list[CrystalCandidate]:
    """Crystals of a table that the space holds; tells how many they are."""
    crystals = []
    rows = read_crystals(path)
    for crystal in rows:
        try:
            space.validate(crystal)
        except ValueError:
            continue
        crystals.append(crystal)
    if not crystals:
        raise ConfigError(
            f"{key}: none of the {len(rows)} crystals in {path} is in the space that is sampled."
        )
    observe(Stage(f"{len(crystals)} of {len(rows)} crystals are in the space"))
    return crystals


def _training(
    config: SampleConfig, parts: SamplingParts, request: Request, observe: Observer
) -> tuple[ProductReward, Training]:
    """The training that a checkpoint holds, or a new one, with the reward whose β are known."""
    where = request.trained or request.out
    saved = read_checkpoint(where, Training.__dataclass_fields__)
    if saved is not None:
        training = Training.from_state(saved)
        # A sampler that is taken as it is was seeded when it was trained; here the seed is that of the draws.
        free = () if request.trained is None else ("seed",)
        check_same_training(parts.sections.completed(training.identity), parts.training, where, free=free)
        terms = [_as_fitted(term, training.fitted[term.source.name]) for term in parts.reward.terms]
        return ProductReward(tuple(terms)), training
    if request.trained is not None:
        raise InputError(f"--trained: {where} holds no trained sampler ({FILE} is missing).")
    observe(Stage(f"asking for the property of {N_FIT} untrained crystals"))
    proposals = parts.sampler.sample_untrained(N_FIT, seed=seed_for(config.seed, 0, "reward"))
    candidates = as_crystals([proposal.candidate for proposal in proposals])
    oracles = {name: entry["oracle"]["name"] for name, entry in parts.training["objectives"].items()}
    n_of_steps = int(getattr(parts.sampler, "steps", 0)) * int(parts.training["sampler"].get("batch_size", 1))
    check_speed(parts.reward, oracles, candidates, N_FIT + n_of_steps + request.n + n_untrained(request.n))
    reward = parts.reward.fitted(candidates)
    log_rewards = reward(candidates)
    if len(candidates) > 1 and bool((log_rewards == log_rewards[0]).all()):
        raise ConfigError(
            f"All of {len(candidates)} untrained crystals have the same log reward, {log_rewards[0].item():.4g}, so "
            f"that nothing tells them apart: the reward's floor lies above them, or the property does not vary. Lower "
            f"`floor` or `beta`, state an `offset`, or leave `beta` out to have it fitted."
        )
    return reward, Training(identity=parts.training, fitted={t.source.name: _fitted(t) for t in reward.terms})


def _fitted(term: Term) -> dict[str, float]:
    """What is fitted of a term, for the checkpoint."""
    shaping = term.shaping
    return {"beta": float(shaping.beta), "offset": shaping.offset} if isinstance(shaping, LogLinear) else {}


def _as_fitted(term: Term, fitted: dict[str, float]) -> Term:
    if not isinstance(term.shaping, LogLinear):
        return term
    return Term(term.source, replace(term.shaping, beta=fitted["beta"], offset=fitted["offset"]))


def _log_probabilities(sampler: Sampler, proposals: list[Proposal]) -> tuple[Array | None, str | None]:
    """Log-densities of proposals under their sampler; where it can't tell them, why."""
    method = getattr(sampler, "log_probability", None)
    if method is None:
        return None, f"the sampler {type(sampler).__name__} can't tell them"
    try:
        return method(proposals).numpy(), None
    except SamplerError as error:
        return None, str(error)
