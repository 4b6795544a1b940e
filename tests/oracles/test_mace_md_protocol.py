"""The whole protocol on a toy conductor: several temperatures, growth, limits, costs, what is said of the potential."""

import math
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import units
from ase.units import kB
from md_cases import crystal as of_atoms
from toy_conductor import CELLS, N_LI, Lattice, conductor

from activelearning.contracts import OracleContext
from activelearning.measurement import Censoring
from oracles.mace_md import MaceMDOracle
from oracles.mace_md.arrhenius import fit_arrhenius
from oracles.potentials import ForceErrors

PROP = "log10_conductivity_800K"
PARAMS = {
    "time_ps": 5.0,
    "equilibration_ps": 1.0,
    "timestep_fs": 4.0,
    "min_cell_edge": 0.0,
    "relax_steps": 0,
    "relax_cell": False,
    "min_msd_gain": 3.0,
    "min_hops": 5.0,
    "checkpoint_every": 250,
}


def crystal():
    return of_atoms(conductor())


def oracle(folder, calculator=None, prop=PROP, cost=1.0, **params):
    made = MaceMDOracle(**{**PARAMS, **params})
    made.bind(OracleContext("campaign", "md", prop, None, cost, "sqlite://", folder / "md"))
    made._calculator = calculator or Lattice()
    return made


def test_several_temperatures_give_the_value_at_one_and_at_300_k(tmp_path):
    tested = oracle(tmp_path, temperatures=[700, 800, 1000, 1200], collective=True)
    measurement = tested.evaluate_one(crystal())
    assert set(measurement.values) == {PROP, "log10_conductivity"}
    here, there = measurement.values[PROP], measurement.values["log10_conductivity"]
    assert here.censoring is there.censoring is Censoring.NONE
    assert there.value < here.value
    assert there.std > 2.0 * here.std
    line, points = measurement.metadata["arrhenius"], measurement.metadata["temperatures"]
    assert [p["temperature"] for p in points] == [800, 1000, 1200, 700]  # the answer's first, up, down
    assert line["temperatures"] == (700, 800, 1000, 1200)
    rows = sorted((p["temperature"], p["log10_sigma"], p["log10_sigma_error"]) for p in points)
    assert line == asdict(fit_arrhenius(*zip(*rows, strict=True), 300.0))
    # Short runs of 12 ions with barriers of 0.15 eV, which know it to a few tenths of that at best.
    assert abs(line["activation_energy"] - 0.15) < 2.0 * line["activation_error"]
    assert there.value == pytest.approx(line["log10_sigma"])
    assert all(p["haven_ratio"] > 0 and p["haven_relative_error"] > 0 for p in points)
    assert here.value == points[0]["log10_sigma"] == measurement.metadata["log10_sigma"]
    assert measurement.cost == pytest.approx(1.0)
    assert len(measurement.artifacts) == 9


def test_the_line_itself_can_be_the_answer(tmp_path):
    temperatures = {"temperatures": [800, 1000, 1200]}
    own = oracle(tmp_path / "a", prop="log10_conductivity", **temperatures).evaluate_one(crystal())
    beside = oracle(tmp_path / "b", **temperatures).evaluate_one(crystal())
    assert set(own.values) == {"log10_conductivity", PROP}
    assert own.values == beside.values
    named = oracle(tmp_path / "c", prop="log10_conductivity_300K", **temperatures)
    named.check()
    assert named.evaluate_one(crystal()).values["log10_conductivity_300K"] == own.values["log10_conductivity"]


def test_a_bound_is_never_carried_to_another_temperature(tmp_path):
    """High barriers: nothing moves at 800 K or above, and nothing is tried below."""
    stiff = Lattice(barrier=3.0)
    temperatures = {"temperatures": [600, 700, 800, 900], "time_ps": 2.0}
    measurement = oracle(tmp_path / "a", stiff, cost=8.0, **temperatures).evaluate_one(crystal())
    assert set(measurement.values) == {PROP}
    assert measurement.values[PROP].censoring is Censoring.UPPER
    points = {p["temperature"]: p for p in measurement.metadata["temperatures"]}
    assert points[900]["is_bound"]
    assert (
        points[600]["reason"] == points[700]["reason"] == "not simulated: at 800 K already, too little moves"
    )
    assert measurement.metadata["arrhenius"] is None
    assert "from 0 resolved temperatures" in measurement.metadata["arrhenius_refused"]
    assert measurement.cost == pytest.approx(4.0)  # two runs of four
    line = oracle(tmp_path / "b", stiff, prop="log10_conductivity", **temperatures).evaluate_one(crystal())
    assert not line.is_success
    assert "no conductivity at 300 K from 0 resolved temperatures" in line.reason
    assert "700 K: not simulated" in line.reason


