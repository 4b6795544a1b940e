"""Making the parts of a campaign from its config: everything is checked here, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from activelearning.campaign.config import (
    AcquisitionConfig,
    CampaignConfig,
    FidelityConfig,
    JointObjectiveConfig,
)
from activelearning.campaign.isolation import OracleSpec
from activelearning.campaign.prior import N_TRIED, make_prior
from activelearning.campaign.sections import construct, plugin_identity
from activelearning.campaign.seeds import seed_for
from activelearning.candidate import Candidate, digest
from activelearning.contracts.acquisition import Acquisition, Constraint, Goals, Objective
from activelearning.contracts.oracle import OracleContext, OracleLike, QueuedOracleLike
from activelearning.contracts.sampler import Sampler
from activelearning.contracts.space import Space
from activelearning.contracts.surrogate import Surrogate
from activelearning.errors import ActiveLearningError, ConfigError, PluginError
from activelearning.fidelity import Fidelity
from activelearning.rewards import Prior

# Arguments that the engine hands to the constructors of a group before the section's own.
N_GIVEN = {"samplers": 2, "surrogates": 2, "rewards": 1}
_ORACLE_ATTRIBUTES = (
    *("bind", "check", "content", "expect", "evaluate", "cost"),
    *("version", "is_queued", "is_batched"),
)


@dataclass(frozen=True)
class Source:
    """A fidelity with the oracle behind it."""

    fidelity: Fidelity
    config: FidelityConfig
    oracle: OracleLike
    spec: OracleSpec
    content: str  # digest of all that changes results besides the candidate

    @property
    def name(self) -> str:
        """The fidelity's name."""
        return self.fidelity.name

    @property
    def is_queued(self) -> bool:
        """Whether answers come later, from elsewhere."""
        return self.oracle.is_queued

    @property
    def queue(self) -> QueuedOracleLike:
        """The oracle as a queued one."""
        if not isinstance(self.oracle, QueuedOracleLike):
            raise PluginError(
                f"The oracle {self.config.oracle!r} says is_queued but lacks submit, find, poll or cancel; "
                f"subclass oracles.QueuedOracle."
            )
        return self.oracle

    def content_key(self, candidate: Candidate) -> str:
        """SHA-256 of the question: candidate, property, oracle and all that changes its result."""
        return digest([candidate.key, self.fidelity.property, self.content])


@dataclass(frozen=True)
class Parts:
    """The parts of one campaign, made and checked.

    `alone` is a surrogate that knows the target alone, as its fidelity 0, by which the other fidelities are judged;
    None where there is nothing to judge.
    """

    space: Space
    sources: tuple[Source, ...]
    sampler: Sampler
    surrogate: Surrogate
    acquisition: Acquisition
    mode: str
    goals: Goals
    prior: Prior | None = None
    alone: Surrogate | None = None

    @property
    def fidelities(self) -> tuple[Fidelity, ...]:
        """All fidelities, by index."""
        return tuple(source.fidelity for source in self.sources)

    @property
    def target(self) -> Source:
        """The source whose answer is the (first) objective."""
        return self.sources[self.goals.objectives[0].fidelity]

    @property
    def targets(self) -> tuple[Fidelity, ...]:
        """The fidelities that answer an objective or a constraint."""
        return tuple(source.fidelity for source in self.sources if source.fidelity.is_target)

    def source(self, name: str) -> Source:
        """The source of a fidelity's name."""
        return next(source for source in self.sources if source.name == name)


def fidelities_of(config: CampaignConfig) -> tuple[Fidelity, ...]:
    """The fidelities that a config states."""
    units = {o.property: o.unit for o in config.sought} | {
        c.property: c.unit for c in config.constraints or ()
    }
    targets = {target.name for target in config.targets}
    return tuple(
        Fidelity(
            name=f.name,
            index=index,
            property=config.property_of(f),
            unit=f.unit or units.get(config.property_of(f)),
            cost=f.cost,
            is_target=f.name in targets,
        )
        for index, f in enumerate(config.fidelities)
    )


def goals_of(config: CampaignConfig) -> Goals:
    """The objectives and constraints that a config states, by the indices of their target fidelities."""
    index = {f.name: i for i, f in enumerate(config.fidelities)}
    first = config.target.name
    return Goals(
        tuple(
            Objective(
                index[first if i == 0 else config.target_of(o.property).name],
                o.direction == "maximize",
                o.reference if isinstance(o, JointObjectiveConfig) else None,
            )
            for i, o in enumerate(config.sought)
        ),
        tuple(
            Constraint(index[config.target_of(c.property).name], c.at_least, c.at_most)
            for c in config.constraints or ()
        ),
    )


def make_space(config: CampaignConfig, folder: Path) -> Space:
    """The search space."""
    space: Space = construct("spaces", config.space.type, config.space.params, key="space", folder=folder)
    return space


