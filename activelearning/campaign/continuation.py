"""Continuing a campaign: its config as the store keeps it, what it may change, and what it may not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from activelearning.campaign.config import CampaignConfig, parse_config
from activelearning.errors import ConfigError
from activelearning.report.reading import header
from activelearning.store.database import Database
from activelearning.store.models import Campaign

# What may differ when a campaign is continued; all else would make its rounds incomparable. Where the store and the
# files lie is no part of a campaign: both may be moved.
_FREE = ("budget", "stopping", "store", "artifacts")
_STEPS = ("steps", "warm_steps", "max_iterations")


def stored_config(database: Database, name: str) -> tuple[CampaignConfig, Path]:
    """A campaign's config as the store keeps it, and the folder at which its relative paths start.

    Raises:
        InputError: the store holds no campaign of that name; the message names the nearest one.
        ConfigError: the config has a key that is no more.
    """
    with database.read() as session:
        header(session, name)  # says so where there is none
        row = session.get_one(Campaign, name)
        config, folder = row.config, Path(row.folder)
    return parse_config(_of_its_time(config), source=f"the stored config of {name!r}"), folder


def check_continuation(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Compare a stored config with the one at hand; a key that the stored one lacks has its default there.

    Raises:
        ConfigError: naming the first key that may not change.
    """
    old = _filled(old)
    for path in differences(old, new):
        if path[0] in _FREE:
            continue
        if path[0] == "fidelities" and len(path) == 3 and path[2] == "max_in_flight":
            continue
        if path[0] in ("sampler", "surrogate") and len(path) == 2 and path[1] in _STEPS:
            continue
        dotted = ".".join(path)
        raise ConfigError(
            f"The campaign {old['name']!r} is in the store with another {dotted!r}: it was {value_at(old, path)!r} "
            f"and is now {value_at(new, path)!r}. A campaign continues with the same config, except for budget, "
            f"stopping, max_in_flight and the step counts of surrogate and sampler. Set the key back, or give "
            f"the campaign another name."
        )


def _filled(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stored config with the defaults of keys that are younger than it is.

    One with a key that is no more does not parse, and is compared as it stands, so that this key is named.
    """
    stored = _of_its_time(stored)
    try:
        return parse_config(stored).to_json()
    except ConfigError:
        return stored


def _of_its_time(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stored config with the keys that are younger than it is and whose default is not how it was run."""
    # Before there was a safety rule, nothing was foretold that it could go by.
    return stored if "safety" in stored else {**stored, "safety": {"enabled": False}}


def differences(old: Any, new: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths to all that differs between two JSON values, below `path`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted(set(old) | set(new))
        return [d for key in keys for d in differences(old.get(key), new.get(key), (*path, str(key)))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, (*path, str(i)))]
    return [] if old == new else [path]


def value_at(value: Any, path: tuple[str, ...]) -> Any:
    """What a path leads to in a JSON value; None where it ends early."""
    for part in path:
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list):
            value = value[int(part)]
    return value
