"""Relative paths of a config that another, in another folder, builds on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from activelearning.campaign.sections import parameters_model
from activelearning.contracts.registry import load_plugin

_TABLES = ("validation", "dataset")
# Sections by plug-in group, and how many parameters of a constructor are handed over by the engine.
_SECTIONS = {"space": ("spaces", 0), "sampler": ("samplers", 2), "reward": ("rewards", 1)}


def anchored(value: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A config's value with every relative path made one from the root, so that it can be read in another folder.

    Args:
        value: As its file has it; what is wrong with it is left to be said when it is read.
        folder: The file's.
    """
    found = dict(value)
    for key, entry in value.items():
        if key in _TABLES:
            found[key] = _path(entry, folder)
        elif key in _SECTIONS:
            found[key] = _section(entry, *_SECTIONS[key], folder)
        elif key == "objective":
            found[key] = _objective(entry, folder)
        elif key in ("objectives", "fidelities") and isinstance(entry, list):
            anchor = _objective if key == "objectives" else _oracle
            found[key] = [anchor(item, folder) for item in entry]
    return found


def _objective(entry: Any, folder: Path) -> Any:
    if not isinstance(entry, dict) or "reward" not in entry:
        return entry
    return {**entry, "reward": _section(entry["reward"], *_SECTIONS["reward"], folder)}


def _oracle(entry: Any, folder: Path) -> Any:
    """An entry of `fidelities`, whose plug-in and parameters lie apart."""
    if not isinstance(entry, dict):
        return entry
    params = entry["params"] if isinstance(entry.get("params"), dict) else {}
    section = _section({**params, "type": entry.get("oracle")}, "oracles", 0, folder)
    oracle = section.pop("type")
    return {**entry, "oracle": oracle, **({"params": section} if section else {})}


def _section(section: Any, group: str, n_given: int, folder: Path) -> Any:
    if not isinstance(section, dict) or not isinstance(name := section.get("type"), str):
        return section
    found = dict(section)
    where, _, attribute = name.rpartition(":")
    if where.endswith(".py"):
        found["type"] = f"{folder / where}:{attribute}"
    if any(isinstance(value, (str, list)) for key, value in section.items() if key != "type"):
        fields = parameters_model(load_plugin(group, name, folder=folder), n_given).model_fields
        for key, value in section.items():
            if key in fields and _is_path(fields[key].annotation):
                found[key] = _path(value, folder)
    return found


def _is_path(annotation: Any) -> bool:
    """Whether a text is read as a path, by itself or in a list."""
    return annotation is Path or any(_is_path(inner) for inner in get_args(annotation))


def _path(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_path(item, folder) for item in value]
    return str(folder / Path(value).expanduser()) if isinstance(value, str) else value
