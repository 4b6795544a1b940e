"""A pool whose target and cheap source are draws from Gaussian processes with a stated relation.

Points are a Sobol set of the unit cube. The target f and an independent g are draws from the same Gaussian process
(Matérn-5/2), standardised over the pool and made orthogonal there, so that the cheap source rho f + sqrt(1 - rho²) g
correlates with the target by exactly rho. A source that misleads in places is the target but for two dents as deep as
the target is wide: the best point and its neighbours look poor, and a poor point far from it looks best of all.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import qmc

from activelearning.candidate import BoxCandidate
from activelearning.measurement import Measurement
from oracles.base import Oracle

Array = npt.NDArray[np.float64]

DIMENSION = 6
SIZE = 1024
LENGTHSCALE = 0.6
DENT = 0.3  # radius of a dent, in units of the cube
DEPTH = 4.0  # of a dent, in standard deviations of the target
PLACES = "places"


@lru_cache(maxsize=2)
def _draws(seed: int) -> tuple[Array, Array, Array]:
    """Points `N x d`, and two standardised orthogonal draws, `N` each."""
    points = qmc.Sobol(DIMENSION, seed=seed).random(SIZE)
    difference = points[:, None, :] - points[None, :, :]
    r = math.sqrt(5.0) * np.sqrt((difference**2).sum(-1)) / LENGTHSCALE
    factor = np.linalg.cholesky((1.0 + r + r**2 / 3.0) * np.exp(-r) + 1e-8 * np.eye(SIZE))
    f, g = (factor @ np.random.default_rng([seed, 1]).standard_normal((SIZE, 2))).T
    f = (f - f.mean()) / f.std()
    g = g - g.mean()
    g = g - (f @ g) / (f @ f) * f
    return points, f, g / g.std()


def pool(relation: float | str, seed: int) -> tuple[Array, Array, Array]:
    """Points of the unit cube `N x d`, the target `N` and the cheap source `N`.

    Args:
        relation: Correlation of the cheap source with the target, or `places`.
        seed: Of the task.
    """
    points, f, g = _draws(seed)
    if relation != PLACES:
        rho = float(relation)
        return points, f, rho * f + math.sqrt(1.0 - rho**2) * g
    best = points[f.argmax()]
    distance = np.sqrt(((points - best) ** 2).sum(-1))
    # The false summit: an ordinary point, as far away as one half of the pool.
    ordinary = np.where(distance >= np.median(distance), np.abs(f), np.inf)
    other = points[ordinary.argmin()]
    away = np.sqrt(((points - other) ** 2).sum(-1))
    dents = np.exp(-0.5 * (away / DENT) ** 2) - np.exp(-0.5 * (distance / DENT) ** 2)
    return points, f, f + DEPTH * dents


class TableOracle(Oracle):
    """Looks an answer up in the pool's own table.

    Args:
        file: CSV with the columns of the features, `target` and `cheap`.
        column: Which of the two.
    """

    def __init__(self, file: Path, column: str) -> None:
        self.file, self.column = Path(file), column
        with self.file.open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        names = [name for name in rows[0] if name not in ("target", "cheap")]
        self._values = {
            BoxCandidate(tuple(float(row[name]) for name in names)).key: float(row[column]) for row in rows
        }

    def content(self) -> Mapping[str, object]:
        """What the answer depends on."""
        return {"file": self.file.read_text(encoding="utf-8"), "column": self.column}

    def evaluate(self, candidates: Sequence[BoxCandidate]) -> Sequence[Measurement]:
        """Answers, as they stand in the table."""
        return [
            Measurement.of(self.context.property, self._values[candidate.key]) for candidate in candidates
        ]


def write_pool(relation: float | str, seed: int, file: Path) -> float:
    """Write the table of one task; returns the greatest value of the target."""
    points, target, cheap = pool(relation, seed)
    names = [f"x{i + 1}" for i in range(DIMENSION)]
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*names, "target", "cheap"])
        for x, t, c in zip(points, target, cheap, strict=True):
            writer.writerow([*(repr(float(v)) for v in x), repr(float(t)), repr(float(c))])
    return float(target.max())


def campaign(
    file: Path, cost: float, *, total: float, seed: int, cheap: bool = True, **sections: Any
) -> dict[str, Any]:
    """Config of a campaign on a written pool; `cheap: False` leaves the cheap source out."""
    oracle = f"{Path(__file__).resolve()}:TableOracle"
    fidelities: list[dict[str, Any]] = [
        {
            "name": "dear",
            "oracle": oracle,
            "cost": 1.0,
            "target": True,
            "params": {"file": str(file), "column": "target"},
        }
    ]
    if cheap:
        fidelities.insert(
            0,
            {
                "name": "cheap",
                "oracle": oracle,
                "cost": cost,
                "params": {"file": str(file), "column": "cheap"},
            },
        )
    features = [f"x{i + 1}" for i in range(DIMENSION)]
    return {
        "name": f"synthetic-{seed}",
        "seed": seed,
        "space": {"type": "pool", "file": str(file), "features": features},
        "objective": {"property": "y", "direction": "maximize"},
        "fidelities": fidelities,
        "budget": {"total": total},
        **sections,
    }
