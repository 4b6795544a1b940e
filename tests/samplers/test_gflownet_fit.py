"""The training loop: interrupted and resumed, fed with given objects, refusing what it can't work with."""

import io
import math

import pytest
import torch

from activelearning.candidate import BoxCandidate
from activelearning.contracts import Proposal
from activelearning.errors import SamplerError
from activelearning.spaces.box import BoxSpace
from samplers.gflownet import GFlowNetSampler
from samplers.gflownet.environments import BoxEnvironment, GridEnvironment
from samplers.gflownet.learner import Learner
from samplers.gflownet.losses import LOSSES
from samplers.gflownet.settings import BetaRange, LearnerSettings

SMALL = {"hidden": (16, 16), "n_components": 4, "batch_size": 16}


class Ramp:
    """A reward that grows along the first coordinate, told of unfinished states too."""

    def __call__(self, states):
        return 3.0 * states[:, 0]

    partial = __call__


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
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


@pytest.mark.parametrize("beta", [1.0, None, BetaRange(low=1.0, high=3.0)], ids=["one", "auto", "range"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["grid", "box"])
def test_training_stopped_anywhere_and_resumed_is_the_same_bit_for_bit(kind, loss, beta):
    env = GridEnvironment(2, 4, 2) if kind == "grid" else BoxEnvironment(BoxSpace([(0.0, 1.0)] * 2), 2)
    settings = LearnerSettings(**SMALL, loss=loss, beta=beta)
    dataset = (
        (torch.tensor([[1.0, 2.0, 1.0]]), torch.tensor([3.0]))
        if kind == "grid"
        else (torch.tensor([[0.9, 0.2, 2.0, 1.0]]), torch.tensor([2.7]))
    )
    straight = Learner(env, settings)
    whole = straight.start(Ramp(), steps=8, generator=generator(), dataset=dataset)
    whole.run()
    for stops in ([0], [3], [1, 6], [7]):
        learner = Learner(env, settings)
        fit = learner.start(Ramp(), steps=8, generator=generator(), dataset=dataset)
        for stop in stops:
            fit.run(stop - fit.n_done)
            assert not fit.is_done
            state = through_a_file(fit.state_dict())
            fit.run(1)  # what is done after a checkpoint is lost
            fit = Learner(env, settings).resume(Ramp(), state, dataset=dataset)
            assert fit.n_done == stop
        fit.run()
        assert fit.is_done
        assert fit.figures == whole.figures
        assert equal(fit.state_dict(), whole.state_dict())


def test_the_sampler_resumes_too():
    space = BoxSpace([(0.0, 2.0)] * 2)
    params = {**SMALL, "steps": 6, "warm_steps": 4}
    given = [Proposal(BoxCandidate((1.5, 0.1)), 1)]

    def log_reward(candidates, fidelities):
        return 2.0 * space.features(candidates).sum(dim=1)

    straight = GFlowNetSampler(space, 2, **params)
    straight.fit(log_reward, seed=1, given=given)
    straight.fit(log_reward, seed=2, given=given)
    stopped = GFlowNetSampler(space, 2, **params)
    stopped.fit(log_reward, seed=1, given=given)
    fit = stopped.start(log_reward, seed=2, given=given)
    assert fit.steps == 4
    fit.run(2)
    state = through_a_file(fit.state_dict())
    resumed = GFlowNetSampler(space, 2, **params)
    resumed.resume(log_reward, state, given=given).run()
    assert equal(resumed.state_dict(), straight.state_dict())
    assert resumed.sample(10, seed=3) == straight.sample(10, seed=3)


def test_the_number_of_steps_may_be_stated():
    sampler = GFlowNetSampler(BoxSpace([(0.0, 1.0)]), None, **SMALL, steps=5)
    fit = sampler.start(lambda c, f: torch.zeros(len(c)), seed=0, steps=2)
    assert fit.run(1)["steps"] == 1
    assert fit.run(5)["steps"] == 2
    assert {name: len(values) for name, values in fit.history.items()} == {
        "loss": 2,
        "log_z": 2,
        "mean_log_reward": 2,
    }


def test_a_state_of_another_training_is_refused():
    env = GridEnvironment(2, 4)
    fit = Learner(env, LearnerSettings(**SMALL)).start(Ramp(), steps=2, generator=generator())
    state = fit.state_dict()
    with pytest.raises(SamplerError, match="does not fit its networks"):
        Learner(GridEnvironment(2, 5), LearnerSettings(**SMALL)).resume(Ramp(), state)
    with pytest.raises(SamplerError, match="can't be taken up"):
        Learner(env, LearnerSettings(**SMALL)).resume(Ramp(), {"steps": 3})


# ---------------------------------------------------------------- given objects


def test_given_objects_teach_what_the_policy_would_not_find():
    # One point of 9^3 holds e^9 of the reward, against 728 others of 1, at the end of long ways in between.
    env = GridEnvironment(3, 9)
    peak = torch.tensor([[6.0, 2.0, 7.0, 1.0]], dtype=torch.float64)

    def log_reward(states):
        return torch.where((states == peak).all(dim=1), 9.0, 0.0)

    settings = LearnerSettings(hidden=(64, 64), batch_size=32, replay_share=0.0, learning_rate=3e-3)
    shares = []
    for dataset in (None, (peak, log_reward(peak))):
        learner = Learner(env, settings)
        learner.fit(log_reward, steps=200, generator=generator(), dataset=dataset)
        terminal = learner.sample_terminal(500, generator(1))
        shares.append((terminal == peak).all(dim=1).double().mean().item())
    assert shares[0] < 0.01
    assert shares[1] > 0.5  # 0.92 in the end


def test_given_objects_do_not_change_what_is_learned():
    env = BoxEnvironment(BoxSpace([(0.0, 1.0)]))
    states = torch.tensor([[0.9, 1.0, 0.0]], dtype=torch.float64)
    learner = Learner(env, LearnerSettings(hidden=(32, 32)))

    def log_reward(s):
        return -((s[:, 0] - 0.3) ** 2) / 0.02

    learner.fit(log_reward, steps=200, generator=generator(), dataset=(states, log_reward(states)))
    x = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    grid = torch.stack([x, torch.ones_like(x), torch.zeros_like(x)], dim=1)
    learned, target = learner.log_probability(grid).exp(), log_reward(grid).exp()
    assert 0.5 * (learned / learned.sum() - target / target.sum()).abs().sum() < 0.03


def test_given_objects_are_asked_for_once():
    space = BoxSpace([(0.0, 1.0)])
    asked = []

    def log_reward(candidates, fidelities):
        asked.append(len(candidates))
        return torch.zeros(len(candidates))

    given = [Proposal(BoxCandidate((0.1 * i,))) for i in range(1, 8)]
    sampler = GFlowNetSampler(space, None, **SMALL, steps=3, replay_share=0.0)
    sampler.fit(log_reward, seed=0, given=given)
    assert asked == [7, 12, 12, 12]  # of each batch of 16, a quarter is given


def test_bad_given_objects_are_refused():
    sampler = GFlowNetSampler(BoxSpace([(0.0, 1.0)]), None, **SMALL)

    def zero(candidates, fidelities):
        return torch.zeros(len(candidates))

    with pytest.raises(SamplerError, match=r"given object can't be trained from.*outside the box"):
        sampler.fit(zero, seed=0, given=[Proposal(BoxCandidate((7.0,)))])
    learner = Learner(GridEnvironment(2, 3), LearnerSettings(**SMALL))
    with pytest.raises(SamplerError, match="width 3"):
        learner.fit(Ramp(), steps=1, generator=generator(), dataset=(torch.zeros(2, 2), torch.zeros(2)))
    with pytest.raises(SamplerError, match="finite numbers"):
        learner.fit(
            Ramp(), steps=1, generator=generator(), dataset=(torch.ones(1, 3), torch.tensor([math.inf]))
        )


# ---------------------------------------------------------------- refusals


def test_forward_looking_needs_a_partial_reward():
    learner = Learner(GridEnvironment(2, 3), LearnerSettings(**SMALL, loss="forward_looking"))
    with pytest.raises(SamplerError, match="partial"):
        learner.fit(lambda s: s[:, 0], steps=1, generator=generator())

    class Silent(Ramp):
        def partial(self, states):
            return torch.full((len(states),), math.nan)

    with pytest.raises(SamplerError, match="partial log reward"):
        learner.fit(Silent(), steps=1, generator=generator())


def test_a_rewards_partial_reaches_the_learner():
    space = BoxSpace([(0.0, 1.0)] * 2)
    widths = set()

    class Reward:
        def __call__(self, candidates, fidelities):
            return space.features(candidates).sum(dim=1)

        def partial(self, states):
            widths.add(states.shape[1])
            return states[:, :2].sum(dim=1)

    sampler = GFlowNetSampler(space, None, **SMALL, steps=2, loss="forward_looking")
    sampler.fit(Reward(), seed=0)
    assert widths == {sampler.environment.n_state}


def test_divergence_is_an_error_before_it_spoils_the_networks():
    learner = Learner(GridEnvironment(2, 3), LearnerSettings(**SMALL))
    learner.fit(Ramp(), steps=1, generator=generator())
    t = learner.sample(1, generator())
    with torch.no_grad():
        learner.forward_policy.head.bias[0] = math.nan
    with pytest.raises(SamplerError, match="nothing to draw from"):
        learner.sample(1, generator())
    with pytest.raises(SamplerError, match=r"diverged.*learning_rate"):
        learner.update(learner.loss(t, *torch.ones(2, 1, dtype=torch.float64)))
    other = Learner(GridEnvironment(2, 3), LearnerSettings(**SMALL))
    before = other.state_dict()
    with pytest.raises(SamplerError, match="nan"):
        other.update(other.log_partition.coefficients.sum() * math.nan)
    after = other.state_dict()
    assert equal(after, before)


# ---------------------------------------------------------------- exponents


def test_one_sampler_is_asked_for_many_exponents():
    space = BoxSpace([(0.0, 1.0)])
    sampler = GFlowNetSampler(
        space, None, beta=BetaRange(low=1.0, high=9.0), steps=300, hidden=(64, 64), batch_size=64
    )

    def log_reward(candidates, fidelities):
        return space.features(candidates)[:, 0].log()

    figures = sampler.fit(log_reward, seed=0)
    for beta in (1.0, 3.0, 9.0):
        proposals = sampler.sample(3000, seed=1, beta=beta)
        x = space.features([p.candidate for p in proposals])[:, 0]
        # p ∝ x^β on (0, 1) has mean (β + 1) / (β + 2).
        assert x.mean().item() == pytest.approx((beta + 1) / (beta + 2), abs=0.03)
        told = sampler.log_probability([Proposal(BoxCandidate((0.7,)))], beta=beta).item()
        assert told == pytest.approx(math.log(beta + 1) + beta * math.log(0.7), abs=0.15)
    assert sampler.sample(5, seed=2) == sampler.sample(5, seed=2, beta=9.0)
    assert figures["beta"] == 9.0
    assert figures["log_z"] == pytest.approx(-math.log(10.0), abs=0.2)


def test_exponents_not_trained_for_are_refused():
    space = BoxSpace([(0.0, 1.0)])
    ranged = GFlowNetSampler(space, None, **SMALL, beta=BetaRange(low=1.0, high=2.0))
    with pytest.raises(SamplerError, match="outside the range"):
        ranged.sample(1, seed=0, beta=3.0)
    with pytest.raises(SamplerError, match=r"sampler.beta a range"):
        GFlowNetSampler(space, None, **SMALL).sample(1, seed=0, beta=3.0)
