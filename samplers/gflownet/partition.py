"""The learned log-partition: a number, or a function of the reward's exponent."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

DEGREE = 6


class LogPartition(nn.Module):
    """log Z of R^β: a Chebyshev series in log β over its range, one coefficient where β is fixed.

    log Z is analytic in β, so that a short series holds it. Every trajectory informs all of it, whatever its
    β, and the coefficients take the large learning rate that a log-partition needs.

    Args:
        bounds: Least and largest β; None where β is fixed.
    """

    def __init__(self, bounds: tuple[float, float] | None) -> None:
        super().__init__()
        self.bounds = bounds
        size = 1 if bounds is None else DEGREE + 1
        self.coefficients = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, beta: Tensor) -> Tensor:
        """log Z, `n`, float64, of exponents, `n`."""
        return (self._basis(beta) * self.coefficients).sum(dim=1)

    @torch.no_grad()
    def move(self, beta: Tensor, log_z: Tensor) -> None:
        """Shift and tilt the series to the least squares of values, `n`, at exponents, `n`.

        Higher coefficients stay: one batch of noisy values does not tell them.
        """
        missing, x = log_z - self(beta), self.scaled(beta)
        mean = missing.mean()
        # In closed form: a solver of LAPACK may give other last bits for the same numbers elsewhere in memory.
        spread = x - x.mean()
        slope = (spread * missing).sum() / spread.square().sum() if self.bounds else torch.zeros_like(mean)
        self.coefficients[:1].add_(mean - slope * x.mean())
        self.coefficients[1:2].add_(slope)

    def scaled(self, beta: Tensor) -> Tensor:
        """log β on [-1, 1], `n`; zero where β is fixed."""
        if self.bounds is None:
            return torch.zeros_like(beta)
        low, high = (math.log(bound) for bound in self.bounds)
        return 2.0 * (beta.log() - low) / (high - low) - 1.0

    def _basis(self, beta: Tensor) -> Tensor:
        """Chebyshev polynomials, `n x size`."""
        x = self.scaled(beta)
        columns = [torch.ones_like(x), x]
        while len(columns) < len(self.coefficients):
            columns.append(2.0 * x * columns[-1] - columns[-2])
        return torch.stack(columns[: len(self.coefficients)], dim=1)
