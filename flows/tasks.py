"""The engine's steps as Prefect tasks, one a step.

Tasks take names and numbers only, keep no result and are never cached: what a step did is in the store. A
step that met an infrastructure fault (a store out of reach for a moment) is tried again, which is safe
because every step is one transaction or can be repeated; nothing else is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from sqlalchemy.exc import InterfaceError, OperationalError

from flows.session import engine_of

INFRASTRUCTURE_FAULTS = (OperationalError, InterfaceError)


async def _is_infrastructure_fault(_task: Any, _run: Any, state: Any) -> bool:
    try:
        await state.result()
    except INFRASTRUCTURE_FAULTS:
        return True
    except BaseException:
        return False
    return False


_OPTIONS: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "retries": 2,
    "retry_delay_seconds": [1, 10],
    "retry_condition_fn": _is_infrastructure_fault,
}


def _log(message: str, figures: Mapping[str, Any] | None = None) -> None:
    shown = {name: value for name, value in (figures or {}).items() if isinstance(value, int | float | str)}
    text = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
    get_run_logger().info(f"{message}: {text}" if text else message)


@task(name="reconcile", task_run_name="reconcile-round-{round}", **_OPTIONS)
def reconcile(campaign: str, round: int) -> None:
    """Bring the store up to what is true outside."""
    engine_of(campaign).reconcile()
    _log("half-done submissions are finished")


@task(name="ingest", task_run_name="ingest-round-{round}", **_OPTIONS)
def ingest(campaign: str, round: int) -> int:
    """Take in what outside oracles have finished; returns the number of results."""
    n = engine_of(campaign).ingest()
    _log(f"{n} results came in")
    return n


@task(name="decide", task_run_name="decide-round-{round}", **_OPTIONS)
def decide(campaign: str, round: int) -> tuple[str, str]:
    """Whether another round is due; returns action and reason."""
    decision = engine_of(campaign).decide()
    _log(f"{decision.action}" + (f": {decision.reason}" if decision.reason else ""))
    return decision.action, decision.reason


@task(name="fit", task_run_name="fit-round-{round}", **_OPTIONS)
def fit(campaign: str, round: int) -> None:
    """Fit the surrogate to every observation."""
    _log("the surrogate is fitted", engine_of(campaign).fit())


@task(name="propose", task_run_name="propose-round-{round}", **_OPTIONS)
def propose(campaign: str, round: int) -> tuple[str, str]:
    """Train the sampler and choose the batch; returns action and reason."""
    decision = engine_of(campaign).propose()
    _log(f"{decision.action}" + (f": {decision.reason}" if decision.reason else ""))
    return decision.action, decision.reason


# The step that must not be repeated blindly: its plan is gone once it was tried, and the store knows whether
# it is in.
@task(name="commit", task_run_name="commit-round-{round}", **{**_OPTIONS, "retries": 0})
def commit(campaign: str, round: int) -> int:
    """Write the round with its reservations in one transaction; returns its index."""
    index = engine_of(campaign).commit()
    _log(f"round {index} is committed")
    return index


@task(name="submit", task_run_name="submit-round-{round}", **_OPTIONS)
def submit(campaign: str, round: int) -> int:
    """Hand over what is committed; returns the number of evaluations."""
    n = engine_of(campaign).submit()
    _log(f"{n} evaluations are handed over")
    return n


@task(name="evaluate", task_run_name="evaluate-{fidelity}-round-{round}", **_OPTIONS)
def evaluate(campaign: str, fidelity: str, round: int, keys: Sequence[str]) -> None:
    """Evaluate one fidelity's open work in process; a failed evaluation is a row, no failure of the task."""
    _log(f"{len(keys)} evaluations at {fidelity}")
    engine_of(campaign).evaluate(fidelity, keys)