@pytest.mark.parametrize(("log10_bound", "is_refused"), [(-1.5, True), (-0.5, False)])
def test_a_bound_below_the_line_refuses_it(tmp_path, log10_bound, is_refused):
    """By 0.3 eV from what is seen at 900 K and above, 700 K has -0.9."""
    tested = oracle(tmp_path, prop="log10_conductivity", temperatures=[700, 800, 900, 1000, 1200])

    def outcome(kelvin, log10_sigma, error):
        reading = SimpleNamespace(log10_sigma=log10_sigma, log10_error=error)
        return SimpleNamespace(
            temperature=kelvin, is_valid=True, is_resolved=error is not None, reading=reading
        )

    sigmas = {
        t: 4.1 - math.log10(t) - 0.3 / (kB * t * math.log(10.0)) for t in (800.0, 900.0, 1000.0, 1200.0)
    }
    outcomes = [outcome(t, sigma, 0.03) for t, sigma in sigmas.items()]
    line, refusal = tested._line([*outcomes, outcome(700.0, log10_bound, None)])
    assert (line is None) == is_refused
    assert ("no conductivity at 300 K: that at 700 K is below -1.50" in refusal) == is_refused
    if line is not None:
        assert line.activation_energy == pytest.approx(0.3)


def test_a_crystal_that_melts_is_not_heated_further(tmp_path):
    free = Lattice(spring=0.0)
    measurement = oracle(tmp_path / "a", free, temperatures=[600, 800, 1000]).evaluate_one(crystal())
    assert not measurement.is_success
    assert "framework melted" in measurement.reason
    assert measurement.reason.endswith("at 800 K")
    points = measurement.metadata["temperatures"]
    assert [p["temperature"] for p in points] == [800, 1000, 600]
    assert all("not simulated: at 800 K already" in p["reason"] for p in points[1:])
    assert measurement.cost == pytest.approx(1.0 / 3.0)


def test_a_run_grows_until_it_is_precise_enough_or_as_long_as_it_may(tmp_path):
    short = {"time_ps": 3.0}
    plain = oracle(tmp_path / "a", **short).evaluate_one(crystal())
    easy = oracle(tmp_path / "b", **short, max_time_ps=10.0, target_relative_error=10.0).evaluate_one(
        crystal()
    )
    hard = oracle(tmp_path / "c", **short, max_time_ps=10.0, target_relative_error=0.01).evaluate_one(
        crystal()
    )
    some = oracle(tmp_path / "d", **short, max_time_ps=10.0, target_relative_error=0.35).evaluate_one(
        crystal()
    )
    assert hard.metadata["time_ps"] == pytest.approx(10.0)
    assert hard.cost == pytest.approx(1.0)
    for measurement in (easy, some):
        error = measurement.metadata["diffusion_relative_error"]
        at_most = {id(easy): 10.0, id(some): 0.35}[id(measurement)]
        assert error <= at_most or measurement.metadata["time_ps"] == pytest.approx(10.0)
        assert measurement.cost == pytest.approx((measurement.metadata["time_ps"] + 1.0) / 11.0)
    assert easy.metadata["time_ps"] < 10.0
    assert easy.metadata["time_ps"] <= some.metadata["time_ps"] <= hard.metadata["time_ps"]
    # The same dynamics, seen for longer: growing is no other run than a long one.
    long = oracle(tmp_path / "e", time_ps=10.0).evaluate_one(crystal())
    assert long.values == hard.values
    assert plain.metadata["time_ps"] == pytest.approx(3.0)


def test_a_run_in_which_nothing_hops_does_not_grow(tmp_path):
    measurement = oracle(tmp_path, Lattice(barrier=3.0), time_ps=2.0, max_time_ps=10.0).evaluate_one(
        crystal()
    )
    assert measurement.values[PROP].censoring is Censoring.UPPER
    assert measurement.metadata["time_ps"] == pytest.approx(2.0)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("calls", [900, 1800, 2900])
def test_growth_and_temperatures_resume_bit_for_bit(tmp_path, calls):
    params = {"temperatures": [700, 800], "time_ps": 2.0, "max_time_ps": 5.0, "target_relative_error": 0.01}
    params |= {"min_hops": 1.0, "min_msd_gain": 0.5, "fit_start": 0.1}
    whole_calculator = Lattice()
    whole = oracle(tmp_path / "whole", whole_calculator, **params).evaluate_one(crystal())

    class Dying(Lattice):
        def calculate(self, *arguments, **named):
            if self.n_calls == calls:
                raise StoppedError
            super().calculate(*arguments, **named)

    with pytest.raises(StoppedError):
        oracle(tmp_path / "killed", Dying(), **params).evaluate_one(crystal())
    again = Lattice()
    resumed = oracle(tmp_path / "killed", again, **params).evaluate_one(crystal())
    assert resumed.values == whole.values
    assert resumed.metadata == whole.metadata
    assert resumed.cost == whole.cost
    contents = [[Path(path).read_bytes() for path in m.artifacts] for m in (whole, resumed)]
    assert contents[0] == contents[1]
    assert calls + again.n_calls <= whole_calculator.n_calls + PARAMS["checkpoint_every"] + 4


