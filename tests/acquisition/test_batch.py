import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from activelearning.acquisition.batch import SharedLimit, choose_batch, polish


class Hill:
    """Utility exp(−|x − c|²/w²), less near what is pending."""

    def __init__(self, centre: float = 0.3, width: float = 0.5) -> None:
        self.centre, self.width = centre, width
        self.pending: list[Tensor] = []

    def __call__(self, X: Tensor) -> Tensor:
        value = torch.exp(-((X[:, :-1] - self.centre) / self.width).square().sum(-1))
        for p in self.pending:
            distance = ((X[:, :-1] - p[:-1]) / 0.1).square().sum(-1)
            value = value * (1.0 - torch.exp(-distance))
        return value

    def add_pending(self, X: Tensor) -> None:
        self.pending.extend(X)


def pool(n: int = 40, n_fidelities: int = 2, seed: int = 0) -> Tensor:
    features = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    fidelity = torch.arange(n_fidelities, dtype=torch.float64).repeat(n).unsqueeze(-1)
    return torch.cat([features.repeat_interleave(n_fidelities, dim=0), fidelity], dim=-1)


def costs(X: Tensor, *table: float) -> Tensor:
    return torch.tensor(table, dtype=torch.float64)[X[:, -1].long()]


@settings(max_examples=40)
@given(budget=st.floats(0.0, 8.0), dear=st.integers(0, 4), cheap=st.integers(0, 12), seed=st.integers(0, 50))
def test_limits_hold(budget: float, dear: int, cheap: int, seed: int) -> None:
    X = pool(seed=seed)
    c = costs(X, 1.0, 0.1)
    chosen = choose_batch(Hill(), X, c, budget=budget, remaining={0: dear, 1: cheap})
    assert float(c[chosen].sum()) <= budget * (1 + 1e-8)
    assert len(set(chosen)) == len(chosen)
    assert int((X[chosen, -1] == 0).sum()) <= dear
    assert int((X[chosen, -1] == 1).sum()) <= cheap
    if budget >= dear + 0.1 * cheap:
        assert len(chosen) == dear + cheap  # what there is money for is asked
    assert chosen == choose_batch(Hill(), X, c, budget=budget, remaining={0: dear, 1: cheap})


def test_budget_is_filled_to_the_last_cent() -> None:
    X = pool()
    chosen = choose_batch(Hill(), X, costs(X, 1.0, 0.1), budget=0.3)
    assert len(chosen) == 3  # three times 0.1 is more than 0.3 in floating point


def test_cheap_wins_at_equal_utility_and_dear_when_cost_is_ignored() -> None:
    X = pool()
    assert int(X[choose_batch(Hill(), X, costs(X, 1.0, 0.1), budget=5.0)[0], -1]) == 1
    ignored = choose_batch(Hill(), X, costs(X, 1.0, 0.1), budget=5.0, exponent=0.0)
    assert ignored[0] == int(Hill()(X).argmax())


def test_pending_spreads_the_batch() -> None:
    X = pool(200)
    scorer = Hill(width=0.2)
    chosen = choose_batch(scorer, X, costs(X, 1.0, 1.0), budget=4.0)
    assert len(scorer.pending) == 4
    distances = torch.pdist(X[chosen, :-1])
    assert float(distances.min()) > 0.1


def test_equal_rows_are_chosen_once_and_ties_go_to_the_lower_row() -> None:
    class Flat(Hill):
        def __call__(self, X: Tensor) -> Tensor:
            return torch.ones(len(X), dtype=X.dtype)

    X = torch.tensor([[0.5, 0.0], [0.5, 0.0], [0.5, 1.0], [0.7, 0.0]], dtype=torch.float64)
    one = torch.ones(4, dtype=torch.float64)
    assert choose_batch(Flat(), X, one, budget=10.0) == [0, 2, 3]


def test_empty_pool() -> None:
    assert choose_batch(Hill(), torch.empty(0, 3), torch.empty(0), budget=1.0) == []


@pytest.mark.parametrize("centre", [0.3, 1.4])
def test_polish_climbs_inside_the_box(centre: float) -> None:
    scorer, X = Hill(centre, 1.0), pool(10)
    better = polish(scorer, X, n_steps=40)
    assert torch.equal(better[:, -1], X[:, -1])
    assert (scorer(better) >= scorer(X)).all()
    expected = torch.full_like(better[:, :-1], min(centre, 1.0))
    torch.testing.assert_close(better[:, :-1], expected, atol=2e-2, rtol=0.0)
    assert torch.equal(better, polish(scorer, X, n_steps=40))


def test_polish_leaves_what_has_no_gradient() -> None:
    class Steps(Hill):
        def __call__(self, X: Tensor) -> Tensor:
            return (X[:, 0] > 0.5).to(X).detach()

    X = pool(5)
    assert torch.equal(polish(Steps(), X), X)


@settings(max_examples=40)
@given(purse=st.floats(0.0, 3.0), budget=st.floats(0.5, 6.0), seed=st.integers(0, 20))
def test_a_shared_limit_holds_and_leaves_the_rest_alone(purse: float, budget: float, seed: int) -> None:
    X = pool(n_fidelities=3, seed=seed)
    c = costs(X, 1.0, 0.1, 0.25)
    chosen = choose_batch(Hill(), X, c, budget=budget, shared=SharedLimit(frozenset({1, 2}), purse))
    of_others = X[chosen, -1] > 0
    assert float(c[chosen][of_others].sum()) <= purse * (1 + 1e-8)
    # What the others may not have is the target's.
    spent = float(c[chosen].sum())
    assert spent > min(budget, 40.0) - 1.0 - 1e-9
    assert spent <= budget * (1 + 1e-8)


def test_dear_queries_wait_for_the_answers_of_better_bargains() -> None:
    X = pool()
    c = costs(X, 1.0, 0.1)
    eager = choose_batch(Hill(), X, c, budget=4.0, remaining={1: 3})
    assert X[eager, -1].tolist() == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    patient = choose_batch(Hill(), X, c, budget=4.0, remaining={1: 3}, patient={1})
    assert patient == eager[:3]
    # Nothing is waited for where the limit leaves no better bargain behind: the dear ones are not worth less.
    equal = costs(X, 1e-3, 1e-3)
    assert len(choose_batch(Hill(), X, equal, budget=5e-3, remaining={1: 0}, patient={1})) == 5


def test_a_slow_fidelity_at_its_limit_is_not_waited_for() -> None:
    X = pool()
    chosen = choose_batch(Hill(), X, costs(X, 1.0, 0.1), budget=4.0, remaining={1: 3}, patient={0})
    assert X[chosen, -1].tolist().count(0.0) == 3
