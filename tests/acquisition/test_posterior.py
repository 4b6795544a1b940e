"""Moments by projection against those by joint posteriors, whatever the blocks and however pending work grows."""

import pytest
import torch
from acquisition_cases import NONE, model, queries
from botorch.models.model import Model
from torch import Tensor

from activelearning.acquisition import posterior as module
from activelearning.acquisition.posterior import PendingWork, ProjectedModel, QueryMoments


class Plain(Model):
    """A model that can only be asked for joint posteriors."""

    def __init__(self, inner: Model) -> None:
        super().__init__()
        self._inner = inner

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size([])

    def posterior(self, X: Tensor, *args: object, **kwargs: object) -> object:
        return self._inner.posterior(X, *args, **kwargs)


PENDING = torch.tensor([[0.3, 1.0], [0.62, 0.0], [0.6, 1.0]], dtype=torch.float64)


def joined(parts: list[QueryMoments]) -> QueryMoments:
    return QueryMoments(
        *(
            torch.cat([getattr(p, name) for p in parts])
            for name in ("mean", "variance", "noisy_variance", "cross")
        ),
        torch.cat([p.response for p in parts], dim=1),
    )


def both(work: PendingWork, X: Tensor) -> tuple[QueryMoments, QueryMoments]:
    before, after = zip(*work.moments(X), strict=True)
    return joined(list(before)), joined(list(after))


def assert_same(found: tuple[QueryMoments, ...], expected: tuple[QueryMoments, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        for name in ("mean", "variance", "noisy_variance", "cross", "response"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("block", [2**19, 60])
@pytest.mark.parametrize("correlation", [0.9, -0.9])
def test_projection_gives_the_moments_of_joint_posteriors(
    monkeypatch: pytest.MonkeyPatch, correlation: float, block: int
) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    monkeypatch.setattr(module, "_CHUNK", 5)
    gp = model(correlation, scale=30.0)
    assert isinstance(gp, ProjectedModel)
    assert not isinstance(Plain(gp), ProjectedModel)
    fast, slow = (PendingWork(m, 0, NONE) for m in (gp, Plain(gp)))
    for n in range(len(PENDING) + 1):
        if n:
            fast.add(PENDING[n - 1 : n])
            slow.add(PENDING[n - 1 : n])
        for X in (queries(), queries(), queries(4)):  # the same again, then others
            assert_same(both(fast, X), both(slow, X))
    assert_same(both(PendingWork(gp, 0, PENDING), queries()), both(slow, queries()))


def test_the_same_queries_are_projected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gp = model()
    work = PendingWork(gp, 0, PENDING[:1])
    rows = []
    project = type(gp).project
    monkeypatch.setattr(type(gp), "project", lambda self, X: (rows.append(len(X)), project(self, X))[1])
    both(work, queries())
    assert sum(rows) == 9 + 18  # the target at every query's features, and the other fidelity
    work.add(PENDING[1:2])
    both(work, queries())
    assert sum(rows) == 27 + 2  # pending queries alone
    both(work, queries() + 1e-9)
    assert sum(rows) == 29 + 27


def test_gradients_pass_through_kept_and_new_blocks() -> None:
    gp = model()
    fast, slow = (PendingWork(m, 0, PENDING) for m in (gp, Plain(gp)))
    both(fast, queries())
    gradients = []
    for work in (fast, slow):
        leaf = queries().requires_grad_(True)
        _, after = both(work, leaf)
        total = after.mean.sum() + (after.cross + after.variance.log() + after.noisy_variance).sum()
        gradients.append(torch.autograd.grad(total + after.response.square().sum(), leaf)[0][:, :-1])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-7, atol=1e-9)