def make_parts(config: CampaignConfig, *, folder: Path, store: str, artifacts: Path) -> Parts:
    """Make and check every part.

    Args:
        config: The campaign's config.
        folder: Folder of the config, where relative paths start.
        store: Database URL, for oracles that work through the store.
        artifacts: The campaign's folder for files; nothing is created in it here.

    Raises:
        ActiveLearningError: naming the key or plug-in at fault.
    """
    space = make_space(config, folder)
    fidelities = fidelities_of(config)
    sources = tuple(
        _source(config, f, c, folder=folder, store=store, workdir=artifacts / f.name)
        for f, c in zip(fidelities, config.fidelities, strict=True)
    )
    _check_distinct(sources)
    acquisition = config.acquisition
    joint = acquisition.mode == "joint" and len(fidelities) > 1
    sampler = config.sampler
    sampler_type = sampler.type if sampler else space.default_sampler
    made: Sampler = construct(
        "samplers",
        sampler_type,
        sampler.params if sampler else {},
        space,
        len(fidelities) if joint else None,
        key="sampler",
        folder=folder,
    )
    check_sampler(made)
    guarded = config.safety.enabled and config.has_one_goal and acquisition.mode in ("joint", "after")
    target = next(f for f in fidelities if f.is_target)
    prior = None
    if acquisition.prior:
        tried = made.sample_untrained(N_TRIED, seed=seed_for(config.seed, 0, "prior"))
        prior = make_prior(
            acquisition.prior,
            [proposal.candidate for proposal in tried],
            campaign=config.name,
            folder=folder,
            workdir=artifacts / "prior",
        )
    chosen: Acquisition = construct(
        "acquisitions",
        acquisition.type,
        acquisition.params,
        key="acquisition",
        folder=folder,
        own_keys=list(AcquisitionConfig.model_fields),
    )
    check_acquisition(config, chosen)
    return Parts(
        space=space,
        sources=sources,
        sampler=made,
        surrogate=construct(
            "surrogates",
            config.surrogate.type,
            config.surrogate.params,
            space,
            fidelities,
            key="surrogate",
            folder=folder,
        ),
        acquisition=chosen,
        mode=acquisition.mode if joint or acquisition.mode in ("random", "funnel") else "after",
        goals=goals_of(config),
        prior=prior,
        alone=construct(
            "surrogates",
            "multi_fidelity_gp",
            {},
            space,
            (replace(target, index=0),),
            key="safety",
            folder=folder,
        )
        if guarded and len(fidelities) > 1
        else None,
    )


def check_sampler(sampler: object) -> None:
    """Refuse a sampler that configs have no reward for.

    Raises:
        ConfigError: it needs to be told what unfinished objects are worth.
    """
    if getattr(sampler, "needs_partial_reward", False):
        raise ConfigError(
            "sampler.loss is 'forward_looking', which needs to be told what an unfinished candidate is worth. No "
            "reward that a config states can tell that; it is for rewards made in Python, with a method "
            "partial(states). Take sub_trajectory_balance."
        )


def check_acquisition(config: CampaignConfig, acquisition: Acquisition) -> None:
    """Refuse an acquisition that knows of one target for a campaign with more.

    Raises:
        ConfigError: naming one that can.
    """
    if config.has_one_goal or getattr(acquisition, "supports_many_targets", False):
        return
    what = (
        f"several objectives ({', '.join(o.property for o in config.sought)})"
        if len(config.sought) > 1
        else f"constraints ({', '.join(c.property for c in config.constraints or ())})"
    )
    raise ConfigError(
        f"acquisition.type {config.acquisition.type!r} looks at the target of one objective, but the campaign has "
        f"{what}. Take `type: mf_hypervolume`, which is the default there."
    )


def _check_distinct(sources: Sequence[Source]) -> None:
    """Refuse two fidelities that are one question: their evaluations would have the same keys."""
    names: dict[tuple[str, str], str] = {}
    for source in sources:
        other = names.setdefault((source.fidelity.property, source.content), source.name)
        if other != source.name:
            raise ConfigError(
                f"fidelities: {other!r} and {source.name!r} ask the same oracle the same question (oracle, property "
                f"and parameters are equal); remove one of them, or tell them apart by a parameter."
            )


def _source(
    config: CampaignConfig,
    fidelity: Fidelity,
    section: FidelityConfig,
    *,
    folder: Path,
    store: str,
    workdir: Path,
) -> Source:
    key = f"fidelities.{fidelity.name}.params"
    context = OracleContext(
        campaign=config.name,
        fidelity=fidelity.name,
        property=fidelity.property,
        unit=fidelity.unit,
        cost=fidelity.cost,
        store=store,
        workdir=workdir,
    )
    oracle: OracleLike = construct("oracles", section.oracle, section.params, key=key, folder=folder)
    for attribute in _ORACLE_ATTRIBUTES:
        if not hasattr(oracle, attribute):
            raise PluginError(
                f"fidelities.{fidelity.name}.oracle: {section.oracle!r} has no {attribute!r}; subclass oracles.Oracle."
            )
    try:
        oracle.bind(context)
        oracle.check()
        content = digest(
            {
                "oracle": plugin_identity(section.oracle, folder),
                "version": str(oracle.version),
                "content": dict(oracle.content()),
            }
        )
    except ActiveLearningError as error:
        raise type(error)(f"fidelities.{fidelity.name}: {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"fidelities.{fidelity.name}: the content of the oracle {section.oracle!r} is no JSON: {error}."
        ) from error
    except Exception as error:
        raise PluginError(
            f"fidelities.{fidelity.name}: the oracle {section.oracle!r} fails its own check: "
            f"{type(error).__name__}: {error}."
        ) from error
    spec = OracleSpec(section.oracle, section.params, key, folder, context)
    return Source(fidelity, section, oracle, spec, content)
