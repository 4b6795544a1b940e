"""The integrator and its thermostat on Lennard-Jones argon, and runs that are killed and taken up again."""

import json
import os
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.lj import LennardJones
from scipy.stats import chisquare, gamma, kstest, maxwell

from activelearning.errors import ConfigError
from oracles.dynamics.integrity import trend
from oracles.dynamics.motion import (
    Run,
    RunFolder,
    SamplesLostError,
    SimulationError,
    degrees_of_freedom,
    kinetic_energy,
    rescaling,
)
from oracles.dynamics.supercell import supercell_repeats
from oracles.mace_md.dynamics import advance
from oracles.mace_md.protocol import Protocol

PROTOCOL = Protocol(
    temperature=60.0,
    time_ps=0.5,
    max_time_ps=0.5,
    timestep_fs=5.0,
    equilibration_ps=0.1,
    thermostat_time_fs=100.0,
    min_cell_edge=0.0,
    max_atoms=500,
    n_realisations=1,
    n_relaxed=1,
    min_distance_ratio=0.6,
    relax_steps=50,
    relax_fmax=0.01,
    relax_cell=True,
    keep_symmetry=False,
    sample_every=5,
    max_framework_displacement=5.0,
    max_broken_bonds=0.25,
    max_energy_change=0.05,
    max_total_energy_drift=0.01,
    max_temperature_ratio=5.0,
)


def argon(n=2):
    return bulk("Ar", "fcc", a=5.3, cubic=True) * (n, n, n)


class Argon(Calculator):
    """Lennard-Jones by the positions alone; ASE's keeps a neighbour list, and with it a memory of earlier positions."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, calls=10**9):
        super().__init__()
        self.calls = calls

    def calculate(self, atoms=None, properties=None, system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        inner = LennardJones(sigma=3.4, epsilon=0.0104, rc=7.0, smooth=True)
        inner.calculate(atoms, ["energy", "forces", "stress"], ["positions", "numbers", "cell", "pbc"])
        self.results = inner.results


class Network(Calculator):
    """Atoms tied to one another by anharmonic springs: total momentum is conserved, and energy goes round."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, sites):
        super().__init__()
        self.apart = sites[:, None] - sites[None]
        springs = np.random.default_rng(0).uniform(0.05, 0.2, (len(sites), len(sites)))
        self.springs = springs + springs.T

    def calculate(self, atoms=None, properties=None, system_changes=()):
        super().calculate(atoms, properties, system_changes)
        stretch = self.atoms.positions[:, None] - self.atoms.positions[None] - self.apart
        square = (stretch**2).sum(axis=-1)
        energy = 0.5 * (0.5 * self.springs * square + 1.25 * square**2).sum()
        pull = (self.springs + 5.0 * square)[..., None] * stretch
        self.results = {"energy": energy, "forces": -pull.sum(axis=1)}


def lennard_jones():
    return Argon()


def begin(temperature=60.0, seed=0, n=2):
    return Run.begin(argon(n), temperature, seed, {"formula": "Ar"})


def complete(run, calculator, protocol, **options):
    """Carry a run to the end of its protocol."""
    advance(run, calculator, protocol, until=protocol.n_steps(protocol.n_frames), **options)


def assert_same(a, b):
    assert (a.step, a.n_samples, a.heat) == (b.step, b.n_samples, b.heat)
    assert np.array_equal(a.positions, b.positions)
    assert np.array_equal(a.momenta, b.momenta)
    assert a.rng.bit_generator.state == b.rng.bit_generator.state


def assert_holds(folder, run, whole):
    """The folder holds the samples of a run that was never written to disk."""
    assert np.array_equal(folder.frames(run), [s.positions for s in whole.pending])
    assert np.array_equal(folder.observables(run), [s[1:] for s in whole.pending])


def test_momenta_begin_at_the_temperature_with_the_centre_of_mass_at_rest():
    run = begin(300.0)
    masses = run.atoms.get_masses()
    np.testing.assert_allclose(run.momenta.sum(axis=0), 0.0, atol=1e-12)
    expected = 0.5 * degrees_of_freedom(len(run.atoms)) * units.kB * 300.0
    assert kinetic_energy(run.momenta, masses) == pytest.approx(expected)


