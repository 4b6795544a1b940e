"""Running a flow for an open engine, whatever becomes of Prefect meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from activelearning.campaign.engine import Engine
from activelearning.campaign.stopping import Action, Decision
from activelearning.campaign.tick import evaluate_outstanding, tick
from flows.server import PrefectError, TemporaryServer, check_api, configured_url
from flows.session import registered

DRAIN_SECONDS = 10.0
Notice = Callable[[str], None]

# Whether Prefect's API was lost by this process. Prefect's background threads then hold events that they try
# to send, each for seconds, before they let the process end: whoever ends it should not wait for them.
prefect_is_lost = False


def _silent(_text: str) -> None:
    return


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


def run_campaign(
    engine: Engine, server: TemporaryServer | None, *, rounds: int | None = None, notice: Notice = _silent
) -> Decision:
    """Run the `campaign` flow; see `flows.campaign.campaign_flow`.

    Where Prefect is lost on the way, the campaign goes on without it, and `notice` is told.

    Raises:
        ActiveLearningError: as the engine; `PrefectError` where Prefect does not start.
    """
    from flows.campaign import campaign_flow, last_round, run_rounds

    last = last_round(engine, rounds)
    return _run(
        engine,
        server,
        flow=lambda: campaign_flow(engine.name, rounds),
        alone=lambda: run_rounds(engine, lambda: tick(engine), last),
        notice=notice,
    )


def run_tick(engine: Engine, server: TemporaryServer | None, *, notice: Notice = _silent) -> Decision:
    """Run the `tick` flow; see `flows.campaign.tick_flow` and `run_campaign`.

    Raises:
        ActiveLearningError: as `run_campaign`.
    """
    from flows.campaign import tick_flow

    before = engine.round

    def alone() -> Decision:
        # The round may have been committed before Prefect was lost; then only its evaluations are left.
        if engine.round == before:
            return tick(engine)
        evaluate_outstanding(engine)
        return Decision(Action.CONTINUE, "one tick was asked for and is done")

    return _run(engine, server, flow=lambda: tick_flow(engine.name), alone=alone, notice=notice)


def _run(
    engine: Engine,
    server: TemporaryServer | None,
    *,
    flow: Callable[[], tuple[str, str]],
    alone: Callable[[], Decision],
    notice: Notice,
) -> Decision:
    import httpx
    from prefect.exceptions import PrefectException
    from prefect.settings import PREFECT_API_URL, temporary_settings

    settings = {} if server is None else {PREFECT_API_URL: server.wait()}
    with temporary_settings(settings):
        try:
            with registered(engine):
                action, reason = flow()
        except (httpx.HTTPError, PrefectException, PrefectError) as error:
            global prefect_is_lost
            prefect_is_lost = True
            notice(f"Prefect was lost ({type(error).__name__}: {error}); the campaign goes on without it.")
            return alone()
        finally:
            if not prefect_is_lost:
                _drain()
    return Decision(Action(action), reason)


def _drain() -> None:
    """Send what Prefect's background threads still hold, before its server is stopped."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=DRAIN_SECONDS)
    EventsWorker.drain_all(timeout=DRAIN_SECONDS)
