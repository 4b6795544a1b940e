"""The lattice map: real cells within their limits, full support, and its Jacobian."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice

from activelearning.crystals.lattice import (
    MIN_VOLUME_FACTOR,
    LatticeLimits,
    equal_lengths,
    fixed_angles,
    free_coordinates,
)
from activelearning.crystals.symmetry import LATTICE_SYSTEMS, LatticeSystem

WIDE = LatticeLimits((2.5, 30.0), (55.0, 135.0), (4.0, 80.0))
LIMITS = {
    "default": WIDE,
    "published": LatticeLimits((0.9, 100.0), (50.0, 150.0), (4.0, 80.0)),
    # Length limits bind on volumes, and the flattest allowed cell is far from flat.
    "tight": LatticeLimits((3.0, 5.0), (60.0, 120.0), (20.0, 22.0)),
    "lopsided": LatticeLimits((3.0, 9.0), (30.0, 91.0), (8.0, 30.0)),
    "acute": LatticeLimits((3.0, 9.0), (40.0, 80.0), (8.0, 30.0)),
    "obtuse": LatticeLimits((3.0, 9.0), (95.0, 118.0), (8.0, 30.0)),
}


def drawn(limits, system, n, seed=0):
    atoms = limits.atoms(system)
    rng = np.random.default_rng(seed)
    n_atoms = rng.integers(atoms[0], min(atoms[1], max(atoms[0], 80)) + 1, n)
    systems = np.full(n, LATTICE_SYSTEMS.index(system))
    return systems, n_atoms, rng.random((n, 6))


def scales(limits):
    lengths, angles = np.diff(limits.lengths), np.diff(limits.angles)
    return np.concatenate([np.repeat(lengths, 3), np.repeat(angles, 3)])


def free_parameters(system):
    lengths = {1: [0, 1, 2], 2: [0, 2], 3: [0]}[equal_lengths(system)]
    return lengths + [3 + k for k, angle in enumerate(fixed_angles(system)) if angle is None]


# Angles fixed by symmetry must lie in the range, too.
POSSIBLE = [(name, s) for name, limits in LIMITS.items() for s in LATTICE_SYSTEMS if limits.atoms(s)]
every_case = pytest.mark.parametrize(("name", "system"), POSSIBLE, ids=[f"{n}-{s}" for n, s in POSSIBLE])
bounded_case = pytest.mark.parametrize(
    ("name", "system"),
    [(n, s) for n, s in POSSIBLE if n not in ("default", "published")],
    ids=[f"{n}-{s}" for n, s in POSSIBLE if n not in ("default", "published")],
)


@every_case
def test_every_u_gives_a_cell_within_its_limits_also_when_rounded(name, system):
    limits = LIMITS[name]
    systems, n_atoms, u = drawn(limits, system, 2000)
    u[:200] = np.random.default_rng(1).integers(0, 2, (200, 6))  # corners of the cube
    cells, log_det = limits.parameters(systems, limits.log_volumes(n_atoms), u)
    assert np.isfinite(log_det).all()
    rounded = np.column_stack([np.round(cells[:, :3], 4), np.round(cells[:, 3:], 3)])
    for atoms, cell in zip(n_atoms, rounded, strict=True):
        volume = Lattice.from_parameters(*cell).volume
        assert limits.volume_per_atom[0] <= volume / atoms <= limits.volume_per_atom[1]
        assert all(limits.lengths[0] <= x <= limits.lengths[1] for x in cell[:3])
        assert all(limits.angles[0] <= x <= limits.angles[1] for x in cell[3:])
        assert limits.violations(system, limits.log_volumes(atoms[None])[0], cell) == []


@every_case
def test_coordinates_are_the_inverse(name, system):
    limits = LIMITS[name]
    systems, n_atoms, u = drawn(limits, system, 500)
    used = free_coordinates()[systems[0]]
    cells, _ = limits.parameters(systems, limits.log_volumes(n_atoms), u)
    again = limits.coordinates(systems, limits.log_volumes(n_atoms), cells)
    # Where an interval is very short its coordinate is ill-conditioned; the cell is not.
    np.testing.assert_allclose(again[:, used], u[:, used], atol=1e-4)
    np.testing.assert_allclose(
        limits.parameters(systems, limits.log_volumes(n_atoms), again)[0], cells, rtol=1e-5
    )
    assert (again[:, ~used] == 0.5).all()


@every_case
def test_jacobian_agrees_with_differences(name, system):
    limits = LIMITS[name]
    systems, n_atoms, u = drawn(limits, system, 200)
    u = 0.05 + 0.9 * u
    step, used = 1e-6, np.flatnonzero(free_coordinates()[systems[0]])
    rows = free_parameters(system)
    jacobian = np.zeros((200, len(rows), len(used)))
    for j, column in enumerate(used):
        ahead, behind = u.copy(), u.copy()
        ahead[:, column] += step
        behind[:, column] -= step
        change = (
            limits.parameters(systems, limits.log_volumes(n_atoms), ahead)[0]
            - limits.parameters(systems, limits.log_volumes(n_atoms), behind)[0]
        )
        jacobian[:, :, j] = (change / (2 * step) / scales(limits))[:, rows]
    expected = np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(
        limits.parameters(systems, limits.log_volumes(n_atoms), u)[1], expected, atol=2e-3
    )


RANGES = st.tuples(st.floats(0.5, 8.0), st.floats(1.02, 8.0)).map(lambda p: (p[0], p[0] * p[1]))


@settings(max_examples=150)
@given(
    lengths=RANGES,
    angles=st.tuples(st.floats(25.0, 118.0), st.floats(1.0, 100.0)).map(
        lambda p: (p[0], min(p[0] + p[1], 165.0))
    ),
    volumes=RANGES.map(lambda p: (2 * p[0], 2 * p[1])),
    system=st.sampled_from(LATTICE_SYSTEMS),
    seed=st.integers(0, 2**31),
)
def test_cells_keep_any_limits(lengths, angles, volumes, system, seed):
    limits = LatticeLimits(lengths, angles, volumes)
    if limits.atoms(system) is None:
        return
    systems, n_atoms, u = drawn(limits, system, 400, seed)
    cells, log_det = limits.parameters(systems, limits.log_volumes(n_atoms), u)
    a, b, c = np.cos(np.radians(np.round(cells[:, 3:], 3))).T
    squared = 1 - a * a - b * b - c * c + 2 * a * b * c
    per_atom = np.round(cells[:, :3], 4).prod(axis=1) * np.sqrt(squared) / n_atoms
    assert np.isfinite(log_det).all()
    assert ((per_atom >= volumes[0]) & (per_atom <= volumes[1])).all()
    for values, (low, high), decimals in ((cells[:, :3], lengths, 4), (cells[:, 3:], angles, 3)):
        assert ((np.round(values, decimals) >= low) & (np.round(values, decimals) <= high)).all()
    assert (squared >= MIN_VOLUME_FACTOR**2).all()


def feasible_share(limits, system, n_atoms, n):
    """Volume of the allowed set in unit-scaled free parameters, by drawing parameters without the map."""
    rng = np.random.default_rng(2)
    cells = np.empty((n, 6))
    cells[:, :3] = rng.uniform(*limits.lengths, (n, 3))
    cells[:, 3:] = rng.uniform(*limits.angles, (n, 3))
    cells[:, : equal_lengths(system)] = cells[:, :1]
    for k, angle in enumerate(fixed_angles(system)):
        if angle is not None:
            cells[:, 3 + k] = angle
    a, b, c = np.cos(np.radians(cells[:, 3:])).T
    squared = 1 - a * a - b * b - c * c + 2 * a * b * c
    volumes = cells[:, :3].prod(axis=1) * np.sqrt(np.maximum(squared, 0.0)) / n_atoms
    low, high = limits.volume_per_atom
    allowed = (squared >= MIN_VOLUME_FACTOR**2) & (volumes >= low) & (volumes <= high)
    return cells[allowed], allowed.mean(), math.sqrt(allowed.mean() * (1 - allowed.mean()) / n)


@bounded_case
def test_uniform_u_integrates_to_the_volume_of_the_allowed_set(name, system):
    # The mean of |det ∂θ/∂u| over the cube is the volume of the image: nothing is missed, nothing covered twice.
    limits = LIMITS[name]
    atoms = limits.atoms(system)
    n, n_atoms = 200_000, (atoms[0] + min(atoms[1], 30)) // 2
    cells, share, error = feasible_share(limits, system, n_atoms, n)
    u = np.random.default_rng(3).random((n, 6))
    systems = np.full(n, LATTICE_SYSTEMS.index(system))
    weights = np.exp(limits.parameters(systems, limits.log_volumes(np.full(n, n_atoms)), u)[1])
    tolerance = 5 * math.hypot(error, float(weights.std()) / math.sqrt(n))
    # Margins of rounding take less than one per cent of a range this size.
    assert abs(weights.mean() - share) < tolerance + 0.02 * share
    assert len(cells) > 100


@bounded_case
def test_every_allowed_cell_is_reached(name, system):
    limits = LIMITS[name]
    atoms = limits.atoms(system)
    n_atoms = (atoms[0] + min(atoms[1], 30)) // 2
    cells, _, _ = feasible_share(limits, system, n_atoms, 100_000)
    systems, counts = np.full(len(cells), LATTICE_SYSTEMS.index(system)), np.full(len(cells), n_atoms)
    volumes = limits.log_volumes(counts)
    again = limits.parameters(systems, volumes, limits.coordinates(systems, volumes, cells))[0]
    # All but those within the margins of rounding come back as they are.
    difference = np.abs(again - cells).max(axis=1)
    assert (difference < 1e-6).mean() > 0.97
    assert difference.max() < 0.2


def test_limits_on_atoms_are_those_of_the_extreme_cells():
    limits = LatticeLimits((3.0, 5.0), (60.0, 120.0), (20.0, 22.0))
    # Cubes hold 27 to 125 Å³: between 27 / 22 and 125 / 20 atoms.
    assert limits.atoms(LatticeSystem.CUBIC) == (2, 6)
    # Hexagonal cells are smaller by √3 / 2.
    assert limits.atoms(LatticeSystem.HEXAGONAL) == (2, 5)
    fewest, most = WIDE.atoms(LatticeSystem.CUBIC)
    assert fewest == 1
    assert most == pytest.approx(30**3 / 4, rel=2e-3)


def test_fixed_angles_outside_the_range_exclude_a_system():
    limits = LatticeLimits((3.0, 9.0), (60.0, 110.0), (8.0, 30.0))
    assert limits.atoms(LatticeSystem.HEXAGONAL) is None
    assert limits.atoms(LatticeSystem.MONOCLINIC) is not None
    only_triclinic = LatticeLimits((3.0, 9.0), (95.0, 110.0), (8.0, 30.0))
    allowed = [s for s in LATTICE_SYSTEMS if only_triclinic.atoms(s) is not None]
    assert allowed == [LatticeSystem.TRICLINIC]
    # Three angles of 125° and more close no cell.
    assert LatticeLimits((3.0, 9.0), (125.0, 150.0), (8.0, 30.0)).atoms(LatticeSystem.TRICLINIC) is None


@pytest.mark.parametrize(
    ("system", "n_atoms", "lattice", "message"),
    [
        (LatticeSystem.CUBIC, 8, (5.0, 5.0, 5.0002, 90, 90, 90), "a = b = c"),
        (LatticeSystem.CUBIC, 8, (5.0, 5.0, 5.1, 90, 90, 90), "a = b = c"),
        (LatticeSystem.HEXAGONAL, 8, (5.0, 5.0, 8.0, 90, 90, 90), "gamma = 90 must be 120"),
        (LatticeSystem.TETRAGONAL, 8, (5.0, 5.1, 8.0, 90, 90, 90), "a = b"),
        (LatticeSystem.MONOCLINIC, 8, (5.0, 5.1, 8.0, 91, 95, 90), "alpha = 91 must be 90"),
        (LatticeSystem.TRICLINIC, 8, (5.0, 5.1, 40.0, 90, 90, 90), "c = 40 is not within lengths"),
        (LatticeSystem.TRICLINIC, 8, (5.0, 5.1, 6.0, 90, 90, 140), "gamma = 140 is not within angles"),
        (LatticeSystem.TRICLINIC, 8, (9.0, 9.0, 9.0, 119.8, 119.8, 119.8), "flatter"),
        (LatticeSystem.CUBIC, 80, (5.0, 5.0, 5.0, 90, 90, 90), "volume 125 Å³ is not within 320 to 6400"),
    ],
)
def test_violations_are_said_in_words(system, n_atoms, lattice, message):
    assert any(
        message in text for text in WIDE.violations(system, WIDE.log_volumes(np.array([n_atoms]))[0], lattice)
    )


def test_rounding_of_equal_parameters_is_no_violation():
    assert (
        WIDE.violations(
            LatticeSystem.CUBIC, WIDE.log_volumes(np.array([8]))[0], (5.0001, 5.0, 5.0001, 90, 90, 89.999)
        )
        == []
    )
