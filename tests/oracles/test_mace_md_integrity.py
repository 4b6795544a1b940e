"""What counts as melted, decomposed or drifting, and what does not."""

import math

import numpy as np
import pytest
from ase import Atoms
from scipy.spatial.transform import Rotation

from oracles.dynamics.groups import bonded_groups, centre_displacements
from oracles.dynamics.integrity import displacements, energy_change, framework_bonds, trend
from oracles.potentials.student.structures import argyrodite, prototypes

RNG = np.random.default_rng(0)


def framework(atoms):
    return np.array([symbol != "Li" for symbol in atoms.symbols])


def vibrating(positions, n_frames=100, amplitude=0.1):
    """Frames about fixed positions, Å."""
    return positions + np.random.default_rng(1).normal(0.0, amplitude, (n_frames, *positions.shape))


def test_a_still_crystal_keeps_its_bonds():
    for atoms in (argyrodite(), prototypes()["γ-Li3PS4"]):
        bonds = framework_bonds(atoms, vibrating(atoms.positions), framework(atoms))
        n_phosphorus = list(atoms.symbols).count("P")
        assert bonds.n_first == 4 * n_phosphorus  # PS4
        assert bonds.changed == 0.0


def test_tetrahedra_that_rotate_keep_their_bonds():
    """Every PS4 turns by 120° about a threefold axis: S move far, bonds stay, also where atoms are outside the cell."""
    atoms = prototypes()["γ-Li3PS4"]
    frames = vibrating(atoms.positions)
    angles = np.linspace(0.0, 2.0 * math.pi / 3.0, len(frames))
    phosphorus = [k for k, s in enumerate(atoms.symbols) if s == "P"]
    sulphur = np.array([k for k, s in enumerate(atoms.symbols) if s == "S"])
    turned = np.zeros(len(atoms), dtype=bool)
    for centre in phosphorus:
        arms = atoms.get_distances(centre, sulphur, mic=True, vector=True)
        near = np.argsort(np.linalg.norm(arms, axis=1))[:4]
        axis = arms[near[0]] / np.linalg.norm(arms[near[0]])
        for k in near:
            paths = Rotation.from_rotvec(angles[:, None] * axis).apply(arms[k]) - arms[k]
            frames[:, sulphur[k]] += paths
            turned[sulphur[k]] = True
    assert turned.sum() == len(sulphur)
    groups = bonded_groups(atoms, framework(atoms))
    away = centre_displacements(
        frames, atoms.positions, groups, atoms.get_masses(), np.zeros((len(frames), 3))
    )
    assert np.sqrt(((frames[-1, sulphur] - atoms.positions[sulphur]) ** 2).sum(axis=1).mean()) > 2.0
    assert set(displacements(away, groups)) == {"PS4"}
    assert displacements(away, groups)["PS4"] < 0.3
    assert framework_bonds(atoms, frames, framework(atoms)).changed == 0.0


def test_bonds_that_break_are_counted_and_those_that_form():
    atoms = argyrodite()
    frames = vibrating(atoms.positions)
    sulphur = [k for k, s in enumerate(atoms.symbols) if s == "S"]
    first = framework_bonds(atoms, frames, framework(atoms))
    bonded = [
        k
        for k in sulphur
        if min(atoms.get_distances(k, [p for p, s in enumerate(atoms.symbols) if s == "P"], mic=True)) < 2.4
    ]
    pull = bonded[: len(bonded) // 2]
    frames[50:, pull] += np.array(
        [0.0, 0.0, 30.0 * atoms.cell.cellpar()[2]]
    )  # whole cells: by images, nothing moved
    found = framework_bonds(atoms, frames, framework(atoms))
    assert found.n_broken == len(pull)
    assert found.changed == pytest.approx(len(pull) / first.n_first)
    pair = Atoms("Li2S2", positions=[[0, 0, 0], [5, 5, 5], [2, 5, 8], [7, 5, 8]], cell=[10] * 3, pbc=True)
    joined = vibrating(pair.positions)
    joined[60:, 3] -= [2.9, 0.0, 0.0]  # S-S of 2.1 Å
    formed = framework_bonds(pair, joined, framework(pair))
    assert (formed.n_first, formed.n_broken, formed.n_formed) == (0, 0, 1)
    assert formed.changed == 1.0


def test_the_mobile_ions_bonds_are_nobodys_business():
    atoms = argyrodite()
    frames = vibrating(atoms.positions)
    mobile = ~framework(atoms)
    frames[:, mobile] += RNG.normal(0.0, 3.0, (len(frames), mobile.sum(), 3))
    assert framework_bonds(atoms, frames, framework(atoms)).changed == 0.0


def test_a_change_of_energy_is_told_from_noise():
    noise = RNG.normal(0.0, 0.02, 1000)
    change, error = energy_change(noise)
    assert abs(change) < 2.0 * error
    change, error = energy_change(noise + np.linspace(0.0, -0.2, 1000))
    assert change == pytest.approx(-0.16, abs=0.01)
    assert abs(change) > 0.05 + 2.0 * error


def test_a_trend_is_the_slope():
    times = np.linspace(0.0, 3.0, 50)
    assert trend(times, 2.0 * times - 7.0) == pytest.approx(2.0)
