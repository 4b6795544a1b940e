"""The oracle with the shipped student: answers, bounds, reasons, determinism and kills."""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import read
from md_cases import crystal, oracle, rocksalt

from activelearning.candidate import BoxCandidate, CrystalCandidate
from activelearning.crystals.relaxation import relax
from activelearning.errors import ConfigError
from activelearning.measurement import Censoring
from oracles.dynamics.analysis import nernst_einstein
from oracles.dynamics.integrity import trend
from oracles.dynamics.motion import Run
from oracles.mace_md import MaceMDOracle
from oracles.mace_md.dynamics import advance
from oracles.potentials import load_calculator
from oracles.potentials.student.structures import argyrodite


def test_a_short_run_of_salt_gives_the_bound_of_no_hops(tmp_path):
    tested = oracle(tmp_path)
    tested.check()
    (measurement,) = tested.evaluate([rocksalt()])
    value = measurement.values["log10_conductivity_700K"]
    assert value.censoring is Censoring.UPPER
    assert value.unit == "log10(S/cm)"
    assert value.std is None
    # No hop in 0.1 ps of 4 Li: D < 3 a² / (6 N t).
    metadata = measurement.metadata
    bound = -math.log(0.05) * 9.0 / (6 * 4 * 0.1)
    assert metadata["diffusion_cm2_per_s"] == pytest.approx(bound * 1e-4)
    assert value.value == pytest.approx(math.log10(nernst_einstein(bound, 4, metadata["volume"], 700.0)))
    assert (metadata["n_atoms"], metadata["n_mobile"], metadata["steps"]) == (8, 4, 70)
    assert 0 < metadata["mean_temperature"] < 2000
    assert measurement.seconds > 0


def test_artifacts_hold_the_relaxed_crystal_curves_and_last_atoms_and_no_checkpoint_is_left(tmp_path):
    tested = oracle(tmp_path)
    candidate = rocksalt()
    tested.expect({candidate.key: "abc123" + "0" * 58})
    (measurement,) = tested.evaluate([candidate])
    relaxed, curves, last = measurement.artifacts
    with np.load(curves) as content:
        assert len(content["lag_ps"]) == len(content["mobile"]) == 11
        assert content["lag_ps"][-1] == pytest.approx(0.1)
        assert content["mobile"][0] == 0.0
        assert content["mobile"][5] > 0.0
    assert len(read(last)) == 8
    assert read(relaxed).get_volume() == pytest.approx(measurement.metadata["volume"], rel=1e-6)
    assert read(relaxed).symbols.count("Li") == 4
    folder = tmp_path / "md" / ("abc123" + "0" * 58)
    assert sorted(path.name for path in folder.iterdir()) == ["700K", "relaxed.cif"]
    assert sorted(path.name for path in (folder / "700K").iterdir()) == ["final.extxyz", "msd.npz"]


def plain(measurement):
    """All of a measurement but what depends on where and how fast it was made."""
    (value,) = measurement.values.values()
    return (value, dict(measurement.metadata), [open(path, "rb").read() for path in measurement.artifacts])


def test_the_same_evaluation_gives_the_same_answer_and_another_key_another(tmp_path):
    candidate = crystal(argyrodite(primitive=True))
    answers = []
    for name, key in (("a", "1" * 64), ("b", "1" * 64), ("c", "2" * 64)):
        tested = oracle(tmp_path / name)
        tested.expect({candidate.key: key})
        answers.append(plain(tested.evaluate_one(candidate)))
    assert answers[0] == answers[1]
    assert answers[0][2] != answers[2][2]


def test_a_sampled_crystal_without_atoms_is_realised_the_same_way_each_time(tmp_path):
    candidate = CrystalCandidate(14, {"Li": 4, "P": 4, "S": 12}, (7.4, 8.4, 9.4, 90, 110, 90))
    first = oracle(tmp_path / "a", n_realisations=3).evaluate_one(candidate)
    second = oracle(tmp_path / "b", n_realisations=3).evaluate_one(candidate)
    assert first.is_success
    assert first.metadata["n_realisations"] == 3
    assert plain(first) == plain(second)


