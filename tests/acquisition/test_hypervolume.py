"""Hypervolume improvement against brute force, BoTorch's acquisitions, direct probabilities and other units."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from botorch.acquisition import ExpectedImprovement
from botorch.acquisition.multi_objective import (
    ExpectedHypervolumeImprovement,
    qExpectedHypervolumeImprovement,
)
from botorch.models.model import Model
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.sampling.normal import SobolQMCNormalSampler
from botorch.utils.multi_objective.box_decompositions.non_dominated import FastNondominatedPartitioning
from botorch.utils.multi_objective.hypervolume import Hypervolume
from botorch.utils.multi_objective.pareto import is_non_dominated
from gpytorch.distributions import MultitaskMultivariateNormal
from torch import Tensor

from activelearning.acquisition.front import Front, inferred_reference
from activelearning.acquisition.hypervolume import (
    HypervolumeScorer,
    MultiFidelityHypervolume,
    _probability,
    _quadrature,
)
from activelearning.acquisition.posterior import at_fidelity, joint_posterior
from activelearning.contracts import Acquisition, AcquisitionContext, Constraint, Goals, Objective
from activelearning.errors import ConfigError
from surrogates.coregionalised_gp import CoregionalisedGP, Hyperparameters, Units

FIRST, SECOND, CHEAP, GAP = range(
    4
)  # targets of two objectives, a source of neither, the constraint's target
NONE = torch.empty(0, 2, dtype=torch.float64)
GRID = torch.linspace(0, 1, 12, dtype=torch.float64).unsqueeze(-1)
MIXED = [[1.0, -0.5, 0.8, 0.3], [-0.5, 1.0, -0.3, 0.4], [0.8, -0.3, 1.0, 0.2], [0.3, 0.4, 0.2, 1.0]]
BOTH = Goals((Objective(FIRST, True), Objective(SECOND, False)))
BOUNDED = Goals(BOTH.objectives, (Constraint(GAP, at_least=-0.2),))


def model(
    correlation: list[list[float]] | Tensor = MIXED,
    *,
    noise: float = 1e-2,
    scale: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0),
    offset: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0),
) -> CoregionalisedGP:
    R = torch.as_tensor(correlation, dtype=torch.float64)
    X = torch.tensor(
        [[0.1, 0], [0.1, 1], [0.1, 3], [0.6, 0], [0.6, 1], [0.6, 3], [0.35, 2], [0.9, 0], [0.8, 1]],
        dtype=torch.float64,
    )
    Y = torch.tensor([0.3, 0.2, 0.5, -0.6, -0.9, 0.1, 0.8, -1.0, 0.4], dtype=torch.float64)
    return CoregionalisedGP(
        Hyperparameters(
            torch.tensor([0.2], dtype=torch.float64),
            torch.ones(4, dtype=torch.float64),
            R,
            torch.full((4,), noise, dtype=torch.float64),
        ),
        Units(torch.tensor(offset, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64)),
        X,
        Y,
        torch.full((len(X),), noise, dtype=torch.float64),
    )


def context(
    gp: Any, goals: Goals, *, answered: Tensor | None = None, pending: Tensor = NONE
) -> AcquisitionContext:
    answered = gp.train_inputs[0] if answered is None else answered
    first = goals.objectives[0]
    return AcquisitionContext(gp, [], first.fidelity, first.maximize, None, GRID, pending, 0, goals, answered)


def scorer(gp: Any, goals: Goals, **more: Any) -> HypervolumeScorer:
    made = MultiFidelityHypervolume().build(context(gp, goals, **more))
    assert isinstance(made, HypervolumeScorer)
    return made


def queries(*fidelities: int, n: int = 6) -> Tensor:
    x = torch.linspace(0.04, 0.96, n, dtype=torch.float64)
    return torch.cat([torch.stack([x, torch.full_like(x, float(m))], dim=-1) for m in fidelities])


def row(x: float, fidelity: int) -> Tensor:
    return torch.tensor([[x, float(fidelity)]], dtype=torch.float64)


# -- the front --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_improvement_of_a_front_is_a_difference_of_hypervolumes(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    points = torch.rand(9, k, generator=generator, dtype=torch.float64)
    reference = torch.full((k,), 0.2, dtype=torch.float64)
    trials = 1.4 * torch.rand(40, k, generator=generator, dtype=torch.float64)
    found = Front(points, reference).improvement(trials)

    def volume(set_: Tensor) -> float:
        if k == 1:
            return float((set_.max() - 0.2).clamp_min(0.0))
        return float(Hypervolume(reference).compute(set_[is_non_dominated(set_)]))

    expected = [volume(torch.cat([points, trial[None]])) - volume(points) for trial in trials]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert (found > 0).any()
    assert (found == 0).any()
    nothing = Front(points[:0], reference).improvement(trials)
    torch.testing.assert_close(nothing, (trials - reference).clamp_min(0.0).prod(-1))


def test_an_inferred_reference_lies_below_the_front_wherever_zero_is() -> None:
    points = torch.tensor([[0.0, 3.0], [1.0, 1.0], [2.0, 0.0], [-5.0, -7.0]], dtype=torch.float64)
    expected = torch.tensor([-5.7, -8.0], dtype=torch.float64)
    torch.testing.assert_close(inferred_reference(points), expected)
    torch.testing.assert_close(inferred_reference(points + 40.0), expected + 40.0)
    torch.testing.assert_close(inferred_reference(points[:1]), points[0] - 1.0)
    level = torch.tensor([[1.0, 4.0], [3.0, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(inferred_reference(level), torch.tensor([0.8, 3.0], dtype=torch.float64))


def test_expected_improvement_of_a_front_is_the_mean_over_draws() -> None:
    generator = torch.Generator().manual_seed(1)
    front = Front(
        torch.rand(5, 3, generator=generator, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    )
    mean = torch.tensor([[0.6, 0.7, 0.9], [0.1, 0.2, 1.1]], dtype=torch.float64)
    deviation = torch.tensor([[0.3, 0.0, 0.2], [0.5, 0.4, 0.0]], dtype=torch.float64)
    draws = mean + deviation * torch.randn(200_000, 2, 3, generator=generator, dtype=torch.float64)
    expected = front.improvement(draws).mean(0)
    torch.testing.assert_close(front.expected_improvement(mean, deviation), expected, rtol=0.01, atol=1e-4)


def test_quadrature_integrates_smooth_and_kinked_functions() -> None:
    z, w = _quadrature()
    for power, expected in ((0, 1.0), (1, 0.0), (2, 1.0), (4, 3.0), (6, 15.0)):
        assert float((w * z**power).sum()) == pytest.approx(expected, abs=1e-6)
    for kink in (-2.3, -0.37, 0.0, 0.9, 3.1, 6.0):
        density = math.exp(-0.5 * kink**2) / math.sqrt(2 * math.pi)
        exact = density - kink * 0.5 * math.erfc(kink / math.sqrt(2))
        assert float((w * (z - kink).clamp_min(0.0)).sum()) == pytest.approx(
            exact, rel=0.02 if kink < 4 else 0.1
        )


# -- the utility ------------------------------------------------------------------------------------------------------


def brute_force(
    gp: CoregionalisedGP, goals: Goals, query: Tensor, pending: Tensor = NONE, n: int = 250
) -> float:
    """The utility by its words: draw answers, learn each, compare hypervolumes of whole fronts by BoTorch."""
    of = scorer(gp, goals, pending=pending)
    k = len(goals.objectives)
    signs = torch.tensor([1.0 if o.maximize else -1.0 for o in goals.objectives], dtype=torch.float64)

    def point(mean: Tensor, variance: Tensor) -> Tensor:
        objectives = (signs * mean[:k] - signs * of.reference) / of._scale
        p = 1.0
        for i, c in enumerate(goals.constraints):
            p *= 0.5 * math.erfc((c.at_least - float(mean[k + i])) / math.sqrt(2.0 * float(variance[k + i])))
        return torch.cat([objectives, torch.tensor([p], dtype=torch.float64)])

    def moments(gp: Any, x: float) -> tuple[Tensor, Tensor]:
        mean, covariance = joint_posterior(gp, torch.cat([row(x, m) for m in goals.targets]))
        return mean, covariance.diagonal()

    def volume(points: list[Tensor]) -> float:
        stacked = torch.stack(points)
        stacked = stacked[(stacked > 0).all(-1)]
        if not len(stacked):
            return 0.0
        zero = torch.zeros(k + 1, dtype=torch.float64)
        return float(Hypervolume(zero).compute(stacked[is_non_dominated(stacked)]))

    asked = {tuple(q) for q in torch.cat([gp.train_inputs[0], pending]).tolist()}
    complete = sorted({x for x, _ in asked if all((x, float(m)) in asked for m in goals.targets)})
    front = [point(*moments(gp, x)) for x in complete]
    boxes = Front(torch.stack(front), torch.zeros(k + 1, dtype=torch.float64))
    x, m = query.flatten().tolist()
    lacking = [t for t in goals.targets if (x, float(t)) not in asked]
    share = 1.0 / len(lacking) if int(m) in lacking else 0.0
    now = point(*moments(gp, x))
    knowing = gp
    if len(pending):
        expected, _ = joint_posterior(gp, pending)
        knowing = gp.condition_on_observations(pending, expected.unsqueeze(-1))
    by_pending = moments(gp, x)[1] - moments(knowing, x)[1]  # of a constraint, this stays unknown
    mean, noisy = joint_posterior(knowing, query, noisy=True)
    uniform = torch.quasirandom.SobolEngine(k, scramble=True, seed=0).draw(2048, dtype=torch.float64)
    normal = torch.special.ndtri(uniform.clamp(1e-9, 1.0 - 1e-9))
    total = 0.0
    for z in torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n).tolist():
        answer = mean + z * noisy.sqrt().squeeze(0)
        later, left = moments(knowing.condition_on_observations(query, answer.unsqueeze(-1)), x)
        then = point(later, left + by_pending)
        told = volume([*front, now, then]) - volume([*front, now])
        spread = left[:k].clamp_min(0.0).sqrt() / of._scale
        draws = torch.cat([then[:k] + spread * normal, then[k:].expand(len(normal), 1)], dim=-1)
        total += ((1.0 - share) * told + share * float(boxes.improvement(draws).mean())) / n
    return total


@pytest.mark.parametrize("goals", [BOTH, BOUNDED, Goals((Objective(FIRST, True),), BOUNDED.constraints)])
def test_agrees_with_brute_force(goals: Goals) -> None:
    gp = model()
    rows = torch.cat([queries(FIRST, SECOND, CHEAP, GAP, n=3), row(0.9, SECOND), row(0.35, FIRST)])
    found = scorer(gp, goals)(rows)
    expected = torch.tensor([brute_force(gp, goals, q[None]) for q in rows], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0.03, atol=1e-3 * float(expected.max()))
    assert (found > 0).sum() >= 9


def test_agrees_with_brute_force_beside_pending_work() -> None:
    gp = model()
    pending = torch.cat([row(0.4, FIRST), row(0.4, SECOND), row(0.7, CHEAP)])
    rows = torch.cat([row(0.4, CHEAP), row(0.45, FIRST), row(0.7, SECOND), row(0.2, CHEAP)])
    found = scorer(gp, BOTH, pending=pending)(rows)
    expected = torch.tensor([brute_force(gp, BOTH, q[None], pending) for q in rows], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0.03, atol=1e-3 * float(expected.max()))
    step = scorer(gp, BOTH, pending=pending[:1])
    step.add_pending(pending[1:])
    torch.testing.assert_close(step(rows), found)


class Pair(Model):
    """The two objectives' targets of a model over (features, fidelity) as the outputs of one over features."""

    def __init__(self, gp: CoregionalisedGP, signs: Tensor) -> None:
        super().__init__()
        self.gp, self.signs = gp, signs

    @property
    def num_outputs(self) -> int:
        return 2

    def posterior(self, X: Tensor, *_: Any, **__: Any) -> GPyTorchPosterior:
        column = torch.zeros_like(X[..., :1])
        rows = torch.cat([torch.cat([X, column], dim=-1), torch.cat([X, column + 1.0], dim=-1)], dim=-2)
        mean, covariance = joint_posterior(self.gp, rows)
        return GPyTorchPosterior(
            MultitaskMultivariateNormal(
                (self.signs * mean).unsqueeze(-2), self.signs[:, None] * covariance * self.signs
            )
        )


