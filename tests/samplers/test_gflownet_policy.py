"""Mixtures, masks and policies."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Beta, Categorical, Independent, MixtureSameFamily

from samplers.gflownet.mixture import MAX_CONCENTRATION, BetaMixture, draw
from samplers.gflownet.policy import BackwardPolicy, ForwardPolicy, masked_log_softmax


def random_mixture(n, k, c, seed=0, scale=2.0):
    raw = scale * torch.randn(n, k + 2 * k * c, generator=torch.Generator().manual_seed(seed))
    return BetaMixture.from_raw(raw, k, c)


def test_density_agrees_with_torch_distributions():
    mixture = random_mixture(5, 4, 3)
    u = torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    theirs = MixtureSameFamily(
        Categorical(logits=mixture.log_weights), Independent(Beta(mixture.alpha, mixture.beta), 1)
    )
    drawn = torch.ones(5, 3, dtype=torch.bool)
    assert torch.allclose(mixture.log_prob(u, drawn), theirs.log_prob(u))


def test_coordinates_not_drawn_are_left_out():
    mixture = random_mixture(4, 3, 2)
    u = torch.rand(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    drawn = torch.tensor([[True, False]] * 4)
    one = BetaMixture(mixture.log_weights, mixture.alpha[:, :, :1], mixture.beta[:, :, :1])
    assert torch.allclose(mixture.log_prob(u, drawn), one.log_prob(u[:, :1], drawn[:, :1]))
    nothing = torch.zeros(4, 2, dtype=torch.bool)
    assert torch.allclose(mixture.log_prob(u, nothing), torch.zeros(4, dtype=torch.float64))


@given(st.integers(0, 1000), st.sampled_from([1.0, 10.0, 1000.0]))
def test_density_is_bounded_and_its_gradient_finite(seed, scale):
    raw = scale * torch.randn(3, 4 + 8, generator=torch.Generator().manual_seed(seed))
    raw.requires_grad_()
    mixture = BetaMixture.from_raw(raw, 4, 1)
    assert (mixture.alpha >= 1.0).all()
    assert (mixture.alpha + mixture.beta <= MAX_CONCENTRATION + 2.0 + 1e-6).all()
    u = torch.tensor([[1e-6], [0.5], [1 - 1e-6]], dtype=torch.float64)
    log_prob = mixture.log_prob(u, torch.ones(3, 1, dtype=torch.bool))
    assert torch.isfinite(log_prob).all()
    assert (log_prob < torch.tensor(MAX_CONCENTRATION + 2.0).log()).all()
    log_prob.sum().backward()
    assert torch.isfinite(raw.grad).all()


def test_one_coordinate_starts_near_uniform():
    mixture = BetaMixture.from_raw(BetaMixture.initial_raw(8, 1)[None], 8, 1)
    u = torch.linspace(0.01, 0.99, 501, dtype=torch.float64)[:, None]
    wide = BetaMixture(
        *(x.expand(501, *x.shape[1:]) for x in (mixture.log_weights, mixture.alpha, mixture.beta))
    )
    assert wide.log_prob(u, torch.ones(501, 1, dtype=torch.bool)).abs().max() < 0.15


def test_components_start_apart_in_every_coordinate():
    mixture = BetaMixture.from_raw(BetaMixture.initial_raw(8, 6)[None], 8, 6)
    modes = ((mixture.alpha - 1) / (mixture.alpha + mixture.beta - 2))[0]
    for i in range(6):
        assert len(modes[:, i].unique()) == 8
    columns = {tuple(modes[:, i].tolist()) for i in range(6)}
    assert len(columns) == 6


def test_draws_follow_the_density():
    mixture = random_mixture(1, 3, 1, seed=3)
    n = 4000
    many = BetaMixture(
        *(x.expand(n, *x.shape[1:]) for x in (mixture.log_weights, mixture.alpha, mixture.beta))
    )
    draws = many.sample(torch.Generator().manual_seed(0)).squeeze(1).sort().values
    weights = mixture.log_weights.exp()[0]
    components = Beta(mixture.alpha[0, :, 0], mixture.beta[0, :, 0])
    grid = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    cdf = (components.log_prob(grid[:, None]).exp() @ weights).cumsum(0) / 20000
    at = cdf[(draws * 20000).long().clamp(max=19999)]
    distance = (at - (torch.arange(n, dtype=torch.float64) + 0.5) / n).abs().max()
    assert distance < 1.95 / n**0.5  # Kolmogorov-Smirnov, level 0.001


def test_draw_never_takes_weight_zero_and_follows_the_weights():
    weights = torch.tensor([[0.0, 1.0, 0.0, 3.0, 0.0]], dtype=torch.float64).expand(20000, 5)
    counts = torch.bincount(draw(weights, torch.Generator().manual_seed(0)), minlength=5)
    assert counts[[0, 2, 4]].tolist() == [0, 0, 0]
    assert counts[1].item() / 20000 == pytest.approx(0.25, abs=0.02)


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4).filter(any), min_size=1, max_size=5))
def test_masked_actions_have_no_probability(rows):
    mask = torch.tensor(rows)
    kept = mask.clone()
    logits = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
    log_prob = masked_log_softmax(logits, mask)
    assert torch.equal(log_prob.exp() > 0, mask)
    assert torch.allclose(log_prob.exp().sum(dim=1), torch.ones(len(rows)))
    assert torch.equal(mask, kept)


def test_policies_start_uniform_over_allowed_actions():
    generator = torch.Generator().manual_seed(0)
    forward = ForwardPolicy(3, 4, 0, hidden=(8,), n_components=2)
    backward = BackwardPolicy(3, 4, hidden=())
    for policy in (forward, backward):
        policy.reset(generator)
    inputs = torch.randn(2, 3, generator=generator)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    expected = mask / mask.sum(dim=1, keepdim=True)
    assert torch.allclose(forward.log_actions(forward(inputs), mask).exp(), expected)
    assert torch.allclose(backward(inputs, mask).exp(), expected)


def test_making_a_policy_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    policy = ForwardPolicy(3, 4, 2, hidden=(8,), n_components=2)
    policy.reset(torch.Generator().manual_seed(0))
    assert torch.equal(torch.random.get_rng_state(), before)
