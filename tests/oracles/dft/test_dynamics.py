"""Ab-initio molecular dynamics: jobs killed in mid-trajectory, and answers that are those of `mace_md`."""

from __future__ import annotations

import inspect
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from md_cases import crystal
from toy_conductor import Lattice, conductor

from activelearning.campaign.config import parse_config
from activelearning.campaign.engine import Engine as Campaign
from activelearning.campaign.tick import run
from activelearning.candidate import CrystalCandidate
from activelearning.contracts.oracle import JobState, OracleContext
from activelearning.errors import ConfigError, OracleError
from activelearning.measurement import Censoring, Measurement
from activelearning.store.database import open_database
from activelearning.store.repository import Repository
from oracles.dft import DFTQueueOracle, runner
from oracles.dft.dynamics import Simulation
from oracles.dft.engines import ASEEngine
from oracles.dynamics.analysis import nernst_einstein
from oracles.mace_md import MaceMDOracle

HERE = Path(__file__).parent
KEY = "12" * 32
PROP = "log10_conductivity_800K"
DYNAMICS = {
    "time_ps": 5.0,
    "equilibration_ps": 1.0,
    "timestep_fs": 4.0,
    "interval_fs": 20.0,
    "min_cell_edge": 0.0,
    "min_msd_gain": 3.0,
    "min_hops": 5.0,
    "checkpoint_every": 100,
}
SHORT = {**DYNAMICS, "time_ps": 0.4, "equilibration_ps": 0.2, "max_energy_change": 1.0, "checkpoint_every": 7}
N_STEPS, N_FRAMES = 150, 20  # of SHORT
SALT = CrystalCandidate(
    225, {"Li": 4, "Cl": 4}, (5.13, 5.13, 5.13, 90, 90, 90), wyckoff={"Li": ("a",), "Cl": ("b",)}
)


def engine_section(**parameters: Any) -> dict[str, Any]:
    return {
        "type": "ase",
        "calculator": "fake_calculators:Conductor",
        "parameters": parameters,
        "environment": {"PYTHONPATH": f"{HERE}:{HERE.parents[1]}"},
    }


def make(folder: Path, prop: str = PROP, unit: str | None = "log10(S/cm)", **params: Any) -> DFTQueueOracle:
    given = {
        "task": "molecular_dynamics",
        "engine": engine_section(),
        "scheduler": {"type": "local", "total_cores": 2},
        "dynamics": SHORT,
        "backoff": 0.0,
    }
    oracle = DFTQueueOracle(**{**given, **params})
    oracle.bind(OracleContext("search", "aimd", prop, unit, 2.0, "sqlite://", folder))
    return oracle


def answer(oracle: DFTQueueOracle, candidate: Any = None, key: str = KEY) -> Measurement:
    oracle.check()
    oracle.submit(crystal(conductor()) if candidate is None else candidate, key)
    end = time.monotonic() + 200
    while True:
        found = oracle.poll([key])[key]
        if not isinstance(found, JobState):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.2)


def trajectory(measurement: Measurement) -> dict[str, np.ndarray]:
    (path,) = (path for path in measurement.artifacts if path.endswith("trajectory.npz"))
    with np.load(path) as content:
        return dict(content)


def calls(folder: Path) -> list[str]:
    """Attempts of each calculation that was begun."""
    return (folder / "jobs" / KEY / "ran").read_text().split()


