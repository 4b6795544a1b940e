"""What a whole run says of made-up trajectories: each reason why it says nothing, beside a near miss that passes."""

from functools import cache

import numpy as np
import pytest
from ase.build import bulk
from scipy.spatial.transform import Rotation

from oracles.dynamics.conditions import Conditions
from oracles.dynamics.diffusion import FitSettings
from oracles.dynamics.groups import bonded_groups
from oracles.dynamics.motion import Run, RunFolder, Sample
from oracles.dynamics.reading import read
from oracles.potentials.student.structures import argyrodite, prototypes

N_FRAMES = 400
DEFAULTS = {
    "temperature": 800.0,
    "time_ps": 4.0,
    "timestep_fs": 2.0,
    "equilibration_ps": 1.0,
    "thermostat_time_fs": 100.0,
    "min_cell_edge": 0.0,
    "sample_every": 5,
    "max_framework_displacement": 3.0,
    "max_broken_bonds": 0.25,
    "max_energy_change": 0.1,
    "max_total_energy_drift": 0.01,
    "max_temperature_ratio": 5.0,
}


@cache
def thiophosphate():
    return prototypes()["γ-Li3PS4"] * (1, 2, 2)


def salt():
    return bulk("LiCl", "rocksalt", a=5.13, cubic=True) * (2, 2, 2)


def framework(atoms):
    return np.array([symbol != "Li" for symbol in atoms.symbols])


def vibrating(atoms, seed=0, amplitude=0.15):
    noise = np.random.default_rng(seed).normal(0.0, amplitude, (N_FRAMES, len(atoms), 3))
    return atoms.positions + noise


def reading(folder, atoms, frames, *, change=0.0, drift=0.0, **limits):
    """Read frames as the production run of atoms; the energy changes (eV/atom in all) and drifts (eV/atom/ps)."""
    rng = np.random.default_rng(1)
    n = len(atoms)
    times = np.arange(len(frames)) * 0.01
    potential = n * (change * np.linspace(0.0, 1.0, len(frames)) + rng.normal(0.0, 0.002, len(frames)))
    run = Run.begin(atoms, 800.0, 0, {"formula": "X", "volume": atoms.get_volume()})
    for frame, energy, time in zip(frames, potential, times, strict=True):
        run.pending.append(Sample(frame.astype(np.float32), energy, n * drift * time, 800.0))
    run.n_samples, run.positions = len(frames), frames[-1].astype(np.float64)
    files = RunFolder(folder, "made up")
    files.save(run)
    conditions = Conditions(**{**DEFAULTS, **limits})
    return read(files.load(), files, conditions, FitSettings(), "Li", collective=False)


def molecules(atoms):
    return [list(g.atoms) for g in bonded_groups(atoms, framework(atoms)) if len(g.atoms) > 1]


def thrown(atoms, distance):
    """Frames that vibrate about a framework whose groups were thrown so far, Å, each its own way."""
    rng = np.random.default_rng(3)
    frames = vibrating(atoms)
    for group in bonded_groups(atoms, framework(atoms)):
        way = rng.normal(size=3)
        frames[:, list(group.atoms)] += distance * way / np.linalg.norm(way)
    return frames


def arms(atoms, members):
    """Vectors from a molecule's first P to its atoms, images considered."""
    centre = next(k for k in members if atoms.symbols[k] == "P")
    return centre, atoms.get_distances(centre, members, mic=True, vector=True)


def tumbling(atoms):
    """Frames in which every PS4 turns freely and thoroughly about its P, from where it began."""
    rng = np.random.default_rng(2)
    frames = vibrating(atoms)
    for members in molecules(atoms):
        _, vectors = arms(atoms, members)
        turn = Rotation.from_rotvec(np.zeros(3))
        for k in range(N_FRAMES):
            frames[k, members] += turn.apply(vectors) - vectors
            turn = Rotation.from_rotvec(rng.normal(0.0, 0.15, 3)) * turn
    return frames


def wandering(atoms, step):
    """Frames in which each group of the framework walks at random as a whole, by so much in each frame, Å."""
    rng = np.random.default_rng(4)
    frames = vibrating(atoms)
    for group in bonded_groups(atoms, framework(atoms)):
        frames[:, list(group.atoms)] += rng.normal(0.0, step, (N_FRAMES, 1, 3)).cumsum(axis=0)
    return frames


def test_groups_are_molecules_single_atoms_and_the_atoms_of_networks():
    def names(atoms):
        found = [group.name for group in bonded_groups(atoms, framework(atoms))]
        return {name: found.count(name) for name in found}

    assert names(thiophosphate()) == {"PS4": 8}
    assert names(argyrodite()) == {"PS4": 4, "S": 4, "Cl": 4}
    assert names(bulk("Si", "diamond", a=5.43, cubic=True)) == {"Si": 8}
    unwrapped = thiophosphate().copy()
    unwrapped.positions[::3] += unwrapped.cell[0]  # a molecule may be placed in pieces
    assert names(unwrapped) == {"PS4": 8}


