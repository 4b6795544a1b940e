"""Mixtures of Beta densities on the unit cube, the continuous part of a policy.

A component is a product of Beta densities with weights shared by all coordinates, so that a mixture
represents dependence between coordinates drawn in one step:

    p(u) = Σ_k w_k ∏_i Beta(u_i; 1 + κ_ki m_ki, 1 + κ_ki (1 - m_ki))

with mode m in (0, 1) and concentration κ in (0, κ_max). Both shape parameters are above 1 and bounded, so
every density is bounded: a policy can neither put infinite density on a face of the cube nor collapse to a
point. Mixtures of Betas as policies of a GFlowNet: Volokhova et al., "Towards equilibrium molecular
conformation generation with GFlowNets" (2023), and Mila AI4Science et al., "Crystal-GFN" (2023).

Restricted to an interval for each coordinate, a mixture is drawn from exactly, coordinate by coordinate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from activelearning.errors import SamplerError
from samplers.gflownet.intervals import Bounds, Interval

MAX_CONCENTRATION = 2000.0  # a standard deviation of 0.011 of the range, in its middle
U_MARGIN = 1e-6
# With less of its mass in an interval, a mixture says nothing about the interval: the draw is uniform there.
LEAST_MASS = 1e-12


def draw(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Indices, `n`, long, drawn in proportion to weights, `n x k`; never one of weight 0.

    The inverse of the cumulative sum is several times faster on small batches than `torch.multinomial`.

    Raises:
        SamplerError: a row has no positive, finite sum.
    """
    cumulative = weights.cumsum(dim=1)
    # In a small batch calls take more time than numbers: arrays of numpy and its ufuncs make the least ado.
    total = cumulative[:, -1:].detach().numpy()
    if not np.logical_and.reduce(total > 0.0, axis=None):
        raise SamplerError(
            "There is nothing to draw from: an environment's mask allows no action in a state that has not ended, "
            "or a network's outputs are not numbers, as after a training that diverged."
        )
    # In (0, 1], so that the threshold is above 0 and at most the sum, whatever the rounding.
    level = 1.0 - torch.rand(total.shape, dtype=weights.dtype, generator=generator).numpy()
    return torch.searchsorted(cumulative, torch.from_numpy(level * total)).squeeze(1)


