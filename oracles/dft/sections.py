"""The sections of the oracle's parameters: keywords of a class, named by `type` where there are several."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from activelearning.campaign.sections import keywords
from activelearning.contracts.registry import load_plugin
from activelearning.errors import ConfigError

Part = TypeVar("Part")


def make_part(key: str, section: Mapping[str, Any], known: Mapping[str, type[Part]]) -> Part:
    """Make an engine or a scheduler from its section.

    Args:
        key: `engine` or `scheduler`.
        section: With `type`, a known name or `package.module:Class` or `/path/file.py:Class`, and parameters.
        known: Classes by short name; a class of one's own has the base that they have in common.

    Raises:
        ConfigError: naming the key at fault.
        PluginError: the class can't be imported.
    """
    parameters = dict(section)
    kind = parameters.pop("type", None)
    if not isinstance(kind, str):
        raise ConfigError(f"{key}.type is missing; take one of {', '.join(known)}.")
    if kind in known:
        cls: type[Any] = known[kind]
    elif ":" in kind:
        cls = load_plugin(f"{key}s", kind)
    else:
        near = difflib.get_close_matches(kind, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"{key}.type is {kind!r}.{hint} Known: {', '.join(known)}; a class of your own is named by "
            f"'package.module:Class'."
        )
    base: type[Any] = next(iter(known.values())).__mro__[1]
    if not issubclass(cls, base):
        raise ConfigError(f"{key}.type {kind!r} must be a subclass of {base.__module__}:{base.__name__}.")
    made: Part = cls(**keywords(cls, parameters, key=key, folder=None, own_keys=["type"]))
    return made


def make_plain(key: str, section: Mapping[str, Any], cls: type[Part]) -> Part:
    """Make what a section without a `type` describes.

    Raises:
        ConfigError: naming the key at fault.
    """
    return cls(**keywords(cls, section, key=key, folder=None))
