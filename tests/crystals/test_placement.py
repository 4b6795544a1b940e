"""Places of one orbit, and arrangements of all, against brute force over images by pymatgen."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from activelearning.crystals import placement
from activelearning.crystals.arrangement import Arrangement
from activelearning.crystals.distances import MIN_DISTANCE_RATIO, Cell, smallest_radii
from activelearning.crystals.domain import Domain
from activelearning.crystals.elements import atomic_number
from activelearning.crystals.placement import PositionGrid, unpacked
from activelearning.crystals.symmetry import space_group
from activelearning.crystals.witness import SPARE, Orbit

SHAPES = {
    "triclinic": (4.1, 5.3, 6.7, 77.0, 83.0, 98.0),
    "monoclinic": (4.1, 5.3, 6.7, 90.0, 113.0, 90.0),
    "orthorhombic": (4.1, 5.3, 6.7, 90.0, 90.0, 90.0),
    "tetragonal": (4.4, 4.4, 6.7, 90.0, 90.0, 90.0),
    "trigonal": (4.7, 4.7, 6.7, 90.0, 90.0, 120.0),
    "hexagonal": (4.7, 4.7, 6.7, 90.0, 90.0, 120.0),
    "cubic": (5.6, 5.6, 5.6, 90.0, 90.0, 90.0),
}


def cell_of(number: int, scale: float = 1.0) -> Cell:
    a, b, c, *angles = SHAPES[space_group(number).crystal_system]
    return Cell((scale * a, scale * b, scale * c, *angles))


def packed(flags: np.ndarray) -> np.ndarray:
    return (flags.astype(np.uint64) << np.arange(flags.shape[-1], dtype=np.uint64)).sum(
        axis=-1, dtype=np.uint64
    )


def domain_of(low: np.ndarray, size: np.ndarray, allowed: np.ndarray) -> Domain:
    return Domain.of(low, size, packed(allowed), allowed.shape[-1])


def brute_distances(cell: Cell, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Shortest distance of each first point to each second one over many images, without wrapping."""
    matrix = Lattice.from_parameters(*cell.parameters).matrix
    images = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    found = np.full((len(first), len(second)), np.inf)
    for image in images:
        gaps = (second[None] + image - first[:, None]) @ matrix
        found = np.minimum(found, np.sqrt((gaps**2).sum(axis=-1)))
    return found


@settings(max_examples=60)
@given(st.integers(1, 230), st.integers(0, 2**32 - 1))
def test_distances_are_those_of_brute_force(number, seed):
    rng = np.random.default_rng(seed)
    cell = cell_of(number)
    points = rng.random((6, 3))
    reach = 5.0
    found = cell.distances((points[:, None] - points[None]).reshape(-1, 3), reach).reshape(6, 6)
    expected = brute_distances(cell, points, points)
    near = expected < reach
    np.testing.assert_allclose(found[near], expected[near], atol=1e-9)
    assert (found[~near] >= reach).all()


@settings(max_examples=50)
@given(st.integers(1, 230), st.integers(0, 2**32 - 1))
def test_covered_cells_are_those_of_brute_force(number, seed):
    rng = np.random.default_rng(seed)
    cell = cell_of(number)
    index = int(rng.integers(len(space_group(number).wyckoff)))
    grid = PositionGrid(cell, number, index)
    points, radii, batch = rng.random((5, 3)), rng.uniform(0.8, 3.2, 5), rng.integers(0, 2, 5)
    covered = unpacked(grid.covered(points, radii, batch, 2), grid.shape[2]).reshape(2, -1)
    cells = rng.integers(0, covered.shape[1], 300)
    centres = grid.atoms(grid.places(cells))[:, 0]
    distances = brute_distances(cell, centres, points)
    for k in range(2):
        gaps = np.where(batch == k, distances - radii, np.inf).min(axis=1)
        clear = np.abs(gaps) > 1e-9
        assert np.array_equal(covered[k, cells][clear], (gaps < 0)[clear])


