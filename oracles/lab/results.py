"""What a person says of a measurement, read and checked; and one value out of several measurements of one request."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from activelearning.errors import InputError
from activelearning.measurement import Censoring, MeasuredValue
from oracles.units import check_range, convert, is_logarithm, unit_of

MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_TEXT = 2000  # characters of a method, a name or a note
_BOUND_SIGNS = {"<": Censoring.UPPER, "≤": Censoring.UPPER, ">": Censoring.LOWER, "≥": Censoring.LOWER}
# Measured values contradict a bound where their mean is beyond it by more than so many of its standard errors.
_CONTRADICTION = 3.0


@dataclass(frozen=True)
class Upload:
    """A file that comes with a result: its name as the person has it, and its content."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Unrequested:
    """What a result is of that no campaign asked for.

    Attributes:
        candidate: The candidate's JSON value.
        campaign: Name of the campaign that is to know it.
        fidelity: Name of its fidelity; None where it has one laboratory only.
        once: A mark of the form that it was written in: the same form sent again is no other result. None where each
            is one of its own.
    """

    candidate: Mapping[str, Any]
    campaign: str
    fidelity: str | None = None
    once: str | None = None


@dataclass(frozen=True)
class NewResult:
    """A result about to be recorded.

    Attributes:
        of: The request's key, or a beginning of it that no other has; or what was measured unasked.
        value: In `unit`; for a bound, the bound.
        censoring: Whether the value is a bound.
        std: One standard error, in `unit`; None, or 0, where it is not known.
        unit: Unit of value and std; None means the request's.
        corrects: Number of the result of the same request whose place it takes.
        is_replicate: Whether it is another measurement beside those that are there.
        method: How it was measured.
        by: Who measured or recorded it.
        cost: What it took, in the campaign's cost unit, where the fidelity charges by measure.
        note: Anything else.
        files: Files to keep with it.
        n_seen: Number of results that the person saw when deciding; None where nobody looked.
    """

    of: str | Unrequested
    value: float
    censoring: Censoring = Censoring.NONE
    std: float | None = None
    unit: str | None = None
    corrects: int | None = None
    is_replicate: bool = False
    method: str | None = None
    by: str | None = None
    cost: float | None = None
    note: str | None = None
    files: tuple[Upload, ...] = ()
    n_seen: int | None = None


def parse_value(text: str) -> tuple[float, Censoring]:
    """Read a value as a laboratory writes it: a number, or a bound such as `<1e-10`.

    Raises:
        InputError: the text is neither.
    """
    stripped = text.strip()
    censoring = _BOUND_SIGNS.get(stripped[:1], Censoring.NONE)
    number = stripped if censoring is Censoring.NONE else stripped[1:].removeprefix("=")
    try:
        return MeasuredValue(float(number)).value, censoring
    except ValueError:
        raise InputError(
            f"{text[:80]!r} is no measured value: write a finite number such as 3.2e-4, or a bound like '<1e-10'."
        ) from None


