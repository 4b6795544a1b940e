"""How good the model is: answers left out, forecasts of answers since in, and agreement with the target."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from activelearning.report.prequential import forecasts, score
from activelearning.report.reading import header
from activelearning.store.database import Database
from activelearning.store.models import Round

_LEFT_OUT = ("rmse", "nlpd", "coverage_50", "coverage_90", "bound_log_probability")


def diagnostics(database: Database, name: str) -> dict[str, dict[str, Any]]:
    """By fidelity, in the config's order, what can be said of the model; empty before the first fit.

    Returns:
        `{left_out, forecasts, new, target}`: `left_out` are the figures of the last fit (`n, rmse, nlpd, coverage_50,
        coverage_90, bound_log_probability`; None each where the surrogate gives none), `forecasts` the scores of all
        answers that had been predicted (see `activelearning.report.prequential.score`), those since the last fit
        included, `new` those that were new at the last fit, and `target` the correlation with its target (see
        `activelearning.campaign.agreement`), None for a target itself.

    Raises:
        InputError: the store holds no such campaign.
    """
    with database.read() as session:
        campaign = header(session, name)
        last = session.scalar(
            select(Round).where(Round.campaign == name, Round.index > 0).order_by(Round.index.desc()).limit(1)
        )
    if last is None:
        return {}
    fitted, summary = last.summary.get("surrogate", {}), last.summary
    made = forecasts(database, name)
    found: dict[str, dict[str, Any]] = {}
    for fidelity in campaign.fidelities:
        mine = [forecast for forecast in made if forecast.fidelity == fidelity]
        found[fidelity] = {
            "left_out": {
                "n": fitted.get("n", {}).get(fidelity),
                **{key: fitted.get(f"loo_{key}", {}).get(fidelity) for key in _LEFT_OUT},
            },
            "forecasts": score(mine) if mine else None,
            "new": summary.get("prequential", {}).get(fidelity, {}).get("new"),
            "target": summary.get("agreement", {}).get(fidelity),
        }
    return found