def test_the_answer_is_that_of_mace_md_with_the_same_forces(tmp_path: Path) -> None:
    """A value with its error, from the same start, momenta and noise; every figure behind it is the same."""
    found = answer(make(tmp_path, dynamics={**DYNAMICS, "collective": True}))
    shared = {k: v for k, v in DYNAMICS.items() if k not in ("interval_fs",)}
    twin = MaceMDOracle(
        potential="toy_conductor:Lattice",
        sample_every=5,
        relax_steps=0,
        relax_cell=False,
        collective=True,
        keep_trajectory=True,
        **shared,
    )
    twin.bind(OracleContext("search", "md", PROP, "log10(S/cm)", 1.0, "sqlite://", tmp_path / "md"))
    candidate = crystal(conductor())
    twin.expect({candidate.key: KEY})
    expected = twin.evaluate_one(candidate)
    assert expected.is_success, expected.reason
    value = found.values[PROP]
    assert value == expected.values[PROP]
    assert value.censoring is Censoring.NONE
    assert value.std is not None
    assert 0.0 < value.std < 0.5
    assert value.unit == "log10(S/cm)"
    common = set(found.metadata) & set(expected.metadata)
    assert {"diffusion_cm2_per_s", "he_relative_error", "haven_ratio", "framework_bonds", "volume"} <= common
    assert {k: found.metadata[k] for k in common} == {k: expected.metadata[k] for k in common}
    for name, array in trajectory(found).items():
        np.testing.assert_array_equal(array, trajectory(expected)[name])
    assert found.cost == pytest.approx(found.metadata["core_hours"])
    assert found.cost is not None
    assert found.cost > 0.0
    names = {Path(path).name for path in found.artifacts}
    assert names == {
        "job.json",
        "result.json",
        "job.sh",
        "attempt-1.log",
        "msd.npz",
        "final.extxyz",
        "trajectory.npz",
    }
    again = make(tmp_path, dynamics={**DYNAMICS, "collective": True}).poll([KEY])[KEY]
    assert isinstance(again, Measurement)  # read off once more, it says the same
    assert again.values == found.values
    assert set(again.artifacts) == set(found.artifacts)


def test_where_nothing_hops_the_answer_is_the_bound_of_no_hops(tmp_path: Path) -> None:
    """Li that stays in its wells: D < 3.0 a² / (6 N t), at 95 %, for 12 Li and 0.4 ps."""
    found = answer(make(tmp_path, engine=engine_section(barrier=3.0)))
    value = found.values[PROP]
    assert value.censoring is Censoring.UPPER
    assert value.std is None
    bound = -math.log(0.05) * 9.0 / (6 * 12 * 0.4)
    assert value.value == pytest.approx(math.log10(nernst_einstein(bound, 12, 27 * 27.0, 800.0)))


