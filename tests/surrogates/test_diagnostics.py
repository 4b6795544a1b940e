"""Leave-one-out figures against models that really lack the answer."""

import math

import pytest
import torch
from scipy import stats

from activelearning.candidate import BoxCandidate
from activelearning.fidelity import Fidelity
from activelearning.measurement import Censoring
from activelearning.observation import Observation
from activelearning.spaces.box import BoxSpace
from surrogates.coregionalised_gp import CoregionalisedGP
from surrogates.diagnostics import Bounds, leave_one_out
from surrogates.multi_fidelity_gp import MultiFidelityGP

FIDELITIES = [Fidelity("far", 0, "y", "eV", 1.0, True), Fidelity("near", 1, "z", "meV", 0.1, False)]


def observations(n: int = 14) -> list[Observation]:
    """A smooth function with some noise at two fidelities, one of them in units a thousand times smaller; bounds."""
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, n, generator=generator, dtype=torch.float64)
    found = []
    for i, (a, b) in enumerate(x.tolist()):
        candidate, truth = BoxCandidate((a, b)), math.sin(3 * a) + b
        std = 0.05 if i % 3 == 0 else None
        found.append(Observation(candidate, 0, truth + 0.1 * float(noise[0, i]), std))
        found.append(Observation(candidate, 1, 1000 * (truth + 0.2 * float(noise[1, i])) - 300))
    return found


BOUNDS = [
    Observation(BoxCandidate((0.5, 0.5)), 0, 1.2, None, Censoring.UPPER),  # tight
    Observation(BoxCandidate((0.2, 0.8)), 1, 2.0, None, Censoring.LOWER),  # says next to nothing
    Observation(BoxCandidate((0.9, 0.1)), 0, 0.8, 0.1, Censoring.LOWER),  # surprising
]


def without(model: CoregionalisedGP, row: int) -> CoregionalisedGP:
    keep = torch.arange(len(model.train_targets)) != row
    X, Y, noise = model.train_inputs[0][keep], model.train_targets[keep], model.train_noise[keep]
    return CoregionalisedGP(model.hyperparameters, model.units, X, Y, noise)


def test_left_out_answers_are_predicted_as_by_a_model_without_them() -> None:
    known = observations()
    surrogate = MultiFidelityGP(BoxSpace([[0, 1], [0, 1]]), FIDELITIES)
    figures = surrogate.fit(known, seed=0)
    model = surrogate.model
    found: dict[str, list[tuple[float, float]]] = {"far": [], "near": []}
    for row, o in enumerate(known):
        rest = without(model, row)
        # With the learned noise and the standard error that is known, in the fidelity's own unit.
        variance = rest.noise_variance(model.train_inputs[0][row]) + (o.std or 0.0) ** 2
        prediction = rest.posterior(
            model.train_inputs[0][row : row + 1], observation_noise=variance.reshape(1, 1)
        )
        deviation = float(prediction.variance.sqrt())
        found[FIDELITIES[o.fidelity].name].append((o.value - float(prediction.mean), deviation))
    for name, pairs in found.items():
        errors = [e for e, _ in pairs]
        density = [stats.norm.logpdf(e, scale=s) for e, s in pairs]
        assert figures["loo_rmse"][name] == pytest.approx(math.sqrt(sum(e * e for e in errors) / len(errors)))
        assert figures["loo_nlpd"][name] == pytest.approx(-sum(density) / len(density))
        for level in (50, 90):
            inside = [abs(e) <= stats.norm.ppf(0.5 + level / 200) * s for e, s in pairs]
            assert figures[f"loo_coverage_{level}"][name] == pytest.approx(sum(inside) / len(inside))
    assert figures["loo_bound_log_probability"] == {"far": None, "near": None}


def test_left_out_bounds_are_judged_by_a_model_without_their_site() -> None:
    known = observations() + BOUNDS
    surrogate = MultiFidelityGP(BoxSpace([[0, 1], [0, 1]]), FIDELITIES)
    figures = surrogate.fit(known, seed=0)
    model = surrogate.model
    expected: dict[str, list[float]] = {"far": [], "near": []}
    for row, o in enumerate(known):
        if o.censoring is Censoring.NONE:
            continue
        rest = without(model, row)
        x = model.train_inputs[0][row : row + 1]
        prediction = rest.posterior(x)
        deviation = math.sqrt(
            float(prediction.variance) + float(rest.noise_variance(x)) + (o.std or 0.0) ** 2
        )
        z = (o.value - float(prediction.mean)) / deviation
        expected[FIDELITIES[o.fidelity].name].append(
            float(stats.norm.logcdf(z if o.censoring is Censoring.UPPER else -z))
        )
    for name, values in expected.items():
        assert figures["loo_bound_log_probability"][name] == pytest.approx(
            sum(values) / len(values), rel=1e-5
        )
    assert sum(figures["n"].values()) == len(known)


@pytest.mark.parametrize("site_noise", [1e-4, 1.0, 1e8])
def test_sites_of_any_width_are_left_out_to_full_precision(site_noise: float) -> None:
    surrogate = MultiFidelityGP(BoxSpace([[0, 1], [0, 1]]), FIDELITIES)
    surrogate.fit(observations(), seed=0)
    fitted = surrogate.model
    X, Y, noise = fitted.train_inputs[0], fitted.train_targets.clone(), fitted.train_noise.clone()
    Y[4], noise[4] = 0.7 * site_noise**0.5, site_noise
    model = CoregionalisedGP(fitted.hyperparameters, fitted.units, X, Y, noise)
    sign, bound = torch.zeros_like(Y), torch.zeros_like(Y)
    sign[4], bound[4] = 1.0, 0.3
    answer_noise = torch.full_like(Y, 0.01)
    found = leave_one_out(model, sign == 0, Bounds(bound, sign, answer_noise)).bound_log_probability
    rest = without(model, 4).posterior(X[4:5])
    offset, scale = fitted.units.offset[0], fitted.units.scale[0]
    mean, variance = (rest.mean - offset) / scale, rest.variance / scale.square()
    expected = torch.special.log_ndtr((0.3 - mean) / (variance + 0.01).sqrt())
    assert found[0] == pytest.approx(float(expected), rel=1e-8)
    assert found[1] is None


def test_nothing_known_gives_no_figures() -> None:
    figures = MultiFidelityGP(BoxSpace([[0, 1], [0, 1]]), FIDELITIES).fit([], seed=0)
    for key in ("rmse", "nlpd", "coverage_50", "coverage_90", "bound_log_probability"):
        assert figures[f"loo_{key}"] == {"far": None, "near": None}
