"""Diffusion by kinisi, beside our own: a Bayesian regression with the covariance of the displacements.

McCluskey, Squires, Dunn, Coles & Morgan, J. Chem. Theory Comput. 2025, 21, 79; the package kinisi is optional.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from activelearning.errors import ConfigError
from oracles.dynamics.analysis import CM2_PER_S, Array
from oracles.dynamics.motion import Run, RunFolder
from oracles.dynamics.reading import Reading

N_LAGS = 60  # at which kinisi computes displacements; its covariance is a matrix of as many rows
MAX_FRAMES = 1000


def check_kinisi() -> None:
    """Raise a `ConfigError` where kinisi is not installed."""
    if importlib.util.find_spec("kinisi") is None:
        raise ConfigError(
            "mace_md: cross_check: kinisi needs the package kinisi, which is not installed; install it (pip install "
            "kinisi), or leave cross_check out."
        )


def kinisi_diffusion(run: Run, folder: RunFolder, reading: Reading, frame_ps: float) -> dict[str, Any]:
    """What kinisi says of a run, in the window where ours is fitted; nothing of a bound."""
    window = reading.diffusion.window
    if window is None:
        return {}
    frames = np.asarray(folder.frames(run), dtype=np.float64)
    framework = np.array([s != reading.mobile_ion for s in run.atoms.symbols])
    value, error = bayesian_diffusion(frames, framework, run.atoms.cell.array, frame_ps, window)
    return {"kinisi_diffusion_cm2_per_s": value * CM2_PER_S, "kinisi_relative_error": error / value}


def bayesian_diffusion(
    positions: Array, framework: Any, cell: Array, frame_ps: float, window: tuple[float, float]
) -> tuple[float, float]:
    """Self-diffusion coefficient and its standard deviation, Å²/ps, by kinisi.

    Args:
        positions: Unwrapped, `T x N x 3`, Å; at most `MAX_FRAMES` of them are used, evenly spaced.
        framework: Which particles are not mobile, `N`; their drift is removed.
        cell: `3 x 3`, Å.
        frame_ps: Time between frames, ps.
        window: First and last lag, ps.
    """
    import scipp as sc
    from ase import Atoms
    from kinisi.analyze import DiffusionAnalyzer

    every = -(-len(positions) // MAX_FRAMES)
    step = every * frame_ps
    first, last = (max(1, round(lag / step)) for lag in window)
    lags = np.unique(np.linspace(first, max(last, first + 2), N_LAGS).round().astype(int))
    symbols = np.where(framework, "X", "Li")
    trajectory = [Atoms(list(symbols), positions=frame, cell=cell, pbc=True) for frame in positions[::every]]
    analyser = DiffusionAnalyzer.from_ase(
        trajectory,
        specie="Li",
        time_step=sc.scalar(step, unit="ps"),
        step_skip=sc.scalar(1),
        dt=sc.array(dims=["time interval"], values=lags * step, unit="ps"),
        progress=False,
    )
    analyser.diffusion(
        sc.scalar(lags[0] * step, unit="ps"), progress=False, random_state=np.random.RandomState(0)
    )
    samples = np.asarray(sc.to_unit(analyser.D, "angstrom**2/ps").values, dtype=np.float64)
    return float(samples.mean()), float(samples.std())
