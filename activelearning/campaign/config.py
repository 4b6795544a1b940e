"""A campaign's configuration: YAML read into frozen pydantic models, with errors a person can act on.

Sections that name a plug-in (`space`, `sampler`, `surrogate`, `acquisition`, and each fidelity's `oracle`) are checked
against the signature of the plug-in's own constructor (see `activelearning.campaign.sections`), so that a user's class
is checked exactly as ours are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from activelearning.campaign.sections import explain
from activelearning.errors import ConfigError

DEFAULT_STORE = "sqlite:///activelearning.db"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PluginSection(BaseModel):
    """A section that names a plug-in by `type`; every other key is one of the plug-in's own parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)
    type: str

    @property
    def params(self) -> dict[str, Any]:
        """The plug-in's parameters."""
        return dict(self.model_extra or {})


class RewardSection(PluginSection):
    """How a property becomes a reward; every key but `type` is the shaping's own."""

    type: str = "exponential"


class ObjectiveConfig(_Model):
    """What is looked for."""

    property: str
    unit: str | None = None
    direction: Literal["maximize", "minimize"] = "maximize"


class PriorTerm(ObjectiveConfig):
    """A property by which the sampler prefers candidates, beside what a query of them is worth."""

    reward: RewardSection = RewardSection()
    weight: float = Field(1.0, ge=0, description="factor on its log reward; 0 leaves it out")
    oracle: str | None = Field(None, description="who tells it; default: a proxy model, or an exact oracle")
    params: dict[str, Any] = Field({}, description="of the oracle")


class JointObjectiveConfig(ObjectiveConfig):
    """One of several properties that are looked for together."""

    reference: float | None = Field(
        None,
        description="value from which improvements count, in the property's unit; default: by the answers",
    )


class ConstraintConfig(_Model):
    """What a property must be for a candidate to be of use."""

    property: str
    unit: str | None = None
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> ConstraintConfig:
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"the constraint on {self.property!r} needs `at_least`, `at_most` or both")
        if self.at_least is not None and self.at_most is not None and self.at_least >= self.at_most:
            raise ValueError(
                f"the constraint on {self.property!r} asks for at least {self.at_least:g} and at most "
                f"{self.at_most:g}, which nothing can be"
            )
        return self


class FidelityConfig(_Model):
    """One oracle, as the campaign uses it."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    oracle: str
    cost: float = Field(gt=0)
    property: str | None = Field(None, description="what it measures; default: the objective's property")
    unit: str | None = Field(
        None, description="unit of that property; default: the objective's, if it is the same"
    )
    target: bool = False
    charge: Literal["fixed", "measured"] = "fixed"
    max_in_flight: int | None = Field(None, ge=1)
    timeout: float | None = Field(
        None, gt=0, description="seconds; the evaluation is killed and failed at it"
    )
    params: dict[str, Any] = {}


class AcquisitionConfig(PluginSection):
    """Which acquisition, how candidates and fidelities are drawn from it, and how large a round's batch is."""

    type: str = "mf_gibbon"
    mode: Literal["joint", "after", "random", "funnel"] = "joint"
    batch_size: int = Field(
        16, ge=1, description="of each fidelity a round at most; the budget may allow fewer"
    )
    pool_size: int = Field(
        256, ge=1, description="samples from the trained sampler that the batch is chosen from"
    )
    diversity: Literal["none", "distance", "determinantal"] = Field(
        "none",
        description="what holds a batch apart beside the pending work that conditions the acquisition",
    )
    replicates: int = Field(1, ge=1, description="how often one candidate may be asked of one fidelity")
    reward_exponent: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto",
        description="the sampler's reward is the cost-aware acquisition to this power; auto sharpens a flat one",
    )
    cost_exponent: Annotated[float, Field(ge=0)] | Literal["cooled"] = Field(
        1.0,
        description="utility is divided by cost to this power; cooled: from 1 to 0 as the budget is spent",
    )
    costs: Literal["learned", "stated"] = Field(
        "learned",
        description="of fidelities of `charge: measured`: learned from charges, or as the oracle foresees",
    )
    prior: tuple[PriorTerm, ...] | None = Field(
        None, description="rewards by which the sampler's own is multiplied; the batch is chosen without them"
    )
    shares: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None,
        description="of mode `funnel`: share of the total that each fidelity cheaper than the target may cost",
    )


