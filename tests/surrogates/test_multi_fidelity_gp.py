import io
import math
from collections.abc import Sequence

import pytest
import torch

from activelearning.candidate import BoxCandidate
from activelearning.contracts import Surrogate
from activelearning.errors import ConfigError, InputError, StoreError
from activelearning.fidelity import Fidelity
from activelearning.measurement import Censoring
from activelearning.observation import Observation
from activelearning.spaces.box import BoxSpace
from surrogates.multi_fidelity_gp import MultiFidelityGP

SPACE = BoxSpace(bounds=[(-1.0, 1.0), (0.0, 5.0)])


def fidelities(*properties: str) -> list[Fidelity]:
    return [Fidelity(f"f{i}", i, p, None, 1.0, i == 0) for i, p in enumerate(properties)]


def target(x: float, y: float) -> float:
    return -4.0 + 1.5 * math.sin(3.0 * x) + 0.3 * (y - 2.0) ** 2


def points(n: int, seed: int = 0) -> list[BoxCandidate]:
    U = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return SPACE.from_features(U)


def answers(
    candidates: Sequence[BoxCandidate], fidelity: int, a: float = 1.0, b: float = 0.0
) -> list[Observation]:
    return [Observation(c, fidelity, a * target(*c.values) + b) for c in candidates]


def rmse(surrogate: MultiFidelityGP, fidelity: int = 0, a: float = 1.0, b: float = 0.0) -> float:
    test = points(200, seed=99)
    predicted = surrogate.predict(test, fidelity).mean
    truth = torch.tensor([a * target(*c.values) + b for c in test], dtype=torch.float64)
    return float((predicted - truth).square().mean().sqrt())


def test_contract() -> None:
    assert isinstance(MultiFidelityGP(SPACE, fidelities("p")), Surrogate)


@pytest.mark.parametrize("slope", [1.0, -1.0, -250.0])
def test_a_reversed_source_in_another_unit_tells_as_much(slope: float) -> None:
    """Few target answers, many of a source a·f + b that measures another property."""
    surrogate = MultiFidelityGP(SPACE, fidelities("p", "other"))
    observations = answers(points(6), 0) + answers(points(40, seed=1), 1, slope, 700.0)
    figures = surrogate.fit(observations, seed=0)
    assert math.copysign(1.0, slope) * figures["correlation"][0][1] > 0.9
    alone = MultiFidelityGP(SPACE, fidelities("p"))
    alone.fit(answers(points(6), 0), seed=0)
    assert rmse(surrogate) < 0.5 * rmse(alone)
    assert rmse(surrogate) < 0.35
    assert rmse(surrogate, 1, slope, 700.0) < 0.2 * abs(slope)


def test_straight_and_reversed_give_the_same_posterior() -> None:
    stds = []
    for slope in (1.0, -1.0):
        surrogate = MultiFidelityGP(SPACE, fidelities("p", "other"))
        surrogate.fit(answers(points(8), 0) + answers(points(40, seed=1), 1, slope), seed=0)
        stds.append(surrogate.predict(points(50, seed=7), 0).std)
    torch.testing.assert_close(stds[0], stds[1], rtol=1e-6, atol=1e-9)


def test_an_uninformative_source_is_recognised() -> None:
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(40, generator=generator, dtype=torch.float64).tolist()
    useless = [Observation(c, 1, v) for c, v in zip(points(40, seed=1), noise, strict=True)]
    surrogate = MultiFidelityGP(SPACE, fidelities("p", "p"))
    surrogate.fit(answers(points(20), 0) + useless, seed=0)
    alone = MultiFidelityGP(SPACE, fidelities("p"))
    alone.fit(answers(points(20), 0), seed=0)
    assert rmse(surrogate) < 1.5 * rmse(alone)


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (0, 1), (2, 0), (0, 2), (0, 30), (1, 30)])
def test_few_answers(counts: tuple[int, int]) -> None:
    surrogate = MultiFidelityGP(SPACE, fidelities("p", "p"))
    observations = answers(points(counts[0]), 0) + answers(points(counts[1], seed=1), 1)
    figures = surrogate.fit(observations, seed=0)
    assert figures["n"] == {"f0": counts[0], "f1": counts[1]}
    for fidelity in (0, 1):
        prediction = surrogate.predict(points(20, seed=3), fidelity)
        assert prediction.mean.shape == prediction.std.shape == (20,)
        assert prediction.mean.isfinite().all()
        assert (prediction.std > 0).all()


