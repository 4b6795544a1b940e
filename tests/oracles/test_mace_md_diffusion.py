"""Self-diffusion and its error on walks of known diffusion: coverage, bounds, windows, independent estimates."""

import math
from dataclasses import replace

import numpy as np
import pytest
from ion_walks import KINDS, brownian, cages, hopping, vibration, walk

from oracles.dynamics.analysis import mean_squared_displacement
from oracles.dynamics.collective import collective_diffusion, walker_error
from oracles.dynamics.diffusion import FitSettings, concertedness, most_hops, self_diffusion

FIT = FitSettings()
Z90 = 1.645  # of a two-sided interval of 90 %


def coverage(kind, n_ions, distance, n_frames, n_repeats):
    """Share of repeats whose 90 % interval holds the truth, the mean error of ln D, and how many were bounds.

    Args:
        distance: Mean-squared displacement expected at the end of the run, Å².
    """
    frame_ps = 0.05
    d = distance / (6.0 * n_frames * frame_ps)
    inside, errors, n_bounds = [], [], 0
    for repeat in range(n_repeats):
        rng = np.random.default_rng([repeat, n_ions, n_frames])
        found, _ = self_diffusion(walk(kind, rng, n_frames, n_ions, d, frame_ps), frame_ps, FIT)
        if found.is_bound:
            n_bounds += 1
            continue
        error = math.log(found.value / d)
        errors.append(error)
        inside.append(abs(error) < Z90 * found.relative_error)
    return np.mean(inside), np.mean(errors), n_bounds


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_interval_holds_the_truth_in_nine_of_ten_runs(kind):
    """Of 400 runs of one length and 24 ions, whatever the ions' way of moving."""
    held, bias, n_bounds = coverage(kind, 24, 60.0, 300, 400)
    assert n_bounds < 24
    assert 0.85 <= held <= 0.95
    assert abs(bias) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize(
    ("n_ions", "distance", "n_frames"), [(8, 60.0, 300), (16, 30.0, 300), (48, 240.0, 800)]
)
def test_the_interval_holds_the_truth_for_few_and_many_ions_and_lengths(kind, n_ions, distance, n_frames):
    held, bias, _ = coverage(kind, n_ions, distance, n_frames, 400)
    assert 0.83 <= held <= 0.965  # 0.85 to 0.95 less and more 1.2 standard errors of 400 repeats
    assert abs(bias) < 0.15


def test_longer_runs_are_better_known():
    """The error falls as one over the square root of the time: the window does not grow with the run."""
    errors = []
    for n_frames in (1000, 4000):
        found = [
            self_diffusion(brownian(np.random.default_rng(s), n_frames, 24, 0.5, 0.1), 0.1, FIT)[0]
            for s in range(10)
        ]
        errors.append(np.mean([f.relative_error for f in found]))
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.3)


def test_the_window_leaves_a_cage_behind():
    """Ions that rattle fast in a cage of 2.2 Å: where a window starts by height alone, it takes that for diffusion."""
    moved, rigid = [], []
    for seed in range(20):
        positions = walk("caged", np.random.default_rng(seed), 400, 48, 0.2, 0.2)
        for values, settings in ((moved, FIT), (rigid, FitSettings(curvature=1e9))):
            found, _ = self_diffusion(positions, 0.2, replace(settings, stop=2.0))
            values.append(found)
    assert np.mean([f.value for f in rigid]) > 1.3 * 0.2
    assert np.mean([f.value for f in moved]) == pytest.approx(0.2, rel=0.1)
    assert np.mean([f.window[0] for f in moved]) > 2.0 * np.mean([f.window[0] for f in rigid])


def test_ions_that_hop_as_one_are_counted_once():
    rng = np.random.default_rng(0)
    alone = hopping(rng, 2000, 24, 0.5, 0.1)
    pairs = hopping(rng, 2000, 24, 0.5, 0.1, together=2)
    fours = hopping(rng, 2000, 24, 0.5, 0.1, together=4)
    found = [concertedness(positions, 20) for positions in (alone, pairs, fours)]
    assert found == pytest.approx([1.0, 2.0, 4.0], rel=0.25)


@pytest.mark.parametrize("n_ions", [4, 10])
@pytest.mark.parametrize("rate", [0.02, 0.06, 0.2])
def test_a_bound_is_above_the_truth_in_19_of_20_runs(rate, n_ions):
    """Few or many hops, refused for whatever reason: counted over all runs, values among them, so that the choice
    between a bound and a value does not count against the bound."""
    d, wrong = rate * 9.0 / 6.0, 0
    for repeat in range(300):
        rng = np.random.default_rng([repeat, n_ions])
        found, _ = self_diffusion(hopping(rng, 201, n_ions, d, 0.05), 0.05, FIT)
        wrong += found.is_bound and found.value < d
    assert wrong / 300 < 0.05 + 2.0 * math.sqrt(0.05 * 0.95 / 300)


def test_most_hops_is_poissons_for_few_and_a_walks_for_many():
    assert most_hops(0.0, 10) == pytest.approx(-math.log(0.05))
    assert most_hops(0.0, 10, together=2.0) == pytest.approx(2.0 * -math.log(0.05))
    rng = np.random.default_rng(0)
    # 4 Brownian ions that should have made 30 hops each: in 19 of 20 cases the limit is above that.
    seen = (rng.normal(0.0, math.sqrt(30.0 / 3.0), (4000, 4, 3)) ** 2).sum(axis=(1, 2))
    limits = np.array([most_hops(n, 4) for n in seen])
    assert np.mean(limits > 120.0) == pytest.approx(0.95, abs=0.03)


