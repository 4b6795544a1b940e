"""Campaigns as deployments: Prefect goes on with each on a schedule, and at once when a laboratory has recorded.

A run that finds nothing to start ends as `Waiting`; no process waits for a laboratory. Which store is meant comes from
the environment (`ACTIVELEARNING_STORE`), since parameters are shown in Prefect's pages and a URL may hold a password.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.events import DeploymentEventTrigger
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.types.entrypoint import EntrypointType

from activelearning.campaign.continuation import stored_config
from activelearning.campaign.engine import Engine
from activelearning.campaign.stopping import Action
from activelearning.errors import EvaluatingError, LeaseHeldError
from activelearning.store.database import open_database
from flows.campaign import MAX_WORKERS, one_tick, run_rounds
from flows.events import LAB_RECORDED, resource_of
from flows.session import registered

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

STORE_VARIABLE = "ACTIVELEARNING_STORE"
_RUNNER: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=MAX_WORKERS)
# Who holds the lease may have looked for results just before the one that woke this run was recorded, and have nothing
# more to do: a run tries again for so many seconds.
BUSY_SECONDS = 60.0
_NAMES = {Action.WAITING: "Waiting", Action.FINISHED: "Finished", Action.CANCELLED: "Ended"}


@flow(
    name="continue-campaign",
    flow_run_name="{campaign}",
    task_runner=_RUNNER,
    persist_result=False,
    validate_parameters=False,
)
def continue_campaign(campaign: str) -> State[Any]:
    """Go on with a campaign of the store until it ends or has to wait.

    Returns:
        A completed state whose name says how it stands: `Waiting`, `Finished`, `Ended` (cancelled), or `Busy` where
        another process goes on working on it.
    """
    store = os.environ[STORE_VARIABLE]
    with closing(open_database(store)) as database:
        config, folder = stored_config(database, campaign)
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            with Engine.open(config, folder=folder, store=store) as engine, registered(engine):
                decision = run_rounds(engine, lambda: one_tick(campaign), None)
        except EvaluatingError as error:
            # What is new was taken in, and the other process goes on with it.
            return Completed(name="Busy", message=str(error))
        except LeaseHeldError as error:
            if time.monotonic() >= until:
                return Completed(name="Busy", message=str(error))
            time.sleep(2.0)
        else:
            return Completed(name=_NAMES[decision.action], message=decision.reason)


def deployment_of(campaign: str, every: timedelta) -> RunnerDeployment:
    """A campaign's deployment: runs at intervals, and when its laboratory has recorded something."""
    made: RunnerDeployment = continue_campaign.to_deployment(  # type: ignore[assignment]
        name=campaign,
        parameters={"campaign": campaign},
        interval=every,
        description=f"The campaign {campaign}: goes on every {every}, and when its laboratory has recorded something.",
        tags=["activelearning"],
        entrypoint_type=EntrypointType.MODULE_PATH,  # found wherever the package is installed
        triggers=[
            DeploymentEventTrigger(
                name=f"{campaign}-lab",
                expect={LAB_RECORDED},
                match={"prefect.resource.id": resource_of(campaign)},
                parameters={"campaign": campaign},
            )
        ],
    )
    return made


def serve_campaigns(campaigns: Sequence[str], store: str, every: timedelta) -> None:
    """Run the deployments of campaigns that are in the store, until stopped; each run is a process of its own.

    The first run of each is due at once: the schedule's own first one is an interval away.
    """
    from prefect import serve
    from prefect.client.orchestration import get_client

    os.environ[STORE_VARIABLE] = store  # the runs' processes inherit it
    deployments = [deployment_of(campaign, every) for campaign in campaigns]
    with get_client(sync_client=True) as client:
        for deployment in deployments:
            client.create_flow_run_from_deployment(deployment.apply())  # type: ignore[arg-type]
    serve(*deployments, print_starting_message=False)
