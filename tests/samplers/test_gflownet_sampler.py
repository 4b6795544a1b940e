"""The GFlowNet as a plug-in: learning within a round's budget, warm starts, states, bad input."""

import io
import math

import pytest
import torch

from activelearning.campaign.sections import construct
from activelearning.candidate import BoxCandidate
from activelearning.contracts import Proposal, Sampler
from activelearning.contracts.registry import load_plugin
from activelearning.errors import ConfigError, SamplerError
from activelearning.spaces.box import BoxSpace
from activelearning.spaces.crystal import CrystalSpace
from samplers.gflownet import GFlowNetSampler
from samplers.gflownet.environments import GridEnvironment
from samplers.gflownet.learner import Learner
from samplers.gflownet.settings import BetaRange, LearnerSettings

SMALL = {"hidden": [32, 32], "n_components": 4, "batch_size": 16, "steps": 6, "warm_steps": 4}


def box_space(d=2):
    return BoxSpace([(0.0, 2.0)] * d)


def crystal_space():
    return CrystalSpace(elements=["Li", "P", "S", "Cl"], max_atoms=12, crystal_systems=["cubic", "hexagonal"])


class Peak:
    """A Gaussian of the features, divided by the fidelity's cost: one over many decades."""

    def __init__(self, space, centre, width=0.1, costs=(1.0, 4.0)):
        self.space = space
        self.centre = torch.as_tensor(centre, dtype=torch.float64)
        self.width = width
        self.log_costs = torch.tensor(costs, dtype=torch.float64).log()
        self.n_calls = 0

    def __call__(self, candidates, fidelities):
        self.n_calls += 1
        x = self.space.features(candidates)
        value = -((x - self.centre) ** 2).sum(dim=1) / (2 * self.width**2)
        return value if fidelities is None else value - self.log_costs[torch.tensor(fidelities)]

    def mean(self, proposals):
        fidelities = [p.fidelity for p in proposals]
        return self([p.candidate for p in proposals], None if None in fidelities else fidelities).exp().mean()


def first_feature(space):
    """A reward that prefers high values of the features' mean, on any space."""
    return lambda candidates, fidelities: 5.0 * space.features(candidates).mean(dim=1)


def saved(sampler):
    """A state through a file, read without code, as the store keeps it."""
    file = io.BytesIO()
    torch.save(sampler.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def test_is_found_by_name_and_keeps_the_contract():
    assert load_plugin("samplers", "gflownet") is GFlowNetSampler
    assert isinstance(GFlowNetSampler(box_space(), 2, **SMALL), Sampler)


def test_learns_a_peak_over_many_decades_within_a_round():
    space = BoxSpace([(-5.0, 10.0)] * 4)
    peak = Peak(space, [0.2, 0.8, 0.3, 0.6], width=0.08, costs=(1.0, 10.0))
    sampler = GFlowNetSampler(space, 2, steps=200)
    figures = sampler.fit(peak, seed=0)
    untrained = peak.mean(sampler.sample_untrained(50_000, seed=1))
    trained = peak.mean(sampler.sample(1000, seed=2))
    # The reward's own distribution has E[R] = ∫R² / ∫R, here 2^(-d/2) of the peak over the fidelities' mix.
    ideal = 2.0**-2 * (1.0 + 0.01) / 1.1
    assert trained / untrained > 20
    assert trained == pytest.approx(ideal, rel=0.5)
    log_z = math.log((2 * math.pi * 0.08**2) ** 2 * 1.1)
    assert figures["log_z"] == pytest.approx(log_z, abs=0.5)


def test_goes_on_when_the_reward_moves():
    space = box_space(3)
    sampler = GFlowNetSampler(space, 2, steps=150, warm_steps=100, hidden=[128, 128])
    for round_, centre in enumerate([[0.2, 0.2, 0.2], [0.7, 0.3, 0.3], [0.7, 0.8, 0.6]]):
        peak = Peak(space, centre)
        figures = sampler.fit(peak, seed=round_)
        gain = peak.mean(sampler.sample(1000, seed=9)) / peak.mean(sampler.sample_untrained(20_000, seed=9))
        assert gain > 10
        assert figures["steps"] == (150 if round_ == 0 else 100)
    assert figures["total_steps"] == 350


def test_a_flat_reward_is_sharpened_until_sampling_gains_by_it():
    space = box_space(2)
    wide = Peak(space, [0.5, 0.5], width=0.3, costs=(1.0, 1.0))
    sampler = GFlowNetSampler(space, 2, beta="auto", gain=1.6, steps=100, hidden=[64, 64])
    figures = sampler.fit(wide, seed=0)
    gain = wide.mean(sampler.sample(4000, seed=1)) / wide.mean(sampler.sample_untrained(4000, seed=2))
    assert 1.0 < figures["beta"] < 16.0
    assert gain == pytest.approx(1.6, abs=0.12)
    narrow = Peak(space, [0.5, 0.5], width=0.1, costs=(1.0, 1.0))
    assert GFlowNetSampler(space, 2, **{**SMALL, "beta": "auto"}).fit(narrow, seed=0)["beta"] == 1.0


def test_learns_on_crystals():
    space = crystal_space()
    sampler = GFlowNetSampler(space, 2, steps=100, hidden=[128, 128])
    log_costs = torch.tensor([0.0, 2.0], dtype=torch.float64)

    def log_reward(candidates, fidelities):
        volume = torch.tensor([c.volume / c.n_atoms for c in candidates], dtype=torch.float64)  # Å³
        lithium = torch.tensor([c.composition.get("Li", 0) / c.n_atoms for c in candidates])
        return -((volume - 18.0) ** 2) / 8.0 + 4.0 * lithium - log_costs[torch.tensor(fidelities)]

    sampler.fit(log_reward, seed=0)
    means = [
        log_reward([p.candidate for p in proposals], [p.fidelity for p in proposals]).exp().mean()
        for proposals in (sampler.sample(400, seed=1), sampler.sample_untrained(2000, seed=1))
    ]
    assert means[0] > 5 * means[1]
    for proposal in sampler.sample(50, seed=2):
        space.validate(proposal.candidate)


@pytest.mark.parametrize("space", [box_space(), crystal_space()], ids=["box", "crystal"])
@pytest.mark.parametrize("n_fidelities", [None, 2])
def test_a_state_saved_between_fits_changes_nothing(space, n_fidelities):
    reward = first_feature(space)
    straight = GFlowNetSampler(space, n_fidelities, **SMALL)
    first = straight.fit(reward, seed=1)
    state = saved(straight)
    resumed = GFlowNetSampler(space, n_fidelities, **SMALL)
    resumed.load_state_dict(state)
    assert equal(resumed.state_dict(), state)
    assert resumed.sample(20, seed=3) == straight.sample(20, seed=3)
    assert resumed.fit(reward, seed=2) == straight.fit(reward, seed=2) != first
    assert equal(resumed.state_dict(), straight.state_dict())
    assert not equal(straight.state_dict(), state)  # a saved state does not follow later training
    assert resumed.sample(20, seed=4) == straight.sample(20, seed=4)


def test_equal_seeds_give_equal_samplers_and_others_do_not():
    space = box_space()
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(states))  # the global generator has no part in it
        sampler = GFlowNetSampler(space, 2, **SMALL)
        sampler.fit(Peak(space, [0.5, 0.5]), seed=seed)
        states.append(sampler.state_dict())
    assert equal(states[0], states[1])
    assert not equal(states[0]["forward_policy"], states[2]["forward_policy"])


