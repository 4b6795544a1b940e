"""Figures of a set of sampled crystals: quantiles, counts, correlations, and what the reward itself would give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.symmetry import space_group

Array = npt.NDArray[np.float64]
_QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}


@dataclass(frozen=True)
class CrystalCounts:
    """How often each space group, system, symmetry and element occurs in a set of crystals, and how many elements.

    An element is counted once for each crystal that holds it.
    """

    space_groups: Counter[int]
    lattice_systems: Counter[str]
    point_symmetries: Counter[str]
    elements: Counter[str]
    n_elements: Counter[int]

    @classmethod
    def of(cls, crystals: Sequence[CrystalCandidate]) -> CrystalCounts:
        """Count a set of crystals."""
        groups = Counter(crystal.space_group for crystal in crystals)
        systems: Counter[str] = Counter()
        symmetries: Counter[str] = Counter()
        for number, count in groups.items():
            systems[space_group(number).lattice_system.value] += count
            symmetries[space_group(number).point_symmetry.value] += count
        return cls(
            space_groups=groups,
            lattice_systems=systems,
            point_symmetries=symmetries,
            elements=Counter(symbol for crystal in crystals for symbol in crystal.composition),
            n_elements=Counter(len(crystal.composition) for crystal in crystals),
        )

    def distinct(self) -> dict[str, int]:
        """How many different ones there are of each."""
        return {
            "space_groups": len(self.space_groups),
            "lattice_systems": len(self.lattice_systems),
            "point_symmetries": len(self.point_symmetries),
            "elements": len(self.elements),
        }


def quantiles(values: Array) -> dict[str, float] | None:
    """Least, quartiles and greatest of the values that are known and finite, and their number `n`; None without any."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    found = np.quantile(known, list(_QUANTILES.values()))
    return {**dict(zip(_QUANTILES, found.tolist(), strict=True)), "n": len(known)}


def correlation(log_probabilities: Array, log_rewards: Array) -> dict[str, Any]:
    """Pearson and Spearman correlation of log-probability and log reward; None where one of them does not vary.

    Pairs that are not finite are left out; `n` is the number of the others.
    """
    from scipy.stats import spearmanr

    is_finite = np.isfinite(log_probabilities) & np.isfinite(log_rewards)
    log_probabilities, log_rewards = log_probabilities[is_finite], log_rewards[is_finite]
    n = len(log_rewards)
    if n < 3 or np.ptp(log_probabilities) == 0.0 or np.ptp(log_rewards) == 0.0:
        return {"pearson": None, "spearman": None, "n": n}
    return {
        "pearson": finite(np.corrcoef(log_probabilities, log_rewards)[0, 1]),
        "spearman": finite(spearmanr(log_probabilities, log_rewards).statistic),
        "n": n,
    }


def finite(value: float | None) -> float | None:
    """A number that JSON can hold; None in place of any other."""
    return float(value) if value is not None and np.isfinite(value) else None


@dataclass(frozen=True)
class Reweighted:
    """Samples x of density P, weighted by w = R(x) / P(x): they stand for the reward's own distribution R / Z.

    Self-normalised importance sampling (Owen, "Monte Carlo theory, methods and examples", 2013, ch. 9).

    Attributes:
        weights: Normalised to sum 1, `n`.
        effective_sample_size: 1 / Σ w²: samples that the weighted ones are worth. With a few only, what they say of the
            reward's distribution is chance.
        log_z: log of the mean of w before normalisation, an estimate of log ∫ R.
    """

    weights: Array
    effective_sample_size: float
    log_z: float

    @classmethod
    def of(cls, log_probabilities: Array, log_rewards: Array) -> Reweighted:
        """Weigh samples by their log rewards and the log-densities they were drawn with, `n` each, all finite."""
        log_weights = log_rewards - log_probabilities
        top = float(log_weights.max())
        weights = np.exp(log_weights - top)
        total = float(weights.sum())
        normalised = weights / total
        return cls(
            weights=normalised,
            effective_sample_size=float(1.0 / np.square(normalised).sum()),
            log_z=top + float(np.log(total / len(weights))),
        )

    def quantiles(self, values: Array) -> dict[str, float] | None:
        """Quartiles of a property under the reward's distribution, and the number `n` of samples they rest on; None
        where no value is known.
        """
        known = np.isfinite(values)
        if not known.any():
            return None
        order = np.argsort(values[known], kind="stable")
        shares = np.cumsum(self.weights[known][order])
        points = np.searchsorted(shares, np.array([0.25, 0.5, 0.75]) * shares[-1])
        found = values[known][order][np.minimum(points, len(order) - 1)]
        return {**dict(zip(("q25", "median", "q75"), found.tolist(), strict=True)), "n": int(known.sum())}
