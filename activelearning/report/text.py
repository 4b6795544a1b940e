"""Short texts for people: candidates, values with their errors, and bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from activelearning.measurement import Censoring

_BOUND_SIGNS = {Censoring.UPPER: "≤ ", Censoring.LOWER: "≥ "}


def candidate_text(candidate: Mapping[str, Any]) -> str:
    """A candidate's JSON value in one short line: formula, space group and lattice, or the coordinates."""
    if candidate.get("kind") == "crystal":
        formula = " ".join(
            f"{symbol}{f'{n:g}' if n != 1 else ''}" for symbol, n in candidate["composition"].items()
        )
        if candidate.get("lattice") is None:
            return f"{formula}, group {candidate['space_group']}"
        a, b, c, alpha, beta, gamma = candidate["lattice"]
        cell = f"{a:.2f} {b:.2f} {c:.2f} Å {alpha:.0f} {beta:.0f} {gamma:.0f}°"
        return f"{formula}, group {candidate['space_group']}, {cell}"
    if "values" in candidate:
        return "(" + ", ".join(f"{value:.4g}" for value in candidate["values"]) + ")"
    return str(dict(candidate))


def value_text(value: float | None, std: float | None = None, censoring: str | None = None) -> str:
    """A value with its standard error, as in `-3.2 ± 0.1` or `≤ -4.5`; `-` where there is none."""
    if value is None:
        return "-"
    sign = _BOUND_SIGNS.get(Censoring(censoring), "") if censoring else ""
    error = f" ± {std:.2g}" if std else ""
    return f"{sign}{value:.4g}{error}"


def number_text(value: float | None, digits: int = 2) -> str:
    """A figure in so many significant digits; `-` where there is none."""
    return "-" if value is None else f"{value:.{digits}g}"


def diagnostics_text(judged: Mapping[str, Any]) -> str:
    """One fidelity's diagnostics (see `activelearning.report.diagnostics`) in one line."""
    left_out, forecast, target = judged["left_out"], judged["forecasts"], judged["target"]
    parts = []
    if left_out["rmse"] is not None:
        parts.append(f"left out, {_judged(left_out)}")
    if forecast is not None and forecast["n"]:
        parts.append(f"{forecast['n']} forecasts, {_judged(forecast)}")
    if target is not None:
        parts.append(
            f"correlation with {target['target']} {number_text(target['learned'])} learned, "
            f"{number_text(target['pearson'])} on {target['n']} shared"
        )
    return "; ".join(parts) or "nothing to judge by yet"


def _judged(figures: Mapping[str, Any]) -> str:
    return (
        f"rmse {number_text(figures['rmse'])} nlpd {number_text(figures['nlpd'])} "
        f"coverage {number_text(figures['coverage_50'])} of .5, {number_text(figures['coverage_90'])} of .9"
    )


def best_text(best: Mapping[str, Any]) -> str:
    """The best of a status in one line: value and candidate or, of several objectives, hypervolume and size."""
    if "hypervolume" in best:
        candidates = "1 candidate" if best["size"] == 1 else f"{best['size']} candidates"
        return f"hypervolume {value_text(best['hypervolume'])} of {candidates} that none beats"
    return f"{value_text(best['value'], best['std'])} {candidate_text(best['candidate'])}"
