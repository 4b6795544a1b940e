"""One tick and whole runs, as the engine does them by itself. Flows do the same, step by step, under Prefect."""

from __future__ import annotations

from activelearning.campaign.engine import Engine
from activelearning.campaign.stopping import Action, Decision


def tick(engine: Engine) -> Decision:
    """One round's steps; returns what was decided."""
    with engine.lease():
        engine.reconcile()
        engine.ingest()
    evaluate_outstanding(engine)
    with engine.lease():
        decision = engine.decide()
        if decision.action is Action.CONTINUE:
            engine.fit()
            decision = engine.propose()
        if decision.action is Action.CONTINUE:
            engine.commit()
            engine.submit()
    if decision.action is Action.CONTINUE:
        evaluate_outstanding(engine)
    else:
        engine.conclude(decision)
    return decision


def evaluate_outstanding(engine: Engine) -> None:
    """Evaluate all that is to be evaluated in process."""
    for fidelity, keys in engine.outstanding().items():
        engine.evaluate(fidelity, keys)


def run(engine: Engine, rounds: int | None = None) -> Decision:
    """Ticks until nothing more can be started, or `rounds` more rounds are committed."""
    done = 0
    while rounds is None or done < rounds:
        decision = tick(engine)
        if decision.action is not Action.CONTINUE:
            return decision
        done += 1
    return Decision(Action.CONTINUE, f"{done} rounds were asked for")