def test_training_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    sampler = GFlowNetSampler(box_space(), 2, **SMALL)
    sampler.fit(Peak(sampler.space, [0.5, 0.5]), seed=0)
    sampler.sample(5, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("space", [box_space(), crystal_space()], ids=["box", "crystal"])
@pytest.mark.parametrize("n_fidelities", [None, 3])
def test_proposals_are_of_the_space_and_diverse(space, n_fidelities):
    sampler = GFlowNetSampler(space, n_fidelities, **SMALL)
    for proposals in (sampler.sample(100, seed=0), sampler.sample_untrained(100, seed=0)):
        for proposal in proposals:
            space.validate(proposal.candidate)
        assert len({proposal.candidate.key for proposal in proposals}) == 100
        expected = {None} if n_fidelities is None else {0, 1, 2}
        assert {proposal.fidelity for proposal in proposals} == expected


def test_the_untrained_draw_does_not_depend_on_training():
    space = box_space()
    sampler = GFlowNetSampler(space, 2, **SMALL)
    before = sampler.sample_untrained(20, seed=5)
    sampler.fit(Peak(space, [0.5, 0.5]), seed=0)
    assert sampler.sample_untrained(20, seed=5) == before


@pytest.mark.parametrize("space", [box_space(), crystal_space()], ids=["box", "crystal"])
def test_log_probability_is_that_of_the_trajectory(space):
    sampler = GFlowNetSampler(space, 2, **SMALL)
    sampler.fit(first_feature(space), seed=0)
    t = sampler.learner.sample(30, torch.Generator().manual_seed(0))
    told = sampler.log_probability(sampler.environment.proposals(t.terminal))
    # A crystal's lattice is rounded, so the coordinates read back are near those drawn.
    assert torch.allclose(told, t.total(t.log_pf), atol=0.05)


def test_log_probability_refuses_what_it_cannot_tell():
    sampler = GFlowNetSampler(box_space(), 2, **SMALL)
    with pytest.raises(SamplerError, match="outside the box"):
        sampler.log_probability([Proposal(BoxCandidate((3.0, 0.0)), 0)])
    learner = Learner(GridEnvironment(2, 3), LearnerSettings(hidden=(8,)))
    end = torch.tensor([[1.0, 1.0, 1.0]])
    with pytest.raises(SamplerError, match="many paths"):
        learner.log_probability(end)
    with pytest.raises(SamplerError, match="generator"):
        learner.log_probability(end, n_paths=10)


def test_figures_are_plain_numbers():
    sampler = GFlowNetSampler(box_space(), 2, **SMALL)
    figures = sampler.fit(Peak(sampler.space, [0.5, 0.5]), seed=0)
    assert {"loss", "log_z", "mean_log_reward", "first_mean_log_reward", "steps"} <= figures.keys()
    assert all(type(value) in (int, float) and math.isfinite(value) for value in figures.values())


def test_without_replay_nothing_is_kept():
    sampler = GFlowNetSampler(box_space(), 2, **{**SMALL, "replay_share": 0.0, "replay_capacity": 0})
    peak = Peak(sampler.space, [0.5, 0.5])
    figures = sampler.fit(peak, seed=0)
    assert figures["replay"] == 0
    assert figures["rewards_evaluated"] == 6 * 16
    assert peak.n_calls == 6


@pytest.mark.parametrize(
    "answer",
    [
        lambda n: torch.full((n,), math.nan),
        lambda n: torch.full((n,), -math.inf),
        lambda n: torch.zeros(n + 1),
        lambda n: torch.zeros(n, 1),
    ],
)
def test_a_reward_that_breaks_its_contract_is_refused(answer):
    sampler = GFlowNetSampler(box_space(), 2, **SMALL)
    with pytest.raises(SamplerError, match="finite numbers"):
        sampler.fit(lambda candidates, fidelities: answer(len(candidates)), seed=0)


def test_a_state_of_another_sampler_is_refused():
    state = GFlowNetSampler(box_space(2), 2, **SMALL).state_dict()
    with pytest.raises(SamplerError, match="does not fit"):
        GFlowNetSampler(box_space(3), 2, **SMALL).load_state_dict(state)
    with pytest.raises(SamplerError, match="does not fit"):
        GFlowNetSampler(box_space(2), 2, **SMALL).load_state_dict({})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 0),
        ("warm_steps", 0),
        ("batch_size", 1),
        ("replay_share", 1.0),
        ("replay_capacity", -1),
        ("hidden", [64, 0]),
        ("n_components", 0),
        ("dataset_share", 0.6),  # with half of a batch replayed
        ("loss", "flow_matching"),
        ("subtrajectory_decay", -0.1),
        ("learning_rate", 0.0),
        ("log_z_learning_rate", -1.0),
        ("final_learning_rate_share", 0.0),
        ("max_gradient_norm", 0.0),
        ("exploration", 1.5),
        ("temperature", 0.0),
        ("beta", 0.0),
        ("beta", BetaRange(low=2.0, high=1.0)),
        ("device", "tpu"),
        ("device", "cuda:x"),
        ("gain", 0.5),
        ("log_reward_range", -1.0),
    ],
)
def test_values_out_of_range_are_refused(key, value):
    with pytest.raises(ConfigError, match=f"sampler.{key} is"):
        GFlowNetSampler(box_space(), 2, **{key: value})