class BudgetConfig(_Model):
    """Limits on cost, in the campaign's cost unit."""

    total: float = Field(gt=0)
    per_round: float | None = Field(None, gt=0, description="default: a tenth of the total")


class InitialDesignConfig(_Model):
    """Round 0: counts per fidelity, a file of known measurements, or both."""

    per_fidelity: dict[str, int] | None = Field(None, description="evaluations of each fidelity")
    share: float = Field(0.2, gt=0, le=1, description="share of the total budget that round 0 may cost")
    observations: Path | None = Field(None, description="CSV or JSON of known measurements, free of charge")
    outside: Literal["refuse", "keep"] = Field(
        "refuse",
        description="of known crystals that the space can't hold: an error, or kept to learn from, if it has their "
        "elements",
    )

    @field_validator("per_fidelity")
    @classmethod
    def _counts(cls, value: dict[str, int] | None) -> dict[str, int] | None:
        if value is not None and (any(n < 0 for n in value.values()) or not sum(value.values())):
            raise ValueError("counts must not be negative, and at least one must be positive")
        return value


class StoppingConfig(_Model):
    """When a campaign ends before its budget does."""

    max_rounds: int | None = Field(None, ge=1, description="rounds after the initial design")
    max_failed_rounds: int = Field(3, ge=1, description="rounds in a row without a single success")
    target_value: float | None = Field(
        None, description="objective value at the target fidelity that is good enough"
    )


class SafetyConfig(_Model):
    """How far fidelities other than the target are trusted; see `activelearning.campaign.safety`."""

    enabled: bool = True
    credit: float = Field(
        0.05,
        ge=0,
        le=1,
        description="share of the total budget for the others while they have proved nothing",
    )
    target_share: float = Field(
        0.3,
        gt=0,
        le=1,
        description="share of what is spent that is the target's, whatever the others promise",
    )
    independent_share: float = Field(
        0.2, ge=0, le=1, description="share of the target's queries chosen as if there were no others"
    )


