"""What every acquisition that is a plug-in keeps to, whatever it rewards."""

from typing import Any

import pytest
import torch
from torch import Tensor

from activelearning.contracts import Acquisition, AcquisitionContext, Goals, Objective, Scorer
from activelearning.contracts.registry import load_plugin, plugin_names
from surrogates.coregionalised_gp import CoregionalisedGP, Hyperparameters, Units

# Utilities that don't look at the model: what follows from what they look at is not asked of them.
BLIND = {"random"}
ALL = list(plugin_names("acquisitions"))
SEEING = [name for name in ALL if name not in BLIND]
# Utilities in nats, or of objectives without unit; those of the others are in the target's unit.
WITHOUT_UNIT = {"mf_gibbon", "mf_mes", "mf_hypervolume"}
# Draws for comparisons that hold in expectation.
MANY: dict[str, dict[str, Any]] = {"mf_gibbon": {"n_max_samples": 4000}, "mf_mes": {"n_max_samples": 4000}}

NONE = torch.empty(0, 2, dtype=torch.float64)
GRID = torch.linspace(0, 1, 40, dtype=torch.float64).unsqueeze(-1)
SOURCE = 1
OBSERVED = ((0.1, 0.3), (0.35, -0.4), (0.62, 0.7), (0.9, -1.0))  # at both fidelities, standardised


def surrogate(
    correlation: float = 0.8,
    noise: float = 1e-2,
    offset: tuple[float, float] = (0.0, 0.0),
    scale: tuple[float, float] = (1.0, 1.0),
    sign: float = 1.0,
) -> CoregionalisedGP:
    """One feature; the target and a source, both asked at the same places, so that their offset is known."""
    X = torch.tensor([[x, m] for m in (0.0, 1.0) for x, _ in OBSERVED], dtype=torch.float64)
    Y = sign * torch.tensor([y for _ in (0, 1) for _, y in OBSERVED], dtype=torch.float64)
    hyperparameters = Hyperparameters(
        torch.tensor([0.2], dtype=torch.float64),
        torch.ones(2, dtype=torch.float64),
        torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64),
        torch.full((2,), noise, dtype=torch.float64),
    )
    units = Units(torch.tensor(offset, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64))
    return CoregionalisedGP(hyperparameters, units, X, Y, torch.full((len(X),), noise, dtype=torch.float64))


def scorer(
    name: str,
    gp: CoregionalisedGP,
    *,
    pending: Tensor = NONE,
    maximize: bool = True,
    best: float = 0.7,
    **params: Any,
) -> Scorer:
    acquisition = load_plugin("acquisitions", name)(**params)
    assert isinstance(acquisition, Acquisition)
    goals = Goals((Objective(0, maximize),))
    answered = gp.train_inputs[0]
    scorer: Scorer = acquisition.build(
        AcquisitionContext(gp, [], 0, maximize, best, GRID, pending, seed=3, goals=goals, answered=answered)
    )
    return scorer


def queries(n: int = 11) -> Tensor:
    """Places at the target, then the same at the source."""
    x = torch.linspace(0.03, 0.97, n, dtype=torch.float64)
    return torch.cat([torch.stack([x, torch.full_like(x, m)], dim=-1) for m in (0.0, 1.0)])


def test_acquisitions_are_registered() -> None:
    assert {"mf_gibbon", "mf_mes", "mf_ucb", "mf_kg", "mf_hypervolume", "target_ei", "random"} <= set(ALL)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("pending", [NONE, queries()[[4, 17]]], ids=["idle", "pending"])
def test_values_do_not_depend_on_what_is_scored_beside_them(name: str, pending: Tensor) -> None:
    rows = torch.cat([queries(40), queries()])  # more than one chunk
    score = scorer(name, surrogate(), pending=pending)
    together = score(rows)
    assert together.shape == (len(rows),)
    assert together.isfinite().all()
    torch.testing.assert_close(together, torch.cat([score(row.unsqueeze(0)) for row in rows]))
    torch.testing.assert_close(together.flip(0), score(rows.flip(0)))
    assert score(rows[:0]).shape == (0,)


