"""Elemental properties, read from the shipped `elements.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=1)
def _table() -> tuple[dict[str, int], dict[str, int], NDArray[np.float64]]:
    value = json.loads(files("activelearning.crystals").joinpath("elements.json").read_text())
    values = np.array(list(value["elements"].values()), dtype=np.float64)
    values.setflags(write=False)
    return (
        {symbol: i for i, symbol in enumerate(value["elements"])},
        {name: j for j, name in enumerate(value["columns"])},
        values,
    )


def element_rows() -> dict[str, int]:
    """Row of each element, H (0) to Lr (102), in `properties`: its atomic number less one."""
    return _table()[0]


def properties(columns: Sequence[str]) -> NDArray[np.float64]:
    """Elemental properties, `103 x len(columns)`, in the units stated in `tables.element_table`."""
    _, names, values = _table()
    return values[:, [names[column] for column in columns]]


def atomic_number(symbol: str) -> int:
    """Atomic number.

    Raises:
        ValueError: the symbol is not of H to Lr.
    """
    rows = element_rows()
    if symbol not in rows:
        raise ValueError(f"{symbol!r} is no element of H to Lr")
    return rows[symbol] + 1
