"""The default surrogate: a coregionalised Gaussian process over every fidelity's answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from activelearning.candidate import Candidate
from activelearning.contracts import Prediction, Space
from activelearning.errors import ConfigError, InputError, StoreError
from activelearning.fidelity import Fidelity
from activelearning.measurement import Censoring
from activelearning.observation import Observation, Outcome
from surrogates.coregionalised_gp import CoregionalisedGP, Units, fidelity_column
from surrogates.diagnostics import Bounds, leave_one_out
from surrogates.feasibility import Feasibility
from surrogates.hyperparameters import Coordinates
from surrogates.map_fit import Data, fit_map, with_sites
from surrogates.standardise import units_of

# A fit from the prior's mode stands beside the warm one whenever the data have grown by this factor since
# the last.
_COLD_GROWTH = 1.5
_CHUNK = 2048  # rows of one prediction
_SIGN = {Censoring.NONE: 0.0, Censoring.UPPER: 1.0, Censoring.LOWER: -1.0}


class MultiFidelityGP:
    """Gaussian process with intrinsic coregionalisation over the fidelity.

    Each fidelity has its own mean, scale and noise, so that fidelities may measure different properties in
    different units; how they correlate is learned, with either sign. Known standard errors add to the
    learned noise. Bounds enter as one-sided likelihoods, by expectation propagation.

    Args:
        space: Gives the features, `n x d`.
        fidelities: The campaign's fidelities, by index.
        max_iterations: Most L-BFGS iterations of one fit.

    Raises:
        ConfigError: max_iterations is below 1, or no fidelity is a target.
    """

    def __init__(self, space: Space, fidelities: Sequence[Fidelity], *, max_iterations: int = 60) -> None:
        if max_iterations < 1:
            raise ConfigError(f"surrogate.max_iterations must be at least 1, not {max_iterations}.")
        targets = [fidelity.index for fidelity in fidelities if fidelity.is_target]
        if not targets:
            raise ConfigError("The surrogate needs a target fidelity; there is none.")
        self.space = space
        self.fidelities = tuple(fidelities)
        self.max_iterations = max_iterations
        self._coordinates = Coordinates.of(space.n_features, len(fidelities), targets[0])
        self._theta = self._coordinates.prior_mode()
        self._n_at_cold_fit = 0
        self._feasibility = Feasibility()
        self.condition([])

    @property
    def model(self) -> CoregionalisedGP:
        """BoTorch model over `n x (d + 1)`: the noise-free answer in the unit of each row's fidelity."""
        return self._model

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of hyper-parameters, units and data."""
        model = self._model
        parts = [self._theta, model.units.offset, model.units.scale]
        parts += [model.train_inputs[0], model.train_targets, model.train_noise]
        sha = hashlib.sha256()
        for part in parts:
            sha.update(str(tuple(part.shape)).encode())
            sha.update(part.contiguous().numpy().tobytes())
        return sha.hexdigest()

    def fit(self, observations: Sequence[Observation], *, seed: int) -> dict[str, Any]:
        """Fit hyper-parameters to all observations, warm from the last fit, and condition on them.

        The fit is deterministic and bounded by its iterations; `seed` is not needed.

        Returns:
            `n` (by fidelity), `n_bounds`, `negative_log_posterior` (of standardised answers), `correlation`
            (`M x M`), `lengthscales` (least, median, greatest), and by fidelity, in its unit: `noise_std`,
            `scale`, and of answers left out one by one (see `surrogates.diagnostics`; None where there are
            none) `loo_rmse`, `loo_nlpd`, `loo_coverage_50`, `loo_coverage_90`, and for bounds
            `loo_bound_log_probability`.

        Raises:
            InputError: an observation's fidelity is none of the campaign's.
        """
        data, units = self._standardise(observations)
        value = None
        if observations:
            self._theta, value = self._optimise(data)
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
        """Posterior of the noise-free answer at one fidelity, `n`, in its unit."""
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
        return Prediction(torch.cat(means), torch.cat(variances).sqrt())

    def state_dict(self) -> dict[str, Any]:
        """Hyper-parameters, from which the next fit starts."""
        return {
            "theta": self._theta.clone(),
            "n_at_cold_fit": self._n_at_cold_fit,
            "n_features": self._coordinates.n_features,
            "order": list(self._coordinates.order),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take hyper-parameters up; call `fit` or `condition` for the data.

        Raises:
            StoreError: the state is of another number of features or other fidelities.
        """
        mine = (self._coordinates.n_features, list(self._coordinates.order))
        stored = (state["n_features"], list(state["order"]))
        if mine != stored:
            raise StoreError(
                f"The stored surrogate has {stored[0]} features and fidelities {stored[1]}, the campaign "
                f"{mine[0]} features and fidelities {mine[1]}; neither may change within a campaign."
            )
        self._theta = state["theta"].clone()
        self._n_at_cold_fit = int(state["n_at_cold_fit"])
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
        units = units_of(self.fidelities, index, values)
        offset, scale = units.offset[index], units.scale[index]
        X = torch.cat([features, index.unsqueeze(-1).to(features)], dim=-1)
        return Data(X, (values - offset) / scale, (std / scale).square(), sign), units

    def _optimise(self, data: Data) -> tuple[Tensor, float]:
        n = len(data.Y)
        found = []
        if self._n_at_cold_fit:
            found.append(self._fit(self._theta, data, scan=False))
        if n >= _COLD_GROWTH * self._n_at_cold_fit:
            # Signs of correlations show best at fitted lengthscales, so the scan is repeated after a first fit.
            first, _ = self._fit(self._coordinates.prior_mode(), data, scan=True)
            found.append(self._fit(first, data, scan=True))
            self._n_at_cold_fit = n
        return min(found, key=lambda pair: pair[1])

    def _fit(self, start: Tensor, data: Data, *, scan: bool) -> tuple[Tensor, float]:
        return fit_map(start, data, self._coordinates, self.max_iterations, scan=scan)

    def _condition(self, data: Data, units: Units) -> CoregionalisedGP:
        hyperparameters = self._coordinates.decode(self._theta)
        gaussian = with_sites(data, hyperparameters)
        noise = gaussian.noise(hyperparameters.noise)
        return CoregionalisedGP(hyperparameters, units, gaussian.X, gaussian.Y, noise)

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
            "correlation": hyperparameters.correlation.tolist(),
            "lengthscales": [
                float(lengthscales.min()),
                float(lengthscales.median()),
                float(lengthscales.max()),
            ],
            "noise_std": dict(zip(names, (hyperparameters.noise.sqrt() * units.scale).tolist(), strict=True)),
            "scale": dict(zip(names, (hyperparameters.amplitudes * units.scale).tolist(), strict=True)),
            **left_out.figures(names),
        }
