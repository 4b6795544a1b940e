"""The program of a job: restarts that keep the symmetry, and processes that know their rank."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes

from oracles.dft import runner
from oracles.dft.engines import ASEEngine, Engine, GPAWEngine

EDGES = np.array([3.0, 3.0, 3.3])  # Å, of a tetragonal cell


class Tetragonal(Calculator):
    """An energy of ½ 20 eV times the squared strains of the three edges of an orthogonal cell."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "stress"]

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        strain = np.log(np.diag(atoms.cell.array) / EDGES)
        stress = 20.0 * strain / atoms.get_volume()
        forces = np.zeros((len(atoms), 3))
        self.results = {"energy": 10.0 * float(strain @ strain), "forces": forces}
        self.results["stress"] = np.concatenate([stress, np.zeros(3)])


@pytest.mark.parametrize("half_relaxed", [None, [3.1, 3.1, 3.1], [3.1, 3.1, 3.2]])
def test_a_restart_keeps_the_group_of_the_structure_that_came_in(
    tmp_path: Path, half_relaxed: list[float] | None
) -> None:
    """A tetragonal cell that is cubic on its way must not stay so."""
    settings = {"cell": True, "symmetry": True, "fmax": 1e-4, "max_steps": 60}
    atoms = Atoms("Li", cell=[2.9, 2.9, 3.4], pbc=True)
    done = 0
    if half_relaxed is not None:
        done = 3
        saved = {
            "attempt": 1,
            "steps": done,
            "cell": np.diag(half_relaxed).tolist(),
            "positions": [[0.0] * 3],
        }
        runner.write_json(tmp_path / runner.RESTART, saved)
    steps = runner.relax(atoms, Tetragonal(), settings, tmp_path, attempt=2, first=True)
    assert steps > done
    np.testing.assert_allclose(np.diag(atoms.cell.array), EDGES, atol=1e-3)


def test_a_restart_begins_where_the_last_attempt_was(tmp_path: Path) -> None:
    """To the last digit: the constraint has no say in where that is, be it far away or without symmetry."""
    atoms = Atoms("Li2", positions=[[0, 0, 0], [1.5, 1.5, 1.5]], cell=[3.0] * 3, pbc=True)
    saved = {
        "attempt": 1,
        "steps": 1,
        "cell": np.diag([4.0, 4.01, 4.02]).tolist(),
        "positions": [[0.01, 0.0, 0.0], [1.9, 2.1, 2.0]],
    }
    runner.write_json(tmp_path / runner.RESTART, saved)
    seen = []

    class Watching(Tetragonal):
        def calculate(self, atoms: Any = None, *rest: Any) -> None:
            seen.append(atoms.copy())
            super().calculate(atoms, *rest)

    settings = {"cell": False, "symmetry": True, "fmax": 1e-4, "max_steps": 60}
    runner.relax(atoms, Watching(), settings, tmp_path, attempt=2, first=True)
    assert seen[0].positions.tolist() == saved["positions"]
    assert seen[0].cell.array.tolist() == saved["cell"]


def job(**changes: Any) -> dict[str, Any]:
    emt = {"class": "ase.calculators.emt:EMT", "params": {}}
    atoms = {"numbers": [29], "positions": [[0, 0, 0]], "cell": (3.6 * np.eye(3)).tolist(), "pbc": [True] * 3}
    base = {"atoms": atoms, "modules": ["ase"], "relaxation": None}
    return {**base, "calculator": emt, "relaxation_calculator": emt, **changes}


