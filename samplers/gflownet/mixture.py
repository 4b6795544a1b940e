"""Mixtures of Beta densities on the unit cube, the continuous part of a policy.

A component is a product of Beta densities with weights shared by all coordinates, so that a mixture
represents dependence between coordinates drawn in one step:

    p(u) = Σ_k w_k ∏_i Beta(u_i; 1 + κ_ki m_ki, 1 + κ_ki (1 - m_ki))

with mode m in (0, 1) and concentration κ in (0, κ_max). Both shape parameters are above 1 and bounded, so
every density is bounded: a policy can neither put infinite density on a face of the cube nor collapse to a
point. Mixtures of Betas as policies of a GFlowNet: Volokhova et al., "Towards equilibrium molecular
conformation generation with GFlowNets" (2023), and Mila AI4Science et al., "Crystal-GFN" (2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_CONCENTRATION = 2000.0  # a standard deviation of 0.011 of the range, in its middle
U_MARGIN = 1e-6


def draw(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Indices, `n`, long, drawn in proportion to weights, `n x k`, float64; never one of weight 0.

    The inverse of the cumulative sum is several times faster on small batches than `torch.multinomial`.
    """
    cumulative = weights.cumsum(dim=1)
    # In (0, 1], so that the threshold is above 0 and at most the sum, whatever the rounding.
    level = 1.0 - torch.rand(len(weights), 1, dtype=torch.float64, generator=generator)
    return (cumulative < level * cumulative[:, -1:]).sum(dim=1)


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
        alpha, beta, u = self.alpha, self.beta, u[:, None, :]
        each = (
            (alpha - 1.0) * u.log()
            + (beta - 1.0) * (-u).log1p()
            - (torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(alpha + beta))
        )
        each = torch.where(drawn[:, None, :], each, 0.0)
        return torch.logsumexp(self.log_weights + each.sum(dim=2), dim=1)

    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw of all coordinates, `n x c`, float64, inside the margin."""
        k = draw(self.log_weights.exp(), generator)
        index = k[:, None, None].expand(-1, 1, self.alpha.shape[2])
        alpha, beta = self.alpha.gather(1, index).squeeze(1), self.beta.gather(1, index).squeeze(1)
        # torch.distributions draws from the global generator only.
        a = torch._standard_gamma(alpha, generator=generator)
        b = torch._standard_gamma(beta, generator=generator)
        return (a / (a + b)).clamp(U_MARGIN, 1.0 - U_MARGIN)
