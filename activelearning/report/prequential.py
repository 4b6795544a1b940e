"""Prequential diagnostics: every answer against what was predicted for it when it was asked.

A model is judged by forecasts that it made before it knew the answers (Dawid, *Statistical theory: the prequential
approach*, J. R. Stat. Soc. A 147, 1984). The answers are those that the acquisition chose to ask for, not a random
sample of the space: what is found is how far the model can be trusted where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from sqlalchemy import and_, select

from activelearning.measurement import Censoring
from activelearning.report.reading import header
from activelearning.store.database import Database
from activelearning.store.models import Evaluation, MeasurementRow, State

_NORMAL = NormalDist()
_QUANTILES = {level: _NORMAL.inv_cdf(0.5 + level / 200) for level in (50, 90)}


@dataclass(frozen=True)
class Forecast:
    """What was predicted for one evaluation, and what it answered; all in the fidelity's unit.

    Attributes:
        key: Key of the evaluation.
        round: Round in which it was asked.
        fidelity: Name of its fidelity.
        mean: Predicted mean.
        std: Standard deviation of the noise-free answer.
        noise: Standard deviation that the model expected of an answer about it.
        value: The answer; for a bound, the bound.
        error: The answer's own standard error, where it is known.
        censoring: Whether the value is a bound.
    """

    key: str
    round: int
    fidelity: str
    mean: float
    std: float
    noise: float
    value: float
    error: float | None = None
    censoring: Censoring = Censoring.NONE

    @property
    def deviation(self) -> float:
        """Standard deviation of the answer about its predicted mean: the model's, the noise's and its own."""
        return math.hypot(self.std, self.noise, self.error or 0.0)


def forecasts(database: Database, name: str) -> list[Forecast]:
    """Every answer that a model had predicted, in the order of commitment.

    Answers of the initial design have no prediction and are left out, and so is what was asked by a version that did
    not keep the noise it expected.

    Raises:
        InputError: the store holds no such campaign.
    """
    on = and_(MeasurementRow.evaluation_key == Evaluation.key, MeasurementRow.property == Evaluation.property)
    query = (
        select(
            Evaluation.key,
            Evaluation.round,
            Evaluation.fidelity,
            Evaluation.predicted_mean,
            Evaluation.predicted_std,
            Evaluation.predicted_noise,
            MeasurementRow.value,
            MeasurementRow.std,
            MeasurementRow.censoring,
        )
        .join(MeasurementRow, on)
        .where(
            Evaluation.campaign == name,
            Evaluation.state == State.SUCCEEDED,
            Evaluation.predicted_mean.is_not(None),
            Evaluation.predicted_std.is_not(None),
            Evaluation.predicted_noise.is_not(None),
        )
        .order_by(Evaluation.round, Evaluation.position)
    )
    with database.read() as session:
        header(session, name)
        return [
            Forecast(
                key=row.key,
                round=row.round,
                fidelity=row.fidelity,
                mean=row.predicted_mean,
                std=row.predicted_std,
                noise=row.predicted_noise,
                value=row.value,
                error=row.std,
                censoring=Censoring(row.censoring),
            )
            for row in session.execute(query)
        ]


def score(made: Sequence[Forecast]) -> dict[str, Any]:
    """How good forecasts of one fidelity were.

    Returns:
        `n` and `n_bounds`; of the answers that are no bounds `bias` and `rmse` (answer less prediction, in the
        fidelity's unit), `standardised_mean` and `standardised_rms` (each error in units of its standard deviation:
        0 and 1 where the model is right), `nlpd` (mean negative log density in nats, the density in 1 / the fidelity's
        unit), `coverage_50` and `coverage_90` (share of answers in their central interval); and of the bounds
        `bound_log_probability`, the mean log probability of what they say. What can't be told is None, as it is where
        a forecast left no room for any error at all.
    """
    answers = [f for f in made if f.censoring is Censoring.NONE]
    bounds = [f for f in made if f.censoring is not Censoring.NONE]
    errors = [f.value - f.mean for f in answers]
    found: dict[str, Any] = {
        "n": len(answers),
        "n_bounds": len(bounds),
        "bias": _mean(errors),
        "rmse": _root_mean_square(errors),
        **dict.fromkeys(("standardised_mean", "standardised_rms", "nlpd", "coverage_50", "coverage_90")),
        "bound_log_probability": None,
    }
    if answers and all(f.deviation > 0.0 for f in answers):
        ratios = [e / f.deviation for e, f in zip(errors, answers, strict=True)]
        found["standardised_mean"], found["standardised_rms"] = _mean(ratios), _root_mean_square(ratios)
        found["nlpd"] = _mean(
            [
                0.5 * r * r + math.log(f.deviation) + 0.5 * math.log(2.0 * math.pi)
                for r, f in zip(ratios, answers, strict=True)
            ]
        )
        for level, quantile in _QUANTILES.items():
            found[f"coverage_{level}"] = _mean([float(abs(r) <= quantile) for r in ratios])
    if bounds and all(f.deviation > 0.0 for f in bounds):
        found["bound_log_probability"] = _mean([_log_probability(f) for f in bounds])
    return found


def prequential(made: Sequence[Forecast], new: Sequence[Forecast] = ()) -> dict[str, dict[str, Any]]:
    """Scores by fidelity: `{<fidelity>: {all: …, new: …}}`, `new` being None where there are none; see `score`."""
    by_fidelity: dict[str, dict[str, Any]] = {}
    for fidelity in sorted({f.fidelity for f in made}):
        recent = [f for f in new if f.fidelity == fidelity]
        by_fidelity[fidelity] = {
            "all": score([f for f in made if f.fidelity == fidelity]),
            "new": score(recent) if recent else None,
        }
    return by_fidelity


def _log_probability(bound: Forecast) -> float:
    """log Φ(±(bound − mean) / deviation), also far to the left, where Φ itself is 0 in floating point."""
    z = (bound.value - bound.mean) / bound.deviation
    z = z if bound.censoring is Censoring.UPPER else -z
    if z > -30.0:
        return math.log(0.5 * math.erfc(-z / math.sqrt(2.0)))
    # Φ(z) = φ(z)/|z| · (1 − 1/z² + …), Abramowitz & Stegun 26.2.12.
    return -0.5 * z * z - 0.5 * math.log(2.0 * math.pi) - math.log(-z) + math.log1p(-1.0 / (z * z))


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _root_mean_square(values: Sequence[float]) -> float | None:
    return math.sqrt(math.fsum(v * v for v in values) / len(values)) if values else None