def run_in(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(runner.__file__, folder / "runner.py")
    return subprocess.run(
        [*command, "1"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


# A stand-in for ASE's communicator: it is chosen at the first look, by what is imported then.
_ENGINE = """
import ase.parallel, sys
assert ase.parallel.world.comm is None, "somebody has looked at world before"
class Last:
    rank, size = 1, 2
    def barrier(self): pass
ase.parallel.world.comm = Last()
from ase.calculators.emt import EMT
"""


@pytest.mark.parametrize("by", ["modules", "calculator"])
def test_engines_are_imported_before_a_look_at_the_rank(tmp_path: Path, by: str) -> None:
    """Be they named or only brought by the calculator: the second of two processes writes nothing."""
    (tmp_path / "engine_with_mpi.py").write_text(_ENGINE)
    spec = {"class": "engine_with_mpi:EMT", "params": {}}
    changes = {"modules": {"modules": ["ase", "engine_with_mpi"]}, "calculator": {"calculator": spec}}
    runner.write_json(tmp_path / runner.JOB, job(**changes[by]))
    done = run_in(tmp_path, sys.executable, "runner.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / runner.RESULT).exists()
    assert not (tmp_path / runner.HEARTBEAT).exists()


def test_an_engine_that_is_not_there_is_a_failure_of_the_set_up(tmp_path: Path) -> None:
    runner.write_json(tmp_path / runner.JOB, job(modules=["ase", "no_such_engine"]))
    assert run_in(tmp_path, sys.executable, "runner.py").returncode == 0
    result = runner.read_json(tmp_path / runner.RESULT)
    assert (result["state"], result["stage"], result["type"]) == ("failed", "set-up", "ModuleNotFoundError")


# Each process says who it is, and computes; the first one alone writes.
_RANKS = """
from ase.calculators.emt import EMT
class Telling(EMT):
    def calculate(self, *args, **kwargs):
        from ase.parallel import world
        open(f"rank-{world.rank}-of-{world.size}", "x").close()
        super().calculate(*args, **kwargs)
"""


MPIEXEC = "mpiexec --allow-run-as-root --oversubscribe -n 2"


@pytest.fixture
def parallel_python(gpaw_python: str) -> str:
    """An interpreter that has mpi4py and a GPAW compiled with MPI, as `.ci/install-dft-tools` makes it."""
    look = "import mpi4py, gpaw.cgpaw; assert gpaw.cgpaw.have_mpi"
    if subprocess.run([gpaw_python, "-c", look], capture_output=True, check=False).returncode:
        pytest.skip(f"{gpaw_python} lacks mpi4py or a GPAW compiled with MPI; `make test-slurm` makes one")
    return gpaw_python


def compute(folder: Path, engine: Engine, **changes: Any) -> Any:
    """Run a job as its script would, and return its result."""
    folder.mkdir()
    runner.write_json(folder / runner.JOB, job(modules=list(engine.modules), **changes))
    (folder / "ranks.py").write_text(_RANKS)
    done = run_in(folder, *shlex.split(engine.command))
    assert done.returncode == 0, done.stdout + done.stderr
    result = runner.read_json(folder / runner.RESULT)
    assert result["state"] == "done", result["message"]
    return result


@pytest.mark.gpaw
def test_two_processes_of_mpi4py_know_their_ranks(tmp_path: Path, parallel_python: str) -> None:
    engine = ASEEngine("ranks:Telling", modules=["mpi4py"], python=parallel_python, launcher=MPIEXEC)
    result = compute(tmp_path / "job", engine, calculator=engine.calculator(Atoms()))
    ranks = sorted(path.name for path in (tmp_path / "job").glob("rank-*"))
    assert ranks == ["rank-0-of-2", "rank-1-of-2"]
    assert set(result["versions"]) == {"python", "ase", "mpi4py"}


@pytest.mark.gpaw
def test_two_processes_of_gpaw_compute_the_energy_of_one(tmp_path: Path, parallel_python: str) -> None:
    lif = bulk("LiF", "rocksalt", a=4.03)
    energies = {}
    for launcher, n in (("", 1), (MPIEXEC, 2)):
        engine = GPAWEngine(protocol="fast", python=parallel_python, launcher=launcher)
        folder = tmp_path / f"{n}"
        changes = {"atoms": runner.atoms_json(lif), "calculator": engine.calculator(lif)}
        energies[n] = compute(folder, engine, **changes)["energy"]
        assert re.search(rf"^cores: +{n}$", (folder / "gpaw.txt").read_text(), re.MULTILINE)
    # The default tolerance of self-consistency is of this order, for eight electrons.
    assert energies[2] == pytest.approx(energies[1], abs=1e-3)