def test_agrees_with_botorch_where_the_last_target_is_asked_of_a_noise_free_independent_model() -> None:
    """One answer then completes x: where the other objective is known, and where it is on its way."""
    gp = model(torch.eye(4), noise=1e-6)
    rows = torch.cat([row(0.9, SECOND), row(0.8, FIRST), row(0.4, FIRST), row(0.25, SECOND)])
    of = scorer(gp, BOTH, answered=torch.cat([gp.train_inputs[0], row(0.4, SECOND), row(0.25, FIRST)]))
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)
    pair = Pair(gp, signs)
    measured = torch.tensor([[0.1], [0.6]], dtype=torch.float64)
    front = pair.posterior(measured.unsqueeze(-2)).mean.squeeze(-2).detach()
    cells = FastNondominatedPartitioning(signs * of.reference, front)
    closed = ExpectedHypervolumeImprovement(pair, (signs * of.reference).tolist(), cells)
    sampler = SobolQMCNormalSampler(torch.Size([4096]), seed=0)
    drawn = qExpectedHypervolumeImprovement(pair, (signs * of.reference).tolist(), cells, sampler=sampler)
    X = rows[:, :1].unsqueeze(-2)
    found = of(rows) * of._scale.prod()
    torch.testing.assert_close(found, closed(X), rtol=1e-2, atol=1e-6)
    torch.testing.assert_close(found, drawn(X), rtol=2e-2, atol=1e-4)
    assert (found > 1e-3).any()


