"""Truncated draws from mixtures, and policies in restricted environments, against integrals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import integrate, stats

from activelearning.errors import SamplerError
from activelearning.spaces.box import BoxSpace
from activelearning.spaces.crystal import CrystalSpace
from samplers.gflownet import GFlowNetSampler
from samplers.gflownet.environments import BoxEnvironment, make_environment
from samplers.gflownet.environments.crystal import _Batch
from samplers.gflownet.intervals import Interval, log_uniform_within, uniform_within
from samplers.gflownet.learner import Learner
from samplers.gflownet.mixture import BetaMixture
from samplers.gflownet.settings import LearnerSettings
from samplers.gflownet.trajectories import log_forward, sample_backward, sample_forward, sample_terminal


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def mixture(n, k, c, *, seed=0, scale=2.0):
    """The same random mixture in each of n rows."""
    raw = scale * torch.randn(1, k + 2 * k * c, generator=generator(seed))
    return BetaMixture.from_raw(raw.expand(n, -1), k, c)


def constant(low, high):
    """Fixed bounds, whatever was drawn before."""

    def bounds(j, u):
        return torch.full_like(u[:, 0], low[j]), torch.full_like(u[:, 0], high[j])

    return bounds


def density(m, x):
    """Of the first row's mixture, by scipy, at points `p x c`."""
    parts = [
        w * math.prod(stats.beta.pdf(x[:, i], a[i], b[i]) for i in range(x.shape[1]))
        for w, a, b in zip(m.log_weights[0].exp().numpy(), m.alpha[0].numpy(), m.beta[0].numpy(), strict=True)
    ]
    return torch.as_tensor(sum(parts))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_coordinate_follows_the_truncated_density(seed):
    n, low, high = 5000, 0.3, 0.8
    m = mixture(n, 4, 1, seed=seed)
    drawn = torch.ones(n, 1, dtype=torch.bool)
    u = m.sample_within(constant([low], [high]), drawn, generator()).squeeze(1).sort().values
    assert low <= u.min()
    assert u.max() <= high
    grid = torch.linspace(low, high, 4001, dtype=torch.float64)
    cdf = torch.from_numpy(
        integrate.cumulative_simpson(density(m, grid[:, None]).numpy(), x=grid.numpy(), initial=0)
    )
    at = torch.from_numpy(stats.rankdata(u) / n) - torch.from_numpy(np.interp(u, grid, cdf / cdf[-1]))
    assert at.abs().max() < 1.95 / n**0.5 + 1.0 / n  # Kolmogorov-Smirnov, level 0.001
    # And its density is told: that of the mixture over its mass between the bounds.
    told = m.log_prob_within(u[:, None], constant([low], [high]), drawn)
    assert torch.allclose(told, (density(m, u[:, None]) / cdf[-1]).log(), atol=1e-5)


def test_two_coordinates_are_conditioned_on_one_another():
    m = mixture(1, 5, 2, seed=3)

    def bounds(j, u):
        """A triangle: the second coordinate ends where the first one is."""
        return (torch.full((len(u),), 0.1), torch.full((len(u),), 0.9) if j == 0 else u[:, 0])

    side = 300
    first = 0.1 + 0.8 * (torch.arange(side, dtype=torch.float64) + 0.5) / side
    level = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    x, y = (axis.flatten() for axis in torch.meshgrid(first, level, indexing="ij"))
    u = torch.stack([x, 0.1 + (x - 0.1) * y], dim=1)
    wide = BetaMixture(*(p.expand(len(u), *p.shape[1:]) for p in (m.log_weights, m.alpha, m.beta)))
    told = wide.log_prob_within(u, bounds, torch.ones(len(u), 2, dtype=torch.bool)).exp()
    cells = 0.8 / side * (x - 0.1) / side
    assert (told * cells).sum().item() == pytest.approx(1.0, abs=1e-3)
    # Draws have the mean that the density has.
    n = 20_000
    many = mixture(n, 5, 2, seed=3)
    draws = many.sample_within(bounds, torch.ones(n, 2, dtype=torch.bool), generator())
    assert (draws[:, 1] <= draws[:, 0]).all()
    expected = ((told * cells)[:, None] * u).sum(dim=0)
    assert torch.allclose(draws.mean(dim=0), expected, atol=4 * draws.std(dim=0).max().item() / n**0.5 + 1e-3)


