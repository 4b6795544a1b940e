"""How the fidelities agree with their target: on candidates that both measured, and as the model has learned it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from activelearning.fidelity import Fidelity
from activelearning.measurement import Censoring
from activelearning.observation import Observation

# Fewer pairs than this say nothing: two always lie on a line.
MIN_PAIRS = 3


def agreement(
    observations: Sequence[Observation],
    fidelities: Sequence[Fidelity],
    figures: Mapping[str, Any],
    *,
    target: int,
) -> dict[str, dict[str, Any]]:
    """Correlation of each other fidelity with its target.

    Of several targets that is the one of the property that the fidelity measures, else the (first) objective's.

    Args:
        observations: All answers; bounds are left out, repeated answers averaged.
        fidelities: The campaign's fidelities.
        figures: Of the surrogate's fit; its `correlation`, `M x M`, is taken where it gives one.
        target: Index of the (first) objective's target.

    Returns:
        By fidelity that is no target `{target, n, pearson, spearman, learned}`: `n` candidates were measured at both.
        Answers carry noise and are of those candidates that were chosen, so that `pearson` is not what `learned`, the
        model's prior correlation of noise-free answers over the whole space, would be with many answers. None is what
        can't be told.
    """
    targets = {f.property: f for f in fidelities if f.is_target}
    values: dict[int, dict[str, list[float]]] = {f.index: {} for f in fidelities}
    for o in observations:
        if o.censoring is Censoring.NONE:
            values[o.fidelity].setdefault(o.candidate.key, []).append(o.value)
    learned = figures.get("correlation")
    found: dict[str, dict[str, Any]] = {}
    for f in fidelities:
        if f.is_target:
            continue
        its = targets.get(f.property, fidelities[target])
        shared = [key for key in values[f.index] if key in values[its.index]]
        mine = np.array([np.mean(values[f.index][key]) for key in shared])
        theirs = np.array([np.mean(values[its.index][key]) for key in shared])
        found[f.name] = {
            "target": its.name,
            "n": len(shared),
            "pearson": _pearson(mine, theirs),
            "spearman": _pearson(rankdata(mine), rankdata(theirs)),  # ties share their mean rank
            "learned": None if learned is None else float(learned[f.index][its.index]),
        }
    return found


def _pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    if len(x) < MIN_PAIRS:
        return None
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0.0 else None