@settings(max_examples=50)
@given(st.integers(1, 230), st.integers(0, 2**32 - 1))
def test_distances_within_an_orbit_hold_throughout_a_cell(number, seed):
    rng = np.random.default_rng(seed)
    cell = cell_of(number)
    free = [i for i, w in enumerate(space_group(number).wyckoff) if not w.is_fixed]
    grid = PositionGrid(cell, number, free[int(rng.integers(len(free)))])
    least = float(rng.uniform(0.5, 3.5))
    centre, throughout = (
        unpacked(grid.apart(least, throughout=flag), grid.shape[2]).reshape(-1) for flag in (False, True)
    )
    steps = np.array(grid.shape)[3 - grid.n_free :]
    for i in rng.integers(0, centre.size, 12):
        middle = grid.places(np.array([i]))[0]
        atoms = grid.atoms(middle)
        expected = brute_distances(cell, atoms[:1], atoms[1:]).min(initial=np.inf)
        if abs(expected - least) > 1e-9:
            assert centre[i] == (expected >= least)
        # A random point of the cell: within reach of its centre, with the distance promised.
        moved = grid.atoms(middle + rng.uniform(-0.5, 0.5, grid.n_free) / steps)
        assert cell.distances(moved[:1] - atoms[:1], 3.0)[0] <= grid.reach + 1e-9
        if throughout[i]:
            assert centre[i]
            assert brute_distances(cell, moved[:1], moved[1:]).min(initial=np.inf) >= least - 1e-9
    # What the reach takes away is no more than it must be: nothing where the distance has twice the reach to spare.
    if centre.any() and not throughout.any():
        assert not unpacked(
            grid.apart(least + 2.0 * grid.reach + 1e-9, throughout=False), grid.shape[2]
        ).any()