def test_without_bounds_nothing_is_truncated():
    m = mixture(50, 4, 3, seed=5)
    drawn = torch.ones(50, 3, dtype=torch.bool)
    drawn[::2, 1] = False
    u = torch.rand(50, 3, dtype=torch.float64, generator=generator())
    told = m.log_prob_within(u, constant([0.0] * 3, [1.0] * 3), drawn)
    assert torch.allclose(told, m.log_prob(u, drawn), atol=1e-6)


def test_coordinates_not_drawn_are_left_out_and_any_order_will_do():
    m = mixture(40, 4, 3, seed=6)
    drawn = torch.ones(40, 3, dtype=torch.bool)
    drawn[::2, 1] = False
    bounds = constant([0.2, 0.3, 0.4], [0.5, 0.6, 0.7])
    for order in (None, [2, 0, 1]):
        u = m.sample_within(bounds, drawn, generator(), order=order)
        assert (u[~drawn] == 0.5).all()
        inside = (u >= torch.tensor([0.2, 0.3, 0.4])) & (u <= torch.tensor([0.5, 0.6, 0.7]))
        assert inside[drawn].all()
        assert torch.isfinite(m.log_prob_within(u, bounds, drawn, order=order)).all()
        outside = u.clone()
        outside[1, 0] = 0.1
        assert m.log_prob_within(outside, bounds, drawn, order=order)[1] == -math.inf


@example(225, 0.125, 1e-6, 1.0)
@given(
    st.integers(0, 500),
    st.floats(0.0, 1.0),
    st.floats(1e-6, 1.0),
    st.sampled_from([1.0, 10.0, 100.0]),
)
def test_every_interval_can_be_drawn_from(seed, start, width, scale):
    low = start * (1.0 - width)
    high = low + width
    m = mixture(8, 3, 1, seed=seed, scale=scale)
    drawn = torch.ones(8, 1, dtype=torch.bool)
    bounds = constant([low], [high])
    u = m.sample_within(bounds, drawn, generator(seed))
    assert ((low <= u) & (u <= high) | (u - low).abs().lt(1e-12)).all()
    told = m.log_prob_within(u, bounds, drawn)
    assert torch.isfinite(told).all()


def test_far_from_all_mass_draws_are_uniform():
    raw = torch.tensor([[0.0, -3.0, 8.0]])  # mode 0.05, concentration near its largest
    m = BetaMixture.from_raw(raw.expand(2000, -1), 1, 1)
    drawn, bounds = torch.ones(2000, 1, dtype=torch.bool), constant([0.6], [0.9])
    u = m.sample_within(bounds, drawn, generator())
    assert stats.kstest(u.squeeze(1).numpy(), "uniform", args=(0.6, 0.3)).pvalue > 1e-3
    assert torch.allclose(m.log_prob_within(u, bounds, drawn), torch.tensor(-math.log(0.3)).double())


def test_small_masses_in_a_tail_are_told_apart():
    raw = torch.tensor([[0.0, 0.0, -3.0]])  # mode 0.5, concentration 95
    m = BetaMixture.from_raw(raw, 1, 1)
    a, b = m.alpha.item(), m.beta.item()
    for low, high in ((0.78, 0.95), (0.05, 0.22)):
        interval = Interval(*torch.tensor([[low], [high]], dtype=torch.float64))
        mass = interval.mass(m.alpha[:, :, 0], m.beta[:, :, 0]).item()
        exact, _ = integrate.quad(lambda x: stats.beta.pdf(x, a, b), low, high, epsabs=0, epsrel=1e-10)
        assert 1e-12 < exact < 1e-6
        assert mass == pytest.approx(exact, rel=1e-6)


