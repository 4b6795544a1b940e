"""Files that come with results: kept under names that are safe, in the campaign's artifact folder."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from activelearning.errors import InputError
from oracles.lab.results import MAX_FILE_BYTES, Upload

_MAX_NAME = 80


@dataclass(frozen=True)
class KeptFile:
    """A file in the artifact folder: its path relative to that, name as given, checksum and size in bytes."""

    path: str
    name: str
    sha256: str
    size: int


def safe_name(name: str) -> str:
    """A file's name without folders, hidden beginnings and signs that any system or shell reads otherwise."""
    last = re.split(r"[/\\]", name)[-1]
    plain = unicodedata.normalize("NFKD", last).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "_", plain).lstrip("._-")[-_MAX_NAME:] or "file"


def keep(root: Path, folder: str, upload: Upload) -> tuple[KeptFile, bool]:
    """Write a file below `root/folder`; also tells whether it is new there. The same content has the same path.

    Raises:
        InputError: it is empty, too large, or can't be written.
    """
    size = len(upload.content)
    if not 0 < size <= MAX_FILE_BYTES:
        raise InputError(
            f"The file {upload.name!r} has {size} bytes; from 1 to {MAX_FILE_BYTES} can be kept with a result."
        )
    checksum = hashlib.sha256(upload.content).hexdigest()
    relative = f"{folder}/{checksum[:12]}-{safe_name(upload.name)}"
    path = root / relative
    kept = KeptFile(relative, upload.name[:255], checksum, size)
    try:
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == checksum:
            return kept, False
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: what a killed process began must not pass for the file.
        part = path.with_name(f"{path.name}.part")
        part.write_bytes(upload.content)
        part.replace(path)
    except OSError as error:
        raise InputError(f"The file {upload.name!r} can't be kept in {path.parent}: {error}.") from error
    return kept, True


def read_upload(path: Path) -> Upload:
    """A file of this machine as an upload.

    Raises:
        InputError: it can't be read or is too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"The file {path} can't be read: {error.strerror or error}.") from error
    if len(content) > MAX_FILE_BYTES:
        raise InputError(f"The file {path} is larger than {MAX_FILE_BYTES} bytes.")
    return Upload(path.name, content)
