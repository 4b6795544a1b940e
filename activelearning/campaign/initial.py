"""Round 0: what is asked, or known, before there is a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from activelearning.campaign.config import InitialDesignConfig
from activelearning.candidate import Candidate, CrystalCandidate, candidate_from_dict
from activelearning.contracts.space import Space
from activelearning.errors import ConfigError
from activelearning.fidelity import Fidelity
from activelearning.measurement import Censoring, MeasuredValue, Measurement
from activelearning.store.models import State


def design_counts(
    design: InitialDesignConfig, fidelities: Sequence[Fidelity], n_features: int, total: float
) -> dict[int, int]:
    """Evaluations of each fidelity in round 0, by index.

    Stated counts are taken as they are. By default every fidelity gets the same share of the design's budget, between
    one and twice the number of features (5 to 20) evaluations each, one of each target's first.

    Raises:
        ConfigError: stated counts cost more than the whole budget.
    """
    if design.per_fidelity is not None:
        counts = {f.index: design.per_fidelity.get(f.name, 0) for f in fidelities}
        cost = sum(f.cost * counts[f.index] for f in fidelities)
        if cost > total * (1 + 1e-9):
            raise ConfigError(
                f"initial_design.per_fidelity costs {cost:g} in all, but budget.total is {total:g}; ask for fewer."
            )
        return counts
    cap = min(max(2 * n_features, 5), 20)
    budget = design.share * total
    counts = dict.fromkeys((f.index for f in fidelities), 0)
    # One of each first, targets before the others, so that even a dear fidelity is seen where it can be paid for.
    left = total * (1 + 1e-9)
    for f in sorted(fidelities, key=lambda f: (not f.is_target, f.cost)):
        first = f.cost <= budget or (f.is_target and f.cost <= left)
        if first:
            counts[f.index] = 1
            budget -= f.cost
            left -= f.cost
    share = max(budget, 0.0) / len(fidelities)
    for f in sorted(fidelities, key=lambda f: f.cost):
        if counts[f.index]:
            counts[f.index] += min(cap - 1, int(share / f.cost * (1 + 1e-12)))
    return counts


def design_pairs(candidates: Sequence[Candidate], counts: Mapping[int, int]) -> list[tuple[Candidate, int]]:
    """Nested design: each fidelity takes the first of the same candidates, so that fidelities can be compared."""
    return [(candidate, index) for index, n in counts.items() for candidate in candidates[:n]]


@dataclass(frozen=True)
class Known:
    """A measurement that was there before the campaign."""

    candidate: Candidate
    fidelity: Fidelity
    measurement: Measurement


def read_observations(
    path: Path, space: Space, fidelities: Sequence[Fidelity], *, keep_outside: bool = False
) -> list[Known]:
    """Known measurements from a CSV table or a JSON list, with the columns that `activelearning export` writes.

    Needed: `candidate` (JSON) and `value`; optional: `fidelity` (default: the target, of several the one of the row's
    `property`), `property`, `std`, `censoring`,
    `unit` and `state`. Rows of a state other than `succeeded` hold no value and are passed over.

    Raises:
        ConfigError: naming the file, the row and what is wrong with it.
    """
    key = f"initial_design.observations ({path})"
    try:
        if path.suffix == ".json":
            rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        else:
            frame = pd.read_csv(path, keep_default_na=True)
            rows = [{str(k): v for k, v in row.items() if not pd.isna(v)} for row in frame.to_dict("records")]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key} can't be read: {error}.") from error
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{key} holds no rows.")
    by_name = {f.name: f for f in fidelities}
    targets = [f for f in fidelities if f.is_target]
    known = []
    for number, row in enumerate(rows, start=1):
        try:
            if not isinstance(row, Mapping):
                raise ValueError(f"it must be a mapping of columns to values, not {row!r}")
            if (row.get("state") or State.SUCCEEDED) != State.SUCCEEDED:
                continue
            name = row.get("fidelity") or _target_of(row, targets)
            if name not in by_name:
                raise ValueError(f"there is no fidelity {name!r} (known: {', '.join(by_name)})")
            fidelity = by_name[name]
            measures = row.get("property") or fidelity.property
            if measures != fidelity.property:
                raise ValueError(f"it measures {measures!r}, the fidelity {name!r} {fidelity.property!r}")
            unit = row.get("unit")
            if unit is not None and fidelity.unit is not None and unit != fidelity.unit:
                raise ValueError(f"its unit is {unit!r}, the fidelity's is {fidelity.unit!r}")
            value = row["candidate"]
            plain = json.loads(value) if isinstance(value, str) else value
            candidate = _outside(plain, space) if keep_outside else space.from_json(plain)
            if candidate is None:
                continue
            # A single text makes a whole column of a table texts.
            number_of = float if path.suffix != ".json" else lambda value: value
            measured = MeasuredValue(
                number_of(row["value"]),
                unit or fidelity.unit,
                row.get("std"),
                Censoring(row.get("censoring") or "none"),
            )
        except KeyError as error:
            raise ConfigError(f"{key}: row {number} has no {error.args[0]!r}.") from error
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{key}: row {number}: {error}.") from error
        known.append(Known(candidate, fidelity, Measurement(values={fidelity.property: measured})))
    if not known:
        of = " of a crystal of the space's elements" if keep_outside else ""
        raise ConfigError(f"{key} holds no row with a value{of}.")
    return known


def _outside(value: Mapping[str, Any], space: Space) -> Candidate | None:
    """A candidate that need not be of the space; None where the space has no features for it."""
    candidate = candidate_from_dict(value)
    if not isinstance(candidate, CrystalCandidate):
        return space.from_json(value)
    try:
        space.features([candidate])
    except ValueError:
        return None
    return candidate


def is_of(space: Space, candidate: Candidate) -> bool:
    """Whether a space holds a candidate."""
    try:
        space.validate(candidate)
    except ValueError:
        return False
    return True


def _target_of(row: Mapping[str, Any], targets: Sequence[Fidelity]) -> str:
    """Name of the target that a row without a fidelity belongs to."""
    if len(targets) == 1:
        return targets[0].name
    measures = row.get("property")
    found = [target.name for target in targets if target.property == measures]
    if not found:
        raise ValueError(
            f"it names neither a fidelity nor one of the targets' properties ({', '.join(t.property for t in targets)})"
        )
    return found[0]