def test_energy_is_conserved_without_a_thermostat():
    protocol = replace(
        PROTOCOL, thermostat_time_fs=1e12, timestep_fs=2.0, time_ps=1.0, max_time_ps=1.0, equilibration_ps=0.0
    )
    run = begin()
    calculator = lennard_jones()
    masses = run.atoms.get_masses()
    totals = []

    def watch(state):
        atoms = state.atoms.copy()
        atoms.positions = state.positions
        atoms.calc = lennard_jones()
        totals.append(atoms.get_potential_energy() + kinetic_energy(state.momenta, masses))

    complete(run, calculator, protocol, checkpoint=watch, checkpoint_every=50)
    assert len(totals) == 10
    assert np.ptp(totals) / len(masses) < 1e-4  # eV per atom; kinetic energy is 8e-3


def test_the_thermostats_stationary_distribution_is_canonical():
    """Kinetic energies under the thermostat alone follow the gamma distribution of n_dof degrees of freedom."""
    rng = np.random.default_rng(0)
    n_dof, target = 21, 0.5 * 21 * units.kB * 500.0
    kinetic, seen = target, []
    for step in range(60_000):
        kinetic *= rescaling(kinetic, target, n_dof, 0.5, rng) ** 2
        if step % 20 == 0:
            seen.append(kinetic / (target / n_dof * 2.0))
    assert kstest(seen, "gamma", args=(n_dof / 2.0,)).pvalue > 0.01


def test_the_thermostat_brings_a_crystal_to_its_temperature():
    protocol = replace(PROTOCOL, time_ps=6.0, max_time_ps=6.0, equilibration_ps=2.0, timestep_fs=10.0)
    run = begin(seed=1)
    speeds = []
    complete(
        run,
        lennard_jones(),
        protocol,
        checkpoint=lambda r: speeds.append(np.linalg.norm(r.momenta / r.atoms.get_masses()[:, None], axis=1)),
        checkpoint_every=40,
    )
    assert np.mean([s.temperature for s in run.pending]) == pytest.approx(60.0, rel=0.05)
    np.testing.assert_allclose(run.momenta.sum(axis=0), 0.0, atol=1e-9)
    scale = np.sqrt(units.kB * 60.0 / run.atoms.get_masses()[0] * (1.0 - 1.0 / len(run.atoms)))
    assert kstest(np.concatenate(speeds[5:]), maxwell(scale=scale).cdf).pvalue > 1e-3


def test_kinetic_energies_of_a_crystal_are_canonical():
    """Mean, variance and shape (chi-square in ten classes of equal probability) of the gamma distribution."""
    protocol = replace(
        PROTOCOL,
        time_ps=120.0,
        max_time_ps=120.0,
        equilibration_ps=5.0,
        timestep_fs=10.0,
        thermostat_time_fs=100.0,
        sample_every=30,
    )
    run = Run.begin(argon(1), 60.0, 3, {})
    complete(run, Network(argon(1).positions), protocol)
    n_dof = degrees_of_freedom(4)
    kinetic = np.array([s.temperature for s in run.pending[1:]]) * n_dof / 2.0 / 60.0  # in k_B T
    n = len(kinetic)
    assert n == 400
    # Samples 0.3 ps apart, three times the thermostat's time, are nearly independent; hence three standard errors.
    assert kinetic.mean() == pytest.approx(n_dof / 2.0, abs=3.0 * np.sqrt(n_dof / 2.0 / n))
    assert kinetic.var() == pytest.approx(n_dof / 2.0, rel=3.0 * np.sqrt((2.0 + 6.0 / (n_dof / 2.0)) / n))
    edges = gamma(n_dof / 2.0).ppf(np.linspace(0.0, 1.0, 11))
    assert chisquare(np.histogram(kinetic, edges)[0]).pvalue > 1e-3


def test_the_heat_of_the_thermostat_balances_the_total_energy():
    """Potential and kinetic energy less the heat put in do not drift, at whatever temperature the run is held."""
    run = begin(30.0)  # starts well below the thermostat's 60 K
    complete(
        run,
        lennard_jones(),
        replace(PROTOCOL, time_ps=4.0, max_time_ps=4.0, timestep_fs=4.0, equilibration_ps=0.0),
    )
    totals = np.array([s.total for s in run.pending]) / len(run.atoms)
    potentials = np.array([s.potential for s in run.pending]) / len(run.atoms)
    assert abs(run.heat) / len(run.atoms) > 2e-3
    assert abs(trend(np.linspace(0.0, 4.0, len(totals)), totals)) < 1e-5  # eV/atom/ps
    assert np.ptp(totals) < 0.1 * np.ptp(potentials)