class CampaignConfig(_Model):
    """A whole campaign."""

    name: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: int = Field(0, ge=0)
    space: PluginSection
    objective: ObjectiveConfig | None = Field(None, description="what is looked for; or `objectives`")
    objectives: tuple[JointObjectiveConfig, ...] | None = Field(
        None, description="several properties that are looked for together"
    )
    # None and not (): a campaign stored before there were constraints continues with the same config.
    constraints: tuple[ConstraintConfig, ...] | None = Field(
        None, description="ranges in which properties of a candidate of use must lie"
    )
    fidelities: tuple[FidelityConfig, ...] = Field(min_length=1)
    sampler: PluginSection | None = Field(None, description="default: by the space")
    surrogate: PluginSection = PluginSection(type="multi_fidelity_gp")
    acquisition: AcquisitionConfig = AcquisitionConfig()
    safety: SafetyConfig = SafetyConfig()
    budget: BudgetConfig
    initial_design: InitialDesignConfig = InitialDesignConfig()
    stopping: StoppingConfig = StoppingConfig()
    store: str = DEFAULT_STORE
    artifacts: str | None = Field(None, description="folder for files; default: beside the store")

    @model_validator(mode="before")
    @classmethod
    def _acquisition_of_goals(cls, value: Any) -> Any:
        """Where there is more than one thing to look for, the default acquisition is the one that can."""
        if not isinstance(value, Mapping) or not (value.get("objectives") or value.get("constraints")):
            return value
        section = value.get("acquisition")
        if section is None or (isinstance(section, Mapping) and section.get("type") is None):
            return {**value, "acquisition": {**(section or {}), "type": "mf_hypervolume"}}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> CampaignConfig:
        names = [f.name for f in self.fidelities]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"fidelities: the name {name!r} is used twice; each must be unique")
        self._check_goals()
        self._check_targets()
        self._check_budget()
        for name in self.initial_design.per_fidelity or {}:
            if name not in names:
                raise ValueError(
                    f"initial_design.per_fidelity: there is no fidelity {name!r} (known: {', '.join(names)})"
                )
        self._check_funnel()
        return self

    def _check_funnel(self) -> None:
        shares = self.acquisition.shares
        if self.acquisition.mode != "funnel":
            if shares is not None:
                raise ValueError(
                    f"acquisition.shares is for `mode: funnel`, and the mode is {self.acquisition.mode!r}; leave it out"
                )
            return
        if not self.has_one_goal:
            raise ValueError(
                "acquisition.mode: a funnel looks for the best of one objective, and there are several goals; "
                "choose `joint`"
            )
        below = self.funnel[:-1]
        if not below:
            raise ValueError(
                f"acquisition.mode: a funnel needs a fidelity that is cheaper than the target "
                f"{self.target.name!r}, and there is none; choose `joint`"
            )
        if shares is None or set(shares) != set(below):
            raise ValueError(
                f"acquisition.shares: a funnel needs the share of budget.total that each fidelity cheaper than the "
                f"target may cost, as in {{{', '.join(f'{name}: {0.5 / len(below):.2g}' for name in below)}}}; the "
                f"target takes the rest"
            )
        if sum(shares.values()) >= 1.0:
            raise ValueError(
                f"acquisition.shares: they sum to {sum(shares.values()):g}, which leaves nothing for the target; it "
                f"must be below 1"
            )

    @property
    def funnel(self) -> tuple[str, ...]:
        """Names of the fidelities by rising cost, up to the target; dearer ones are no part of a funnel."""
        target = self.target
        cheaper = sorted((f for f in self.fidelities if f.cost < target.cost), key=lambda f: f.cost)
        return (*(f.name for f in cheaper), target.name)

    def _check_goals(self) -> None:
        if self.objective is None and self.objectives is None:
            raise ValueError("the key 'objective' is missing")
        if self.objective is not None and self.objectives is not None:
            raise ValueError("'objective' and 'objectives' exclude one another; give one of them")
        if self.objectives is not None and len(self.objectives) < 2:
            raise ValueError("objectives: it takes two or more; a single one is written under `objective`")
        seen: dict[str, str] = {}
        for key, goal in self._goals():
            first = seen.setdefault(goal.property, key)
            if (first, key) == ("objectives", "constraints"):
                raise ValueError(
                    f"constraints: {goal.property!r} is an objective, too; give that objective a `reference`, "
                    f"from which its improvements count, and take the constraint away"
                )
            if (first, key) == ("objective", "constraints"):
                raise ValueError(
                    f"constraints: {goal.property!r} is the objective, and the best of it is looked for anyway; "
                    f"take the constraint away, or end the campaign by `stopping.target_value`"
                )
        properties = [goal.property for _, goal in self._goals()]
        for prop in properties:
            if properties.count(prop) > 1:
                raise ValueError(f"{seen[prop]}: the property {prop!r} is there twice; give it one entry")
        if self.objectives is not None and self.stopping.target_value is not None:
            raise ValueError(
                "stopping.target_value is a value of one objective, and there are several; take the key away, let "
                "`stopping.max_rounds` or the budget end the campaign, or make all objectives but one `constraints`"
            )

    def _goals(self) -> list[tuple[str, ObjectiveConfig | ConstraintConfig]]:
        """Objectives, then constraints, each with the key that it is written under."""
        key = "objectives" if self.objective is None else "objective"
        return [*((key, o) for o in self.sought), *(("constraints", c) for c in self.constraints or ())]

    def _check_targets(self) -> None:
        names = [f.name for f in self.fidelities]
        marked = [f for f in self.fidelities if f.target]
        if self.has_one_goal:
            if len(marked) > 1:
                said = " and ".join(f.name for f in marked)
                raise ValueError(f"fidelities: {said} all say `target: true`; exactly one may")
            if not marked and len(self.fidelities) > 1:
                raise ValueError(
                    f"fidelities: none of {', '.join(names)} says `target: true`; mark the one that answers the "
                    f"objective"
                )
            target = self.target
            if target.property not in (None, self.sought[0].property):
                raise ValueError(
                    f"fidelities: the target {target.name!r} measures {target.property!r}, but the objective is "
                    f"{self.sought[0].property!r}; they must be the same"
                )
            return
        wanted = [goal.property for _, goal in self._goals()]
        for f in self.fidelities:
            if f.property is None and self.objectives is not None:
                raise ValueError(
                    f"fidelities: {f.name!r} does not say which `property` it measures, and there are several "
                    f"objectives ({', '.join(o.property for o in self.sought)})"
                )
            if f.target and self.property_of(f) not in wanted:
                raise ValueError(
                    f"fidelities: {f.name!r} says `target: true` but measures {self.property_of(f)!r}, which is "
                    f"neither an objective nor a constraint ({', '.join(wanted)}); take one of the two away"
                )
        for key, goal in self._goals():
            of_it = [f.name for f in self.fidelities if self.property_of(f) == goal.property]
            claims = [f.name for f in marked if self.property_of(f) == goal.property]
            if not of_it:
                raise ValueError(
                    f"{key}: no fidelity measures {goal.property!r}; add one with `property: {goal.property}` and "
                    f"`target: true`"
                )
            if len(claims) > 1:
                raise ValueError(
                    f"fidelities: {' and '.join(claims)} all say `target: true` of {goal.property!r}; exactly one may"
                )
            if not claims and len(of_it) > 1:
                raise ValueError(
                    f"fidelities: none of {', '.join(of_it)} says `target: true`; mark the one that answers "
                    f"{goal.property!r}"
                )

    def _check_budget(self) -> None:
        cheapest = min(self.fidelities, key=lambda f: f.cost)
        for key, limit in (("total", self.budget.total), ("per_round", self.per_round)):
            if limit < cheapest.cost:
                raise ValueError(
                    f"budget.{key}: {limit:g} does not pay for one query of the cheapest fidelity "
                    f"({cheapest.name!r} costs {cheapest.cost:g})"
                )
            for target in self.targets:
                if limit < target.cost:
                    raise ValueError(
                        f"budget.{key}: {limit:g} does not pay for one query of the target fidelity "
                        f"({target.name!r} costs {target.cost:g}), so it could never be asked"
                    )
        complete = sum(target.cost for target in self.targets)
        if self.budget.total < complete * (1.0 - 1e-9):
            raise ValueError(
                f"budget.total: {self.budget.total:g} does not pay for one query of each target fidelity "
                f"({', '.join(t.name for t in self.targets)}: {complete:g} together), so no candidate could be measured"
            )

    @property
    def sought(self) -> tuple[ObjectiveConfig, ...]:
        """The objectives, one or more."""
        return (self.objectives or ()) if self.objective is None else (self.objective,)

    @property
    def has_one_goal(self) -> bool:
        """Whether there is one objective and no constraint."""
        return len(self.sought) == 1 and not self.constraints

    def property_of(self, fidelity: FidelityConfig) -> str:
        """What a fidelity measures; without a word of its own, the objective's property."""
        return fidelity.property or self.sought[0].property

    def target_of(self, prop: str) -> FidelityConfig:
        """The target fidelity of an objective's or a constraint's property; a lone one is it without saying so."""
        of_it = [f for f in self.fidelities if self.property_of(f) == prop]
        return next((f for f in of_it if f.target), of_it[0])

    @property
    def targets(self) -> tuple[FidelityConfig, ...]:
        """The target fidelities: of each objective, then of each constraint."""
        if self.has_one_goal:
            return (self.target,)
        return tuple(self.target_of(goal.property) for _, goal in self._goals())

    @property
    def target(self) -> FidelityConfig:
        """The (first) objective's target fidelity; a single fidelity is the target without saying so."""
        if not self.has_one_goal:
            return self.target_of(self.sought[0].property)
        marked = [f for f in self.fidelities if f.target]
        return marked[0] if marked else self.fidelities[0]

    @property
    def per_round(self) -> float:
        """Budget of one round."""
        if self.budget.per_round is not None:
            return self.budget.per_round
        # A tenth of the total, but never so little that a target could not be asked at all.
        return min(self.budget.total, max(self.budget.total / 10, *(t.cost for t in self.targets)))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON value of the whole config, defaults included; the store keeps this."""
        return self.model_dump(mode="json")


def parse_config(value: Any, *, source: str = "config") -> CampaignConfig:
    """Validate a plain value.

    Raises:
        ConfigError: naming every key at fault, with the nearest valid key.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{source} must be a mapping of keys to values, not {type(value).__name__}.")
    try:
        return CampaignConfig.model_validate(dict(value))
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error, CampaignConfig)}{_sampling_hint(value)}") from None


