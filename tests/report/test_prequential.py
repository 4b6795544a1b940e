"""Scores of forecasts, against scipy and by hand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from activelearning.measurement import Censoring
from activelearning.report.prequential import Forecast, prequential, score

FINITE = st.floats(-50, 50)
POSITIVE = st.floats(1e-3, 50)


def forecast(mean: float, std: float, noise: float, value: float, error: float | None = None) -> Forecast:
    return Forecast("k", 1, "f", mean, std, noise, value, error)


@settings(max_examples=50)
@given(st.lists(st.tuples(FINITE, POSITIVE, POSITIVE, FINITE, st.none() | POSITIVE), min_size=1, max_size=8))
def test_scores_of_answers_are_those_of_normal_distributions(rows: list[tuple[float, ...]]) -> None:
    found = score([forecast(*row) for row in rows])
    frozen = [stats.norm(m, math.sqrt(s * s + n * n + (e or 0) ** 2)) for m, s, n, _, e in rows]
    values = [row[3] for row in rows]
    assert found["n"] == len(rows)
    logs = [d.logpdf(v) for d, v in zip(frozen, values, strict=True)]
    assert found["nlpd"] == pytest.approx(-sum(logs) / len(rows), rel=1e-9, abs=1e-9)
    errors = [v - row[0] for v, row in zip(values, rows, strict=True)]
    assert found["rmse"] == pytest.approx(math.sqrt(sum(e * e for e in errors) / len(errors)))
    assert found["bias"] == pytest.approx(sum(errors) / len(errors), abs=1e-12)
    ratios = [e / d.std() for e, d in zip(errors, frozen, strict=True)]
    assert found["standardised_rms"] == pytest.approx(math.sqrt(sum(r * r for r in ratios) / len(ratios)))
    for level in (50, 90):
        inside = [
            d.ppf(0.5 - level / 200) <= v <= d.ppf(0.5 + level / 200)
            for d, v in zip(frozen, values, strict=True)
        ]
        assert found[f"coverage_{level}"] == pytest.approx(sum(inside) / len(inside))
    assert (found["n_bounds"], found["bound_log_probability"]) == (0, None)


@pytest.mark.parametrize("z", [-80.0, -30.5, -29.5, -5.0, 0.0, 4.0])
@pytest.mark.parametrize("censoring", [Censoring.UPPER, Censoring.LOWER])
def test_bounds_count_by_the_probability_of_what_they_say(z: float, censoring: Censoring) -> None:
    sign = 1.0 if censoring is Censoring.UPPER else -1.0
    bound = Forecast("k", 1, "f", 2.0, 0.3, 0.4, 2.0 + sign * z * 0.5, None, censoring)
    found = score([bound, forecast(0.0, 1.0, 0.0, 0.0)])
    assert found["bound_log_probability"] == pytest.approx(stats.norm.logcdf(z), rel=1e-5)
    assert (found["n"], found["n_bounds"], found["rmse"]) == (1, 1, 0.0)


def test_a_forecast_without_room_for_error_has_no_density() -> None:
    found = score([forecast(1.0, 0.0, 0.0, 1.5)])
    assert found["rmse"] == 0.5
    assert found["nlpd"] is found["coverage_90"] is found["standardised_rms"] is None


def test_fidelities_are_scored_apart() -> None:
    old, late = forecast(0.0, 1.0, 0.0, 1.0), Forecast("l", 2, "g", 0.0, 1.0, 0.0, 3.0)
    found = prequential([old, late], [late])
    assert {name: scores["all"]["rmse"] for name, scores in found.items()} == {"f": 1.0, "g": 3.0}
    assert found["f"]["new"] is None
    assert found["g"]["new"] == found["g"]["all"]