def test_runs_of_atoms_that_are_not_known_any_more_begin_anew(tmp_path):
    params = {"time_ps": 1.0, "checkpoint_every": 50}

    class Dying(Lattice):
        def calculate(self, *arguments, **named):
            if self.n_calls == 300:
                raise StoppedError
            super().calculate(*arguments, **named)

    whole = oracle(tmp_path / "whole", **params).evaluate_one(crystal())
    with pytest.raises(StoppedError):
        oracle(tmp_path / "killed", Dying(), **params).evaluate_one(crystal())
    (prepared,) = (tmp_path / "killed").rglob("prepared.npz")
    prepared.unlink()
    again = Lattice()
    found = oracle(tmp_path / "killed", again, **params).evaluate_one(crystal())
    assert (found.values, found.metadata) == (whole.values, whole.metadata)
    assert again.n_calls > 500


def test_a_run_that_ran_out_of_memory_goes_on_when_it_is_asked_again(tmp_path):
    class Full(Lattice):
        def calculate(self, *arguments, **named):
            if self.n_calls == 300:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            super().calculate(*arguments, **named)

    params = {"time_ps": 1.0, "checkpoint_every": 50}
    whole = oracle(tmp_path / "whole", **params).evaluate_one(crystal())
    with pytest.raises(torch.OutOfMemoryError):
        oracle(tmp_path / "full", Full(), **params).evaluate_one(crystal())
    again = Lattice()
    found = oracle(tmp_path / "full", again, **params).evaluate_one(crystal())
    assert (found.values, found.metadata) == (whole.values, whole.metadata)
    assert again.n_calls == 1 + 500 - 250


def test_the_trajectory_can_be_kept(tmp_path):
    measurement = oracle(tmp_path, time_ps=2.0, keep_trajectory=True).evaluate_one(crystal())
    path = next(p for p in measurement.artifacts if p.endswith("trajectory.npz"))
    with np.load(path) as content:
        assert content["positions"].shape == (101, N_LI + CELLS**3, 3)
        assert content["positions"].dtype == np.float32
        n_dof = 3 * (N_LI + CELLS**3) - 3
        kinetic = content["observables"][:, 2] * 0.5 * n_dof * units.kB
        assert np.ptp(content["observables"][:, 1]) < 0.2 * np.ptp(kinetic)  # the total energy stays


def test_a_potential_that_knows_its_errors_is_asked(tmp_path, monkeypatch):
    def said(threshold):
        asked = []

        def expected(calculator, atoms):
            asked.append(len(atoms))
            return ForceErrors(0.1 * len(asked), 0.2 * len(asked), threshold)

        monkeypatch.setattr("oracles.mace_md.reading.expected_force_errors", expected)
        tested = oracle(tmp_path / str(threshold), Lattice(), time_ps=1.0, reliability_every=20)
        found = tested.evaluate_one(crystal())
        assert asked == [N_LI + CELLS**3] * 3  # the 1st, 21st and 41st of 51 samples
        return found.metadata

    metadata = said(0.31)
    assert metadata["force_error_mean"] == pytest.approx(0.2)
    assert metadata["force_error_max"] == pytest.approx(0.6)
    assert metadata["reliable"] is True
    assert said(0.29)["reliable"] is False
    monkeypatch.undo()
    assert "reliable" not in oracle(tmp_path / "none", time_ps=1.0).evaluate_one(crystal()).metadata


def test_progress_is_told_now_and_then(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("oracles.mace_md.reading.PROGRESS_SECONDS", 0.0)
    with caplog.at_level("INFO", logger="oracles.mace_md.reading"):
        oracle(tmp_path, time_ps=1.0).evaluate_one(crystal())
    assert "Cl27Li12 at 800 K: step 5 of 500" in caplog.text
    assert "ns/day" in caplog.text
    caplog.clear()
    monkeypatch.setattr("oracles.mace_md.reading.PROGRESS_SECONDS", 1e9)
    oracle(tmp_path, time_ps=1.0).evaluate_one(crystal())
    assert "ns/day" not in caplog.text


def test_kinisi_stands_beside_our_estimate(tmp_path):
    pytest.importorskip("kinisi")
    tested = oracle(tmp_path, cross_check="kinisi")
    tested.check()
    metadata = tested.evaluate_one(crystal()).metadata
    together = math.hypot(metadata["kinisi_relative_error"], metadata["diffusion_relative_error"])
    ratio = metadata["kinisi_diffusion_cm2_per_s"] / metadata["diffusion_cm2_per_s"]
    assert abs(math.log(ratio)) < 2.5 * together