def test_agrees_with_botorch_where_objectives_are_correlated() -> None:
    """Given one of two targets, without noise, nothing but the other is left: no independence is assumed."""
    gp = model(noise=1e-6)
    rows = torch.cat([row(0.4, FIRST), row(0.25, SECOND), row(0.2, SECOND)])
    others = torch.cat([row(0.4, SECOND), row(0.25, FIRST), row(0.2, FIRST)])  # on their way, say
    of = scorer(gp, BOTH, answered=torch.cat([gp.train_inputs[0], others]))
    plain = scorer(gp, BOTH)
    of._front = plain._front  # without the candidates themselves
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)
    pair = Pair(gp, signs)
    measured = torch.tensor([[0.1], [0.6]], dtype=torch.float64)
    front = pair.posterior(measured.unsqueeze(-2)).mean.squeeze(-2).detach()
    of._reference, of._scale = plain._reference, plain._scale
    reference = signs * plain.reference
    sampler = SobolQMCNormalSampler(torch.Size([8192]), seed=0)
    cells = FastNondominatedPartitioning(reference, front)
    drawn = qExpectedHypervolumeImprovement(pair, reference.tolist(), cells, sampler=sampler)
    expected = drawn(rows[:, :1].unsqueeze(-2))
    torch.testing.assert_close(of(rows) * plain._scale.prod(), expected, rtol=0.03, atol=1e-4)
    assert (expected > 1e-3).any()


