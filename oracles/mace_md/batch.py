"""Several crystals at a time: a MACE evaluated on all of them in one call, and runs carried on in step.

On a GPU a small cell leaves most of the device idle. Graphs do not touch one another, so that a model sees several as
one with more nodes; each crystal keeps its own step, thermostat and random numbers.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from ase import Atoms

from activelearning.errors import is_machine_trouble, is_out_of_memory
from oracles.dynamics.motion import Array, Dynamics, SimulationError
from oracles.potentials.mace_model import MaceCalculator

T = TypeVar("T")
Found = tuple[float, Array]

_log = logging.getLogger(__name__)


class BatchedMace:
    """Energies (eV) and forces (eV/Å) of several structures by one call of a MACE.

    Args:
        calculator: The one-by-one calculator of the same model.
    """

    def __init__(self, calculator: MaceCalculator) -> None:
        self._calculator = calculator
        self._most: int | None = None  # structures in a call, once more of them did not fit into memory

    def __call__(self, batch: Sequence[Atoms]) -> list[Found | SimulationError]:
        """One answer for each structure, in order.

        Where a call as a whole fails, each structure is asked for alone; where memory does not suffice, half as many at
        a time, from then on.

        Raises:
            RuntimeError: the device fails, or memory does not suffice for a single structure.
        """
        size = self._most or max(1, len(batch))
        found: list[Found | SimulationError] = []
        for first in range(0, len(batch), size):
            found += self._some(batch[first : first + size])
        return found

    def _some(self, batch: Sequence[Atoms]) -> list[Found | SimulationError]:
        try:
            return self._together(batch)
        except (RuntimeError, ValueError, ArithmeticError, IndexError, MemoryError) as error:
            is_full = is_out_of_memory(error)
            if is_machine_trouble(error) and not (is_full and len(batch) > 1):
                raise
            if not is_full:
                if len(batch) == 1:
                    return [SimulationError(f"the potential fails: {error}")]
                return [self._some([atoms])[0] for atoms in batch]
            _log.warning("memory does not suffice for %d crystals together: %s", len(batch), error)
        # Only here is the failed call's memory free: the error held on to it.
        self._most = min(len(batch) // 2, self._most or len(batch))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self(batch)

    def _together(self, batch: Sequence[Atoms]) -> list[Found | SimulationError]:
        found: list[Found | SimulationError] = []
        for one in self._calculator.evaluate(batch):
            if np.isfinite(one.energy) and np.isfinite(one.forces).all():
                found.append((one.energy, one.forces))
            else:
                found.append(SimulationError("the potential's energy or forces are not finite"))
        return found


def drive_together(
    works: Sequence[Dynamics[T]],
    evaluate: Callable[[Sequence[Atoms]], Sequence[Found | SimulationError]],
    size: int,
) -> list[T]:
    """Carry dynamics to their ends, up to `size` of them in step; the next takes the place of one that is done.

    Args:
        works: The dynamics; each is begun when a place is free.
        evaluate: Energies and forces of several structures, or why there are none.
        size: Most at a time.

    Returns:
        What each returns, in order.
    """
    waiting = deque(enumerate(works))
    asked: dict[int, Atoms] = {}
    done: dict[int, Any] = {}

    def go_on(index: int, send: Callable[[], Atoms]) -> None:
        try:
            asked[index] = send()
        except StopIteration as end:
            asked.pop(index, None)
            done[index] = end.value

    while waiting or asked:
        while waiting and len(asked) < size:
            index, work = waiting.popleft()
            go_on(index, work.__next__)
        order = sorted(asked)
        if not order:
            continue
        answers = evaluate([asked[index] for index in order])
        for index, answer in zip(order, answers, strict=True):
            work = works[index]
            if isinstance(answer, SimulationError):
                go_on(index, lambda work=work, answer=answer: work.throw(answer))  # type: ignore[misc]
            else:
                go_on(index, lambda work=work, answer=answer: work.send(answer))  # type: ignore[misc]
    return [done[index] for index in range(len(works))]
