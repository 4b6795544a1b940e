"""Displacements, hops, drift and Nernst-Einstein against sums by hand and published figures."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ion_walks import brownian

from oracles.dynamics.analysis import (
    CM2_PER_S,
    count_hops,
    drift,
    log10_error,
    mean_squared_displacement,
    nernst_einstein,
    remove_drift,
    rms_displacement,
)


@settings(max_examples=30)
@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 2**31))
def test_msd_by_fft_equals_the_sum_over_all_origins(n_frames, n_ions, seed):
    positions = np.random.default_rng(seed).normal(5.0, 3.0, size=(n_frames, n_ions, 3))
    brute = [
        np.mean([((positions[t + k] - positions[t]) ** 2).sum(-1).mean() for t in range(n_frames - k)])
        for k in range(n_frames)
    ]
    np.testing.assert_allclose(mean_squared_displacement(positions), brute, rtol=1e-9, atol=1e-9)


def test_msd_is_exact_far_from_the_origin():
    walk = brownian(np.random.default_rng(0), 200, 4, 1e-4, 0.01)
    near, far = mean_squared_displacement(walk), mean_squared_displacement(walk + 1e4)
    np.testing.assert_allclose(far, near, rtol=1e-5, atol=1e-10)


def test_uniform_motion_has_a_quadratic_msd():
    velocity = np.array([1.0, -2.0, 0.5])
    positions = np.arange(50)[:, None, None] * velocity
    np.testing.assert_allclose(
        mean_squared_displacement(positions), np.arange(50) ** 2 * (velocity**2).sum(), rtol=1e-9, atol=1e-8
    )


def test_hops_are_counted_net_of_vibration_and_return():
    positions = np.zeros((5, 4, 3))
    positions[:, 0] = [[0, 0, 0], [0.5, 0, 0], [0, 0.7, 0], [0, 0, 0.9], [0.8, 0.8, 0]]  # vibrates
    positions[2, 1] = [3, 0, 0]  # goes and comes back
    positions[2:, 2] = [0, 2.5, 0]  # one hop, a short one
    positions[3:, 3] = [6, 0, 0]  # 4 = (6 / 3)² steps of a random walk
    assert count_hops(positions, 3.0) == pytest.approx(5.0)


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
    np.testing.assert_allclose(remove_drift(moving, drift(moving, framework, masses)), expected, atol=1e-10)
    saved = moving.astype(np.float32)
    single = remove_drift(saved, drift(saved, framework, masses))
    assert single.dtype == np.float32  # saved samples are in single precision, and long
    np.testing.assert_allclose(single, expected, atol=1e-5)


def test_largest_root_mean_square_displacement():
    positions = np.full((3, 2, 3), 7.0)
    positions[1, 1] += [3.0, 4.0, 0.0]  # one of two moves by 5 and comes back
    assert rms_displacement(positions - positions[0]) == pytest.approx(5.0 / np.sqrt(2))
