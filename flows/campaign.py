"""The flows: `campaign` runs round after round, `tick` runs one.

Both are the same loop body over the engine's steps. A round is no flow of its own, and neither is a
candidate: a sub-flow costs more than a second, a task milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from activelearning.campaign.engine import Engine
from activelearning.campaign.stopping import Action, Decision
from flows import tasks
from flows.artifacts import publish
from flows.server import require_api
from flows.session import engine_of

# Fidelities that are evaluated at the same time; what limits the work inside one is its own `max_in_flight`.
MAX_WORKERS = 8
_RUNNER: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=MAX_WORKERS)


@flow(
    name="campaign",
    flow_run_name="{campaign}",
    task_runner=_RUNNER,
    persist_result=False,
    validate_parameters=False,
)
def campaign_flow(campaign: str, rounds: int | None = None) -> tuple[str, str]:
    """Run a campaign until it ends, has to wait, or `rounds` more rounds after the initial design are done.

    Returns:
        The last decision: action and reason.
    """
    engine = engine_of(campaign)
    decision = run_rounds(engine, lambda: one_tick(campaign), last_round(engine, rounds))
    return decision.action, decision.reason


def last_round(engine: Engine, rounds: int | None) -> int | None:
    """Index that the next round has when `rounds` more are done; the initial design, round 0, does not count."""
    return None if rounds is None else max(engine.round, 1) + rounds


def run_rounds(engine: Engine, tick: Callable[[], Decision], last: int | None) -> Decision:
    """Ticks until the campaign ends, has to wait, or comes to the round `last`."""
    while last is None or engine.round < last:
        decision = tick()
        if decision.action is not Action.CONTINUE:
            return decision
    decision = Decision(Action.CONTINUE, "the rounds that were asked for are done")
    engine.conclude(decision)
    return decision


@flow(
    name="tick",
    flow_run_name="{campaign}-tick",
    task_runner=_RUNNER,
    persist_result=False,
    validate_parameters=False,
)
def tick_flow(campaign: str) -> tuple[str, str]:
    """Run one round's steps; returns the decision, action and reason."""
    decision = one_tick(campaign)
    if decision.action is Action.CONTINUE:
        engine_of(campaign).conclude(Decision(Action.CONTINUE, "one tick was asked for and is done"))
    return decision.action, decision.reason


def one_tick(campaign: str) -> Decision:
    """The steps of one round as tasks; must be called within a flow.

    Raises:
        PrefectError: Prefect's API is gone; nothing was done.
    """
    require_api()
    engine = engine_of(campaign)
    upcoming = engine.round
    with engine.lease():
        tasks.reconcile(campaign, upcoming)
        n_ingested = tasks.ingest(campaign, upcoming)
    # What a run that was lost left behind, before anything new is asked.
    if evaluate_outstanding(campaign) or n_ingested:
        publish(engine, upcoming - 1)
    with engine.lease():
        decision = _decision(tasks.decide(campaign, upcoming))
        if decision.action is Action.CONTINUE:
            tasks.fit(campaign, upcoming)
            decision = _decision(tasks.propose(campaign, upcoming))
        if decision.action is Action.CONTINUE:
            tasks.commit(campaign, upcoming)
            tasks.submit(campaign, upcoming)
    if decision.action is Action.CONTINUE:
        evaluate_outstanding(campaign)
        publish(engine, upcoming)
    else:
        engine.conclude(decision)
    return decision


def evaluate_outstanding(campaign: str) -> bool:
    """Evaluate all that is to be evaluated in process, each fidelity in a task; False where there was nothing."""
    engine = engine_of(campaign)
    outstanding = engine.outstanding()
    futures = [_submit_evaluation(campaign, fidelity, keys) for fidelity, keys in outstanding.items()]
    try:
        _wait(futures)
    except KeyboardInterrupt:
        engine.abort()  # the runner waits for its threads, and they for their oracles
        raise
    return bool(futures)


def _submit_evaluation(campaign: str, fidelity: str, keys: Sequence[str]) -> PrefectFuture[None]:
    engine = engine_of(campaign)
    oracle = next(f.oracle for f in engine.config.fidelities if f.name == fidelity)
    tagged = tasks.evaluate.with_options(tags={f"oracle:{oracle}", f"fidelity:{fidelity}"})
    return tagged.submit(campaign, fidelity, engine.round - 1, list(keys))


def _wait(futures: Sequence[PrefectFuture[None]]) -> None:
    """Wait for all, then raise the first failure: what the others found is in the store by then."""
    for future in futures:
        future.wait()
    for future in futures:
        future.result()


def _decision(told: tuple[str, str]) -> Decision:
    action, reason = told
    return Decision(Action(action), reason)
