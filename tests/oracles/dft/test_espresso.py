"""Real density-functional theory, with Quantum ESPRESSO, on Li2O with the pseudopotentials of Debian's package."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dft_harness import answers, energies, ten_steps

from activelearning.candidate import CrystalCandidate
from activelearning.measurement import Measurement

pytestmark = [pytest.mark.espresso, pytest.mark.timeout(1200)]

PSEUDO_DIR = Path("/usr/share/espresso/pseudo")
# For PBEsol, with 1s of Li among the valence.
PSEUDOPOTENTIALS = {"Li": "Li.pbesol-s-kjpaw_psl.0.2.1.UPF", "O": "O.pbesol-n-kjpaw_psl.0.1.UPF"}


def oxide(a: float = 4.619) -> CrystalCandidate:
    """Li2O; measured: Farley et al., J. Phys.: Condens. Matter 3, 4761 (1991)."""
    return CrystalCandidate(
        225, {"Li": 8, "O": 4}, (a, a, a, 90, 90, 90), wyckoff={"Li": ("c",), "O": ("a",)}
    )


@pytest.fixture(autouse=True)
def espresso() -> None:
    missing = [name for name in PSEUDOPOTENTIALS.values() if not (PSEUDO_DIR / name).is_file()]
    if shutil.which("pw.x") is None or missing:
        pytest.fail("needs pw.x and its pseudopotentials (quantum-espresso), as `make test-slurm` installs")


def with_pw(**settings: Any) -> dict[str, Any]:
    """The section of an engine, by the protocol `fast` unless it says otherwise."""
    named = {"pseudo_dir": str(PSEUDO_DIR), "pseudopotentials": PSEUDOPOTENTIALS}
    return {"type": "espresso", "protocol": "fast", **named, **settings}


def answer(
    folder: Path,
    scheduler: dict[str, Any],
    candidate: CrystalCandidate,
    engine: dict[str, Any],
    **params: Any,
) -> Measurement:
    oracle = energies(folder, engine, scheduler, **params)
    return answers(oracle, {"Li2O": candidate})["Li2O"]


@pytest.fixture
def local() -> dict[str, Any]:
    return {"type": "local", "total_cores": 1}


def test_formation_energy_of_the_standard_protocol(tmp_path: Path, local: dict[str, Any]) -> None:
    """PBE's is that of `test_gpaw.py`; pseudopotentials made for PBEsol change it by less than the tolerance."""
    engine = with_pw(protocol="standard", input_data={"system": {"input_dft": "PBE"}})
    found = answer(tmp_path, local, oxide(), engine)
    assert found.is_success, found.reason
    assert found.values["formation_energy"].value == pytest.approx(-2.062 + 0.687 / 3, abs=0.05)
    assert found.metadata["versions"]["pw.x"]
    assert {Path(path).name for path in found.artifacts} >= {"espresso.pwi", "espresso.pwo"}


def test_a_relaxed_cell_is_where_the_energy_is_least(tmp_path: Path, local: dict[str, Any]) -> None:
    """At 90 Ry, where stress and energy agree, energies of six cells have their minimum at 4.580 Å (PBEsol).

    In the basis of the energy's own 40 Ry the cell shrinks to 4.50 Å.
    """
    found = answer(tmp_path, local, oxide(4.70), with_pw(), task="energy", relax="cell")
    assert found.is_success, found.reason
    volume = abs(np.linalg.det(found.metadata["cell"]))
    assert (4.0 * volume) ** (1.0 / 3.0) == pytest.approx(4.580, abs=0.025)
    assert found.metadata["steps"] >= 1


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        ({"max_iterations": 2}, "did not converge: convergence NOT achieved after 2 iterations: stopping; "),
        (
            {"input_data": {"system": {"input_dft": "NOPE"}}},
            "bad input: Error in routine set_dft_from_name (1): NOPE: unrecognized dft; ",
        ),
        ({"input_data": {"system": {"nosuchkey": 3}}}, "bad input: Error in routine read_namelists (1): "),
    ],
)
def test_what_pw_says_of_its_failures_is_the_reason(
    tmp_path: Path, local: dict[str, Any], engine: dict[str, Any], reason: str
) -> None:
    found = answer(tmp_path, local, oxide(), with_pw(**engine), task="energy")
    assert found.reason is not None
    assert found.reason.startswith(reason)
    assert found.metadata["attempts"] == 1


def test_atoms_move(tmp_path: Path, local: dict[str, Any]) -> None:
    """Ten steps of molecular dynamics: each starts `pw.x` anew, with the forces of one surface."""
    oracle = ten_steps(tmp_path, with_pw(k_density=1.0), local)
    found = answers(oracle, {"Li2O": oxide()})["Li2O"]
    (path,) = (path for path in found.artifacts if path.endswith("trajectory.npz"))
    with np.load(path) as content:
        potential, total, _ = content["observables"].T
    assert len(total) == 11
    assert np.ptp(potential) > 1e-3
    assert np.ptp(total) < 0.02 * np.ptp(potential)