def test_an_empty_interval_is_refused():
    drawn = torch.ones(3, 1, dtype=torch.bool)
    with pytest.raises(SamplerError, match=r"coordinate 0.*from 0.7 to 0.2"):
        mixture(3, 2, 1).sample_within(constant([0.7], [0.2]), drawn, generator())
    with pytest.raises(SamplerError, match="no interval"):
        uniform_within(constant([0.5], [0.5]), drawn, generator())


# ---------------------------------------------------------------- environments


class Slab(BoxEnvironment):
    """A box whose later coordinates must exceed the one before, and lie within [0.2, 0.9]."""

    is_bounded = True

    def bounds(self, states, actions, j, u):
        drawn = self._n_drawn(states)
        before = states.gather(1, (drawn - 1).clamp(min=0)[:, None]).squeeze(1)
        low = torch.where(drawn > 0, before.clamp(min=0.2, max=0.8), 0.2)
        return low, torch.full((len(states),), 0.9, dtype=torch.float64)


def trained(d):
    env = BoxEnvironment(BoxSpace([(0.0, 1.0)] * d))
    learner = Learner(env, LearnerSettings(hidden=(32, 32), n_components=8))
    learner.fit(lambda s: -((s[:, :d] - 0.4) ** 2).sum(dim=1) / 0.05, steps=60, generator=generator())
    return learner


def test_a_restricted_environment_is_sampled_within_its_bounds_by_told_densities():
    learner = trained(2)
    within = learner.within(Slab(BoxSpace([(0.0, 1.0)] * 2)))
    t = within.sample(2000, generator(1))
    x = t.terminal[:, :2]
    assert ((x >= 0.2) & (x <= 0.9)).all()
    assert (x[:, 1] >= x[:, 0].clamp(max=0.8)).all()
    assert torch.allclose(within.log_probability(t.terminal), t.total(t.log_pf), rtol=1e-5, atol=1e-4)
    # The told density is normalised over the part.
    axis = 0.2 + 0.7 * (torch.arange(150, dtype=torch.float64) + 0.5) / 150
    grid = torch.cartesian_prod(axis, axis)
    grid = grid[grid[:, 1] >= grid[:, 0].clamp(max=0.8)]
    states = torch.cat([grid, torch.tensor([[2.0, 0.0]]).expand(len(grid), 2)], dim=1)
    total = within.log_probability(states).exp().sum().item() * (0.7 / 150) ** 2
    assert total == pytest.approx(1.0, abs=0.02)


def test_untrained_and_exploring_draws_keep_the_bounds_too():
    learner = trained(2)
    env = Slab(BoxSpace([(0.0, 1.0)] * 2))
    for policy, exploration in ((None, 0.0), (learner.forward_policy, 0.5)):
        t = sample_forward(env, policy, 500, generator=generator(2), exploration=exploration)
        assert ((t.terminal[:, :2] >= 0.2) & (t.terminal[:, :2] <= 0.9)).all()
        assert torch.isfinite(t.log_pf).all()
    assert (sample_terminal(env, None, 100, generator=generator(3))[:, :2] >= 0.2).all()
    t = sample_forward(env, None, 100, generator=generator(4))
    first = t.drawn.squeeze(1) & (t.states[:, -2] == 0)
    assert torch.allclose(t.log_pf[first], torch.tensor(-math.log(0.7)).double())
    u = uniform_within(constant([0.2], [0.9]), torch.ones(5, 1, dtype=torch.bool), generator())
    assert (
        log_uniform_within(u - 0.7, constant([0.2], [0.9]), torch.ones(5, 1, dtype=torch.bool))
        .eq(-math.inf)
        .all()
    )


def test_restricted_draws_have_no_gradient_and_are_not_trained_on():
    learner = trained(2)
    within = learner.within(Slab(BoxSpace([(0.0, 1.0)] * 2)))
    with pytest.raises(SamplerError, match="can't be trained in"):
        within.fit(lambda s: s[:, 0], steps=1, generator=generator())
    t = sample_backward(
        within.environment, None, within.sample_terminal(4, generator()), generator=generator()
    )
    assert not log_forward(learner.forward_policy, t, within.environment).requires_grad
    with pytest.raises(SamplerError, match="n_state"):
        learner.within(BoxEnvironment(BoxSpace([(0.0, 1.0)] * 3)))