@settings(max_examples=60)
@given(st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_a_domain_is_a_bijection_with_its_jacobian(n_free, seed):
    rng = np.random.default_rng(seed)
    allowed = rng.random(rng.integers(2, 7, n_free)) < 0.4
    allowed.flat[int(rng.integers(allowed.size))] = True
    low, size = rng.random(n_free) - 0.5, rng.uniform(0.2, 1.0, n_free)
    domain = domain_of(low, size, allowed)
    for u in rng.random((20, n_free)):
        x, log_det = domain.coordinates(u)
        np.testing.assert_allclose(domain.u(x), u, atol=1e-9)
        assert ((x >= 0) & (x < 1)).all()
        place = ((x - low) % 1.0 / size * allowed.shape).astype(int)
        assert allowed[tuple(np.minimum(place, np.array(allowed.shape) - 1))]
        # The map is triangular, and linear within a cell.
        step = 1e-7
        slopes = [(domain.coordinates(u + step * e)[0] - x)[i] / step for i, e in enumerate(np.eye(n_free))]
        slopes = np.array(slopes)
        if (np.abs(slopes) < 10).all() and (slopes > 0).all():
            assert np.log(slopes).sum() == pytest.approx(log_det, abs=1e-5)


@pytest.mark.parametrize("n_free", [1, 2, 3])
def test_uniform_u_fill_the_allowed_volume(n_free):
    """∫ exp(−log |det|) over the allowed cells is one: the density of uniform u, integrated on the grid itself."""
    rng = np.random.default_rng(n_free)
    allowed = rng.random((5, 4, 6)[:n_free]) < 0.3
    domain = domain_of(np.zeros(n_free), np.ones(n_free), allowed)
    total = 0.0
    for index in np.argwhere(allowed):
        u = domain.u((index + 0.5) / allowed.shape)
        total += np.exp(-domain.coordinates(u)[1]) / allowed.size
    assert total == pytest.approx(1.0, abs=1e-12)
    assert domain.share == pytest.approx(allowed.mean())


def test_a_place_outside_the_domain_is_refused():
    domain = domain_of(np.zeros(1), np.ones(1), np.array([True, False, True, False]))
    with pytest.raises(ValueError, match="too close to other atoms"):
        domain.u(np.array([0.3]))
    assert domain.u(np.array([0.25 + 1e-6]))[0] == pytest.approx(0.5)


# ------------------------------------------------------------------ arrangements


def orbits(number: int, assigned: dict[str, str]) -> list[Orbit]:
    index = {w.letter: i for i, w in enumerate(space_group(number).wyckoff)}
    return [
        Orbit(index[letter], atomic_number(symbol))
        for symbol, letters in assigned.items()
        for letter in letters
    ]


CRYSTALS = {
    "P1": (1, (5.0, 5.4, 5.9, 80, 95, 102), {"Li": "aaa", "S": "aa", "P": "a"}),
    "Cc": (9, (6, 9, 6, 90, 105, 90), {"Li": "aa", "S": "aaa"}),
    "Pnma": (62, (13.1, 8.0, 6.1, 90, 90, 90), {"Li": "cd", "P": "c", "S": "ccd"}),
    "R-3m": (166, (5.2, 5.2, 18.0, 90, 90, 120), {"Li": "ac", "S": "ch"}),
    "P63/mmc": (194, (5.2, 5.2, 9.0, 90, 90, 120), {"Li": "af", "S": "h"}),
    "F-43m": (216, (10.0, 10.0, 10.0, 90, 90, 90), {"Li": "h", "P": "b", "S": "ae", "Cl": "c"}),
    "P1 of one atom": (1, (4, 4, 4, 90, 90, 90), {"Li": "a"}),
}


def closest_ratio(structure: Structure) -> float:
    """Smallest distance over the sum of covalent radii (of pymatgen's neighbours and ASE's radii), images included."""
    from ase.data import covalent_radii

    radii = np.array([covalent_radii[site.specie.Z] for site in structure])
    first, second, _, distances = structure.get_neighbor_list(3.2)
    return float((distances / (radii[first] + radii[second])).min(initial=np.inf))


def finished(of: Arrangement, rng: np.random.Generator):
    placed = of.begin()
    while not placed.is_complete:
        domain = placed.domain
        x, _ = domain.coordinates(rng.random(domain.n_free))
        placed = placed.place(x)
    return placed


@pytest.mark.parametrize("name", CRYSTALS)
def test_arrangements_keep_distances_wherever_orbits_go(name):
    number, lattice, assigned = CRYSTALS[name]
    of = Arrangement(number, lattice, orbits(number, assigned))
    assert of.is_possible
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(25):
        placed = finished(of, rng)
        structure = Structure(Lattice.from_parameters(*lattice), placed.elements, placed.atoms.round(6))
        assert closest_ratio(structure) >= MIN_DISTANCE_RATIO
        seen.add(placed.atoms.tobytes())
        in_order = of.read(placed.elements, placed.atoms.round(6))
        for a, b in zip(in_order.coordinates, placed.coordinates, strict=True):
            np.testing.assert_allclose(a, b, atol=1.1e-6)
    assert len(seen) == 25


@pytest.mark.parametrize("edge", [1.2, 3.0])
def test_where_the_grid_is_too_coarse_the_witness_still_has_a_place(monkeypatch, edge):
    """With coarse grids no whole cell is free in a dense crystal; boxes about the witness take over."""
    monkeypatch.setattr(placement, "EDGES", dict.fromkeys((1, 2, 3), edge))
    monkeypatch.setattr(placement, "LAST_EDGE", dict.fromkeys((1, 2, 3), edge))
    rng = np.random.default_rng(1)
    boxes = 0
    for number, lattice, assigned in CRYSTALS.values():
        # The search needs a grid, too; it may find less in a coarse one.
        of = Arrangement(number, lattice, orbits(number, assigned))
        if not of.is_possible:
            continue
        placed = of.begin()
        while not placed.is_complete:
            boxes += float(placed.domain.size[0]) < 1.0
            u = rng.random(placed.next.grid.n_free)
            x, _ = placed.domain.coordinates(u)
            np.testing.assert_allclose(placed.domain.u(x), u, atol=1e-6)
            placed = placed.place(x)
        structure = Structure(Lattice.from_parameters(*lattice), placed.elements, placed.atoms.round(6))
        assert closest_ratio(structure) >= MIN_DISTANCE_RATIO
    assert boxes > 0


def test_an_arrangement_depends_on_its_crystal_alone():
    number, lattice, assigned = CRYSTALS["Pnma"]
    first, second = (Arrangement(number, lattice, orbits(number, assigned)) for _ in range(2))
    assert len(first.begin().witnesses) == len(second.begin().witnesses)
    for a, b in zip(first.begin().witnesses, second.begin().witnesses, strict=True):
        assert np.array_equal(a.atoms, b.atoms)
    x = first.begin().domain.coordinates(np.array([0.3, 0.6, 0.2])[: first.begin().next.grid.n_free])[0]
    after = [of.begin().place(x).domain for of in (first, second)]
    assert np.array_equal(after[0].words, after[1].words)


@pytest.mark.parametrize("name", CRYSTALS)
def test_witnesses_have_room_to_spare(name):
    number, lattice, assigned = CRYSTALS[name]
    of = Arrangement(number, lattice, orbits(number, assigned))
    for witness in of.begin().witnesses:
        atoms = np.concatenate([of.fixed_atoms, witness.atoms])
        elements = [
            orbit.element for orbit in (*of.fixed, *of.free) for _ in range(of.position(orbit).multiplicity)
        ]
        radii = smallest_radii()[np.array(elements) - 1]
        spare = np.where(np.arange(len(atoms)) < len(of.fixed_atoms), 0.0, SPARE)
        distances = brute_distances(of.cell, atoms, atoms)
        np.fill_diagonal(distances, np.inf)
        least = radii[:, None] + radii + spare[:, None] + spare
        assert (distances >= least - 1e-9).all()


def test_crystals_without_room_have_no_arrangement():
    # Two lithium in a cell of 27 Å³ with edges of 1.2 Å: an image is nearer than 0.6 × 2.56 Å.
    thin = Arrangement(1, (1.2, 5, 5, 90, 90, 90), orbits(1, {"Li": "aa"}))
    # Perovskite positions in a cell far too small: fixed positions overlap.
    small = Arrangement(221, (2.0, 2.0, 2.0, 90, 90, 90), orbits(221, {"K": "a", "Cl": "b"}))
    # Six chlorine on one line of 5 Å.
    line = Arrangement(79, (9, 9, 5, 90, 90, 90), orbits(79, {"Cl": "aaaaaa"}))
    for of in (thin, small, line):
        assert not of.is_possible
        with pytest.raises(ValueError, match="can't be kept apart"):
            of.begin()


def test_structures_of_the_field_are_read():
    """γ-Li3PO4-like and rock-salt structures in pymatgen's own order of atoms."""
    rock_salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.13), ["Li", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    of = Arrangement(225, (5.13,) * 3 + (90,) * 3, orbits(225, {"Li": "a", "Cl": "b"}))
    assert of.read(np.array(rock_salt.atomic_numbers), rock_salt.frac_coords).is_complete
    olivine = Structure.from_spacegroup(
        "Pnma",
        Lattice.orthorhombic(10.33, 6.01, 4.69),
        ["Li", "Fe", "P", "O", "O", "O"],
        [
            [0, 0, 0],
            [0.28, 0.25, 0.97],
            [0.09, 0.25, 0.42],
            [0.1, 0.25, 0.74],
            [0.46, 0.25, 0.21],
            [0.17, 0.05, 0.28],
        ],
    )
    letters = {"Li": "a", "O": "ccd", "P": "c", "Fe": "c"}
    of = Arrangement(62, (10.33, 6.01, 4.69, 90, 90, 90), orbits(62, letters))
    with pytest.raises(ValueError, match=r"on none of the orbits|left on Wyckoff position"):
        of.read(np.array([*olivine.atomic_numbers, 8]), np.vstack([olivine.frac_coords, [0.5, 0.5, 0.5]]))
    with pytest.raises(ValueError, match="left on Wyckoff position"):
        of.read(np.array(olivine.atomic_numbers), olivine.frac_coords + 0.01)


@pytest.mark.slow
@pytest.mark.skipif(
    "ACTIVELEARNING_MP" not in os.environ, reason="ACTIVELEARNING_MP does not name the data's folder"
)
def test_real_structures_are_within_reach():
    """Of 150 DFT structures, letters and coordinates from PyXtal: all have an arrangement, nearly all are one."""
    import pandas
    from pyxtal import pyxtal

    table = pandas.read_csv(Path(os.environ["ACTIVELEARNING_MP"]) / "materials.csv.gz")
    table = table[table.n_sites_conventional <= 24].sample(150, random_state=0)
    read = []
    for cif in table.cif:
        crystal = pyxtal()
        crystal.from_seed(Structure.from_str(cif, fmt="cif"), tol=0.01)
        sites = sorted(crystal.atom_sites, key=lambda site: atomic_number(site.specie))
        assigned = [(site.specie, site.wp.letter) for site in sites]
        number = crystal.group.number
        of = Arrangement(
            number,
            crystal.lattice.get_para(degree=True),
            [orbit for symbol, letter in assigned for orbit in orbits(number, {symbol: letter})],
        )
        assert of.is_possible
        elements = [atomic_number(site.specie) for site in sites for _ in site.coords]
        try:
            read.append(
                of.read(np.array(elements), np.concatenate([s.coords for s in sites]) % 1.0).is_complete
            )
        except ValueError:
            read.append(False)
    assert np.mean(read) > 0.9


def test_radii_are_a_share_of_the_covalent_ones():
    from ase.data import covalent_radii

    np.testing.assert_allclose(smallest_radii(), MIN_DISTANCE_RATIO * covalent_radii[1:104], rtol=1e-6)
