"""Inputs of the engines, and what their words mean."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from activelearning.errors import ConfigError, OracleError
from oracles.dft import runner
from oracles.dft.engines import ASEEngine, EspressoEngine, GPAWEngine
from oracles.dft.engines.base import grid
from oracles.dft.faults import Fault, diagnose_end, diagnose_failure
from oracles.dft.folder import JobFolder
from oracles.dft.structure import primitive

LIF = bulk("LiF", "rocksalt", a=4.026)


def pseudos(folder: Path, *symbols: str) -> dict[str, str]:
    for symbol in symbols:
        (folder / f"{symbol}.upf").write_text(f"pseudopotential of {symbol}")
    return {symbol: f"{symbol}.upf" for symbol in symbols}


@pytest.mark.parametrize("density", [1.0, 2.0, 3.5])
def test_k_point_grids_are_at_least_as_dense_as_asked_and_no_denser_than_needed(density: float) -> None:
    for atoms in (LIF, bulk("Li", "bcc", a=3.49), bulk("Mg"), bulk("LiF", "rocksalt", a=4.026, cubic=True)):
        lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(atoms.cell.array).T, axis=1)
        for n, length in zip(grid(atoms, density), lengths, strict=True):
            assert n / length >= density - 1e-6
            assert n == 1 or (n - 1) / length < density


def test_an_axis_without_periodicity_has_one_k_point() -> None:
    assert grid(Atoms("F2", [[0, 0, 0], [0, 0, 1.4]], cell=[2, 2, 2]), 5.0) == (1, 1, 1)


def test_gpaw_input_is_plain_json_with_the_protocols_figures() -> None:
    made = json.loads(json.dumps(GPAWEngine().calculator(LIF)))
    params = made["params"]
    assert made["class"] == "gpaw:GPAW"
    assert params["mode"] == {"name": "pw", "ecut": 500.0}
    assert GPAWEngine().calculator(LIF, for_stress=True)["params"]["mode"]["ecut"] == 800.0
    assert params["kpts"] == {"size": [10, 10, 10], "gamma": True}
    assert not {"setups", "symmetry"} & set(params)
    # Atoms that move leave the point group they begin with.
    moving = GPAWEngine().calculator(LIF, for_dynamics=True)["params"]
    assert moving == {**params, "symmetry": {"point_group": False}}
    fast = GPAWEngine(protocol="fast", ecut=200.0, hubbard_u={"Fe": {"d": 4.0}, "Ni": {"d": 6.0}})
    oxide = fast.calculator(bulk("FeO", "rocksalt", a=4.3))["params"]
    assert oxide["mode"]["ecut"] == 200.0
    assert oxide["setups"] == {"Fe": ":d,4"}


def test_under_a_launcher_gpaw_is_started_as_it_asks_to_be() -> None:
    """https://gpaw.readthedocs.io/releasenotes.html#mpichanges"""
    alone, parallel = (GPAWEngine(python="/opt/python", launcher=launcher) for launcher in ("", "srun -n 4"))
    assert alone.command == "/opt/python -u runner.py"
    assert parallel.command == "srun -n 4 /opt/python -u -m gpaw python runner.py"
    any_other = ASEEngine("ase.calculators.emt:EMT", python="/opt/python", launcher="srun")
    assert any_other.command == "srun /opt/python -u runner.py"


def test_spin_is_by_element() -> None:
    engine = GPAWEngine(spin={"Fe": 4.0})
    assert engine.moments(LIF) is None
    np.testing.assert_array_equal(engine.moments(bulk("FeO", "rocksalt", a=4.3)), [4.0, 0.0])


def test_espresso_input_is_what_ase_writes(tmp_path: Path) -> None:
    """The spec makes ASE's calculator, whose input file holds the numbers."""
    named = pseudos(tmp_path, "Li", "F")
    engine = EspressoEngine(tmp_path, named, protocol="fast", input_data={"electrons": {"mixing_beta": 0.3}})
    engine.check()
    spec = json.loads(json.dumps(engine.calculator(LIF)))
    spec["params"]["directory"] = str(tmp_path / "run")
    calculator = runner.build(spec)
    (tmp_path / "run").mkdir()
    calculator.template.write_input(
        calculator.profile, tmp_path / "run", LIF, calculator.parameters, ["energy"]
    )
    text = (tmp_path / "run" / "espresso.pwi").read_text()
    for line in ("ecutwfc", "ecutrho", "mixing_beta", "Li.upf", "F.upf", "6 6 6"):
        assert line in text
    found = {
        key.strip(): value.strip() for key, _, value in (row.partition("=") for row in text.splitlines())
    }
    assert float(found["ecutwfc"]) == 40.0
    assert float(found["ecutrho"]) == 320.0
    assert float(found["degauss"]) == pytest.approx(0.1 / 13.605693, rel=1e-6)
    assert float(found["conv_thr"]) == pytest.approx(2e-6)


def test_espresso_wants_its_pseudopotentials(tmp_path: Path) -> None:
    engine = EspressoEngine(tmp_path, {"Li": "Li.upf"})
    with pytest.raises(ConfigError, match=r"lacks Li\.upf"):
        engine.check()
    with pytest.raises(OracleError, match="has none for F"):
        engine.check_elements(["Li", "F"])
    before = EspressoEngine(tmp_path, pseudos(tmp_path, "Li")).content()
    (tmp_path / "Li.upf").write_text("another")
    assert EspressoEngine(tmp_path, {"Li": "Li.upf"}).content() != before