@pytest.mark.parametrize("name", SEEING)
@pytest.mark.parametrize("pending", [NONE, queries()[[4, 17]]], ids=["idle", "pending"])
@pytest.mark.parametrize("maximize", [True, False])
def test_gradients_agree_with_differences(name: str, pending: Tensor, maximize: bool) -> None:
    score = scorer(name, surrogate(), pending=pending, maximize=maximize, best=0.7 if maximize else -1.0)
    rows = queries()
    column = rows[:, 1:]
    x = rows[:, :1].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: score(torch.cat([x, column], dim=-1)), (x,), rtol=1e-4)
    (gradient,) = torch.autograd.grad(score(torch.cat([x, column], dim=-1)).sum(), x)
    assert (gradient != 0).any()


@pytest.mark.parametrize("name", ALL)
def test_minimising_is_maximising_the_negative(name: str) -> None:
    params = MANY.get(name, {})
    up = scorer(name, surrogate(), best=0.7, **params)(queries())
    down = scorer(name, surrogate(sign=-1.0), maximize=False, best=-0.7, **params)(queries())
    if params:
        torch.testing.assert_close(down, up, rtol=0.1, atol=0.01)
    else:
        torch.testing.assert_close(down, up)


@pytest.mark.parametrize("name", SEEING)
@pytest.mark.parametrize("correlation", [0.8, -0.8])
def test_what_is_pending_is_worth_less_a_second_time(name: str, correlation: float) -> None:
    rows = queries()
    gp = surrogate(correlation)
    before = scorer(name, gp)(rows)
    for i, row in enumerate(rows):
        score = scorer(name, gp)
        score.add_pending(row.unsqueeze(0))
        after = score(rows)
        assert float(after[i]) <= float(before[i]) + 1e-9
        # Told at once or later is the same.
        told = scorer(name, gp, pending=row.unsqueeze(0))(rows)
        torch.testing.assert_close(told, after)
    best = int(before.argmax())
    again = scorer(name, gp, pending=rows[best : best + 1])(rows)
    assert float(again[best]) < 0.6 * float(before[best])


@pytest.mark.parametrize("name", SEEING)
def test_a_source_s_unit_and_sign_do_not_matter(name: str) -> None:
    plain = scorer(name, surrogate())(queries())
    other = scorer(name, surrogate(offset=(0.0, -3e5), scale=(1.0, 1e6)))(queries())
    torch.testing.assert_close(other, plain)
    reversed_ = surrogate(-0.8)
    n = len(OBSERVED)
    answers = torch.cat([reversed_.train_targets[:n], -reversed_.train_targets[n:]])
    reversed_ = CoregionalisedGP(
        reversed_.hyperparameters, reversed_.units, reversed_.train_inputs[0], answers, reversed_.train_noise
    )
    torch.testing.assert_close(scorer(name, reversed_)(queries()), plain)


@pytest.mark.parametrize("name", SEEING)
@pytest.mark.parametrize("factor", [1e-3, 40.0])
def test_utilities_are_in_the_target_s_unit_or_in_none(name: str, factor: float) -> None:
    plain = scorer(name, surrogate())(queries())
    moved = surrogate(offset=(7.0, 0.0), scale=(factor, 1.0))
    found = scorer(name, moved, best=7.0 + 0.7 * factor)(queries())
    expected = plain if name in WITHOUT_UNIT else factor * plain
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("name", SEEING)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_perfect_source_is_worth_what_the_target_is(name: str, sign: float) -> None:
    rows = queries()
    gp = surrogate(sign * (1.0 - 1e-8), noise=1e-5)
    utilities = scorer(name, gp)(rows)
    target, source = utilities[:11], utilities[11:]
    torch.testing.assert_close(source, target, rtol=0.05, atol=0.02 * float(target.max()))
    assert float(target.max()) > 0


@pytest.mark.parametrize("name", SEEING)
def test_a_source_without_relation_to_the_target_is_worth_nothing(name: str) -> None:
    utilities = scorer(name, surrogate(0.0))(queries())
    assert (utilities[11:] <= 1e-9 * float(utilities[:11].max())).all()


@pytest.mark.parametrize("name", SEEING)
def test_a_better_related_source_is_worth_more(name: str) -> None:
    rows = queries()[11:]
    at = int(scorer(name, surrogate(0.95))(rows).argmax())
    values = [float(scorer(name, surrogate(c))(rows)[at]) for c in (0.0, 0.3, 0.6, 0.8, 0.95)]
    assert values == sorted(values)
    assert values[0] < 1e-9 < values[1]


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_values(name: str) -> None:
    pending = queries()[[4, 17]]
    first, second = (scorer(name, surrogate(), pending=pending)(queries()) for _ in range(2))
    assert torch.equal(first, second)
