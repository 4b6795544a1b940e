"""Descriptors and features against pymatgen and sums written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Composition, Element, Lattice, Structure

from activelearning.candidate import CrystalCandidate
from activelearning.crystals.descriptors import LATTICE_NAMES
from activelearning.crystals.features import DESCRIPTOR_NAMES, CrystalFeatures, descriptor_table
from activelearning.crystals.lattice import LatticeLimits

LIMITS = LatticeLimits((2.5, 30.0), (55.0, 135.0), (4.0, 80.0))
ELEMENTS = ("Li", "P", "S", "Cl")


def column(table, name):
    return table[:, DESCRIPTOR_NAMES.index(name)]


@pytest.fixture(scope="module")
def crystals():
    rng = np.random.default_rng(0)
    made = []
    for _ in range(60):
        present = rng.permutation(4)[: rng.integers(1, 5)]
        composition = {ELEMENTS[i]: int(rng.integers(1, 12)) for i in present}
        lengths = rng.uniform(4, 12, 3)
        angles = rng.uniform(75, 105, 3)
        made.append(CrystalCandidate(int(rng.integers(1, 231)), composition, (*lengths, *angles)))
    return made


@pytest.fixture(scope="module")
def table(crystals):
    return descriptor_table(
        [c.composition for c in crystals], [c.space_group for c in crystals], [c.lattice for c in crystals]
    )


def test_names_are_unique_and_match_the_columns(table):
    assert table.shape == (60, len(DESCRIPTOR_NAMES))
    assert len(set(DESCRIPTOR_NAMES)) == len(DESCRIPTOR_NAMES)
    assert np.isfinite(table).all()


def test_lattice_descriptors_agree_with_pymatgen(crystals, table):
    volumes = [Lattice.from_parameters(*c.lattice).volume for c in crystals]
    np.testing.assert_allclose(column(table, "volume"), volumes, rtol=1e-10)
    for crystal, density in zip(crystals, column(table, "density"), strict=True):
        species = [s for s, n in crystal.composition.items() for _ in range(n)]
        coordinates = np.zeros((len(species), 3))
        structure = Structure(Lattice.from_parameters(*crystal.lattice), species, coordinates)
        assert density == pytest.approx(float(structure.density), rel=1e-6)


def test_composition_statistics_agree_with_sums_written_out(crystals, table):
    for i, crystal in enumerate(crystals):
        amounts = dict(crystal.composition)
        total = sum(amounts.values())
        chi = {s: Element(s).X for s in amounts}
        mean = sum(n * chi[s] for s, n in amounts.items()) / total
        assert column(table, "electronegativity_mean")[i] == pytest.approx(mean)
        deviation = sum(n * abs(chi[s] - mean) for s, n in amounts.items()) / total
        assert column(table, "electronegativity_deviation")[i] == pytest.approx(deviation, abs=1e-12)
        assert column(table, "electronegativity_range")[i] == pytest.approx(
            max(chi.values()) - min(chi.values()), abs=1e-12
        )
        assert column(table, "mass_mean")[i] == pytest.approx(Composition(amounts).weight / total)
        assert column(table, "fraction_Li")[i] == pytest.approx(amounts.get("Li", 0) / total)


def test_fractional_amounts_and_any_element():
    table = descriptor_table(
        [{"Li": 6.4, "La": 3, "Zr": 1.4, "Ta": 0.6, "O": 12}], [230], [[12.9] * 3 + [90] * 3]
    )
    assert column(table, "n_atoms")[0] == pytest.approx(23.4)
    assert column(table, "is_centrosymmetric")[0] == 1
    assert column(table, "centering_I")[0] == 1
    assert column(table, "multiplicity")[0] == 96


def test_a_row_of_descriptors_is_the_same_bit_for_bit_in_any_batch():
    rng = np.random.default_rng(1)
    known = [e.symbol for e in map(Element.from_Z, range(1, 100))]
    compositions = [
        {str(s): float(rng.uniform(0.2, 12)) for s in rng.choice(known, rng.integers(1, 9), replace=False)}
        for _ in range(150)
    ]
    groups = rng.integers(1, 231, 150).tolist()
    cells = np.column_stack([rng.uniform(3, 12, (150, 3)), rng.uniform(75, 105, (150, 3))])
    together = descriptor_table(compositions, groups, cells)
    for i in range(150):
        assert (descriptor_table([compositions[i]], [groups[i]], cells[i]) == together[i]).all()
    part = slice(40, 47)
    assert (descriptor_table(compositions[part], groups[part], cells[part]) == together[part]).all()
    bare = descriptor_table(compositions, groups, None)
    names = [name for name in DESCRIPTOR_NAMES if name not in LATTICE_NAMES]
    assert bare.shape == (150, len(names))
    assert (bare == together[:, [DESCRIPTOR_NAMES.index(name) for name in names]]).all()
    assert {"volume", "a", "density"} & set(names) == set()


def test_ionicity_and_norms_agree_with_sums_written_out(crystals, table):
    for i, crystal in enumerate(crystals):
        x = {s: n / crystal.n_atoms for s, n in crystal.composition.items()}
        ionic = sum(
            x[s] * x[t] * (1 - np.exp(-((Element(s).X - Element(t).X) ** 2) / 4)) for s in x for t in x
        )
        assert column(table, "ionicity")[i] == pytest.approx(ionic, abs=1e-12)
        for p in (2, 3):
            norm = sum(f**p for f in x.values()) ** (1 / p)
            assert column(table, f"fraction_norm_{p}")[i] == pytest.approx(norm)
        assert column(table, "entropy")[i] == pytest.approx(
            -sum(f * np.log(f) for f in x.values()), abs=1e-12
        )


def test_no_crystals_give_no_rows():
    assert descriptor_table([], [], np.zeros((0, 6))).shape == (0, len(DESCRIPTOR_NAMES))


@pytest.mark.parametrize(
    ("composition", "lattice", "message"),
    [
        ({"Xx": 1}, [5, 5, 5, 90, 90, 90], "Xx"),
        ({"Li": 0.0}, [5, 5, 5, 90, 90, 90], "positive"),
        ({}, [5, 5, 5, 90, 90, 90], "empty"),
        ({"Li": 1}, [5, 5, 5, 130, 130, 130], "closes no cell"),
    ],
)
def test_wrong_input_is_refused(composition, lattice, message):
    with pytest.raises(ValueError, match=message):
        descriptor_table([composition], [1], [lattice])


def features_of(elements=ELEMENTS):
    return CrystalFeatures(elements, LIMITS, max_atoms=48, max_elements=4)


def test_features_lie_in_the_unit_cube(crystals):
    features = features_of()
    values = features(crystals)
    assert values.shape == (60, len(features.names))
    assert values.dtype == np.float64
    assert ((values >= 0) & (values <= 1)).all()
    assert 30 <= len(features.names) <= 45
    # Each says something; there is none for the d electrons, which none of the elements has.
    assert (values.std(axis=0) > 0).all()
    assert "d_electrons_mean" not in features.names


def test_a_row_is_the_same_bit_for_bit_in_any_batch(crystals):
    features = features_of()
    together = features(crystals)
    for i, crystal in enumerate(crystals):
        assert (features([crystal])[0] == together[i]).all()
    assert (features(crystals[::-1])[::-1] == together).all()


def test_features_of_a_crystal_worked_out_by_hand():
    features = features_of()
    crystal = CrystalCandidate(225, {"Li": 4, "Cl": 4}, (5.13, 5.13, 5.13, 90, 90, 90))
    row = dict(zip(features.names, features([crystal])[0], strict=True))
    assert row["fraction_Li"] == row["fraction_Cl"] == 0.5
    # Li and Cl are the ends of the space's electronegativities: mean and deviation are in the middle and at the top.
    assert row["electronegativity_mean"] == pytest.approx(0.5)
    assert row["electronegativity_deviation"] == pytest.approx(1.0)
    assert row["entropy"] == pytest.approx(0.5)
    assert row["is_centrosymmetric"] == row["point_group_order"] == row["multiplicity"] == 1.0
    assert row["cos_alpha"] == row["cos_gamma"] == pytest.approx(0.5)
    assert row["anisotropy"] == 0.0
    assert row["volume_per_atom"] == pytest.approx(np.log(5.13**3 / 8 / 4) / np.log(20))


def test_many_elements_have_no_fractions():
    from activelearning.crystals.elements import element_rows

    features = features_of(tuple(element_rows())[:40])
    assert not any(name.startswith("fraction_") for name in features.names)


def test_one_element_has_no_elemental_statistics():
    features = features_of(("Cu",))
    row = features([CrystalCandidate(225, {"Cu": 4}, (3.61, 3.61, 3.61, 90, 90, 90))])
    assert row.shape == (1, len(features.names))
    assert not any(name.endswith(("_mean", "_deviation")) for name in features.names)


def test_foreign_element_is_refused():
    with pytest.raises(ValueError, match="not Na"):
        features_of()([CrystalCandidate(225, {"Na": 4, "Cl": 4}, (5.64, 5.64, 5.64, 90, 90, 90))])
