"""The estimate of a MACE's own errors: distances against SciPy's, calibration against a known law."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

from oracles.potentials.reliability import Reliability


@pytest.fixture
def clouds():
    """Features of two elements, 4 each: one wide and tilted, the other narrow."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.tensor([[1.0, 0.5, 0, 0], [0, 1.0, 0, 0.3], [0, 0, 0.2, 0], [0, 0, 0, 2.0]])
    first = torch.randn(4000, 4, generator=generator) @ mix + 3.0
    second = 0.1 * torch.randn(4000, 4, generator=generator) - 1.0
    return torch.cat([first, second]), torch.tensor([0] * 4000 + [1] * 4000)


def test_distances_are_mahalanobis_per_element(clouds):
    features, kinds = clouds
    reliability = Reliability.fit(features, kinds, 2, shrinkage=0.0)
    found = reliability.distances(features[::400], kinds[::400])
    for k, value in enumerate(found):
        mine = features[kinds == kinds[::400][k]].double().numpy()
        inverse = np.linalg.inv(np.cov(mine.T, bias=True) + 1e-12 * np.eye(4))
        expected = mahalanobis(features[::400][k].numpy(), mine.mean(axis=0), inverse) / 2.0
        assert float(value) == pytest.approx(expected, rel=1e-3)
    whole = reliability.distances(features, kinds)
    assert float(whole.pow(2).mean()) == pytest.approx(1.0, rel=1e-3)


def test_an_element_that_was_never_seen_borrows_the_others_spread(clouds):
    features, kinds = clouds
    reliability = Reliability.fit(features, kinds, 3)
    centre = features.mean(dim=0, keepdim=True)
    third = torch.tensor([2])
    assert float(reliability.distances(centre, third)) < 1e-2
    assert float(reliability.distances(centre + 100.0, third)) > 10.0


def test_a_single_atom_of_an_element_does_not_break_the_fit(clouds):
    features, kinds = clouds
    kinds = kinds.clone()
    kinds[0] = 2
    reliability = Reliability.fit(features, kinds, 3)
    assert torch.isfinite(reliability.distances(features, kinds)).all()


def test_features_that_never_vary_are_no_reason_for_a_failure(clouds):
    features, kinds = clouds
    features = torch.cat([features, torch.full((len(features), 2), 7.0)], dim=1)
    distances = Reliability.fit(features, kinds, 2).distances(features, kinds)
    assert torch.isfinite(distances).all()
    assert float(distances.mean()) < 2.0


def test_calibration_recovers_a_power_law(clouds):
    features, kinds = clouds
    generator = torch.Generator().manual_seed(1)
    distances = torch.rand(20_000, generator=generator) * 4 + 0.5
    # Errors scatter about their expectation, as absolute values of normal deviates do.
    noise = torch.randn(20_000, generator=generator).abs() / np.sqrt(2 / np.pi)
    errors = 0.05 * distances**1.5 * noise
    reliability = Reliability.fit(features, kinds, 2).calibrated(distances, errors, threshold=0.25)
    slope, intercept = reliability.exponents.tolist()
    assert slope == pytest.approx(1.5, abs=0.05)
    assert np.exp(intercept) == pytest.approx(0.05, rel=0.05)
    assert reliability.threshold == 0.25
    far = features[:5] + 50.0
    assert (
        reliability.force_errors(far, kinds[:5]) > reliability.force_errors(features[:5], kinds[:5])
    ).all()


def test_few_held_out_atoms_do_not_calibrate(clouds):
    reliability = Reliability.fit(*clouds, 2)
    with pytest.raises(ValueError, match="at least 100 held-out atoms, not 99"):
        reliability.calibrated(torch.ones(99), torch.ones(99), 0.25)


def test_it_is_kept_as_plain_tensors(clouds, tmp_path):
    reliability = Reliability.fit(*clouds, 2)
    torch.save(reliability.to_dict(), tmp_path / "r.pt")
    again = Reliability.from_dict(torch.load(tmp_path / "r.pt", weights_only=True))
    features, kinds = clouds
    assert torch.equal(again.force_errors(features, kinds), reliability.force_errors(features, kinds))
