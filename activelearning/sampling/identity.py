"""What two equal trainings agree in, with defaults written out: a default that is stated makes no other training."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from activelearning.campaign.continuation import differences, value_at
from activelearning.campaign.sections import parameters_model, plugin_identity
from activelearning.contracts.registry import load_plugin
from activelearning.errors import ConfigError

FREE = ("steps", "device")  # keys of the sampler that may differ from run to run
_NAMES = ("type", "name", "class", "file")


@dataclass(frozen=True)
class Section:
    """A section of a config as its plug-in reads it.

    Attributes:
        model: The plug-in's parameters.
        folder: Where relative paths start.
    """

    model: type[BaseModel]
    folder: Path

    @classmethod
    def of(cls, group: str, name: str, folder: Path, n_given: int = 0) -> Section:
        """The section of a plug-in that is handed `n_given` parameters by the engine."""
        return cls(parameters_model(load_plugin(group, name, folder=folder), n_given), folder)

    @property
    def takes_any(self) -> bool:
        """Whether the plug-in takes keys that it does not name."""
        return self.model.model_config.get("extra") == "allow"

    def completed(self, keys: Mapping[str, Any]) -> dict[str, Any]:
        """The keys with every default, as JSON; files stand for their content."""
        names = {key: value for key, value in keys.items() if self._is_name(key)}
        stated = {key: value for key, value in keys.items() if key not in names}
        try:
            checked = self.model.model_validate(stated)
        except ValidationError:
            return dict(keys)  # of another plug-in: it differs anyway
        values = {key: getattr(checked, key) for key in self.model.model_fields} | (checked.model_extra or {})
        plain = {key: self._content(value) for key, value in values.items()}
        return names | to_jsonable_python(
            plain, inf_nan_mode="strings", fallback=lambda value: type(value).__qualname__
        )

    def _is_name(self, key: str) -> bool:
        return key in _NAMES and key not in self.model.model_fields

    def _content(self, value: Any) -> Any:
        if isinstance(value, Path) and (path := self.folder / value.expanduser()).is_file():
            return hashlib.sha256(path.read_bytes()).hexdigest()
        return value


@dataclass(frozen=True)
class Sections:
    """The sections that a training depends on.

    Attributes:
        space: The space's.
        sampler: The sampler's.
        rewards: Each property's reward's.
    """

    space: Section
    sampler: Section
    rewards: Mapping[str, Section]

    def completed(self, training: Mapping[str, Any]) -> dict[str, Any]:
        """What a training depends on, with every default."""
        objectives = {
            name: {**entry, "reward": self.rewards[name].completed(entry["reward"])}
            if name in self.rewards
            else entry
            for name, entry in training["objectives"].items()
        }
        sampler = self.sampler.completed(training["sampler"])
        return {
            **training,
            "space": self.space.completed(training["space"]),
            "objectives": objectives,
            "sampler": {key: value for key, value in sampler.items() if key not in FREE},
        }


def named(name: str, folder: Path) -> Mapping[str, Any]:
    """The type of a section; for a file of the user's own, its content, wherever it lies."""
    identity = plugin_identity(name, folder)
    return identity if "file" in identity else {"type": name}


def check_same_training(
    then: Mapping[str, Any], now: Mapping[str, Any], folder: Path, *, free: Collection[str] = ()
) -> None:
    """Refuse to go on with another training than the checkpoint is of.

    Args:
        then: What the checkpoint's training depends on, completed.
        now: What the one at hand depends on, completed.
        folder: Of the checkpoint.
        free: Top-level keys that may differ.

    Raises:
        ConfigError: naming the first key that differs.
    """
    # Where another plug-in is named, its keys say nothing more.
    paths = sorted(differences(then, now), key=lambda path: path[-1] not in _NAMES)
    for path in paths:
        if path[0] in free:
            continue
        raise ConfigError(
            f"{folder} holds the checkpoint of another training: {_difference(then, now, path)}. A training goes on "
            f"with the same config, except for its steps and device; set the key back, or choose another folder."
        )


def _difference(then: Mapping[str, Any], now: Mapping[str, Any], path: tuple[str, ...]) -> str:
    before, after = set(then["objectives"]), set(now["objectives"])
    if path[0] == "objectives" and before != after:
        return f"its properties were {', '.join(sorted(before))} and are now {', '.join(sorted(after))}"
    if path[-2:] == ("oracle", "results"):
        name = value_at(now, path[:-1])["name"]
        return f"the oracle {name!r} has other parameters, weights or another version"
    dotted = ".".join(path)
    if path[0] == "objectives" and len(after) == 1:
        dotted = ".".join(path[2:] if "reward" in path else ("objective", *path[2:]))
    if "class" in (value_at(now, path[:-1]) or ()) and path[-1] == "file":
        dotted = dotted.removesuffix("file") + "type"
    if _is_digest(value_at(then, path)) and _is_digest(value_at(now, path)):
        return f"the content of {dotted!r} was another"
    hint = " (--trained takes a sampler whatever its seed was)" if path == ("seed",) else ""
    return f"{dotted!r} was {_told(value_at(then, path))} and is now {_told(value_at(now, path))}{hint}"


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _told(value: Any) -> str:
    return "not stated" if value is None else repr(value)
