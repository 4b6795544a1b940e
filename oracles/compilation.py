"""Loops compiled by numba, kept on disk from one process to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Any], Any]:
    """Decorator: `numba.njit`, which has no types, with a cache beside the module or in the user's folder.

    Where neither can be written, as in some containers, each process compiles anew.
    """

    def decorate(function: Any) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:
            return njit(**options)(function)

    return decorate
