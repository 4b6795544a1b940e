"""Units of conductivity and of energy as people write them, and the conversions among them.

A conductivity's unit other than the logarithmic one is a factor of S/cm; log10(S/cm) is the decimal logarithm of the
number of S/cm. All conversions are increasing, so a bound stays a bound of the same kind.
"""

from __future__ import annotations

import math
import re

from activelearning.errors import InputError
from activelearning.measurement import MeasuredValue

_SIEMENS_PER_CM = {"S/cm": 1.0, "mS/cm": 1e-3, "uS/cm": 1e-6, "S/m": 1e-2}
_LOGARITHM = "log10(S/cm)"
# An energy a mole is that of a particle times the Avogadro constant (CODATA 2018, exact).
_ELECTRONVOLTS = {"eV": 1.0, "meV": 1e-3, "kJ/mol": 1e3 / (6.02214076e23 * 1.602176634e-19)}
CONDUCTIVITIES = (*_SIEMENS_PER_CM, _LOGARITHM)
ENERGIES = tuple(_ELECTRONVOLTS)
KNOWN = (*CONDUCTIVITIES, *ENERGIES)
_FAMILIES = (CONDUCTIVITIES, ENERGIES)
_MAX_EXPONENT = 300.0  # beyond, 10^x is no number of double precision

_SIGNS = str.maketrans({"⁻": "-", "−": "-", "¹": "1", "µ": "u", "μ": "u", "·": " ", "*": " "})
_PER = re.compile(r"\s*([A-Za-z]+)\^?-1$")
_LOG = re.compile(r"(?:log10|log_10|lg)\s*(?:\(\s*(.*?)\s*\)|\[\s*(.*?)\s*\]|(?<=\s)(\w.*))?$", re.IGNORECASE)


def unit_of(text: str) -> str:
    """A unit as it is spelled here: `S cm⁻¹`, `S·cm^-1` are `S/cm`; `log10`, `log10 S cm-1` are `log10(S/cm)`.

    What is not known is returned as it was written, without the white space around it.
    """
    plain = " ".join(text.translate(_SIGNS).split())
    logarithm = _LOG.fullmatch(plain)
    if logarithm is not None:
        of = logarithm[1] or logarithm[2] or logarithm[3] or "S/cm"
        return _LOGARITHM if _linear(of) == "S/cm" else text.strip()
    found = _linear(plain)
    return found if found in KNOWN else text.strip()


def _linear(plain: str) -> str:
    per = _PER.search(plain)
    return (f"{plain[: per.start()]}/{per[1]}" if per else plain).replace(" ", "")


def is_logarithm(unit: str | None) -> bool:
    """Whether values in a unit are logarithms."""
    return unit == _LOGARITHM


def check_range(measured: MeasuredValue) -> None:
    """Make sure that a value can be one of its unit.

    Raises:
        InputError: a conductivity that is not positive, or a logarithm that is beyond all numbers.
    """
    if measured.unit in CONDUCTIVITIES:
        convert(measured, "S/cm" if is_logarithm(measured.unit) else _LOGARITHM)


def convert(measured: MeasuredValue, unit: str | None) -> MeasuredValue:
    """A measured value in another unit, its standard error to first order.

    A value that states no unit is taken to be in the wanted one; where no unit is wanted, it stays as it is.

    Args:
        measured: Value with its unit, error and censoring.
        unit: Unit that is wanted, or None.

    Raises:
        InputError: there is no conversion, or a conductivity that is not positive has no logarithm.
    """
    given = measured.unit
    if unit is None or given is None or given == unit:
        return MeasuredValue(measured.value, unit or given, measured.std, measured.censoring)
    family = next((names for names in _FAMILIES if unit in names), ())
    if given not in family:
        known = f"Conversions are known among {', '.join(family)}; give" if family else "Give"
        raise InputError(
            f"A value in {given!r} can't be converted to {unit!r}, the unit that was asked for. "
            f"{known} the value in {unit!r}."
        )
    if family is ENERGIES:
        factor = _ELECTRONVOLTS[given] / _ELECTRONVOLTS[unit]
        std = None if measured.std is None else measured.std * factor
        return MeasuredValue(measured.value * factor, unit, std, measured.censoring)
    value, error = _to_siemens(measured.value, measured.std, given)
    value, error = _from_siemens(value, error, unit)
    return MeasuredValue(value, unit, error, measured.censoring)


def _to_siemens(value: float, std: float | None, unit: str) -> tuple[float, float | None]:
    if unit == _LOGARITHM:
        if abs(value) > _MAX_EXPONENT:
            raise InputError(f"A conductivity of 10^{value:g} S/cm can't be: check the value and its unit.")
        siemens = 10.0**value
        return siemens, None if std is None else siemens * math.log(10.0) * std
    factor = _SIEMENS_PER_CM[unit]
    return value * factor, None if std is None else std * factor


def _from_siemens(value: float, std: float | None, unit: str) -> tuple[float, float | None]:
    if unit == _LOGARITHM:
        if value <= 0.0:
            raise InputError(
                f"A conductivity of {value:g} S/cm has no logarithm; record a bound (as in '<1e-10') where "
                f"nothing was seen to conduct."
            )
        return math.log10(value), None if std is None else std / (value * math.log(10.0))
    factor = _SIEMENS_PER_CM[unit]
    return value / factor, None if std is None else std / factor
