"""Policy networks: a distribution over an environment's actions, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from samplers.gflownet.mixture import BetaMixture


def masked_log_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities, `n x a`, float64, of logits over the actions allowed by a mask; -inf elsewhere."""
    return logits.double().masked_fill(~mask, -torch.inf).log_softmax(dim=1)


def _linear(n_inputs: int, n_outputs: int) -> nn.Linear:
    # The usual initialisation draws from the global generator; `reset` draws from a given one.
    return skip_init(nn.Linear, n_inputs, n_outputs)


def _mlp(n_inputs: int, hidden: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [_linear(n_inputs, width), nn.LeakyReLU()]
        n_inputs = width
    return nn.Sequential(*layers)


def _reset(trunk: nn.Sequential, generator: torch.Generator) -> None:
    for layer in trunk:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, a=0.01, nonlinearity="leaky_relu", generator=generator)
            nn.init.zeros_(layer.bias)


class ForwardPolicy(nn.Module):
    """P_F: logits over actions, and a mixture of Betas over an action's continuous coordinates.

    The mixture depends on the state and not on the action: a state offers at most one action with a
    continuous part, or several that share one. At initialisation all allowed actions are equally likely and
    the density is near uniform.
    """

    def __init__(
        self, n_inputs: int, n_actions: int, n_continuous: int, *, hidden: Sequence[int], n_components: int
    ) -> None:
        super().__init__()
        self.n_components = n_components
        self.n_continuous = n_continuous
        self.trunk = _mlp(n_inputs, hidden)
        width = hidden[-1] if hidden else n_inputs
        self.actions = _linear(width, n_actions)
        self.coordinates = _linear(width, n_components * (1 + 2 * n_continuous)) if n_continuous else None

    def reset(self, generator: torch.Generator) -> None:
        """Draw initial parameters."""
        _reset(self.trunk, generator)
        nn.init.zeros_(self.actions.weight)
        nn.init.zeros_(self.actions.bias)
        if self.coordinates is not None:
            nn.init.zeros_(self.coordinates.weight)
            with torch.no_grad():
                self.coordinates.bias.copy_(BetaMixture.initial_raw(self.n_components, self.n_continuous))

    def forward(self, inputs: Tensor) -> Tensor:
        """Hidden features, `n x h`, of encoded states, `n x n_inputs`."""
        return self.trunk(inputs)

    def log_actions(self, features: Tensor, mask: Tensor) -> Tensor:
        """Log-probabilities of actions, `n x n_actions`, float64; -inf where the mask is False."""
        return masked_log_softmax(self.actions(features), mask)

    def mixture(self, features: Tensor) -> BetaMixture:
        """Mixtures over the continuous coordinates."""
        assert self.coordinates is not None
        return BetaMixture.from_raw(self.coordinates(features), self.n_components, self.n_continuous)

    def log_prob(self, inputs: Tensor, mask: Tensor, actions: Tensor, u: Tensor, drawn: Tensor) -> Tensor:
        """Log density, `n`, float64, of actions (`n`) with coordinates u (`n x c`), those that are `drawn`."""
        features = self(inputs)
        log_prob = self.log_actions(features, mask).gather(1, actions[:, None]).squeeze(1)
        if self.coordinates is None:
            return log_prob
        rows = drawn.any(dim=1).nonzero().squeeze(1)
        if len(rows) == 0:
            return log_prob
        density = self.mixture(features[rows]).log_prob(u[rows], drawn[rows])
        return log_prob.index_add(0, rows, density)


class BackwardPolicy(nn.Module):
    """P_B: logits over the last actions that may have led to a state; uniform over them at initialisation."""

    def __init__(self, n_inputs: int, n_actions: int, *, hidden: Sequence[int]) -> None:
        super().__init__()
        self.trunk = _mlp(n_inputs, hidden)
        self.actions = _linear(hidden[-1] if hidden else n_inputs, n_actions)

    def reset(self, generator: torch.Generator) -> None:
        """Draw initial parameters."""
        _reset(self.trunk, generator)
        nn.init.zeros_(self.actions.weight)
        nn.init.zeros_(self.actions.bias)

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Log-probabilities of last actions, `n x n_actions`, float64; -inf where the mask is False."""
        return masked_log_softmax(self.actions(self.trunk(inputs)), mask)
