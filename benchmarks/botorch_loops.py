"""BoTorch's own loops on the box problems, as baselines of `fidelity_choice.py`: one query at a time.

Methods:

    mf_mes    SingleTaskMultiFidelityGP, qMultiFidelityMaxValueEntropy / cost
    mf_kg     SingleTaskMultiFidelityGP, qMultiFidelityKnowledgeGradient / cost, projected to the target fidelity
    log_ei    SingleTaskGP of the target alone, LogExpectedImprovement

Both multi-fidelity loops are those of BoTorch's tutorials (`multi_fidelity_bo`, `discrete_multi_fidelity_bo`):
fidelities are numbers in [0, 1] with 1 the target, the kernel is the linear truncated one, and `optimize_acqf_mixed`
runs through the levels. Costs are those of the levels, exactly: an affine model of cost can't state more than two of
them. The first design is the one that a campaign of the same seed draws, point by point, and is paid for. What differs
from the tutorials, for speed, is in `Effort`; the model is fitted anew, from where it was, whenever the data have grown
by a fifth, and told the new answers in between. As in the tutorials the last question of a multi-fidelity loop is its
recommendation, the target at the best expected point: the knowledge gradient hardly asks the target where the best is
expected. A loop ends when nothing more can be paid for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gpytorch
import numpy as np
import torch
from botorch.acquisition import AcquisitionFunction, LogExpectedImprovement, PosteriorMean
from botorch.acquisition.cost_aware import InverseCostWeightedUtility
from botorch.acquisition.fixed_feature import FixedFeatureAcquisitionFunction
from botorch.acquisition.knowledge_gradient import qMultiFidelityKnowledgeGradient
from botorch.acquisition.max_value_entropy_search import qMultiFidelityMaxValueEntropy
from botorch.exceptions.warnings import BotorchWarning
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.deterministic import DeterministicModel
from botorch.models.gp_regression_fidelity import SingleTaskMultiFidelityGP
from botorch.optim import optimize_acqf, optimize_acqf_mixed
from botorch.optim.initializers import gen_batch_initial_conditions
from botorch.posteriors import GPyTorchPosterior
from botorch.utils import t_batch_mode_transform
from botorch.utils.sampling import boltzmann_sample, draw_sobol_samples
from gpytorch.distributions import MultivariateNormal
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from activelearning.campaign.config import InitialDesignConfig
from activelearning.campaign.initial import design_counts
from activelearning.campaign.seeds import seed_for
from activelearning.fidelity import Fidelity
from activelearning.spaces.box import BoxSpace
from oracles.function import FUNCTIONS
from samplers.random import RandomSampler

METHODS = ("mf_mes", "mf_kg", "log_ei")
# The levels of Branin and Hartmann-6 are s of the augmented functions; Borehole's low level has no number of its own.
LEVELS = {"low": 0.5, "medium": 0.75, "high": 1.0}
REFIT = 1.2  # growth of the data at which hyper-parameters are fitted again

# (cumulative cost, best target value so far, fidelity, value)
Point = tuple[float, float | None, str, float]


@dataclass(frozen=True)
class Effort:
    """What an optimisation of an acquisition spends.

    Attributes:
        restarts: Starts of L-BFGS-B, for each fidelity.
        raw_samples: Points of which these are chosen.
        iterations: Most iterations of L-BFGS-B.
        fantasies: Of the knowledge gradient (the tutorial: 128).
        max_samples: Draws of the greatest value.
        answers: Draws of an answer for each of them (BoTorch's default: 128).
        candidates: Points over which the greatest value is taken (the tutorial: 1000).
    """

    restarts: int
    raw_samples: int
    iterations: int
    fantasies: int = 0
    max_samples: int = 0
    answers: int = 0
    candidates: int = 0


# An evaluation costs much the same for one point as for many: better many starts than many iterations.
EFFORT: Mapping[str, Effort] = {
    "mf_mes": Effort(4, 256, 6, max_samples=10, answers=32, candidates=500),
    "mf_kg": Effort(4, 32, 5, fantasies=8),
    "log_ei": Effort(4, 256, 50),
}


class LevelCost(DeterministicModel):
    """Cost of a query by the level in its last column, exactly."""

    def __init__(self, levels: Tensor, costs: Tensor) -> None:
        super().__init__()
        self.levels, self.costs = levels, costs
        self._num_outputs = 1

    def forward(self, X: Tensor) -> Tensor:
        """Costs, `... x q x 1`, of queries `... x q x (d + 1)`."""
        nearest = (X[..., -1:] - self.levels).abs().argmin(dim=-1, keepdim=True)
        return self.costs[nearest]


def initial_counts(of: Mapping[str, Any], total: float, share: float = 0.2) -> dict[str, int]:
    """Evaluations of each fidelity in the first design of a campaign on the problem."""
    fidelities = [
        Fidelity(f["name"], index, of["name"], None, f["cost"], bool(f.get("target")))
        for index, f in enumerate(of["fidelities"])
    ]
    counts = design_counts(InitialDesignConfig(share=share), fidelities, len(of["bounds"]), total)
    return {f.name: counts[f.index] for f in fidelities}


def run(
    of: Mapping[str, Any],
    method: str,
    seed: int,
    total: float,
    counts: Mapping[str, int] | None = None,
) -> list[Point]:
    """One loop on a problem, from its first design to the end of its budget.

    Args:
        of: A problem, from `problems.problem`.
        method: One of `METHODS`; `log_ei` asks the target alone.
        seed: Seed, as of a campaign.
        total: Budget, in target evaluations.
        counts: First evaluations of each fidelity; by default those of a campaign (a fifth of the budget).

    Returns:
        A point for every answer, in order; the best is None before the target's first.
    """
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}; known: {', '.join(METHODS)}")
    if method == "log_ei":
        of = {**of, "fidelities": [f for f in of["fidelities"] if f.get("target")]}
    torch.manual_seed(seed_for(seed, 0, f"botorch.{method}"))
    loop = Loop(of, method, total)
    loop.ask_first(seed, counts or initial_counts(of, total))
    price = loop.costs[loop.target]
    if method != "log_ei" and loop.left >= price:
        loop.reserve = price
    while loop.affordable():
        loop.step()
    if loop.reserve:
        loop.ask(loop.recommendation(), loop.target)
    return loop.points


class Loop:
    """Data and model of one loop; answers are those of the maximised problem."""

    def __init__(self, of: Mapping[str, Any], method: str, total: float) -> None:
        self.space = BoxSpace(of["bounds"])
        self.sign = 1.0 if of["direction"] == "maximize" else -1.0
        self.names = [f["name"] for f in of["fidelities"]]
        self.target = next(f["name"] for f in of["fidelities"] if f.get("target"))
        self.costs = {f["name"]: float(f["cost"]) for f in of["fidelities"]}
        self.params = {f["name"]: f["params"] for f in of["fidelities"]}
        self.effort, self.method, self.total = EFFORT[method], method, total
        self.points: list[Point] = []
        self.X = torch.empty(0, self.space.n_features + 1, dtype=torch.float64)
        self.Y = torch.empty(0, 1, dtype=torch.float64)
        self.reserve = 0.0  # kept back for the recommendation
        self._state: dict[str, Tensor] = {}
        self._fitted = 0  # size of the data at the last fit
        levels = torch.tensor([LEVELS[name] for name in self.names], dtype=torch.float64)
        prices = torch.tensor([self.costs[name] for name in self.names], dtype=torch.float64)
        self._utility = InverseCostWeightedUtility(LevelCost(levels, prices))

    @property
    def spent(self) -> float:
        """Cost so far."""
        return self.points[-1][0] if self.points else 0.0

    @property
    def left(self) -> float:
        """Rest of the budget, with slack for sums of decimal fractions."""
        return (self.total - self.spent) * (1.0 + 1e-9) + 1e-9

    def affordable(self) -> list[str]:
        """Fidelities that the budget pays for, beside what is kept back."""
        return [name for name in self.names if self.costs[name] <= self.left - self.reserve]

    def ask_first(self, seed: int, counts: Mapping[str, int]) -> None:
        """The nested design of a campaign's round 0: each fidelity takes the first of the same points."""
        wanted = max(counts.values())
        drawn = RandomSampler(self.space, len(self.names) if len(self.names) > 1 else None).sample_untrained(
            2 * wanted, seed=seed_for(seed, 0, "initial_design")
        )
        candidates = list(dict.fromkeys(proposal.candidate for proposal in drawn))[:wanted]
        for name in self.names:
            for row in self.space.features(candidates[: counts.get(name, 0)]):
                self.ask(row, name)

    def ask(self, features: Tensor, name: str) -> None:
        """Ask one question, and pay."""
        value = answer(self.params[name], features, self.space)
        best = self.points[-1][1] if self.points else None
        if name == self.target:
            best = value if best is None else self.sign * max(self.sign * best, self.sign * value)
        self.points.append((self.spent + self.costs[name], best, name, value))
        row = torch.cat([features.detach(), torch.tensor([LEVELS[name]], dtype=torch.float64)])
        self.X = torch.cat([self.X, row.unsqueeze(0)])
        self.Y = torch.cat([self.Y, torch.tensor([[self.sign * value]], dtype=torch.float64)])

    def step(self) -> None:
        """Fit, find the best query and ask it."""
        with quiet(len(self.X)):
            model = self._model()
            query = self._log_ei(model) if self.method == "log_ei" else self._multi_fidelity(model)
        name = min(self.names, key=lambda name: abs(LEVELS[name] - float(query[-1])))
        self.ask(query[:-1], name)

    def recommendation(self) -> Tensor:
        """Features at which the target is expected to be best, `d`."""
        with quiet(len(self.X)):
            points, values = self._best_expected(self._model())
        return points[values.argmax(), :-1]

    # -- the model ----------------------------------------------------------------------------------------------------

    def _model(self) -> SingleTaskGP:
        d = self.space.n_features
        if self.method == "log_ei":
            model = SingleTaskGP(self.X[:, :d], self.Y)
        else:
            model = SingleTaskMultiFidelityGP(self.X, self.Y, data_fidelities=[d])
        if self._state:
            model.load_state_dict({**model.state_dict(), **self._state})
        if len(self.X) >= REFIT * self._fitted:
            # From where the last fit ended a few iterations do.
            options = {"maxiter": 30} if self._fitted else {}
            fit_gpytorch_mll(
                ExactMarginalLogLikelihood(model.likelihood, model), optimizer_kwargs={"options": options}
            )
            self._fitted = len(self.X)
            # All but the standardisation, which is that of the data.
            self._state = {
                k: v for k, v in model.state_dict().items() if not k.startswith("outcome_transform")
            }
        model.eval()
        return model

    # -- the query ----------------------------------------------------------------------------------------------------

    def _log_ei(self, model: SingleTaskGP) -> Tensor:
        bounds = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, self.space.n_features)
        found, _ = optimize_acqf(
            LogExpectedImprovement(model, best_f=self.Y.max()), bounds, q=1, **self._options()
        )
        return torch.cat([found[0], torch.ones(1, dtype=torch.float64)])

    def _multi_fidelity(self, model: SingleTaskGP) -> Tensor:
        d, effort = self.space.n_features, self.effort
        bounds = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, d + 1)
        acquisition: AcquisitionFunction
        starts = None
        if self.method == "mf_mes":
            candidates = draw_sobol_samples(bounds, effort.candidates, 1).squeeze(-2)
            acquisition = qMultiFidelityMaxValueEntropy(
                model,
                candidates,
                num_mv_samples=effort.max_samples,
                num_y_samples=effort.answers,
                cost_aware_utility=self._utility,
                project=at_target,
            )
        else:
            points, values = self._best_expected(model)
            starts = knowledge_gradient_starts(points, values)
            acquisition = KnowledgeGradient(
                model,
                num_fantasies=effort.fantasies,
                current_value=values.max(),
                cost_aware_utility=self._utility,
                project=at_target,
            )
        found, _ = optimize_acqf_mixed(
            acquisition,
            bounds,
            q=1,
            fixed_features_list=[{d: LEVELS[name]} for name in self.affordable()],
            ic_generator=starts,
            **self._options(),
        )
        return found[0]

    def _best_expected(self, model: SingleTaskGP) -> tuple[Tensor, Tensor]:
        """Maxima of the target's posterior mean, `k x (d + 1)`, and the mean there, `k`."""
        d = self.space.n_features
        points, values = optimize_acqf(
            FixedFeatureAcquisitionFunction(PosteriorMean(model), d=d + 1, columns=[d], values=[1.0]),
            torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, d),
            q=1,
            num_restarts=8,
            raw_samples=256,
            options={"maxiter": 30},
            return_best_only=False,
        )
        return torch.cat([points[:, 0], torch.ones(len(points), 1, dtype=points.dtype)], dim=-1), values

    def _options(self) -> dict[str, Any]:
        return {
            "num_restarts": self.effort.restarts,
            "raw_samples": self.effort.raw_samples,
            "options": {"maxiter": self.effort.iterations},
        }


