"""What an oracle of conductivity answers: the property, its unit and value, and what it can say nothing of."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

from activelearning.contracts.oracle import OracleContext
from activelearning.errors import ConfigError
from activelearning.measurement import Censoring, MeasuredValue
from oracles.dynamics.reading import Reading

UNIT = "log10(S/cm)"
NAMED = re.compile(r"_(\d+(?:\.\d+)?)K$")  # the temperature that a property's name ends with


def check_temperature(context: OracleContext, temperature: float) -> None:
    """Raise a `ConfigError` where a fidelity's property is not that at the temperature (K) which is simulated.

    One that names no temperature is that at room temperature, as it is measured and as models of it predict it.
    """
    stated = NAMED.search(context.property)
    if stated is None:
        raise ConfigError(
            f"fidelity {context.fidelity}: its property {context.property} names no temperature and so is that at room "
            f"temperature, but its params give that at {temperature:g} K, which is another quantity; name it "
            f"{context.property}_{temperature:g}K."
        )
    if not math.isclose(float(stated[1]), temperature):
        raise ConfigError(
            f"fidelity {context.fidelity}: its property {context.property} names {stated[1]} K, but its params "
            f"simulate {temperature:g} K; make the two agree."
        )


def nothing_to_measure(symbols: Collection[str], mobile_ion: str) -> str | None:
    """Why a crystal of these elements has no conductivity by this ion; None where it may have one."""
    if mobile_ion not in symbols:
        return f"holds no {mobile_ion}: nothing to conduct"
    if not set(symbols) - {mobile_ion}:
        return f"holds nothing but {mobile_ion}: no framework to conduct through"
    return None


def conductivity(reading: Reading) -> MeasuredValue:
    """log10 of the conductivity with its standard error, or an upper bound of it."""
    censoring = Censoring.UPPER if reading.diffusion.is_bound else Censoring.NONE
    return MeasuredValue(reading.log10_sigma, UNIT, reading.log10_error, censoring)