def test_constant_answers_are_no_error() -> None:
    surrogate = MultiFidelityGP(SPACE, fidelities("p", "p"))
    surrogate.fit([Observation(c, i, 3.0) for c in points(6) for i in (0, 1)], seed=0)
    prediction = surrogate.predict(points(5, seed=3), 0)
    torch.testing.assert_close(prediction.mean, torch.full((5,), 3.0, dtype=torch.float64), atol=0.1, rtol=0)


def test_known_errors_are_used() -> None:
    exact = answers(points(15), 0)
    wrong = [Observation(o.candidate, 0, o.value + 3.0 * (-1) ** i, std=4.0) for i, o in enumerate(exact)]
    surrogate = MultiFidelityGP(SPACE, fidelities("p"))
    surrogate.fit(exact + wrong, seed=0)
    told = rmse(surrogate)
    untold = MultiFidelityGP(SPACE, fidelities("p"))
    untold.fit(exact + [Observation(o.candidate, 0, o.value) for o in wrong], seed=0)
    assert told < 0.5 * rmse(untold)


def test_bounds_enter_as_bounds() -> None:
    """Answers below −3.5 are seen only as "at most −3.5": better than as values, better than nothing."""
    everything = answers(points(40), 0)
    bounds = [
        Observation(o.candidate, 0, -3.5, censoring=Censoring.UPPER) if o.value < -3.5 else o
        for o in everything
    ]
    as_values = [Observation(o.candidate, 0, o.value) for o in bounds]
    left_out = [o for o in bounds if o.censoring is Censoring.NONE]
    test = [c for c in points(300, seed=99) if target(*c.values) < -3.5]
    truth = torch.tensor([target(*c.values) for c in test], dtype=torch.float64)
    likelihoods = {}
    for name, observations in {"bounds": bounds, "values": as_values, "nothing": left_out}.items():
        surrogate = MultiFidelityGP(SPACE, fidelities("p"))
        figures = surrogate.fit(observations, seed=0)
        assert figures["n_bounds"] == sum(o.censoring is not Censoring.NONE for o in observations)
        mean, std = surrogate.predict(test, 0).mean, surrogate.predict(test, 0).std
        likelihoods[name] = float(torch.distributions.Normal(mean, std).log_prob(truth).mean())
    assert likelihoods["bounds"] > likelihoods["values"]
    assert likelihoods["bounds"] > likelihoods["nothing"]


def test_bounds_alone() -> None:
    surrogate = MultiFidelityGP(SPACE, fidelities("p"))
    surrogate.fit([Observation(c, 0, -10.0, censoring=Censoring.UPPER) for c in points(4)], seed=0)
    prediction = surrogate.predict(points(4), 0)
    assert (prediction.mean < -10.0).all()


def test_warm_start_and_state() -> None:
    observations = answers(points(12), 0) + answers(points(30, seed=1), 1, -1.0)
    surrogate = MultiFidelityGP(SPACE, fidelities("p", "p"))
    surrogate.fit(observations[:-4], seed=0)
    buffer = io.BytesIO()
    torch.save(surrogate.state_dict(), buffer)
    buffer.seek(0)
    restored = MultiFidelityGP(SPACE, fidelities("p", "p"))
    restored.load_state_dict(torch.load(buffer, weights_only=True))
    first, second = surrogate.fit(observations, seed=0), restored.fit(observations, seed=0)
    assert first == second
    assert surrogate.fingerprint == restored.fingerprint
    restored.condition(observations[:-1])
    assert surrogate.fingerprint != restored.fingerprint


