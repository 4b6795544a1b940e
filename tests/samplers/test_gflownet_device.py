"""Networks on an accelerator give what they give on the CPU, within floating-point tolerance."""

import pytest
import torch

from activelearning.spaces.box import BoxSpace
from samplers.gflownet.environments import BoxEnvironment, GridEnvironment
from samplers.gflownet.learner import Learner
from samplers.gflownet.losses import LOSSES
from samplers.gflownet.settings import BetaRange, LearnerSettings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


class Ramp:
    def __call__(self, states):
        return 2.0 * states[:, 0]

    partial = __call__


def pair(kind, **params):
    """Learners that differ in their device alone."""
    env = GridEnvironment(2, 5, 2) if kind == "grid" else BoxEnvironment(BoxSpace([(0.0, 1.0)] * 2), 2)
    settings = [
        LearnerSettings(hidden=(32, 32), n_components=4, **params, device=device)
        for device in ("cpu", "cuda")
    ]
    return [Learner(env, s) for s in settings]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["grid", "box"])
def test_losses_and_gradients_agree(kind, loss):
    cpu, cuda = pair(kind, loss=loss)
    cpu.fit(Ramp(), steps=3, generator=generator())
    cuda.load_state_dict(cpu.state_dict())
    t = cpu.sample(32, generator(1))
    log_reward, beta = Ramp()(t.terminal), torch.ones(t.n, dtype=torch.float64)
    log_partial = Ramp().partial(t.states) if loss == "forward_looking" else None
    losses = [learner.loss(t, log_reward, beta, log_partial=log_partial) for learner in (cpu, cuda)]
    assert losses[1].device.type == "cpu"
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-3)
    for one in losses:
        one.backward()
    groups = [[p.grad.cpu() for p in learner.forward_policy.parameters()] for learner in (cpu, cuda)]
    for ours, theirs in zip(*groups, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-2, atol=1e-4)


def test_training_and_sampling_agree():
    cpu, cuda = pair("box", beta=BetaRange(low=1.0, high=3.0))
    figures = [learner.fit(Ramp(), steps=60, generator=generator()) for learner in (cpu, cuda)]
    assert next(cuda.forward_policy.parameters()).is_cuda
    assert figures[1]["log_z"] == pytest.approx(figures[0]["log_z"], abs=0.05)
    states = cpu.sample_terminal(500, generator(1), beta=2.0)
    told = [learner.log_probability(states, beta=2.0) for learner in (cpu, cuda)]
    assert (told[0] - told[1]).abs().mean() < 0.1
    assert cuda.sample_terminal(10, generator(2)).device.type == "cpu"


def test_a_state_moves_between_devices():
    cpu, cuda = pair("grid")
    cuda.fit(Ramp(), steps=3, generator=generator())
    state = cuda.state_dict()
    assert all(value.device.type == "cpu" for value in state["forward_policy"].values())
    cpu.load_state_dict(state)
    figures = [learner.fit(Ramp(), steps=3, generator=generator(1)) for learner in (cpu, cuda)]
    assert figures[0]["loss"] == pytest.approx(figures[1]["loss"], rel=1e-2)


def test_auto_takes_the_accelerator():
    learner = Learner(GridEnvironment(2, 3), LearnerSettings(hidden=(8,), device="auto"))
    assert next(learner.forward_policy.parameters()).is_cuda
