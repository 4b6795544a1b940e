"""The estimate of a MACE's own errors: distances against SciPy's, expected errors against a known law."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

from oracles.potentials.reliability import FORCE_FLOOR, Reliability


@pytest.fixture
def clouds():
    """Features of two elements, 4 each: one wide and tilted, the other narrow; forces; and errors of a known law."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.tensor([[1.0, 0.5, 0, 0], [0, 1.0, 0, 0.3], [0, 0, 0.2, 0], [0, 0, 0, 2.0]])
    first = torch.randn(4000, 4, generator=generator) @ mix + 3.0
    second = 0.1 * torch.randn(4000, 4, generator=generator) - 1.0
    kinds = torch.tensor([0] * 4000 + [1] * 4000)
    forces = torch.randn(8000, 3, generator=generator)
    scale = torch.tensor([0.2, 0.4])[kinds]
    noise = torch.randn(8000, generator=generator).mul(0.1).exp()
    errors = scale * (forces.norm(dim=1) + FORCE_FLOOR).sqrt() * noise
    return torch.cat([first, second]), kinds, forces, errors


def test_distances_are_mahalanobis_per_element(clouds):
    features, kinds = clouds[:2]
    reliability = Reliability.fit(*clouds, 2, shrinkage=0.0)
    found = reliability.distances(features[::400], kinds[::400])
    for k, value in enumerate(found):
        mine = features[kinds == kinds[::400][k]].double().numpy()
        inverse = np.linalg.inv(np.cov(mine.T, bias=True))
        expected = mahalanobis(features[::400][k].numpy(), mine.mean(axis=0), inverse) / 2.0
        assert float(value) == pytest.approx(expected, rel=1e-3)
    whole = reliability.distances(features, kinds)
    assert float(whole.pow(2).mean()) == pytest.approx(1.0, rel=1e-3)


def test_an_element_that_was_never_seen_borrows_the_others_spread(clouds):
    features, _, forces, _ = clouds
    reliability = Reliability.fit(*clouds, 3)
    centre = features.mean(dim=0, keepdim=True)
    third = torch.tensor([2])
    assert float(reliability.distances(centre, third)) < 1e-2
    assert float(reliability.distances(centre + 100.0, third)) > 10.0
    assert torch.isfinite(reliability.force_errors(centre, third, forces[:1])).all()


def test_a_single_atom_of_an_element_does_not_break_the_fit(clouds):
    features, kinds, forces, errors = clouds
    kinds = kinds.clone()
    kinds[0] = 2
    reliability = Reliability.fit(features, kinds, forces, errors, 3)
    assert torch.isfinite(reliability.force_errors(features, kinds, forces)).all()


def test_features_that_never_vary_are_no_reason_for_a_failure(clouds):
    features, kinds, forces, errors = clouds
    features = torch.cat([features, torch.full((len(features), 2), 7.0)], dim=1)
    distances = Reliability.fit(features, kinds, forces, errors, 2).distances(features, kinds)
    assert torch.isfinite(distances).all()
    assert float(distances.mean()) < 2.0


def test_the_law_of_the_errors_is_recovered(clouds):
    """Errors here are 0.2 and 0.4 times the root of the force, whatever the features."""
    reliability = Reliability.fit(*clouds, 2)
    slope_distance, slope_force = reliability.slopes.tolist()
    assert slope_force == pytest.approx(0.5, abs=0.03)
    assert slope_distance < 0.03
    np.testing.assert_allclose(reliability.offsets.exp(), [0.2, 0.4], rtol=0.1)
    found = reliability.force_errors(*clouds[:3])
    assert float(found.mean()) == pytest.approx(float(clouds[3].mean()), rel=0.05)


def test_errors_that_grow_with_the_distance_are_expected_to_grow_on(clouds):
    features, kinds, forces, errors = clouds
    distances = Reliability.fit(*clouds, 2).distances(features, kinds)
    reliability = Reliability.fit(features, kinds, forces, errors * distances**1.5, 2)
    assert float(reliability.slopes[0]) == pytest.approx(1.5, abs=0.15)
    near = reliability.force_errors(features[:50], kinds[:50], forces[:50])
    far = reliability.force_errors(features[:50] + 20.0, kinds[:50], forces[:50])
    assert (far > 3 * near).all()


def test_errors_that_shrink_with_the_distance_are_not_believed(clouds):
    features, kinds, forces, errors = clouds
    distances = Reliability.fit(*clouds, 2).distances(features, kinds)
    reliability = Reliability.fit(features, kinds, forces, errors / distances, 2)
    assert float(reliability.slopes[0]) == 0.0


def test_rescaling_multiplies_expected_errors(clouds):
    reliability = Reliability.fit(*clouds, 2)
    assert reliability.threshold == float("inf")
    rescaled = reliability.rescaled(1.7, 0.3)
    torch.testing.assert_close(
        rescaled.force_errors(*clouds[:3]), 1.7 * reliability.force_errors(*clouds[:3])
    )
    assert rescaled.threshold == 0.3


def test_it_is_kept_as_plain_tensors(clouds, tmp_path):
    reliability = Reliability.fit(*clouds, 2)
    torch.save(reliability.to_dict(), tmp_path / "r.pt")
    again = Reliability.from_dict(torch.load(tmp_path / "r.pt", weights_only=True))
    assert torch.equal(again.force_errors(*clouds[:3]), reliability.force_errors(*clouds[:3]))
