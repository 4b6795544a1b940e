"""Making and checking the parts of a sampling run from its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activelearning.campaign.parts import check_sampler
from activelearning.campaign.property_terms import make_shaping, property_oracle, usual_oracle
from activelearning.campaign.sections import construct, plugin_identity
from activelearning.contracts.oracle import OracleLike
from activelearning.contracts.sampler import Sampler
from activelearning.contracts.space import Space
from activelearning.errors import ConfigError
from activelearning.rewards import OracleProperty, ProductReward, Shaping, Term
from activelearning.sampling.config import RewardedObjective, SampleConfig
from activelearning.sampling.crystals import check_holds_crystals
from activelearning.sampling.identity import Section, Sections, named


@dataclass(frozen=True)
class SamplingParts:
    """The parts of one sampling run, made and checked.

    Attributes:
        space: What is sampled.
        reward: The reward as stated; `beta: auto` is not yet fitted.
        sampler: The sampler, untrained.
        training: All that a trained sampler depends on (JSON), steps aside, defaults included: two runs with equal
            values have equal samplers.
        sections: Write out the defaults of another run's.
    """

    space: Space
    reward: ProductReward
    sampler: Sampler
    training: Mapping[str, Any]
    sections: Sections


def make_sampling_parts(
    config: SampleConfig, *, folder: Path, workdir: Path, steps: int | None = None
) -> SamplingParts:
    """Make and check every part.

    Args:
        config: The config.
        folder: Folder of the config, where relative paths start.
        workdir: Folder for files of oracles; nothing is created in it here.
        steps: Updates of the sampler in all; goes before `sampler.steps`.

    Raises:
        ActiveLearningError: naming the key or plug-in at fault.
    """
    space: Space = construct("spaces", config.space.type, config.space.params, key="space", folder=folder)
    check_holds_crystals(space)
    terms, told = [], []
    rewards: dict[str, Section] = {}
    for objective in config.rewarded:
        oracle, identity = _oracle(config, objective, folder, workdir)
        shaping = _shaping(config, objective, folder)
        terms.append(Term(OracleProperty(oracle, objective.property, objective.unit), shaping))
        reward = config.reward_of(objective)
        rewards[objective.property] = Section.of("rewards", reward.type, folder, 1)
        told.append(
            {
                "property": objective.property,
                "direction": objective.direction,
                "reward": {**plugin_identity(reward.type, folder), **reward.params},
                "oracle": identity,
            }
        )
    name = config.sampler.type if config.sampler else space.default_sampler
    params = dict(config.sampler.params if config.sampler else {})
    section = Section.of("samplers", name, folder, 2)
    if steps is not None:
        if "steps" not in section.model.model_fields and not section.takes_any:
            raise ConfigError(f"--steps: the sampler {name!r} is not trained in steps; leave --steps out.")
        params["steps"] = steps
    sampler: Sampler = construct("samplers", name, params, space, None, key="sampler", folder=folder)
    check_sampler(sampler)
    sections = Sections(Section.of("spaces", config.space.type, folder), section, rewards)
    stated = {
        "seed": config.seed,
        "space": {**named(config.space.type, folder), **config.space.params},
        "objectives": {entry["property"]: entry for entry in told},
        "sampler": {**named(name, folder), **params},
    }
    return SamplingParts(space, ProductReward(tuple(terms)), sampler, sections.completed(stated), sections)


def _shaping(config: SampleConfig, objective: RewardedObjective, folder: Path) -> Shaping:
    key = "reward" if objective.reward is None else f"objectives.{objective.property}.reward"
    return make_shaping(config.reward_of(objective), objective.direction, key=key, folder=folder)


def _oracle(
    config: SampleConfig, objective: RewardedObjective, folder: Path, workdir: Path
) -> tuple[OracleLike, Mapping[str, Any]]:
    """The oracle that tells an objective's property, and what its answers depend on."""
    prop = objective.property
    entry = config.oracle_of(objective)
    if entry is None:
        name, params = usual_oracle(prop)
        key, hint = f"objective {prop!r}", " Another oracle of it is named by an entry of `fidelities`."
    else:
        name, params = entry.oracle, entry.params
        key, hint = f"fidelities.{entry.name or name}", ""
    oracle, content = property_oracle(
        name,
        params,
        key=key,
        prop=prop,
        unit=objective.unit if entry is None or entry.unit is None else entry.unit,
        campaign=config.name,
        folder=folder,
        workdir=workdir,
        hint=hint,
    )
    return oracle, {"name": name, "results": content}
