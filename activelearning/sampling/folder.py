"""The folder of a run: held by one process at a time, never a stranger's, and its results replaced together."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from activelearning.errors import InputError
from activelearning.sampling import checkpoint, structures

SAMPLES, SUMMARY, PAGE = "samples.csv", "summary.json", "run.html"
LOCK = ".lock"
STAGING = ".new"
_RESULTS = (SAMPLES, structures.TABLE, PAGE, SUMMARY)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make a folder where it is missing, and keep other processes out of it; one that stays empty is removed again.

    Raises:
        InputError: it can't be made or written to, or another process holds it.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out: {folder} is a file; name a folder for the checkpoint and the results.")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = _locked(folder / LOCK)
        except BlockingIOError as error:
            raise InputError(
                f"--out: another process is using {folder}; wait until it is done, or choose another folder."
            ) from error
        except OSError as error:
            raise InputError(f"--out: {folder} can't be written: {error.strerror or error}.") from error
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
            os.close(lock)
    finally:
        with suppress(OSError):  # not empty: there is something to keep
            for path in made:
                path.rmdir()


def _locked(path: Path) -> int:
    """A descriptor of the lock file, locked; the system lets go of it with the process, however that ends."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before removes the file: what was locked may be no more than what is left of it.
            if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def check_ours(folder: Path) -> None:
    """Refuse a folder in which results would replace what no run has written, or could not be written.

    Raises:
        InputError: naming what is in the way.
    """
    for name in (checkpoint.FILE, *_RESULTS):
        if (folder / name).is_dir():
            raise InputError(
                f"--out: {folder / name} is a folder, and a file of that name is written; choose another folder."
            )
    if (folder / structures.FOLDER).is_file():
        raise InputError(
            f"--out: {folder / structures.FOLDER} is a file, and a folder of that name is written; choose another "
            f"folder."
        )
    if (folder / checkpoint.FILE).exists() or (folder / SUMMARY).exists():
        return
    strange = [name for name in (*_RESULTS, structures.FOLDER) if _holds_something(folder / name)]
    if strange:
        raise InputError(
            f"--out: {folder} holds {' and '.join(strange)}, but neither {checkpoint.FILE} nor {SUMMARY} of a run; "
            f"they would be replaced. Choose another folder, or move them away."
        )


def _holds_something(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A folder to write results to; they take the places of earlier ones once all are written, the summary last.

    Of an earlier run's structures, files with a name of ours are removed.

    Raises:
        InputError: something can't be written.
    """
    new = folder / STAGING
    try:
        shutil.rmtree(new, ignore_errors=True)  # of a run that was killed while writing
        new.mkdir(parents=True)
        yield new
        _move_structures(new / structures.FOLDER, folder / structures.FOLDER)
        for name in _RESULTS:
            if (new / name).exists():
                (new / name).replace(folder / name)
    except OSError as error:
        raise InputError(
            f"--out: results can't be written to {folder}: {error.strerror or error}."
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _move_structures(new: Path, place: Path) -> None:
    place.mkdir(exist_ok=True)
    for old in place.glob("*.cif"):
        if structures.OURS.fullmatch(old.name):
            old.unlink()
    for path in new.iterdir():
        path.replace(place / path.name)
