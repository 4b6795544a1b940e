"""What one run says: diffusion or a bound, or why it says nothing; with all the numbers behind that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from oracles.dynamics.analysis import CM2_PER_S, Array, drift, log10_error, nernst_einstein, remove_drift
from oracles.dynamics.collective import Collective, collective_diffusion
from oracles.dynamics.conditions import Conditions
from oracles.dynamics.diffusion import Diffusion, FitSettings, self_diffusion
from oracles.dynamics.groups import bonded_groups, centre_displacements
from oracles.dynamics.integrity import displacements, energy_change, framework_bonds, trend
from oracles.dynamics.motion import Run, RunFolder, durable

MILLI = 1e3


@dataclass(frozen=True)
class Reading:
    """What a run at one temperature says.

    Attributes:
        diffusion: Of the mobile ion.
        log10_sigma: log10 of the Nernst-Einstein conductivity (S/cm), or an upper bound of it.
        log10_error: Its standard error; None for a bound.
        mobile_ion: Symbol.
        invalid: Why the run says nothing of the crystal; None where it does.
        collective: Collective diffusion, where asked for and resolved.
        curves: Mean-squared displacements of mobile ions and of the centres of the framework's groups, `T` each, Å².
        metadata: Plain values.
    """

    diffusion: Diffusion
    log10_sigma: float
    log10_error: float | None
    mobile_ion: str
    invalid: str | None
    collective: Collective | None
    curves: Mapping[str, Array]
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read(
    run: Run,
    folder: RunFolder,
    conditions: Conditions,
    fit: FitSettings,
    mobile_ion: str,
    *,
    collective: bool,
) -> Reading:
    """Analyse the samples of a saved run.

    The framework is compared with the crystal from which the run began, before equilibration, by the centres of its
    bonded groups.

    Args:
        run: The run, as saved; its atoms are where it began.
        folder: Its samples.
        conditions: How it was simulated, and what it must stand.
        fit: How diffusion is read off.
        mobile_ion: Symbol; the crystal holds it, and other elements.
        collective: Whether collective diffusion is read off, too.
    """
    frames, observables = folder.frames(run), folder.observables(run)
    symbols = run.atoms.get_chemical_symbols()
    mobile = np.array([symbol == mobile_ion for symbol in symbols])
    masses, start = run.atoms.get_masses(), run.atoms.positions
    gone = drift(frames, ~mobile, masses, start)
    ions = remove_drift(frames[:, mobile], gone)
    found, msd = self_diffusion(ions, conditions.frame_ps, fit)
    groups = bonded_groups(run.atoms, ~mobile)
    centres = centre_displacements(frames, start, groups, masses, gone)
    framework, framework_msd = self_diffusion(centres, conditions.frame_ps, fit)
    moved = displacements(centres, groups)
    bonds = framework_bonds(run.atoms, frames, ~mobile)
    potential, total, temperature = observables.T / np.array([len(symbols), len(symbols), 1.0])[:, None]
    change, change_error = energy_change(potential)
    total_drift = trend(np.arange(len(total)) * conditions.frame_ps, total)
    sigma = nernst_einstein(found.value, len(ions[0]), run.info["volume"], conditions.temperature)
    log10_sigma = float(np.log10(sigma))
    error = None if found.relative_error is None else log10_error(found.relative_error)
    together = None
    if collective and found.window is not None and found.relative_error is not None:
        together = collective_diffusion(
            ions, conditions.frame_ps, found.window, found.value, found.relative_error
        )
    farthest = max(moved, key=lambda name: moved[name])
    metadata = {
        "temperature": conditions.temperature,
        "mean_temperature": float(temperature[1:].mean()),
        "temperature_std": float(temperature[1:].std()),
        "steps": run.step,
        "time_ps": (run.n_samples - 1) * conditions.frame_ps,
        "n_mobile": int(mobile.sum()),
        "n_hops": found.n_hops,
        "diffusion_cm2_per_s": found.value * CM2_PER_S,
        "diffusion_relative_error": found.relative_error,
        "he_relative_error": found.he_error,
        "is_bound": found.is_bound,
        "bound_reason": found.reason,
        "concertedness": found.concertedness,
        "n_effective_hops": found.n_effective_hops,
        "msd_gain": found.gain,
        "fit_window_ps": None if found.window is None else list(found.window),
        "framework_displacement": moved[farthest],
        "framework_msd": float(framework_msd[len(framework_msd) // 2]),
        "framework_bonds": bonds.n_first,
        "framework_bonds_broken": bonds.n_broken,
        "framework_bonds_formed": bonds.n_formed,
        "potential_energy_change": change,
        "total_energy_drift": total_drift,
        "log10_sigma": log10_sigma,
        "log10_sigma_error": error,
        **_of_collective(together, found, len(ions[0]), run.info["volume"], conditions.temperature),
    }
    invalid = None
    if moved[farthest] > conditions.max_framework_displacement:
        invalid = f"framework melted: {farthest} moved by {moved[farthest]:.1f} Å, root mean square"
    elif not framework.is_bound:
        d = framework.value * CM2_PER_S
        invalid = f"framework melted: atoms other than {mobile_ion} diffuse with {d:.1e} cm²/s"
    elif bonds.changed > conditions.max_broken_bonds:
        invalid = (
            f"framework decomposed: of {bonds.n_first} bonds between atoms other than {mobile_ion}, {bonds.n_broken} "
            f"broke and {bonds.n_formed} formed"
        )
    elif abs(change) > conditions.max_energy_change + 2.0 * change_error:
        invalid = (
            f"not in equilibrium: the potential energy changed by {MILLI * change:+.0f} meV/atom in the run, as that "
            f"of a crystal that turns into something else"
        )
    elif abs(total_drift) > conditions.max_total_energy_drift:
        invalid = (
            f"unstable dynamics: the total energy drifts by {MILLI * total_drift:+.1f} meV/atom/ps at a timestep of "
            f"{conditions.timestep_fs:g} fs"
        )
    if invalid is not None:
        invalid += f", at {conditions.temperature:g} K"
    curves = {"mobile": msd, "framework": framework_msd}
    return Reading(found, log10_sigma, error, mobile_ion, invalid, together, curves, metadata)


def _of_collective(
    together: Collective | None, found: Diffusion, n_ions: int, volume: float, temperature: float
) -> dict[str, Any]:
    if together is None:
        return {}
    sigma = nernst_einstein(together.value, n_ions, volume, temperature)
    return {
        "collective_log10_sigma": float(np.log10(sigma)),
        "collective_log10_sigma_error": log10_error(together.relative_error),
        "haven_ratio": together.haven_ratio,
        "haven_relative_error": together.haven_error,
    }


def write_artifacts(folder: Path, run: Run, reading: Reading, frame_ps: float) -> tuple[str, ...]:
    """Keep the mean-squared displacements and the last atoms beside the result."""
    from ase.io import write

    folder.mkdir(parents=True, exist_ok=True)
    curves, last = folder / "msd.npz", folder / "final.extxyz"
    lags = np.arange(len(reading.curves["mobile"])) * frame_ps
    np.savez_compressed(curves, allow_pickle=False, lag_ps=lags, **reading.curves)
    atoms = run.atoms.copy()
    atoms.positions = run.positions
    atoms.wrap()
    write(last, atoms, format="extxyz")
    return (str(curves), str(last))


def write_trajectory(folder: Path, run: Run, samples: RunFolder) -> str:
    """Keep the samples of positions and energies beside the result, in one file."""
    path = folder / "trajectory.npz"
    durable(
        path,
        numbers=run.atoms.numbers,
        cell=run.atoms.cell.array,
        positions=samples.frames(run),
        observables=samples.observables(run),
    )
    return str(path)
