"""Policy networks: a distribution over an environment's actions, forward and backward.

Networks may live on an accelerator. What goes in and comes out of every public method lies on the CPU, where
environments, draws and generators are; densities of continuous coordinates are taken there too, in double
precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from samplers.gflownet.mixture import BetaMixture


def masked_log_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities, `n x a`, of logits over the actions allowed by a mask; -inf elsewhere."""
    return torch.where(mask, logits, -torch.inf).log_softmax(dim=1)


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
            weight = torch.empty(layer.weight.shape)  # drawn on the CPU, whatever the device
            nn.init.kaiming_uniform_(weight, a=0.01, nonlinearity="leaky_relu", generator=generator)
            layer.weight.data.copy_(weight)
            nn.init.zeros_(layer.bias)


class _Network(nn.Module):
    """A trunk and a head, whose outputs are zero at initialisation."""

    def __init__(self, n_inputs: int, n_outputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.trunk = _mlp(n_inputs, hidden)
        self.width = hidden[-1] if hidden else n_inputs
        self.head = _linear(self.width, n_outputs)

    def reset(self, generator: torch.Generator) -> None:
        """Draw initial parameters."""
        _reset(self.trunk, generator)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def _features(self, inputs: Tensor) -> Tensor:
        weight = self.head.weight
        return self.trunk(inputs.to(device=weight.device, dtype=weight.dtype))


class _Policy(_Network):
    """A network over actions."""

    def _log_actions(self, features: Tensor, mask: Tensor) -> Tensor:
        return masked_log_softmax(self.head(features), mask.to(features.device))

    def _log_action(self, features: Tensor, mask: Tensor, actions: Tensor) -> Tensor:
        """Log-probability of one action a row, `n`, float64, on the CPU."""
        chosen = actions.to(features.device)[:, None]
        return self._log_actions(features, mask).gather(1, chosen).squeeze(1).cpu().double()


class ForwardPolicy(_Policy):
    """P_F: logits over actions, and a mixture of Betas over an action's continuous coordinates.

    The mixture depends on the state and not on the action: a state offers at most one action with a
    continuous part, or several that share one. At initialisation all allowed actions are equally likely and
    the density is near uniform.
    """

    def __init__(
        self,
        n_inputs: int,
        n_actions: int,
        n_continuous: int,
        *,
        hidden: Sequence[int],
        n_components: int,
    ) -> None:
        super().__init__(n_inputs, n_actions, hidden)
        self.n_components = n_components
        self.n_continuous = n_continuous
        n_raw = n_components * (1 + 2 * n_continuous)
        self.coordinates = _linear(self.width, n_raw) if n_continuous else None

    def reset(self, generator: torch.Generator) -> None:
        """Draw initial parameters."""
        super().reset(generator)
        if self.coordinates is not None:
            nn.init.zeros_(self.coordinates.weight)
            with torch.no_grad():
                self.coordinates.bias.copy_(BetaMixture.initial_raw(self.n_components, self.n_continuous))

    def forward(self, inputs: Tensor) -> Tensor:
        """Hidden features, `n x h`, on the networks' device, of encoded states, `n x n_inputs`."""
        return self._features(inputs)

    def log_actions(self, features: Tensor, mask: Tensor) -> Tensor:
        """Log-probabilities of actions, `n x n_actions`; -inf where the mask is False."""
        return self._log_actions(features, mask).cpu()

    def probabilities(self, features: Tensor, mask: Tensor) -> Tensor:
        """Probabilities of actions, `n x n_actions`; exactly 0 where the mask is False."""
        allowed = torch.where(mask.to(features.device), self.head(features), -torch.inf)
        return allowed.softmax(dim=1).cpu()

    def mixture(self, features: Tensor) -> BetaMixture:
        """Mixtures over the continuous coordinates."""
        assert self.coordinates is not None
        return BetaMixture.from_raw(self.coordinates(features).cpu(), self.n_components, self.n_continuous)

    def log_prob(self, inputs: Tensor, mask: Tensor, actions: Tensor, u: Tensor, drawn: Tensor) -> Tensor:
        """Log density, `n`, float64, of actions (`n`) with coordinates u (`n x c`), those that are `drawn`."""
        features = self(inputs)
        log_prob = self._log_action(features, mask, actions)
        if self.coordinates is None:
            return log_prob
        rows = drawn.any(dim=1).nonzero().squeeze(1)
        if len(rows) == 0:
            return log_prob
        density = self.mixture(features[rows.to(features.device)]).log_prob(u[rows], drawn[rows])
        return log_prob.index_add(0, rows, density)


class BackwardPolicy(_Policy):
    """P_B: logits over the last actions that may have led to a state; uniform over them at initialisation."""

    def __init__(self, n_inputs: int, n_actions: int, *, hidden: Sequence[int]) -> None:
        super().__init__(n_inputs, n_actions, hidden)

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Log-probabilities of last actions, `n x n_actions`; -inf where the mask is False."""
        return self._log_actions(self._features(inputs), mask).cpu()

    def log_prob(self, inputs: Tensor, mask: Tensor, actions: Tensor) -> Tensor:
        """Log-probability, `n`, float64, of last actions, `n`."""
        return self._log_action(self._features(inputs), mask, actions)


class StateFlow(_Network):
    """log F of states, as a share of the whole flow; zero at initialisation.

    It sees the mask beside the state: what can still be reached, which flows sum over, is often a jagged
    function of the state that the mask tells.
    """

    def __init__(self, n_inputs: int, n_actions: int, *, hidden: Sequence[int]) -> None:
        super().__init__(n_inputs + n_actions, 1, hidden)

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """log (F / Z), `n`, float64, of encoded states, `n x n_inputs`, with their masks, `n x n_actions`."""
        features = self._features(torch.cat([inputs, mask.to(inputs.dtype)], dim=1))
        return self.head(features).squeeze(1).cpu().double()