@pytest.mark.parametrize("missing", [("inflation",), ("inflation", "value", "fits_since_cold")], ids=str)
def test_a_state_of_an_earlier_version_is_followed_by_a_cold_fit(missing: tuple[str, ...]) -> None:
    observations = answers(points(12), 0) + answers(points(20, seed=1), 1, -1.0)
    other = MultiFidelityGP(SPACE, fidelities("p", "p"))
    other.fit(observations[:14], seed=5)
    state = {key: value for key, value in other.state_dict().items() if key not in missing}
    restored, fresh = (MultiFidelityGP(SPACE, fidelities("p", "p")) for _ in range(2))
    restored.load_state_dict(state)
    assert restored.fit(observations, seed=0) == fresh.fit(observations, seed=0)
    assert restored.fingerprint == fresh.fingerprint
    with pytest.raises(StoreError, match="neither may change"):
        MultiFidelityGP(SPACE, fidelities("p")).load_state_dict(state)


def test_condition_keeps_hyperparameters() -> None:
    surrogate = MultiFidelityGP(SPACE, fidelities("p"))
    surrogate.fit(answers(points(12), 0), seed=0)
    before = surrogate.state_dict()["theta"]
    surrogate.condition(answers(points(20), 0))
    assert torch.equal(before, surrogate.state_dict()["theta"])
    assert surrogate.model.train_targets.shape == (20,)


def test_leave_one_out_is_what_leaving_out_gives() -> None:
    observations = answers(points(15), 0) + answers(points(15, seed=1), 1, 2.0)
    surrogate = MultiFidelityGP(SPACE, fidelities("p", "q"))
    figures = surrogate.fit(observations, seed=0)
    model = surrogate.model
    errors = []
    for i in range(15):
        keep = torch.arange(30) != i
        rest = type(model)(
            model.hyperparameters,
            model.units,
            model.train_inputs[0][keep],
            model.train_targets[keep],
            model.train_noise[keep],
        )
        errors.append(float(rest.posterior(model.train_inputs[0][i : i + 1]).mean) - observations[i].value)
    expected = math.sqrt(sum(e * e for e in errors) / 15)
    assert figures["loo_rmse"]["f0"] == pytest.approx(expected, rel=1e-6)


def test_intervals_cover() -> None:
    """90 % intervals of noise-free answers, over functions drawn at random."""
    generator = torch.Generator().manual_seed(0)
    inside = []
    for repetition in range(6):
        weights = torch.randn(4, generator=generator, dtype=torch.float64).tolist()

        def f(c: BoxCandidate, w: list[float] = weights) -> float:
            x, y = c.values
            return w[0] * math.sin(2.5 * x + w[1]) + w[2] * math.cos(1.2 * y + w[3])

        surrogate = MultiFidelityGP(SPACE, fidelities("p"))
        surrogate.fit([Observation(c, 0, f(c)) for c in points(12, seed=repetition)], seed=0)
        test = points(100, seed=1000 + repetition)
        prediction = surrogate.predict(test, 0)
        truth = torch.tensor([f(c) for c in test], dtype=torch.float64)
        inside.append(((prediction.mean - truth).abs() < 1.645 * prediction.std).double().mean())
    assert 0.8 <= float(torch.stack(inside).mean()) <= 1.0


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="max_iterations"):
        MultiFidelityGP(SPACE, fidelities("p"), max_iterations=0)
    with pytest.raises(ConfigError, match="needs a target"):
        MultiFidelityGP(SPACE, [Fidelity("a", 0, "p", None, 1.0, False)])
    with pytest.raises(InputError, match="fidelity 2"):
        MultiFidelityGP(SPACE, fidelities("p")).fit(answers(points(1), 2), seed=0)
    other = MultiFidelityGP(SPACE, fidelities("p", "p"))
    with pytest.raises(StoreError, match="neither may change"):
        other.load_state_dict(MultiFidelityGP(SPACE, fidelities("p")).state_dict())
