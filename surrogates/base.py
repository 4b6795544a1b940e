"""What all surrogates share: data in and out, warm and cold fits, bounds, feasibility, state."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from activelearning.candidate import Candidate
from activelearning.contracts import Prediction, Space
from activelearning.errors import ConfigError, InputError, StoreError
from activelearning.fidelity import Fidelity
from activelearning.measurement import Censoring
from activelearning.observation import Observation, Outcome
from surrogates.data import Data
from surrogates.diagnostics import Bounds, leave_one_out
from surrogates.evidence import Parametrisation
from surrogates.feasibility import Feasibility
from surrogates.fidelity_gp import FidelityGP
from surrogates.map_fit import condition, fit_map, with_sites
from surrogates.priors import Prior, Units, amplitudes, correlation, fidelity_column
from surrogates.recalibration import inflation
from surrogates.sparse_gp import SparseGP
from surrogates.standardise import units_of

# A cold fit stands beside the warm one whenever the data have grown by this factor since the last ...
_COLD_GROWTH = 1.5
# ... or the warm fit explains the data worse than the last fit did by so much, in nats an observation.
_COLD_FALL = 0.1
_FITTED_ROWS = 1000  # that hyper-parameters are fitted to where the process is sparse
_SCANNED_ROWS = (
    500  # of a cold fit where it is their bound that is fitted: it needs the right mode, not the last digit
)
_INDUCING = 1000
_CHUNK = 2048  # rows of one prediction
_SIGN = {Censoring.NONE: 0.0, Censoring.UPPER: 1.0, Censoring.LOWER: -1.0}


class GaussianProcessSurrogate(ABC):
    """A Gaussian process over features and fidelity, whose prior a subclass gives.

    Each fidelity has its own mean, scale and noise. Known standard errors add to the learned noise. Bounds enter as
    one-sided likelihoods, by expectation propagation.

    Above `size_limit` observations the posterior is that of a sparse variational process over all of them, and its
    hyper-parameters are fitted exactly to a spread of rows. The variational bound as the objective, over all
    observations, takes functions that its inducing points can't follow for smoother and noisier than they are; it is
    there where a subclass sets `fits_bound`.

    Args:
        space: Gives the features, `n x d`.
        fidelities: The campaign's fidelities, by index.
        max_iterations: Most L-BFGS iterations of one fit.
        cold_every: Fits are warm, from the last one's hyper-parameters; every so many rounds a cold one stands beside
            the warm one and the better of the two is taken. A cold fit is also made when the observations have grown
            by half since the last, and when they have become clearly less likely under the warm fit.
        size_limit: Most observations of the exact process.
        n_inducing: Most inducing points of the sparse process; by default 1000, or size_limit where that is less.

    Raises:
        ConfigError: a number is below 1, n_inducing is above size_limit, or no fidelity is a target.
    """

    fits_bound: ClassVar[bool] = False

    def __init__(
        self,
        space: Space,
        fidelities: Sequence[Fidelity],
        *,
        max_iterations: int = 60,
        cold_every: int = 10,
        size_limit: int = 1500,
        n_inducing: int | None = None,
    ) -> None:
        numbers = {"max_iterations": max_iterations, "cold_every": cold_every, "size_limit": size_limit}
        if n_inducing is None:
            n_inducing = min(_INDUCING, size_limit)
        else:
            numbers["n_inducing"] = n_inducing
        for key, value in numbers.items():
            if value < 1:
                raise ConfigError(f"surrogate.{key} must be at least 1, not {value}.")
        if n_inducing > size_limit:
            raise ConfigError(
                f"surrogate.n_inducing is {n_inducing}, above surrogate.size_limit, which is {size_limit}: the sparse "
                f"process that takes over there would be dearer than the exact one. Lower n_inducing or raise "
                f"size_limit."
            )
        targets = [fidelity.index for fidelity in fidelities if fidelity.is_target]
        if not targets:
            raise ConfigError("The surrogate needs a target fidelity, and there is none.")
        self.space = space
        self.fidelities = tuple(fidelities)
        self.target = targets[0]
        self.max_iterations = max_iterations
        self.cold_every = cold_every
        self.size_limit = size_limit
        self.n_inducing = n_inducing
        self._parametrisation = self._parametrise()
        self._theta = self._parametrisation.start(0)
        self._n_at_cold_fit = 0
        self._fits_since_cold = 0
        self._value = 0.0  # of the last fit, an observation
        self._inflation = torch.ones(len(self.fidelities), dtype=torch.float64)
        self._feasibility = Feasibility()
        self.condition([])

    @abstractmethod
    def _parametrise(self) -> Parametrisation:
        """The prior and how its hyper-parameters lie in one vector."""

    @abstractmethod
    def _signature(self) -> dict[str, Any]:
        """What a stored state must agree with: plain values."""

    def _units(self, index: Tensor, values: Tensor) -> Units:
        """Standardisation of answers `n` of fidelities `n`."""
        return units_of(self.fidelities, index, values)

    @property
    def model(self) -> FidelityGP:
        """BoTorch model over `n x (d + 1)`: the noise-free answer in the unit of each row's fidelity."""
        return self._model

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of hyper-parameters, units and data."""
        model = self._model
        parts = [self._theta, model.units.offset, model.units.scale, self._inflation]
        parts += [model.train_inputs[0], model.train_targets, model.train_noise]
        sha = hashlib.sha256()
        for part in parts:
            sha.update(str(tuple(part.shape)).encode())
            sha.update(part.contiguous().numpy().tobytes())
        return sha.hexdigest()

    def fit(self, observations: Sequence[Observation], *, seed: int) -> dict[str, Any]:
        """Fit hyper-parameters to all observations, warm from the last fit, and condition on them.

        The fit is deterministic and bounded by its iterations; `seed` sets where a cold fit starts, if that is left to
        chance, and on which rows, if there are too many.

        Returns:
            `n` (by fidelity), `n_bounds`, `n_inducing` (None where exact), `negative_log_posterior` (of the
            standardised answers that hyper-parameters were fitted to), `correlation`
            (`M x M`), `lengthscales` (least, median, greatest), and by fidelity, in its unit: `noise_std`,
            `scale`, `inflation` (of predicted variances, see `predict`), and of answers left out one by one
            (bounds aside; None where there are none) `loo_rmse`, `loo_nlpd`, `loo_coverage_50`, `loo_coverage_90`,
            and for bounds `loo_bound_log_probability`; see `surrogates.diagnostics.LeaveOneOut`.

        Raises:
            InputError: an observation's fidelity is none of the campaign's.
        """
        data, units = self._standardise(observations)
        value = None
        if observations:
            self._theta, value = self._optimise(data, seed)
        self._model = self._condition(data, units)
        return {"negative_log_posterior": value, **self._figures(data)}

    def condition(self, observations: Sequence[Observation]) -> None:
        """Take observations up under the present hyper-parameters, which stay as they are.

        Raises:
            InputError: an observation's fidelity is none of the campaign's.
        """
        self._model = self._condition(*self._standardise(observations))

    def fit_feasibility(self, outcomes: Sequence[Outcome], *, seed: int) -> dict[str, Any]:
        """Learn which evaluations fail; see `surrogates.feasibility`.

        Returns:
            `n_failed` by fidelity, and `log_evidence` (None as long as nothing has failed).
        """
        features = self.space.features([o.candidate for o in outcomes])
        index = torch.tensor([o.fidelity for o in outcomes], dtype=torch.long)
        answered = torch.tensor([o.answered for o in outcomes], dtype=torch.bool)
        self._feasibility.fit(
            features.reshape(len(outcomes), self.space.n_features), index, answered, seed=seed
        )
        failed = torch.bincount(index[~answered], minlength=len(self.fidelities)).tolist()
        return {
            "n_failed": {fidelity.name: n for fidelity, n in zip(self.fidelities, failed, strict=True)},
            "log_evidence": self._feasibility.log_evidence,
        }

    def feasibility(self, X: Tensor) -> Tensor:
        """Probability that each query `n x (d + 1)` answers, `n`."""
        return self._feasibility.probability(X[:, :-1], fidelity_column(X))

    def predict(self, candidates: Sequence[Candidate], fidelity: int) -> Prediction:
        """Posterior of the noise-free answer at one fidelity, `n`, in its unit, recalibrated.

        Its variance is that of `model` times the factor that cross-validation says it lacks
        (`surrogates.recalibration`). Acquisitions go by `model` as it is: they weigh queries against one another, and
        under variances that are wider everywhere a search of few answers keeps exploring for too long.
        """
        features = self.space.features(candidates)
        X = torch.cat(
            [features, torch.full((len(features), 1), float(fidelity), dtype=torch.float64)], dim=-1
        )
        means, variances = [X.new_empty(0)], [X.new_empty(0)]
        with torch.no_grad():
            for chunk in X.split(_CHUNK):
                distribution = self._model(chunk.unsqueeze(-2))
                means.append(distribution.mean.squeeze(-1))
                variances.append(distribution.variance.squeeze(-1))
        return Prediction(torch.cat(means), (torch.cat(variances) * self._inflation[fidelity]).sqrt())

    def state_dict(self) -> dict[str, Any]:
        """Hyper-parameters, from which the next fit starts, and what says whether it will be a cold one."""
        return {
            "theta": self._theta.clone(),
            "n_at_cold_fit": self._n_at_cold_fit,
            "fits_since_cold": self._fits_since_cold,
            "value": self._value,
            "inflation": self._inflation.clone(),
            **self._signature(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take hyper-parameters up; call `fit` or `condition` for the data.

        A state of an earlier version, which did not keep all that a warm fit goes by, leaves the next fit a cold one.

        Raises:
            StoreError: the state is of another kind of surrogate, number of features or fidelities.
        """
        mine = self._signature()
        stored = {key: state.get(key) for key in mine}
        if mine != stored:
            raise StoreError(
                f"The stored surrogate has {_said(stored)}, the campaign's {_said(mine)}; neither may change within a "
                f"campaign. Go on with what is stored, or give the campaign another name."
            )
        if not set(self.state_dict()) <= set(state):
            return
        self._theta = state["theta"].clone()
        self._n_at_cold_fit = int(state["n_at_cold_fit"])
        self._fits_since_cold = int(state["fits_since_cold"])
        self._value = float(state["value"])
        self._inflation = state["inflation"].clone()
        self.condition([])

    def _standardise(self, observations: Sequence[Observation]) -> tuple[Data, Units]:
        for o in observations:
            if not 0 <= o.fidelity < len(self.fidelities):
                raise InputError(
                    f"An observation is of fidelity {o.fidelity}; there are {len(self.fidelities)}, from 0."
                )
        index = torch.tensor([o.fidelity for o in observations], dtype=torch.long)
        values = torch.tensor([o.value for o in observations], dtype=torch.float64)
        std = torch.tensor([o.std or 0.0 for o in observations], dtype=torch.float64)
        sign = torch.tensor([_SIGN[o.censoring] for o in observations], dtype=torch.float64)
        features = self.space.features([o.candidate for o in observations])
        features = features.reshape(len(observations), self.space.n_features)
        units = self._units(index, values)
        offset, scale = units.offset[index], units.scale[index]
        X = torch.cat([features, index.unsqueeze(-1).to(features)], dim=-1)
        return Data(X, (values - offset) / scale, (std / scale).square(), sign), units

    def _optimise(self, data: Data, seed: int) -> tuple[Tensor, float]:
        n_all = len(data.Y)
        if n_all > self.size_limit and not self.fits_bound:
            data = data.rows(_spread_rows(data.fidelity, min(_FITTED_ROWS, self.size_limit), seed))
        n = len(data.Y)
        found = []
        is_cold = self._fits_since_cold + 1 >= self.cold_every or n_all >= _COLD_GROWTH * self._n_at_cold_fit
        if self._n_at_cold_fit:
            found.append(self._fit(self._theta, data, scan=False))
            is_cold = is_cold or found[0][1] / n > self._value + _COLD_FALL
        self._fits_since_cold += 1
        if is_cold:
            found.append(self._fit_cold(data, seed))
            self._n_at_cold_fit, self._fits_since_cold = n_all, 0
            self._inflation = self._recalibrate(data, seed)
        theta, value = min(found, key=lambda pair: pair[1])
        self._value = value / n
        return theta, value

    def _recalibrate(self, data: Data, seed: int) -> Tensor:
        """What predictive variances lack, see `surrogates.recalibration`."""
        if len(data.Y) > _SCANNED_ROWS:
            data = data.rows(_spread_rows(data.fidelity, _SCANNED_ROWS, seed))

        def fit(some: Data) -> Prior:
            start = self._parametrisation.start(seed)
            theta, _ = fit_map(start, some, self._parametrisation, self.max_iterations, scan=True)
            with torch.no_grad():
                return self._parametrisation.decode(theta)

        return inflation(data, len(self.fidelities), fit)

    def _fit_cold(self, data: Data, seed: int) -> tuple[Tensor, float]:
        some = data
        if len(data.Y) > self.size_limit:
            some = data.rows(_spread_rows(data.fidelity, min(_SCANNED_ROWS, self.size_limit), seed))
        # Signs of correlations show best at fitted lengthscales, so the scan is repeated after a first fit.
        first, _ = self._fit(self._parametrisation.start(seed), some, scan=True)
        second = self._fit(first, some, scan=True)
        return second if some is data else self._fit(second[0], data, scan=False)

    def _fit(self, start: Tensor, data: Data, *, scan: bool) -> tuple[Tensor, float]:
        n_inducing = self._n_inducing(data)
        return fit_map(
            start, data, self._parametrisation, self.max_iterations, scan=scan, n_inducing=n_inducing
        )

    def _n_inducing(self, data: Data) -> int | None:
        """None where the exact process is used."""
        return self.n_inducing if len(data.Y) > self.size_limit else None

    def _condition(self, data: Data, units: Units) -> FidelityGP:
        n_inducing = self._n_inducing(data)
        prior = self._parametrisation.decode(self._theta)
        gaussian = with_sites(data, prior, n_inducing)
        return condition(prior, units, gaussian.X, gaussian.Y, gaussian.noise(prior.noise), n_inducing)

    def _figures(self, data: Data) -> dict[str, Any]:
        model = self._model
        hyperparameters, units = model.hyperparameters, model.units
        names = [fidelity.name for fidelity in self.fidelities]
        counts = torch.bincount(data.fidelity, minlength=len(names)).tolist()
        lengthscales = hyperparameters.lengthscales
        noise = hyperparameters.noise[data.fidelity] + data.variance
        left_out = leave_one_out(model, ~data.is_bound, Bounds(data.Y, data.sign, noise))
        return {
            "n": dict(zip(names, counts, strict=True)),
            "n_bounds": int(data.is_bound.sum()),
            "n_inducing": len(model.inducing) if isinstance(model, SparseGP) else None,
            "correlation": correlation(hyperparameters).tolist(),
            "lengthscales": [
                float(lengthscales.min()),
                float(lengthscales.median()),
                float(lengthscales.max()),
            ],
            "noise_std": dict(zip(names, (hyperparameters.noise.sqrt() * units.scale).tolist(), strict=True)),
            "scale": dict(zip(names, (amplitudes(hyperparameters) * units.scale).tolist(), strict=True)),
            "inflation": dict(zip(names, self._inflation.tolist(), strict=True)),
            **left_out.figures(names),
        }


def _said(signature: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in signature.items())


def _spread_rows(fidelity: Tensor, n_rows: int, seed: int) -> Tensor:
    """At most `n_rows` rows, `m`, drawn so that every fidelity has its even share, or all it has."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    shuffled = torch.randperm(len(fidelity), generator=generator)
    # Position of each shuffled row among those of its fidelity: the lowest positions are taken.
    one_hot = torch.nn.functional.one_hot(fidelity[shuffled])
    place = (one_hot.cumsum(dim=0) * one_hot).sum(dim=1)
    return shuffled[place.argsort(stable=True)[:n_rows]].sort().values
