"""Quantum ESPRESSO's `pw.x`, driven through ASE.

Giannozzi et al., J. Phys.: Condens. Matter 29, 465901 (2017).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ase import Atoms
from ase.units import Ry

from activelearning.errors import ConfigError, OracleError
from oracles.dft.engines.base import STRESS_CUTOFF, Engine, check_positive, check_symbols, given, grid
from oracles.dft.faults import Fault


@dataclass(frozen=True)
class Settings:
    """How well `pw.x` computes.

    Attributes:
        ecutwfc: Cut-off of the wave functions, Ry.
        ecutrho: Cut-off of the density, Ry; ultrasoft and PAW sets want eight times the other.
        k_density: k-points per Å⁻¹ of reciprocal length; grids are centred at Γ.
        smearing: Width of the cold smearing (Marzari-Vanderbilt), eV.
        energy_tolerance: Of self-consistency, Ry per atom.
    """

    ecutwfc: float
    ecutrho: float
    k_density: float
    smearing: float
    energy_tolerance: float


PROTOCOLS: Mapping[str, Settings] = {
    "fast": Settings(ecutwfc=40.0, ecutrho=320.0, k_density=2.0, smearing=0.1, energy_tolerance=1e-6),
    "standard": Settings(ecutwfc=60.0, ecutrho=480.0, k_density=3.5, smearing=0.05, energy_tolerance=1e-8),
}

LOG = "espresso/espresso.pwo"
# Keys of namelists that belong to arguments of the engine.
_OWN: Mapping[tuple[str, str], str] = {
    ("system", "ecutwfc"): "ecutwfc",
    ("system", "ecutrho"): "ecutrho",
    ("system", "degauss"): "smearing",
    ("electrons", "electron_maxstep"): "max_iterations",
}


class EspressoEngine(Engine):
    """Quantum ESPRESSO's `pw.x`, with pseudopotentials of your own choice.

    The functional is that of the pseudopotentials.

    Args:
        pseudo_dir: Folder of the pseudopotentials, an absolute path.
        pseudopotentials: File of each element, as in `{Li: li_pbe_v1.4.uspp.F.UPF}`.
        command: Starts `pw.x`, its launcher included, as in `srun pw.x -nk 4`.
        protocol: `fast` (40/320 Ry, 2 k-points per Å⁻¹) or `standard` (60/480 Ry, 3.5 per Å⁻¹).
        ecutwfc: In place of the protocol's, Ry.
        ecutrho: In place of the protocol's, Ry.
        k_density: In place of the protocol's, points per Å⁻¹.
        smearing: In place of the protocol's, eV.
        max_iterations: Of self-consistency.
        spin: Initial magnetic moment in μB of each element that has one.
        input_data: Further namelists, as in `{electrons: {mixing_beta: 0.3}}`.
        python: The interpreter that has ASE; by default this one.
        setup: Lines of the job's script before it.
        environment: Variables set for the job.
    """

    modules = ("ase",)
    outputs: ClassVar[tuple[str, ...]] = ("espresso/espresso.pwi", LOG, "espresso/espresso.err")
    log: ClassVar[str | None] = LOG
    patterns: ClassVar[tuple[tuple[Fault, str], ...]] = (
        (Fault.NOT_CONVERGED, r"convergence NOT achieved"),
        (Fault.OUT_OF_TIME, r"Maximum CPU time exceeded"),
        # The line after the routine's name says what it did not like.
        (
            Fault.BAD_INPUT,
            r"Error in routine +(read|card|check|system|electrons|ions|control|set_dft|iosys).*(\n.*)?",
        ),
        (Fault.CODE_ERROR, r"Error in routine.*(\n.*)?"),
    )

    def __init__(
        self,
        pseudo_dir: Path,
        pseudopotentials: dict[str, str],
        command: str = "pw.x",
        protocol: Literal["fast", "standard"] = "standard",
        ecutwfc: float | None = None,
        ecutrho: float | None = None,
        k_density: float | None = None,
        smearing: float | None = None,
        max_iterations: int = 100,
        spin: dict[str, float] | None = None,
        input_data: dict[str, dict[str, Any]] | None = None,
        python: str | None = None,
        setup: list[str] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        super().__init__(**given(python=python), setup=setup or (), environment=environment)
        chosen = {"ecutwfc": ecutwfc, "ecutrho": ecutrho, "k_density": k_density, "smearing": smearing}
        check_positive(**chosen, max_iterations=max_iterations)
        check_symbols(pseudopotentials=pseudopotentials, spin=spin)
        for namelist, values in (input_data or {}).items():
            for key in values:
                own = _OWN.get((namelist.lower(), key.lower()))
                if own is not None:
                    raise ConfigError(f"engine.input_data.{namelist}.{key} belongs in engine.{own}.")
        self.settings = replace(PROTOCOLS[protocol], **given(**chosen))
        self.pw = command
        self.max_iterations = max_iterations
        self.spin = dict(spin or {})
        self.input_data = {name.lower(): dict(values) for name, values in (input_data or {}).items()}
        self.pseudo_dir = pseudo_dir.expanduser()
        self.pseudopotentials = dict(pseudopotentials)

    def check(self) -> None:
        """Raise a `ConfigError` where a pseudopotential is missing."""
        missing = [f for f in self.pseudopotentials.values() if not (self.pseudo_dir / f).is_file()]
        if missing:
            raise ConfigError(f"engine.pseudo_dir {self.pseudo_dir} lacks {', '.join(sorted(missing))}.")

    def check_elements(self, symbols: Collection[str]) -> None:
        """Raise an `OracleError` where an element has no pseudopotential."""
        missing = sorted(set(symbols) - set(self.pseudopotentials))
        if missing:
            raise OracleError(f"engine.pseudopotentials has none for {', '.join(missing)}")

    def calculator(
        self, atoms: Atoms, *, for_stress: bool = False, for_dynamics: bool = False
    ) -> Mapping[str, Any]:
        """ASE's `Espresso`."""
        n = len(atoms)
        namelists: dict[str, dict[str, Any]] = {
            "control": {"tprnfor": True, "tstress": not for_dynamics, "disk_io": "low"},
            "system": {
                "ecutwfc": self.settings.ecutwfc * (STRESS_CUTOFF if for_stress else 1.0),
                "ecutrho": self.settings.ecutrho * (STRESS_CUTOFF if for_stress else 1.0),
                "occupations": "smearing",
                "smearing": "cold",
                "degauss": self.settings.smearing / Ry,
            },
            "electrons": {
                "conv_thr": self.settings.energy_tolerance * n,
                "electron_maxstep": self.max_iterations,
            },
        }
        for name, values in self.input_data.items():
            namelists.setdefault(name, {}).update(values)
        symbols = sorted(set(atoms.symbols))
        return {
            "class": "ase.calculators.espresso:Espresso",
            "params": {
                "profile": {
                    "class": "ase.calculators.espresso:EspressoProfile",
                    "params": {"command": self.pw, "pseudo_dir": str(self.pseudo_dir.resolve())},
                },
                "directory": "espresso",
                "input_data": namelists,
                "pseudopotentials": {symbol: self.pseudopotentials[symbol] for symbol in symbols},
                "kpts": list(grid(atoms, self.settings.k_density)),
            },
        }

    def program_version(self, log: str) -> Mapping[str, str]:
        """That of `pw.x`."""
        found = re.search(r"Program PWSCF v\.(\S+)", log)
        return {} if found is None else {"pw.x": found[1]}

    def content(self) -> Mapping[str, Any]:
        """Every setting, and the checksums of the pseudopotentials."""
        sums = {
            symbol: hashlib.sha256((self.pseudo_dir / name).read_bytes()).hexdigest()
            for symbol, name in sorted(self.pseudopotentials.items())
        }
        return {
            "engine": "espresso",
            **asdict(self.settings),
            "stress_cutoff": STRESS_CUTOFF,
            "max_iterations": self.max_iterations,
            "spin": self.spin,
            "input_data": self.input_data,
            "pseudopotentials": sums,
        }
