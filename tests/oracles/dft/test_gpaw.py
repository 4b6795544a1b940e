"""Real density-functional theory, with GPAW, on cells of two and three atoms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dft_harness import answers, energies, ten_steps

from activelearning.candidate import CrystalCandidate
from activelearning.measurement import Censoring
from oracles.dft import DFTQueueOracle

pytestmark = [pytest.mark.gpaw, pytest.mark.timeout(1200)]

# Measured lattice parameters, Å: CRC Handbook of Chemistry and Physics (LiF, LiCl); Farley et al., J. Phys.: Condens.
# Matter 3, 4761 (1991) (Li2O).
CRYSTALS = {
    "LiF": CrystalCandidate(
        225, {"Li": 4, "F": 4}, (4.026, 4.026, 4.026, 90, 90, 90), wyckoff={"Li": ("a",), "F": ("b",)}
    ),
    "Li2O": CrystalCandidate(
        225, {"Li": 8, "O": 4}, (4.619, 4.619, 4.619, 90, 90, 90), wyckoff={"Li": ("c",), "O": ("a",)}
    ),
    "LiCl": CrystalCandidate(
        225, {"Li": 4, "Cl": 4}, (5.130, 5.130, 5.130, 90, 90, 90), wyckoff={"Li": ("a",), "Cl": ("b",)}
    ),
}


def make(
    folder: Path, python: str, scheduler: dict[str, Any], protocol: str, **params: Any
) -> DFTQueueOracle:
    engine = {"type": "gpaw", "protocol": protocol, "python": python, **params.pop("engine", {})}
    return energies(folder, engine, scheduler, **params)


@pytest.fixture
def local() -> dict[str, Any]:
    return {"type": "local", "total_cores": 1}


@pytest.mark.slow
def test_formation_energies_of_the_standard_protocol(
    tmp_path: Path, gpaw_python: str, local: dict[str, Any]
) -> None:
    """PBE without corrections, eV/atom.

    From the Materials Project's formation energies (Jain et al., APL Mater. 1, 011002 (2013); mp-1138, mp-1960,
    mp-22905), which carry corrections for anions, less those: 0.462 eV per F, 0.687 per O, 0.614 per Cl (Wang et al.,
    Sci. Rep. 11, 15496 (2021)).
    """
    known = {"LiF": -3.18 + 0.462 / 2, "Li2O": -2.062 + 0.687 / 3, "LiCl": -2.116 + 0.614 / 2}
    found = answers(make(tmp_path, gpaw_python, local, "standard"), CRYSTALS)
    for name, energy in known.items():
        value = found[name].values["formation_energy"].value
        print(name, value, energy)
        assert value == pytest.approx(energy, abs=0.15), name
        assert found[name].metadata["versions"]["gpaw"]


def test_an_energy_from_real_jobs_under_each_scheduler(
    tmp_path: Path, gpaw_python: str, scheduler_section: dict[str, Any]
) -> None:
    chosen = {name: CRYSTALS[name] for name in ("LiF", "LiCl")}
    params = {"task": "energy", "engine": {"ecut": 250.0, "k_density": 1.0}}
    found = answers(make(tmp_path, gpaw_python, scheduler_section, "fast", **params), chosen)
    for name, answer in found.items():
        assert answer.is_success, answer.reason
        assert answer.metadata["n_atoms"] == 2, name
        assert {Path(path).name for path in answer.artifacts} >= {"gpaw.txt", "result.json", "job.sh"}
        assert answer.cost is not None
        assert 0 < answer.cost < 1.0


def test_no_self_consistency_is_a_failure_with_its_reason(
    tmp_path: Path, gpaw_python: str, scheduler_section: dict[str, Any]
) -> None:
    engine = {"ecut": 250.0, "k_density": 1.0, "max_iterations": 2}
    oracle = make(tmp_path, gpaw_python, scheduler_section, "fast", task="energy", engine=engine)
    answer = answers(oracle, {"LiF": CRYSTALS["LiF"]})["LiF"]
    assert answer.reason is not None
    assert answer.reason.startswith("did not converge: gpaw.KohnShamConvergenceError")
    assert answer.metadata["attempts"] == 1


def test_an_element_without_a_data_set_is_bad_input(
    tmp_path: Path, gpaw_python: str, local: dict[str, Any]
) -> None:
    uranium = CrystalCandidate(225, {"U": 4}, (4.9, 4.9, 4.9, 90, 90, 90), wyckoff={"U": ("a",)})
    oracle = make(tmp_path, gpaw_python, local, "fast", task="energy")
    answer = answers(oracle, {"U": uranium})["U"]
    assert answer.reason is not None
    assert answer.reason.startswith("bad input: ")


@pytest.mark.slow
def test_a_relaxed_cell_is_that_of_pbe(tmp_path: Path, gpaw_python: str, local: dict[str, Any]) -> None:
    """LiF from a cell 2 % too small; PBE's is 4.07 Å (Haas, Tran and Blaha, Phys. Rev. B 79, 085104 (2009))."""
    small = CrystalCandidate(
        225, {"Li": 4, "F": 4}, (3.99, 3.99, 3.99, 90, 90, 90), wyckoff={"Li": ("a",), "F": ("b",)}
    )
    engine = {"ecut": 500.0, "k_density": 2.0}
    oracle = make(tmp_path, gpaw_python, local, "fast", task="energy", relax="cell", engine=engine)
    answer = answers(oracle, {"LiF": small})["LiF"]
    assert answer.is_success, answer.reason
    volume = abs(np.linalg.det(answer.metadata["cell"]))
    assert (4.0 * volume) ** (1.0 / 3.0) == pytest.approx(4.07, abs=0.03)
    assert answer.metadata["steps"] >= 1
    assert answer.metadata["max_force"] < 0.03


def test_atoms_of_a_symmetric_crystal_move(tmp_path: Path, gpaw_python: str, local: dict[str, Any]) -> None:
    """Ten steps of rock-salt LiF, two atoms; the total energy is that of exact dynamics."""
    from ase.build import bulk
    from md_cases import crystal

    engine = {"type": "gpaw", "protocol": "fast", "python": gpaw_python, "ecut": 250.0, "k_density": 1.0}
    oracle = ten_steps(tmp_path, engine, local)
    answer = answers(oracle, {"LiF": crystal(bulk("LiF", "rocksalt", a=4.026))})["LiF"]
    assert answer.is_success, answer.reason
    assert answer.values["log10_conductivity_300K"].censoring is Censoring.UPPER
    assert (answer.metadata["steps"], answer.metadata["n_atoms"]) == (10, 2)
    (path,) = (path for path in answer.artifacts if path.endswith("trajectory.npz"))
    with np.load(path) as content:
        potential, total, temperature = content["observables"].T
        moved = np.linalg.norm(content["positions"][-1] - content["positions"][0], axis=1)
    assert len(total) == 11
    assert (moved > 0.02).all()
    assert np.ptp(temperature) > 20.0
    assert np.ptp(total) < 0.02 * np.ptp(potential)