def test_still_and_vibrating_ions_give_the_bound_of_no_hops():
    for positions in (np.zeros((101, 5, 3)), vibration(np.random.default_rng(0), 101, 5, amplitude=0.2)):
        found, _ = self_diffusion(positions, 0.1, FIT)
        assert found.is_bound
        assert found.relative_error is None
        assert found.window is None
        assert found.n_hops == 0
        assert found.value == pytest.approx(-math.log(0.05) * 9.0 / (6 * 5 * 10.0))


def test_too_little_gain_and_too_few_hops_are_refused():
    slow = brownian(np.random.default_rng(3), 401, 16, 0.2, 0.01)  # 4 ps: 1.2 Å²/ps, 2.4 Å² in half the run
    found, _ = self_diffusion(slow, 0.01, FIT)
    assert found.is_bound
    assert "less than 4.5" in found.reason
    few = brownian(np.random.default_rng(3), 401, 2, 0.5, 0.1)
    found, _ = self_diffusion(few, 0.1, FitSettings(min_hops=1e3))
    assert found.is_bound
    assert "effective hops, less than 1000" in found.reason


def test_a_displacement_that_curves_to_the_end_is_bounded():
    """Ions of which most rattle in cages to the end: every window that gains enough is curved."""
    positions = walk("caged", np.random.default_rng(1), 300, 200, 0.08, 0.1)
    settings = FitSettings(min_gain=4.0)
    found, _ = self_diffusion(positions, 0.1, settings)
    straight, _ = self_diffusion(positions, 0.1, replace(settings, curvature=1e9))
    assert found.is_bound
    assert "curves" in found.reason
    assert found.value > 0.08
    assert straight.value > 0.08 * (1.0 + Z90 * straight.relative_error)  # what a curved window would say


@pytest.mark.parametrize("jump_ps", [1.0, 5.0])
def test_ions_that_never_leave_their_cages_are_bounded(jump_ps):
    """Their displacement gains what the fit wants, and then no more."""
    bounds = 0
    for seed in range(40):
        positions = cages(np.random.default_rng(seed), 1000, 24, 0.05, jump_ps=jump_ps)
        found, msd = self_diffusion(positions, 0.05, FIT)
        assert msd[:500].max() > 9.0
        bounds += found.is_bound
    assert bounds >= 38


def test_one_ion_has_the_error_of_he_et_al():
    found, _ = self_diffusion(
        brownian(np.random.default_rng(0), 2000, 1, 0.5, 0.1), 0.1, FitSettings(min_hops=1)
    )
    assert found.relative_error == pytest.approx(3.43 / math.sqrt(found.n_effective_hops) + 0.04)
    assert found.he_error == found.relative_error


def test_diffusion_needs_ions_and_time():
    with pytest.raises(ValueError, match="needs ions and time"):
        self_diffusion(np.zeros((1, 3, 3)), 0.1, FIT)


def test_msd_agrees_with_tidynamics():
    import tidynamics

    positions = walk("hopping", np.random.default_rng(0), 400, 6, 0.4, 0.1)
    theirs = np.mean([tidynamics.msd(positions[:, ion]) for ion in range(6)], axis=0)
    np.testing.assert_allclose(mean_squared_displacement(positions), theirs, rtol=1e-8, atol=1e-8)


def test_kinisi_agrees():
    """The Bayesian estimate on the same walk: within the two errors, and of a similar error."""
    pytest.importorskip("kinisi")
    from oracles.mace_md.cross_check import bayesian_diffusion

    d, frame_ps = 0.5, 0.1
    ions = hopping(np.random.default_rng(5), 600, 24, d, frame_ps)
    framework = np.zeros((600, 3, 3))
    ours, _ = self_diffusion(ions, frame_ps, FIT)
    positions = np.concatenate([ions, framework], axis=1)
    mask = np.arange(27) >= 24
    value, error = bayesian_diffusion(positions, mask, 40.0 * np.eye(3), frame_ps, ours.window)
    together = math.hypot(error / value, ours.relative_error)
    assert abs(math.log(value / ours.value)) < 2.0 * together
    assert abs(math.log(value / d)) < 2.5 * together
    assert 0.2 < (error / value) / ours.relative_error < 2.0


def test_collective_diffusion_of_independent_and_of_concerted_ions():
    """The Haven ratio is one for independent ions, and 1/2 where pairs move together."""
    for together, haven in ((1, 1.0), (2, 0.5)):
        ratios, errors = [], []
        for seed in range(30):
            rng = np.random.default_rng([seed, together])
            positions = hopping(rng, 1500, 16, 0.5, 0.1, together=together)
            own, _ = self_diffusion(positions, 0.1, FIT)
            found = collective_diffusion(positions, 0.1, own.window, own.value, own.relative_error)
            ratios.append(math.log(found.haven_ratio / haven))
            errors.append(found.haven_error)
        inside = np.abs(ratios) < Z90 * np.array(errors)
        assert np.median(ratios) == pytest.approx(0.0, abs=0.15)
        assert np.mean(inside) > 0.75


def test_the_error_of_one_walker_is_that_of_many_such_walkers():
    slopes = []
    for seed in range(400):
        msd = mean_squared_displacement(brownian(np.random.default_rng(seed), 500, 1, 0.5, 1.0))
        slopes.append(np.polyfit(np.arange(20, 81), msd[20:81], 1)[0])
    assert walker_error(500, 20, 80) == pytest.approx(np.std(slopes) / np.mean(slopes), rel=0.12)
    assert np.mean(slopes) == pytest.approx(3.0, rel=0.05)
