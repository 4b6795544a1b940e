"""A cheap calculator that fails in every way that matters; jobs find it by PYTHONPATH.

Each calculation is noted in a line of the file `ran`, so that tests can count them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from toy_conductor import Lattice


class ConvergenceError(Exception):
    """As codes raise it."""


class Spring(Calculator):
    """An energy of -1 eV an atom at 4 Å³ per atom, harmonic in the strain of the volume; no forces.

    Args:
        seconds: Sleeps so long in each calculation.
        fate: What happens: `converges`, or by a name below; with `-once` only in the first attempt.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "stress"]

    def __init__(self, seconds: float = 0.0, fate: str = "converges", **parameters: Any) -> None:
        if fate == "refuses":
            raise ValueError("a parameter is wrong")
        super().__init__(**parameters)
        self.seconds = seconds
        self.fate = fate

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        attempt = int(sys.argv[1])
        with open("ran", "a") as file:
            file.write(f"{attempt}\n")
        fate, _, _ = self.fate.partition("-once")
        if attempt == 1 or self.fate == fate:
            self._meet(fate)
        time.sleep(self.seconds)
        volume = atoms.get_volume()
        strain = np.log(volume / (4.0 * len(atoms)))
        self.results = {
            "energy": len(atoms) * (-1.0 + 0.5 * strain**2),
            "forces": np.zeros((len(atoms), 3)),
            "stress": np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]) * len(atoms) * strain / volume,
        }

    def _meet(self, fate: str) -> None:
        if fate == "diverges":
            print("iteration 333: still 0.3 eV apart", flush=True)
            raise ConvergenceError("no self-consistency after 333 iterations")
        if fate == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        if fate == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fate == "disk fails":
            raise OSError(5, "Input/output error")
        if fate == "needs memory":
            raise MemoryError
        if fate == "fills memory":
            self.ballast = np.ones(80_000_000)
        if fate == "hangs":
            time.sleep(3600)
        # As `pw.x`, which a calculator starts and waits for.
        if fate == "program is killed":
            subprocess.run(["bash", "-c", "kill -9 $$"], check=True)
        if fate == "program hangs":
            subprocess.run(["sleep", "3600"], check=True)
        if fate == "is quiet":
            os._exit(0)


class Conductor(Lattice):
    """The toy conductor, in a job: each calculation is noted.

    Args:
        barrier: Between neighbouring wells, eV.
        spring: Of the Cl, eV/Å²; 0 frees them.
        dies_at: The calculation of the first attempt in which the job is killed; 0 for none.
        fails_at: The calculation of the first attempt that does not converge; 0 for none.
        seconds: Sleeps so long in each calculation.
    """

    def __init__(
        self,
        barrier: float = 0.15,
        spring: float = 3.0,
        dies_at: int = 0,
        fails_at: int = 0,
        seconds: float = 0.0,
    ) -> None:
        super().__init__(barrier, spring)
        self.dies_at, self.fails_at, self.seconds = dies_at, fails_at, seconds

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = ()) -> None:
        super().calculate(atoms, properties, system_changes)
        attempt = int(sys.argv[1])
        with open("ran", "a") as file:
            file.write(f"{attempt}\n")
        if attempt == 1 and self.n_calls == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if attempt == 1 and self.n_calls == self.fails_at:
            raise ConvergenceError("no self-consistency after 333 iterations")
        time.sleep(self.seconds)
