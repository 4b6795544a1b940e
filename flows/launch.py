"""Running a flow for an open engine, whatever becomes of Prefect meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from activelearning.campaign.engine import Engine
from activelearning.campaign.stopping import Action, Decision
from flows.server import PrefectError, TemporaryServer, check_api, configured_url
from flows.session import registered


@contextmanager
def prefect_api() -> Iterator[TemporaryServer | None]:
    """A Prefect API for a while: the user's own where one is set up, else a temporary server.

    The server starts in the background; `run_flow` waits for it, so that opening the campaign costs no extra
    time.
    """
    if configured_url() is not None:
        check_api()
        yield None
        return
    with TemporaryServer() as server:
        yield server


def run_campaign(engine: Engine, server: TemporaryServer | None, *, rounds: int | None = None) -> Decision:
    """Run the `campaign` flow; see `flows.campaign.campaign_flow`.

    Raises:
        ActiveLearningError: as the engine; `PrefectError` where Prefect was lost on the way.
    """
    with _ready(engine, server):
        from flows.campaign import campaign_flow

        return _decision(campaign_flow(engine.name, rounds))


def run_tick(engine: Engine, server: TemporaryServer | None) -> Decision:
    """Run the `tick` flow; see `flows.campaign.tick_flow`.

    Raises:
        ActiveLearningError: as `run_campaign`.
    """
    with _ready(engine, server):
        from flows.campaign import tick_flow

        return _decision(tick_flow(engine.name))


@contextmanager
def _ready(engine: Engine, server: TemporaryServer | None) -> Iterator[None]:
    """Settings, registration, and one readable error for everything that Prefect may raise."""
    import httpx
    from prefect.exceptions import PrefectException
    from prefect.settings import PREFECT_API_URL, temporary_settings

    settings = {} if server is None else {PREFECT_API_URL: server.wait()}
    try:
        with temporary_settings(settings), registered(engine):
            yield
    except (httpx.HTTPError, PrefectException) as error:
        raise PrefectError(
            f"Prefect was lost while the campaign {engine.name!r} was running ({type(error).__name__}: {error}). "
            f"All that was committed is in the store, and the same command goes on from there."
        ) from error


def _decision(told: tuple[str, str]) -> Decision:
    action, reason = told
    return Decision(Action(action), reason)
