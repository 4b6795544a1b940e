"""A coregionalised Gaussian process over learned features.

The features x go through a small network before the kernel of `surrogates.coregionalised_gp` sees them,

    x → x + W_out tanh(… tanh(W_1 (x − ½) + b_1) …),

(Wilson, Hu, Salakhutdinov & Xing, *Deep kernel learning*, AISTATS 2016). The network adds to the features instead of
replacing them. Its hidden layers are drawn at random, once; weights have a Gaussian prior about those draws, and about
0 in the last layer: with few answers the process is the plain one, and it departs from it only as far as answers pay
for. (About 0 throughout, hidden layers and the last one would hold one another at 0.) Weights and hyper-parameters are
fitted together, to their greatest posterior density; without a tight prior such fits overfit (Ober, Rasmussen & van der
Wilk, *The promises and pitfalls of deep kernel learning*, UAI 2021).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from activelearning.contracts import Space
from activelearning.errors import ConfigError
from activelearning.fidelity import Fidelity
from surrogates.base import GaussianProcessSurrogate
from surrogates.coregionalised_gp import Hyperparameters
from surrogates.evidence import Groups, Parametrisation
from surrogates.hyperparameters import Coordinates, half_square

_WEIGHT_LIMITS = (-20.0, 20.0)


@dataclass(frozen=True)
class DeepKernelHyperparameters:
    """Hyper-parameters of the kernel, and the network before it.

    Attributes:
        kernel: Of the coregionalised kernel over learned features, in standardised units.
        layers: Weights `out x in` and biases `out` of the network's layers.
    """

    kernel: Hyperparameters
    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def noise(self) -> Tensor:
        """Variance of each fidelity's noise, `M`."""
        return self.kernel.noise

    @property
    def lengthscales(self) -> Tensor:
        """Lengthscales of the learned features, `d`."""
        return self.kernel.lengthscales

    @property
    def between(self) -> Tensor:
        """Covariance of g at one place between fidelities, `M x M`."""
        return self.kernel.between

    def learned(self, X: Tensor) -> Tensor:
        """Learned features and fidelity index, `... x n x (d + 1)`, of features and fidelity index."""
        x = X[..., :-1]
        hidden = x - 0.5
        for weight, bias in self.layers[:-1]:
            hidden = torch.tanh(hidden @ weight.T + bias)
        weight, bias = self.layers[-1]
        return torch.cat([x + hidden @ weight.T + bias, X[..., -1:]], dim=-1)

    def covariance(self, X: Tensor, Z: Tensor) -> Tensor:
        """Prior covariance, `... x n x m`; see `surrogates.priors.Prior`."""
        return self.kernel.covariance(self.learned(X), self.learned(Z))


