"""A run on disk: a small file of state replaced atomically, and files of samples that only grow.

Samples go to disk with every checkpoint and are read back as a memory map, so that memory does not grow with the run.
Those beyond what the state counts were written by a process that died before it replaced the state; they are cut off
when the run is taken up again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from oracles.mace_md.analysis import Array
from oracles.mace_md.dynamics import Run

N_OBSERVABLES = 3  # potential and total energy (eV), temperature (K)


def durable(path: Path, **arrays: NDArray[np.generic]) -> None:
    """Write arrays as `.npz`, in place of an earlier file only once they are on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


class RunFolder:
    """The files of one run.

    Args:
        folder: Where they are, made on demand.
        fingerprint: Of all that the run depends on; a run of another one is not taken up.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        self._state = folder / "checkpoint.npz"
        self._positions = folder / "positions.f32"
        self._observables = folder / "observables.f64"

    def save(self, run: Run) -> None:
        """Make the run durable, and forget its samples, which are then on disk."""
        self._state.parent.mkdir(parents=True, exist_ok=True)
        n_saved = run.n_samples - len(run.pending)
        positions = b"".join(np.ascontiguousarray(s.positions).tobytes() for s in run.pending)
        observables = np.array(
            [(s.potential, s.total, s.temperature) for s in run.pending], dtype=np.float64
        ).tobytes()
        _append(self._positions, n_saved * run.positions.size * 4, positions)
        _append(self._observables, n_saved * N_OBSERVABLES * 8, observables)
        plain = {
            "fingerprint": self._fingerprint,
            "step": run.step,
            "n_samples": run.n_samples,
            "heat": run.heat.hex(),
            "rng": run.rng.bit_generator.state,
            "info": run.info,
        }
        durable(
            self._state,
            plain=np.array(json.dumps(plain)),
            numbers=run.atoms.numbers,
            cell=run.atoms.cell.array,
            start=run.atoms.positions,
            positions=run.positions,
            momenta=run.momenta,
        )
        run.pending = []

    def load(self) -> Run | None:
        """The run as last saved; None where there is none, or one of other parameters, whose files are removed."""
        if not self._state.exists():
            self.clear()
            return None
        with np.load(self._state, allow_pickle=False) as content:
            plain = json.loads(str(content["plain"]))
            if plain["fingerprint"] != self._fingerprint:
                self.clear()
                return None
            atoms = Atoms(
                numbers=content["numbers"], positions=content["start"], cell=content["cell"], pbc=True
            )
            positions, momenta = content["positions"], content["momenta"]
        rng = np.random.default_rng()
        rng.bit_generator.state = plain["rng"]
        return Run(
            atoms=atoms,
            step=plain["step"],
            positions=positions,
            momenta=momenta,
            rng=rng,
            heat=float.fromhex(plain["heat"]),
            n_samples=plain["n_samples"],
            info=plain["info"],
        )

    def frames(self, run: Run) -> NDArray[np.float32]:
        """Samples of a saved run's positions, `T x N x 3`, Å, as a read-only memory map."""
        shape = (run.n_samples, len(run.atoms), 3)
        return np.memmap(self._positions, dtype=np.float32, mode="r", shape=shape)

    def observables(self, run: Run) -> Array:
        """Potential and total energy (eV) and temperature (K) of a saved run's samples, `T x 3`."""
        n = run.n_samples * N_OBSERVABLES
        return np.fromfile(self._observables, dtype=np.float64, count=n).reshape(-1, N_OBSERVABLES)

    def clear(self) -> None:
        """Remove the run's files."""
        for path in (self._state, self._positions, self._observables, self._state.with_suffix(".partial")):
            path.unlink(missing_ok=True)


def _append(path: Path, offset: int, data: bytes) -> None:
    """Put data at an offset, cut off what is beyond, and see it on disk."""
    with open(path, "r+b" if path.exists() else "w+b") as file:
        file.seek(offset)
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
