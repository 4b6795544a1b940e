"""Reading of a crystal space's options: each checked, and refused by its key.

`section` goes before the key in messages.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from activelearning.crystals.charge import default_oxidation_states
from activelearning.crystals.elements import atomic_number, element_rows
from activelearning.crystals.symmetry import CRYSTAL_SYSTEMS, LATTICE_SYSTEMS, SpaceGroup, space_groups
from activelearning.errors import ConfigError

# Stages in the orders in which a crystal can be built.
ORDERS = (
    ("space_group", "composition", "lattice"),
    ("composition", "space_group", "lattice"),
    ("space_group", "composition"),
    ("composition", "space_group"),
)
SPACE = "space."


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint at the known word that is nearest, or nothing."""
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def order(stages: Sequence[str] | None) -> tuple[str, ...]:
    """Stages of a crystal, in order; space group, composition, lattice by default."""
    if stages is None:
        return ORDERS[0]
    if tuple(stages) not in ORDERS:
        known = "; ".join(f"[{', '.join(each)}]" for each in ORDERS)
        raise ConfigError(f"space.order is [{', '.join(map(str, stages))}]; available are {known}.")
    return tuple(stages)


def without_lattice(is_stated: Mapping[str, bool], section: str = SPACE) -> None:
    """Refuse keys that say something about a lattice that there is not."""
    for key, stated in is_stated.items():
        if stated:
            raise ConfigError(
                f"{section}{key} is stated, but space.order has no lattice; add lattice to the order, or leave {key} "
                f"out."
            )


def elements(symbols: Sequence[str]) -> tuple[str, ...]:
    """Symbols in order of atomic number."""
    for symbol in symbols:
        if symbol not in element_rows():
            # YAML reads an unquoted No, N or Y as a boolean.
            hint = " Quote it in YAML." if isinstance(symbol, bool) else nearest(symbol, [*element_rows()])
            raise ConfigError(f"space.elements names {symbol!r}, which is no element of H to Lr.{hint}")
    if not symbols or len(set(symbols)) < len(symbols):
        raise ConfigError(f"space.elements must name one element or more, each once, not {list(symbols)}.")
    return tuple(sorted(symbols, key=atomic_number))


def subset(
    key: str, symbols: Sequence[str], elements: Sequence[str], section: str = SPACE
) -> tuple[str, ...]:
    """Some of the space's elements, in their order."""
    for symbol in symbols:
        if symbol not in elements:
            raise ConfigError(
                f"{section}{key} names {symbol!r}, which is not in space.elements ({', '.join(elements)})."
            )
    return tuple(e for e in elements if e in symbols)


def positive(key: str, value: int, section: str = SPACE) -> int:
    """A whole number of one or more."""
    if value < 1:
        raise ConfigError(f"{section}{key} is {value}; it must be 1 or more.")
    return value


def element_range(pair: tuple[int, int], n_elements: int) -> tuple[int, int]:
    """Fewest and most elements."""
    low, high = pair
    if not 1 <= low <= high or low > n_elements:
        raise ConfigError(
            f"space.n_elements is {list(pair)}; it must be [fewest, most], of 1 to {n_elements} elements in the space."
        )
    return low, min(high, n_elements)


def required(symbols: Sequence[str], elements: Sequence[str], most: int) -> tuple[str, ...]:
    """Elements that every crystal has, in the order of the space."""
    found = subset("required_elements", symbols, elements)
    if len(found) > most:
        raise ConfigError(
            f"space.required_elements names {len(found)} elements, more than the {most} a crystal can have."
        )
    return found


