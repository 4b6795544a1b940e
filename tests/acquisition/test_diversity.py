"""Diverse batches: the determinantal greedy search against brute force, limits by hypothesis, and what is pending."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from activelearning.acquisition.batch import choose_batch
from activelearning.acquisition.diversity import (
    ACROSS,
    Determinantal,
    Diversity,
    Repulsion,
    batch_scale,
    diverse,
    similarity,
)


class Table:
    """Utilities of rows, whatever is pending."""

    def __init__(self, X: Tensor, utilities: Tensor) -> None:
        self.by_row = {tuple(x.tolist()): float(u) for x, u in zip(X, utilities, strict=True)}
        self.pending: list[Tensor] = []
        self.asked = 0

    def __call__(self, X: Tensor) -> Tensor:
        self.asked += 1
        return torch.tensor([self.by_row[tuple(x.tolist())] for x in X], dtype=X.dtype)

    def add_pending(self, X: Tensor) -> None:
        self.pending.extend(X)


def pool(n: int, seed: int = 0, n_features: int = 2, n_fidelities: int = 1) -> tuple[Tensor, Tensor]:
    """Queries, `n x (d + 1)`, and positive utilities, `n`."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(n, n_features, generator=generator, dtype=torch.float64)
    fidelity = torch.randint(n_fidelities, (n, 1), generator=generator).to(features)
    return torch.cat([features, fidelity], dim=-1), 0.1 + torch.rand(
        n, generator=generator, dtype=torch.float64
    )


def kernel(X: Tensor, utilities: Tensor, scale: float) -> Tensor:
    root = utilities.sqrt()
    return root.unsqueeze(1) * similarity(X, X, scale) * root


def log_det(L: Tensor, chosen: tuple[int, ...] | list[int]) -> float:
    rows = list(chosen)
    return float(torch.logdet(L[rows][:, rows]))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scale", [0.05, 0.4])
def test_greedy_picks_are_those_of_determinants_computed_anew(seed: int, scale: float) -> None:
    X, utilities = pool(12, seed, n_fidelities=2)
    L = kernel(X, utilities, scale)
    expected: list[int] = []
    for _ in range(5):
        rest = [i for i in range(12) if i not in expected]
        expected.append(max(rest, key=lambda i: log_det(L, [*expected, i])))
    one = torch.ones(12, dtype=torch.float64)
    scorer = Table(X, utilities)
    found = choose_batch(scorer, X, one, budget=5.0, diversity=Determinantal(X, scale), rescore=False)
    assert found == expected
    assert scorer.asked == 1
    assert torch.equal(torch.stack(scorer.pending), X[expected])


def test_greedy_is_close_to_the_best_batch_of_all() -> None:
    """Brute force over all batches of four: the greedy one is the best or a few per cent of a nat below it."""
    gaps = []
    for seed in range(25):
        X, utilities = pool(11, seed)
        L = kernel(X, utilities, 0.3)
        best = max(log_det(L, batch) for batch in itertools.combinations(range(11), 4))
        one = torch.ones(11, dtype=torch.float64)
        chosen = choose_batch(
            Table(X, utilities), X, one, budget=4.0, diversity=Determinantal(X, 0.3), rescore=False
        )
        gaps.append(best - log_det(L, chosen))
    assert min(gaps) >= -1e-9
    assert sum(gap < 1e-9 for gap in gaps) >= 10  # found exactly
    assert sum(gaps) / len(gaps) < 0.1


@pytest.mark.parametrize("make", [Repulsion, Determinantal])
def test_shares_know_what_is_pending(make: type[Repulsion] | type[Determinantal]) -> None:
    X, _ = pool(30, n_fidelities=2)
    kept = make(X, 0.2)
    assert torch.equal(kept.share, torch.ones(30, dtype=torch.float64))
    kept.take(X[4:6])
    kept.take(X[:0])
    pending, likeness = X[4:6], similarity(X, X[4:6], 0.2)
    if make is Determinantal:
        inside = similarity(pending, pending, 0.2)
        expected = 1.0 - (likeness @ torch.linalg.inv(inside) * likeness).sum(-1)
    else:
        expected = 1.0 - likeness.amax(1)
    torch.testing.assert_close(kept.share, expected.clamp_min(1e-9))
    kept.take(X[4:5])  # a copy of what is known says nothing new
    torch.testing.assert_close(kept.share, expected.clamp_min(1e-9))


