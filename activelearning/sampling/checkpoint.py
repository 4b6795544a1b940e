"""The checkpoint of a training: one file, replaced as a whole, so that a kill at any instant leaves a good one."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from activelearning.campaign.continuation import differences, value_at
from activelearning.errors import ConfigError, InputError

FILE = "checkpoint.pt"
FORMAT = 1


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint in a folder.

    Args:
        folder: Where it lies; made where it is missing.
        state: Tensors, numbers, texts, lists and dicts.

    Raises:
        InputError: the folder can't be written to.
    """
    path = folder / FILE
    part = path.with_suffix(".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise InputError(f"The checkpoint {path} can't be written: {error.strerror or error}.") from error


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The checkpoint in a folder; None where there is none.

    Raises:
        InputError: the file is no checkpoint of this version.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        first = str(error).strip().split("\n")[0].rstrip(".")
        raise InputError(f"The checkpoint {path} can't be read: {first}. Remove it to train anew.") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise InputError(
            f"The checkpoint {path} has the format {found}, and this version reads {FORMAT}. Remove it to train anew."
        )
    return state


def check_same_training(then: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with another training than the checkpoint is of.

    Raises:
        ConfigError: naming the first key that differs.
    """
    for path in differences(then, now):
        before, after = value_at(then, path), value_at(now, path)
        if path[-2:] == ("oracle", "results"):
            what = f"the oracle {value_at(now, path[:-1])['name']!r} has other parameters, weights or another version"
        else:
            what = f"{'.'.join(path)!r} was {before!r} and is now {after!r}"
        raise ConfigError(
            f"{folder} holds the checkpoint of another training: {what}. A training goes on with the same config, "
            f"except for its steps and device; set the key back, or choose another folder."
        )