class StoppedError(Exception):
    pass


def before_calls(calculator, act=lambda call: None):
    """Have something done before each call of the student, told which it is, from 1; returns a list of the calls."""
    compute, calls = calculator.evaluate, []

    def evaluate(structures):
        calls.append(1)
        act(len(calls))
        return compute(structures)

    calculator.evaluate = evaluate
    return calls


@pytest.mark.parametrize("calls", [5, 31, 55])
def test_an_interrupted_evaluation_goes_on_bit_for_bit(tmp_path, calls):
    candidate = crystal(argyrodite(primitive=True))
    whole = plain(oracle(tmp_path / "whole").evaluate_one(candidate))

    def dies(call):
        if call > calls:
            raise StoppedError

    dying = oracle(tmp_path / "killed")
    before_calls(dying._load(), dies)
    with pytest.raises(StoppedError):
        dying.evaluate_one(candidate)
    assert plain(oracle(tmp_path / "killed").evaluate_one(candidate)) == whole


def test_an_evaluation_whose_files_another_process_removes_is_begun_anew(tmp_path, caplog):
    candidate = crystal(argyrodite(primitive=True))
    whole = plain(oracle(tmp_path / "whole").evaluate_one(candidate))

    def removes(call):
        if call == 40:
            (state,) = (tmp_path / "robbed").rglob("checkpoint.npz")
            for path in state.parent.iterdir():
                path.unlink()

    robbed = oracle(tmp_path / "robbed")
    before_calls(robbed._load(), removes)
    with caplog.at_level("WARNING", logger="oracles.mace_md.simulation"):
        assert plain(robbed.evaluate_one(candidate)) == whole
    assert "begun anew" in caplog.text


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {helpers!r}]
import test_mace_md as here
tested = here.oracle(Path({folder!r}), **here.KILLED_PARAMS)
tested.evaluate_one(here.crystal(here.argyrodite(primitive=True)))
"""
KILLED_PARAMS = {"time_ps": 0.4, "temperatures": [700, 800], "checkpoint_every": 20}


def steps_in(state_file):
    with np.load(state_file) as content:
        return json.loads(str(content["plain"]))["step"]


def test_kill_9_and_again(tmp_path):
    """A process killed in mid-trajectory leaves a state from which another reaches the answer of one never killed."""
    candidate = crystal(argyrodite(primitive=True))
    whole = plain(oracle(tmp_path / "whole", **KILLED_PARAMS).evaluate_one(candidate))

    here = Path(__file__).parent
    script = KILLED.format(tests=str(here), helpers=str(here.parent), folder=str(tmp_path / "killed"))
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script])
    state_file = tmp_path / "killed" / "md" / candidate.key / "800K" / "checkpoint.npz"
    try:
        deadline = time.monotonic() + 200
        while not state_file.exists() or steps_in(state_file) < 40:
            assert process.poll() is None, "the process ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = steps_in(state_file)
    assert left < 220

    resumed = oracle(tmp_path / "killed", **KILLED_PARAMS)
    calls = before_calls(resumed._load())
    assert plain(resumed.evaluate_one(candidate)) == whole
    # The run at 700 K is done, the one at 800 K goes on: one call for where it stands, one for each step to its end.
    # And the student is asked about its own errors on the first sample of both.
    assert len(calls) == 1 + 220 - left + 2


def test_failures_have_reasons(tmp_path):
    def reason(candidate, **params):
        measurement = oracle(tmp_path, **params).evaluate_one(candidate)
        assert not measurement.is_success
        return measurement.reason

    lattice = (5.0, 5.0, 5.0, 90, 90, 90)
    assert "holds no Li" in reason(CrystalCandidate(221, {"P": 1, "Cl": 1}, lattice))
    assert "nothing but Li" in reason(CrystalCandidate(229, {"Li": 2}, lattice))
    assert "does not cover Fe, V" in reason(CrystalCandidate(1, {"Li": 1, "Fe": 1, "V": 1}, lattice))
    assert "has no realisation" in reason(CrystalCandidate(225, {"Li": 3, "S": 4}, lattice))
    assert "above max_atoms = 20" in reason(rocksalt(), min_cell_edge=10.0, max_atoms=20)
    assert "not a BoxCandidate" in reason(BoxCandidate((0.0,)))
    assert "framework melted: Cl moved by" in reason(rocksalt(), max_framework_displacement=0.01)
    assert "unstable" in reason(rocksalt(), max_temperature_ratio=0.5)


def test_a_failure_leaves_no_checkpoint_and_does_not_fail_its_batch(tmp_path):
    tested = oracle(tmp_path, max_framework_displacement=0.01)
    good = oracle(tmp_path)
    bad = CrystalCandidate(221, {"P": 1, "Cl": 1}, (5.0, 5.0, 5.0, 90, 90, 90))
    assert [m.is_success for m in good.evaluate([bad, rocksalt()])] == [False, True]
    tested.evaluate([rocksalt()])
    assert not list((tmp_path / "md").rglob("checkpoint*"))
    assert not list((tmp_path / "md").rglob("prepared*"))


def test_check_refuses_what_cannot_work(tmp_path):
    with pytest.raises(ConfigError, match=r"names 800 K, but its params simulate 700 K"):
        oracle(tmp_path, prop="log10_conductivity_800K").check()
    with pytest.raises(ConfigError, match=r"answers in log10\(S/cm\), but the unit of .* is given as 'S/m'"):
        oracle(tmp_path, unit="S/m").check()
    with pytest.raises(ConfigError, match="neither a file that exists"):
        oracle(tmp_path, potential="mace:gone.model").check()
    with pytest.raises(ConfigError, match=r"names no temperature .*; name it log10_conductivity_700K"):
        oracle(tmp_path, prop="log10_conductivity").check()
    oracle(tmp_path, prop="log10_conductivity", temperatures=[700, 800, 900]).check()
    with pytest.raises(ConfigError, match="names no temperature"):
        oracle(
            tmp_path, prop="log10_conductivity", temperatures=[700, 800, 900], target_temperature=400
        ).check()
    with pytest.raises(ConfigError, match=r"temperatures \[600, 900\] lack temperature \(700 K\)"):
        oracle(tmp_path, temperatures=[600, 900])
    with pytest.raises(ConfigError, match="must be above zero and differ"):
        oracle(tmp_path, temperatures=[700, 700])
    with pytest.raises(ConfigError, match="is a list of numbers, K, not 'hot'"):
        oracle(tmp_path, temperatures="hot")
    with pytest.raises(ConfigError, match="which max_time_ps has to allow"):
        oracle(tmp_path, target_relative_error=0.2)
    with pytest.raises(ConfigError, match="names 300 K, but its params simulate 700 K"):
        oracle(tmp_path, prop="log10_conductivity_300K", temperatures=[700, 800]).check()
    oracle(tmp_path, prop="log10_conductivity_300K", temperatures=[700, 800, 900]).check()
    with pytest.raises(ConfigError, match="reliability_every must be at least 1"):
        MaceMDOracle(reliability_every=0)
    with pytest.raises(ConfigError, match="fit_end at most 1"):
        MaceMDOracle(fit_end=1.5)
    with pytest.raises(ConfigError, match="checkpoint_every"):
        MaceMDOracle(checkpoint_every=0)


def test_content_holds_what_changes_results_and_no_more(tmp_path):
    base = MaceMDOracle().content()
    assert MaceMDOracle(temperature=800.0, timestep_fs=2.0).content() == base  # the defaults, written out
    assert MaceMDOracle(checkpoint_every=77).content() == base
    for change in ({"temperature": 900.0}, {"fit_end": 0.4}, {"potential": "chgnet"}, {"dtype": "float64"}):
        assert MaceMDOracle(**change).content() != base
    assert len(base["potential"]) == 64


def test_threads_are_put_back(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        oracle(tmp_path).evaluate([rocksalt()])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_the_student_conserves_energy():
    """Without a thermostat, at 600 K and 1 fs, the total energy drifts by less than 1 meV per atom and ps."""
    protocol = MaceMDOracle(
        temperature=600.0,
        time_ps=4.0,
        timestep_fs=1.0,
        equilibration_ps=0.0,
        thermostat_time_fs=1e12,
        sample_every=20,
    ).protocol
    calculator = load_calculator("mace:student")
    atoms = relax(argyrodite(primitive=True), calculator, max_steps=200, keep_symmetry=False).atoms
    # Half of it goes into the springs, which give some back as symmetry breaks.
    run = Run.begin(atoms, 850.0, 0, {})
    advance(run, calculator, protocol, until=4000)
    totals = np.array([sample.total for sample in run.pending]) / len(run.atoms)
    assert abs(trend(np.arange(len(totals)) * 0.02, totals)) < 1e-3
    assert 500 < np.mean([sample.temperature for sample in run.pending]) < 700


SALTS = {
    "LiF": bulk("LiF", "rocksalt", a=4.03, cubic=True),
    "Li2O": bulk("OLi2", "fluorite", a=4.62, cubic=True),
    "LiCl": bulk("LiCl", "rocksalt", a=5.13, cubic=True),
}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("salt", SALTS)
def test_salts_without_vacancies_do_not_conduct(tmp_path, salt):
    """Built by hand, at 600 K: a bound at that temperature, and nothing below it."""
    params = {
        "temperature": 600.0,
        "temperatures": [400, 500, 600],
        "time_ps": 3.0,
        "equilibration_ps": 0.5,
        "relax_steps": 50,
        "checkpoint_every": 500,
    }
    prop = "log10_conductivity_600K"
    measurement = oracle(tmp_path, prop, **params).evaluate_one(crystal(SALTS[salt]))
    assert measurement.reason is None
    assert set(measurement.values) == {prop}
    assert measurement.values[prop].censoring is Censoring.UPPER
    assert measurement.metadata["n_hops"] == 0
    assert measurement.metadata["framework_displacement"] < 1.0
    assert [p["reason"] is None for p in measurement.metadata["temperatures"]] == [True, False, False]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_argyrodite_conducts_and_salt_does_not(tmp_path):
    """Ordered Li6PS5Cl at 800 K against rock-salt LiCl: a value of the right size, and a bound well below it."""
    params = {
        "temperature": 800.0,
        "time_ps": 20.0,
        "equilibration_ps": 2.0,
        "relax_steps": 200,
        "min_cell_edge": 9.0,
        "checkpoint_every": 1000,
    }
    prop = "log10_conductivity_800K"
    conductor = oracle(tmp_path, prop, **params).evaluate_one(crystal(argyrodite()))
    insulator = oracle(tmp_path, prop, **params, keep_trajectory=True).evaluate_one(rocksalt(2))
    fast, slow = conductor.values[prop], insulator.values[prop]
    assert fast.censoring is Censoring.NONE
    assert -0.7 < fast.value < 0.7  # 3 mS/cm at 300 K carried up by 0.3 eV: 0.1 to 0.3
    assert fast.std < 0.3
    assert slow.censoring is Censoring.UPPER
    assert slow.value < fast.value - 1.0
    # No ion leaves its place. (LiCl melts at 880 K: one may be seen 1.5 Å away as it vibrates, which counts as a hop.)
    (trajectory,) = [path for path in insulator.artifacts if path.endswith("trajectory.npz")]
    with np.load(trajectory) as kept:
        positions = kept["positions"] - kept["positions"].mean(axis=1, keepdims=True)
    moved = np.linalg.norm(positions[-50:].mean(axis=0) - positions[:50].mean(axis=0), axis=1)
    assert moved.max() < 0.6