class KnowledgeGradient(qMultiFidelityKnowledgeGradient):
    """BoTorch's acquisition, its fantasies conditioned on by the closed form for one observation.

    BoTorch conditions the model anew on every fantasy of every start, which takes the cube of the number of
    observations each time; values and gradients are the same.
    """

    def __init__(self, model: SingleTaskGP, **options: Any) -> None:
        super().__init__(model, **options)
        anywhere = torch.zeros(1, model.train_inputs[0].shape[-1], dtype=torch.float64)
        with torch.no_grad():
            noisy, plain = (model.posterior(anywhere, observation_noise=n).variance for n in (True, False))
        self.noise = (noisy - plain).squeeze()

    @t_batch_mode_transform()
    def forward(self, X: Tensor) -> Tensor:
        """The acquisition `b` at `b x (1 + n_fantasies) x (d + 1)`: a query, and the best point after each answer."""
        query, best = X[..., :1, :], X[..., 1:, :]
        joint = self.model.posterior(torch.cat([query, self.project(best)], dim=-2)).distribution
        covariance = joint.covariance_matrix
        answer = MultivariateNormal(joint.mean[..., :1], covariance[..., :1, :1] + self.noise)
        draws = self.sampler(GPyTorchPosterior(answer)).flatten(-2)  # n_fantasies x b x 1
        surprise = (draws - answer.mean) / answer.variance
        values = (joint.mean[..., 1:] + covariance[..., 0, 1:] * surprise.squeeze(-1).movedim(0, -1)).movedim(
            -1, 0
        )
        if self.current_value is not None:
            values = values - self.current_value
        values = self.cost_aware_utility(X=query, deltas=values, sampler=self.cost_sampler)
        return values.mean(dim=0)