def parse_number(text: str, what: str) -> float:
    """Read a finite number; `what` names it in the error.

    Raises:
        InputError: the text is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{what} is a finite number, not {text[:80]!r}.")
    return number


def checked(result: NewResult, wanted: str | None) -> MeasuredValue:
    """A result's value as it was written, in a unit that is known to convert to the one that the campaign wants.

    Args:
        result: The result.
        wanted: The campaign's unit, or None.

    Raises:
        InputError: naming what is wrong.
    """
    unit = wanted if result.unit is None or not result.unit.strip() else unit_of(result.unit)
    try:
        measured = MeasuredValue(result.value, unit, result.std, result.censoring)
    except ValueError as error:
        raise InputError(f"The result can't be recorded: {error}.") from error
    if result.unit is None and is_logarithm(unit) and measured.value > 0.0:
        # No solid is known to conduct ions so well; the number was not meant as a logarithm.
        raise InputError(
            f"A value of {measured.value:g} without a unit would be 10^{measured.value:g} S/cm, since the campaign "
            f"counts in {unit}; state the unit, such as S/cm or mS/cm (or {unit}, if it is meant)."
        )
    check_range(measured)
    convert(measured, wanted)  # what the campaign will do; a mistake is found while the person is here
    if result.cost is not None and not 0.0 <= result.cost < math.inf:
        raise InputError(f"The cost of a measurement is 0 or more, not {result.cost:g}.")
    for what, text in (("method", result.method), ("name", result.by), ("note", result.note)):
        check_text(what, text)
    return measured


def check_text(what: str, text: str | None) -> None:
    """Refuse what is too long, or no text.

    Raises:
        InputError: naming it.
    """
    if text is None:
        return
    if len(text) > MAX_TEXT:
        raise InputError(f"The {what} has {len(text)} characters; {MAX_TEXT} are room enough.")
    if any(not character.isprintable() and character not in "\n\r\t" for character in text):
        raise InputError(f"The {what} holds characters that can't be printed.")


def combine(replicates: Sequence[MeasuredValue]) -> MeasuredValue:
    """One value out of the measurements of one request, all in the campaign's unit.

    Replicates of one request share sample, cell and hands, so that they are one observation and not several: a
    model that was given each would divide by their number what varies from sample to sample, too, which is the noise it
    learns of the fidelity. Their mean is taken in the campaign's unit (of logarithms: the geometric mean):

    - Where each states an error: weighted by 1/σ², its error enlarged by the Birge ratio
      sqrt(χ² / (n - 1)) where the values scatter more than their errors allow (Birge, Physical Review 40, 207, 1932;
      the scale factor of the Particle Data Group).
    - Else the plain mean with the error that the scatter shows, s / sqrt(n), times Student's factor for
      n - 1 degrees of freedom at 68.27 %, for few values show their scatter badly (JCGM 100:2008, G.3).

    Of bounds alone the tightest counts. A bound that measured values keep adds nothing to them.

    Args:
        replicates: At least one.

    Raises:
        InputError: a bound contradicts measured values, or bounds are on both sides.
    """
    exact = [m for m in replicates if m.censoring is Censoring.NONE]
    upper = [m for m in replicates if m.censoring is Censoring.UPPER]
    lower = [m for m in replicates if m.censoring is Censoring.LOWER]
    if not exact:
        if upper and lower:
            raise InputError(
                "Bounds on both sides of the truth can't be one result; record the value between them, with its error."
            )
        return min(upper, key=lambda m: m.value) if upper else max(lower, key=lambda m: m.value)
    mean = exact[0] if len(exact) == 1 else _mean(exact)
    room = _CONTRADICTION * (mean.std or 0.0)
    for bound, beyond in [(m, mean.value - m.value) for m in upper] + [
        (m, m.value - mean.value) for m in lower
    ]:
        if beyond > room:
            sign = "<" if bound.censoring is Censoring.UPPER else ">"
            raise InputError(
                f"The bound {sign}{bound.value:g} contradicts the measured {mean.value:g} of the same request (both in "
                f"{bound.unit or 'its unit'}): correct the one that is wrong, or record the other sample as a result "
                f"that nobody asked for (--candidate)."
            )
    return mean


def _mean(values: Sequence[MeasuredValue]) -> MeasuredValue:
    n = len(values)
    errors = [m.std or 0.0 for m in values]
    if all(error > 0.0 for error in errors):
        weights = [error**-2 for error in errors]
        mean = math.fsum(w * m.value for w, m in zip(weights, values, strict=True)) / math.fsum(weights)
        chi_squared = math.fsum(w * (m.value - mean) ** 2 for w, m in zip(weights, values, strict=True))
        birge = max(math.sqrt(chi_squared / (n - 1)), 1.0)
        return MeasuredValue(mean, values[0].unit, birge / math.sqrt(math.fsum(weights)))
    from scipy.stats import norm, t

    mean = math.fsum(m.value for m in values) / n
    scatter = math.sqrt(math.fsum((m.value - mean) ** 2 for m in values) / (n - 1))
    student = float(t.ppf(norm.cdf(1.0), n - 1))
    return MeasuredValue(mean, values[0].unit, student * scatter / math.sqrt(n))