def _sampling_hint(value: Mapping[str, Any]) -> str:
    """What to say where a config is one for sampling alone."""
    if "budget" in value or "fidelities" in value:
        return ""
    return (
        " A campaign needs `fidelities` and `budget`; without them this is a config for `activelearning sample`, which "
        "trains a sampler on a property alone."
    )


class _TwiceError(yaml.YAMLError):
    """A key that a mapping holds twice."""


class _Loader(yaml.SafeLoader):
    """YAML without keys that are there twice, of which PyYAML silently takes the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines:
                    raise _TwiceError(f"the key {key.value!r} twice, in lines {lines[key.value]} and {line}")
                lines[key.value] = line
        return node


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file can't be read, is no YAML, or no mapping, or a key is in it twice.
    """
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The config {path} can't be read: {error}.") from error
    except _TwiceError as error:
        raise ConfigError(f"The config {path} has {error}; keep one of them.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"The config {path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(value, dict):
        raise ConfigError(
            f"The config {path} must be a mapping of keys to values, not {type(value).__name__}."
        )
    return value


def load_config(path: Path, overrides: Mapping[str, str] | None = None) -> CampaignConfig:
    """Read a campaign from YAML.

    Args:
        path: The file.
        overrides: Dotted keys and YAML texts, as in `{"budget.total": "10", "fidelities.0.cost": "2"}`.

    Raises:
        ConfigError: as `read_yaml` and `parse_config`, or an override that leads nowhere.
    """
    value = read_yaml(path)
    for key, text in (overrides or {}).items():
        apply_override(value, key, text)
    return parse_config(value, source=str(path))


def apply_override(value: dict[str, Any], dotted: str, text: str) -> None:
    """Set a dotted key of a plain config, in place, to what a YAML text says.

    Raises:
        ConfigError: the text is no YAML, or the key leads nowhere.
    """
    try:
        new = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {dotted}={text}: the value is not valid YAML.") from error
    *parents, last = dotted.split(".")
    here: Any = value
    for part in parents:
        if isinstance(here, list):
            here = here[_position(here, part, dotted)]
        elif isinstance(here, dict):
            if here.get(part) is None:  # an empty section of the file reads as nothing
                here[part] = {}
            here = here[part]
        if not isinstance(here, (dict, list)):
            raise ConfigError(f"--set {dotted}: {part!r} is a single value and has no keys below it.")
    if isinstance(here, list):
        here[_position(here, last, dotted)] = new
    else:
        here[last] = new


def _position(entries: list[Any], part: str, dotted: str) -> int:
    """Where in a list an entry is, named by its position or by its `name`, or `property` where it has no name."""
    for position, entry in enumerate(entries):
        name = entry.get("name", entry.get("property")) if isinstance(entry, dict) else None
        if part in (str(position), name):
            return position
    raise ConfigError(f"--set {dotted}: the list has no entry {part!r} (its length is {len(entries)}).")
