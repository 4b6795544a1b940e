"""Loops compiled by numba, kept on disk from one process to the next."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache


def compiled(**options: Any) -> Callable[[Any], Any]:
    """Decorator: `numba.njit`, which has no types, with a cache beside the module or in the user's folder.

    Where neither can be written, as in some containers, each process compiles anew; `NUMBA_CACHE_DIR` names another
    folder. Divisions by zero give infinities, as in numpy.
    """

    def decorate(function: Any) -> Any:
        dispatcher = njit(error_model="numpy", **options)(function)
        with contextlib.suppress(RuntimeError):  # no folder can be written
            dispatcher._cache = Cache(function)
        return dispatcher

    return decorate


class Cache(FunctionCache):  # type: ignore[misc]
    """Numba's, but whatever is wrong with its files means no more than that a function is compiled anew.

    Numba raises where a disk is full or a file damaged. Two processes that write at once may leave an index that names
    the code of other types, so that what was loaded is compared with what was asked for.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What is kept for arguments of these types; None where it can't be had."""
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # whatever a pickle may raise
            with contextlib.suppress(Exception):
                self.flush()
            return None
        if found is not None and tuple(found.signature.args) != tuple(sig):
            return None
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep it where that is possible."""
        with contextlib.suppress(Exception):
            super().save_overload(sig, data)
