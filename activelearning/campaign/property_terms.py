"""Terms of a reward from config sections: the oracle that tells a property, and the shaping of its values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from activelearning.campaign.config import RewardSection
from activelearning.campaign.sections import construct, plugin_identity
from activelearning.candidate import digest
from activelearning.contracts.oracle import OracleContext, OracleLike
from activelearning.errors import ActiveLearningError, ConfigError, PluginError
from activelearning.rewards import Shaping

# Who tells a property where the config names no oracle.
EXACT = {
    "density": "density",
    "electronegativity_violation": "chemical_rules",
    "charge_imbalance": "chemical_rules",
}
LEARNED = "ml_proxy"
_ORACLE_ATTRIBUTES = ("bind", "check", "content", "evaluate", "version", "is_queued")


def usual_oracle(prop: str) -> tuple[str, Mapping[str, Any]]:
    """Name and parameters of the oracle that tells a property where no other is named."""
    return (EXACT[prop], {}) if prop in EXACT else (LEARNED, {"property": prop})


def property_oracle(
    name: str,
    params: Mapping[str, Any],
    *,
    key: str,
    prop: str,
    unit: str | None,
    campaign: str,
    folder: Path,
    workdir: Path,
    hint: str = "",
) -> tuple[OracleLike, str]:
    """An oracle that answers at once, made, bound and checked; and the digest of what its answers depend on.

    Args:
        name: The plug-in.
        params: Its parameters.
        key: Dotted key of the section, for messages.
        prop: The property asked for.
        unit: Its unit, where one is stated.
        campaign: Name of the campaign or run.
        folder: Folder of the config, where relative paths start.
        workdir: Folder for its files; nothing is created in it here.
        hint: Said after any error.

    Raises:
        ActiveLearningError: naming the key at fault.
    """
    try:
        oracle: OracleLike = construct("oracles", name, params, key=f"{key}.params", folder=folder)
        for attribute in _ORACLE_ATTRIBUTES:
            if not hasattr(oracle, attribute):
                raise PluginError(f"{key}.oracle: {name!r} has no {attribute!r}; subclass oracles.Oracle.")
        if oracle.is_queued:
            raise ConfigError(
                f"{key}.oracle: {name!r} answers later, from elsewhere, and a sampler asks for its property many "
                f"thousand times; name an oracle that answers at once."
            )
        oracle.bind(OracleContext(campaign, name, prop, unit, 1.0, "", workdir))
        oracle.check()
        content = digest(
            {
                "oracle": plugin_identity(name, folder),
                "version": str(oracle.version),
                "content": dict(oracle.content()),
            }
        )
    except ActiveLearningError as error:
        text = str(error) if str(error).startswith(key) else f"{key}: {error}"
        raise type(error)(f"{text}{hint}") from error
    return oracle, content


def make_shaping(section: RewardSection, direction: str, *, key: str, folder: Path) -> Shaping:
    """The shaping that a reward section names.

    Raises:
        ActiveLearningError: naming the key at fault.
    """
    shaping: Shaping = construct(
        "rewards", section.type, section.params, direction, key=key, folder=folder, own_keys=["type"]
    )
    if not callable(shaping):
        raise PluginError(f"{key}: {section.type!r} can't be called; a reward has __call__(values, stds).")
    return shaping
