"""The checkpoint of a training: one file, replaced as a whole, so that a kill at any instant leaves a good one."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from activelearning.errors import InputError

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


def read_checkpoint(folder: Path, fields: Collection[str]) -> dict[str, Any] | None:
    """The checkpoint in a folder; None where there is none.

    Args:
        folder: Where it lies.
        fields: What it must hold.

    Raises:
        InputError: the file is damaged, or no checkpoint of this version.
    """
    path = folder / FILE
    if not path.exists():
        return None
    broken = (
        f"The checkpoint {path} can't be read: it is damaged or no checkpoint of activelearning. Remove it to train "
        f"anew."
    )
    try:
        with zipfile.ZipFile(path) as archive:
            is_whole = archive.testzip() is None  # PyTorch itself does not compare checksums
        state = torch.load(path, weights_only=True) if is_whole else None
    except PermissionError as error:
        raise InputError(f"The checkpoint {path} can't be read: {error.strerror}.") from error
    except Exception as error:  # what damage raises is PyTorch's and pickle's affair
        raise InputError(broken) from error
    if not isinstance(state, dict) or "format" not in state:
        raise InputError(broken)
    if state["format"] != FORMAT:
        raise InputError(
            f"The checkpoint {path} has the format {state['format']!r}, and this version reads {FORMAT}. Remove it to "
            f"train anew."
        )
    if missing := [name for name in fields if name not in state]:
        raise InputError(f"The checkpoint {path} lacks {', '.join(missing)}. Remove it to train anew.")
    return state
