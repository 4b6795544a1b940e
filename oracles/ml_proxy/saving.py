"""Where weights go: looked at before hours of training, and one paragraph if they can't be written after it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from activelearning.errors import InputError


@contextmanager
def writing(weights: Path) -> Iterator[None]:
    """Turn what the file system refuses into an error that names the option.

    Raises:
        InputError: the weights or their card can't be written.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"--out: {weights} can't be written: {error.strerror or error}.") from error


def check_place(weights: Path) -> None:
    """Refuse a place for weights, and the card beside them, that can't be written.

    Raises:
        InputError: with the reason.
    """
    if weights.is_dir():
        raise InputError(f"--out: {weights} is a folder; name a file that ends in .npz.")
    there = next(
        path for path in weights.absolute().parents if path.exists()
    )  # the rest is made with the file
    with writing(weights):
        if not there.is_dir():
            raise NotADirectoryError(0, f"{there} is no folder")
        with tempfile.TemporaryFile(dir=there):
            pass
        for file in (weights, weights.with_suffix(".md")):
            if file.exists() and not (file.is_file() and os.access(file, os.W_OK)):
                raise PermissionError(0, f"{file} is in the way and can't be replaced")