@dataclass(frozen=True)
class DeepKernelCoordinates(Groups):
    """θ = (those of the coregionalised kernel, what the weights and biases differ by from where they start).

    Weights are in units of 1/√(number of inputs of their layer), so that one prior suits all widths.

    Attributes:
        kernel: Coordinates of the kernel.
        hidden: Widths of the hidden layers.
        weight_sigma: Standard deviation of the prior of weights and biases.
        seed: Of the hidden layers' start.
    """

    kernel: Coordinates
    hidden: tuple[int, ...]
    weight_sigma: float
    seed: int

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(outputs, inputs) of each layer."""
        d = self.kernel.n_features
        return [(out, into) for into, out in itertools.pairwise([d, *self.hidden, d])]

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of the kernel's hyper-parameters, and of the network's weights."""
        return (self.kernel.size, sum(out * (into + 1) for out, into in self.shapes))

    @cached_property
    def drawn(self) -> Tensor:
        """Weights and biases from which those of θ = 0 begin: standard normal in hidden layers, 0 in the last."""
        generator = torch.Generator().manual_seed(self.seed % 2**63)
        n_hidden = sum(out * (into + 1) for out, into in self.shapes[:-1])
        weights = torch.zeros(self.widths[1], dtype=torch.float64)
        weights[:n_hidden] = torch.randn(n_hidden, generator=generator, dtype=torch.float64)
        return weights

    def start(self, seed: int) -> Tensor:
        """θ at the prior's mode, where the process is the plain one, whatever the seed."""
        return torch.cat([self.kernel.start(seed), torch.zeros_like(self.drawn)])

    def limits(self) -> list[tuple[float, float]]:
        """Box of θ that keeps the model's linear algebra sound."""
        return self.kernel.limits() + [_WEIGHT_LIMITS] * self.widths[1]

    def scans(self) -> list[tuple[slice, tuple[float, ...]]]:
        """Those of the kernel."""
        return self.kernel.scans()

    def decode(self, theta: Tensor) -> DeepKernelHyperparameters:
        """Hyper-parameters and weights at θ; differentiable."""
        weights = self.drawn + theta[self.kernel.size :]
        layers = []
        start = 0
        for out, into in self.shapes:
            flat = weights[start : start + out * (into + 1)].reshape(out, into + 1)
            start += out * (into + 1)
            layers.append((flat[:, :into] / math.sqrt(into), flat[:, into]))
        return DeepKernelHyperparameters(self.kernel.decode(theta[: self.kernel.size]), tuple(layers))

    def negative_log_prior(self, theta: Tensor) -> Tensor:
        """−log prior density at θ, up to a constant."""
        kernel, weights = theta[: self.kernel.size], theta[self.kernel.size :]
        return self.kernel.negative_log_prior(kernel) + half_square(weights, self.weight_sigma)


class DeepKernelGP(GaussianProcessSurrogate):
    """Coregionalised Gaussian process over features that a small network learns.

    Args:
        space: Gives the features, `n x d`.
        fidelities: The campaign's fidelities, by index.
        hidden: Widths of the network's hidden layers.
        weight_sigma: Standard deviation of the prior of its weights: the smaller, the closer to the plain process.
        network_seed: Seed of the random hidden layers from which they are learned.
        **settings: As `GaussianProcessSurrogate`.

    Raises:
        ConfigError: hidden is no list of widths of at least 1, or weight_sigma is not positive; or as
            `GaussianProcessSurrogate`.
    """

    def __init__(
        self,
        space: Space,
        fidelities: Sequence[Fidelity],
        *,
        hidden: Sequence[int] = (16, 16),
        weight_sigma: float = 0.1,
        network_seed: int = 0,
        max_iterations: int = 60,
        cold_every: int = 10,
        size_limit: int = 1500,
        n_inducing: int | None = None,
    ) -> None:
        widths = isinstance(hidden, Sequence) and not isinstance(hidden, str) and len(hidden) > 0
        if not widths or not all(isinstance(width, int) and width >= 1 for width in hidden):
            raise ConfigError(
                f"surrogate.hidden must be a list of widths of at least 1, as [16, 16]; it is {hidden!r}."
            )
        if not 0.0 < weight_sigma < math.inf:
            raise ConfigError(f"surrogate.weight_sigma must be a positive number, not {weight_sigma}.")
        self.hidden = tuple(hidden)
        self.weight_sigma = float(weight_sigma)
        self.network_seed = network_seed
        super().__init__(
            space,
            fidelities,
            max_iterations=max_iterations,
            cold_every=cold_every,
            size_limit=size_limit,
            n_inducing=n_inducing,
        )

    def _parametrise(self) -> Parametrisation:
        kernel = Coordinates.of(self.space.n_features, len(self.fidelities), self.target)
        return DeepKernelCoordinates(kernel, self.hidden, self.weight_sigma, self.network_seed)

    def _signature(self) -> dict[str, Any]:
        return {
            "type": "deep_kernel",
            "n_features": self.space.n_features,
            "target": self.target,
            "n_fidelities": len(self.fidelities),
            "hidden": list(self.hidden),
            "network_seed": self.network_seed,
        }