@pytest.mark.parametrize(
    ("engine", "text", "fault"),
    [
        ("espresso", "     convergence NOT achieved after 100 iterations: stopping", Fault.NOT_CONVERGED),
        ("espresso", "     Error in routine readpp (1):\n file not found", Fault.BAD_INPUT),
        (
            "espresso",
            "     Error in routine cdiaghg (159):\n     S matrix not positive definite",
            Fault.CODE_ERROR,
        ),
        ("gpaw", "gpaw.KohnShamConvergenceError: Did not converge!", Fault.NOT_CONVERGED),
        (
            "ase",
            "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026 DUE TO TIME LIMIT ***",
            Fault.OUT_OF_TIME,
        ),
        ("ase", "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.batch", Fault.OUT_OF_MEMORY),
        ("ase", "terminate called after throwing an instance of 'std::bad_alloc'", Fault.OUT_OF_MEMORY),
        ("ase", "*** JOB 7 ON n1 CANCELLED AT 2026 DUE TO NODE FAILURE ***", Fault.NODE_LOST),
        ("ase", "ModuleNotFoundError: No module named 'ase'", Fault.BAD_INPUT),
    ],
)
def test_logs_are_understood(engine: str, text: str, fault: Fault) -> None:
    patterns = {"espresso": EspressoEngine, "gpaw": GPAWEngine, "ase": ASEEngine}[engine].patterns
    found = diagnose_end(1, f"first line\n{text}\nlast line", patterns)
    assert found.fault is fault
    assert found.detail in " ".join(text.split())


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (None, Fault.KILLED),
        (137, Fault.KILLED),
        (143, Fault.KILLED),
        (139, Fault.CODE_ERROR),
        (75, Fault.NODE_LOST),
        (127, Fault.BAD_INPUT),
        (1, Fault.CODE_ERROR),
    ],
)
def test_exit_codes_are_understood(code: int | None, fault: Fault) -> None:
    assert diagnose_end(code, "", ()).fault is fault


def test_an_error_before_the_calculation_is_of_the_input() -> None:
    failure: dict[str, Any] = {"type": "KeyError", "message": "'Xx'", "stage": "set-up"}
    assert diagnose_failure(failure, "", ()).fault is Fault.BAD_INPUT
    assert diagnose_failure({**failure, "stage": "calculation"}, "", ()).fault is Fault.CODE_ERROR


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("Command '['pw.x']' died with <Signals.SIGKILL: 9>.", Fault.KILLED),
        ("Command '['pw.x']' died with <Signals.SIGSEGV: 11>.", Fault.CODE_ERROR),
        ("Command '['srun', 'pw.x']' returned non-zero exit status 137.", Fault.KILLED),
        ("Command '['srun', 'pw.x']' returned non-zero exit status 1.", Fault.CODE_ERROR),
    ],
)
def test_the_end_of_a_program_is_understood(message: str, fault: Fault) -> None:
    failure = {"type": "subprocess.CalledProcessError", "message": message, "stage": "calculation"}
    assert diagnose_failure(failure, "", EspressoEngine.patterns).fault is fault
    told = "     Error in routine  system_checkin (1):\n      ecutwfc out of range\n %%%%\n     stopping ..."
    found = diagnose_failure(failure, told, EspressoEngine.patterns)
    assert (found.fault, found.detail) == (
        Fault.BAD_INPUT,
        "Error in routine system_checkin (1): ecutwfc out of range",
    )


def test_what_a_program_wrote_before_the_attempt_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "pw.out").write_text("old")
    os.utime(tmp_path / "pw.out", (1.0, 1.0))
    folder = JobFolder(tmp_path)
    assert folder.output_tail("pw.out", 1) == ""
    (tmp_path / "claim-1").write_text("7")
    assert folder.output_tail("pw.out", 1) == ""
    (tmp_path / "pw.out").write_text("new")
    assert folder.output_tail("pw.out", 1) == "new"


def test_a_relaxed_cell_has_a_larger_basis(tmp_path: Path) -> None:
    engine = EspressoEngine(tmp_path, pseudos(tmp_path, "Li", "F"), protocol="fast")
    for key, value in (("ecutwfc", 40.0), ("ecutrho", 320.0)):
        for_stress = engine.calculator(LIF, for_stress=True)["params"]["input_data"]["system"]
        assert for_stress[key] == pytest.approx(1.6 * value)


def test_settings_of_the_engine_are_not_given_twice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"input_data\.SYSTEM\.ecutwfc belongs in engine\.ecutwfc"):
        EspressoEngine(tmp_path, {"Li": "Li.upf"}, input_data={"SYSTEM": {"ecutwfc": 30}})


def test_a_conventional_cell_becomes_primitive_with_the_same_distances() -> None:
    for conventional, n in ((bulk("LiF", "rocksalt", a=4.026, cubic=True), 2), (bulk("Mg").repeat(2), 2)):
        small = primitive(conventional)
        assert len(small) == n
        assert small.get_volume() / n == pytest.approx(conventional.get_volume() / len(conventional))
        back = sorted(small.repeat(4).get_all_distances(mic=True)[0].round(6))[1]
        assert back == pytest.approx(
            np.sort(conventional.repeat(2).get_all_distances(mic=True)[0])[1], abs=1e-5
        )


def test_the_runner_needs_nothing_of_this_package() -> None:
    import ast

    tree = ast.parse(Path(runner.__file__).read_text())
    names = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    names |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    tops = {name.split(".")[0] for name in names} - {"__future__"}
    assert tops & {"activelearning", "oracles", "samplers", "surrogates", "flows"} == set()
    import sys

    assert tops - set(sys.stdlib_module_names) == {"ase", "numpy"}
