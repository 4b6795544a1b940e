"""Fetching OBELiX by the package that its authors publish."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

from activelearning.errors import InputError
from oracles.ml_proxy.data import read_csv, read_training

PACKAGE = "obelix-data"


def fetch_obelix(folder: Path) -> dict[str, Any]:
    """Download OBELiX (Therrien et al., arXiv 2502.14234, CC BY 4.0) into a new folder, in the layout of its package.

    Nothing is left behind where the download fails.

    Args:
        folder: Where it goes; must not exist.

    Returns:
        `data` (the folder), `n` (all entries) and `n_training` (those outside its test split).

    Raises:
        InputError: the folder exists or can't be made, the package is not installed, or the download fails.
    """
    if folder.exists():
        raise InputError(f"--out: {folder} exists; name a folder that does not, or use this one with --data.")
    try:
        from obelix import OBELiX
    except ImportError as error:
        raise InputError(
            f"OBELiX is downloaded by the package {PACKAGE!r} of its authors, which is not installed here: "
            f"pip install {PACKAGE}, then run this again."
        ) from error
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            part = Path(scratch) / "obelix"
            # The package reports on stdout, which belongs to the command's own answer.
            with contextlib.redirect_stdout(io.StringIO()):
                OBELiX(data_path=part, no_cifs=True)
            found = {"n": len(read_csv(part / "all.csv")), "n_training": len(read_training(part))}
            part.rename(folder)
    # Whatever a download meets: no network, a full disk, an archive cut short, a table that has moved.
    except Exception as error:
        raise InputError(
            f"OBELiX could not be fetched to {folder} by {PACKAGE!r}: {type(error).__name__}: {error}. Where there is "
            f"no network, bring its folder (all.csv, test.csv) by other means and name it with --data or "
            f"ACTIVELEARNING_OBELIX."
        ) from error
    return {"data": str(folder), **found}
