"""Open engines of this process by campaign name.

Flows and tasks are given a campaign's name, never an engine: parameters are shown in Prefect's UI and kept in
its database, and a flow started from a deployment has nothing but them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from activelearning.campaign.engine import Engine
from activelearning.errors import InputError

_open: dict[str, Engine] = {}


@contextmanager
def registered(engine: Engine) -> Iterator[None]:
    """Make an engine known to the flows of this process."""
    if engine.name in _open:
        raise InputError(f"The campaign {engine.name!r} is being run by this process already.")
    _open[engine.name] = engine
    try:
        yield
    finally:
        del _open[engine.name]


def engine_of(campaign: str) -> Engine:
    """The open engine of a campaign.

    Raises:
        InputError: this process has not opened it.
    """
    try:
        return _open[campaign]
    except KeyError:
        raise InputError(
            f"The campaign {campaign!r} is not open in this process; `activelearning run CONFIG` and "
            f"`activelearning tick {campaign}` open it."
        ) from None
