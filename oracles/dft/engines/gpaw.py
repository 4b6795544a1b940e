"""GPAW in a plane-wave basis.

Mortensen et al., J. Chem. Phys. 160, 092503 (2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

from ase import Atoms

from oracles.dft.engines.base import STRESS_CUTOFF, Engine, check_positive, check_symbols, given, grid
from oracles.dft.faults import Fault


@dataclass(frozen=True)
class Settings:
    """How well GPAW computes.

    Attributes:
        ecut: Cut-off of the plane waves, eV.
        k_density: k-points per Å⁻¹ of reciprocal length; grids are centred at Γ.
        smearing: Width of the Fermi-Dirac distribution, eV; energies are extrapolated to zero.
        energy_tolerance: Of self-consistency, eV per valence electron.
    """

    ecut: float
    k_density: float
    smearing: float
    energy_tolerance: float


PROTOCOLS: Mapping[str, Settings] = {
    "fast": Settings(ecut=350.0, k_density=2.0, smearing=0.1, energy_tolerance=1e-4),
    "standard": Settings(ecut=500.0, k_density=3.5, smearing=0.05, energy_tolerance=1e-5),
}


class GPAWEngine(Engine):
    """GPAW: PAW data sets from its own package `gpaw-data`, plane waves, any of its functionals.

    Args:
        protocol: `fast` (350 eV, 2 k-points per Å⁻¹) or `standard` (500 eV, 3.5 per Å⁻¹).
        xc: Exchange-correlation functional, by GPAW's name.
        ecut: In place of the protocol's, eV.
        k_density: In place of the protocol's, points per Å⁻¹.
        smearing: In place of the protocol's, eV.
        max_iterations: Of self-consistency.
        spin: Initial magnetic moment in μB of each element that has one; with any of them in the crystal the
            calculation is spin-polarised.
        hubbard_u: U in eV by element and shell, as in `{Fe: {d: 4.0}}`; PBE+U of Dudarev et al.
        **environment: `python`, `launcher`, `setup` and `environment` of `Engine`.
    """

    modules = ("ase", "gpaw")
    # By a plain `python`, GPAW refuses to run under a launcher (since 26.7), or each process runs for itself.
    parallel: ClassVar[str] = "-m gpaw python"
    outputs: ClassVar[tuple[str, ...]] = ("gpaw.txt",)
    patterns: ClassVar[tuple[tuple[Fault, str], ...]] = (
        (Fault.NOT_CONVERGED, r"KohnShamConvergenceError|PoissonConvergenceError|Did not converge"),
        (Fault.BAD_INPUT, r"Could not find required PAW dataset|KPointError"),
        (Fault.BAD_INPUT, r"MPI parallelism is disabled"),  # a serial GPAW under a launcher
    )

    def __init__(
        self,
        protocol: Literal["fast", "standard"] = "standard",
        xc: str = "PBE",
        ecut: float | None = None,
        k_density: float | None = None,
        smearing: float | None = None,
        max_iterations: int = 333,
        spin: dict[str, float] | None = None,
        hubbard_u: dict[str, dict[Literal["s", "p", "d", "f"], float]] | None = None,
        python: str | None = None,
        launcher: str = "",
        setup: list[str] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        super().__init__(
            **given(python=python), launcher=launcher, setup=setup or (), environment=environment
        )
        chosen = {"ecut": ecut, "k_density": k_density, "smearing": smearing}
        check_positive(**chosen, max_iterations=max_iterations)
        check_symbols(spin=spin, hubbard_u=hubbard_u)
        self.settings = replace(PROTOCOLS[protocol], **given(**chosen))
        self.xc = xc
        self.max_iterations = max_iterations
        self.spin = dict(spin or {})
        self.hubbard_u = {symbol: dict(shells) for symbol, shells in (hubbard_u or {}).items()}

    def calculator(
        self, atoms: Atoms, *, for_stress: bool = False, for_dynamics: bool = False
    ) -> Mapping[str, Any]:
        """GPAW's constructor."""
        params: dict[str, Any] = {
            "mode": {"name": "pw", "ecut": self.settings.ecut * (STRESS_CUTOFF if for_stress else 1.0)},
            "xc": self.xc,
            "kpts": {"size": list(grid(atoms, self.settings.k_density)), "gamma": True},
            "occupations": {"name": "fermi-dirac", "width": self.settings.smearing},
            "convergence": {"energy": self.settings.energy_tolerance},
            "maxiter": self.max_iterations,
            "txt": "gpaw.txt",
        }
        setups = {
            symbol: ":" + ";".join(f"{shell},{u:g}" for shell, u in sorted(shells.items()))
            for symbol, shells in sorted(self.hubbard_u.items())
            if symbol in set(atoms.symbols)
        }
        if setups:
            params["setups"] = setups
        if for_dynamics:
            # GPAW holds atoms to the point group that they begin with; that of time stays.
            params["symmetry"] = {"point_group": False}
        return {"class": "gpaw:GPAW", "params": params}

    def content(self) -> Mapping[str, Any]:
        """Every setting."""
        return {
            "engine": "gpaw",
            **asdict(self.settings),
            "xc": self.xc,
            "stress_cutoff": STRESS_CUTOFF,
            "max_iterations": self.max_iterations,
            "spin": self.spin,
            "hubbard_u": self.hubbard_u,
        }