def knowledge_gradient_starts(points: Tensor, values: Tensor) -> Callable[..., Tensor]:
    """BoTorch's starts for the one-shot knowledge gradient, from best expected points that are known already.

    `gen_one_shot_kg_initial_conditions` would look for them anew for every fidelity.

    Args:
        points: Maxima of the posterior mean, `k x (d + 1)`.
        values: The mean at these, `k`.
    """

    def starts(
        acq_function: qMultiFidelityKnowledgeGradient,
        bounds: Tensor,
        q: int,
        num_restarts: int,
        raw_samples: int,
        fixed_features: dict[int, float] | None = None,
        options: dict[str, Any] | None = None,
        **_: Any,
    ) -> Tensor:
        n = int(0.9 * acq_function.num_fantasies)  # as there: a tenth is left to chance
        found = gen_batch_initial_conditions(
            acq_function,
            bounds,
            q=acq_function.get_augmented_q_batch_size(q),
            num_restarts=num_restarts,
            raw_samples=raw_samples,
            fixed_features=fixed_features,
            options=options,
        )
        chosen = boltzmann_sample(values, num_samples=num_restarts * n, eta=2.0, replacement=True)
        found[..., -n:, :] = points[chosen].view(num_restarts, n, -1)
        return found

    return starts


@contextmanager
def quiet(n_observations: int) -> Iterator[None]:
    """Without the libraries' warnings, and with less of their own work around the same arithmetic."""
    with (
        warnings.catch_warnings(),
        # Whole covariance matrices at once take less time than parts on demand while they are small.
        gpytorch.settings.lazily_evaluate_kernels(n_observations > 60),
        gpytorch.settings.debug(False),
    ):
        warnings.simplefilter("ignore", BotorchWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def at_target(X: Tensor) -> Tensor:
    """Queries `... x (d + 1)` at the target level."""
    return torch.cat([X[..., :-1], torch.ones_like(X[..., -1:])], dim=-1)


def answer(params: Mapping[str, Any], features: Tensor, space: BoxSpace) -> float:
    """What a fidelity of these parameters (those of the oracle `function`) says at features `d`."""
    (candidate,) = space.from_features(features.unsqueeze(0))
    level = FUNCTIONS[params["function"]].levels[params["fidelity"]]
    value = float(level(np.array([candidate.values]))[0])
    return -value if params.get("reversed") else value