@pytest.mark.parametrize("dies_at", [1, 30, 100, N_STEPS + 1])
def test_a_job_killed_in_mid_trajectory_goes_on_and_ends_as_one_that_was_not(
    tmp_path: Path, dies_at: int
) -> None:
    whole = answer(make(tmp_path / "whole"))
    killed = answer(make(tmp_path / "killed", engine=engine_section(dies_at=dies_at)))
    assert killed.metadata["attempts"] == 2
    assert killed.values == whole.values
    one, other = trajectory(whole), trajectory(killed)
    assert len(one["positions"]) == len(one["observables"]) == N_FRAMES + 1
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])
    assert len(np.unique(other["positions"], axis=0)) == N_FRAMES + 1
    # The first attempt did dies_at - 1 steps at most, and the second began at the checkpoint before that.
    checkpoint = max(0, (dies_at - 2) // 7 * 7)
    assert calls(tmp_path / "whole") == ["1"] * (N_STEPS + 1)
    assert calls(tmp_path / "killed") == ["1"] * dies_at + ["2"] * (N_STEPS - checkpoint + 1)
    assert killed.metadata["steps"] == N_STEPS
    assert killed.cost is not None
    assert killed.cost > 0.0


def test_a_job_out_of_time_goes_on_where_it_got_to(tmp_path: Path) -> None:
    slow = make(
        tmp_path / "slow",
        engine=engine_section(seconds=0.08),
        scheduler={"type": "local", "time_limit": 10.0},
        dynamics={**SHORT, "checkpoint_every": 1},
        max_attempts=20,
    )
    found = answer(slow)
    assert found.is_success, found.reason
    assert found.metadata["attempts"] > 1
    whole = answer(make(tmp_path / "whole"))
    assert found.values == whole.values
    np.testing.assert_array_equal(trajectory(found)["observables"], trajectory(whole)["observables"])


def test_a_step_without_convergence_fails_the_job_at_once(tmp_path: Path) -> None:
    found = answer(make(tmp_path, engine=engine_section(fails_at=40)))
    assert found.reason is not None
    assert found.reason.startswith("did not converge: fake_calculators.ConvergenceError: no self-consistency")
    assert found.metadata["attempts"] == 1


@pytest.mark.parametrize(
    ("dynamics", "parameters", "reason"),
    [
        (
            {"time_ps": 2.0, "max_framework_displacement": 1.5},
            {"spring": 0.0},
            "framework melted: Cl moved by",
        ),
        ({"max_temperature_ratio": 0.5}, {}, r"unstable: \d+ K after \d+ steps at 800 K"),
        ({"max_total_energy_drift": 1e-9}, {}, "unstable dynamics: the total energy drifts"),
    ],
)
def test_a_crystal_that_does_not_stand_it_fails_with_the_reason(
    tmp_path: Path, dynamics: Mapping[str, float], parameters: Mapping[str, float], reason: str
) -> None:
    found = answer(make(tmp_path, dynamics={**SHORT, **dynamics}, engine=engine_section(**parameters)))
    assert found.reason is not None
    assert re.match(reason, found.reason)
    assert found.metadata["attempts"] == 1
    assert found.metadata["n_atoms"] == 39
    assert found.cost is not None
    assert found.cost > 0.0


def test_a_job_given_up_for_lost_ends_where_a_later_attempt_has_begun(tmp_path: Path) -> None:
    oracle = make(tmp_path)
    answer(oracle)
    folder = tmp_path / "jobs" / KEY
    for path in folder.iterdir():
        if path.suffix != ".py" and path.name != "job.json":
            path.unlink()
    (folder / "claim-2").write_text("another")
    environment = {**engine_section()["environment"], "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "runner.py", "1"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == runner.DUPLICATE, ended.stderr
    assert "a later attempt has taken over" in ended.stdout
    assert not {"checkpoint.npz", "positions.f32", "result.json"} & {path.name for path in folder.iterdir()}


def test_a_lost_trajectory_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    oracle = make(tmp_path)
    answer(oracle)
    with open(tmp_path / "jobs" / KEY / "positions.f32", "r+b") as file:
        file.truncate(1000)
    found = oracle.poll([KEY])[KEY]
    assert isinstance(found, Measurement)
    assert str(found.reason).startswith("its trajectory can't be read: ")
    (tmp_path / "jobs" / KEY / "checkpoint.npz").unlink()
    found = oracle.poll([KEY])[KEY]
    assert isinstance(found, Measurement)
    assert "holds no trajectory" in str(found.reason)


def test_the_cell_is_wide_enough(tmp_path: Path) -> None:
    """LiCl with a = 5.13 Å: twice in each direction for 10 Å, as the conventional cell of `mace_md`."""
    oracle = make(tmp_path, dynamics={**SHORT, "min_cell_edge": 10.0}, engine=engine_section(seconds=60.0))
    oracle.submit(SALT, KEY)
    oracle.cancel([KEY])
    job = json.loads((tmp_path / "jobs" / KEY / "job.json").read_text())
    assert job["dynamics"]["info"]["supercell"] == [2, 2, 2]
    assert job["dynamics"]["info"]["volume"] == pytest.approx(8 * 5.13**3)
    assert len(job["atoms"]["numbers"]) == job["dynamics"]["info"]["n_atoms"] == 64
    with pytest.raises(OracleError, match=r"supercell 3x3x3 has 216 atoms, above max_atoms = 100"):
        make(tmp_path, dynamics={**SHORT, "min_cell_edge": 12.0}).submit(SALT, "34" * 32)
    assert not oracle.find("34" * 32)


def test_a_campaign_stores_the_bound_and_pays_the_core_hours(tmp_path: Path) -> None:
    """Li and Cl as in caesium chloride, nine by nine by nine ångström, in wells too deep to leave."""
    (tmp_path / "pool.csv").write_text(
        "space_group,composition,a,b,c,alpha,beta,gamma,wyckoff\n"
        """221,"{""Li"": 1, ""Cl"": 1}",3,3,3,90,90,90,"{""Li"": [""a""], ""Cl"": [""b""]}"\n"""
    )
    params = {
        "task": "molecular_dynamics",
        "engine": engine_section(barrier=3.0),
        "dynamics": {**SHORT, "min_cell_edge": 9.0},
    }
    config = parse_config(
        {
            "name": "search",
            "space": {"type": "pool", "file": "pool.csv"},
            "objective": {"property": PROP, "unit": "log10(S/cm)", "direction": "maximize"},
            "fidelities": [
                {"name": "aimd", "oracle": "dft_queue", "cost": 1.0, "charge": "measured", "params": params}
            ],
            "acquisition": {"type": "random"},
            "initial_design": {"per_fidelity": {"aimd": 1}},
            "budget": {"total": 1.0},
        }
    )
    store, end = f"sqlite:///{tmp_path / 'store.db'}", time.monotonic() + 120
    decision = None
    while decision is None or decision.action != "finished":
        assert time.monotonic() < end, decision
        with Campaign.open(config, folder=tmp_path, store=store) as engine:
            decision = run(engine)
        time.sleep(0.3)
    database = open_database(store)
    repository = Repository(database, "search")
    ((row,), ((_, _, value),)) = repository.evaluations(), repository.answers()
    database.close()
    assert row.state == "succeeded"
    bound = -math.log(0.05) * 9.0 / (6 * 27 * 0.4)
    assert value.value == pytest.approx(math.log10(nernst_einstein(bound, 27, 27 * 27.0, 800.0)))
    assert value.censoring is Censoring.UPPER
    assert row.cost_paid == pytest.approx(row.details["core_hours"])


def test_moments_are_with_the_atoms_of_every_step_and_of_every_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oracles.dynamics import motion

    seen = []

    class Watched(Lattice):
        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = ()) -> None:
            super().calculate(atoms, properties, system_changes)
            seen.append(atoms.get_initial_magnetic_moments().tolist())

    monkeypatch.setitem(sys.modules, runner.MOTION, motion)
    atoms = conductor()
    atoms.set_initial_magnetic_moments(np.linspace(-1.0, 1.0, len(atoms)))
    job = {"key": KEY, "dynamics": Simulation(**SHORT).job({}, 1)}
    for attempt, until in ((1, 3), (2, 5)):
        job["dynamics"]["until"] = until
        found = runner.simulate(atoms, Watched(), job, tmp_path, attempt, True)
        assert found == {"steps": until}
        assert json.loads((tmp_path / "restart.json").read_text()) == {"attempt": attempt, "steps": until}
    assert seen == [atoms.get_initial_magnetic_moments().tolist()] * (4 + 3)


@pytest.mark.parametrize(
    ("composition", "message"),
    [
        ({"Na": 4, "Cl": 4}, "holds no Li: nothing to conduct"),
        ({"Li": 4}, "holds nothing but Li: no framework to conduct through"),
    ],
)
def test_a_crystal_without_an_ion_or_a_framework_is_refused(
    tmp_path: Path, composition: dict[str, int], message: str
) -> None:
    sites = {symbol: (letter,) for symbol, letter in zip(composition, "ab", strict=False)}
    candidate = CrystalCandidate(225, composition, (5.6, 5.6, 5.6, 90, 90, 90), wyckoff=sites)
    with pytest.raises(OracleError, match=message):
        make(tmp_path).submit(candidate, KEY)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"dynamics": {"tempreature": 700}},
            "unknown key 'dynamics.tempreature'; did you mean 'temperature'",
        ),
        ({"dynamics": {"temperature": "hot"}}, "'dynamics.temperature' is 'hot'"),
        ({"dynamics": {"temperature": 0.0}}, "dynamics.temperature must be above zero, not 0"),
        ({"dynamics": {"time_ps": math.inf}}, "dynamics.time_ps must be above zero, not inf"),
        ({"dynamics": {"time_ps": 0.05}}, "dynamics.time_ps 0.05 holds 5 samples"),
        ({"dynamics": {"timestep_fs": -1.0}}, "dynamics.timestep_fs must be above zero"),
        (
            {"dynamics": {"timestep_fs": 1.5}},
            r"interval_fs is 10, which is no multiple of dynamics.timestep_fs \(1.5\); take 10.5",
        ),
        ({"dynamics": {"interval_fs": 1.0}}, "interval_fs is 1, which is no multiple .* take 2"),
        ({"dynamics": {"interval_fs": math.nan}}, "interval_fs is nan, which is no multiple"),
        ({"dynamics": {"mobile_ion": "Mg"}}, "'dynamics.mobile_ion' is 'Mg'"),
        ({"dynamics": {"checkpoint_every": 0}}, "dynamics.checkpoint_every must be at least 1"),
        ({"dynamics": {"fit_start": 9.0}}, "dynamics: hop_distance, .* fit_stop above fit_start"),
        ({"relax": "cell"}, "relax is cell, but task molecular_dynamics relaxes nothing; .* prerelax_steps"),
        ({"references": {"Li": -1.9}}, "references is stated, but task molecular_dynamics measures no"),
        ({"task": "energy"}, "dynamics is stated, but task energy has none; .*'task: molecular_dynamics'"),
    ],
)
def test_wrong_parameters_are_named(tmp_path: Path, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(tmp_path, **params)


class OldEngine(ASEEngine):
    """Of a time before there was anything but energies."""

    def calculator(self, atoms: Atoms, *, for_stress: bool = False) -> Mapping[str, Any]:  # type: ignore[override]
        return super().calculator(atoms, for_stress=for_stress)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (
            {"unit": "eV/atom"},
            r"'aimd' .* answers in log10\(S/cm\), but the unit of .* is given as 'eV/atom'",
        ),
        (
            {"prop": "log10_conductivity_300K"},
            "names 300 K, but its params simulate 800 K; make the two agree",
        ),
        (
            {"prop": "formation_energy"},
            "does not say at which temperature.*'property: log10_conductivity_800K'",
        ),
        (
            {"engine": {"type": f"{HERE / 'test_dynamics.py'}:OldEngine", "calculator": "a:B"}},
            r"engine.type is OldEngine, whose calculator\(\) takes no 'for_dynamics'",
        ),
    ],
)
def test_a_property_that_it_does_not_measure_is_refused(
    tmp_path: Path, context: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(tmp_path, **context).check()


def test_content_is_what_changes_results_and_nothing_else(tmp_path: Path) -> None:
    base = make(tmp_path).content()
    json.dumps(base)
    assert make(tmp_path, dynamics={**SHORT, "checkpoint_every": 50}).content() == base
    assert make(tmp_path, max_attempts=9).content() == base
    stated = {name: p.default for name, p in inspect.signature(Simulation).parameters.items()}
    assert make(tmp_path, dynamics={}).content() == make(tmp_path, dynamics=stated).content()
    numbers = {name: value for name, value in stated.items() if type(value) in (int, float)}
    changed = [{"mobile_ion": "Na"}, {"collective": True}, {"interval_fs": 4.0}, {"fit_end": 0.4}]
    changed += [
        {name: 1.5 * value}
        for name, value in numbers.items()
        if name not in ("interval_fs", "fit_end", "timestep_fs")
    ]
    changed += [{"timestep_fs": 1.0, "interval_fs": 10.0}]
    changed = [change for change in changed if "checkpoint_every" not in change]
    contents = [make(tmp_path, dynamics=change).content() for change in ({}, *changed)]
    assert len({json.dumps(content, sort_keys=True) for content in contents}) == len(changed) + 1
    # Those of energies are as before there was such a task.
    energy = DFTQueueOracle(task="energy", engine=engine_section()).content()
    assert set(base) - set(energy) == {"dynamics"}


def test_defaults_are_those_of_mace_md_but_for_the_length() -> None:
    ours = inspect.signature(Simulation).parameters
    theirs = inspect.signature(MaceMDOracle).parameters
    own = {"interval_fs", "time_ps", "equilibration_ps", "checkpoint_every"}
    assert own <= set(ours)
    for name in set(ours) - own:
        assert ours[name].default == theirs[name].default, name
    assert ours["interval_fs"].default == theirs["sample_every"].default * theirs["timestep_fs"].default
    assert replace(Simulation().conditions, time_ps=50.0).frame_ps == 0.01


class Smeared(Calculator):
    """A calculator whose forces belong to a free energy."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = ()) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": -1.0, "free_energy": -1.25, "forces": np.zeros((len(atoms), 3))}


def test_the_energy_of_dynamics_is_the_one_whose_gradient_the_forces_are() -> None:
    atoms = Atoms("Li")
    atoms.calc = Smeared()
    assert runner.energy_and_forces(atoms)[0] == -1.25
    atoms.calc.results = {}
    atoms.calc.implemented_properties = ["energy", "forces"]
    assert runner.energy_and_forces(atoms)[0] == -1.0