def test_no_step_is_run_twice_but_those_since_the_last_checkpoint(tmp_path):
    every, n_steps = 17, PROTOCOL.n_steps(PROTOCOL.n_frames)
    folder = RunFolder(tmp_path, "print")
    run, first = begin(), Argon(100)
    folder.save(run)
    with pytest.raises(KeyboardInterrupt):
        complete(run, first, PROTOCOL, checkpoint=folder.save, checkpoint_every=every)
    second = Argon(10**6)
    complete(folder.load(), second, PROTOCOL, checkpoint=folder.save, checkpoint_every=every)
    calls = 100 + (10**6 - second.calls)
    assert calls <= n_steps + every + 2  # each start asks for the forces there


def test_samples_leave_memory_for_the_disk(tmp_path):
    folder = RunFolder(tmp_path, "print")
    held = []

    def save(run):
        folder.save(run)
        held.append(len(run.pending))

    run = begin()
    complete(run, lennard_jones(), PROTOCOL, checkpoint=save, checkpoint_every=20)
    assert held == [0] * 6
    assert isinstance(folder.frames(run), np.memmap)
    assert folder.frames(run).shape == (21, 32, 3)


def test_a_run_that_grows_is_the_run_of_that_length(tmp_path):
    """Stopping to look and going on changes nothing."""
    whole, grown = begin(), begin()
    complete(whole, lennard_jones(), PROTOCOL)
    for until in (60, 61, 90, 120):
        advance(grown, lennard_jones(), PROTOCOL, until=until)
    assert_same(grown, whole)


def test_blocks_grow_by_half_up_to_the_most():
    assert replace(PROTOCOL, max_time_ps=1.3).lengths == (20, 30, 45, 52)
    assert PROTOCOL.lengths == (20,)
    with pytest.raises(ConfigError, match=r"max_time_ps \(0.2\) is below time_ps \(0.5\)"):
        replace(PROTOCOL, max_time_ps=0.2)


def test_samples_are_counted_from_the_end_of_equilibration():
    run = begin()
    complete(run, lennard_jones(), PROTOCOL)
    assert run.step == PROTOCOL.n_steps(PROTOCOL.n_frames) == 20 + 100
    assert run.n_samples == len(run.pending) == PROTOCOL.n_frames + 1 == 21
    assert np.array_equal(run.pending[-1].positions, run.positions.astype(np.float32))


@pytest.mark.parametrize("calls", [1, 5, 17, 18, 60, 119])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, calls):
    whole = begin()
    complete(whole, lennard_jones(), PROTOCOL)

    folder = RunFolder(tmp_path / "run", "print")
    first = begin()
    folder.save(first)
    with pytest.raises(KeyboardInterrupt):
        complete(first, Argon(calls), PROTOCOL, checkpoint=folder.save, checkpoint_every=17)
    resumed = RunFolder(tmp_path / "run", "print").load()
    assert resumed.step == (calls - 1) // 17 * 17  # one call is that of the start
    assert resumed.info == {"formula": "Ar"}
    complete(resumed, lennard_jones(), PROTOCOL, checkpoint=folder.save, checkpoint_every=17)
    assert_same(resumed, whole)
    assert_holds(folder, resumed, whole)


def test_samples_written_without_their_state_are_cut_off(tmp_path):
    """A process killed between writing samples and replacing the state leaves samples that no state counts."""
    folder = RunFolder(tmp_path, "print")
    whole = begin()
    complete(whole, lennard_jones(), PROTOCOL)
    run = begin()
    advance(run, lennard_jones(), PROTOCOL, until=70, checkpoint=folder.save, checkpoint_every=35)
    with open(tmp_path / "positions.f32", "ab") as file:
        file.write(b"\x01" * 4001)
    resumed = folder.load()
    complete(resumed, lennard_jones(), PROTOCOL, checkpoint=folder.save, checkpoint_every=10)
    assert_same(resumed, whole)
    assert_same(folder.load(), whole)
    assert_holds(folder, resumed, whole)


@pytest.mark.parametrize(("name", "size"), [("positions.f32", 4000), ("observables.f64", 0), (None, 0)])
def test_a_run_whose_samples_are_missing_is_begun_anew(tmp_path, caplog, name, size):
    folder = RunFolder(tmp_path, "print")
    run = begin()
    advance(run, lennard_jones(), PROTOCOL, until=70, checkpoint=folder.save, checkpoint_every=35)
    assert folder.load().n_samples == 11
    if name is None:
        (tmp_path / "positions.f32").unlink()
    else:
        with open(tmp_path / name, "r+b") as file:
            file.truncate(size)
    with caplog.at_level("WARNING", logger="oracles.dynamics.motion"):
        assert folder.load() is None
    assert "counts 11 samples, and the files beside it hold fewer" in caplog.text
    whole, again = begin(), begin()
    complete(whole, lennard_jones(), PROTOCOL)
    folder.save(again)
    complete(again, lennard_jones(), PROTOCOL, checkpoint=folder.save, checkpoint_every=35)
    assert_holds(folder, again, whole)


