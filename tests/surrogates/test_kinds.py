"""What every surrogate must do, and what each does by itself: fits, bounds, states, campaigns."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import text

from activelearning.campaign.config import parse_config
from activelearning.campaign.engine import Engine
from activelearning.campaign.tick import run
from activelearning.candidate import BoxCandidate
from activelearning.contracts import Surrogate
from activelearning.contracts.registry import load_plugin
from activelearning.errors import ConfigError, StoreError
from activelearning.fidelity import Fidelity
from activelearning.measurement import Censoring
from activelearning.observation import Observation
from activelearning.spaces.box import BoxSpace
from surrogates.autoregressive_gp import AutoregressiveGP
from surrogates.base import GaussianProcessSurrogate
from surrogates.continuous_fidelity_gp import ContinuousFidelityGP
from surrogates.deep_kernel_gp import DeepKernelGP
from surrogates.fidelity_gp import ExactGP
from surrogates.multi_fidelity_gp import MultiFidelityGP
from surrogates.sparse_gp import SparseGP

SPACE = BoxSpace(bounds=[(-1.0, 1.0), (0.0, 5.0)])
FIDELITIES = [
    Fidelity("high", 0, "y", "eV", 1.0, True),
    Fidelity("low", 1, "y", "eV", 0.1, False),
]
KINDS: dict[str, dict[str, Any]] = {
    "multi_fidelity_gp": {},
    "sparse_variational_gp": {"n_inducing": 20},
    "autoregressive_gp": {},
    "continuous_fidelity_gp": {},
    "deep_kernel_gp": {"hidden": [6]},
}


def make(kind: str, **params: Any) -> GaussianProcessSurrogate:
    surrogate = load_plugin("surrogates", kind)(SPACE, FIDELITIES, **{**KINDS[kind], **params})
    assert isinstance(surrogate, GaussianProcessSurrogate)
    return surrogate


def target(c: BoxCandidate) -> float:
    x, y = c.values
    return -4.0 + 1.5 * math.sin(3.0 * x) + 0.3 * (y - 2.0) ** 2


def points(n: int, seed: int = 0) -> list[BoxCandidate]:
    U = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return SPACE.from_features(U)


def observed(n_high: int, n_low: int, slope: float = 1.0) -> list[Observation]:
    high = [Observation(c, 0, target(c)) for c in points(n_high)]
    return high + [Observation(c, 1, slope * target(c) + 0.2) for c in points(n_low, seed=1)]


def rmse(surrogate: GaussianProcessSurrogate) -> float:
    test = points(200, seed=99)
    truth = torch.tensor([target(c) for c in test], dtype=torch.float64)
    return float((surrogate.predict(test, 0).mean - truth).square().mean().sqrt())


@pytest.mark.parametrize("kind", KINDS)
def test_few_answers_of_the_target_lean_on_many_of_another(kind: str) -> None:
    surrogate = make(kind)
    assert isinstance(surrogate, Surrogate)
    figures = surrogate.fit(observed(6, 40), seed=0)
    assert set(figures) >= {
        *("n", "n_bounds", "negative_log_posterior", "correlation", "lengthscales", "noise_std", "scale"),
        *("loo_rmse", "loo_coverage_90"),
    }
    assert figures["correlation"][0][1] > 0.8
    alone = MultiFidelityGP(SPACE, FIDELITIES)
    alone.fit(observed(6, 0), seed=0)
    assert rmse(surrogate) < 0.6 * rmse(alone)
    assert rmse(surrogate) < 0.4


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "continuous_fidelity_gp"])
def test_a_reversed_source_tells_as_much(kind: str) -> None:
    straight, reversed_ = make(kind), make(kind)
    straight.fit(observed(8, 40), seed=0)
    figures = reversed_.fit(observed(8, 40, -1.0), seed=0)
    assert figures["correlation"][0][1] < -0.8
    assert rmse(reversed_) < 1.5 * rmse(straight) + 0.05


def test_levels_say_that_no_source_is_reversed() -> None:
    surrogate = make("continuous_fidelity_gp")
    figures = surrogate.fit(observed(12, 12, -1.0), seed=0)
    assert figures["correlation"][0][1] > 0.0
    alone = make("continuous_fidelity_gp")
    alone.fit(observed(12, 0), seed=0)
    assert rmse(surrogate) < 1.2 * rmse(alone)  # it does no harm where the target has answers of its own


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_enter_as_bounds(kind: str) -> None:
    everything = observed(40, 0)
    bounds = [
        Observation(o.candidate, 0, -3.5, censoring=Censoring.UPPER) if o.value < -3.5 else o
        for o in everything
    ]
    likelihoods = []
    test = [c for c in points(300, seed=99) if target(c) < -3.5]
    truth = torch.tensor([target(c) for c in test], dtype=torch.float64)
    for observations in (bounds, [Observation(o.candidate, 0, o.value) for o in bounds]):
        surrogate = make(kind)
        surrogate.fit(observations, seed=0)
        prediction = surrogate.predict(test, 0)
        normal = torch.distributions.Normal(prediction.mean, prediction.std)
        likelihoods.append(float(normal.log_prob(truth).mean()))
    assert likelihoods[0] > likelihoods[1]


@pytest.mark.parametrize("kind", KINDS)
def test_states_go_round_bit_for_bit(kind: str) -> None:
    observations = observed(10, 30)
    surrogate, restored = make(kind), make(kind)
    surrogate.fit(observations[:-4], seed=0)
    buffer = io.BytesIO()
    torch.save(surrogate.state_dict(), buffer)
    buffer.seek(0)
    restored.load_state_dict(torch.load(buffer, weights_only=True))
    assert restored.fit(observations, seed=1) == surrogate.fit(observations, seed=1)
    assert restored.fingerprint == surrogate.fingerprint
    one, other = (s.predict(points(5, seed=4), 0) for s in (surrogate, restored))
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.std, other.std)
    for theirs in KINDS:
        if theirs not in (kind, "sparse_variational_gp") and kind != "sparse_variational_gp":
            with pytest.raises(StoreError, match="neither may change"):
                make(theirs).load_state_dict(surrogate.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_two_rounds_on_branin(kind: str, tmp_path: Path) -> None:
    function = {"function": "branin"}
    config = parse_config(
        {
            "name": "two-rounds",
            "space": {"type": "box", "bounds": [[-5, 10], [0, 15]]},
            "objective": {"property": "branin", "direction": "minimize"},
            "fidelities": [
                {"name": "low", "oracle": "function", "cost": 0.1, "params": {**function, "fidelity": "low"}},
                {
                    "name": "high",
                    "oracle": "function",
                    "cost": 1.0,
                    "target": True,
                    "params": {**function, "fidelity": "high"},
                },
            ],
            "sampler": {"type": "random"},
            "surrogate": {"type": kind, "max_iterations": 15, **KINDS[kind]},
            "acquisition": {"batch_size": 2, "pool_size": 24, "n_max_samples": 4},
            "initial_design": {"per_fidelity": {"low": 20, "high": 4}},
            "stopping": {"max_rounds": 2},
            "budget": {"total": 20.0, "per_round": 2.5},
        }
    )
    with Engine.open(config, folder=tmp_path, store=f"sqlite:///{tmp_path / 'store.db'}") as engine:
        run(engine)
        with engine.repository.database.read() as session:
            rows = session.execute(
                text('SELECT "index", model_fingerprint FROM rounds ORDER BY "index"')
            ).all()
            answers = session.execute(text("SELECT count(*) FROM measurements")).scalar_one()
    assert [row[0] for row in rows] == [0, 1, 2]
    assert all(row[1] for row in rows[1:])
    assert answers > 24


def test_sparse_takes_over_above_the_limit() -> None:
    surrogate = make("multi_fidelity_gp", size_limit=40, n_inducing=25)
    assert surrogate.fit(observed(10, 30), seed=0)["n_inducing"] is None
    assert isinstance(surrogate.model, ExactGP)
    exact = rmse(surrogate)
    figures = surrogate.fit(observed(12, 40), seed=0)
    assert isinstance(surrogate.model, SparseGP)
    assert figures["n_inducing"] == 25
    assert figures["n"] == {"high": 12, "low": 40}
    assert rmse(surrogate) < exact + 0.1
    assert make("multi_fidelity_gp", size_limit=40).n_inducing == 40


def cold_fits(surrogate: GaussianProcessSurrogate, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of observations at which cold fits were made, filled as they are."""
    seen: list[int] = []
    fit_cold = surrogate._fit_cold

    def counted(data: Any, seed: int) -> Any:
        seen.append(len(data.Y))
        return fit_cold(data, seed)

    monkeypatch.setattr(surrogate, "_fit_cold", counted)
    return seen