@pytest.mark.parametrize("maximize", [True, False])
def test_of_one_objective_it_is_the_expected_improvement(maximize: bool) -> None:
    gp = model(noise=1e-6)
    goals = Goals((Objective(FIRST, maximize),))
    of = scorer(gp, goals)
    rows = queries(FIRST, n=15)
    measured = gp(row(0.1, FIRST).unsqueeze(0)).mean, gp(row(0.6, FIRST).unsqueeze(0)).mean
    measured = [*measured, gp(row(0.9, FIRST).unsqueeze(0)).mean]
    best = max(float(m) for m in measured) if maximize else min(float(m) for m in measured)
    expected = ExpectedImprovement(gp, best_f=best, maximize=maximize)(rows.unsqueeze(-2))
    torch.testing.assert_close(of(rows) * of._scale, expected, rtol=1e-2, atol=1e-6)


def test_with_a_constraint_known_at_x_it_is_the_expected_improvement_times_its_probability() -> None:
    gp = model(torch.eye(4), noise=1e-6)
    goals = Goals((Objective(FIRST, True),), (Constraint(GAP, at_least=-0.2, at_most=2.0),))
    asked = torch.cat([gp.train_inputs[0], row(0.45, GAP)])  # in flight, so that it still has a probability
    of = scorer(gp, goals, answered=asked)
    query = row(0.45, FIRST)
    mean, variance = (v.flatten() for v in joint_posterior(gp, row(0.45, GAP)))
    p = 0.5 * (
        math.erf((2.0 - mean) / math.sqrt(2 * variance)) - math.erf((-0.2 - mean) / math.sqrt(2 * variance))
    )
    # What is measured at 0.1 and 0.6 keeps the constraint, and 0.1 is the better one.
    best = float(gp(row(0.1, FIRST)).mean)
    improvement = ExpectedImprovement(gp, best_f=best)(query.unsqueeze(-2))
    torch.testing.assert_close(of(query) * of._scale, p * improvement, rtol=5e-3, atol=1e-9)
    assert 0.05 < p < 0.95