def test_samples_that_another_process_takes_away_are_not_read_as_zeros(tmp_path):
    """One that lost its claim finishes all the same, and clears the folder of the one that took the run over."""
    folder = RunFolder(tmp_path, "print")
    run = begin()
    advance(run, lennard_jones(), PROTOCOL, until=70, checkpoint=folder.save, checkpoint_every=35)
    RunFolder(tmp_path, "print").clear()
    with pytest.raises(SamplesLostError, match="holds fewer than the"):
        advance(run, lennard_jones(), PROTOCOL, until=105, checkpoint=folder.save, checkpoint_every=35)
    assert folder.load() is None


def test_a_state_that_another_process_takes_away_while_it_is_written(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path, "print")
    sync = os.fsync

    def too_late(descriptor):
        sync(descriptor)
        for partial in tmp_path.glob("*.partial"):
            partial.unlink()

    monkeypatch.setattr(os, "fsync", too_late)
    with pytest.raises(SamplesLostError):
        folder.save(begin())


def test_the_name_of_a_new_state_is_seen_on_disk(tmp_path, monkeypatch):
    """The folder is synchronised, after the file has its name."""
    seen = []
    fsync = os.fsync

    def watched(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            seen.append(sorted(path.name for path in tmp_path.iterdir()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    RunFolder(tmp_path, "print").save(begin())
    assert seen == [["checkpoint.npz", "observables.f64", "positions.f32"]]


def test_a_checkpoint_of_other_parameters_is_not_taken_up(tmp_path):
    RunFolder(tmp_path, "these").save(begin())
    assert RunFolder(tmp_path, "others").load() is None
    assert not list(tmp_path.iterdir())


def test_a_half_written_state_is_ignored(tmp_path):
    folder = RunFolder(tmp_path, "print")
    folder.save(begin())
    (tmp_path / "checkpoint.npz.0123.partial").write_bytes(b"torn")
    assert folder.load().step == 0
    folder.clear()
    assert not list(tmp_path.iterdir())


def test_state_is_plain(tmp_path):
    RunFolder(tmp_path, "print").save(begin())
    with np.load(tmp_path / "checkpoint.npz", allow_pickle=False) as content:
        assert json.loads(str(content["plain"]))["step"] == 0


def test_exploding_dynamics_are_named():
    with pytest.raises(SimulationError, match=r"unstable: \d+ K after \d+ steps at 60 K"):
        complete(
            begin(), lennard_jones(), replace(PROTOCOL, timestep_fs=150.0, time_ps=30.0, max_time_ps=30.0)
        )


class Hostile(Calculator):
    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, outcome):
        super().__init__()
        self.outcome = outcome

    def calculate(self, atoms=None, properties=None, system_changes=()):
        super().calculate(atoms, properties, system_changes)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        self.results = {"energy": 0.0, "forces": np.full((len(atoms), 3), self.outcome)}


def test_a_failing_potential_is_named():
    with pytest.raises(SimulationError, match="the potential fails: no edges"):
        complete(begin(), Hostile(RuntimeError("no edges")), PROTOCOL)
    with pytest.raises(SimulationError, match="not finite"):
        complete(begin(), Hostile(float("nan")), PROTOCOL)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError("no memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_trouble_of_the_machine_is_not_the_crystals(error):
    with pytest.raises(type(error)) as raised:
        complete(begin(), Hostile(error), PROTOCOL)
    assert raised.value is error


def test_supercells_have_their_least_edge_between_faces():
    atoms = bulk("Ar", "fcc", a=5.3)  # rhombohedral: faces are nearer than edges are long
    repeats = supercell_repeats(atoms, 10.0)
    heights = 1.0 / np.linalg.norm(atoms.repeat(repeats).cell.reciprocal(), axis=1)
    assert (heights >= 10.0).all()
    assert repeats == (4, 4, 4)  # 5.3 / √3 = 3.06 Å apart
    assert supercell_repeats(argon(1), 5.3) == (1, 1, 1)


def test_protocol_refuses_what_cannot_be():
    with pytest.raises(ConfigError, match="temperature must be above zero"):
        replace(PROTOCOL, temperature=0.0)
    with pytest.raises(ConfigError, match="n_realisations must be at least 1"):
        replace(PROTOCOL, n_realisations=0)
    with pytest.raises(ConfigError, match="needs at least 10"):
        replace(PROTOCOL, time_ps=0.1, max_time_ps=0.1)