def test_a_crystal_that_vibrates_is_valid(tmp_path):
    for k, atoms in enumerate((thiophosphate(), salt(), argyrodite())):
        found = reading(tmp_path / str(k), atoms, vibrating(atoms))
        assert found.invalid is None
        assert found.metadata["framework_displacement"] < 0.5


def test_a_crystal_that_fell_apart_in_equilibration_is_invalid(tmp_path):
    """Thrown from the crystal before the first sample, and at rest from then on."""
    atoms = thiophosphate()
    found = reading(tmp_path / "far", atoms, thrown(atoms, 6.6))
    assert found.invalid.startswith("framework melted: PS4 moved by 6.")
    assert found.invalid.endswith("at 800 K")
    near = reading(tmp_path / "near", atoms, thrown(atoms, 2.7), max_broken_bonds=10.0)  # some S meet
    assert near.invalid is None
    assert near.metadata["framework_displacement"] == pytest.approx(2.7, abs=0.3)


def test_the_crystal_as_a_whole_may_drift_before_the_first_sample(tmp_path):
    atoms = argyrodite()
    found = reading(tmp_path, atoms, vibrating(atoms) + np.array([9.0, -4.0, 2.0]))
    assert found.invalid is None
    assert found.metadata["framework_displacement"] < 0.5


def test_anions_that_tumble_are_valid_and_those_that_wander_off_are_not(tmp_path):
    atoms = thiophosphate()
    frames = tumbling(atoms)
    sulphur = atoms.symbols == "S"
    moved = ((frames - atoms.positions)[:, sulphur] ** 2).sum(axis=2).mean(axis=1) ** 0.5
    assert moved.max() > 3.0  # beyond the limit for the centres
    found = reading(tmp_path / "turning", atoms, frames)
    assert found.invalid is None
    assert found.metadata["framework_displacement"] < 0.5
    assert found.metadata["framework_msd"] < 1.0
    walked = reading(tmp_path / "walking", atoms, wandering(atoms, 0.2))
    assert walked.invalid.startswith("framework melted: PS4 moved by")


def test_atoms_other_than_the_mobile_ion_that_diffuse(tmp_path):
    """Steady motion is found below any limit of displacement; strong vibration and one step aside are none."""
    atoms = salt()
    far = {"max_framework_displacement": 100.0, "max_broken_bonds": 100.0}
    found = reading(tmp_path / "diffusing", atoms, wandering(atoms, 0.2), **far)
    assert found.invalid.startswith("framework melted: atoms other than Li diffuse with ")
    aside = vibrating(atoms, amplitude=0.3)
    aside[N_FRAMES // 2 :, framework(atoms)] += np.random.default_rng(5).normal(0.0, 0.6, (32, 3))
    assert reading(tmp_path / "aside", atoms, aside, **far).invalid is None
    turning = thiophosphate()
    assert reading(tmp_path / "turning", turning, tumbling(turning), **far).invalid is None


@pytest.mark.parametrize("when", [0, N_FRAMES // 2])
@pytest.mark.parametrize(("n_lost", "is_valid"), [(2, False), (1, True)])
def test_a_framework_that_decomposes(tmp_path, when, n_lost, is_valid):
    """Of each PS4's four S some leave by 1.6 Å, before the first sample or later; the limit is a quarter."""
    atoms = thiophosphate()
    frames = vibrating(atoms)
    for members in molecules(atoms):
        centre, vectors = arms(atoms, members)
        leaving = [k for k in range(len(members)) if members[k] != centre][:n_lost]
        for k in leaving:
            frames[when:, members[k]] += 1.6 * vectors[k] / np.linalg.norm(vectors[k])
    found = reading(tmp_path, atoms, frames)
    assert found.metadata["framework_bonds"] == 32
    assert found.metadata["framework_bonds_broken"] == 8 * n_lost
    if is_valid:
        assert found.invalid is None
    else:
        assert "framework decomposed: of 32 bonds between atoms other than Li, 16 broke" in found.invalid


def test_energy_that_goes_on_changing(tmp_path):
    atoms = salt()
    found = reading(tmp_path / "changing", atoms, vibrating(atoms), change=-0.2)
    assert found.invalid.startswith("not in equilibrium: the potential energy changed by -1")
    assert reading(tmp_path / "settling", atoms, vibrating(atoms), change=-0.1).invalid is None


def test_total_energy_that_drifts(tmp_path):
    atoms = salt()
    found = reading(tmp_path / "drifting", atoms, vibrating(atoms), drift=0.012)
    assert found.invalid.startswith("unstable dynamics: the total energy drifts by +12.0 meV/atom/ps")
    assert reading(tmp_path / "steady", atoms, vibrating(atoms), drift=0.008).invalid is None
