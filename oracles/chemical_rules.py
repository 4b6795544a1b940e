"""Two rules of chemistry as properties of a composition: exact, at once, and with a slope for a sampler to follow.

`electronegativity_violation`: in a salt the cations are less electronegative than the anions (Pauling; the second test
of SMACT: Davies et al., *Computational screening of all stoichiometric inorganic materials*, Chem 1, 617, 2016). Over
all choices of oxidation states that make the composition neutral, the least of

    max(0, max χ(cations) - min χ(anions)),

in Pauling's unit; 0 where the rule is kept. `charge_imbalance`: the least |total charge| over all choices, in e per
atom; 0 where the composition can be neutral, as every crystal of a space with oxidation states is.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.charge import ChargeSet, default_oxidation_states, total_charges
from activelearning.crystals.elements import element_rows, properties
from activelearning.errors import ConfigError
from activelearning.measurement import Measurement
from oracles.base import Oracle

Rule = Literal["electronegativity_violation", "charge_imbalance"]
UNITS: Mapping[str, str | None] = {"electronegativity_violation": None, "charge_imbalance": "e/atom"}

# Element, its number of atoms and the oxidation states it may take.
_Ion = tuple[str, int, tuple[int, ...]]


class ChemicalRulesOracle(Oracle):
    """How far a crystal's composition is from keeping a rule of chemistry; 0 is best.

    Args:
        rule: `electronegativity_violation` or `charge_imbalance`; by default the property's own name.
        oxidation_states: States of elements; pymatgen's without zero for those not named.
        mixed_valence: Whether each atom of an element may take another state, of one sign.

    Raises:
        ConfigError: a named element is none, or has no state, or the state 0.
    """

    def __init__(
        self,
        rule: Rule | None = None,
        oxidation_states: dict[str, list[int]] | None = None,
        mixed_valence: bool = False,
    ) -> None:
        for symbol, states in (oxidation_states or {}).items():
            if symbol not in element_rows():
                raise ConfigError(
                    f"params.oxidation_states names {symbol!r}, which is no element of H to Lr."
                )
            if not states or 0 in states:
                raise ConfigError(
                    f"params.oxidation_states of {symbol} is {states}; it must name one state or more, none of them 0."
                )
        self.rule = rule
        self.oxidation_states = {symbol: tuple(q) for symbol, q in (oxidation_states or {}).items()}
        self.mixed_valence = mixed_valence

    def check(self) -> None:
        """Refuse a property that is no rule, and a unit that is not the rule's.

        Raises:
            ConfigError: the property is none, and no rule is named, or its unit is another.
        """
        prop = self.context.property
        if (self.rule or prop) not in UNITS:
            raise ConfigError(
                f"The oracle 'chemical_rules' tells {' and '.join(UNITS)}, not {prop!r}; name one of them by "
                f"params.rule."
            )
        self.check_unit(UNITS[self.rule or prop])

    def content(self) -> Mapping[str, object]:
        """The rule and the parameters, defaults filled in."""
        return {
            "rule": self.rule or self.context.property,
            "oxidation_states": {symbol: sorted(q) for symbol, q in self.oxidation_states.items()},
            "mixed_valence": self.mixed_valence,
        }

    def evaluate(self, candidates: Sequence[CrystalCandidate]) -> Sequence[Measurement]:
        """Answer for every candidate; what is no crystal, or has no neutral choice to order, fails."""
        return [self._measurement(candidate) for candidate in candidates]

    def _measurement(self, candidate: object) -> Measurement:
        if not isinstance(candidate, CrystalCandidate):
            return Measurement.failed(
                f"the oracle 'chemical_rules' needs crystals, not a {type(candidate).__name__}"
            )
        ions = tuple((symbol, n, self._states(symbol)) for symbol, n in candidate.composition.items())
        unknown = [symbol for symbol, _, states in ions if not states]
        if unknown:
            return Measurement.failed(f"no oxidation state of {', '.join(unknown)} is known")
        if (self.rule or self.context.property) == "charge_imbalance":
            value: float | None = charge_imbalance(ions, self.mixed_valence)
        else:
            value = electronegativity_violation(ions, self.mixed_valence)
        if value is None:
            return Measurement.failed(f"no choice of oxidation states makes {candidate.formula} neutral")
        return Measurement.of(self.context.property, value)

    def _states(self, symbol: str) -> tuple[int, ...]:
        return self.oxidation_states.get(symbol) or _default_states(symbol)


@lru_cache(maxsize=128)
def _default_states(symbol: str) -> tuple[int, ...]:
    return default_oxidation_states(symbol)


@lru_cache(maxsize=128)
def _electronegativity(symbol: str) -> float:
    """Pauling's; Allen's for helium, neon and argon, which have none."""
    return float(properties(["electronegativity"])[element_rows()[symbol], 0])


def _reachable(ions: Sequence[_Ion], is_mixed: bool) -> tuple[int, int]:
    """Total charges that can be had, as a bit set, and the bit of zero."""
    charges = [total_charges(states, n, is_mixed=is_mixed) for _, n, states in ions]
    offset = sum(max(map(abs, each)) for each in charges)
    reached = 1 << offset
    for each in charges:
        reached = ChargeSet.of(each).added_to(reached)
    return reached, offset


@lru_cache(maxsize=65536)
def charge_imbalance(ions: tuple[_Ion, ...], is_mixed: bool = False) -> float:
    """Least |total charge| in e per atom."""
    reached, zero = _reachable(ions, is_mixed)
    least = next(q for q in itertools.count() if (reached >> zero + q | reached << q >> zero) & 1)
    return least / sum(n for _, n, _ in ions)


@lru_cache(maxsize=65536)
def electronegativity_violation(ions: tuple[_Ion, ...], is_mixed: bool = False) -> float | None:
    """Least excess of a cation's electronegativity over an anion's; None where nothing makes it neutral."""
    best: float | None = None
    for signs in itertools.product((1, -1), repeat=len(ions)):
        chi = {
            sign: [_electronegativity(ion[0]) for ion, s in zip(ions, signs, strict=True) if s == sign]
            for sign in (1, -1)
        }
        if not (chi[1] and chi[-1]):
            continue
        excess = max(0.0, max(chi[1]) - min(chi[-1]))
        if best is not None and excess >= best:
            continue
        chosen = [
            (symbol, n, tuple(q for q in states if q * sign > 0))
            for (symbol, n, states), sign in zip(ions, signs, strict=True)
        ]
        if all(states for _, _, states in chosen):
            reached, zero = _reachable(chosen, is_mixed)
            if reached >> zero & 1:
                best = excess
    return best
