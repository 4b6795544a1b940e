"""Engines: what computes. Subclass `Engine` to bring another one."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from activelearning.campaign.sections import with_environment
from activelearning.errors import ConfigError
from oracles.dft.faults import Fault

# Times the cut-off, for relaxations of the cell: a basis that is not complete pulls on the cell (Pulay stress). With
# GPAW's 500 eV the lattice parameter of LiF comes out 0.11 Å too small, with 40 Ry of `pw.x` that of Li2O 0.08 Å.
STRESS_CUTOFF = 1.6
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Engine(ABC):
    """Turns atoms into the JSON of an ASE calculator, which a job makes in an environment of its own.

    Args:
        python: The interpreter that has the engine; by default this one. A path in full, with `~` and `${NAME}` of the
            environment, or a command that the job's shell finds. It needs ASE, and spglib to keep the symmetry of what
            it relaxes, not this package.
        launcher: What goes before it, such as `srun` or `mpiexec -n 16`, where the engine runs in parallel in Python.
        setup: Lines of the job's script before it, such as `source /opt/env.sh`.
        environment: Variables set for the job.
    """

    modules: tuple[str, ...] = ("ase",)  # whose versions a result states
    outputs: ClassVar[tuple[str, ...]] = ()  # files that it writes, worth keeping
    log: ClassVar[str | None] = None  # the one of them in which a program of its own tells what went wrong
    patterns: ClassVar[tuple[tuple[Fault, str], ...]] = ()  # faults by what it prints or raises
    parallel: ClassVar[str] = ""  # what its Python is started with under a launcher
    spin: Mapping[str, float] = {}  # initial magnetic moment in μB of each element that has one

    def __init__(
        self,
        python: str = sys.executable,
        launcher: str = "",
        setup: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.setup = tuple(setup)
        variables = {"OMP_NUM_THREADS": "1", **(environment or {})}
        for name in variables:
            if not _VARIABLE.fullmatch(name):
                raise ConfigError(f"engine.environment names {name!r}, which is no name of a variable.")
        self.environment = variables
        self.python = str(Path(with_environment(python, "engine.python")).expanduser())
        if os.sep in self.python and not Path(self.python).is_absolute():
            raise ConfigError(
                f"engine.python is {self.python!r}, which would start at each job's own folder; write the path in full."
            )
        started = [launcher, shlex.quote(self.python), "-u", self.parallel if launcher else "", "runner.py"]
        self.command = " ".join(filter(None, started))

    def check(self) -> None:  # noqa: B027 (a hook)
        """Raise a `ConfigError` where it can't compute as configured."""

    def check_here(self) -> None:
        """Raise a `ConfigError` where this machine, on which jobs are to run, lacks the interpreter."""
        # A bare command may come from `setup`.
        if os.sep in self.python and shutil.which(self.python) is None:
            raise ConfigError(
                f"engine.python is {self.python}, which is no program of this machine; name the interpreter of the "
                f"environment that has the engine."
            )

    def check_elements(self, symbols: Collection[str]) -> None:  # noqa: B027 (a hook)
        """Raise an `OracleError` where an element can't be computed as configured."""

    @abstractmethod
    def calculator(
        self, atoms: Atoms, *, for_stress: bool = False, for_dynamics: bool = False
    ) -> Mapping[str, Any]:
        """The calculator for atoms: `{"class": "module:Name", "params": {...}}`, nested where need be.

        Args:
            atoms: What is computed.
            for_stress: Whether it is to relax a cell, for which a basis may have to be larger.
            for_dynamics: Whether the atoms will leave their places, and with them the symmetry that they have.
        """

    def program_version(self, log: str) -> Mapping[str, str]:
        """The version of its own program, by the program's name, that the beginning of its `log` states."""
        return {}

    @abstractmethod
    def content(self) -> Mapping[str, Any]:
        """All that changes results, JSON: every number, defaults included."""

    def moments(self, atoms: Atoms) -> np.ndarray | None:
        """Initial magnetic moments in μB, `n`, by element; None where the calculation is not spin-polarised."""
        moments = np.array([self.spin.get(symbol, 0.0) for symbol in atoms.symbols])
        return moments if moments.any() else None


def given(**values: Any) -> dict[str, Any]:
    """What is not None, for defaults that belong elsewhere."""
    return {name: value for name, value in values.items() if value is not None}


def check_positive(**values: float | None) -> None:
    """Raise a `ConfigError` where a setting of an engine is given and not above 0."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ConfigError(f"engine.{name} must be above 0, not {value:g}.")


def check_symbols(**sections: Collection[str] | None) -> None:
    """Raise a `ConfigError` where a section of an engine names what is no element."""
    for section, symbols in sections.items():
        for symbol in symbols or ():
            if symbol not in atomic_numbers:
                raise ConfigError(f"engine.{section} names {symbol!r}, which is no element.")


def grid(atoms: Atoms, density: float) -> tuple[int, int, int]:
    """Points of a k-point grid along each reciprocal axis, by their density.

    Args:
        atoms: The cell; an axis without periodicity gets one point.
        density: Points per Å⁻¹ of reciprocal length (2π included).
    """
    lengths = 2.0 * np.pi * np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    # Rounded first: a grid must not depend on the last digit of a cell.
    points = [
        max(1, int(np.ceil(round(float(length) * density, 6)))) if periodic else 1
        for length, periodic in zip(lengths, atoms.pbc, strict=True)
    ]
    return points[0], points[1], points[2]
