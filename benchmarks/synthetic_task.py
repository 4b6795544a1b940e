"""A pool whose target and cheap source are draws from Gaussian processes with a stated relation.

Points are a Sobol set of the unit cube. The target f and an independent g are draws from the same Gaussian process
(Matérn-5/2), standardised over the pool and made orthogonal there, so that the cheap source rho f + sqrt(1 - rho²) g
correlates with the target by exactly rho. A source that misleads in places is the target but for a hollow of four
standard deviations at its best point, which hides it, and a hill of that height at an ordinary point far from it.
"""

from __future__ import annotations

import csv
import math
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import qmc
from tasks import Task

from activelearning.candidate import BoxCandidate

Array = npt.NDArray[np.float64]

DIMENSION = 6
SIZE = 1024
LENGTHSCALE = 0.6
DENT = 0.3  # radius of hollow and hill, in units of the cube
DEPTH = 4.0  # of them, in standard deviations of the target
PLACES = "places"
TOTAL = 40.0
ORACLE = "table"


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


def task(relation: float | str, cost: float, seed: int, work: Path) -> Task:
    """The task; its table is written to `work` where it is not there yet.

    Args:
        relation: See `pool`.
        cost: Of a cheap answer; one of the target costs 1.
        seed: Each seed has a pool of its own.
        work: Folder.
    """
    points, target, cheap = pool(relation, seed)
    names = [f"x{i + 1}" for i in range(DIMENSION)]
    file = work / f"synthetic-{relation}-{seed}.csv"
    if not file.exists():
        partial = file.with_suffix(f".{os.getpid()}")
        with partial.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["key", *names, "dear", "cheap"])
            for x, t, c in zip(points.tolist(), target.tolist(), cheap.tolist(), strict=True):
                writer.writerow([BoxCandidate(tuple(x)).key, *x, t, c])
        partial.replace(file)
    return Task(
        name=f"synthetic-{relation}-{cost:g}",
        space={"type": "pool", "file": str(file), "features": names},
        objective={"property": "y", "direction": "maximize"},
        fidelities=[
            {
                "name": "cheap",
                "oracle": ORACLE,
                "cost": cost,
                "params": {"file": str(file), "column": "cheap"},
            },
            {
                "name": "dear",
                "oracle": ORACLE,
                "cost": 1.0,
                "target": True,
                "params": {"file": str(file), "column": "dear"},
            },
        ],
        optimum=float(target.max()),
        total=TOTAL,
    )
