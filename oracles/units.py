"""Units of conductivity as people write them, and the conversions among them.

Every unit other than the logarithmic one is a factor of S/cm; log10(S/cm) is the decimal logarithm of the
number of S/cm. All conversions are increasing, so a bound stays a bound of the same kind.
"""

from __future__ import annotations

import math

from activelearning.errors import InputError
from activelearning.measurement import MeasuredValue

_SIEMENS_PER_CM = {"S/cm": 1.0, "mS/cm": 1e-3, "S/m": 1e-2}
_LOGARITHM = "log10(S/cm)"
KNOWN = (*_SIEMENS_PER_CM, _LOGARITHM)
_MAX_EXPONENT = 300.0  # beyond, 10^x is no number of double precision


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
    for name in (given, unit):
        if name not in KNOWN:
            raise InputError(
                f"A value in {given!r} can't be converted to {unit!r}, the unit that was asked for. "
                f"Conversions are known among {', '.join(KNOWN)}; give the value in {unit!r}."
            )
    value, std = _to_siemens(measured.value, measured.std, given)
    value, std = _from_siemens(value, std, unit)
    return MeasuredValue(value, unit, std, measured.censoring)


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
