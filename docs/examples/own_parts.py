"""A space, a sampler and an acquisition of one's own, as a config names them by `own_parts.py:Class`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from activelearning.candidate import BoxCandidate, Candidate
from activelearning.contracts import AcquisitionContext, LogReward, Proposal
from activelearning.errors import ConfigError
from activelearning.spaces.box import BoxSpace


class LogBox(BoxSpace):
    """A box of positive parameters whose features, and so the surrogate's distances, are logarithmic."""

    def __init__(self, bounds: list[tuple[float, float]]) -> None:
        super().__init__(bounds)
        if any(lower <= 0 for lower, _ in self.bounds):
            raise ConfigError("space.bounds of a LogBox must be positive.")
        ends = torch.tensor(self.bounds, dtype=torch.float64).log()
        self._log_lower, self._log_width = ends[:, 0], ends[:, 1] - ends[:, 0]

    def features(self, candidates: Sequence[Candidate]) -> Tensor:
        """Logarithms of the parameters, scaled to [0, 1], `n x d`."""
        values = torch.tensor([self._values(candidate) for candidate in candidates], dtype=torch.float64)
        logs = values.reshape(-1, self.n_features).log()
        return ((logs - self._log_lower) / self._log_width).clamp(0.0, 1.0)

    def from_features(self, features: Tensor) -> list[BoxCandidate]:
        """Candidates at features `n x d`; `exp` may step over a bound by a rounding, so it is clamped."""
        values = (self._log_lower + features.detach().clamp(0.0, 1.0) * self._log_width).exp()
        lower, upper = torch.tensor(self.bounds, dtype=torch.float64).T
        return [BoxCandidate(tuple(row)) for row in values.clamp(lower, upper).tolist()]


class Resampler:
    """Draws from quasi-random points of a box in proportion to the reward, without replacement."""

    def __init__(self, space: BoxSpace, n_fidelities: int | None, n_points: int = 1024) -> None:
        self.space, self.n_fidelities, self.n_points = space, n_fidelities, n_points
        self._points: list[Proposal] = []
        self._log_rewards = torch.empty(0, dtype=torch.float64)

    def fit(self, log_reward: LogReward, *, seed: int) -> Mapping[str, Any]:
        """Score a fresh set of points."""
        self._points = self.sample_untrained(self.n_points, seed=seed)
        fidelities = [p.fidelity for p in self._points if p.fidelity is not None]
        self._log_rewards = log_reward([p.candidate for p in self._points], fidelities or None)
        return {"points": self.n_points}

    def sample(self, n: int, *, seed: int) -> list[Proposal]:
        """The n largest of the Gumbel-perturbed log rewards: a draw without replacement."""
        uniform = torch.rand(len(self._points), generator=torch.Generator().manual_seed(seed))
        perturbed = self._log_rewards - uniform.double().log().neg().log()
        order = perturbed.argsort(descending=True, stable=True)[:n]
        return [self._points[i] for i in order.tolist()]

    def sample_untrained(self, n: int, *, seed: int) -> list[Proposal]:
        """Scrambled Sobol points, each with a fidelity by turns."""
        engine = SobolEngine(self.space.n_features, scramble=True, seed=seed % 2**31)
        candidates = self.space.from_features(engine.draw(n, dtype=torch.float64))
        levels = self.n_fidelities
        return [Proposal(c, None if levels is None else i % levels) for i, c in enumerate(candidates)]

    def state_dict(self) -> dict[str, Any]:
        """Nothing outlives a round: `fit` starts afresh."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to take up."""


class LikelyImprovement:
    """Probability that x improves on the best, times how much the query tells of x at the target.

    The second factor is the squared posterior correlation between the query's answer and the target's at the
    same x: 1 at the target itself, near 0 for a fidelity that knows nothing of it.
    """

    def build(self, context: AcquisitionContext) -> "_LikelyImprovementScorer":
        """The scorer of one round."""
        return _LikelyImprovementScorer(context)


class _LikelyImprovementScorer:
    def __init__(self, context: AcquisitionContext) -> None:
        self._context = context
        self._pending = context.pending

    def __call__(self, X: Tensor) -> Tensor:
        context = self._context
        at_target = torch.cat([X[:, :-1], torch.full_like(X[:, -1:], float(context.target))], dim=-1)
        posterior: Any = context.model.posterior(torch.stack([X, at_target], dim=1))  # n x 2
        covariance = posterior.distribution.covariance_matrix
        variance = covariance.diagonal(dim1=-2, dim2=-1).clamp_min(1e-12)
        informative = covariance[:, 0, 1].square() / variance.prod(dim=-1)
        gain = posterior.mean[:, 1, 0] - (0.0 if context.best is None else context.best)
        gain = gain if context.maximize else -gain
        likely = torch.special.ndtr(gain / variance[:, 1].sqrt())
        return likely * informative * self._unlike_pending(X)

    def _unlike_pending(self, X: Tensor) -> Tensor:
        """Near 0 beside a query in flight at any fidelity, 1 far from all of them."""
        if not len(self._pending):
            return torch.ones(len(X), dtype=X.dtype)
        distance = torch.cdist(X[:, :-1], self._pending[:, :-1]).min(dim=1).values
        return 1.0 - torch.exp(-0.5 * (distance / 0.1).square())

    def add_pending(self, X: Tensor) -> None:
        """Keep further queries at a distance."""
        self._pending = torch.cat([self._pending, X])