def test_a_config_states_a_range_of_exponents_by_its_ends():
    made = construct(
        "samplers",
        "gflownet",
        {"beta": {"low": 1, "high": 8}, "device": "cpu"},
        box_space(),
        2,
        key="sampler",
        folder=None,
    )
    assert made.learner.settings.beta_bounds == (1.0, 8.0)
    with pytest.raises(ConfigError, match=r"'sampler.beta.BetaRange.hi'|did you mean 'high'"):
        construct(
            "samplers", "gflownet", {"beta": {"low": 1, "hi": 8}}, box_space(), 2, key="sampler", folder=None
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no accelerator")
def test_a_range_of_exponents_may_be_a_mapping_and_nonsense_is_named():
    space = BoxSpace([(0.0, 1.0)])
    assert GFlowNetSampler(space, None, beta={"low": 1, "high": 8}).learner.settings.beta_bounds == (1.0, 8.0)
    for beta in ("aut", {"low": 1}):
        with pytest.raises(ConfigError, match=r"sampler\.beta"):
            GFlowNetSampler(space, None, beta=beta)
    with pytest.raises(SamplerError, match="-1 proposals"):
        GFlowNetSampler(space, None).sample(-1, seed=0)
    with pytest.raises(SamplerError, match="NoneType"):
        GFlowNetSampler(space, None, steps=1).fit(lambda candidates, fidelities: None, seed=0)


def test_without_an_accelerator_auto_is_the_cpu_and_cuda_an_error():
    assert GFlowNetSampler(box_space(), 2, **SMALL, device="auto").learner.settings.torch_device.type == "cpu"
    with pytest.raises(ConfigError, match=r"sampler\.device is 'cuda'.*no CUDA device"):
        GFlowNetSampler(box_space(), 2, device="cuda")


def test_a_space_without_environment_is_refused():
    class Strings:
        kind = "strings"

    with pytest.raises(ConfigError, match=r"'strings'.*box, crystal"):
        GFlowNetSampler(Strings(), 2)
    with pytest.raises(ConfigError, match="at least one"):
        GFlowNetSampler(box_space(), 0)
