"""Asking an oracle, and holding it to its contract: what it does wrong fails its evaluation, not the campaign."""

from __future__ import annotations

import json
import numbers
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from activelearning.candidate import Candidate, CrystalCandidate
from activelearning.contracts.oracle import OracleLike
from activelearning.errors import ActiveLearningError, machine_error
from activelearning.measurement import MeasuredValue, Measurement

ORDERING_KEY = "ordering"  # where an answer's metadata tell how partial occupancies became whole atoms


def ask(
    oracle: OracleLike,
    name: str,
    prop: str,
    unit: str | None,
    candidates: Sequence[Candidate],
    keys: Sequence[str],
) -> list[Measurement]:
    """Evaluate candidates; whatever the oracle does there is one measurement for each.

    A batch that raises is asked again one by one, so that one bad candidate does not fail the others.

    Args:
        oracle: The oracle, bound to its campaign.
        name: The plug-in's name, for reasons of failure.
        prop: Property that must be among the values.
        unit: Unit that the campaign states for it, or None.
        candidates: What to measure.
        keys: Keys of the evaluations, in the same order.

    Raises:
        MachineError: files can't be written any more: nothing is known of any of the candidates.
        DeviceError: the device fails, and will fail this process.
    """
    if takes_average(oracle) or not any(needs_order(candidate) for candidate in candidates):
        return _ask(oracle, name, prop, unit, candidates, keys)
    answers: dict[int, Measurement] = {}
    ready: list[tuple[int, Candidate, dict[str, Any]]] = []
    for i, candidate in enumerate(candidates):
        try:
            ready.append((i, *with_whole_atoms(candidate)))
        except ActiveLearningError as error:
            answers[i] = Measurement.failed(f"can't be ordered: {error}")
    asked = _ask(oracle, name, prop, unit, [whole for _, whole, _ in ready], [keys[i] for i, _, _ in ready])
    for (i, _, record), answer in zip(ready, asked, strict=True):
        answers[i] = replace(answer, metadata={**answer.metadata, **record})
    return [answers[i] for i in range(len(candidates))]


def takes_average(oracle: object) -> bool:
    """Whether an oracle wants a crystal with partial occupancies as it is."""
    return bool(getattr(oracle, "takes_average", False))


def needs_order(candidate: Candidate) -> bool:
    """Whether a candidate is a crystal with partial occupancies."""
    return isinstance(candidate, CrystalCandidate) and not candidate.is_ordered


def with_whole_atoms(candidate: Candidate) -> tuple[Candidate, dict[str, Any]]:
    """A candidate as oracles that need atoms get it, and what is to be kept of that in the metadata.

    Raises:
        ActiveLearningError: partial occupancies can't be ordered.
    """
    if not needs_order(candidate):
        return candidate, {}
    from activelearning.crystals.ordered import ordered  # symmetry and optimisation, which few campaigns need

    assert isinstance(candidate, CrystalCandidate)
    whole, record = ordered(candidate)
    return whole, {ORDERING_KEY: record}


def _ask(
    oracle: OracleLike,
    name: str,
    prop: str,
    unit: str | None,
    candidates: Sequence[Candidate],
    keys: Sequence[str],
) -> list[Measurement]:
    begin = time.perf_counter()
    try:
        oracle.expect({candidate.key: key for candidate, key in zip(candidates, keys, strict=True)})
        answers = list(oracle.evaluate(candidates))
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        kind = machine_error(error)
        if kind is not None:
            raise kind(f"The machine fails the oracle {name!r}: {type(error).__name__}: {text}") from error
        if len(candidates) > 1:
            pairs = zip(candidates, keys, strict=True)
            return [_ask(oracle, name, prop, unit, [candidate], [key])[0] for candidate, key in pairs]
        return [Measurement.failed(f"the oracle {name!r} raised {type(error).__name__}: {text}")]
    seconds = (time.perf_counter() - begin) / max(len(candidates), 1)
    if len(answers) != len(candidates):
        reason = (
            f"the oracle {name!r} returned {len(answers)} values for {len(candidates)} candidates; "
            f"evaluate() must return one for each, in order"
        )
        return [Measurement.failed(reason) for _ in candidates]
    return [checked(answer, name, prop, unit, seconds) for answer in answers]


def checked(answer: Any, name: str, prop: str, unit: str | None, seconds: float | None = None) -> Measurement:
    """The answer as a measurement that keeps the contract, or a failure that says how it breaks it."""
    if isinstance(answer, numbers.Real) and not isinstance(answer, bool):
        try:
            answer = Measurement(values={prop: MeasuredValue(float(answer))})
        except ValueError as error:
            return Measurement.failed(f"the oracle {name!r} returned {answer!r}: {error}")
    if not isinstance(answer, Measurement):
        return Measurement.failed(
            f"the oracle {name!r} returned a {type(answer).__name__}; a number or a Measurement is wanted"
        )
    try:
        # As the store will give it back, whatever classes of a plug-in's own are in it.
        metadata = json.loads(json.dumps(dict(answer.metadata), allow_nan=False))
    except (TypeError, ValueError) as error:
        return Measurement.failed(f"the oracle {name!r} returned metadata that is no JSON: {error}")
    answer = replace(answer, metadata=metadata, seconds=seconds if answer.seconds is None else answer.seconds)
    if not answer.is_success:
        return answer
    if prop not in answer.values:
        measured = ", ".join(answer.values)
        return Measurement.failed(
            f"the oracle {name!r} measured {measured}, but this fidelity's property is {prop!r}"
        )
    stated = answer.values[prop].unit
    if unit is not None and stated is not None and stated != unit:
        return Measurement.failed(
            f"the oracle {name!r} measured {prop} in {stated!r}, but the campaign states the unit {unit!r}"
        )
    values = dict(answer.values)
    values[prop] = replace(values[prop], unit=stated or unit)
    return replace(answer, values=values)