def test_probabilities_of_constraints_are_those_of_draws_and_an_answer_leaves_them_on_average() -> None:
    constraints = (
        Constraint(0, at_least=0.3),
        Constraint(1, at_most=0.1),
        Constraint(2, at_least=-1.0, at_most=0.4),
    )
    mean = torch.tensor([[0.5, 0.3, 0.0], [-0.4, 0.0, 1.0]], dtype=torch.float64)
    variance = torch.tensor([[0.2, 0.5, 0.9], [1.0, 0.1, 0.3]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    draws = mean + variance.sqrt() * torch.randn(400_000, 2, 3, generator=generator, dtype=torch.float64)
    holds = (draws[..., 0] >= 0.3) & (draws[..., 1] <= 0.1) & (draws[..., 2] >= -1.0) & (draws[..., 2] <= 0.4)
    found = _probability(constraints, mean, variance)
    torch.testing.assert_close(found, holds.double().mean(0), rtol=0.0, atol=3e-3)
    z, w = _quadrature()
    moved = mean[0, 0] + 0.35 * z
    later = _probability(
        constraints[:1], moved.unsqueeze(-1), torch.full((len(z), 1), 0.2 - 0.35**2).double()
    )
    now = _probability(constraints[:1], mean[:1, :1], variance[:1, :1])
    assert float((w * later).sum()) == pytest.approx(float(now), abs=1e-6)


def test_what_breaks_a_constraint_is_not_worth_asking_and_the_constraint_itself_may_be() -> None:
    gp = model()
    wide = scorer(gp, Goals(BOTH.objectives, (Constraint(GAP, at_least=-50.0),)))(
        queries(FIRST, SECOND, CHEAP)
    )
    never = scorer(gp, Goals(BOTH.objectives, (Constraint(GAP, at_least=50.0),)))(
        queries(FIRST, SECOND, CHEAP, GAP)
    )
    plain = scorer(gp, BOTH)(queries(CHEAP))
    torch.testing.assert_close(
        wide[-6:], plain, rtol=1e-6, atol=1e-9
    )  # one that always holds changes nothing
    assert float(never.max()) < 1e-12
    asked = scorer(gp, BOUNDED)(queries(GAP))
    assert float(asked.max()) > 0


def test_an_answer_that_tells_nothing_is_worth_nothing_and_none_harms() -> None:
    independent = model(torch.eye(4))
    assert float(scorer(independent, BOTH)(queries(CHEAP, GAP)).max()) < 1e-12
    correlated = scorer(model(), BOUNDED)(queries(FIRST, SECOND, CHEAP, GAP, n=20))
    assert (correlated >= 0).all()
    assert float(scorer(model(), BOTH)(queries(CHEAP)).max()) > 0
    noisy = scorer(model(noise=4.0), BOTH)(queries(CHEAP))
    assert float(noisy.max()) < float(scorer(model(), BOTH)(queries(CHEAP)).max())


def test_what_one_answer_completes_is_worth_more_than_what_two_do() -> None:
    gp = model()
    here = row(0.3, SECOND)
    asked = gp.train_inputs[0]
    lacking_two = scorer(gp, BOTH, answered=asked)(here)
    lacking_one = scorer(gp, BOTH, answered=torch.cat([asked, row(0.3, FIRST)]))(here)
    assert float(lacking_one) > float(lacking_two)


@pytest.mark.parametrize("goals", [BOTH, BOUNDED])
def test_units_and_offsets_do_not_matter(goals: Goals) -> None:
    plain = scorer(model(), goals)(queries(*range(4)))
    factor, shift = (1e5, 1e-4, 7.0, 1.0), (-40.0, 2e-4, 3.0, 0.0)
    other = scorer(model(scale=factor, offset=shift), goals)(queries(*range(4)))
    torch.testing.assert_close(plain, other, rtol=1e-5, atol=1e-10)


def test_minimising_is_maximising_the_negative() -> None:
    R = torch.tensor(MIXED, dtype=torch.float64)
    R[SECOND], R[:, SECOND] = -R[SECOND], -R[:, SECOND]
    R[SECOND, SECOND] = 1.0
    gp, turned = model(), model(R)
    is_second = turned.train_inputs[0][:, 1] == SECOND
    targets = torch.where(is_second, -gp.train_targets, gp.train_targets)
    mirrored = CoregionalisedGP(
        turned.hyperparameters, turned.units, gp.train_inputs[0], targets, gp.train_noise
    )
    flipped = Goals((Objective(FIRST, True), Objective(SECOND, True)))
    torch.testing.assert_close(
        scorer(gp, BOTH)(queries(*range(4))), scorer(mirrored, flipped)(queries(*range(4)))
    )


def test_a_stated_reference_is_kept() -> None:
    goals = Goals((Objective(FIRST, True, reference=-2.5), Objective(SECOND, False)))
    of = scorer(model(), goals)
    inferred = scorer(model(), BOTH).reference
    assert float(of.reference[0]) == pytest.approx(-2.5)
    assert float(of.reference[1]) == pytest.approx(float(inferred[1]))
    assert float(inferred[0]) < 0.3
    beyond = Goals((Objective(FIRST, True, reference=50.0), Objective(SECOND, False)))
    assert float(scorer(model(), beyond)(queries(FIRST, CHEAP)).max()) < 1e-12


@pytest.mark.parametrize("goals", [BOTH, BOUNDED, Goals((Objective(FIRST, True),))])
def test_batched_values_and_gradients(goals: Goals) -> None:
    of = scorer(model(), goals, pending=torch.cat([row(0.4, FIRST), row(0.4, SECOND)]))
    rows = torch.cat([queries(*range(4), n=20), queries(FIRST, CHEAP)])  # more than one chunk
    torch.testing.assert_close(of(rows), torch.cat([of(r[None]) for r in rows]))
    some = queries(FIRST, CHEAP, n=4)
    assert torch.autograd.gradcheck(
        lambda x: of(torch.cat([x, some[:, 1:]], dim=-1)),
        (some[:, :1].clone().requires_grad_(True),),
        atol=2e-4,
    )


def test_before_any_answer_it_works_from_the_prior() -> None:
    gp = model()
    blank = CoregionalisedGP(gp.hyperparameters, gp.units, NONE, NONE[:, 0], NONE[:, 0])
    scores = scorer(blank, BOUNDED)(queries(*range(4)))
    assert scores.isfinite().all()
    assert float(scores.max()) > 0


def test_contract_and_bad_input() -> None:
    assert isinstance(MultiFidelityHypervolume(), Acquisition)
    gp = model()
    with pytest.raises(ConfigError, match="goals"):
        MultiFidelityHypervolume().build(AcquisitionContext(gp, [], 0, True, None, GRID, NONE, 0))
    with pytest.raises(ConfigError, match="neither"):
        MultiFidelityHypervolume().build(
            AcquisitionContext(gp, [], 0, True, None, GRID[:0], NONE, 0, BOTH, NONE)
        )
    assert torch.equal(at_fidelity(row(0.3, 2), 0), row(0.3, 0))