def test_cold_fits_come_round_by_round_and_by_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    observations = observed(20, 40)
    surrogate = make("multi_fidelity_gp", cold_every=3, max_iterations=20)
    seen = cold_fits(surrogate, monkeypatch)
    for n in (20, 21, 22, 23, 24, 25, 26, 39, 40):
        surrogate.fit(observations[:n], seed=0)
    assert seen == [20, 23, 26, 39]


def test_the_round_of_a_cold_fit_is_kept_in_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    observations = observed(20, 10)
    surrogate = make("multi_fidelity_gp", cold_every=3, max_iterations=20)
    for n in (27, 28, 29):
        surrogate.fit(observations[:n], seed=0)
    restored = make("multi_fidelity_gp", cold_every=3, max_iterations=20)
    restored.load_state_dict(surrogate.state_dict())
    seen = cold_fits(restored, monkeypatch)
    restored.fit(observations, seed=0)
    assert seen == [30]


def test_answers_that_a_warm_fit_finds_unlikely_ask_for_a_cold_one(monkeypatch: pytest.MonkeyPatch) -> None:
    surrogate = make("multi_fidelity_gp", cold_every=100)
    surrogate.fit(observed(30, 0), seed=0)
    seen = cold_fits(surrogate, monkeypatch)
    more = points(40)[30:]
    surrogate.fit(observed(30, 0) + [Observation(c, 0, target(c)) for c in more[:4]], seed=0)
    assert seen == []
    noise = [Observation(c, 0, target(c) + 3.0 * (-1) ** i) for i, c in enumerate(more)]
    surrogate.fit(observed(30, 0) + noise, seed=0)
    assert seen == [40]


