"""Events that wake a waiting campaign. Nothing depends on them: the next tick reads the store all the same."""

from __future__ import annotations

LAB_RECORDED = "activelearning.lab.recorded"
# A command should not wait long for a server that does not answer.
_DRAIN_SECONDS = 5.0


def resource_of(campaign: str) -> str:
    """Id of a campaign as a resource of Prefect's events."""
    return f"activelearning.campaign.{campaign}"


def lab_recorded(campaign: str) -> bool:
    """Tell Prefect that a laboratory has recorded something; False where no server is set up, or none takes it."""
    from flows.server import PrefectError, configured_url, require_api

    if configured_url() is None:
        return False
    import logging

    import httpx
    from prefect.events import emit_event
    from prefect.events.worker import EventsWorker
    from prefect.exceptions import PrefectException

    # What it has to say of a server that is slow is nothing to a person who has recorded a result.
    logging.getLogger(EventsWorker.__name__).setLevel(logging.CRITICAL)
    try:
        require_api(patience=2.0)
        event = emit_event(LAB_RECORDED, resource={"prefect.resource.id": resource_of(campaign)})
        EventsWorker.drain_all(timeout=_DRAIN_SECONDS)
    except (httpx.HTTPError, PrefectException, PrefectError, OSError):
        return False  # it is in the store, and that is what counts
    return event is not None
