"""The config of sampling alone: a space, one or more properties with their rewards, and a sampler.

It is a campaign's config with fewer keys required and a few of its own. What only a campaign has (budget, surrogate,
acquisition …) may be there and is not looked at.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from activelearning.campaign.config import (
    ObjectiveConfig,
    PluginSection,
    RewardSection,
    apply_override,
    read_yaml,
)
from activelearning.campaign.sections import explain
from activelearning.campaign.shipped import find_config, shipped_configs
from activelearning.errors import ConfigError
from activelearning.sampling.anchoring import anchored

# The file's own key; it is gone when the rest is read.
BASE = "base"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RewardedObjective(ObjectiveConfig):
    """A property that is looked for, with its reward."""

    reward: RewardSection | None = None


class OracleConfig(_Model):
    """An entry of `fidelities`: here it only names who tells a property."""

    oracle: str
    name: str | None = None
    property: str | None = Field(None, description="what it tells; default: the first objective's property")
    unit: str | None = None
    params: dict[str, Any] = {}
    cost: float | None = Field(None, gt=0, description="of several for one property the cheapest is taken")
    target: bool = False
    charge: Any = None
    max_in_flight: Any = None
    timeout: Any = None


class SampleConfig(_Model):
    """A whole config of `activelearning sample`."""

    name: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: int = Field(0, ge=0)
    space: PluginSection
    objective: RewardedObjective | None = None
    objectives: tuple[RewardedObjective, ...] = Field(
        (), description="several properties: a product of rewards"
    )
    reward: RewardSection | None = Field(None, description="of the one objective")
    fidelities: tuple[OracleConfig, ...] = ()
    sampler: PluginSection | None = Field(None, description="default: by the space")
    restrict: dict[str, Any] = Field({}, description="what of the space is sampled, without another training")
    validation: Path | None = Field(None, description="table of known crystals, for comparison")
    dataset: Path | None = Field(None, description="table of known crystals to train from, too")
    surrogate: Any = None
    acquisition: Any = None
    budget: Any = None
    initial_design: Any = None
    stopping: Any = None
    store: Any = None
    artifacts: Any = None

    @model_validator(mode="after")
    def _consistent(self) -> SampleConfig:
        if (self.objective is None) == (not self.objectives):
            raise ValueError(
                "the key 'objective' is missing"
                if not self.objectives
                else "'objective' and 'objectives' exclude one another; give one of them"
            )
        names = [objective.property for objective in self.rewarded]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"objectives: the property {name!r} is there twice")
        if self.reward is not None:
            if len(names) > 1:
                raise ValueError("'reward' is for one objective; with several give each its own `reward`")
            if self.rewarded[0].reward is not None:
                raise ValueError("'reward' and 'objective.reward' exclude one another; give one of them")
        return self

    @property
    def rewarded(self) -> tuple[RewardedObjective, ...]:
        """The objectives, one or more."""
        return self.objectives if self.objective is None else (self.objective,)

    def reward_of(self, objective: RewardedObjective) -> RewardSection:
        """An objective's reward section."""
        return objective.reward or self.reward or RewardSection()

    def oracle_of(self, objective: RewardedObjective) -> OracleConfig | None:
        """The entry of `fidelities` that tells an objective's property, the cheapest of several."""
        first = self.rewarded[0].property
        entries = [f for f in self.fidelities if (f.property or first) == objective.property]
        return min(entries, key=lambda f: float("inf") if f.cost is None else f.cost, default=None)


def parse_sample_config(value: Any, *, source: str = "config") -> SampleConfig:
    """Validate a plain value.

    Raises:
        ConfigError: naming every key at fault, with the nearest valid key.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{source} must be a mapping of keys to values, not {type(value).__name__}.")
    try:
        return SampleConfig.model_validate(dict(value))
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error, SampleConfig)}") from None


def load_sample_config(path: Path, overrides: Mapping[str, str] | None = None) -> SampleConfig:
    """Read a config of sampling from YAML.

    A file with the key `base` takes over all top-level keys that it does not state itself from another config, named
    by a path (relative to the file) or by a shipped name. Relative paths start at the file that states them.

    Args:
        path: The file.
        overrides: Dotted keys and YAML texts, as in `{"sampler.steps": "200"}`.

    Raises:
        ConfigError: the file or its base can't be read, or a key is wrong.
    """
    value = _with_base(path, ())
    for key, text in (overrides or {}).items():
        apply_override(value, key, text)
    return parse_sample_config(value, source=str(path))


def find_sample_config(name_or_path: str) -> Path:
    """Find a config by its path or by a shipped name.

    Raises:
        ConfigError: there is neither; the shipped configs that can be sampled are named.
    """
    if Path(name_or_path).expanduser().exists() or name_or_path in shipped_configs():
        return find_config(name_or_path)
    names = [name for name, path in shipped_configs().items() if _is_of_crystals(path)]
    near = difflib.get_close_matches(Path(name_or_path).stem, names, n=1)
    hint = f" Did you mean the shipped config {near[0]!r}?" if near else ""
    raise ConfigError(
        f"There is no config {name_or_path!r}.{hint} Give the path of a YAML file or a shipped name (shipped for "
        f"sampling: {', '.join(names)})."
    )


def _is_of_crystals(path: Path) -> bool:
    value = _with_base(path, ())
    space = value.get("space")
    return "budget" not in value and isinstance(space, dict) and space.get("type") == "crystal"


def _with_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise ConfigError(
            f"The config {seen[0]} is its own base: {' → '.join(p.name for p in (*seen, path))}."
        )
    value = read_yaml(path)
    base = value.pop(BASE, None)
    if base is None:
        return value
    if not isinstance(base, str):
        raise ConfigError(f"{path}: 'base' is {base!r}; it must be the path or the shipped name of a config.")
    beside = path.parent / base
    found = beside if beside.is_file() else find_config(base)
    below = {key: entry for key, entry in _with_base(found, (*seen, path)).items() if key not in value}
    if found.resolve().parent != path.parent:
        below = anchored(below, found.resolve().parent)
    return {**below, **value}
