"""Volumes of cells: by radii, by a stated range, and where lengths leave neither."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Composition, Element

from activelearning.crystals.elements import element_rows, properties
from activelearning.crystals.lattice import VOLUME_MARGIN, LatticeLimits
from activelearning.crystals.symmetry import LATTICE_SYSTEMS
from activelearning.crystals.volume import VOLUME_OVER_SPHERES, VolumeRange

ELEMENTS = ("H", "Li", "O", "Al", "S", "Cl", "Cs")
WIDE = LatticeLimits((2.5, 30.0), (55.0, 135.0), (4.0, 80.0))
CUBIC = np.array([7])


def bounds(elements, limits, composition, system=CUBIC, *, by_radii=True):
    counts = np.array([[composition.get(symbol, 0) for symbol in elements]])
    found = VolumeRange(elements, limits, by_radii=by_radii).log_volumes(system, counts)
    return np.exp(found[0] + np.log1p(VOLUME_MARGIN) * np.array([-1, 1]))


def test_radii_are_those_of_pymatgen():
    known = properties(["van_der_waals_radius"])[:, 0]
    for symbol, row in element_rows().items():
        if symbol != "Lr":
            assert known[row] == pytest.approx(float(Element(symbol).van_der_waals_radius))


@pytest.mark.parametrize(
    ("composition", "volume"),
    [
        # Experimental conventional cells in Å³: LiCl, Li2O, Al2O3 (hexagonal axes), Al, CsCl, LiH, Li2S.
        ({"Li": 4, "Cl": 4}, 5.13**3),
        ({"Li": 8, "O": 4}, 4.62**3),
        ({"Al": 12, "O": 18}, 254.8),
        ({"Al": 4}, 4.05**3),
        ({"Cs": 1, "Cl": 1}, 4.12**3),
        ({"Li": 4, "H": 4}, 4.08**3),
        ({"Li": 8, "S": 4}, 5.71**3),
    ],
)
def test_known_crystals_have_plausible_volumes(composition, volume):
    low, high = bounds(ELEMENTS, WIDE, composition)
    assert low < volume < high
    # Neither crushed nor a gas.
    assert not low < 0.25 * volume
    assert not high > 5.0 * volume


def test_a_stated_range_is_kept_as_it_is():
    np.testing.assert_allclose(bounds(ELEMENTS, WIDE, {"Li": 4, "O": 2}, by_radii=False), [24.0, 480.0])


def test_lengths_move_the_interval_no_farther_than_they_must():
    spheres = 16 * 4 / 3 * np.pi * 1.82**3
    np.testing.assert_allclose(
        bounds(ELEMENTS, WIDE, {"Li": 16}), np.array(VOLUME_OVER_SPHERES) * spheres, rtol=1e-6
    )
    # The smallest cell of 10 Å has 1000 Å³, more than 1.38 of the spheres.
    long = LatticeLimits((10.0, 20.0), (55.0, 135.0), (4.0, 80.0))
    low, high = bounds(ELEMENTS, long, {"Li": 16})
    assert low == pytest.approx(VOLUME_OVER_SPHERES[0] * spheres)
    assert 1.04 * 1000.0 < high < 1.06 * 1000.0
    # The largest of 3 Å has 27 Å³: four atoms are squeezed, but not below 4 Å³ each.
    short = LatticeLimits((2.5, 3.0), (55.0, 135.0), (4.0, 80.0))
    low, high = bounds(ELEMENTS, short, {"Cs": 4})
    assert 16.0 <= low < 27.0 / 1.04
    assert high > 27.0


@settings(max_examples=200)
@given(
    shortest=st.floats(0.5, 20.0),
    ratio=st.floats(1.02, 10.0),
    system=st.integers(0, 7),
    counts=st.lists(st.integers(0, 20), min_size=len(ELEMENTS), max_size=len(ELEMENTS)).filter(any),
    seed=st.integers(0, 1000),
)
def test_every_composition_has_cells(shortest, ratio, system, counts, seed):
    limits = LatticeLimits((shortest, shortest * ratio), (55.0, 135.0), (4.0, 80.0))
    atoms = limits.atoms(LATTICE_SYSTEMS[system])
    n_atoms = sum(counts)
    if atoms is None or not atoms[0] <= n_atoms <= atoms[1]:
        return
    systems, rows = np.full(50, system), np.tile(counts, (50, 1))
    volumes = VolumeRange(ELEMENTS, limits, by_radii=True).log_volumes(systems, rows)
    assert (volumes[:, 0] < volumes[:, 1]).all()
    u = np.random.default_rng(seed).random((50, 6))
    cells, log_det = limits.parameters(systems, volumes, u)
    assert np.isfinite(log_det).all()
    for cell in np.column_stack([np.round(cells[:, :3], 4), np.round(cells[:, 3:], 3)]):
        assert limits.violations(LATTICE_SYSTEMS[system], volumes[0], cell) == []


def test_a_row_does_not_depend_on_its_batch():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 17, (200, len(ELEMENTS))) + (np.arange(len(ELEMENTS)) == 1)
    systems = rng.integers(0, 8, 200)
    volumes = VolumeRange(ELEMENTS, WIDE, by_radii=True)
    together = volumes.log_volumes(systems, counts)
    for i in range(0, 200, 7):
        assert (volumes.log_volumes(systems[i : i + 1], counts[i : i + 1]) == together[i]).all()
        assert (volumes.log_volumes(systems[i:], np.asfortranarray(counts[i:]))[0] == together[i]).all()


def test_radii_hold_nearly_all_real_structures():
    folder = os.environ.get("ACTIVELEARNING_MP")
    if not folder:
        pytest.skip("ACTIVELEARNING_MP, the folder of the Materials Project subset, is not set")
    columns = ["composition", "a", "b", "c", "alpha", "beta", "gamma"]
    with gzip.open(Path(folder) / "materials.csv.gz") as file:
        table = pd.read_csv(file, usecols=columns)
    cosines = np.cos(np.radians(table[columns[4:]].to_numpy()))
    factor = np.sqrt(1.0 - (cosines**2).sum(axis=1) + 2.0 * cosines.prod(axis=1))
    spheres = []
    for text in table["composition"]:
        composition = Composition(pd.io.json.ujson_loads(text))
        radii = {e.symbol: float(e.van_der_waals_radius) for e in composition.elements}
        spheres.append(sum(n * 4 / 3 * np.pi * radii[e.symbol] ** 3 for e, n in composition.items()))
    ratio = table[columns[1:4]].to_numpy().prod(axis=1) * factor / np.array(spheres)
    assert len(ratio) == 22972
    np.testing.assert_allclose(np.quantile(ratio, [0.005, 0.995]), VOLUME_OVER_SPHERES, rtol=5e-3)
