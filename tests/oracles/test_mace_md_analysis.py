"""Validation of the analysis on synthetic walks of known diffusion and on published figures."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.mace_md.analysis import (
    CM2_PER_S,
    FitSettings,
    count_hops,
    diffusion,
    log10_error,
    mean_squared_displacement,
    nernst_einstein,
    remove_drift,
    rms_displacement,
)

FIT = FitSettings()


def random_walk(n_frames, n_ions, d, frame_ps, seed):
    """Brownian motion with ⟨Δr²⟩ = 6 D t, Å."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0.0, math.sqrt(2.0 * d * frame_ps), size=(n_frames - 1, n_ions, 3))
    return np.concatenate([np.zeros((1, n_ions, 3)), np.cumsum(steps, axis=0)])


def measured(positions, frame_ps):
    """Diffusion of all the particles of a trajectory."""
    msd = mean_squared_displacement(positions)
    return diffusion(msd, count_hops(positions, FIT.hop_distance), frame_ps, positions.shape[1], FIT)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 2**31))
def test_msd_by_fft_equals_the_sum_over_all_origins(n_frames, n_ions, seed):
    positions = np.random.default_rng(seed).normal(5.0, 3.0, size=(n_frames, n_ions, 3))
    brute = [
        np.mean([((positions[t + k] - positions[t]) ** 2).sum(-1).mean() for t in range(n_frames - k)])
        for k in range(n_frames)
    ]
    np.testing.assert_allclose(mean_squared_displacement(positions), brute, rtol=1e-9, atol=1e-9)


def test_msd_is_exact_far_from_the_origin():
    walk = random_walk(200, 4, d=1e-4, frame_ps=0.01, seed=0)
    near, far = mean_squared_displacement(walk), mean_squared_displacement(walk + 1e4)
    np.testing.assert_allclose(far, near, rtol=1e-5, atol=1e-10)


def test_uniform_motion_has_a_quadratic_msd():
    velocity = np.array([1.0, -2.0, 0.5])
    positions = np.arange(50)[:, None, None] * velocity
    np.testing.assert_allclose(
        mean_squared_displacement(positions), np.arange(50) ** 2 * (velocity**2).sum(), rtol=1e-9, atol=1e-8
    )


def test_known_diffusion_is_recovered_without_bias_and_within_its_error():
    d, n_ions = 0.3, 16  # Å²/ps
    found = [measured(random_walk(2001, n_ions, d, 0.05, seed), 0.05) for seed in range(60)]
    assert not any(f.is_bound for f in found)
    values = np.array([f.value for f in found])
    assert np.mean(values) == pytest.approx(d, rel=0.08)
    # One standard error covers about two thirds of the walks, two nearly all; it may be careful, not careless.
    within = [abs(f.value - d) < f.relative_error * f.value for f in found]
    assert np.mean(within) > 0.6
    assert np.mean([abs(f.value - d) < 2 * f.relative_error * f.value for f in found]) > 0.9
    assert np.mean([f.relative_error for f in found]) < 3.0 * np.std(values) / d


def test_vibration_gives_no_diffusion_but_a_poisson_bound():
    rng = np.random.default_rng(0)
    positions = rng.normal(0.0, 0.2, size=(1001, 20, 3))
    found = measured(positions, 0.01)
    assert found.is_bound
    assert found.relative_error is None
    assert found.window is None
    assert found.value == pytest.approx(3.0 * 9.0 / (6 * 20 * 10.0), rel=0.01)  # 3 a² / (6 N t)


def test_still_ions_give_exactly_the_bound_of_no_hops():
    found = measured(np.zeros((101, 5, 3)), 0.1)
    assert found.value == pytest.approx(-math.log(0.05) * 9.0 / (6 * 5 * 10.0))


@pytest.mark.parametrize("rate", [0.02, 0.04, 0.06])
def test_the_bound_covers_the_truth_where_few_hops_were_seen(rate):
    """Ions that hop a = 3 Å at random times: the 95 % bound is above the true D so often (less 1.6 standard errors)."""
    rng = np.random.default_rng(1)
    n_ions, n_frames, frame_ps = 10, 201, 0.05  # 100 times the rate (hops per ps and ion) expected
    d = rate * 9.0 / 6.0
    above = []
    for _ in range(300):
        hops = rng.poisson(rate * frame_ps, size=(n_frames - 1, n_ions))
        steps = np.zeros((n_frames, n_ions, 3))
        for frame, ion in zip(*np.nonzero(hops), strict=True):
            direction = rng.normal(size=3)
            steps[frame + 1, ion] = 3.0 * direction / np.linalg.norm(direction)
        found = measured(np.cumsum(steps, axis=0), frame_ps)
        assert found.is_bound
        above.append(found.value > d)
    assert np.mean(above) >= 0.93


def test_hops_are_counted_net_of_vibration_and_return():
    positions = np.zeros((5, 4, 3))
    positions[:, 0] = [[0, 0, 0], [0.5, 0, 0], [0, 0.7, 0], [0, 0, 0.9], [0.8, 0.8, 0]]  # vibrates
    positions[2, 1] = [3, 0, 0]  # goes and comes back
    positions[2:, 2] = [0, 2.5, 0]  # one hop, a short one
    positions[3:, 3] = [6, 0, 0]  # 4 = (6 / 3)² steps of a random walk
    assert count_hops(positions, 3.0) == pytest.approx(5.0)


def test_too_short_a_gain_is_refused():
    walk = random_walk(401, 16, d=0.2, frame_ps=0.01, seed=3)  # 4 ps: 1.2 Å²/ps, 2.4 Å² in half the run
    assert measured(walk, 0.01).is_bound


def test_nernst_einstein_gives_the_published_unit():
    """20 Li in 1000 Å³ at 600 K with 4.2e-7 cm²/s conduct 0.026 S/cm."""
    assert nernst_einstein(4.2e-7 / CM2_PER_S, 20, 1000.0, 600.0) == pytest.approx(0.026, rel=0.01)


def test_log_error_is_the_derivative():
    assert log10_error(0.1) == pytest.approx((math.log10(1.0 + 1e-6 * 0.1) - 0.0) / 1e-6, rel=1e-5)


def test_drift_of_the_framework_is_removed():
    rng = np.random.default_rng(0)
    masses = np.array([7.0, 7.0, 32.0, 31.0, 35.5])
    framework = np.array([False, False, True, True, True])
    still = rng.normal(size=(20, 5, 3))
    still -= (still[:, framework] * masses[framework, None]).sum(1, keepdims=True) / masses[framework].sum()
    moving = still + np.arange(20)[:, None, None] * np.array([0.3, -0.1, 0.2])
    expected = still - still[0] + still[0]
    np.testing.assert_allclose(remove_drift(moving, framework, masses), expected, atol=1e-10)


def test_largest_root_mean_square_displacement():
    positions = np.full((3, 2, 3), 7.0)
    positions[1, 1] += [3.0, 4.0, 0.0]  # one of two moves by 5 and comes back
    assert rms_displacement(positions) == pytest.approx(5.0 / np.sqrt(2))


def test_diffusion_needs_ions_and_time():
    with pytest.raises(ValueError, match="needs ions and time"):
        measured(np.zeros((1, 3, 3)), 0.1)