def count_ranges(
    ranges: Mapping[str, tuple[int, int]],
    elements: Sequence[str],
    per_element: int,
    section: str = SPACE,
    key: str = "counts",
) -> NDArray[np.bool_]:
    """Counts that ranges allow each element, `E x (per_element + 1)`, bool; all where none is stated."""
    allowed = np.ones((len(elements), per_element + 1), dtype=np.bool_)
    subset(key, [*ranges], elements, section)
    n = np.arange(per_element + 1)
    for symbol, pair in ranges.items():
        low, high = pair if len(pair) == 2 else (-1, -1)
        is_whole = low == int(low) and high == int(high)
        if not is_whole or not 0 <= low <= high <= per_element or not high:
            stated = low if key == "composition" else list(pair)
            raise ConfigError(
                f"{section}{key}.{symbol} is {stated}; an element has 1 to {per_element} atoms (0 as the fewest "
                f"lets it be absent)."
            )
        allowed[elements.index(symbol)] = (low <= n) & (n <= high)
    return allowed


def value_range(
    key: str, pair: tuple[float, float], least: float, most: float, unit: str, section: str = SPACE
) -> tuple[float, float]:
    """Lowest and highest value."""
    low, high = map(float, pair) if len(pair) == 2 else (math.nan, math.nan)
    # Narrower ranges would be eaten up by the margins of rounding.
    if not (least <= low and high <= most and high - low >= 0.01 * max(1.0, low)):
        raise ConfigError(
            f"{section}{key} is {list(pair)}; it must be [lowest, highest] in {unit}, within {least:g} to {most:g} and "
            "at least one per cent apart."
        )
    return low, high


def oxidation_states(
    given: Mapping[str, Sequence[int]] | Literal["off", False] | None, elements: Sequence[str]
) -> dict[str, tuple[int, ...]] | None:
    """States of each element; None where neutrality is off."""
    if given == "off" or given is False:
        return None
    if not (given is None or isinstance(given, Mapping)):
        raise ConfigError(
            f"space.oxidation_states is {given!r}; it must be a mapping such as {{Fe: [2, 3]}}, or off."
        )
    stated = dict(given or {})
    for symbol, states in stated.items():
        if symbol not in elements:
            raise ConfigError(f"space.oxidation_states names {symbol!r}, which is not in space.elements.")
        if not states or any(q != int(q) or abs(q) > 9 for q in states):
            raise ConfigError(
                f"space.oxidation_states.{symbol} is {list(states)}; it must be whole numbers from -9 to 9."
            )
    found = {e: tuple(stated[e]) if e in stated else default_oxidation_states(e) for e in elements}
    for symbol, states in found.items():
        if not states:
            raise ConfigError(
                f"space.elements names {symbol}, for which pymatgen knows no oxidation state; state them under "
                f"space.oxidation_states, or turn charge neutrality off by `oxidation_states: off`."
            )
    return found


def mixed_valence(
    given: bool | Sequence[str], elements: Sequence[str], *, is_neutral: bool
) -> tuple[str, ...]:
    """Elements whose atoms may take different states."""
    if not given:
        return ()
    if not is_neutral:
        raise ConfigError("space.mixed_valence is stated, but space.oxidation_states is off.")
    return tuple(elements) if isinstance(given, bool) else subset("mixed_valence", given, elements)


def groups(
    numbers: Sequence[int] | None, systems: Sequence[str] | None, section: str = SPACE
) -> tuple[SpaceGroup, ...]:
    """Groups by number and system, ascending."""
    for number in numbers or ():
        if not 1 <= number <= 230:
            raise ConfigError(f"{section}space_groups holds {number}; space groups have numbers 1 to 230.")
    known = tuple(dict.fromkeys((*CRYSTAL_SYSTEMS, *(s.value for s in LATTICE_SYSTEMS))))
    for system in systems or ():
        if system not in known:
            raise ConfigError(
                f"{section}crystal_systems holds {system!r}.{nearest(system, known)} Known: {', '.join(known)}."
            )
    for key, each in (("space_groups", numbers), ("crystal_systems", systems)):
        if each is not None and not each:
            raise ConfigError(f"{section}{key} is an empty list; leave it out to allow all.")
    chosen = tuple(
        group
        for group in space_groups()
        if (numbers is None or group.number in numbers)
        and (systems is None or group.crystal_system in systems or group.lattice_system in systems)
    )
    if not chosen:
        raise ConfigError(
            f"None of {section}space_groups {list(numbers or ())} is of {', '.join(systems or ())}."
        )
    return chosen