def test_a_sampler_is_not_held_to_another_space():
    space, other = (CrystalSpace(elements=["Li", "O"], max_atoms=8, space_groups=[2]) for _ in range(2))
    sampler = GFlowNetSampler(space, None, hidden=(8,), n_components=2)
    with pytest.raises(SamplerError, match="not to another space"):
        sampler.restricted(other)
    box = GFlowNetSampler(BoxSpace([(0.0, 1.0)]), None, hidden=(8,), n_components=2)
    with pytest.raises(SamplerError, match="not to another space"):
        box.restricted(BoxSpace([(5.0, 9.0)]))


@pytest.mark.parametrize(
    "limits", [{"lengths": (10.0, 20.0), "angles": (75.0, 135.0)}, {"lengths": (4.0, 6.0)}]
)
def test_densities_of_restricted_cells_are_against_the_whole_space(limits):
    """log |det| by differences of the map; and rounding takes no crystal out of what can be drawn."""
    space = CrystalSpace(elements=["Li", "O"], max_atoms=40)
    part = space.restricted(**limits)
    environment = make_environment(part, None)
    t = sample_forward(environment, None, 300, generator=generator(0))
    stage = environment.stages[-1]
    at = t.drawn.any(dim=1)
    states, u, drawn = t.states[at], t.u[at], t.drawn[at].numpy()
    scale = np.repeat([np.ptp(space.limits.lengths), np.ptp(space.limits.angles)], 3)
    for k in range(len(u)):
        free = np.flatnonzero(drawn[k])
        slopes = []
        for j in free:
            ends = []
            for step in (1e-6, -1e-6):
                moved = u[k : k + 1].numpy().copy()
                moved[0, j] += step
                ends.append(stage.parameters(_Batch(environment, states[k : k + 1].numpy()), moved)[0][0])
            slopes.append((ends[0] - ends[1]) / 2e-6 / scale)
        jacobian = np.array(slopes)
        # Of lengths that symmetry makes equal one counts.
        distinct = [
            i for i in range(6) if not any(np.allclose(jacobian[:, i], jacobian[:, j]) for j in range(i))
        ]
        used = [i for i in distinct if jacobian[:, i].any()]
        assert float(t.log_jacobian[at][k]) == pytest.approx(
            -np.linalg.slogdet(jacobian[:, used])[1], abs=1e-4
        )
    sampler = GFlowNetSampler(space, None, hidden=(16,), n_components=4)
    within = sampler.restricted(part)
    assert torch.isfinite(within.log_probability(within.sample(3000, seed=1))).all()


def test_a_restricted_sampler_of_crystals_follows_the_whole():
    space = CrystalSpace(elements=["Li", "O", "S"], max_atoms=12, space_groups=[2, 62, 166, 221, 225])
    sampler = GFlowNetSampler(space, 2, hidden=(32, 32), n_components=4, batch_size=32, steps=10)
    sampler.fit(lambda c, f: space.features(c).mean(dim=1), seed=0)
    part = space.restricted(elements=["Li", "O"], lengths=(3.0, 6.0), crystal_systems=["cubic"])
    within = sampler.restricted(part)
    for proposals in (within.sample(200, seed=1), within.sample_untrained(200, seed=1)):
        for proposal in proposals:
            crystal = proposal.candidate
            part.validate(crystal)
            assert set(crystal.composition) <= {"Li", "O"}
            assert crystal.space_group in (221, 225)
            assert all(3.0 - 1e-4 <= length <= 6.0 + 1e-4 for length in crystal.lattice[:3])
    t = within.learner.sample(100, generator(5))
    told = within.log_probability(within.environment.proposals(t.terminal))
    assert torch.allclose(told, t.total(t.log_pf), atol=0.1)  # the cell read back is rounded
    before = within.sample(10, seed=2)
    sampler.fit(lambda c, f: -5.0 * space.features(c).mean(dim=1), seed=1)
    assert within.sample(10, seed=2) != before