def test_a_pool_without_likeness_is_chosen_by_score_alone() -> None:
    X, utilities = pool(20)
    one = torch.ones(20, dtype=torch.float64)
    by_score = torch.argsort(utilities, descending=True)[:6].tolist()
    for make, rescore in itertools.product((Repulsion, Determinantal), (True, False)):
        kept: Diversity = make(X, 1e-4)
        found = choose_batch(Table(X, utilities), X, one, budget=6.0, diversity=kept, rescore=rescore)
        assert found == by_score


@settings(max_examples=30)
@given(
    budget=st.floats(0.0, 8.0),
    dear=st.integers(0, 4),
    cheap=st.integers(0, 12),
    seed=st.integers(0, 50),
    scale=st.floats(1e-3, 10.0),
    repel=st.booleans(),
    rescore=st.booleans(),
    shift=st.floats(0.0, 1.2),
)
def test_limits_hold(
    budget: float, dear: int, cheap: int, seed: int, scale: float, repel: bool, rescore: bool, shift: float
) -> None:
    X, utilities = pool(40, seed, n_fidelities=2)
    utilities = utilities - shift  # some or all of them negative
    expected = torch.tensor([0.5, 0.05], dtype=torch.float64)[X[:, -1].long()]
    reserved = 2.0 * expected
    kept: Diversity = (Repulsion if repel else Determinantal)(X, scale)
    chosen = choose_batch(
        Table(X, utilities),
        X,
        expected,
        reserved=reserved,
        budget=budget,
        remaining={0: dear, 1: cheap},
        diversity=kept,
        rescore=rescore,
    )
    assert float(reserved[chosen].sum()) <= budget * (1 + 1e-8)
    assert len(set(chosen)) == len(chosen)
    assert int((X[chosen, -1] == 0).sum()) <= dear
    assert int((X[chosen, -1] == 1).sum()) <= cheap
    if budget >= dear + 0.1 * cheap:
        assert len(chosen) == min(dear, int((X[:, -1] == 0).sum())) + min(cheap, int((X[:, -1] == 1).sum()))
    assert bool(kept.share.isfinite().all())
    assert bool((kept.share > 0.0).all())


@pytest.mark.parametrize("make", [Repulsion, Determinantal])
def test_batches_spread(make: type[Repulsion] | type[Determinantal]) -> None:
    X, _ = pool(200)
    utilities = (-((X[:, :-1] - 0.5) / 0.25).square().sum(-1)).exp()
    one = torch.ones(200, dtype=torch.float64)

    def nearest(diversity: Diversity | None) -> float:
        chosen = choose_batch(
            Table(X, utilities), X, one, budget=8.0, diversity=diversity, rescore=diversity is None
        )
        return float(torch.pdist(X[chosen, :-1]).min())

    assert nearest(make(X, batch_scale(X, 8))) > 3 * nearest(None)


def test_likeness_is_a_covariance_and_less_across_fidelities() -> None:
    X, _ = pool(40, n_fidelities=3)
    S = similarity(X, X, 0.5)
    assert float(torch.linalg.eigvalsh(S).min()) > -1e-9
    twice = torch.tensor([[0.3, 0.0], [0.3, 1.0]], dtype=torch.float64)
    assert similarity(twice, twice, 0.1).tolist() == [[1.0, ACROSS], [ACROSS, 1.0]]


def test_the_scale_packs_the_batch() -> None:
    x = torch.linspace(0, 1, 101, dtype=torch.float64).unsqueeze(-1)
    X = torch.cat([x, torch.zeros_like(x)], dim=-1)
    assert batch_scale(X, 1) == pytest.approx(float(torch.pdist(x).median()))
    assert batch_scale(X, 10) == pytest.approx(batch_scale(X, 1) / 10)
    constant = torch.cat([x, torch.full_like(x, 0.3), torch.zeros_like(x)], dim=-1)
    assert batch_scale(constant, 10) == pytest.approx(
        batch_scale(X, 10)
    )  # a feature of one value has no room
    assert batch_scale(X[:1], 10) == 1.0


def test_a_negative_score_gains_nothing_by_likeness() -> None:
    found = diverse(torch.tensor([2.0, -2.0, 0.0]), torch.tensor([0.5, 0.5, 0.5]))
    assert found.tolist() == [1.0, -4.0, 0.0]
    assert math.isfinite(float(diverse(torch.tensor(-1.0), torch.tensor(1e-9))))