def test_bad_input_is_named() -> None:
    for key in ("max_iterations", "cold_every", "size_limit", "n_inducing"):
        with pytest.raises(ConfigError, match=rf"surrogate\.{key} must be at least 1"):
            make("multi_fidelity_gp", **{key: 0})
    with pytest.raises(ConfigError, match=r"above surrogate\.size_limit"):
        make("multi_fidelity_gp", size_limit=100, n_inducing=200)
    with pytest.raises(ConfigError, match=r"surrogate\.n_inducing must be at least 1"):
        make("sparse_variational_gp", n_inducing=0)


def three() -> list[Fidelity]:
    return [
        Fidelity("md", 0, "y", None, 1.0, False),
        Fidelity("lab", 1, "y", None, 50.0, True),
        Fidelity("dft", 2, "y", None, 90.0, False),
    ]


def test_order_is_by_cost_with_the_target_last_unless_stated() -> None:
    assert AutoregressiveGP(SPACE, three()).order == (0, 2, 1)
    assert AutoregressiveGP(SPACE, three(), order=["dft", "md", "lab"]).order == (2, 0, 1)
    for order, match in (
        (["md", "lab"], "every fidelity once"),
        (["md", "md", "lab"], "every fidelity once"),
        ("md", "every fidelity once"),
        (["md", "lab", "dft"], "must end with the target, 'lab'"),
    ):
        with pytest.raises(ConfigError, match=match):
            AutoregressiveGP(SPACE, three(), order=order)


def test_levels_are_equal_steps_unless_stated() -> None:
    assert ContinuousFidelityGP(SPACE, three()).levels == pytest.approx((1 / 3, 1.0, 2 / 3))
    stated = {"md": 0.2, "dft": 0.5, "lab": 0.9}
    assert ContinuousFidelityGP(SPACE, three(), levels=stated).levels == (0.2, 0.9, 0.5)
    bad: list[tuple[Any, str]] = [
        ({"md": 0.2, "lab": 1.0}, "each of the fidelities"),
        ({**stated, "md": 0.0}, r"surrogate\.levels\.md"),
        ({**stated, "lab": 1.5}, r"surrogate\.levels\.lab"),
        ({**stated, "md": "low"}, r"surrogate\.levels\.md"),
        ({**stated, "dft": 0.9}, "no other fidelity, must have the highest"),
        ({**stated, "dft": 0.95}, "no other fidelity, must have the highest"),
        ([0.1, 0.2, 1.0], "each of the fidelities"),
    ]
    for levels, match in bad:
        with pytest.raises(ConfigError, match=match):
            ContinuousFidelityGP(SPACE, three(), levels=levels)
    other = [*three()[:2], Fidelity("dft", 2, "barrier", "eV", 90.0, False)]
    with pytest.raises(ConfigError, match=r"these measure barrier \(eV\), y"):
        ContinuousFidelityGP(SPACE, other)


def test_bad_networks_are_refused() -> None:
    for hidden in ([], [0], 16, "16", [4.5]):
        with pytest.raises(ConfigError, match=r"surrogate\.hidden"):
            DeepKernelGP(SPACE, FIDELITIES, hidden=hidden)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"surrogate\.weight_sigma"):
        DeepKernelGP(SPACE, FIDELITIES, weight_sigma=0.0)