@dataclass(frozen=True)
class BetaMixture:
    """A batch of mixtures.

    Attributes:
        log_weights: Normalised log weights, `n x k`, float64.
        alpha: First shape parameters, `n x k x c`, float64.
        beta: Second shape parameters, `n x k x c`, float64.
    """

    log_weights: Tensor
    alpha: Tensor
    beta: Tensor

    @classmethod
    def from_raw(cls, raw: Tensor, n_components: int, n_coordinates: int) -> BetaMixture:
        """Mixtures from a network's unbounded outputs, `n x (k + 2 k c)`."""
        raw = raw.double()
        weights, modes, concentrations = raw.split(
            [n_components, n_components * n_coordinates, n_components * n_coordinates], dim=1
        )
        shape = (-1, n_components, n_coordinates)
        mode = torch.sigmoid(modes).reshape(shape)
        concentration = MAX_CONCENTRATION * torch.sigmoid(concentrations).reshape(shape)
        above = concentration * mode
        return cls(weights.log_softmax(dim=1), 1.0 + above, 1.0 + concentration - above)

    @staticmethod
    def initial_raw(n_components: int, n_coordinates: int) -> Tensor:
        """Raw outputs, `k + 2 k c`, of a mixture that is near uniform and whose components differ.

        Along one coordinate the components are the Bernstein basis Beta(j, k + 1 - j), whose mean is the
        uniform density exactly. With more coordinates each has the basis in another order and with lower
        concentration.
        """
        order = torch.arange(n_components)
        # A stride coprime to k visits every component, so each coordinate has its own permutation.
        strides = [
            s
            for s in range(1, n_components + 1)
            if torch.gcd(torch.tensor(s), torch.tensor(n_components)) == 1
        ]
        columns = [
            (order * strides[i % len(strides)] + i // len(strides)) % n_components
            for i in range(n_coordinates)
        ]
        position = torch.stack(columns, dim=1).double()
        last = max(n_components - 1, 1)
        mode = (position / last).clamp(0.005, 0.995) if n_components > 1 else torch.full_like(position, 0.5)
        concentration = torch.full_like(mode, last / n_coordinates / MAX_CONCENTRATION)
        return torch.cat(
            [torch.zeros(n_components), mode.logit().flatten(), concentration.logit().flatten()]
        ).float()

    def log_prob(self, u: Tensor, drawn: Tensor) -> Tensor:
        """Log density, `n`, of u (`n x c`) over the coordinates drawn (`n x c`, bool); 0 where none is."""
        n, k, c = self.alpha.shape
        rows, columns = drawn.nonzero(as_tuple=True)
        if len(rows) == n * c:
            each = _log_beta_density(self.alpha, self.beta, u[:, None, :]).sum(dim=2)
            return torch.logsumexp(self.log_weights + each, dim=1)
        # Only what is drawn: a lattice has six coordinates, and most have one to three free.
        taken = rows * c + columns
        alpha = self.alpha.transpose(1, 2).reshape(n * c, k).index_select(0, taken)
        beta = self.beta.transpose(1, 2).reshape(n * c, k).index_select(0, taken)
        each = _log_beta_density(alpha, beta, u[rows, columns][:, None])
        return torch.logsumexp(self.log_weights.index_add(0, rows, each), dim=1)

    @torch.no_grad()
    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw of all coordinates, `n x c`, float64, inside the margin."""
        k = draw(self.log_weights.exp(), generator).numpy()
        rows = np.arange(len(k))
        # torch.distributions draws from the global generator only.
        a, b = (
            torch._standard_gamma(torch.from_numpy(shape.detach().numpy()[rows, k]), generator=generator)
            for shape in (self.alpha, self.beta)
        )
        return (a / (a + b)).clamp_(U_MARGIN, 1.0 - U_MARGIN)

    @torch.no_grad()
    def sample_within(
        self, bounds: Bounds, drawn: Tensor, generator: torch.Generator, *, order: Sequence[int] | None = None
    ) -> Tensor:
        """One draw, `n x c`, with every coordinate in an interval that may depend on those before it.

        Coordinate after coordinate: the components' weights are conditioned on what is drawn, a component is
        taken by its mass in the interval, a value by the inverse of its distribution function there.

        Args:
            bounds: Intervals of a coordinate, given those before it.
            drawn: Coordinates to draw, `n x c`, bool; the others are 0.5.
            generator: All randomness comes from it.
            order: Coordinates in the order of drawing; by default ascending.

        Raises:
            SamplerError: an interval is empty.
        """
        u = torch.full(drawn.shape, 0.5, dtype=torch.float64)
        for step in self._steps_within(u, bounds, drawn, order):
            level = torch.rand(len(step.rows), dtype=torch.float64, generator=generator)
            k = draw(step.weights, generator)[:, None]
            values = step.interval.value(level, step.alpha.gather(1, k)[:, 0], step.beta.gather(1, k)[:, 0])
            uniform = step.interval.low + level * step.interval.width
            u[step.rows, step.coordinate] = torch.where(step.is_bare, uniform, values)
        return u

    @torch.no_grad()
    def log_prob_within(
        self, u: Tensor, bounds: Bounds, drawn: Tensor, *, order: Sequence[int] | None = None
    ) -> Tensor:
        """Log density, `n`, with which `sample_within` draws u (`n x c`); -inf outside the intervals.

        It has no gradient: restrictions are for sampling.
        """
        log_prob = torch.zeros(len(u), dtype=torch.float64)
        # What `bounds` sees must be what it saw when u was drawn: coordinates to come at 0.5.
        seen = torch.full(drawn.shape, 0.5, dtype=torch.float64)
        for step in self._steps_within(seen, bounds, drawn, order):
            values = u[step.rows, step.coordinate]
            density = _log_beta_density(step.alpha, step.beta, values[:, None])
            inside = (step.log_posterior + density).logsumexp(dim=1) - step.log_mass
            found = torch.where(step.is_bare, -step.interval.width.log(), inside)
            log_prob[step.rows] += torch.where(step.interval.contains(values), found, -torch.inf)
            seen[step.rows, step.coordinate] = values
        return log_prob

    def _steps_within(
        self, u: Tensor, bounds: Bounds, drawn: Tensor, order: Sequence[int] | None
    ) -> Iterator[_Step]:
        """What each coordinate is drawn from; the caller writes its values to u before it asks for the next."""
        log_posterior = self.log_weights
        for j in range(drawn.shape[1]) if order is None else order:
            rows = drawn[:, j].nonzero().squeeze(1)
            if len(rows) == 0:
                continue
            interval = Interval.of(bounds, j, u, rows)
            alpha, beta = self.alpha[rows, :, j], self.beta[rows, :, j]
            posterior = log_posterior[rows].log_softmax(dim=1)
            weights = posterior.exp() * interval.mass(alpha, beta)
            mass = weights.sum(dim=1)
            is_bare = mass < LEAST_MASS
            weights = torch.where(is_bare[:, None], torch.ones_like(weights), weights)
            yield _Step(j, rows, interval, alpha, beta, posterior, weights, mass.log(), is_bare)
            density = _log_beta_density(alpha, beta, u[rows, j][:, None])
            log_posterior = log_posterior.index_add(0, rows, density)


class _Step(NamedTuple):
    """Conditional mixtures of one coordinate, for the rows that draw it."""

    coordinate: int
    rows: Tensor
    interval: Interval
    alpha: Tensor  # m x k
    beta: Tensor  # m x k
    log_posterior: Tensor  # log weights given the coordinates before, m x k
    weights: Tensor  # the same times mass in the interval, m x k
    log_mass: Tensor  # m
    is_bare: Tensor  # m: too little mass to tell one place in the interval from another


def _log_beta_density(alpha: Tensor, beta: Tensor, u: Tensor) -> Tensor:
    log_norm = torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(alpha + beta)
    return (alpha - 1.0) * u.log() + (beta - 1.0) * (-u).log1p() - log_norm
