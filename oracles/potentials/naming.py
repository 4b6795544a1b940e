"""What a configuration writes for a potential: a name, or a name with what goes with it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from activelearning.candidate import FrozenMap
from activelearning.errors import ConfigError

Spec = str | Mapping[str, Any]


@dataclass(frozen=True)
class Potential:
    """A potential, named.

    Attributes:
        name: `mace:student`, `mace:<file>`, `mace:<foundation name>`, `chgnet` or `package.module:Class`.
        parameters: Keywords of the class; of a potential by its dotted path only.
        trust_code: Whether a model file that is a pickle may be loaded, which runs what code is in it.
    """

    name: str
    parameters: Mapping[str, Any] = field(default_factory=lambda: FrozenMap({}))
    trust_code: bool = False

    @classmethod
    def of(cls, value: Spec | Potential) -> Potential:
        """Read what a configuration holds.

        Raises:
            ConfigError: a key is unknown, missing, or of the wrong type.
        """
        if isinstance(value, Potential):
            return value
        if isinstance(value, str):
            return cls(value)
        known = [field.name for field in fields(cls)]
        for key in value:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"potential: unknown key {key!r}.{hint} Its keys are {', '.join(known)}.")
        name, parameters = value.get("name"), value.get("parameters", {})
        if not isinstance(name, str) or not name:
            raise ConfigError(f"potential: {dict(value)} lacks a name, such as name: mace:student.")
        if not isinstance(parameters, Mapping) or not all(isinstance(key, str) for key in parameters):
            raise ConfigError(
                f"potential: parameters of {name!r} must be a mapping of keywords, not {parameters!r}."
            )
        trust_code = value.get("trust_code", False)
        if not isinstance(trust_code, bool):
            raise ConfigError(f"potential: trust_code of {name!r} must be true or false, not {trust_code!r}.")
        potential = cls(name, FrozenMap(parameters), trust_code)
        if parameters and not potential.is_dotted:
            raise ConfigError(
                f"potential: {name!r} takes no parameters; only a calculator by its dotted path, package.module:Class, "
                f"does."
            )
        return potential

    @property
    def is_dotted(self) -> bool:
        """Whether it is a calculator by its dotted path."""
        family, _, rest = self.name.partition(":")
        return family != "mace" and bool(rest)
